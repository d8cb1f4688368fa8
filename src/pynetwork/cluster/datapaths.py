"""What forwards on a host: what was asked for, or the best that it has, from then on."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from pynetwork.drivers.overlay_linux import LinuxDatapath
from pynetwork.drivers.overlay_ovs import OvsDatapath
from pynetwork.errors import ConflictError, UnavailableError
from pynetwork.kernel.ovs.place import SwitchAwayError
from pynetwork.log import logger
from pynetwork.store import Put
from pynetwork.types import CLUSTER_SPACE

if TYPE_CHECKING:
    from pynetwork.core import Core
    from pynetwork.drivers.overlay import Datapath
    from pynetwork.kernel.port import Kernel
    from pynetwork.store import Store

__all__ = ["choose", "remember"]

_RECORD: Final = "meta/datapath"  # in the host's own store
_NO_MODULE: Final = "the kernel lacks openvswitch (modprobe openvswitch)"
_NO_PACKAGE: Final = "the Python package ovs is missing (pip install 'pynetwork[overlay]')"


def choose(wanted: str, kernel: Kernel, link: str, store: Store, *, firewall_priority: int = 0) -> Datapath:
    """
    Return what forwards on a host.

    A switch that does not run just now is no hindrance: it is waited for.

    Args:
        wanted: A name of :data:`~.config.DATAPATHS`; ``auto`` for what it was before, or else the best
            that there is now.
        kernel: The host.
        link: The interface whose address tunnels end at.
        store: The host's own.
        firewall_priority: As of :class:`LinuxDatapath`.

    Raises:
        UnavailableError: The host cannot have what was asked for.
    """
    entry = store.get(_RECORD)
    name = entry.value if wanted == "auto" and entry is not None else wanted
    if name == "auto":
        reason = _hindrance(kernel)
        name = LinuxDatapath.name if reason else OvsDatapath.of_kernel
        logger().info("datapath %s forwards on this host%s", name, reason and f": {reason}")
    if name == LinuxDatapath.name:
        is_strict = getattr(kernel, "tells_senders", lambda: True)()
        return LinuxDatapath(firewall_priority=firewall_priority, is_strict=is_strict)
    datapath = OvsDatapath(name)
    if not hasattr(kernel, "check_switch"):
        msg = f"datapath {name!r} cannot be had: {kernel!r} has no Open vSwitch"
        raise UnavailableError(msg)
    if find_spec("ovs") is None:
        msg = f"datapath {name!r} cannot be had: {_NO_PACKAGE}"
        raise UnavailableError(msg)
    if wanted == OvsDatapath.of_kernel and not kernel.has_switch_module():  # type: ignore[attr-defined]  # as above
        msg = f"datapath {name!r} cannot be had: {_NO_MODULE}"
        raise UnavailableError(msg)
    try:
        kernel.check_switch(None if datapath.kind == "system" else link)
    except SwitchAwayError as error:
        logger().warning("networks that span hosts wait for their switch: %s", error)
    return datapath


def remember(core: Core, datapath: Datapath) -> None:
    """
    Record what forwards on a host.

    Raises:
        ConflictError: It is another than before, and endpoints are joined.
    """
    store = core.engine.mirror.store
    entry = store.get(_RECORD)
    if entry is not None and entry.value == datapath.name:
        return
    if entry is not None:
        with core.reading() as records:
            joined = [
                row.spec.name
                for row in records.endpoints.values()
                if row.spec.sandbox is not None and core.network(row.spec.network).spec.space == CLUSTER_SPACE
            ]
        if joined:
            msg = (
                f"the datapath of this host cannot become {datapath.name!r}: endpoints are joined on "
                f"{entry.value!r}, and have to leave first: {', '.join(sorted(joined))}"
            )
            raise ConflictError(msg)
    store.transact([], [Put(_RECORD, datapath.name)])


def _hindrance(kernel: Kernel) -> str:
    """Return why the kernel cannot forward for the host's Open vSwitch now; nothing if it can."""
    if not hasattr(kernel, "check_switch"):
        return f"{kernel!r} has no Open vSwitch"
    if not kernel.has_switch_module():  # type: ignore[attr-defined]  # it has the one, so the other
        return _NO_MODULE
    if find_spec("ovs") is None:
        return _NO_PACKAGE
    try:
        kernel.check_switch(None)
    except UnavailableError as error:
        return str(error)
    return ""
