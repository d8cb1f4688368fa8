"""The nouns of a plan: kernel objects that should exist, as frozen values.

A resource says *what*, never *how*: the kernel floor turns it into netlink, ``render`` into lines a
user could type. Everything the engine needs to know of it is derived from its fields.
"""

from __future__ import annotations

from pynetwork.resources.addresses import Address, Announce, ForgetNeighbour, Neighbour, Route
from pynetwork.resources.base import Effect, Key, Resource
from pynetwork.resources.files import Directory, File
from pynetwork.resources.firewall import (
    Conntrack,
    EndpointRules,
    NetworkRules,
    PublishedPort,
    Rules,
    Ruleset,
    SubnetRules,
)
from pynetwork.resources.groups import Cgroup
from pynetwork.resources.links import Bridge, LinkUp, Netns, Veth
from pynetwork.resources.ovs import Flow, OvsBridge, OvsPort, TxChecksum
from pynetwork.resources.settings import LinkSysctl, Sysctl
from pynetwork.resources.vxlan import BridgePort, FdbEntry, StrictVni, Vxlan, vxlan_name

__all__ = [
    "KINDS",
    "Address",
    "Announce",
    "Bridge",
    "BridgePort",
    "Cgroup",
    "Conntrack",
    "Directory",
    "Effect",
    "EndpointRules",
    "FdbEntry",
    "File",
    "Flow",
    "ForgetNeighbour",
    "Key",
    "LinkSysctl",
    "LinkUp",
    "Neighbour",
    "Netns",
    "NetworkRules",
    "OvsBridge",
    "OvsPort",
    "PublishedPort",
    "Resource",
    "Route",
    "Rules",
    "Ruleset",
    "StrictVni",
    "SubnetRules",
    "Sysctl",
    "TxChecksum",
    "Veth",
    "Vxlan",
    "vxlan_name",
]

#: Every kind of resource that stored plans may hold.
KINDS: dict[str, type[Resource]] = {
    cls.kind: cls
    for cls in (
        Netns,
        Directory,
        File,
        Cgroup,
        Ruleset,
        Sysctl,
        Bridge,
        OvsBridge,
        NetworkRules,
        EndpointRules,
        PublishedPort,
        Flow,
        Veth,
        OvsPort,
        TxChecksum,
        LinkSysctl,
        Address,
        LinkUp,
        Neighbour,
        Route,
        StrictVni,
        Vxlan,
        BridgePort,
        FdbEntry,
    )
}
