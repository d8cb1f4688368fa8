"""The controller: one instance of networks and sandboxes on one host."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pynetwork.core import Handle, Surroundings
from pynetwork.dns import DnsStatistics
from pynetwork.doctor import across_hosts, diagnose, missing, wanted
from pynetwork.network import Network
from pynetwork.opening import Opening
from pynetwork.overview import counts, everything, networks, own
from pynetwork.plan import Steps
from pynetwork.removal import delete_all
from pynetwork.repair import reconcile_all
from pynetwork.requests.network import NetworkRequest
from pynetwork.requests.sandbox import SandboxRequest
from pynetwork.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from pynetwork.cluster import Cluster
    from pynetwork.doctor import Finding
    from pynetwork.engine import Report
    from pynetwork.events import Event, EventReader
    from pynetwork.ipam import IpamDriver
    from pynetwork.kernel.port import Kernel
    from pynetwork.records import AnyDriver
    from pynetwork.specs import Limits
    from pynetwork.store import Store

__all__ = ["Controller"]

STATE_DIR: Final = Path("/var/lib/pynetwork")
RUN_DIR: Final = Path("/run/pynetwork")


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
        dns: Who serves names in the sandboxes: this process (``here``), a process of its own that outlives it
            (``companion``), or nobody (``off``).
        store: Where the records are, instead of *state_dir*.
        kernel: The host, such as ``pynetwork.testing.FakeKernel``; or a function that returns it for
            the id of the instance and the directory of namespaces, whose result is closed with the
            controller.
        cluster: The cluster that this host is in: then there are networks that span hosts.
        surroundings: What is random, clocked or read from the host; for tests.

    Raises:
        ConflictError: Another host of the cluster has its name, or the instance another *run_dir*.
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
        dns: str = "here",
        store: Store | None = None,
        kernel: Kernel | Callable[[str, Path], Kernel] | None = None,
        cluster: Cluster | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._default_driver = default_driver
        opening = Opening(
            state_dir=state_dir,
            run_dir=run_dir,
            ip_netns=ip_netns,
            drivers=drivers,
            ipam=ipam,
            driver_options=driver_options or {},
            firewall=firewall,
            dns=dns,
            store=store,
            kernel=kernel,
            surroundings=surroundings or Surroundings(),
            cluster=cluster,
        )
        with ExitStack() as stack:
            self._core, self._erase_places = opening.open(stack)
            self._stack = stack.pop_all()

    @property
    def networks(self) -> Mapping[str, Network]:
        """The networks by name; those that span hosts as well, wherever they were made."""
        return networks(self._core)

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
        dns: Iterable[object] = (),
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
            dns: Addresses of the name servers of its sandboxes, where these have none of their own.
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
            dns=dns,
            labels=labels,
        )
        core = self._core
        if request.is_global and core.span is not None:
            return core.made(Network.of(core, core.span.new_network(request)))
        return core.made(Network.of(core, core.request(lambda draft: request.build(core, draft))))

    def plan_network(self, driver: str, name: str, **arguments: Any) -> Steps:  # noqa: ANN401 - as new_network's
        """Return the steps that :meth:`new_network` would take for the same arguments."""
        request = self._network_request(driver, name, **arguments)
        if request.is_global:
            return Steps()  # no host has anything of it before it has an endpoint
        return self._core.rehearse(lambda draft: request.build(self._core, draft))

    def new_sandbox(
        self,
        name: str,
        *,
        netns: object = None,
        hostname: str | None = None,
        domainname: str | None = None,
        dns: Iterable[object] = (),
        dns_search: Iterable[str] = (),
        dns_options: Iterable[str] = (),
        extra_hosts: Mapping[str, object] | None = None,
        stop_signal: object = "SIGTERM",
        limits: Limits | Mapping[str, object] | None = None,
        cgroup_parent: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Sandbox:
        """
        Make a sandbox: the network stack of one container.

        Args:
            name: Unique in this controller.
            netns: A namespace to adopt instead of making one: the path of its file, an open file, or
                the id of a process in it; ``"host"`` is the host's own, ``"later"`` is none until
                :meth:`Sandbox.attach`. An adopted namespace is left as it is when the sandbox is deleted.
            hostname: The container's own name.
            domainname: The domain it is in.
            dns: Addresses of its name servers; its networks' or the host's when none is given.
            dns_search: Domains that names without dots are looked up in; ``.`` alone is none at all.
            dns_options: Options of its resolver, such as ``ndots:2``, see resolv.conf(5).
            extra_hosts: Further names it knows, to the address of each, or to ``"host-gateway"``, which
                stands for the host.
            stop_signal: What asks its processes to end: a signal's name or number.
            limits: What its processes may use together; a mapping of the fields of :class:`Limits` does.
            cgroup_parent: The control group that its own is made in, below the root of the hierarchy.
            labels: Kept for the caller.

        Returns:
            The sandbox.

        Raises:
            InvalidValueError: Malformed, or *netns* is no network namespace.
            ConflictError: The name is in use.
            ApplyError: The host refused a step; it is as before.
        """
        core = self._core
        request = SandboxRequest.parse(
            name=name,
            netns=netns,
            hostname=hostname,
            domainname=domainname,
            dns=dns,
            dns_search=dns_search,
            dns_options=dns_options,
            extra_hosts=extra_hosts,
            stop_signal=stop_signal,
            limits=limits,
            cgroup_parent=cgroup_parent,
            labels=labels,
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
        return reconcile_all(self._core, dry_run=dry_run)

    def check(self) -> tuple[str, ...]:
        """
        Look, at next to no cost, whether somebody has taken our rules away, as ``nft flush ruleset`` does.

        Returns:
            What is missing, in words; nothing when all is well. :meth:`reconcile` and agents repair it.
        """
        return missing(self._core)

    def doctor(self) -> tuple[Finding, ...]:
        """
        Look for what on the host blocks our networks, such as another tool's policy of dropping.

        Returns:
            What was found, with the commands that would allow us; they are never run by the library.
        """
        look = getattr(self._core.engine.kernel, "diagnosed", None)
        found = () if look is None else diagnose(look(), wanted(self._core), self.check())
        return (*found, *across_hosts(self._core))

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
            delete_all(made)

    @property
    def revision(self) -> int:
        """
        Where its records are: a number that grows with every change, whichever process makes it.

        What this process has done so far is not among the :meth:`events` after it.
        """
        return self._core.revision()

    def events(
        self,
        *,
        since: int | Event | None = None,
        timeout: float | None = None,
        kinds: Collection[str] | None = None,
    ) -> EventReader:
        """
        Follow what happens to networks, endpoints, sandboxes and ports, whichever process does it.

        Every event comes once and in order, the same to every reader; a request that failed or was undone
        gives none. To begin from what there is: take :attr:`revision` first, look, then follow from there.

        Args:
            since: A revision, or the last event that was seen: what came after it. None is from now on.
            timeout: Seconds in which nothing happens until the iterator ends; 0 gives what happened so far.
            kinds: :class:`EventKind` values to be told of; None is all.

        Returns:
            An iterator that waits; close it, or this controller, to end it.

        Raises:
            InvalidValueError: Malformed, or a revision that there was none of yet.
            HistoryLostError: Too much has happened since; also raised by the iterator, when it is slow.
        """
        return self._core.follow(since, timeout=timeout, kinds=kinds)

    def metrics(self) -> str:
        """
        Return the counters of this process and of the instance, for Prometheus.

        Text of its exposition format 0.0.4: serve it as ``text/plain; version=0.0.4``.
        """
        from pynetwork.metrics import render

        return render(self._core)

    def statistics(self) -> dict[str, int]:
        """Return how many objects there are, and how many requests are under way."""
        return counts(self._core)

    def dns_statistics(self) -> DnsStatistics:
        """Return what the name server of the sandboxes has done so far, whichever process it is in."""
        self._core.check_open()
        return DnsStatistics() if self._core.dns is None else self._core.dns.statistics()

    def inspect(self) -> dict[str, Any]:
        """Return all that is recorded as plain data, ready for JSON."""
        return everything(self._core, self.networks, self.sandboxes)

    def close(self) -> None:
        """Close what the controller holds open. All networks and sandboxes stay. Idempotent."""
        self._core.close()
        self._stack.close()

    def erase(self) -> None:
        """
        Delete all networks, endpoints and sandboxes, then the records and directories, and close.

        Networks that span hosts stay: only this host leaves them.

        For tests, demonstrations and uninstalling: the host is as if the instance had never been. No
        other process may use the state directory any more.

        Raises:
            ExceptionGroup: Something could not be deleted; the records are kept.
        """
        delete_all(own(self._core))
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
