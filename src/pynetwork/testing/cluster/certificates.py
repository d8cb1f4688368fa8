"""Certificates for tests of encrypted connections, made when they are needed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Certificates", "make_certificates"]


@attrs.frozen
class Certificates:
    """
    Files of a certificate authority of a test's own, and what it has signed.

    Attributes:
        ca: The authority's certificate.
        cert: A certificate for a server on loopback or on the addresses asked for, and for a client.
        key: Its key.
    """

    ca: Path
    cert: Path
    key: Path


def make_certificates(directory: Path, addresses: Sequence[str] = ("127.0.0.1",)) -> Certificates:
    """
    Return new certificates, made by ``openssl`` in *directory*, valid for a day.

    Args:
        directory: Must exist.
        addresses: Of servers.
    """
    ca, ca_key, cert, key = (directory / name for name in ("ca.pem", "ca.key", "cert.pem", "cert.key"))
    new_key: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "ec"]
    new_key += ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    new_key += ["-noenc", "-days", "1"]
    names = "subjectAltName=DNS:localhost," + ",".join(f"IP:{address}" for address in addresses)
    _run_openssl([*new_key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=an authority of a test"])
    uses = ["-addext", "basicConstraints=critical,CA:FALSE"]
    uses += ["-addext", "extendedKeyUsage=serverAuth,clientAuth", "-addext", names]
    signed: list[str | Path] = ["-subj", "/CN=test", *uses, "-CA", ca, "-CAkey", ca_key]
    _run_openssl([*new_key, "-keyout", key, "-out", cert, *signed])
    return Certificates(ca, cert, key)


def _run_openssl(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - built above
    if done.returncode:
        msg = f"openssl ended with status {done.returncode}: {done.stderr.strip()}"
        raise RuntimeError(msg)
