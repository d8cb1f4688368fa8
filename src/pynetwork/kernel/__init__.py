"""The host: the only floor that speaks to the kernel, and the only one that imports pyroute2, ovs or iptc."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.kernel.port import Kernel

if TYPE_CHECKING:
    from pynetwork.kernel.linux import LinuxKernel

__all__ = ["Kernel", "LinuxKernel"]


def __getattr__(name: str) -> object:
    # Not before it is needed: with a fake kernel none of it is.
    if name == "LinuxKernel":
        from pynetwork.kernel.linux import LinuxKernel

        return LinuxKernel
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
