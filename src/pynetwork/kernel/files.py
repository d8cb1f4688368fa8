"""Files of sandboxes on the host: written in place, so that what is mounted over another file follows."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetwork.resources import File

__all__ = ["make_directory", "remove_directory", "remove_file", "seen", "strangers", "write"]

_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755  # what is in it is no secret, and is read by whoever it is mounted for
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def make_directory(path: str) -> None:
    """Make a directory, and those it is in; one that exists is no error."""
    try:
        os.mkdir(path, _DIRECTORY_MODE)  # noqa: PTH102 - Path.mkdir with parents costs a stat more
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(path, _DIRECTORY_MODE, exist_ok=True)  # noqa: PTH103 - as above


def remove_directory(path: str) -> None:
    """Remove a directory of files; one that is gone is no error."""
    with suppress(FileNotFoundError):
        for entry in list(os.scandir(path)):
            remove_file(entry.path)
        os.rmdir(path)  # noqa: PTH106


def remove_file(path: str) -> None:
    """Remove a file; one that is gone is no error."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def write(file: File) -> None:
    """
    Write *file* over what is there, as far as that is ours.

    In one call, with empty lines for what the old text had more, which are cut off after it: what a crash
    leaves is the new text.
    """
    descriptor = os.open(file.path, _FLAGS, _MODE)
    try:
        old = _read(descriptor)
        new = file.over(_text(old)).encode(errors="surrogateescape")
        if new != old:
            os.pwrite(descriptor, new.ljust(len(old), b"\n"), 0)
            os.ftruncate(descriptor, len(new))
    finally:
        os.close(descriptor)


def seen(file: File) -> File | None:
    """Return *file* as it is on the host: equal to it when there is nothing to do, None when it is gone."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        current = _text(_read(descriptor))
    finally:
        os.close(descriptor)
    return file if file.over(current) == current else attrs.evolve(file, text=current)


def strangers(directory: Path, suffix: str) -> Iterator[str]:
    """Yield the paths of what is in *directory* and has a name that ends with *suffix*."""
    with suppress(OSError):
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            if entry.name.endswith(suffix):
                yield entry.path


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")
