"""Sysctls of the current namespace, by the name rules of sysctl.conf(5)."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from pynetwork.errors import InvalidValueError

__all__ = ["has_ipv6", "is_moot", "path_of", "read", "write"]

_ROOT: Final = "/proc/sys/"


def path_of(name: str) -> str:
    """
    Return the file of a setting.

    Args:
        name: ``net.ipv4.ip_forward``. Where the first separator is a slash, slashes separate and dots
            stand for themselves; where it is a dot, slashes stand for dots: an interface called
            ``eth0.5`` is ``net.ipv4.conf.eth0/5.rp_filter`` or ``net/ipv4/conf/eth0.5/rp_filter``.

    Raises:
        InvalidValueError: It leads out of /proc/sys, or is malformed.
    """
    first = next((c for c in name if c in "./"), ".")
    parts = name.split("/") if first == "/" else [p.replace("/", ".") for p in name.split(".")]
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        msg = f"invalid sysctl name {name!r}"
        raise InvalidValueError(msg)
    return _ROOT + "/".join(parts)


def has_ipv6() -> bool:
    """Whether the kernel has IPv6: it may be left out, or switched off at boot (``ipv6.disable=1``)."""
    return Path(_ROOT, "net/ipv6").exists()


def is_moot(name: str) -> bool:
    """Whether a setting is about IPv6 and the kernel has none."""
    return name.startswith(("net.ipv6.", "net/ipv6/")) and not has_ipv6()


def read(name: str) -> str:
    """Return the value of a setting, blanks between its numbers as single ones."""
    return " ".join(Path(path_of(name)).read_text(encoding="ascii").split())


def write(name: str, value: str) -> None:
    """Write a setting unless it has the value: a read-only /proc/sys is fine as long as nothing changes."""
    path = path_of(name)
    try:
        with open(path, "rb+", buffering=0) as file:  # noqa: PTH123 - 5 us less than Path
            if file.read().split() != value.encode().split():
                file.seek(0)  # anywhere else the kernel ignores what is written
                file.write(value.encode())
    except FileNotFoundError as error:
        if is_moot(name):
            return
        msg = f"the kernel has no sysctl {name} (is the feature, or the interface, there?)"
        raise OSError(errno.ENOENT, msg) from error
    except OSError:
        if read(name).split() != value.split():
            raise
