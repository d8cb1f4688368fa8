"""Hosts in memory that share a store, and agents that work when a test tells them to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from pynetwork import Cluster, Controller, MemoryStore, Surroundings
from pynetwork.cluster.layout import NAMES, peer_key
from pynetwork.cluster.watching import Listed
from pynetwork.testing import Clock, FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from pynetwork import Endpoint
    from pynetwork.cluster.span import Span
    from pynetwork.cluster.worker import Worker
    from pynetwork.kernel.port import Kernel
    from pynetwork.peers import Entry
    from pynetwork.store import LeasingStore, Store


@attrs.define(eq=False)
class Host:
    """A host, its controller, and its agent without threads."""

    name: str
    kernel: FakeKernel
    store: Store
    controller: Controller

    @property
    def span(self) -> Span:
        span = self.controller._core.span
        assert span is not None
        return span

    @property
    def worker(self) -> Worker:
        return self.span.worker

    def entries(self, network: str) -> set[Entry]:
        """Return what its datapath was told of a network."""
        return self.kernel.peers().entries(self.controller.networks[network].options.vni)

    def joined(self, network: str, name: str, **arguments: Any) -> Endpoint:
        """Create an endpoint and join it to a sandbox of its own."""
        endpoint = self.controller.networks[network].create_endpoint(name, **arguments)
        endpoint.join(self.controller.new_sandbox(f"{network}-{name}"))
        return endpoint


@attrs.define(eq=False)
class World:
    """Hosts by name, and what they share."""

    clock: Clock = attrs.field(factory=Clock)
    store: MemoryStore = attrs.field(init=False)
    hosts: dict[str, Host] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)

    def host(
        self,
        name: str,
        *,
        kernel: FakeKernel | None = None,
        store: Store | None = None,
        cluster_store: LeasingStore | None = None,
        through: Kernel | None = None,
        process: str | None = None,
        dead: tuple[str, ...] = (),
        agent: bool = False,
        **arguments: Any,
    ) -> Host:
        """Open a controller on a host, the same host if *kernel* and *store* are those of an earlier one."""
        kernel = FakeKernel() if kernel is None else kernel
        store = MemoryStore() if store is None else store
        number = int(name[1:])
        around: Surroundings = fake_surroundings(
            number, clock=self.clock, process=process or f"process of {name}", dead=dead
        )
        given = {"host": name, "vtep": f"192.0.2.{number}", "agent": agent, **arguments}
        controller = Controller(
            store=store,
            kernel=kernel if through is None else through,
            surroundings=around,
            cluster=Cluster(store=self.store if cluster_store is None else cluster_store, **given),
        )
        self.hosts[name] = Host(name, kernel, store, controller)
        return self.hosts[name]

    def settle(self, *names: str) -> None:
        """Have the agents of all hosts, or of those named, announce and take in what there is."""
        hosts = [self.hosts[name] for name in names or self.hosts]
        for host in hosts:
            assert host.worker.stand_up()
            if host.worker.lease is None:
                host.worker.register()
            host.worker.look()
        for host in hosts:
            host.worker.take(Listed("", self.store.list(NAMES)))
            for network in host.worker.networks():
                host.worker.take(Listed(network, self.store.list(peer_key(network))))
            host.worker.finish()

    def heard_of(self, *names: str) -> None:
        """Renew the leases of hosts."""
        for name in names:
            lease = self.hosts[name].worker.lease
            assert lease is not None
            assert self.store.keep_alive(lease) is not None

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys in the shared store."""
        return [entry.key for entry in self.store.list(prefix).entries]
