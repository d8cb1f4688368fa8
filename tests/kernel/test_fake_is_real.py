"""The fake kernel and Linux agree, step by step, on what is refused and on what goes with what.

Random steps are taken on both: by `FakeKernel`, and as the lines they render to on a private host.
What one of them wrongly kept or removed shows as a disagreement about a later step.
"""

from __future__ import annotations

import random
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.plan import Step, StepFailedError, Verb
from pynetwork.resources import (
    Address,
    Bridge,
    BridgePort,
    FdbEntry,
    LinkUp,
    Neighbour,
    Netns,
    Route,
    Veth,
    Vxlan,
)
from pynetwork.testing import FakeKernel, private_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork.resources import Resource

pytestmark = pytest.mark.root

PATH = "/run/netns/a"
MAC = "02:00:00:00:00:01"
NOBODY = "02:00:00:00:00:77"  # never learned, and so never there but by our doing
NETNS = Netns(path=PATH)
ETH0 = {"netns": PATH, "dev": "eth0"}
VXLAN = Vxlan(name="vx7", vni=7, local="127.0.0.1", bridge="br0", mtu=1400)
BASE = [
    NETNS,
    Bridge(name="br0"),
    Veth(name="veth0", bridge="br0", netns=PATH, peer="eth0", mac=MAC),
    LinkUp(netns=PATH, dev="eth0"),
]
RESOURCES = [
    *BASE,
    Veth(name="veth1", netns=PATH, peer="eth1", mac=MAC),
    Veth(name="veth2", netns=PATH, peer="eth0", mac=MAC),
    Veth(name="br0", netns=PATH, peer="eth2", mac=MAC),
    *(Address(netns=PATH, dev="eth0", cidr=f"10.0.0.{number}/24") for number in (1, 2, 3)),
    Address(netns=PATH, dev="eth0", cidr="10.5.0.1/24"),
    Address(netns=PATH, dev="eth0", cidr="fd00::1/64"),
    Address(dev="br0", cidr="10.0.0.1/24"),
    LinkUp(dev="br0"),
    LinkUp(netns=PATH, dev="eth1"),
    *(Neighbour(netns=PATH, dev="eth0", address=text, mac=MAC) for text in ("10.0.0.9", "fd00::9")),
    Route(netns=PATH, dev="eth0", dst="0.0.0.0/0", via="10.0.0.9"),
    Route(netns=PATH, dev="eth0", dst="0.0.0.0/0"),
    Route(netns=PATH, dev="eth0", dst="0.0.0.0/0", metric=0),
    Route(netns=PATH, dev="eth0", dst="0.0.0.0/0", metric=10),
    Route(netns=PATH, dev="eth1", dst="0.0.0.0/0"),
    Route(netns=PATH, dev="eth0", dst="10.8.0.0/16"),
    Route(netns=PATH, dev="eth0", dst="10.9.0.0/16", via="10.8.0.1"),
    Route(netns=PATH, dev="eth0", dst="::/0", via="fd00::9"),
    Route(netns=PATH, dev="eth0", dst="::/0", metric=1024),
    Route(netns=PATH, dev="eth0", dst="fd08::/64"),
    Route(netns=PATH, dev="eth0", dst="fd09::/64", via="fe80::9"),
    Route(netns=PATH, dev="lo", dst="10.7.0.0/16"),
    Route(dev="br0", dst="10.7.0.0/16"),
    Route(dev="veth0", dst="10.6.0.0/16"),
    VXLAN,
    Vxlan(name="vx8", vni=7, local="127.0.0.1", mtu=1400),
    Vxlan(name="br0", vni=9, local="127.0.0.1", mtu=1400),
    BridgePort(dev="vx7", bridge="br0"),
    BridgePort(dev="veth1", bridge="br0"),
    FdbEntry(dev="vx7", bridge="br0", mac=NOBODY),
    FdbEntry(dev="veth0", bridge="br0", mac=NOBODY),
    FdbEntry(dev="veth1", bridge="br0", mac=NOBODY),
]


def takes(kernel: FakeKernel, step: Step) -> bool:
    """Tell whether the fake kernel takes *step*."""
    try:
        kernel.apply([step])
    except StepFailedError:
        return False
    return True


def takes_really(step: Step) -> bool:
    """Tell whether Linux takes *step*."""
    if step.verb is Verb.CREATE and step.resource == NETNS and Path(PATH).exists():
        return False  # the lines would mount a second one over it
    for number, line in enumerate(step.render()):
        if run(line):
            # Unlike a kernel port, a list of commands may stop half way.
            for undo in step.resource.render_delete() if number and step.verb is Verb.CREATE else ():
                run(undo)
            return False
    return True


def run(line: str) -> int:
    return subprocess.run(line.split(), capture_output=True, check=False).returncode


def links_of(kernel: FakeKernel) -> set[str]:
    return {resource.name for resource in kernel.resources if isinstance(resource, Bridge | Veth | Vxlan)} | {
        "lo"
    }


def wait_for_links(expected: set[str]) -> set[str]:
    """Return the links of the host, *expected* ones if they are by a while: they go asynchronously."""
    deadline = time.monotonic() + 2
    while (found := {name for _, name in socket.if_nameindex()}) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def has_other_form(kernel: FakeKernel, wanted: Resource) -> bool:
    """Tell whether `ip` would take the lines that delete *wanted* for another object that exists."""
    held = [
        each
        for each in kernel.resources
        if each.key == wanted.key
        or (isinstance(each, Route) and isinstance(wanted, Route) and each.dst == wanted.dst)
    ]
    return bool(held) and wanted not in held


def walk(seed: int, kernel: FakeKernel) -> Iterator[Step]:
    """Yield random steps."""
    yield from (Step(Verb.CREATE, resource) for resource in BASE)
    source = random.Random(seed)
    for _ in range(40):
        resource = source.choice(RESOURCES)
        # Things that others are on go less often, so that there is something to be on.
        rarely = isinstance(resource, Netns | Bridge | Veth | Vxlan) and source.random() < 0.8
        if source.random() < 0.6 or rarely or has_other_form(kernel, resource):
            yield Step(Verb.CREATE, resource)
        else:
            yield Step(Verb.DELETE, resource)


@pytest.mark.parametrize("seed", range(12))
def test_the_fake_kernel_does_what_linux_does(seed: int) -> None:
    kernel = FakeKernel()
    log: list[str] = []
    with private_host() as host:
        for step in walk(seed, kernel):
            fake, real = takes(kernel, step), takes_really(step)
            log.append(f"{'taken' if real else 'refused'}: {step}")
            assert real == fake, "\n".join(log)
            assert links_of(kernel) == wait_for_links(links_of(kernel)), "\n".join(log)
        for link in links_of(kernel) - {"lo"}:
            host.run(["ip", "link", "delete", link])
        if Path(PATH).exists():
            host.run(["umount", PATH])
