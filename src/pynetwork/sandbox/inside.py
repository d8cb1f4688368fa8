"""What can be done in a namespace, whoever made it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, NoReturn

from pynetwork.kernel.start import Starter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from pynetwork.kernel.groups import Groups
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.kernel.start import Setting
    from pynetwork.kernel.stats import InterfaceStatistics

__all__ = ["Inside"]


class Inside:
    """
    What can be done in a namespace.

    Args:
        namespaces: Enters it, in a thread of its own.
        path: The file that pins it; None is the host's own.
        setting: What else is around programs there.
        groups: The host's control groups.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        path: str | None,
        setting: Setting | None = None,
        groups: Groups | None = None,
    ) -> None:
        self._namespaces = namespaces
        self._path = path
        self._starter = Starter(namespaces, path, setting, groups)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:  # noqa: ANN401 - as Popen's
        """Start a program in it, see :meth:`Sandbox.popen`."""
        return self._starter.popen(argv, **options)

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

    def exec(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
        """Become a program in it, see :meth:`Sandbox.exec`."""
        self._starter.exec(argv, env)

    def entered(self) -> AbstractContextManager[None]:
        """Return a block in which the calling thread is in it."""
        from pynetwork.kernel.netns import entered

        return entered(self._namespaces.home_path if self._path is None else self._path)

    def interfaces(self) -> dict[str, InterfaceStatistics]:
        """Return the counters of its interfaces but ``lo``, by name."""
        from pynetwork.kernel.stats import interface_statistics

        if self._path is None:
            return self._namespaces.home(interface_statistics)
        return self._namespaces.call(self._path, interface_statistics)
