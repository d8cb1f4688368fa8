"""What an error of the kernel means, and what can be done about it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pynetwork.errors import PynetworkError, UnavailableError
from pynetwork.plan import Verb
from pynetwork.resources import Address, Bridge, Netns, Veth, Vxlan

if TYPE_CHECKING:
    from pynetwork.plan import Step

__all__ = ["check_privileges", "explained"]

_NEEDED: Final = {12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN"}  # linux/capability.h

# What the kernel says to an IPv6 address where IPv6 is switched off for the interface, at boot, or left out.
_NO_IPV6: Final = frozenset({errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})


def check_privileges() -> None:
    """
    Check that this process may make namespaces and links.

    Raises:
        UnavailableError: It may not, or this is no Linux.
    """
    try:
        status = Path("/proc/thread-self/status").read_text(encoding="utf-8")
    except OSError as error:
        msg = "the capabilities of this process cannot be read: pynetwork needs Linux with /proc mounted"
        raise UnavailableError(msg) from error
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    missing = [name for bit, name in _NEEDED.items() if not effective >> bit & 1]
    if missing:
        msg = f"making networks needs {' and '.join(missing)}: run as root, or grant these capabilities"
        raise UnavailableError(msg)


def explained(error: OSError | PynetworkError, step: Step) -> OSError | PynetworkError:
    """Return *error* with what it means for *step* added, where that is known."""
    if not isinstance(error, OSError) or error.errno is None:
        return error
    resource, code = step.resource, error.errno
    hint = _hint_of_address(code, resource) if isinstance(resource, Address) else _hint(code, step)
    return type(error)(code, f"{error.strerror} ({hint})") if hint else error


def _hint_of_address(code: int, address: Address) -> str:
    if ":" in address.cidr and code in _NO_IPV6:
        return f"IPv6 is switched off on {address.dev}, or the kernel has none"
    return ""


def _hint(code: int, step: Step) -> str:  # noqa: PLR0911 - a case for each
    resource = step.resource
    creates = step.verb is Verb.CREATE
    if code == errno.EOPNOTSUPP and creates and isinstance(resource, Bridge | Veth):
        module = "bridge" if isinstance(resource, Bridge) else "veth"
        return f"the kernel lacks {module}: modprobe {module}"
    if code == errno.EEXIST and creates and isinstance(resource, Bridge):
        return f"a link called {resource.name} exists and is not ours"
    if code == errno.EEXIST and creates and isinstance(resource, Veth):
        return f"there is a link called {resource.peer} in {resource.netns}, or {resource.name} on the host"
    if isinstance(resource, Vxlan) and creates:
        return _vxlan_hint(code, resource)
    if code in {errno.ENOENT, errno.ESRCH} and creates and isinstance(resource, Netns):
        return f"there is no namespace {resource.adopted or resource.path}, or no longer"
    if code == errno.EXFULL and isinstance(resource, Veth):
        return f"bridge {resource.bridge} is full: 1024 ports are all a Linux bridge can have"
    return ""


def _vxlan_hint(code: int, link: Vxlan) -> str:
    if code == errno.EOPNOTSUPP:
        return "the kernel lacks vxlan: modprobe vxlan"
    if code == errno.EADDRINUSE:
        return f"something else has UDP port {link.port}: choose another for the whole cluster (vxlan_port=)"
    if code == errno.EEXIST:
        return f"there is a link called {link.name}, or another VXLAN device of VNI {link.vni} on that port"
    return ""
