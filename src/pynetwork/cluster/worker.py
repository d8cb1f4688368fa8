"""What an agent does, step by step; its threads are elsewhere, and tests need none."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.cluster.followed import Followed
from pynetwork.cluster.here import Here, HereView
from pynetwork.cluster.layout import peer_key, peer_of, read, read_text
from pynetwork.cluster.names import PeerNames
from pynetwork.cluster.renaming import NetworkNames
from pynetwork.cluster.status import PeerProbe
from pynetwork.cluster.upkeep import regain_all, stand_down, stand_up, tidy
from pynetwork.cluster.watching import Listed
from pynetwork.drivers.overlay import vni_of
from pynetwork.errors import PynetworkError, UnavailableError
from pynetwork.log import logger
from pynetwork.peers import Change, Peer, PeerTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pynetwork.cluster.followed import Ids
    from pynetwork.cluster.ledger import Ledger
    from pynetwork.cluster.member import Member
    from pynetwork.cluster.reaper import Reaper
    from pynetwork.core import Core
    from pynetwork.peers import Peers, Underlay
    from pynetwork.store import Change as StoreChange
    from pynetwork.store import Lease, Snapshot

__all__ = ["Worker"]

_MOST_UPKEEP_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 1.0


class Worker:
    """
    Announces what this host has joined, and tells its datapath what others have.

    Args:
        core: The instance.
        ledger: The books of the cluster.
        member: This host, as the others see it.
        reaper: Looks for hosts that are gone.
        peers: The datapath.
        underlay: How the others reach this host.
        is_being_made: Whether this process is about to make the endpoint of an id.
        mend: Puts back what somebody took away of this host's own rules; raises nothing.

    Attributes:
        is_behind: Whether something of this host could not be done: it is tried again.
        quarantined: Ids of endpoints that are not announced, because others have by now what was theirs.
        probes: What came of the last probes of other hosts, by name.
    """

    def __init__(
        self,
        *,
        core: Core,
        ledger: Ledger,
        member: Member,
        reaper: Reaper,
        peers: Peers,
        underlay: Underlay,
        is_being_made: Callable[[str], bool],
        mend: Callable[[], object],
    ) -> None:
        self._core = core
        self._ledger = ledger
        self._member = member
        self._reaper = reaper
        self._peers = peers
        self._underlay = underlay
        self._is_being_made = is_being_made
        self._mend = mend
        self._names = PeerNames(core)
        self._called = NetworkNames()
        self._lock = threading.RLock()
        self._followed: dict[str, Followed] = {}
        self._announced: dict[Ids, Peer] = {}
        self._admitted: dict[int, frozenset[str]] | None = None
        self._here = HereView(core, ledger.host, underlay.vtep)
        self._is_news = True  # something of this host is otherwise than it was at the last look
        core.records.followers.append(self._note)
        self._is_active = False
        self._upkeep_due = 0.0
        self._retry_due = 0.0
        self.is_behind = False
        self.quarantined: set[str] = set()
        self.probes: Mapping[str, PeerProbe] = {}

    @property
    def lease(self) -> Lease | None:
        """What is announced ends with it."""
        return self._member.lease

    def followed(self, network: str) -> Followed | None:
        """Return what is known of the others in a network, if this host has a part in it."""
        with self._lock:
            found = self._followed.get(network)
            return None if found is None else attrs.evolve(found, local=set(found.local))

    def probe(self) -> Mapping[str, PeerProbe]:
        """
        Send packets of the full size to the hosts that are followed.

        Returns:
            What came of it by name, which :attr:`probes` says from now on.
        """
        with self._lock:
            hosts = {p.host: p.vtep for f in self._followed.values() for p, _ in f.records.values()}
        ask = getattr(self._peers, "probe", None)
        if ask is None or not hosts:
            return {}
        now = self._core.surroundings.clock()
        found = ask(hosts.values(), self._underlay.mtu)
        self.probes = {host: PeerProbe(reached=found[vtep], time=now) for host, vtep in hosts.items()}
        return self.probes

    def stand_up(self) -> bool:
        """Be the one agent of this host, unless another live process is; returns whether it is."""
        self._is_active = self._is_active or stand_up(self._core)
        return self._is_active

    def stand_down(self) -> None:
        """Leave the work to another process of this host."""
        if self._is_active:
            self._is_active = False
            with self._core.reading():
                is_in_none = not self._here.find(self.quarantined).networks
            if is_in_none:
                self._followed.clear()
                self._admit()
            stand_down(self._core)

    def register(self) -> Lease:
        """
        Register this host, anew if need be, and announce all that it has joined.

        What a host has stays its own for a time when it is not heard of. An endpoint whose name or address
        is another's by now is put in quarantine: it is not announced.

        Raises:
            ConflictError: Another host has this one's name.
            StoreError: The store does not answer.
        """
        with self._lock:
            lease = self._member.register()
            self.quarantined = set(regain_all(self._core, self._ledger, self._is_being_made))
            self._announced = {}
            self._is_news = True
            self._names.forget_others()
            for network in list(self._followed):  # a host that was away may have missed anything
                self.take(Listed(network, self._ledger.store.list(peer_key(network))))
            self._withdraw()
            self.look()
            return lease

    # Steps

    def look(self, *, repair: bool = False) -> bool:
        """
        Look at what this host has joined: announce what is new, follow the networks it is in.

        Args:
            repair: Look at what the datapath has, too.

        Returns:
            Whether there was anything new.

        Raises:
            NotFoundError: The lease has ended: register again.
            StoreError: A store does not answer.
        """
        with self._lock:
            if not self._is_active:
                return False
            with self._core.reading():
                is_news = self._is_news or self.is_behind
                here = self._here.find(self.quarantined) if is_news else Here()
                # Nothing is written when a request is done, at first.
                self._is_news = here.is_unfinished
            if is_news:
                self.is_behind = True  # until all of it is done
                self._follow(here)
                self._announce({ids: peer for ids, peer in here.joined.items() if ids not in here.pending})
                self.is_behind = False
            if repair:
                for followed in self._followed.values():
                    self._reconcile(followed)
            return is_news

    def networks(self) -> dict[str, tuple[int, int]]:
        """Return the networks that are followed: id to when they came to this host, and were looked at."""
        with self._lock:
            return {identity: (each.made, each.since) for identity, each in self._followed.items()}

    def forget(self, network: str) -> None:
        """Follow a network anew at the next look, if it is followed."""
        with self._lock:
            self._followed.pop(network, None)
            self._is_news = True

    def take(self, news: Listed | StoreChange) -> None:
        """Take in what others have joined, all in a network or one change; or what networks are called."""
        with self._lock:
            if not self._is_active:
                return
            if self._called.take(news):
                self._called.follow(self._core)
                return
            if isinstance(news, Listed):
                self._take_all(news.network, news.snapshot)
                return
            network, endpoint = peer_of(news.key)
            followed = self._followed.get(network)
            if followed is None or news.revision <= followed.since or endpoint in followed.local:
                return
            peer = None if news.value is None else read_text(Peer, news.key, news.value)
            self._tell(followed, self._put(followed, endpoint, peer, news.revision))
            self._names.note(network, endpoint, peer)

    def finish(self) -> None:
        """Do what is done once for many changes: write names down, say whose packets are taken."""
        with self._lock:
            if self._is_active:
                self._admit()
                self._names.flush()

    def _admit(self) -> None:
        members = {followed.vni: followed.table.vteps for followed in self._followed.values()}
        admit = getattr(self._peers, "admit", None)  # a switch may know by what it is told anyway
        if admit is None or _is_same(members, self._admitted):
            return
        try:
            admit(self._underlay.port, members)
        except UnavailableError as error:
            if not self._admitted:
                logger().warning("%s", error)
        self._admitted = members

    def keep_up(self, *, now: bool = False) -> None:
        """Do what is due: tell the datapath again what it could not be told, repair, look for dead hosts."""
        with self._lock:
            if not self._is_active:
                return
            time_now = time.monotonic()
            behind = [followed for followed in self._followed.values() if followed.is_behind]
            if behind and (now or time_now >= self._retry_due):
                self._retry_due = time_now + _RETRY_SECONDS
                for followed in behind:
                    self._reconcile(followed)
            if not now and time_now < self._upkeep_due:
                return
            self._upkeep_due = time_now + min(_MOST_UPKEEP_SECONDS, self._reaper.grace / 4)
        self._mend()  # may wait for requests of this host: meanwhile others can ask what is known
        with self._lock:
            self.look(repair=True)  # a strict network that was put back takes nothing before
            tidy(self._core, self._ledger, self._is_being_made, self._called.by_id())
            if self.lease is not None:
                self._reaper.run(self.lease)

    # What this host has

    def _note(self, key: str, _: object) -> None:
        """Note that a record was changed: by any process of this host, in any thread that has the tables."""
        if not key.startswith("peer/"):  # which are of others, and written by the agent
            self._is_news = True

    def _announce(self, joined: Mapping[Ids, Peer]) -> None:
        new = {ids: peer for ids, peer in joined.items() if self._announced.get(ids) != peer}
        left = tuple(ids for ids in self._announced if ids not in joined)
        if new or left:
            self._member.announce(new, left)
            self._announced = dict(joined)

    def _withdraw(self) -> None:
        """Withdraw what an earlier agent of this host has announced, and has left since."""
        held = [(holding.network, holding.endpoint) for holding in self._ledger.holdings()]
        with self._core.reading():
            joined = self._here.find(self.quarantined).joined
        self._member.announce({}, tuple(ids for ids in held if ids not in joined))

    # What the others have

    def _follow(self, here: Here) -> None:
        """Follow the networks of this host alone; its own endpoints are known before any record of them."""
        networks, joined = here.networks, here.joined
        for identity, followed in list(self._followed.items()):
            row = networks.get(identity)
            if row is None or row.revision != followed.made:
                del self._followed[identity]
                self._names.replace(identity, {})
        local: dict[str, dict[str, Peer]] = {}
        for (network, endpoint), peer in joined.items():
            local.setdefault(network, {})[endpoint] = peer
        for identity, row in networks.items():
            known = self._followed.get(identity)
            mine = local.get(identity, {})
            if known is None:
                table = PeerTable(self._ledger.host, flood=bool(getattr(row.spec.options, "bum", False)))
                followed = Followed(vni_of(row.spec), row.revision, table)
                _put_local(followed, mine)
                snapshot = self._ledger.store.list(peer_key(identity))
                for entry in snapshot.entries:
                    self._put(followed, peer_of(entry.key)[1], read(Peer, entry), entry.revision)
                followed.since = snapshot.revision
                self._names.replace(identity, {key: peer for key, (peer, _) in followed.records.items()})
                self._followed[identity] = followed  # once nothing else of it can fail: it is not done again
                self._reconcile(followed, is_new=True)
            elif known.local != mine.keys():
                for change in _put_local(known, mine):
                    self._tell(known, change)

    def _put(self, followed: Followed, endpoint: str, peer: Peer | None, revision: int) -> Change:
        """Enter a record. What is said of this very host is known better from its own records."""
        if endpoint in followed.local:
            return Change()
        if peer is not None and peer.host == self._ledger.host:
            peer = None
        return followed.table.put(endpoint, peer, revision)

    def _take_all(self, network: str, snapshot: Snapshot) -> None:
        """Take in all that is joined in a network."""
        followed = self._followed.get(network)
        if followed is None or followed.since >= snapshot.revision:
            return
        there = {peer_of(entry.key)[1]: entry for entry in snapshot.entries}
        for endpoint in followed.table.peers.keys() - there.keys() - followed.local:
            self._tell(followed, self._put(followed, endpoint, None, snapshot.revision))
        for endpoint, entry in there.items():
            if followed.table.revision(endpoint) != entry.revision:  # most are known, and not read
                self._tell(followed, self._put(followed, endpoint, read(Peer, entry), entry.revision))
        followed.since = snapshot.revision
        self._names.replace(network, {key: peer for key, (peer, _) in followed.records.items()})

    def _tell(self, followed: Followed, change: Change) -> None:
        if not change or followed.is_behind:
            return
        try:
            self._peers.apply(followed.vni, change)
        except (OSError, PynetworkError) as error:  # such as a switch that has no room
            logger().warning("VNI %d is behind, and tried again: %s", followed.vni, error)
            followed.is_behind = True

    def _reconcile(self, followed: Followed, *, is_new: bool = False) -> None:
        try:
            wrong = self._peers.reconcile(followed.vni, set(followed.table.entries()))
        except (OSError, PynetworkError) as error:
            if not followed.is_behind:
                logger().warning("VNI %d is behind, and tried again: %s", followed.vni, error)
            followed.is_behind = True
            return
        if wrong and not is_new:
            logger().info("VNI %d: %d entries were put right", followed.vni, wrong)
        followed.is_behind = False


def _is_same(members: dict[int, frozenset[str]], others: dict[int, frozenset[str]] | None) -> bool:
    """Return whether two say the same; this is asked at each event, and sets of many hosts are long."""
    return (
        others is not None
        and members.keys() == others.keys()
        and all(members[vni] is others[vni] or members[vni] == others[vni] for vni in members)
    )


def _put_local(followed: Followed, mine: Mapping[str, Peer]) -> list[Change]:
    """Enter the endpoints of this host, and return what changes for the datapath."""
    changes = [followed.table.put(gone, None, 0) for gone in followed.local - mine.keys()]
    changes += [followed.table.put(new, mine[new], 0) for new in mine.keys() - followed.local]
    followed.local = set(mine)
    return changes
