"""What is done on a host for the steps of a request: sent, written, mounted, or handed to a switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.kernel.admission import Admission
    from pynetwork.kernel.groups import Groups
    from pynetwork.kernel.netlink import Message
    from pynetwork.plan import Step
    from pynetwork.resources import Address, Bridge, Veth, Vxlan

__all__ = [
    "Do",
    "Filter",
    "Host",
    "Lookup",
    "Machine",
    "Make",
    "Offload",
    "Operation",
    "Pin",
    "Send",
    "Steer",
    "Treat",
    "Unpin",
    "Write",
]


class Lookup(Protocol):
    """What a message may need to know when it is built."""

    def index(self, name: str) -> int:
        """Return the ifindex of a link in the namespace that the message is for."""
        ...

    def descriptor(self, netns: str) -> int:
        """Return an open descriptor of a namespace."""
        ...

    def new_indexes(self, netns: str, peer: str) -> tuple[int, int]:
        """Return the ifindexes that the ends of a veth about to be made shall have; 0 for any."""
        ...


class Host(Protocol):
    """The rare things that need a look before they are done."""

    def adopt_bridge(self, bridge: Bridge) -> None:
        """Take an existing bridge as it is, or make it."""
        ...

    def change_bridge(self, bridge: Bridge) -> None:
        """Change a bridge that is ours, leave another alone."""
        ...

    def doom_bridge(self, bridge: Bridge) -> None:
        """Delete a bridge that is ours, soon, and free its name now."""
        ...

    def doom_link(self, link: Veth | Vxlan) -> None:
        """Delete a veth pair or VXLAN device that is ours, soon; no packet passes from now on."""
        ...

    def adopt_address(self, address: Address) -> None:
        """Take an existing address as it is, or make it."""
        ...

    def drop_address(self, address: Address) -> None:
        """Delete an address that is ours."""
        ...


class Machine(Protocol):
    """What of a host is told by no messages that go out together."""

    @property
    def groups(self) -> Groups:
        """Its control groups."""
        ...

    @property
    def admission(self) -> Admission:
        """From whom it takes VXLAN packets."""
        ...


@attrs.frozen
class Make:
    """Make a namespace, prepared as all of ours are, and pin it with the file *place*."""

    place: str


@attrs.frozen
class Pin:
    """Pin the namespace *source* with a file."""

    place: None
    path: str
    source: str


@attrs.frozen
class Unpin:
    """Remove a pin."""

    place: None
    path: str


@attrs.frozen
class Write:
    """Write a sysctl."""

    place: str | None
    name: str
    value: str


@attrs.frozen
class Send:
    """Send a message; with *first* nothing that follows, unless this went well."""

    place: str | None
    build: Callable[[Lookup], Message]
    first: bool = False


@attrs.frozen
class Filter:
    """Have the firewall take a step, together with those next to it."""

    place: None
    step: Step


@attrs.frozen
class Offload:
    """Let an interface leave checksums to others, or not."""

    place: str | None
    dev: str
    on: bool


@attrs.frozen
class Steer:
    """Have the host's Open vSwitch take a step, together with those next to it."""

    place: None
    step: Step


@attrs.frozen
class Treat:
    """Do one of the rare things."""

    place: None
    act: Callable[[Host], None]


@attrs.frozen
class Do:
    """Do something with the host's files, control groups or filter of VXLAN packets, perhaps again."""

    place: None
    act: Callable[[Machine], None]


Operation: TypeAlias = Make | Pin | Unpin | Write | Offload | Send | Filter | Steer | Treat | Do
