"""Which network namespace a path is: two paths may be one, and a path may be another one later."""

from __future__ import annotations

import os

from pynetwork.errors import InvalidValueError
from pynetwork.kernel.netns import open_namespace

__all__ = ["identity_of"]


def identity_of(path: str) -> tuple[int, int] | None:
    """Return what tells the network namespace that *path* is from all that exist; None when it is none."""
    try:
        descriptor = open_namespace(path)
    except (OSError, InvalidValueError):
        return None
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return status.st_dev, status.st_ino
