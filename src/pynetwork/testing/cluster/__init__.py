"""Several hosts on one machine, for tests of networks that span hosts.

Each is a network namespace with processes of its own, so they are up in a second and gone without a trace.

* :func:`linux_cluster`: hosts with a controller each, and the kernel's own VXLAN between them.
* :func:`ovs_cluster`: hosts with an Open vSwitch each, in user space, joined by an underlay.
"""

from __future__ import annotations

from pynetwork.testing.cluster.linux_hosts import LinuxHost, linux_cluster
from pynetwork.testing.cluster.ovs_hosts import OvsHost, ovs_cluster

__all__ = ["LinuxHost", "OvsHost", "linux_cluster", "ovs_cluster"]
