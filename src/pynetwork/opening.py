"""Opening an instance: its store, its kernel, its core, and what dead processes left half-done."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.assembly import assemble, check_run_dir, firewall_of, instance_of, rebooted
from pynetwork.dns.place import Place
from pynetwork.engine import reconcile
from pynetwork.engine.journal import HISTORY, REMEMBERED
from pynetwork.errors import InvalidValueError
from pynetwork.log import logger
from pynetwork.repair import Mender, reconcile_all
from pynetwork.requests.adoption import see_to_adopted
from pynetwork.store import SqliteStore
from pynetwork.types import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import ExitStack

    from pynetwork.cluster import Cluster
    from pynetwork.core import Core, Surroundings
    from pynetwork.dns import NamesPort
    from pynetwork.ipam import IpamDriver
    from pynetwork.kernel.port import Kernel
    from pynetwork.records import AnyDriver
    from pynetwork.store import Store

__all__ = ["Opening"]

_DNS: Final = ("here", "companion", "off")
_IP_NETNS: Final = Path("/run/netns")  # where iproute2 keeps namespaces


def _check_dns(_instance: object, _attribute: object, value: str) -> None:
    if value not in _DNS:
        msg = f"invalid dns={value!r}: one of {', '.join(_DNS)} is expected"
        raise InvalidValueError(msg)


@attrs.frozen(kw_only=True)
class Opening:
    """How an instance is opened: the arguments of :class:`~pynetwork.Controller`."""

    state_dir: Path = attrs.field(converter=Path)
    run_dir: Path = attrs.field(converter=Path)
    ip_netns: bool
    drivers: Iterable[AnyDriver]
    ipam: Iterable[IpamDriver]
    driver_options: Mapping[str, Any]
    firewall: str
    store: Store | None
    kernel: Kernel | Callable[[str, Path], Kernel] | None
    surroundings: Surroundings
    dns: str = attrs.field(validator=_check_dns)
    cluster: Cluster | None = None

    def open(self, stack: ExitStack) -> tuple[Core, Callable[[], None] | None]:
        """
        Open it.

        Args:
            stack: Gets what is to be called when it is closed.

        Returns:
            Its core, recovered; and what removes its directories for good, if they are ours.
        """
        if self.dns == "companion" and self.store is not None:
            msg = (
                "dns='companion' needs a state directory that another process can open, not a store= of yours"
            )
            raise InvalidValueError(msg)
        netns_dir = _IP_NETNS if self.ip_netns else self.run_dir / "netns"
        files_dir = self.run_dir / "files"
        store, erase = self.store, None
        if store is None:
            store = SqliteStore(
                self.state_dir, history=HISTORY, remembered=REMEMBERED, clock=self.surroundings.clock
            )
            stack.callback(store.close)
            check_run_dir(store, self.run_dir)
        instance = instance_of(store, self.surroundings)
        place = Place(self.run_dir / "dns", instance)
        if isinstance(store, SqliteStore) and store is not self.store:
            erase = partial(_remove_places, store, netns_dir, files_dir, place)
        kernel, is_moving = self._kernel(stack, instance, store, (netns_dir, files_dir))
        drivers, cluster = tuple(self.drivers), None
        if self.cluster is not None:
            from pynetwork.cluster.opening import ClusterOpening  # not loaded by those who need none

            cluster = ClusterOpening.on(self.cluster, kernel, drivers, store)
            drivers = cluster.drivers(drivers)
        core = assemble(
            instance,
            store,
            kernel,
            self.surroundings,
            drivers=drivers,
            ipams=self.ipam,
            driver_options=self.driver_options,
            netns_dir=netns_dir,
            files_dir=files_dir,
            visible=self.ip_netns,
        )
        reboot = rebooted(store, self.surroundings.boot_id())  # writes, so before all is read
        core.engine.mirror.load()
        _recover(core, anew=reboot or is_moving)
        core.dns = self._name_server(core, place)
        if core.dns is not None:
            from pynetwork.dns.zone import ADDRESSES

            core.resolver = tuple(map(parse_address, ADDRESSES))
        if cluster is not None:
            cluster.open(core, kernel, stack, partial(reconcile_all, core, dry_run=False), Mender(core))
        return core, erase

    def _name_server(self, core: Core, place: Place) -> NamesPort | None:
        """Return what serves names in the sandboxes; None when nobody is to, or the host is a fake."""
        if self.dns == "off" or not hasattr(core.engine.kernel, "namespaces"):
            return None
        mirror = core.engine.mirror
        if self.dns == "companion":
            from pynetwork.dns.companion import Companion, command

            argv = command(self.state_dir, self.run_dir)
            return Companion(mirror, core.records, place, core.namespaces().home, argv)
        from pynetwork.dns.service import Service

        return Service(mirror, core.records, place, core.namespaces().home)

    def _kernel(
        self, stack: ExitStack, instance: str, store: Store, places: tuple[Path, Path]
    ) -> tuple[Kernel, bool]:
        """Return the host, and whether it gets another firewall than it had."""
        if self.kernel is not None and not callable(self.kernel):
            return self.kernel, False
        previous = None
        if self.kernel is None:
            name, previous = firewall_of(store, self.firewall)
            kernel = _linux_kernel(instance, places, name, previous)
        else:
            kernel = self.kernel(instance, places[0])
        stack.callback(kernel.close)
        return kernel, previous is not None


def _recover(core: Core, *, anew: bool) -> None:
    """Finish or undo what dead processes left; or make everything anew that is not there."""
    engine = core.engine
    if anew:
        report = reconcile(engine, adopt=partial(see_to_adopted, core, dry_run=False))
        logger().info("the host was rebooted, or has another firewall: %s", report)
        return
    for intent in list(engine.world.intents.values()):
        if engine.is_dead(intent):
            for line in engine.recover(intent):
                logger().warning("%s: %s", intent.what, line)


def _linux_kernel(instance: str, places: tuple[Path, Path], firewall: str, previous: str | None) -> Kernel:
    from pynetwork.kernel.linux import LinuxKernel

    kernel = LinuxKernel(instance, places[0], firewall, files_dir=places[1])
    if previous is not None:
        try:
            kernel.retire(previous)
        except BaseException:
            kernel.close()
            raise
    return kernel


def _remove_places(store: SqliteStore, netns_dir: Path, files_dir: Path, names: Place) -> None:
    from pynetwork.kernel.netns import IP_NETNS, remove_directory

    names.dismiss()
    store.erase()
    with suppress(OSError):  # never made, or another instance has files there
        files_dir.rmdir()
    if netns_dir != IP_NETNS:
        remove_directory(netns_dir)
