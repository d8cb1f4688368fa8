"""Drafting a sandbox: its namespace, its end."""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Any

import attrs

from pynetwork.engine.codec import changed
from pynetwork.errors import ConflictError, InvalidValueError, UnavailableError
from pynetwork.plan import Plan
from pynetwork.records import record
from pynetwork.requests.common import sandbox_lock, sandbox_scope
from pynetwork.requests.files import end_files
from pynetwork.requests.membership import leave_all
from pynetwork.resources import Cgroup, Netns, Sysctl
from pynetwork.specs import Limits, SandboxSpec
from pynetwork.specs.sandbox import HOSTNAME_MAX
from pynetwork.store import Delete, Put
from pynetwork.types import HOST_NETNS, LATER_NETNS, check_labels, check_name, new_id

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.engine import Draft

__all__ = ["SandboxRequest", "choose_pin", "delete_sandbox", "group_path", "parse_netns", "sandbox_plan"]


_NAME_MAX = 255  # bytes of a file's name (linux/limits.h)


def _hostname(value: object) -> str:
    name = check_name("host", value)
    if len(name) > HOSTNAME_MAX:
        msg = f"invalid host name {name!r}: it is longer than {HOSTNAME_MAX} bytes"
        raise InvalidValueError(msg)
    return name


def parse_netns(value: object) -> str | None:
    """Return the path that a path, an open file or a process id stands for."""
    if value is None or value in (HOST_NETNS, LATER_NETNS):
        return None if value is None else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if value <= 0:
            msg = f"invalid process id {value}: to adopt a namespace by an open file, pass the file object"
            raise InvalidValueError(msg)
        return f"/proc/{value}/ns/net"
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        if not isinstance(path, str) or "\0" in path or not os.path.isabs(path):  # noqa: PTH117 - os.PathLike, not Path
            msg = f"invalid namespace path {path!r}: an absolute path is expected"
            raise InvalidValueError(msg)
        try:
            os.fsencode(path)
        except UnicodeEncodeError as error:
            msg = f"invalid namespace path {path!r}: {error}"
            raise InvalidValueError(msg) from error
        return path
    fileno = getattr(value, "fileno", None)
    if callable(fileno):
        try:
            return f"/proc/self/fd/{fileno()}"
        except (OSError, ValueError) as error:
            msg = f"invalid namespace {value!r}: {error}"
            raise InvalidValueError(msg) from error
    msg = f"invalid namespace {value!r}: a path, a process id, an open file, 'host' or 'later' is expected"
    raise InvalidValueError(msg)


@attrs.frozen(kw_only=True)
class SandboxRequest:
    """
    The arguments of :meth:`Controller.new_sandbox`, checked, and how a sandbox is made of them.

    Args:
        wanted: All but what is chosen when it is made.
        netns: The namespace to adopt, ``"host"`` for the host's, ``"later"`` for none yet, None for one of
            its own.
    """

    wanted: SandboxSpec
    netns: str | None

    @classmethod
    def parse(
        cls,
        *,
        name: str,
        netns: object,
        hostname: str | None,
        labels: object,
        **rest: Any,  # noqa: ANN401 - as SandboxSpec's
    ) -> SandboxRequest:
        """Check the arguments of ``new_sandbox``."""
        return cls(
            wanted=SandboxSpec(
                id="",
                name=check_name("sandbox", name),
                hostname=None if hostname is None else _hostname(hostname),
                labels=check_labels({} if labels is None else labels),
                **rest,
            ),
            netns=parse_netns(netns),
        )

    def build(self, core: Core, draft: Draft) -> str:
        """Draft the sandbox; returns its id."""
        name = self.wanted.name
        draft.what = f"create sandbox {name!r}"
        if core.records.named("sandbox", name) is not None:
            msg = f"sandbox with name {name!r} already exists"
            raise ConflictError(msg)
        identity = new_id(core.surroundings.random)
        spec = changed(
            self.wanted,
            id=identity,
            netns=None if self.netns == HOST_NETNS else choose_pin(core, identity, name),
            adopted=None if self.netns in {HOST_NETNS, LATER_NETNS} else self.netns,
            attached=self.netns != LATER_NETNS,
            created=core.surroundings.clock(),
        )
        draft.reserve(Put(f"name/sandbox/{spec.name}", identity))
        draft.plans[sandbox_scope(identity)] = Plan((*sandbox_plan(spec), *_group(core, spec)))
        draft.reserve(record(f"sandbox/{identity}", spec))
        return identity


def choose_pin(core: Core, identity: str, name: str) -> str:
    """
    Return a path to pin the namespace of a sandbox with that no sandbox has.

    One it had itself is not among them, and its name may be in use by one that was renamed since.
    """
    labels = (name, identity[:12]) if core.visible else (identity[:12],)
    had = core.records.sandboxes.get(identity)
    if len(labels) == 1 and had is None:
        return f"{core.netns_dir}/{labels[0]}.{core.instance[:8]}"
    taken = {row.spec.netns for row in core.records.sandboxes.values()}
    for number in count(1):
        for label in labels:
            path = f"{core.netns_dir}/{label}{'' if number == 1 else f'-{number}'}.{core.instance[:8]}"
            if path not in taken and len(path.rpartition("/")[2]) <= _NAME_MAX:
                return path
    raise AssertionError  # numbers never end


def sandbox_plan(spec: SandboxSpec) -> Plan:
    """Return what exists as long as a sandbox has a namespace: that, deaf to router advertisements."""
    if spec.netns is None or not spec.attached:
        return Plan()
    return Plan(
        (
            Netns(path=spec.netns, adopted=spec.adopted),
            # Else whoever is on the same bridge could give it addresses and a default route (RFC 4861).
            Sysctl(netns=spec.netns, name="net.ipv6.conf.default.accept_ra", value="0"),
        )
    )


def group_path(core: Core, spec: SandboxSpec) -> str:
    """Return the path of the control group of a sandbox, below the roots of the hierarchies."""
    name = f"pynetwork-{spec.id[:12]}.{core.instance[:8]}"
    return name if spec.cgroup_parent is None else f"{spec.cgroup_parent}/{name}"


def _group(core: Core, spec: SandboxSpec) -> tuple[Cgroup, ...]:
    """Return the control group of a sandbox; none where there can be none, unless something needs it."""
    problem = core.cgroup_problem
    limits = spec.limits or Limits()
    if not problem:
        return (
            Cgroup(path=group_path(core, spec), memory=limits.memory, cpus=limits.cpus, pids=limits.pids),
        )
    if spec.limits is not None or spec.cgroup_parent is not None:
        msg = f"the processes of sandbox {spec.name!r} cannot be limited: {problem}"
        raise UnavailableError(msg)
    return ()


def delete_sandbox(core: Core, draft: Draft, identity: str) -> None:
    """
    Draft the end of a sandbox. Its endpoints leave; they and their addresses outlive it.

    Args:
        core: The instance.
        draft: To fill in.
        identity: The sandbox's id.
    """
    row = core.sandbox(identity)
    draft.what = f"delete sandbox {row.spec.name!r}"
    draft.finish = True
    draft.rely_on(row.key, row.revision)
    draft.plans[sandbox_scope(identity)] = Plan()
    end_files(core, draft, identity)
    leave_all(core, draft, identity)
    draft.on_commit += (
        Delete(f"name/sandbox/{row.spec.name}"),
        Delete(f"lock/{sandbox_lock(identity)}"),
        Delete(row.key),
    )
