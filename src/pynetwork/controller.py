"""The controller: one instance of networks and sandboxes on one host."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pynetwork.assembly import assemble, firewall_of, instance_of, rebooted
from pynetwork.core import Core, Handle, Surroundings
from pynetwork.doctor import diagnose, wanted
from pynetwork.endpoint import Endpoint
from pynetwork.engine import Report, reconcile
from pynetwork.errors import NotFoundError, PynetworkError
from pynetwork.log import logger
from pynetwork.network import Network
from pynetwork.requests.network import NetworkRequest, delete_network
from pynetwork.requests.sandbox import SandboxRequest
from pynetwork.resources import Ruleset
from pynetwork.sandbox import Sandbox
from pynetwork.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from pynetwork.doctor import Finding
    from pynetwork.ipam import IpamDriver
    from pynetwork.kernel.port import Kernel
    from pynetwork.plan import Steps
    from pynetwork.records import AnyDriver
    from pynetwork.store import Store

__all__ = ["Controller"]

STATE_DIR: Final = Path("/var/lib/pynetwork")
RUN_DIR: Final = Path("/run/pynetwork")
_IP_NETNS: Final = Path("/run/netns")  # where iproute2 keeps namespaces


class Controller:
    """
    Makes and finds networks and sandboxes.

    What it makes is recorded in the state directory and outlives it: closing a controller, or the
    death of its process, changes nothing on the host. Several processes may each have a controller on
    the same state directory at once. Controllers on different state directories are independent:
    neither sees or touches what the other made.

    Opening one finishes or undoes what a dead process left half-done, and after a reboot makes
    everything again that is recorded.

    Args:
        state_dir: Where the records are; made with mode 0700.
        run_dir: Where namespaces are pinned, on a private tmpfs of ours.
        ip_netns: Pin namespaces in ``/run/netns`` under the sandboxes' names instead, where
            ``ip netns`` shows them.
        drivers: The caller's own network drivers; one named like a built-in one replaces it.
        ipam: The caller's own IPAM drivers, likewise.
        default_driver: Type of a network when none is named.
        driver_options: Driver name to the options its networks have unless told otherwise.
        firewall: What isolates networks and publishes ports: ``nftables``, ``iptables``, ``none`` (somebody
            else does), or ``auto``: the one this instance has used so far, or else what the host has.
            Naming another moves all rules to it.
        store: Where the records are, instead of *state_dir*.
        kernel: The host, such as ``pynetwork.testing.FakeKernel``; or a function that returns it for
            the id of the instance and the directory of namespaces, whose result is closed with the
            controller.
        surroundings: What is random, clocked or read from the host; for tests.

    Raises:
        StoreError: The state directory cannot be read or written.
        UnavailableError: This is no Linux, or a privilege is missing.
    """

    def __init__(
        self,
        state_dir: str | Path = STATE_DIR,
        *,
        run_dir: str | Path = RUN_DIR,
        ip_netns: bool = False,
        drivers: Iterable[AnyDriver] = (),
        ipam: Iterable[IpamDriver] = (),
        default_driver: str = "bridge",
        driver_options: Mapping[str, Any] | None = None,
        firewall: str = "auto",
        store: Store | None = None,
        kernel: Kernel | Callable[[str, Path], Kernel] | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        around = surroundings or Surroundings()
        netns_dir = _IP_NETNS if ip_netns else Path(run_dir) / "netns"
        self._default_driver = default_driver
        self._erase_places: Callable[[], None] | None = None
        with ExitStack() as stack:
            if store is None:
                store = SqliteStore(Path(state_dir))
                stack.callback(store.close)
                self._erase_places = partial(_remove_places, store, netns_dir)
            instance = instance_of(store, around)
            is_moving = False
            if kernel is None:
                name, previous = firewall_of(store, firewall)
                is_moving = previous is not None
                host: Kernel = _linux_kernel(instance, netns_dir, name, previous)
                stack.callback(host.close)
            elif callable(kernel):
                host = kernel(instance, netns_dir)
                stack.callback(host.close)
            else:
                host = kernel
            self._core = assemble(
                instance,
                store,
                host,
                around,
                drivers=drivers,
                ipams=ipam,
                driver_options=driver_options or {},
                netns_dir=netns_dir,
                visible=ip_netns,
            )
            reboot = rebooted(store, around.boot_id())  # writes, so before all is read
            self._core.engine.mirror.load()
            self._recover(anew=reboot or is_moving)
            self._stack = stack.pop_all()

    @property
    def networks(self) -> Mapping[str, Network]:
        """The networks by name."""
        return self._core.view(Network, "network", self._core.records.networks)

    @property
    def sandboxes(self) -> Mapping[str, Sandbox]:
        """The sandboxes by name."""
        return self._core.view(Sandbox, "sandbox", self._core.records.sandboxes)

    def new_network(
        self,
        driver: str,
        name: str,
        *,
        subnets: Iterable[object] = (),
        ipv4: bool | None = None,
        ipv6: bool | None = None,
        options: object = None,
        ipam: str = "default",
        internal: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> Network:
        """
        Make a network.

        Args:
            driver: Its type: ``bridge``, ``host``, ``null`` or another driver's name; empty for the
                controller's default.
            name: Unique in this controller.
            subnets: CIDRs, or :class:`Subnet` values with gateway, sub-pool and auxiliary addresses.
                ``0.0.0.0/24`` or ``::/64`` ask for any free one of that size.
            ipv4: Whether it has IPv4: a subnet is chosen when none is given. None means as *subnets*
                say, or yes when nothing is said at all.
            ipv6: Likewise; the subnet chosen is a unique local one of this host (RFC 4193).
            options: The driver's own, such as :class:`BridgeOptions`, or a mapping of them.
            ipam: Name of the IPAM driver.
            internal: No way out: no default route, nothing published.
            labels: Kept for the caller.

        Returns:
            The network.

        Raises:
            InvalidValueError: Malformed or contradictory.
            UnknownDriverError: No such driver.
            ConflictError: The name, a subnet or a bridge's name is in use.
            ExhaustedError: No subnet is free.
            ApplyError: The host refused a step; it is as before.
        """
        request = self._network_request(
            driver,
            name,
            subnets=subnets,
            ipv4=ipv4,
            ipv6=ipv6,
            options=options,
            ipam=ipam,
            internal=internal,
            labels=labels,
        )
        core = self._core
        return core.made(Network.of(core, core.request(lambda draft: request.build(core, draft))))

    def plan_network(self, driver: str, name: str, **arguments: Any) -> Steps:  # noqa: ANN401 - as new_network's
        """Return the steps that :meth:`new_network` would take for the same arguments."""
        given: dict[str, Any] = {"subnets": (), "ipv4": None, "ipv6": None, "options": None}
        given |= {"ipam": "default", "internal": False, "labels": None, **arguments}
        request = self._network_request(driver, name, **given)
        return self._core.rehearse(lambda draft: request.build(self._core, draft))

    def new_sandbox(
        self,
        name: str,
        *,
        netns: object = None,
        hostname: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Sandbox:
        """
        Make a sandbox: the network stack of one container.

        Args:
            name: Unique in this controller.
            netns: A namespace to adopt instead of making one: the path of its file, an open file, or
                the id of a process in it; ``"host"`` is the host's own. An adopted namespace is left
                as it is when the sandbox is deleted.
            hostname: The container's own name.
            labels: Kept for the caller.

        Returns:
            The sandbox.

        Raises:
            InvalidValueError: Malformed, or *netns* is no network namespace.
            ConflictError: The name is in use.
            ApplyError: The host refused a step; it is as before.
        """
        core = self._core
        request = SandboxRequest(
            name=name, netns=netns, hostname=hostname, labels={} if labels is None else labels
        )
        return core.made(Sandbox.of(core, core.request(lambda draft: request.build(core, draft))))

    def reconcile(self, *, dry_run: bool = False) -> Report:
        """
        Make the host what the records say: repair, prune, finish what was interrupted.

        Args:
            dry_run: Only report what would be done.

        Returns:
            What was found and done; what failed is in it, not raised.
        """
        self._core.check_open()
        return reconcile(self._core.engine, dry_run=dry_run)

    def check(self) -> tuple[str, ...]:
        """
        Look, at next to no cost, whether somebody has taken our rules away, as ``nft flush ruleset`` does.

        Returns:
            What is missing, in words; nothing when all is well. :meth:`reconcile` repairs it.
        """
        core = self._core
        with core.reading():
            is_wanted = core.engine.world.is_wanted(Ruleset().key)
        look = getattr(core.engine.kernel, "missing", None)
        return look() if is_wanted and look is not None else ()

    def doctor(self) -> tuple[Finding, ...]:
        """
        Look for what on the host blocks our networks, such as another tool's policy of dropping.

        Returns:
            What was found, with the commands that would allow us; they are never run by the library.
        """
        look = getattr(self._core.engine.kernel, "diagnosed", None)
        return () if look is None else diagnose(look(), wanted(self._core), self.check())

    @contextmanager
    def scratch(self) -> Iterator[Self]:
        """
        Return a block that removes everything made through this controller while it was open.

        Raises:
            ExceptionGroup: Some of it could not be removed.
        """
        made: list[Handle] = []
        self._core.scratches.append(made)
        try:
            yield self
        finally:
            # By identity: two blocks in which nothing was made yet are equal.
            self._core.scratches[:] = [block for block in self._core.scratches if block is not made]
            _delete_all(self._core, made)

    def statistics(self) -> dict[str, int]:
        """Return how many objects there are, and how many requests are under way."""
        with self._core.reading() as records:
            return {
                "networks": len(records.networks),
                "endpoints": len(records.endpoints),
                "sandboxes": len(records.sandboxes),
                "requests": len(list(self._core.engine.world.under_way())),
                "revision": self._core.engine.mirror.revision,
            }

    def inspect(self) -> dict[str, Any]:
        """Return all that is recorded as plain data, ready for JSON."""
        return {
            "instance": self._core.instance,
            "networks": {
                name: network.inspect()
                | {"endpoints": {n: e.inspect() for n, e in network.endpoints.items()}}
                for name, network in self.networks.items()
            },
            "sandboxes": {name: sandbox.inspect() for name, sandbox in self.sandboxes.items()},
        }

    def close(self) -> None:
        """Close what the controller holds open. All networks and sandboxes stay. Idempotent."""
        self._core.close()
        self._stack.close()

    def erase(self) -> None:
        """
        Delete all networks, endpoints and sandboxes, then the records and directories, and close.

        For tests, demonstrations and uninstalling: the host is as if the instance had never been. No
        other process may use the state directory any more.

        Raises:
            ExceptionGroup: Something could not be deleted; the records are kept.
        """
        networks, sandboxes = list(self.networks.values()), list(self.sandboxes.values())
        endpoints = [endpoint for network in networks for endpoint in network.endpoints.values()]
        _delete_all(self._core, [*networks, *endpoints, *sandboxes])
        self.close()
        if self._erase_places is not None:
            self._erase_places()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Controller {self._core.instance[:12]}>"

    def _network_request(self, driver: str, name: str, **arguments: Any) -> NetworkRequest:  # noqa: ANN401 - passed on
        self._core.check_open()
        return NetworkRequest.parse(self._core, driver or self._default_driver, name, **arguments)

    def _recover(self, *, anew: bool) -> None:
        """Finish or undo what dead processes left; or make everything anew that is not there."""
        engine = self._core.engine
        if anew:
            report = reconcile(engine)
            logger().info("the host was rebooted, or has another firewall: %s", report)
            return
        for intent in list(engine.world.intents.values()):
            if engine.is_dead(intent):
                for line in engine.recover(intent):
                    logger().warning("%s: %s", intent.what, line)


def _linux_kernel(instance: str, netns_dir: Path, firewall: str, previous: str | None) -> Kernel:
    from pynetwork.kernel.linux import LinuxKernel

    kernel = LinuxKernel(instance, netns_dir, firewall)
    if previous is not None:
        try:
            kernel.retire(previous)
        except BaseException:
            kernel.close()
            raise
    return kernel


def _remove_places(store: SqliteStore, netns_dir: Path) -> None:
    from pynetwork.kernel.netns import IP_NETNS, remove_directory

    store.erase()
    if netns_dir != IP_NETNS:
        remove_directory(netns_dir)


def _delete_all(core: Core, made: list[Handle]) -> None:
    """Delete *made*, the youngest first, whatever fails on the way."""
    failed: list[Exception] = []
    for handle in reversed(made):
        try:
            if isinstance(handle, Network):
                core.request(partial(delete_network, core, identity=handle.id, force=True))
            elif isinstance(handle, Endpoint):
                handle.delete(force=True)
            elif isinstance(handle, Sandbox):
                handle.delete()
        except NotFoundError:
            pass  # deleted inside the block
        except PynetworkError as error:
            failed.append(error)
    if failed:
        msg = "some of it could not be deleted"
        raise ExceptionGroup(msg, failed)
