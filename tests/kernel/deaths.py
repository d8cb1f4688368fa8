"""What the tests of sudden death share: a process killed at each step or write of a request."""

from __future__ import annotations

import inspect
import signal
from typing import TYPE_CHECKING, Any

from pynetwork.testing import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork import Controller

SECONDS = 60.0
#: Deaths: after a step of the kernel's; before and after a write of the store.
PLACES = ["step", "before", "after"]


def die(perform: Callable[[Any, str], None], request: str, where: str, at: str, firewall: str) -> None:
    """Take *request*, and be killed at the kernel's step, the store's write or the table number *at*."""
    import os
    import signal

    from pynetwork import Controller
    from pynetwork.kernel.iptables.client import Worker
    from pynetwork.testing import SuicidalKernel, SuicidalStore

    with Controller(firewall=firewall) as controller:
        engine = controller._core.engine
        if where == "step":
            engine.kernel = SuicidalKernel(engine.kernel, int(at))
        elif where == "table":
            # iptables commits one table after the other, and tells each before it does.
            exchange, tables = Worker._exchange, []

            def counted(*arguments: Any) -> Any:
                answer = exchange(*arguments)
                if "undo" in answer:
                    tables.append(answer)
                    if len(tables) > int(at):
                        os.kill(os.getpid(), signal.SIGKILL)
                return answer

            setattr(Worker, "_exchange", counted)  # noqa: B010 - a method that is not public
        else:
            engine.mirror.store = SuicidalStore(engine.mirror.store, int(at), after=where == "after")
        perform(controller, request)


def fork_and_die(perform: Callable[[Any, str], None], request: str, where: str, firewall: str) -> None:
    """Fork a process for each death: that is faster than to start one."""
    import os

    from pynetwork import Controller, testing

    Controller(firewall=firewall).close()  # what it imports is imported once for all
    for at in range(1000):
        testing.reach(str(at))
        pid = os.fork()
        if not pid:
            die(perform, request, where, str(at), firewall)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status))  # noqa: T201 - to the test


def doomed(
    perform: Callable[[Controller, str], None], request: str, where: str, firewall: str = "auto"
) -> Child:
    """
    Start a process that kills one after the other of its children.

    Args:
        perform: Takes a request. Its source is what the children run, so it needs nothing else.
        request: Its name.
        where: They die: one of PLACES, or at a ``table`` of iptables.
        firewall: Of their controllers.
    """
    sources = (inspect.getsource(each) for each in (perform, die, fork_and_die))
    code = "\n".join(("from __future__ import annotations\nimport sys", *sources))
    call = f"fork_and_die({perform.__name__}, *sys.argv[1:])"
    return Child(f"{code}\n{call}", request, where, firewall, timeout=SECONDS)


def is_killed(child: Child, at: int) -> bool:
    """Let the process number *at* live; tell whether it was killed, or got through."""
    child.proceed()
    child.wait_for(str(at + 1))
    status = int(child.output[-1])
    assert status in {0, -signal.SIGKILL}
    return status != 0
