"""What a controller is told of its cluster."""

from __future__ import annotations

import platform
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from pynetwork.drivers.overlay_options import VNI_MAX
from pynetwork.errors import InvalidValueError
from pynetwork.types import check_flag, check_name, parse_address

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from pynetwork.store import LeasingStore, Tls
    from pynetwork.types import IPAddress

__all__ = ["DATAPATHS", "Cluster", "EtcdCluster"]

#: What may forward on a host; ``auto`` takes the best that it has.
DATAPATHS: Final = ("auto", "ovs-kernel", "ovs-userspace", "linux")
_PORT_MAX: Final = 65535


def _vtep(value: object) -> IPAddress | None:
    return None if value is None else parse_address(value, "VTEP address")


def _host(value: object) -> str:
    return check_name("host", value)


def _check_port(_instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _PORT_MAX:
        msg = f"invalid {attribute.name} {value!r}: a number from 1 to {_PORT_MAX} is expected"
        raise InvalidValueError(msg)


def _check_seconds(_instance: object, attribute: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        msg = f"invalid {attribute.name} {value!r}: a positive number of seconds is expected"
        raise InvalidValueError(msg)


def _check_word(_instance: object, _attribute: object, value: object) -> None:
    if value not in DATAPATHS:
        msg = f"invalid datapath {value!r}: {', '.join(DATAPATHS)} are known"
        raise InvalidValueError(msg)


def _check_vnis(_instance: object, _attribute: object, value: tuple[int, int]) -> None:
    valid = isinstance(value, tuple) and len(value) == 2 and all(type(number) is int for number in value)
    if not valid or not 1 <= value[0] <= value[1] <= VNI_MAX:
        msg = f"invalid range of VNIs {value!r}: first and last, from 1 to {VNI_MAX}, are expected"
        raise InvalidValueError(msg)


def _check_agent(_instance: object, _attribute: object, value: object) -> None:
    check_flag("agent", value)


@attrs.frozen(kw_only=True)
class Cluster:
    """
    The cluster that a controller's host is in.

    Args:
        store: What all hosts share, with leases, such as etcd; or a function that opens it, whose result is
            closed with the controller.
        host: Name of this host, unique in the cluster; by default the name that it has as a machine.
        vtep: Address that the others send to (VTEP: VXLAN tunnel end point), one of this host's. None for
            the one that it sends from to the world.
        vxlan_port: UDP port of VXLAN, the same on all hosts (RFC 7348: 4789).
        ttl: Seconds after which a host that is not heard of is taken for dead: what it had joined is
            reachable no more. Its addresses stay its own for *grace*.
        grace: Seconds after which the addresses of a dead host are others' to have.
        datapath: What forwards on this host: ``ovs-kernel`` for Open vSwitch with the kernel's module,
            ``ovs-userspace`` for Open vSwitch without, ``linux`` for the kernel's own VXLAN; ``auto`` for
            the first if the host has it, else the last, and the same ever after. Hosts need not have the
            same.
        vnis: First and last of the VNIs that are chosen for networks which ask for none.
        agent: Whether the controller follows what happens on other hosts, from threads of its own. Else run
            ``python -m pynetwork.agent``: it does for callers that exit.
    """

    store: LeasingStore | Callable[[], LeasingStore] = attrs.field(repr=False)
    host: str = attrs.field(factory=platform.node, converter=_host)
    vtep: IPAddress | None = attrs.field(default=None, converter=_vtep)
    vxlan_port: int = attrs.field(default=4789, validator=_check_port)
    ttl: float = attrs.field(default=10.0, validator=_check_seconds)
    grace: float = attrs.field(default=600.0, validator=_check_seconds)
    datapath: str = attrs.field(default="auto", validator=_check_word)
    vnis: tuple[int, int] = attrs.field(default=(4096, VNI_MAX), validator=_check_vnis)
    agent: bool = attrs.field(default=True, validator=_check_agent)

    def __attrs_post_init__(self) -> None:
        """Check that the store is one."""
        if not (callable(self.store) or all(hasattr(self.store, name) for name in ("transact", "grant"))):
            msg = f"invalid cluster store {self.store!r}: one with leases, or what opens it, is expected"
            raise InvalidValueError(msg)


def _opener(cluster: EtcdCluster) -> Callable[[], LeasingStore]:
    return partial(
        _open_etcd,
        cluster.endpoints,
        prefix=cluster.prefix,
        tls=cluster.tls,
        user=cluster.user,
        password=cluster.password,
        timeout=cluster.timeout,
    )


def _open_etcd(endpoints: str | Sequence[str], **arguments: Any) -> LeasingStore:  # noqa: ANN401 - EtcdStore's
    from pynetwork.store import EtcdStore

    return EtcdStore(endpoints, **arguments)


@attrs.frozen(kw_only=True)
class EtcdCluster(Cluster):
    """
    A cluster whose store is etcd: ``EtcdCluster(["http://192.0.2.1:2379", ...])``.

    Args:
        endpoints: Of the members of etcd; name all.
        prefix: Of its keys, for several clusters in one etcd.
        tls: For ``https`` endpoints, see :class:`~pynetwork.EtcdStore`.
        user: For an etcd with authentication.
        password: Of the user.
        timeout: Seconds that a call goes on trying.

    All others are those of :class:`Cluster`.
    """

    endpoints: str | Sequence[str] = attrs.field(kw_only=False)
    prefix: str = "/pynetwork"
    tls: Tls | ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    timeout: float = 10.0
    store: LeasingStore | Callable[[], LeasingStore] = attrs.field(
        init=False, repr=False, eq=False, default=attrs.Factory(_opener, takes_self=True)
    )
