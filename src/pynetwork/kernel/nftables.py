"""The firewall of hosts with nftables: a skeleton loaded by ``nft`` once, elements by netlink ever after."""

from __future__ import annotations

import errno
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.errors import PortTakenError, UnavailableError
from pynetwork.kernel import guard, nfnetlink
from pynetwork.kernel.elements import pack
from pynetwork.kernel.firewall import RulesRefusedError
from pynetwork.kernel.netlink import NetlinkError
from pynetwork.kernel.nfnetlink import FAMILIES
from pynetwork.plan import Plan, Verb
from pynetwork.resources import PublishedPort, Rules, Ruleset
from pynetwork.resources.ruleset import SETS, USER, restoration, rule_counts, skeleton, table_name
from pynetwork.resources.stray import StrayElement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pynetwork.kernel.netlink import Message, NetlinkSocket
    from pynetwork.kernel.nfnetlink import Item
    from pynetwork.plan import Step
    from pynetwork.resources import Resource
    from pynetwork.resources.ruleset import Element

__all__ = ["NftablesFirewall", "find_nft"]

_NFT_SECONDS: Final = 30.0
_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})


def find_nft() -> str | None:
    """Return the path of the program ``nft``, None when it is not installed."""
    return shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin:/usr/local/sbin")


class NftablesFirewall:
    """
    Tables of our own, see :class:`~pynetwork.kernel.firewall.Firewall`.

    Args:
        instance: Hexadecimal id of the owner; its first digits are in the tables' name.
        home: Calls a function in the host's network namespace.
    """

    name = "nftables"

    def __init__(self, instance: str, home: Callable[[Callable[[], object]], object]) -> None:
        self._instance = instance[:8]
        self._table = table_name(instance)
        self._home = home
        self._lock = threading.Lock()
        self._opened: NetlinkSocket | None = None
        self._sets: set[str] = set()  # of claims

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """Take all of *steps*, or none, see :meth:`Firewall.apply`."""
        made = False
        for number, step in enumerate(steps):
            if isinstance(step.resource, Ruleset) and step.verb is not Verb.DELETE:
                made = self._load(number, step.resource)
        try:
            self._transact(steps, replay=replay)
        except BaseException:
            if made:
                self._delete_tables()
            raise
        if any(isinstance(step.resource, Ruleset) and step.verb is Verb.DELETE for step in steps):
            # Ports that went with the ruleset had no step of their own.
            guard.release_all(self._nft, self._instance)
            self._clear_away()

    def observe(self, expected: Plan) -> Plan:
        """Return what is there, see :meth:`Firewall.observe`."""
        is_wanted = any(isinstance(item, Ruleset | Rules) for item in expected)
        if not is_wanted:
            return Plan((Ruleset(),) if self._has_tables() else ())
        if not self._is_intact():
            return Plan()
        view = _View(self._nft, self._table)
        found = [item for item in expected if self._is_there(item, view)]
        known = {part for item in expected if isinstance(item, Rules) for part in _parts(item)}
        strays = (
            StrayElement(of=name, first=item.key.hex(), last=item.key_end.hex(), is_end=item.is_end)
            for name in SETS
            for item in view.items(name)
            if (name, item) not in known
        )
        return Plan((*found, *strays))

    def missing(self) -> tuple[str, ...]:
        """Return what somebody took away, see :meth:`Firewall.missing`."""
        return tuple(
            f"nftables table {family} {self._table} is gone"
            for family, number in FAMILIES.items()
            if not nfnetlink.has_table(self._nft, number, self._table)
        )

    def lines(self, step: Step) -> tuple[str, ...]:
        """Return *step* as lines of ``nft``, see :meth:`Firewall.lines`; claims have no comments."""
        resource, table = step.resource, self._table
        if not isinstance(resource, Ruleset | Rules | StrayElement):
            return ()
        if step.verb is Verb.DELETE:
            lines = resource.render_delete(table)
            return (*lines, *guard.lines(resource, "delete"))
        if isinstance(resource, Rules) and step.previous is not None:
            return resource.render_update(step.previous, table)
        lines = () if isinstance(resource, StrayElement) else resource.render(table)
        return (*guard.lines(resource, "add"), *lines)

    def remove(self) -> None:
        """Delete all that an instance of this id ever made."""
        if self._has_tables():
            self._delete_tables()
        guard.release_all(self._nft, self._instance)
        self._clear_away()

    def close(self) -> None:
        """Close the socket. Idempotent."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @property
    def _nft(self) -> NetlinkSocket:
        with self._lock:
            if self._opened is None:
                opened = self._home(nfnetlink.open_socket)
                self._opened = opened  # type: ignore[assignment]  # what the function returned
            return self._opened  # type: ignore[return-value]

    # The skeleton

    def _load(self, number: int, ruleset: Ruleset) -> bool:
        """Load the skeleton, unless it is there; returns whether there was nothing of it."""
        if self._is_intact():
            return False
        if not self._has_tables():
            self._feed(number, skeleton(self._table, ruleset.priority))
            return True
        # Somebody deleted a part of it. The user's own rules stay, and nothing passes meanwhile.
        try:
            self._feed(number, restoration(self._table, ruleset.priority))
        except RulesRefusedError:
            self._delete_tables()
            self._feed(number, skeleton(self._table, ruleset.priority))
        return False

    def _feed(self, number: int, text: str) -> None:
        """Have nft read *text*, for step *number*."""
        program = find_nft()
        if program is None:
            msg = "nftables rules need the program nft: install it (apt-get install nftables)"
            raise UnavailableError(msg)

        def load() -> subprocess.CompletedProcess[str]:
            return subprocess.run(  # noqa: S603 - our own text on its standard input
                [program, "-f", "-"],
                input=text,
                capture_output=True,
                text=True,
                timeout=_NFT_SECONDS,
                check=False,
            )

        done = self._home(load)
        if not isinstance(done, subprocess.CompletedProcess) or done.returncode:
            reason = getattr(done, "stderr", "").strip()
            raise RulesRefusedError(number) from NetlinkError(errno.EINVAL, f"nft: {reason}")

    def _is_intact(self) -> bool:
        """Whether both tables are there with all their chains and rules."""
        for family, chains in rule_counts().items():
            if not nfnetlink.has_table(self._nft, FAMILIES[family], self._table):
                return False
            found = nfnetlink.dump_chains(self._nft, FAMILIES[family], self._table)
            if any(found.get(chain, -1) < count for chain, count in chains.items()):
                return False
        return True

    def _has_tables(self) -> bool:
        return any(nfnetlink.has_table(self._nft, number, self._table) for number in FAMILIES.values())

    def _delete_tables(self) -> None:
        nfnetlink.transact(
            self._nft,
            [
                nfnetlink.delete_table(number, self._table)
                for number in FAMILIES.values()
                if nfnetlink.has_table(self._nft, number, self._table)
            ],
        )

    def _end(self) -> Iterator[Message]:
        """Yield what removes the tables, or all but what the user put into them."""
        inet = FAMILIES["inet"]
        is_used = nfnetlink.dump_chains(self._nft, inet, self._table).get(USER, 0) > 0
        for family, number in FAMILIES.items():
            if not nfnetlink.has_table(self._nft, number, self._table):
                continue
            if is_used and number == inet:
                for name, kind in SETS.items():
                    if kind.family == family:
                        yield nfnetlink.flush_set(number, self._table, name)
            else:
                yield nfnetlink.delete_table(number, self._table)

    def _clear_away(self) -> None:
        try:
            guard.remove_if_empty(self._nft)
        except NetlinkError as error:
            if error.errno not in {errno.ERESTART, errno.ENOENT}:  # somebody made or deleted something
                raise

    # Elements

    def _transact(self, steps: Sequence[Step], *, replay: bool) -> None:
        if replay or not self._transact_together(steps):
            self._transact_each(steps, replay=replay)

    def _transact_together(self, steps: Sequence[Step]) -> bool:
        """
        Take all of *steps* with one message for each set, if they are all of one kind.

        Returns:
            Whether that was done. Else nothing was: sets for claims may be missing, or what is refused
            should be told step by step.
        """
        verbs = {step.verb for step in steps}
        rules = [step.resource for step in steps if isinstance(step.resource, Rules)]
        if len(rules) < len(steps) or verbs not in ({Verb.CREATE}, {Verb.DELETE}):
            return False
        delete = verbs == {Verb.DELETE}
        ports = [rule for rule in rules if isinstance(rule, PublishedPort)]
        others = [rule for rule in rules if not isinstance(rule, PublishedPort)]
        messages: list[Message] = []
        for some in (ports, others) if delete else (others, ports):
            elements = [element for rule in some for element in rule.elements()]
            exclusive = some is ports and not delete
            ordered = reversed(elements) if delete else elements
            messages += self._messages(ordered, delete=delete, exclusive=exclusive)
        translated = [port for port in ports if port.nat]
        messages += guard.together(translated, self._instance, self._sets, delete=delete)
        try:
            nfnetlink.transact(self._nft, messages)
        except NetlinkError:
            self._sets.clear()
            return False
        return True

    def _transact_each(self, steps: Sequence[Step], *, replay: bool) -> None:
        messages: list[Message] = []
        of: list[int] = []
        for number, step in enumerate(steps):
            for message in self._compile(step, replay=replay):
                messages.append(message)
                of.append(number)
        if not messages:
            return
        try:
            nfnetlink.transact(self._nft, messages)
        except NetlinkError as error:
            number = of[max(0, getattr(error, "number", 0))]
            if error.errno == errno.ENOENT and replay and len(steps) > 1:
                self._one_by_one(steps)
            elif error.errno == errno.ENOENT and replay and steps[number].verb is Verb.DELETE:
                self._delete_what_is_left(steps[number])
            else:
                raise RulesRefusedError(number) from self._explained(error, steps[number])

    def _one_by_one(self, steps: Sequence[Step]) -> None:
        for number, step in enumerate(steps):
            try:
                self._transact_each((step,), replay=True)
            except RulesRefusedError as error:
                raise RulesRefusedError(number) from error.__cause__

    def _delete_what_is_left(self, step: Step) -> None:
        for message in self._compile(step, replay=True):
            try:
                nfnetlink.transact(self._nft, [message])
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise RulesRefusedError(0) from error

    def _compile(self, step: Step, *, replay: bool) -> Iterator[Message]:
        resource = step.resource
        if isinstance(resource, Ruleset):
            if step.verb is Verb.DELETE:
                yield from self._end()
            return
        if isinstance(resource, StrayElement):
            family = FAMILIES[SETS[resource.of].family]
            yield from nfnetlink.delete_elements(family, self._table, resource.of, [_item(resource)])
            return
        if not isinstance(resource, Rules):
            return
        if step.verb is Verb.DELETE:
            yield from self._messages(reversed(resource.elements()), delete=True)
            if isinstance(resource, PublishedPort) and resource.nat:
                yield from guard.release(resource, self._instance)
            return
        was = step.previous.elements() if isinstance(step.previous, Rules) else ()
        wanted = resource.elements()
        yield from self._messages((e for e in was if e not in wanted), delete=True)
        is_port = isinstance(resource, PublishedPort)
        if isinstance(resource, PublishedPort) and resource.nat and step.verb is Verb.CREATE:
            if replay:
                self._check_claim(resource)
            yield from guard.claim(resource, self._instance, exclusive=not replay)
        new = [element for element in wanted if element not in was]
        yield from self._messages(new, exclusive=is_port and not replay)

    def _messages(
        self, elements: Iterable[Element], *, delete: bool = False, exclusive: bool = False
    ) -> Iterator[Message]:
        """Yield messages for *elements*, those of one set together."""
        by_set: dict[str, list[Item]] = {}
        for element in elements:
            by_set.setdefault(element.of, []).extend(pack(element))
        for name, items in by_set.items():
            family = FAMILIES[SETS[name].family]
            if delete:
                yield from nfnetlink.delete_elements(family, self._table, name, items)
            else:
                yield from nfnetlink.add_elements(family, self._table, name, items, exclusive=exclusive)

    def _check_claim(self, port: PublishedPort) -> None:
        taken = guard.holder(self._nft, port, self._instance)
        if taken is not None:
            raise RulesRefusedError(0) from _taken(port, *taken)

    def _explained(self, error: NetlinkError, step: Step) -> Exception:
        resource = step.resource
        if error.errno in _TAKEN and isinstance(resource, PublishedPort):
            taken = guard.holder(self._nft, resource, self._instance)
            return error if taken is None else _taken(resource, *taken)
        return error

    def _is_there(self, item: Resource, view: _View) -> bool:
        if isinstance(item, Ruleset):
            return True
        if not isinstance(item, Rules):
            return False
        if (
            isinstance(item, PublishedPort)
            and item.nat
            and not guard.is_claimed(self._nft, item, self._instance)
        ):
            return False
        return all(part in view.items(name) for name, part in _parts(item))


@attrs.define
class _View:
    """The elements of a table's sets, each set dumped when first asked for."""

    nft: NetlinkSocket
    table: str
    _sets: dict[str, frozenset[Item]] = attrs.field(factory=dict)

    def items(self, name: str) -> frozenset[Item]:
        """Return the elements of a set."""
        if name not in self._sets:
            found = nfnetlink.dump_elements(self.nft, FAMILIES[SETS[name].family], self.table, name)
            if len(SETS[name].key) == 1 and SETS[name].interval:
                # The kernel keeps a beginning where nothing begins, so that there is always one.
                found = [item for item in found if not (item.is_end and not any(item.key))]
            self._sets[name] = frozenset(found)
        return self._sets[name]


def _parts(rules: Rules) -> list[tuple[str, Item]]:
    return [(element.of, item) for element in rules.elements() for item in pack(element)]


def _item(stray: StrayElement) -> Item:
    return nfnetlink.Item(bytes.fromhex(stray.first), bytes.fromhex(stray.last), is_end=stray.is_end)


def _taken(port: PublishedPort, number: int, owner: str) -> PortTakenError:
    where = "" if port.host is None else f" of {port.host}"
    return PortTakenError(
        f"port {number}/{port.proto}{where} is published already, by {owner}", proto=port.proto, port=number
    )
