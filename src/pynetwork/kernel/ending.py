"""Ending the processes of a sandbox: asked first, then made to."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs

from pynetwork.errors import UnavailableError
from pynetwork.kernel.members import Process, pids_in_namespace, process

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from pynetwork.kernel.groups import Groups

__all__ = ["Crew", "Stopped", "crew_of_group", "crew_of_namespace", "stop"]

_LOOK_SECONDS: Final = 0.1  # another process may have taken the place of the one that is waited for
_KILL_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.001
#: Signals that a stopped process need not be woken for.
_NEED_NO_WAKING: Final = frozenset({signal.SIGKILL, signal.SIGCONT, signal.SIGSTOP})


@attrs.frozen(kw_only=True)
class Stopped:
    """
    What became of the processes of a sandbox that was stopped.

    Args:
        ended: Those that ended when they were asked to, or by themselves.
        killed: Those that had to be killed.
    """

    ended: tuple[Process, ...] = ()
    killed: tuple[Process, ...] = ()


@attrs.frozen
class Crew:
    """
    All processes of a sandbox.

    Args:
        pids: Returns their ids now.
        kill: Ends all of them, whatever they do, and returns the ids of those that were there.
    """

    pids: Callable[[], Iterable[int]]
    kill: Callable[[], set[int]]

    def processes(self) -> dict[int, Process]:
        """Return them by id."""
        return _described(self.pids())


def crew_of_group(groups: Groups, path: str) -> Crew:
    """Return the processes in a control group, wherever they went otherwise."""
    return Crew(lambda: groups.pids(path), lambda: groups.kill(path))


def crew_of_namespace(path: str) -> Crew:
    """Return the processes in a network namespace: the next best thing without control groups."""

    def pids() -> list[int]:
        return [pid for pid in pids_in_namespace(path) if pid != os.getpid()]

    def kill() -> set[int]:
        deadline = time.monotonic() + _KILL_SECONDS
        killed: set[int] = set()
        while found := pids():
            killed.update(found)
            _send(found, signal.SIGKILL)
            if time.monotonic() > deadline:
                msg = f"processes {', '.join(map(str, found))} in namespace {path} cannot be ended"
                raise UnavailableError(msg)
            time.sleep(_PAUSE_SECONDS)
        return killed

    return Crew(pids, kill)


def stop(crew: Crew, number: int, seconds: float) -> Stopped:
    """
    Send a signal to all processes, wait until they have ended, and kill what has not.

    Args:
        crew: The processes.
        number: Of the signal. Each gets it once: what they start meanwhile, to tidy up say, does not.
        seconds: How long to wait.

    Returns:
        What became of them, those included that were started meanwhile.

    Raises:
        UnavailableError: Some cannot be killed.
    """
    seen = crew.processes()
    _send(seen, number)
    if number not in _NEED_NO_WAKING:
        _send(seen, signal.SIGCONT)
    deadline = time.monotonic() + seconds
    while (pids := list(crew.pids())) and (left := deadline - time.monotonic()) > 0:
        seen |= _described(pids, seen)
        _wait(pids[0], min(left, _LOOK_SECONDS))
    seen |= _described(pids, seen)
    killed = crew.kill() if pids else set()
    return Stopped(
        ended=tuple(found for pid, found in sorted(seen.items()) if pid not in killed),
        killed=tuple(seen.get(pid) or Process(pid=pid, name="") for pid in sorted(killed)),
    )


def _described(pids: Iterable[int], known: Container[int] = ()) -> dict[int, Process]:
    """Return the processes of those ids, less those that are *known*: to look takes long in a crowd."""
    return {pid: found for pid in pids if pid not in known and (found := process(pid)) is not None}


def _send(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait(pid: int, seconds: float) -> None:
    """Wait until a process has ended, some time at most."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        time.sleep(min(_PAUSE_SECONDS, seconds))  # it is gone, and about to leave its group
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if poll.poll(seconds * 1000):
            time.sleep(min(_PAUSE_SECONDS, seconds))  # likewise
    finally:
        os.close(descriptor)
