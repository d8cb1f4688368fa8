"""The firewall of hosts with iptables: steps become edits of tables, made by a worker for each family."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from pynetwork.errors import InvalidValueError, PortTakenError, PynetworkError, UnavailableError
from pynetwork.kernel import sysctl
from pynetwork.kernel.firewall import RulesRefusedError
from pynetwork.kernel.iptables import layout
from pynetwork.kernel.iptables.client import Worker, WorkerLostError
from pynetwork.kernel.iptables.lines import lines
from pynetwork.kernel.iptables.rules import key_text, rules_of, versions_of
from pynetwork.kernel.iptables.values import mark
from pynetwork.kernel.iptables.view import View
from pynetwork.log import logger
from pynetwork.plan import Plan, Verb
from pynetwork.resources import EndpointRules, PublishedPort, Rules, Ruleset
from pynetwork.resources.stray import StrayRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pynetwork.kernel.iptables.wire import Message
    from pynetwork.plan import Step

__all__ = ["IptablesFirewall"]

Edits = dict[str, list[dict[str, Any]]]


class IptablesFirewall:
    """
    Chains of our own in the tables of iptables, see :class:`~pynetwork.kernel.firewall.Firewall`.

    Written with python-iptables, so it is the older of the two things called iptables, which
    ``iptables-legacy`` shows, that gets them. ``PYNETWORK-USER-<first eight digits of the instance>``
    in the table filter is the user's: what is forwarded is first seen there, and its rules are kept.

    Args:
        instance: Hexadecimal id of the owner; its first digits are in the names of the chains.
        home: Calls a function in the host's network namespace.
    """

    name = "iptables"

    def __init__(self, instance: str, home: Callable[[Callable[[], object]], object]) -> None:
        self._instance = instance[:8]
        self._workers = {version: Worker(version, home) for version in (4, 6)}

    def apply(self, steps: Sequence[Step], *, replay: bool = False) -> None:
        """Take all of *steps*, or none, see :meth:`Firewall.apply`."""
        transactions: dict[int, Edits] = {}
        for number, step in enumerate(steps):
            try:
                self._compile(number, step, transactions, replay=replay)
            except PynetworkError as error:
                raise RulesRefusedError(number) from error
        is_end = all(step.verb is Verb.DELETE for step in steps)
        undo: dict[tuple[int, str], Message] = {}
        try:
            for version, edits in sorted(transactions.items()):
                self._transact(version, edits, steps, undo, is_end=is_end)
        except BaseException as error:
            self._take_back(undo, error)
            raise

    def observe(self, expected: Plan) -> Plan:
        """Return what is there, see :meth:`Firewall.observe`."""
        is_wanted = any(isinstance(item, Ruleset | Rules) for item in expected)
        views = [self._view(version) for version in _versions()]
        if not is_wanted:
            return Plan((Ruleset(),) if any(view.has_chains() for view in views) else ())
        if not all(view.has_skeleton() for view in views):
            return Plan()
        found = [item for item in expected if self._is_there(item, views)]
        wanted = {
            mark(self._instance) + text
            for text in (layout.RULESET, *(key_text(i.key) for i in expected if isinstance(i, Rules)))
        }
        strays = (
            StrayRules(version=view.version, comment=key)
            for view in views
            for key in sorted(view.keys() - wanted)
        )
        return Plan((*found, *strays))

    def missing(self) -> tuple[str, ...]:
        """Return what somebody took away, see :meth:`Firewall.missing`."""
        return tuple(
            f"of iptables for IPv{version}, {text}"
            for version in _versions()
            for text in self._view(version).missing()
        )

    def lines(self, step: Step) -> tuple[str, ...]:
        """Return *step* as lines of ``iptables``, see :meth:`Firewall.lines`."""
        return lines(step, self._instance, _versions())

    def remove(self) -> None:
        """Delete all that an instance of this id ever made, the user's own rules excepted."""
        for version in _versions():
            edits = {table: [self._end(table)] for table in reversed(layout.TABLES)}
            self._transact(version, edits, (), {}, is_end=True)

    def close(self) -> None:
        """End the workers. Idempotent."""
        for worker in self._workers.values():
            worker.close()

    # Steps

    def _compile(self, number: int, step: Step, transactions: dict[int, Edits], *, replay: bool) -> None:
        resource = step.resource

        def add(version: int, table: str, edit: dict[str, Any]) -> None:
            transactions.setdefault(version, {}).setdefault(table, []).append({**edit, "step": number})

        if isinstance(resource, Ruleset):
            for version in _versions():
                for table in layout.TABLES:
                    is_end = step.verb is Verb.DELETE
                    add(
                        version,
                        table,
                        self._end(table) if is_end else self._skeleton(resource, version, table),
                    )
        elif isinstance(resource, StrayRules):
            for table in layout.TABLES:
                add(resource.version, table, self._put(table, resource.comment))
        elif isinstance(resource, Rules):
            for version in self._needed(resource):
                for table, edit in self._edits(step, resource, version, replay=replay):
                    add(version, table, edit)

    def _needed(self, resource: Rules) -> tuple[int, ...]:
        versions = _versions()
        if isinstance(resource, PublishedPort) and resource.version not in versions:
            msg = "the kernel has no IPv6"
            raise UnavailableError(msg)
        return tuple(version for version in versions_of(resource) if version in versions)

    def _edits(
        self, step: Step, resource: Rules, version: int, *, replay: bool
    ) -> Iterable[tuple[str, dict[str, Any]]]:
        rules = () if step.verb is Verb.DELETE else rules_of(resource, self._instance, version)
        key = mark(self._instance) + key_text(resource.key)
        for table, chains in _places(resource).items():
            edit = self._put(table, key)
            edit["chains"] = [layout.chain_name(self._instance, chain) for chain in chains]
            edit["rules"] = [rule.wire() for rule in rules if rule.table == table]
            if isinstance(resource, PublishedPort) and resource.nat and rules:
                edit["claim"] = {
                    "proto": resource.proto,
                    "host": resource.host or "*",
                    "first": resource.first,
                    "last": resource.last,
                    "tags": [rule.tag for rule in rules],
                    "replay": replay or step.verb is Verb.UPDATE,
                }
            yield table, edit

    def _put(self, table: str, key: str) -> dict[str, Any]:
        chains = [layout.chain_name(self._instance, chain) for chain in layout.DYNAMIC[table]]
        return {"do": "put", "key": key, "chains": chains, "rules": []}

    def _skeleton(self, ruleset: Ruleset, version: int, table: str) -> dict[str, Any]:
        jumps = layout.jumps(self._instance, version, ruleset.priority)
        return {
            **self._end(table),
            "do": "skeleton",
            "chains": layout.chain_names(self._instance)[table],
            "rules": [r.wire() for r in layout.static_rules(self._instance, version) if r.table == table],
            "jumps": [rule.wire() for rule in jumps if rule.table == table],
        }

    def _end(self, table: str) -> dict[str, Any]:
        return {"do": "end", "built_in": layout.BUILT_IN[table]}

    # Workers

    def _transact(
        self,
        version: int,
        edits: Edits,
        steps: Sequence[Step],
        undo: dict[tuple[int, str], Message],
        *,
        is_end: bool,
    ) -> None:
        # What protects comes first and goes last.
        order = reversed(layout.TABLES) if is_end else layout.TABLES
        request = {
            "do": "apply",
            "instance": self._instance,
            "tables": {table: edits[table] for table in order if table in edits},
        }
        first = next((edit.get("step", 0) for edits_of in edits.values() for edit in edits_of), 0)

        def hear(message: Message) -> None:
            undo[version, message["table"]] = message

        try:
            answer = self._workers[version].ask(request, hear)
        except WorkerLostError as error:
            raise RulesRefusedError(first) from OSError(errno.EIO, str(error))
        if "error" not in answer:
            return
        undo.pop((version, answer.get("table", "")), None)
        number = answer.get("step")
        number = first if number is None else number
        cause = _error(answer, steps[number] if steps else None)
        if isinstance(cause, UnavailableError):
            raise cause
        raise RulesRefusedError(number) from cause

    def _take_back(self, undo: dict[tuple[int, str], Message], error: BaseException) -> None:
        for (version, table), message in reversed(undo.items()):
            request = {"do": "undo", "instance": self._instance, "table": table, "undo": message["undo"]}
            try:
                answer = self._workers[version].ask(request)
            except (WorkerLostError, UnavailableError) as failure:
                answer = {"error": "lost", "message": str(failure)}
            if "error" in answer:
                note = f"table {table} of IPv{version} could not be put back: {answer['message']}"
                error.add_note(note)
                logger().warning("%s", note)

    def _view(self, version: int) -> View:
        request = {
            "do": "comments",
            "instance": self._instance,
            "tables": layout.TABLES,
            "built_in": [chain for chains in layout.BUILT_IN.values() for chain in chains],
        }
        try:
            answer = self._workers[version].ask(request)
        except WorkerLostError as error:
            raise UnavailableError(str(error)) from error
        if "error" in answer:
            raise _error(answer, None)
        return View(self._instance, version, answer["comments"])

    def _is_there(self, item: object, views: Sequence[View]) -> bool:
        if isinstance(item, Ruleset):
            return all(view.has_jumps() for view in views)
        if not isinstance(item, Rules):
            return False
        try:
            rules = {view.version: rules_of(item, self._instance, view.version) for view in views}
        except InvalidValueError:
            return False
        key = mark(self._instance) + key_text(item.key)
        return all(view.has(key, rules[view.version]) for view in views)


def _places(resource: Rules) -> dict[str, tuple[str, ...]]:
    """Return the chains that the rules of such a resource may be in, by table."""
    if isinstance(resource, PublishedPort):
        return {"nat": ("PUB",)} if resource.nat else {"filter": ("ALLOW",)}
    if isinstance(resource, EndpointRules):
        return {"raw": ("FROM",)}
    return layout.DYNAMIC


def _versions() -> tuple[int, ...]:
    """Return the families that the kernel has at all."""
    return (4, 6) if sysctl.has_ipv6() else (4,)


def _error(answer: Message, step: Step | None) -> Exception:
    kind, message = answer["error"], answer["message"]
    if kind == "unavailable":
        return UnavailableError(f"iptables rules cannot be written: {message}")
    if kind == "taken" and step is not None and isinstance(step.resource, PublishedPort):
        port, number = step.resource, answer["port"]
        where = "" if port.host is None else f" of {port.host}"
        text = f"port {number}/{port.proto}{where} is published already, by {message}"
        return PortTakenError(text, proto=port.proto, port=number)
    return OSError(errno.EBUSY if kind == "busy" else errno.EINVAL, message)
