"""A process that is killed while a gateway comes or goes: the next one finishes that, or undoes it."""

from __future__ import annotations

from json import loads

import pytest

from pynetwork.testing import Child, private_host

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

#: Requests, and who is in the sandbox if they are not taken, or are: endpoints, and whether it has a gateway.
REQUESTS = {
    "join": (([], False), (["web"], True)),
    "leave": ((["web"], True), ([], False)),
    "take over": ((["web"], True), (["other", "web"], False)),
    "give back": ((["other", "web"], False), (["web"], True)),
}


def deaths(request: str, where: str) -> None:  # noqa: C901, PLR0915 - all that the child gets
    """Have children killed at one step, or write, after the other; tell what is found after each death."""
    import contextlib
    import json
    import os
    import socket
    import time

    from pynetwork import Cluster, ConflictError, Controller, MemoryStore
    from pynetwork.testing import SuicidalKernel, SuicidalStore

    def opened() -> Controller:
        store = MemoryStore()  # of the cluster: what is asked for is this host's business alone
        return Controller(dns="off", cluster=Cluster(store=store, host="h1", vtep="127.0.0.1", agent=False))

    def perform(controller: Controller, asked: str) -> None:
        web = controller.networks["net"].endpoints["web"]
        other = controller.networks["bridge"].endpoints["other"]
        box = controller.sandboxes["box"]
        if asked in {"join", "take over"}:
            (web if asked == "join" else other).join(box)
        else:
            (web if asked == "leave" else other).leave()

    def found(controller: Controller) -> tuple[list[str], bool]:
        box = controller.sandboxes["box"]
        return sorted(endpoint.name for endpoint in box.endpoints), box.gateway is not None

    def links() -> set[str]:
        return {name for _, name in socket.if_nameindex() if not name.startswith("gone")}

    with opened() as first:
        net = first.new_network("overlay", "net", subnets=["10.1.0.0/24", "fd01::/64"])
        net.create_endpoint("web", ports=["8080:80", "53/udp"])
        first.new_network("bridge", "bridge", subnets=["10.5.0.0/24", "fd05::/64"]).create_endpoint("other")
        first.new_sandbox("box")
        idle = links()
    before = {"join": (), "leave": ("join",), "take over": ("join",), "give back": ("join", "take over")}
    status = -9
    for at in range(200):
        with opened() as controller:
            for asked in before[request]:
                perform(controller, asked)
        pid = os.fork()
        if not pid:
            victim = opened()
            engine = victim._core.engine
            if where == "step":
                engine.kernel = SuicidalKernel(engine.kernel, at)
            else:
                engine.mirror.store = SuicidalStore(engine.mirror.store, at, after=where == "after")
            perform(victim, request)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with opened() as heir:
            is_clean, now = heir.reconcile(dry_run=True).is_clean, found(heir)
            with contextlib.suppress(ConflictError):  # it was finished
                perform(heir, request)
            then = found(heir)
            for endpoint in heir.sandboxes["box"].endpoints:
                endpoint.leave()
            deadline = time.monotonic() + 20.0
            while links() != idle and time.monotonic() < deadline:
                time.sleep(0.01)  # what is deleted goes a little later
            left = sorted(links() ^ idle)
        said = {"status": status, "clean": is_clean, "now": now, "then": then, "left": left}
        print(json.dumps(said))  # noqa: T201 - to the test
        if not status:
            break
    with opened() as last:
        last.erase()


@pytest.mark.parametrize("where", ["step", "before", "after"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_who_dies_while_a_gateway_comes_or_goes_is_finished_or_undone(request_: str, where: str) -> None:
    undone, done = ([names, has] for names, has in REQUESTS[request_])
    with private_host(), Child(deaths, request_, where, timeout=200.0) as child:
        assert child.wait() == 0, child.output
    told = [loads(line) for line in child.output]
    assert [each["status"] for each in told] == [-9] * (len(told) - 1) + [0]
    assert len(told) > (5 if where == "step" else 1)  # all is one write
    for each in told:
        assert each["clean"], each
        assert each["now"] in ([undone, done] if each["status"] else [done]), each
        assert each["then"] == done, each
        assert each["left"] == [], each
