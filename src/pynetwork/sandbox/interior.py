"""What a sandbox is besides its namespace: its files, its control group, and programs among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.errors import ConflictError, UnavailableError
from pynetwork.requests.common import sandbox_scope
from pynetwork.requests.files import FILES, files_directory, files_scope, make_files
from pynetwork.resources import Cgroup
from pynetwork.sandbox.inside import Inside
from pynetwork.specs.sandbox import HOSTNAME_MAX

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.kernel.ending import Crew
    from pynetwork.kernel.groups import Groups
    from pynetwork.specs import SandboxSpec

__all__ = ["crew_of", "files_of", "group_of", "groups_of", "inside", "within"]


def groups_of(core: Core) -> Groups | None:
    """Return the host's control groups; None of a pretended host."""
    found: Groups | None = getattr(core.engine.kernel, "groups", None)
    return found


def group_of(core: Core, identity: str) -> Cgroup | None:
    """Return the control group of the sandbox of that id, if it has one."""
    with core.reading():
        core.sandbox(identity)
        plan = core.engine.world.plan(sandbox_scope(identity))
    return next((item for item in plan if isinstance(item, Cgroup)), None)


def files_of(core: Core, identity: str) -> str:
    """Return the directory of the files of the sandbox of that id, which are made now if need be."""
    with core.reading():
        core.sandbox(identity)
        world, scope = core.engine.world, files_scope(identity)
        is_there = bool(world.plan(scope)) and not world.is_in_the_making(scope)
    if not is_there:
        core.request(lambda draft: make_files(core, draft, identity))
    return files_directory(core, identity)


def inside(core: Core, identity: str) -> Inside:
    """
    Return the namespace of the sandbox of that id, its names served.

    Raises:
        ConflictError: It has none yet.
    """
    return Inside(core.namespaces(), _entered(core, identity).netns)


def within(core: Core, identity: str) -> Inside:
    """
    Return the sandbox of that id as programs that are started in it see it.

    Raises:
        ConflictError: It has no namespace yet.
    """
    namespaces, groups = core.namespaces(), groups_of(core)
    spec = _entered(core, identity)
    if groups is None:
        return Inside(namespaces, spec.netns)
    from pynetwork.kernel.start import Setting

    directory = files_of(core, identity)
    is_host = spec.netns is None and spec.hostname is None
    setting = Setting(
        files={f"{directory}/{name}": f"/etc/{name}" for name in FILES},
        hostname=None if is_host else spec.uts_name[:HOSTNAME_MAX],
        domainname=spec.domainname,
        group=group_of(core, identity),
    )
    return Inside(namespaces, spec.netns, setting, groups)


def _entered(core: Core, identity: str) -> SandboxSpec:
    """Return what is recorded of a sandbox that somebody is about to enter."""
    with core.reading():
        spec = core.sandbox(identity).spec
    if not spec.attached:
        msg = f"sandbox {spec.name!r} has no namespace yet: attach it to one"
        raise ConflictError(msg)
    if core.dns is not None:
        core.dns.ensure(identity)
    return spec


def crew_of(core: Core, identity: str) -> Crew:
    """
    Return the processes in the sandbox of that id.

    Raises:
        UnavailableError: Nothing tells them from the host's.
    """
    from pynetwork.kernel.ending import crew_of_group, crew_of_namespace

    group, groups = group_of(core, identity), groups_of(core)
    if groups is not None and group is not None:
        return crew_of_group(groups, group.path)
    with core.reading():
        spec = core.sandbox(identity).spec
    if spec.netns is None:
        msg = (
            f"the processes of sandbox {spec.name!r} cannot be told from the host's: "
            f"{core.cgroup_problem or 'it has no control group'}"
        )
        raise UnavailableError(msg)
    return crew_of_namespace(spec.netns)
