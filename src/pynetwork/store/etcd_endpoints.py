"""Where the members of an etcd cluster listen, and how they are trusted."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs

from pynetwork.errors import InvalidValueError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["Endpoint", "Tls", "parse_endpoints", "tls_context"]

_DEFAULT_PORT: Final = 2379  # registered with IANA for etcd's clients


@attrs.frozen(kw_only=True)
class Tls:
    """
    How a client and the members of a cluster know each other. Each is a path of a PEM file.

    Args:
        ca: Certificates that a member's must be signed by. By default those that the system trusts.
        cert: The client's own certificate, for members that want one.
        key: Its private key; not needed when it is in *cert*'s file.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None


@attrs.frozen
class Endpoint:
    """The client address of a member."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_endpoints(texts: str | Sequence[str], *, tls: bool) -> tuple[Endpoint, ...]:
    """
    Return the endpoints that *texts* name.

    Args:
        texts: ``http://host:2379`` or ``https://...``. Scheme and port may be missing. One text may name
            several, separated by commas, as in etcd's own options.
        tls: Whether the caller said how to trust the members.

    Raises:
        InvalidValueError: There is none, one twice, one is malformed, or one that is not encrypted is
            among them although *tls* is set.
    """
    if isinstance(texts, str):
        texts = texts.split(",")
    endpoints = tuple(_parse(text, "https" if tls else "http") for text in texts)
    if not endpoints:
        msg = "a cluster store needs an endpoint at least, such as http://192.0.2.1:2379"
        raise InvalidValueError(msg)
    if len(set(endpoints)) < len(endpoints):
        msg = f"an endpoint is named twice: {', '.join(map(str, endpoints))}"
        raise InvalidValueError(msg)
    if tls and (plain := [str(each) for each in endpoints if each.scheme == "http"]):
        msg = f"tls is set, but {', '.join(plain)} would not be encrypted; write https://"
        raise InvalidValueError(msg)
    return endpoints


def _parse(text: str, scheme: str) -> Endpoint:
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"{scheme}://{text}")
        port = parts.port
    except ValueError as error:
        msg = f"{text!r} is no endpoint of etcd: {error}"
        raise InvalidValueError(msg) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"{text!r} is no endpoint of etcd, which looks like http://192.0.2.1:2379 or https://..."
        raise InvalidValueError(msg)
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        msg = f"{text!r} is no endpoint of etcd: only scheme, host and port belong there"
        raise InvalidValueError(msg)
    return Endpoint(parts.scheme, parts.hostname, _DEFAULT_PORT if port is None else port)


def tls_context(tls: Tls | ssl.SSLContext | None) -> ssl.SSLContext:
    """
    Return the context of TLS connections.

    Raises:
        InvalidValueError: A file cannot be read, or is not what it should be.
    """
    if isinstance(tls, ssl.SSLContext):
        return tls
    tls = tls or Tls()
    if tls.key is not None and tls.cert is None:
        msg = f"tls has a key, {tls.key}, but no certificate"
        raise InvalidValueError(msg)
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ValueError) as error:
        msg = f"cannot read the certificates of the authority, {tls.ca}: {_reason(error)}"
        raise InvalidValueError(msg) from error
    if tls.cert is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=_refuse_password)
        except (OSError, ValueError) as error:
            msg = f"cannot use the client certificate {tls.cert} with the key {tls.key}: {_reason(error)}"
            raise InvalidValueError(msg) from error
    return context


def _refuse_password() -> str:
    msg = "the key is encrypted; pass an ssl.SSLContext that has it"
    raise ValueError(msg)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
