"""What is in the store of a cluster: keys, and the values of their records.

::

    hosts/HOST                leased   a host that is there, and how the others reach it
    known/HOST                         a host that was ever there, and since when it is missed
    nets/ID                            a network
    names/NAME                         the id of the network of that name
    vni/NUMBER                         the id of the network of that VNI
    held/HOST/ENDPOINT                 what an endpoint of a host has, in all of its network's tables:
    ends/NETWORK/NAME                  the id of the endpoint of that name
    ipam/NETWORK/ADDRESS               the id of the endpoint that has an address
    macs/NETWORK/MAC                   the id of the endpoint that has a MAC address
    eps/NETWORK/ENDPOINT      leased   an endpoint that is joined, and where it is
    reaper                    leased   the host that looks for what others have left behind

What must be unique is a key that is written only if it is absent: nobody reads a bitmap, changes it and
writes it back, so writers stand in nobody's way unless they want the very same thing. Addresses are of a
network, not of a subnet: two networks may have the same.

What is leased ends with its host, within seconds. What is held is not leased: a host that is cut off for
a while finds its addresses its own, and one that is gone for good loses them after a time of grace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from pynetwork.engine.codec import decode_value, encode, loads
from pynetwork.types import parse_address, parse_each

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pynetwork.peers import Peer
    from pynetwork.store import Entry
    from pynetwork.types import IPAddress

__all__ = [
    "HOSTS",
    "KNOWN",
    "NAMES",
    "NETS",
    "PEERS",
    "REAPER",
    "Holding",
    "HostRecord",
    "KnownRecord",
    "holdings_of",
    "peer_key",
    "peer_of",
    "read",
    "read_text",
    "write",
]

_T = TypeVar("_T")

HOSTS: Final = "hosts/"
KNOWN: Final = "known/"
NAMES: Final = "names/"
NETS: Final = "nets/"
PEERS: Final = "eps/"
REAPER: Final = "reaper"


def _addresses(values: Iterable[object]) -> tuple[IPAddress, ...]:
    return parse_each("addresses", values, parse_address)


@attrs.frozen(kw_only=True)
class HostRecord:
    """
    A host that is there.

    Args:
        instance: Id of the instance of this library on it: tells two hosts of one name apart.
        vtep: Address that the others send to.
        mtu: Of the interface that has it, bytes.
        port: UDP port of VXLAN.
        datapath: What forwards there.
        lease: Id of the lease that the record ends with, 0 if a host of an older version does not say.
        ttl: Of the lease, seconds.
    """

    instance: str
    vtep: str
    mtu: int
    port: int
    datapath: str = ""
    lease: int = 0
    ttl: float = 0.0


@attrs.frozen(kw_only=True)
class KnownRecord:
    """A host that was ever there; since when it is *missed* (seconds since the epoch), None if it is not."""

    missed: float | None = None


@attrs.frozen(kw_only=True)
class Holding:
    """
    What an endpoint has in the tables of its network, wherever it is.

    Args:
        endpoint: Its id.
        network: The network's id.
        host: Name of the host it is on.
        owner: Identity of the process that made it.
        name: Its name in the network.
        addresses: Its addresses.
        mac: Its MAC address.
    """

    endpoint: str
    network: str
    host: str
    owner: str
    name: str
    addresses: tuple[IPAddress, ...] = attrs.field(default=(), converter=_addresses)
    mac: str

    @property
    def key(self) -> str:
        """Of its record."""
        return f"held/{self.host}/{self.endpoint}"

    @property
    def name_key(self) -> str:
        """Of the record that nobody else can have together with its name."""
        return f"ends/{self.network}/{self.name}"

    @property
    def mac_key(self) -> str:
        """Of the record that nobody else can have together with its MAC address."""
        return f"macs/{self.network}/{self.mac}"

    def address_key(self, address: IPAddress) -> str:
        """Return the key of the record that nobody else can have together with *address*."""
        return f"ipam/{self.network}/{address}"

    @property
    def claims(self) -> tuple[str, ...]:
        """Keys of all records that nobody else can have."""
        return (self.name_key, self.mac_key, *map(self.address_key, self.addresses))


def holdings_of(host: str) -> str:
    """Return the prefix of the keys of what the endpoints of a host have."""
    return f"held/{host}/"


def peer_key(network: str, endpoint: str = "") -> str:
    """Return the key of an endpoint that is joined, or the prefix of those of a network."""
    return f"{PEERS}{network}/{endpoint}"


def peer_of(key: str) -> tuple[str, str]:
    """Return the ids of network and endpoint that a key made by :func:`peer_key` is of."""
    _, network, endpoint = key.split("/")
    return network, endpoint


def read(cls: type[_T], entry: Entry) -> _T:
    """
    Return what a record says.

    Raises:
        StoreError: It is damaged, or of a schema that this version does not know.
    """
    return read_text(cls, entry.key, entry.value)


def read_text(cls: type[_T], key: str, text: str) -> _T:
    """Return what *text*, the record of a *key*, says; see :func:`read`."""
    return decode_value(cls, key, loads(key, text))[0]


def write(value: HostRecord | KnownRecord | Holding | Peer) -> str:
    """Return *value* as the text of its record."""
    return encode(value)
