"""The host: the one floor that speaks netlink, mounts and /proc."""

from __future__ import annotations

from pynetwork.kernel.linux import LinuxKernel
from pynetwork.kernel.port import Kernel

__all__ = ["Kernel", "LinuxKernel"]
