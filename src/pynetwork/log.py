"""The library's one logger. It configures nothing, and loads ``logging`` with the first message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

__all__ = ["logger"]


def logger() -> logging.Logger:
    """Return the logger of the library."""
    import logging

    return logging.getLogger("pynetwork")
