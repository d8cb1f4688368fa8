"""Drafting the files of a sandbox: made when somebody first asks where they are, then kept up to date."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from pynetwork.etc import hostname_text, hosts_text, own_hosts_text, resolv_conf_text
from pynetwork.plan import Plan
from pynetwork.requests.common import by_claim, sandbox_lock
from pynetwork.resources import Directory, File
from pynetwork.types import CLUSTER_SPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.core import Core
    from pynetwork.engine import Draft
    from pynetwork.etc import HostFiles
    from pynetwork.specs import EndpointSpec, SandboxSpec
    from pynetwork.types import IPAddress

__all__ = ["FILES", "end_files", "files_directory", "files_scope", "make_files", "refresh_files"]

#: Names of the files, which are those of the files in ``/etc`` that they stand for.
FILES = ("hosts", "hostname", "resolv.conf")
_LOOPBACK = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}  # how the host reaches itself


def files_scope(identity: str) -> str:
    """Return the scope of the files of the sandbox of that id."""
    return f"files/{identity}"


def files_directory(core: Core, identity: str) -> str:
    """Return the path of the directory that the files of the sandbox of that id are in."""
    return f"{core.files_dir}/{identity[:12]}.{core.instance[:8]}"


def make_files(core: Core, draft: Draft, identity: str) -> None:
    """Draft that the sandbox of that id has its files."""
    row = core.sandbox(identity)
    draft.what = f"make the files of sandbox {row.spec.name!r}"
    draft.locks.add(sandbox_lock(identity))
    draft.rely_on(row.key, row.revision)
    members = core.records.joined(identity)
    for member in members:
        draft.rely_on(member.key, member.revision)
    draft.plans[files_scope(identity)] = _plan(core, row.spec, [member.spec for member in members])


def refresh_files(core: Core, draft: Draft, sandbox: SandboxSpec, members: Sequence[EndpointSpec]) -> None:
    """Draft what it means for the files of a sandbox, if it has any, that it has *members*."""
    scope = files_scope(sandbox.id)
    known = core.engine.world.plan(scope)
    if known:
        plan = _plan(core, sandbox, members)
        if plan != known:
            draft.plans[scope] = plan


def end_files(core: Core, draft: Draft, identity: str) -> None:
    """Draft the end of the files of a sandbox."""
    scope = files_scope(identity)
    if core.engine.world.plan(scope):
        draft.plans[scope] = Plan()


def _plan(core: Core, sandbox: SandboxSpec, members: Sequence[EndpointSpec]) -> Plan:
    host = core.surroundings.host_files()
    directory = files_directory(core, sandbox.id)
    make = _host_texts if sandbox.netns is None else _texts
    hosts, resolv_conf = make(core, sandbox, members, host)
    return Plan(
        (
            Directory(path=directory),
            File(path=f"{directory}/hosts", text=hosts[0], upkeep=hosts[1]),
            File(path=f"{directory}/hostname", text=hostname_text(sandbox, host)),
            File(path=f"{directory}/resolv.conf", text=resolv_conf[0], upkeep=resolv_conf[1]),
        )
    )


def _texts(
    core: Core, sandbox: SandboxSpec, members: Sequence[EndpointSpec], host: HostFiles
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return text and upkeep of ``hosts`` and of ``resolv.conf``."""
    networks = [core.network(member.network).spec for member in members]
    addresses = [address.ip for member in members if not member.system for address in member.addresses]
    hosts = hosts_text(sandbox, addresses, _gateways(core, members), ipv6=host.ipv6)
    resolv_conf = resolv_conf_text(
        sandbox,
        host,
        servers=[address for network in networks for address in network.dns],
        resolver=core.resolver if addresses else (),
        ipv6=any(member.address(6) for member in members),
    )
    return (hosts, "part"), (resolv_conf, "whole")


def _host_texts(
    core: Core,  # noqa: ARG001 - as the other
    sandbox: SandboxSpec,
    members: Sequence[EndpointSpec],  # noqa: ARG001 - likewise
    host: HostFiles,
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the same in the host's namespace: as the host has it, but for what the sandbox was told."""
    hosts = (own_hosts_text(sandbox, host, _LOOPBACK), "first")
    if sandbox.dns or sandbox.dns_search or sandbox.dns_options:
        return hosts, (resolv_conf_text(sandbox, host, ipv6=host.ipv6), "whole")
    return hosts, (host.resolv_conf, "first")


def _gateways(core: Core, members: Sequence[EndpointSpec]) -> dict[int, IPAddress]:
    """Return the host's address in the network that is the way out, or would be, for each family."""
    found: dict[int, IPAddress] = {}
    for member in by_claim(core, members):
        network = core.network(member.network).spec
        for subnet in () if network.space == CLUSTER_SPACE else network.subnets:  # no host is in those
            if subnet.gateway is not None and member.address(subnet.version) is not None:
                found.setdefault(subnet.version, subnet.gateway)
    return found
