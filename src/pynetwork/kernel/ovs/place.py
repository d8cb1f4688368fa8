"""Where an Open vSwitch is to be found, and what to tell who does not find it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

import attrs

from pynetwork.errors import UnavailableError

__all__ = ["Place", "SwitchAwayError", "default_directory"]

_START: Final = "systemctl start openvswitch-switch, or /usr/share/openvswitch/scripts/ovs-ctl start"


class SwitchAwayError(UnavailableError):
    """The host's Open vSwitch does not run, for now."""


def default_directory() -> Path:
    """Return the directory of the host's Open vSwitch: ``$OVS_RUNDIR``, as its own programs have it."""
    return Path(os.environ.get("OVS_RUNDIR", "/run/openvswitch"))


@attrs.frozen
class Place:
    """
    The sockets of an Open vSwitch.

    Args:
        directory: Where they are.
    """

    directory: Path

    @property
    def remote(self) -> str:
        """The database's, as the package ``ovs`` wants it."""
        return f"unix:{self.directory}/db.sock"

    def has_database(self) -> bool:
        """Whether ``ovsdb-server`` runs: without it ``ovs-vswitchd`` answers nobody who connects."""
        return _listens(self.directory / "db.sock")

    def management(self, bridge: str) -> Path:
        """Return the socket on which a bridge speaks OpenFlow."""
        return self.directory / f"{bridge}.mgmt"

    def no_database(self) -> UnavailableError:
        """Return the error for a database that does not answer."""
        return SwitchAwayError(
            f"ovsdb-server does not answer at {self.directory}/db.sock: start Open vSwitch ({_START})"
        )

    def no_switch(self) -> UnavailableError:
        """Return the error for a switch that does not run."""
        return SwitchAwayError(
            f"ovs-vswitchd of {self.directory} does not run: start Open vSwitch ({_START})"
        )

    def check_switch(self) -> None:
        """
        Check that ``ovs-vswitchd`` runs: what is only written to the database comes about some other day.

        Raises:
            UnavailableError: It does not.
        """
        try:
            pid = int((self.directory / "ovs-vswitchd.pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            raise self.no_switch() from None
        # The file outlives a process that was killed; who listens at its socket is alive.
        if not _listens(self.directory / f"ovs-vswitchd.{pid}.ctl"):
            raise self.no_switch()


def _listens(path: Path) -> bool:
    """Whether somebody takes connections at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as opened:
        try:
            opened.connect(str(path))
        except OSError:
            return False
    return True
