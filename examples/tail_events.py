"""Print what happens on a host, as it happens, and miss nothing. Runs on a fake host, so it needs no root.

With a real controller, ``python examples/tail_events.py follow`` prints what all processes do to networks,
endpoints and sandboxes until it is interrupted, and goes on where it was if it cannot keep up.
"""

from __future__ import annotations

import sys
import threading

from pynetwork import Controller, HistoryLostError, MemoryStore
from pynetwork.testing import FakeKernel


def follow(controller: Controller, timeout: float | None = None) -> int:
    """Print events; returns how many there were until the timeout, if one is given."""
    count, since = 0, None
    while True:
        try:
            with controller.events(since=since, timeout=timeout) as events:
                for event in events:
                    print(event, flush=True)
                    count += 1
        except HistoryLostError as error:
            # So much has happened that the rest is not known: say what there is, and go on from there.
            since = controller.revision
            print(f"{error}; now there are {controller.statistics()}", flush=True)
        else:
            return count


def work(controller: Controller) -> None:
    """Make something happen."""
    network = controller.new_network("bridge", "front")
    for name in ("web", "database"):
        sandbox = controller.new_sandbox(name)
        network.create_endpoint(name, ports=["80"]).join(sandbox)
    controller.sandboxes["web"].delete()
    network.endpoints["web"].delete()


def main() -> None:
    """Follow a real instance, or a pretended one."""
    if sys.argv[1:] == ["follow"]:
        with Controller() as controller:
            follow(controller)
        return
    with Controller(store=MemoryStore(), kernel=FakeKernel()) as controller:
        thread = threading.Thread(target=work, args=(controller,))
        reader = controller.events(timeout=2)
        thread.start()
        for event in reader:
            print(event)
            if event.kind == "endpoint.deleted":
                break
        thread.join()
        print(*[line for line in controller.metrics().splitlines() if "requests_total" in line], sep="\n")


if __name__ == "__main__":
    main()
