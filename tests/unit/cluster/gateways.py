"""A host whose sandboxes go out in every way there is, and what must be so of it whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.resources import Netns, PublishedPort, Route

if TYPE_CHECKING:
    from pynetwork import Controller, Endpoint, Sandbox
    from pynetwork.testing import FakeKernel

#: A namespace of somebody else's.
ELSEWHERE = "/run/netns/x"


def prepare(controller: Controller, kernel: FakeKernel) -> None:
    """Sandboxes in networks that span hosts, and beside that in bridge networks or not."""
    kernel.plant(Netns(path=ELSEWHERE))
    app = controller.new_network("overlay", "app", subnets=["10.1.0.0/24", "fd01::/64"])
    old = controller.new_network("overlay", "old", subnets=["10.3.0.0/24"])
    vault = controller.new_network("overlay", "vault", subnets=["10.2.0.0/24"], internal=True)
    controller.new_network("overlay", "unused", subnets=["10.4.0.0/24"])
    four = controller.new_network("bridge", "four", subnets=["10.5.0.0/24"])
    both = controller.new_network("bridge", "both", subnets=["10.6.0.0/24", "fd06::/64"])
    for name in ("free", "box", "mixed", "out", "later"):
        controller.new_sandbox(name, netns="later" if name == "later" else None)
    assert controller.sandboxes["mixed"].hosts_path.name == "hosts"  # from now on it has files
    for number, name in enumerate(("box", "mixed", "out", "later", "free")):
        ports = [f"80{number}0:80", "[::]:53/udp", f"90{number}0-90{number}1:90-91"]
        endpoint = app.create_endpoint(name, ports=ports)
        if name != "free":
            endpoint.join(controller.sandboxes[name])
    four.create_endpoint("mixed").join(controller.sandboxes["mixed"])
    both.create_endpoint("out").join(controller.sandboxes["out"])
    both.create_endpoint("free", ports=["7000:80"])
    four.create_endpoint("free", priority=5)
    vault.create_endpoint("box").join(controller.sandboxes["box"])
    old.create_endpoint("free", ports=["7001:80"])


def ways_out(sandbox: Sandbox) -> dict[int, Endpoint | None]:
    """Return who must provide the default routes: an endpoint, or None for the gateway; by family."""
    found: dict[int, Endpoint | None] = {}
    open_ = [endpoint for endpoint in sandbox.endpoints if not endpoint.network.internal]
    for version in (4, 6):
        bridges = [e for e in open_ if e.network.driver == "bridge" and _has(e, version)]
        bridges.sort(key=lambda e: (-e.priority, -len(e.addresses)))  # who is older comes first anyway
        if bridges:
            found[version] = bridges[0]
    spanning = [endpoint for endpoint in open_ if endpoint.network.driver == "overlay"]
    if any(_has(e, version) and version not in found for e in spanning for version in (4, 6)):
        found = {version: found.get(version) for version in (4, 6)}
    return found


def check(controller: Controller, kernel: FakeKernel) -> None:
    """The host is what the plans say, these are what the rules of gateways say, and nothing is left to do."""
    world = controller._core.engine.world
    assert not world.intents
    expected = {resource for scoped in world.scopes.values() for resource in scoped.plan}
    kinds = {"sysctl", "link_sysctl"}
    found = {resource for resource in kernel.resources if resource.kind not in kinds}
    assert found - {Netns(path=ELSEWHERE)} == {r for r in expected if r.kind not in kinds}
    targets: set[tuple[str, int | None, str, int]] = set()
    had = {
        str(gateway)
        for net in controller.networks.values()
        if net.driver == "bridge"
        for gateway in net.gateways
    }
    for sandbox in controller.sandboxes.values():
        ways, gateway = ways_out(sandbox), sandbox.gateway
        assert (gateway is not None) == (None in ways.values()), (sandbox, ways)
        addresses = {}
        for version, endpoint in ways.items():
            there = endpoint or gateway
            assert there is not None
            addresses[version] = next(each for each in there.addresses if each.version == version)
        if sandbox.is_attached:
            routes = [r for r in found if isinstance(r, Route) and r.netns == str(sandbox.netns_path)]
            defaults = sorted(route.dst for route in routes if route.dst.endswith("/0"))
            assert defaults == sorted({4: "0.0.0.0/0", 6: "::/0"}[version] for version in ways)
        for endpoint in sandbox.endpoints if sandbox.is_attached else ():
            own = {a.version: a for a in endpoint.addresses}
            where = addresses if endpoint.network.driver == "overlay" else own
            targets |= {
                (port.proto, port.host_port, str(address.ip), port.first)
                for port in endpoint.ports
                for version, address in where.items()
                if version in port.versions
            }
    rules = {r for r in found if isinstance(r, PublishedPort)}
    assert {(r.proto, r.first, r.target, r.target_first) for r in rules} == targets
    records = controller._core.records
    system = [row.spec for row in records.endpoints.values() if row.spec.system]
    assert {spec.id for spec in system} <= set(records.sandboxes)
    gateways = [row.spec for row in records.networks.values() if row.spec.system]
    assert bool(gateways) == any(row.spec.host_gateway for row in records.networks.values())
    had |= {str(subnet.gateway) for spec in gateways for subnet in spec.subnets}
    local = {row.spec.id for row in records.networks.values() if row.spec.space == "local"}
    had |= {
        str(a.ip)
        for row in records.endpoints.values()
        if row.spec.network in local
        for a in row.spec.addresses
    }
    entries = controller._core.engine.mirror.store.list("address/").entries
    assert {entry.key.rpartition("/")[2] for entry in entries if '"freed"' not in entry.value} == had
    assert controller.reconcile().is_clean


def _has(endpoint: Endpoint, version: int) -> bool:
    return any(address.version == version for address in endpoint.addresses)
