"""Putting an instance together: its identity, its drivers, its tables, its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pynetwork.allocation import Allocations
from pynetwork.core import Core
from pynetwork.drivers import BridgeDriver, HostDriver, NullDriver, Registry
from pynetwork.engine import Engine, Journal, Mirror, World
from pynetwork.errors import ConflictError, StoreError, UnavailableError
from pynetwork.ipam import DefaultIpam, NullIpam, ula_prefix
from pynetwork.records import AnyDriver, Records, make_options
from pynetwork.store import Absent, Put, Unchanged
from pynetwork.types import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pynetwork.core import Surroundings
    from pynetwork.ipam import IpamDriver
    from pynetwork.kernel.port import Kernel
    from pynetwork.store import Store

__all__ = ["assemble", "check_run_dir", "firewall_of", "instance_of", "rebooted"]


def instance_of(store: Store, surroundings: Surroundings) -> str:
    """Return the id of the instance that *store* is the memory of, choosing it on first use."""
    while (entry := store.get("meta/instance")) is None:
        fresh = new_id(surroundings.random)
        store.transact([Absent("meta/instance")], [Put("meta/instance", fresh)])
    if len(entry.value) != len(new_id(surroundings.random)):
        msg = f"record meta/instance holds {entry.value!r}, which is no instance id"
        raise StoreError(msg)
    return entry.value


def check_run_dir(store: Store, run_dir: Path) -> None:
    """
    Check that all processes of an instance have one run directory, choosing it on first use.

    Namespaces, files and the place where processes agree who serves names are in it: with two of them an
    instance would be in two minds.

    Raises:
        ConflictError: The instance has another.
    """
    wanted = str(run_dir.absolute())
    while (entry := store.get("meta/run_dir")) is None:
        store.transact([Absent("meta/run_dir")], [Put("meta/run_dir", wanted)])
    if entry.value != wanted:
        msg = f"invalid run_dir {wanted}: what is recorded in this state directory is in {entry.value}"
        raise ConflictError(msg)


def rebooted(store: Store, boot: str) -> bool:
    """Return whether the host was booted since this was asked last; tell one of several processes only."""
    entry = store.get("meta/boot")
    if entry is not None and entry.value == boot:
        return False
    compare = Absent("meta/boot") if entry is None else Unchanged("meta/boot", entry.revision)
    return store.transact([compare], [Put("meta/boot", boot)]) is not None and entry is not None


def firewall_of(store: Store, wanted: str) -> tuple[str, str | None]:
    """
    Return the name of the firewall of an instance, and of the one it had before if that was another.

    It is chosen once and recorded: a program that is installed later must not split the rules of an
    instance between two firewalls.

    Args:
        store: The instance's.
        wanted: A name, or ``auto`` for the one recorded, or else what the host has.
    """
    from pynetwork.kernel.firewall import check_name, choose_firewall

    check_name(wanted)
    entry = store.get("meta/firewall")
    if wanted == "auto":
        if entry is not None:
            return entry.value, None
        try:
            wanted = choose_firewall()
        except UnavailableError:
            return wanted, None  # said when a network needs it
    if entry is None or entry.value != wanted:
        compare = Absent("meta/firewall") if entry is None else Unchanged("meta/firewall", entry.revision)
        if store.transact([compare], [Put("meta/firewall", wanted)]) is None:
            return firewall_of(store, wanted)
    return wanted, None if entry is None or entry.value == wanted else entry.value


def assemble(
    instance: str,
    store: Store,
    kernel: Kernel,
    surroundings: Surroundings,
    *,
    drivers: Iterable[AnyDriver],
    ipams: Iterable[IpamDriver],
    driver_options: Mapping[str, Any],
    netns_dir: Path,
    files_dir: Path,
    visible: bool,
) -> Core:
    """Return the core of an instance, its tables still empty. Arguments as of :class:`Controller`."""
    networks = _registry("driver", "pynetwork.drivers", _DRIVERS, drivers)
    addresses = _registry("IPAM driver", "pynetwork.ipam", _ipam_drivers(surroundings), ipams)
    records, world = Records(networks), World()
    allocations = Allocations(addresses, surroundings.clock)
    mirror = Mirror(
        store,
        {
            **dict.fromkeys(Records.words, records),
            **dict.fromkeys(Allocations.words, allocations),
            **dict.fromkeys(World.words, world),
        },
    )
    journal = Journal(
        mirror=mirror,
        world=world,
        owner=f"{surroundings.process_identity()}/{new_id(surroundings.random)}",
        random=surroundings.random,
        settle_seconds=surroundings.settle_seconds,
    )
    engine = Engine(
        mirror=mirror,
        world=world,
        kernel=kernel,
        journal=journal,
        is_alive=lambda owner: surroundings.is_alive(owner.rpartition("/")[0]),
    )
    return Core(
        instance=instance,
        engine=engine,
        records=records,
        allocations=allocations,
        drivers=networks,
        defaults={name: make_options(networks[name], options) for name, options in driver_options.items()},
        netns_dir=netns_dir,
        files_dir=files_dir,
        visible=visible,
        surroundings=surroundings,
    )


_DRIVERS: Mapping[str, Callable[[], AnyDriver]] = {
    "bridge": BridgeDriver,
    "host": HostDriver,
    "null": NullDriver,
}


def _ipam_drivers(surroundings: Surroundings) -> Mapping[str, Callable[[], IpamDriver]]:
    return {
        "default": lambda: DefaultIpam(ula=ula_prefix(surroundings.machine_seed())),
        "null": NullIpam,
    }


def _registry(
    what: str, group: str, builtin: Mapping[str, Callable[[], Any]], given: Iterable[Any]
) -> Registry[Any]:
    given = tuple(given)
    replaced = {getattr(driver, "name", None) for driver in given}
    return Registry(what, group, (make() for name, make in builtin.items() if name not in replaced), given)
