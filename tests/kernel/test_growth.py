"""What comes and goes leaves nothing behind: no descriptor, thread, namespace, link, route or record."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork import Controller

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Oracle

    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root

CYCLES = 300


def cycle(controller: Controller, number: int) -> None:
    """Make a container's network and take it down, in one of several orders."""
    box = controller.new_sandbox("box")
    network = controller.networks["n"]
    endpoint = network.create_endpoint("e")
    endpoint.join(box)
    match number % 4:
        case 0:
            endpoint.leave()
            endpoint.join(box)
            endpoint.delete(force=True)
            box.delete()
        case 1:
            box.delete()
            endpoint.delete()
        case 2:
            box.stats()
            with box.entered():
                pass
            endpoint.leave()
            box.delete()
            endpoint.delete()
        case _:
            unused = controller.new_sandbox("unused")
            unused.delete()
            other = controller.new_network("bridge", "other", subnets=["10.9.0.0/24"])
            other.create_endpoint("e").join(box)
            box.delete()
            other.endpoints["e"].delete()
            other.delete()
            endpoint.delete()


def observe(controller: Controller, oracle: Oracle) -> Counter[str]:
    """Count what this process and the host have."""
    controller._core.engine.kernel.flush()  # type: ignore[attr-defined]
    gc.collect()
    found = Counter(f"thread {thread.name}" for thread in threading.enumerate())
    found.update(f"link {link.kind}" for link in oracle.links().values())
    # Namespaces that are kept ready come and go, two descriptors each.
    ready = len(controller._core.namespaces()._spares._ready)
    found["descriptors"] = len(os.listdir("/proc/self/fd")) - 2 * ready  # noqa: PTH208 - as fast as can be
    mounts = Path("/proc/thread-self/mountinfo").read_text(encoding="utf-8").splitlines()
    found["mounts"] = len(mounts)
    found["files"] = len(list(Path("/run/pynetwork").rglob("*")))
    found["namespaces"] = held_namespaces() - ready
    found["records"] = len(controller._core.engine.mirror.store.list("").entries)
    return found


def held_namespaces() -> int:
    """Return how many different namespaces the descriptors of this process keep alive."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as above
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - as above
        except FileNotFoundError:
            continue
        found.add(target)
    return len({target for target in found if target.startswith("net:")})


def test_cycles_leave_nothing_behind(
    controller: Controller, oracle: Oracle, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    controller.new_network("bridge", "n", subnets=["10.64.0.0/16", "fd64::/64"])
    for number in range(12):
        cycle(controller, number)
    before = observe(controller, oracle)
    for number in range(CYCLES):
        cycle(controller, number)

    def is_as_before() -> bool:
        excess = observe(controller, oracle) - before
        # Released addresses are remembered for a while, and locks of networks that were.
        return not set(excess) - {"records"}

    assert soon(is_as_before), observe(controller, oracle) - before
    assert controller.reconcile().is_clean
    assert controller.statistics()["requests"] == 0


def test_controllers_that_come_and_go_leave_nothing_behind(host: PrivateHost, oracle: Oracle) -> None:
    with Controller() as controller:
        controller.new_network("bridge", "n", subnets=["10.64.0.0/16"])

    def once(number: int) -> Counter[str]:
        with Controller() as controller:
            cycle(controller, number)
            return observe(controller, oracle)

    before = once(0)
    for number in range(20):
        once(number)
    after = once(0)
    assert not set(after - before) - {"records"}, after - before
    assert after["descriptors"] <= before["descriptors"] + 2  # spares come and go
    with Controller() as controller:
        controller.erase()


def test_requests_that_fail_leave_nothing_behind(
    controller: Controller, oracle: Oracle, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.64.0.0/24"])
    box = controller.new_sandbox("box")
    box.run(["ip", "link", "add", "taken", "type", "bridge"], check=True)
    endpoint = network.create_endpoint("e", interface="taken")

    def fail() -> None:
        for wrong in (
            lambda: endpoint.join(box),
            lambda: controller.new_sandbox("other", netns="/proc/self/ns/mnt"),
            lambda: controller.new_network("bridge", "m", subnets=["10.9.0.0/24"], options={"bridge": "lo"}),
            lambda: network.create_endpoint("e"),
            lambda: network.create_endpoint("f", addresses=["10.64.0.1"]),
        ):
            with pytest.raises(Exception, match=r"cannot|exists|in use|no network namespace"):
                wrong()

    for _ in range(3):
        fail()
    before = observe(controller, oracle)
    for _ in range(40):
        fail()
    assert soon(lambda: not set(observe(controller, oracle) - before)), observe(controller, oracle) - before
    assert controller.reconcile().is_clean
