"""Several hosts on one machine, for tests of networks that span hosts.

Each is a network namespace with processes of its own, so they are up in a second and gone without a trace.

* :func:`ovs_cluster`: hosts with an Open vSwitch each, in user space, joined by an underlay.
"""

from __future__ import annotations

from pynetwork.testing.cluster.ovs_hosts import OvsHost, ovs_cluster

__all__ = ["OvsHost", "ovs_cluster"]
