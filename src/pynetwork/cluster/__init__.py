"""Networks that span hosts: what is in the store of a cluster, and how a host follows it."""

from __future__ import annotations

from pynetwork.cluster.config import Cluster, EtcdCluster
from pynetwork.cluster.status import PeerHost, PeerProbe

__all__ = ["Cluster", "EtcdCluster", "PeerHost", "PeerProbe"]
