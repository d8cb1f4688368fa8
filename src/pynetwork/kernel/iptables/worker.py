"""The process that speaks iptables: ``python -m pynetwork.kernel.iptables.worker 4|6 PARENT``.

One for each family, because libxtables can hold the NAT targets of one only; and a process, because
libxtables ends its process when it does not like something, and neither it nor python-iptables bears
threads. It ends when its pipe is closed, or when its parent is gone.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pynetwork.kernel.iptables import wire
from pynetwork.kernel.iptables.tables import RefusedError, Tables

if TYPE_CHECKING:
    from pynetwork.kernel.iptables.wire import Message

__all__ = ["main"]


def _take_descriptors() -> tuple[int, int]:
    """Return the pipe's two descriptors; libxtables prints to the standard output, which goes nowhere."""
    source, sink = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return source, sink


def _ease_search() -> None:
    """
    Tell python-iptables where its own library is: beside it.

    Else it asks for it under names that do not exist, for each of which ``ctypes`` runs ldconfig, a
    compiler and a linker, where there are any; that takes longer than all else a worker does at first.
    """
    found = find_spec("iptc")
    if found is not None and found.origin is not None:
        os.environ.setdefault("IPTABLES_LIBDIR", str(Path(found.origin).parents[1]))


def _load(version: int) -> Tables:
    _ease_search()
    try:
        import iptc
    except ImportError as error:
        message = f"the Python package is missing: pip install 'pynetwork[iptables]' ({error})"
        raise RefusedError(message, kind="unavailable") from error
    except Exception as error:  # it looks for libraries as it is imported
        message = (
            "python-iptables does not find what it needs: install libxtables, libip4tc and libip6tc "
            f"(apt-get install iptables) ({type(error).__name__}: {error})"
        )
        raise RefusedError(message, kind="unavailable") from error
    return Tables(iptc, version)


def _serve(tables: Tables, request: Message, sink: int) -> None:
    def tell(message: Message) -> None:
        wire.send(sink, message)

    try:
        if request["do"] == "apply":
            tables.apply(request, tell)
            answer: Message = {"done": True}
        elif request["do"] == "undo":
            tables.take_back(request, tell)
            answer = {"done": True}
        else:
            answer = {"done": True, "comments": tables.comments(request)}
    except RefusedError as error:
        answer = error.answer
    except Exception as error:  # noqa: BLE001 - nobody else would hear of it
        answer = {"error": "refused", "message": f"{type(error).__name__}: {error}"}
    tell(answer)


def _requests(source: int, parent: int) -> bool:
    """Wait for a request; False when there is nobody to make one."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(parent, select.POLLIN)  # a child of the parent's may hold the pipe open
    ready = dict(poll.poll())
    return source in ready


def main() -> int:
    """Serve requests until the pipe is closed; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent, who closes the pipe
    version, parent_id = map(int, sys.argv[1:])
    source, sink = _take_descriptors()
    try:
        parent = os.pidfd_open(parent_id)
        tables = _load(version)
    except ProcessLookupError:
        return 0
    except RefusedError as error:
        wire.send(sink, error.answer)
        return 0
    wire.send(sink, {"ready": True})
    while _requests(source, parent) and (request := wire.receive(source)) is not None:
        try:
            _serve(tables, request, sink)
        except BrokenPipeError:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
