"""A network namespace as an object: run in it, enter it, look at it, put interfaces into it.

What a controller's sandboxes are made of, and of use without a controller: for a test lab, a job
runner, a tool that wants one namespace with a few interfaces and no records.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pynetwork.errors import ApplyError
from pynetwork.plan import Plan, StepFailedError, diff, progress
from pynetwork.resources import Netns
from pynetwork.sandbox.inside import Inside

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from pynetwork.kernel import LinuxKernel
    from pynetwork.kernel.stats import InterfaceStatistics

__all__ = ["Namespace"]

_RUN_DIR = Path("/run/pynetwork/alone")


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
        return self._inside.interfaces()

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
