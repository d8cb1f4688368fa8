"""Several hosts on one machine, for tests of networks that span hosts.

Each is a network namespace with processes of its own, so they are up in a second and gone without a trace.

* :func:`linux_cluster`: hosts with a controller each, and the kernel's own VXLAN between them.
* :func:`ovs_cluster`: hosts with an Open vSwitch each, in user space, joined by an underlay.
* :func:`overlay_cluster`: hosts with a controller each, some with the one and some with the other.
* :func:`etcd_cluster`: one or several members of etcd, which can be killed, stopped and started again.
* :func:`pinging`: how long an endpoint is not reached, while something fails.
"""

from __future__ import annotations

from pynetwork.testing.cluster.certificates import Certificates, make_certificates
from pynetwork.testing.cluster.etcd import EtcdCluster, EtcdMember, etcd_cluster
from pynetwork.testing.cluster.linux_hosts import LinuxHost, linux_cluster
from pynetwork.testing.cluster.overlay_hosts import SwitchedHost, overlay_cluster
from pynetwork.testing.cluster.ovs_hosts import OvsHost, ovs_cluster
from pynetwork.testing.cluster.pings import Pings, pinging

__all__ = [
    "Certificates",
    "EtcdCluster",
    "EtcdMember",
    "LinuxHost",
    "OvsHost",
    "Pings",
    "SwitchedHost",
    "etcd_cluster",
    "linux_cluster",
    "make_certificates",
    "overlay_cluster",
    "ovs_cluster",
    "pinging",
]
