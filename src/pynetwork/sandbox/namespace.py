"""A network namespace as an object: run in it, enter it, look at it, put interfaces into it.

What a controller's sandboxes are made of, and of use without a controller: for a test lab, a job
runner, a tool that wants one namespace with a few interfaces and no records.
"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pynetwork.errors import ApplyError, InvalidValueError
from pynetwork.plan import Plan, StepFailedError, diff, progress
from pynetwork.resources import Netns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from pynetwork.kernel import LinuxKernel
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.kernel.stats import InterfaceStatistics

__all__ = ["Namespace"]

_RUN_DIR = Path("/run/pynetwork/alone")


class Inside:
    """
    What can be done in a namespace, whoever made it.

    Args:
        namespaces: Enters it, in a thread of its own.
        path: The file that pins it; None is the host's own.
    """

    def __init__(self, namespaces: Namespaces, path: str | None) -> None:
        self._namespaces = namespaces
        self._path = path

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:  # noqa: ANN401 - as Popen's
        """Start a program in it, see :meth:`Sandbox.popen`."""
        if isinstance(argv, str | bytes):
            msg = f"invalid program {argv!r}: a list of its name and arguments is expected, there is no shell"
            raise InvalidValueError(msg)

        def start() -> subprocess.Popen[Any]:
            return subprocess.Popen(argv, **options)  # noqa: S603 - the caller's own program

        return (
            self._namespaces.home(start) if self._path is None else self._namespaces.call(self._path, start)
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        input: Any = None,  # noqa: A002, ANN401 - as subprocess.run's
        capture_output: bool = False,
        timeout: float | None = None,
        check: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> subprocess.CompletedProcess[Any]:
        """Run a program in it and wait for its end, see :meth:`Sandbox.run`."""
        if capture_output:
            options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if input is not None:
            options["stdin"] = subprocess.PIPE
        with self.popen(argv, **options) as process:
            try:
                output, errors = process.communicate(input, timeout=timeout)
            except BaseException:
                process.kill()
                raise
            result = subprocess.CompletedProcess(process.args, process.poll() or 0, output, errors)
        if check:
            result.check_returncode()
        return result

    def entered(self) -> AbstractContextManager[None]:
        """Return a block in which the calling thread is in it."""
        from pynetwork.kernel.netns import entered

        return entered(self._namespaces.home_path if self._path is None else self._path)

    def statistics(self) -> dict[str, InterfaceStatistics]:
        """Return the counters of its interfaces but ``lo``, by name."""
        from pynetwork.kernel.stats import interface_statistics

        if self._path is None:
            return self._namespaces.home(interface_statistics)
        return self._namespaces.call(self._path, interface_statistics)


class Namespace:
    """
    A network namespace of its own, with what is put into it, gone when it is closed.

    Args:
        run_dir: Where it is pinned, on a private tmpfs.

    Raises:
        ApplyError: It cannot be made.
        UnavailableError: A privilege is missing.

    Attributes:
        path: The file that pins it.
    """

    def __init__(self, run_dir: str | Path = _RUN_DIR) -> None:
        from pynetwork.kernel import LinuxKernel

        instance = secrets.token_hex(16)
        self._directory = Path(run_dir) / "netns"
        self._kernel: LinuxKernel = LinuxKernel(instance, self._directory)
        self.path = self._directory / f"alone.{instance[:8]}"
        self._plan = Plan()
        self._inside = Inside(self._kernel.namespaces, str(self.path))
        try:
            self._become(Plan((Netns(path=str(self.path)),)))
        except BaseException:
            self.close()
            raise

    def configure(self, plan: Plan) -> None:
        """
        Make *plan* exist, in it and around it, in place of what was configured before.

        Args:
            plan: Resources such as a veth pair, addresses and routes; ``netns=str(namespace.path)``
                is this namespace. They are deleted with it.

        Raises:
            ApplyError: A step failed; all is as before.
        """
        self._become(Plan((Netns(path=str(self.path)), *plan)))

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:  # noqa: ANN401 - as Popen's
        """Start a program in it, with the options of :class:`subprocess.Popen`."""
        return self._inside.popen(argv, **options)

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:  # noqa: ANN401 - as run's
        """Run a program in it and wait for its end, with the options of :func:`subprocess.run`."""
        return self._inside.run(argv, **options)

    def entered(self) -> AbstractContextManager[None]:
        """Return a block in which the calling thread is in it."""
        return self._inside.entered()

    def statistics(self) -> Mapping[str, InterfaceStatistics]:
        """Return the counters of its interfaces but ``lo``, by name."""
        return self._inside.statistics()

    def close(self) -> None:
        """Delete it, and all that was configured. Idempotent."""
        from pynetwork.kernel.netns import remove_directory

        try:
            self._kernel.apply(diff(self._plan, Plan()), replay=True)
        finally:
            self._plan = Plan()
            self._kernel.close()
            remove_directory(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _become(self, plan: Plan) -> None:
        try:
            self._kernel.apply(diff(self._plan, plan))
        except StepFailedError as error:
            reached = progress(self._plan, error.to_undo)
            self._kernel.apply(diff(reached, self._plan), replay=True)
            msg = f"cannot configure namespace {self.path}: {error.failed} failed: {error.__cause__}"
            raise ApplyError(
                msg, step=str(error.failed), origin=error.failed.resource.origin
            ) from error.__cause__
        self._plan = plan
