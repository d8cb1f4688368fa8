"""Deleting several objects, whatever fails on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.endpoint import Endpoint
from pynetwork.errors import NotFoundError, PynetworkError
from pynetwork.network import Network
from pynetwork.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.core import Handle

__all__ = ["delete_all"]


def delete_all(made: Sequence[Handle]) -> None:
    """
    Delete *made*, the youngest first, also networks of a type that always exists.

    Raises:
        ExceptionGroup: Some of it could not be deleted; all the rest is.
    """
    failed: list[Exception] = []
    for handle in reversed(made):
        try:
            if isinstance(handle, Network):
                handle._delete(force=True)  # noqa: SLF001 - both are ours
            elif isinstance(handle, Endpoint):
                handle.delete(force=True)
            elif isinstance(handle, Sandbox):
                handle.delete()
        except NotFoundError:
            pass  # deleted inside the block
        except PynetworkError as error:
            failed.append(error)
    if failed:
        msg = "some of it could not be deleted"
        raise ExceptionGroup(msg, failed)
