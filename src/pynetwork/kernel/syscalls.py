"""The system calls that Python has no function for: thin wrappers that raise OSError with errno and names."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Final

__all__ = [
    "CLONE_FS",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWUTS",
    "MNT_DETACH",
    "MS_BIND",
    "MS_PRIVATE",
    "MS_REC",
    "MS_SLAVE",
    "mount",
    "setdomainname",
    "setns",
    "umount",
    "unshare",
]

# linux/sched.h, linux/mount.h
CLONE_FS: Final = 0x00000200
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWNET: Final = 0x40000000
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SLAVE: Final = 0x80000
MNT_DETACH: Final = 0x2


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str, path: str | None = None) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", path)


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces."""
    _check(_libc().unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace of type *kind* that *descriptor* is."""
    _check(_libc().setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount *source* on *target*."""
    arguments = (text.encode() for text in (source, target, kind))
    _check(_libc().mount(*arguments, ctypes.c_ulong(flags), options.encode()), "mount", target)


def umount(target: str, flags: int = 0) -> None:
    """Unmount what is mounted on *target*."""
    _check(_libc().umount2(target.encode(), flags), "umount2", target)


def setdomainname(name: str) -> None:
    """Set the domain that the calling thread's host is said to be in."""
    text = name.encode()
    _check(_libc().setdomainname(text, ctypes.c_size_t(len(text))), "setdomainname")
