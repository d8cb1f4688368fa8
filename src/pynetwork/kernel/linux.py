"""The real host: steps become netlink messages, one send for each namespace they touch in turn."""

from __future__ import annotations

import errno
import threading
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final

from pynetwork.errors import PynetworkError, UnavailableError
from pynetwork.kernel import facts, netns
from pynetwork.kernel.admission import Admission
from pynetwork.kernel.chunk import Chunk, Indexes, prepare_namespace
from pynetwork.kernel.compile import compile_step, create_bridge
from pynetwork.kernel.diagnosis import gather
from pynetwork.kernel.doomed import Doomed
from pynetwork.kernel.effects import Effects
from pynetwork.kernel.explain import check_privileges, explained
from pynetwork.kernel.failure import failure
from pynetwork.kernel.firewall import RulesRefusedError, is_of_firewall, open_firewall
from pynetwork.kernel.fresh import Fresh
from pynetwork.kernel.genetlink import has_family
from pynetwork.kernel.groups import Groups
from pynetwork.kernel.host_links import HostLinks
from pynetwork.kernel.identity import identity_of
from pynetwork.kernel.later import Later
from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.kernel.observe import Observer, Snapshot
from pynetwork.kernel.operations import Make
from pynetwork.kernel.ovs.place import default_directory
from pynetwork.kernel.ovs.steps import Together, is_of_switch, together
from pynetwork.kernel.peers import LinuxPeers
from pynetwork.kernel.port import Away
from pynetwork.kernel.reserving import ReservingFirewall
from pynetwork.plan import Plan, StepFailedError, Verb, diff
from pynetwork.resources import Bridge, Netns, Veth

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pynetwork.kernel.diagnosis import HostFacts
    from pynetwork.kernel.firewall import Firewall
    from pynetwork.kernel.operations import Operation
    from pynetwork.kernel.ovs.switch import Switch
    from pynetwork.kernel.spares import Opened
    from pynetwork.peers import Peers, Underlay
    from pynetwork.plan import Step
    from pynetwork.types import IPAddress

__all__ = ["LinuxKernel"]

_SPARES: Final = 24  # of 150 KiB and two descriptors each
_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL})


class LinuxKernel:
    """
    The host this process runs on, see :class:`~pynetwork.kernel.port.Kernel`.

    Links it makes carry their owner in their group, routes and addresses a protocol number, files of
    namespaces the end of their name. Its host is the network namespace of the thread that makes it.

    Args:
        instance: Hexadecimal id of the owner; two of different ids never touch each other's objects.
        netns_dir: Where namespaces are pinned.
        firewall: Name of the firewall that takes rules: ``nftables``, ``iptables``, ``none``, or ``auto``
            for what the host has.
        files_dir: Where the files of sandboxes are; beside *netns_dir* when None.
        ovs_directory: Where the sockets of Open vSwitch are; None for where its own programs look.

    Raises:
        UnavailableError: A privilege is missing.
    """

    def __init__(
        self,
        instance: str,
        netns_dir: Path,
        firewall: str = "auto",
        *,
        files_dir: Path | None = None,
        ovs_directory: Path | None = None,
    ) -> None:
        check_privileges()
        self._instance = instance
        self._firewall_name = firewall
        self._firewall: Firewall | None = None
        self._peers: LinuxPeers | None = None
        self._ovs_directory = ovs_directory or default_directory()
        self._switch: Switch | None = None
        self._opening = threading.Lock()
        # 27 bits of the id under a mark of ours; the lowest two tell the doomed from the living.
        self.group = 0x50000000 | (int(instance[:8], 16) & 0x0FFFFFFC)
        self._suffix = f".{instance[:8]}"
        self._directory = netns_dir
        self._has_directory = False
        self._files_dir = netns_dir.parent / "files" if files_dir is None else files_dir
        self.groups = Groups()
        self.namespaces = netns.Namespaces(prepare_namespace, spares=_SPARES)
        self.admission = Admission(instance, self.namespaces.home)
        self._bridges: Indexes = {}
        self._fresh = Fresh()
        self._host = NetlinkSocket()
        self._background = NetlinkSocket()  # for what takes long: nobody waits for its turn behind that
        self._later = Later()
        self._effects = Effects(self.namespaces, self._later, self._background)
        self.doomed = Doomed(self.group, self._later, self._background)
        self.links = HostLinks(self)
        self.doomed.delete_soon()  # what a process that died had handed over

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """Take *steps* in order, see :meth:`pynetwork.kernel.port.Kernel.apply`."""
        effects = [step for step in steps if step.verb is Verb.EMIT]
        if effects:
            self._effects.emit(effects)
            steps = [step for step in steps if step.verb is not Verb.EMIT]
        if not replay:
            self._take(steps)
            return
        number = 0
        for key, run in groupby(steps, key=_together):
            taken = list(run)
            for part in [taken] if key else [[step] for step in taken]:
                try:
                    self._retake(part)
                except RulesRefusedError as error:
                    done = steps[: number + error.number]
                    raise StepFailedError(steps[number + error.number], done) from error.__cause__
                except (OSError, PynetworkError) as error:
                    raise StepFailedError(part[0], steps[:number]) from error
                number += len(part)

    def observe(self, expected: Plan) -> Plan:
        """Return what is there, see :meth:`pynetwork.kernel.port.Kernel.observe`."""
        rules = Plan(item for item in expected if is_of_firewall(item))
        switched = Plan(item for item in expected if is_of_switch(item))
        rest = Plan(item for item in expected if not (is_of_firewall(item) or is_of_switch(item)))
        found = self._observe(rest)
        if rules or self._firewall is not None:
            found += self.firewall().observe(rules)
        return found + self._on_switch(switched)

    def _on_switch(self, expected: Plan) -> Plan:
        if not expected and self._switch is None and not (self._ovs_directory / "db.sock").exists():
            return Plan()
        try:
            return self.switch().observe(expected)
        except UnavailableError:
            if expected:
                raise
            return Plan()  # it is no loss to who has nothing there

    def _observe(self, expected: Plan) -> Plan:
        observer = Observer(
            namespaces=self.namespaces,
            host=lambda: Snapshot(self._host),
            group=self.group,
            directory=self._directory,
            suffix=self._suffix,
            files_dir=self._files_dir,
            groups=self.groups,
            admission=self.admission,
        )
        return observer.observe(expected)

    def lines(self, step: Step) -> tuple[str, ...] | None:
        """Return a step of the firewall as lines a user could type on this host; None for all others."""
        if not is_of_firewall(step.resource):
            return None
        try:
            return self.firewall().lines(step)
        except UnavailableError:  # said when a network needs it
            return None

    def peers(self, bridge: str | None = None) -> Peers:
        """Return what tells the host of endpoints on others: with *bridge*, that bridge of Open vSwitch."""
        with self._opening:
            if bridge is not None:
                return self._switch_opened().peers(bridge)
            if self._peers is None:
                self._peers = LinuxPeers(self.admission, self.namespaces.home)
            return self._peers

    def tells_senders(self) -> bool:
        """Whether it can tell which host a VXLAN packet comes from, as strict networks need it."""
        return self.admission.is_possible()

    def check(self, steps: Iterable[Step]) -> None:
        """Check that what takes *steps* is there, before any is taken, see :class:`~.port.Checking`."""
        if any(is_of_switch(step.resource) for step in steps):
            self.switch().check()

    def away(self, expected: Plan) -> Away:
        """Return what of *expected* cannot be looked at now, see :class:`~.port.Checking`."""
        keys = frozenset(item.key for item in expected if is_of_switch(item))
        reason = self.switch().reason() if keys else ""
        return Away(keys, reason) if reason else Away()

    def has_switch_module(self) -> bool:
        """Whether the kernel can forward for an Open vSwitch, which names such a type in any case."""
        return has_family("ovs_datapath")

    def check_switch(self, link: str | None = None) -> None:
        """Check that the host's Open vSwitch can be told of changes, see :meth:`.ovs.switch.Switch.check`."""
        self.switch().check(link)

    def namespace_id(self, path: str | None) -> object:
        """Return what identifies a network namespace; None when *path* is none."""
        return identity_of(self.namespaces.home_path if path is None else path)

    def underlay(self, vtep: IPAddress | None) -> Underlay:
        """Return how the host reaches others, see :func:`pynetwork.kernel.facts.underlay`."""
        return self.namespaces.home(partial(facts.underlay, vtep))

    def missing(self, strict: Iterable[int] = ()) -> tuple[str, ...]:
        """
        Return in words what somebody took away of the firewall, as far as one cheap look tells.

        Args:
            strict: VNIs of the networks that should be strict.
        """
        lost = [vni for vni in strict if not self.admission.is_strict(vni)]
        return (
            *self.firewall().missing(),
            *(f"VNI {vni} is strict no more, in the table of nftables for VXLAN packets" for vni in lost),
        )

    def diagnosed(self) -> HostFacts:
        """Return what of the host's own settings may be in the way."""
        return self.namespaces.home(gather)

    def retire(self, firewall: str) -> None:
        """Remove all rules that the firewall of that name has of this instance: another takes over."""
        other = open_firewall(firewall, self._instance, self.namespaces.home)
        try:
            other.remove()
        finally:
            other.close()

    def flush(self) -> None:
        """Wait until all that was deleted is gone, by whichever process of this instance."""
        self.doomed.delete_now()
        self._later.flush()

    def close(self) -> None:
        """Finish what was put off and release everything. Idempotent."""
        self._later.close()
        if self._firewall is not None:
            self._firewall.close()
        self._effects.close()
        if self._peers is not None:
            self._peers.close()
        if self._switch is not None:
            self._switch.close()
        self.admission.close()
        self._fresh.close()
        self.namespaces.close()
        self._host.close()
        self._background.close()

    # Steps

    def _take(self, steps: Sequence[Step]) -> None:
        """Take *steps*, consecutive operations in one namespace at once."""
        operations = [
            (number, operation)
            for number, step in enumerate(steps)
            for operation in compile_step(step, group=self.group)
        ]
        places = {operation.place for _, operation in operations}
        places.update(step.resource.netns for step in steps if isinstance(step.resource, Veth))
        places.update(step.resource.path for step in steps if isinstance(step.resource, Netns))
        opened = self._fresh.take(places)
        try:
            self._run(steps, operations, opened)
        finally:
            for path, each in opened.items():
                if any(
                    isinstance(operation, Make) and operation.place == path for _, operation in operations
                ):
                    self._fresh.keep(path, each)
                else:
                    each.close()

    def _run(
        self,
        steps: Sequence[Step],
        operations: Sequence[tuple[int, Operation]],
        opened: dict[str, Opened],
    ) -> None:
        done: set[int] = set()
        indexes = dict(self._bridges)
        for step in steps:
            if isinstance(step.resource, Bridge):  # made anew after somebody deleted it, perhaps
                indexes.pop((None, step.resource.name), None)
        for place, run in groupby(range(len(operations)), key=lambda at: operations[at][1].place):
            positions = list(run)
            outcome = Chunk(self, place, [operations[at][1] for at in positions], indexes, opened).run()
            done.update(positions[position] for position in outcome.done)
            if outcome.error is not None:
                self._bridges = {}
                number = operations[positions[outcome.failed]][0]
                raise failure(steps, number, operations, done) from explained(outcome.error, steps[number])
        self.links.made.update(
            step.resource.name
            for step in steps
            if step.verb is Verb.CREATE and isinstance(step.resource, Veth)
        )
        # A bridge keeps its ifindex for life, and no other link ever gets it.
        self._bridges = {key: index for key, index in indexes.items() if key[0] is None}

    def _retake(self, steps: Sequence[Step]) -> None:
        """Take a step that may have been taken before, or several of the firewall."""
        step = steps[0]
        resource = step.resource
        if is_of_firewall(resource) or is_of_switch(resource):
            taker = self.firewall() if is_of_firewall(resource) else self.switch()
            taker.apply(steps, replay=True)
            return
        if step.verb is Verb.CREATE and isinstance(resource, Netns) and netns.is_pinned(resource.path):
            return
        try:
            self._take((step,))
        except StepFailedError as error:
            cause = error.__cause__
            code = cause.errno if isinstance(cause, OSError) else None
            if step.verb is Verb.DELETE and code in _GONE:
                return
            if step.verb is Verb.DELETE or code not in {errno.EEXIST, *_GONE}:
                raise (cause or error) from None
            self._make_as_wanted(step)

    def _make_as_wanted(self, step: Step) -> None:
        resource = step.resource
        found = [item for item in self._observe(Plan((resource,))) if item.key == resource.key]
        if not found and isinstance(resource, Netns):
            netns.unpin(resource.path)  # a file without a namespace on it, left by a crash or a reboot
        try:
            # What was in the way and is not found may have gone meanwhile; somebody else's is still there.
            self._take(diff(Plan(found), Plan((resource,))))
        except StepFailedError as again:
            raise (again.__cause__ or again) from None

    # What a chunk needs of its host

    def firewall(self) -> Firewall:
        """Return the host's firewall, chosen when it is first needed."""
        with self._opening:
            if self._firewall is None:
                rules = open_firewall(self._firewall_name, self._instance, self.namespaces.home)
                self._firewall = ReservingFirewall(rules, self._instance, self.namespaces.home)
            return self._firewall

    def switch(self) -> Switch:
        """Return the host's Open vSwitch, sought when it is first needed."""
        with self._opening:
            return self._switch_opened()

    def _switch_opened(self) -> Switch:
        if self._switch is None:
            from pynetwork.kernel.ovs.switch import Switch

            self._switch = Switch(self._ovs_directory, self._instance, self.links.index, self.namespaces.home)
        return self._switch

    def prepare_directory(self) -> None:
        """Make the directory of namespaces, once."""
        if not self._has_directory:
            if self._directory == netns.IP_NETNS:
                self._directory.mkdir(mode=0o755, exist_ok=True)
            else:
                netns.make_directory(self._directory)
            self._has_directory = True

    @property
    def host(self) -> NetlinkSocket:
        """The socket of the host's own namespace."""
        return self._host

    def make_bridge(self, bridge: Bridge) -> None:
        """Make a bridge; raise why it cannot be."""
        outcome = Chunk(self, None, create_bridge(bridge, self.group), {}, {}).run()
        if outcome.error is not None:
            raise outcome.error

    def reap(self, bridge: str | None = None) -> None:
        """Have the doomed links deleted soon; the ifindex of *bridge* is known no more."""
        if bridge is not None:
            self._bridges.pop((None, bridge), None)
        self.doomed.delete_soon()


def _together(step: Step) -> Together | None:
    """Return what steps have in common that are taken as one; None for those that are taken one by one."""
    return ("firewall", "") if is_of_firewall(step.resource) else together(step)
