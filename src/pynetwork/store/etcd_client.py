"""Asks a cluster: whichever member answers, again until the time is over, with a token if need be."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from pynetwork.errors import StoreError, StoreUnavailableError
from pynetwork.log import logger
from pynetwork.store._forking import follow_forks
from pynetwork.store.etcd_answers import (
    FAILED_PRECONDITION,
    OUT_OF_RANGE,
    RefusedError,
    read_answer,
    refusal,
)
from pynetwork.store.etcd_http import BrokenError, Connections, lines_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence

    from pynetwork.store.etcd_answers import Answer
    from pynetwork.store.etcd_endpoints import Endpoint
    from pynetwork.store.etcd_http import Stream

__all__ = ["AmbiguousError", "Client", "Deadline"]

_FIRST_PAUSE: Final = 0.02  # seconds after a round in which no member answered
_LONGEST_PAUSE: Final = 0.5
_AUTHENTICATE: Final = "/auth/authenticate"
# A stream is cut when its member has lost the leader, rather than to be silent: clientv3.WithRequireLeader.
_STREAM_HEADERS: Final = {"Grpc-Metadata-hasleader": "true"}


class StrangerError(Exception):
    """
    A member of another cluster answered.

    What it was asked is not ours to care for: a transaction has a compare that only holds in the
    cluster that it was meant for, and a lease is of no use in another.

    Attributes:
        cluster: Names the other cluster.
    """

    sent: Final = False

    def __init__(self, cluster: str, expected: str) -> None:
        super().__init__(f"it belongs to another cluster: {cluster} instead of {expected}")
        self.cluster = cluster


Causes: TypeAlias = "dict[Endpoint, BrokenError | RefusedError | StrangerError]"


class AmbiguousError(Exception):
    """A request that must not be repeated went out, and whether it was carried out is not known."""


@attrs.frozen
class Deadline:
    """A time on the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the one in *seconds* from now."""
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds until then, 0 when it is over."""
        return max(0.0, self.at - time.monotonic())


class Client:
    """
    A client of one cluster. Thread-safe.

    The member that answered last is asked first, so all threads leave one that hangs after the first
    has waited for it.

    Args:
        endpoints: Of the members, or some of them.
        context: For encrypted connections.
        credentials: User and password.
        timeout: Seconds that a call goes on trying. One member gets a part of it, so that all get their
            turn twice.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        context: ssl.SSLContext | None,
        credentials: tuple[str, str] | None,
        timeout: float,
    ) -> None:
        self.timeout = timeout
        self.patience = timeout / (2 * len(endpoints))
        self.is_closed = False
        self._endpoints = tuple(endpoints)
        self._connections = Connections(context)
        self._credentials = credentials
        self._lock = threading.Lock()  # of the token
        self._preferred = 0
        follow_forks(self)
        #: Names the cluster that answers, once one has.
        self.cluster: str | None = None
        #: What it gave out for the user.
        self.token: str | None = None

    def __str__(self) -> str:
        return f"etcd at {self.names}"

    @property
    def names(self) -> str:
        """The endpoints, in words."""
        return ", ".join(map(str, self._endpoints))

    def deadline(self) -> Deadline:
        """Return the one of a call that starts now."""
        return Deadline.after(self.timeout)

    def call(
        self, what: str, path: str, body: Answer, *, deadline: Deadline | None = None, once: bool = False
    ) -> Answer:
        """
        Return the answer of the first member that gives one.

        Args:
            what: Completes "cannot ... etcd at ..." in errors.
            path: What to call, below ``/v3``.
            body: The request.
            deadline: Until when to try, by default the client's time-out from now on.
            once: The request must not be carried out twice.

        Raises:
            AmbiguousError: *once*, and it may have been carried out.
            RefusedError: The answer is an error, and final.
            StoreUnavailableError: No member answered. If *once*, nothing was carried out.
        """
        deadline = deadline or self.deadline()
        payload = json.dumps(body, separators=(",", ":")).encode()
        causes: Causes = {}
        pause = _FIRST_PAUSE
        while True:
            for endpoint in self._in_order():
                if causes and not deadline.left():
                    raise self._unavailable(what, causes)
                patience = min(self.patience, max(deadline.left(), _FIRST_PAUSE))
                try:
                    return self._ask(endpoint, path, payload, patience)
                except RefusedError as error:
                    error.by = str(endpoint)
                    if error.is_final:
                        raise
                    causes[endpoint] = error
                    self._pass_over(endpoint)
                    if once:
                        msg = f"{endpoint}: {error}"
                        raise AmbiguousError(msg) from error
                except (BrokenError, StrangerError) as error:
                    causes[endpoint] = error
                    self._pass_over(endpoint)
                    if once and error.sent:
                        msg = f"{endpoint}: {error}"
                        raise AmbiguousError(msg) from error
            self._adopt(causes)
            time.sleep(min(pause, deadline.left()))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def remembers(self, what: str, key: str, revision: int) -> bool:
        """
        Whether all that happened after *revision* is known.

        A watch is no judge of that: it may begin at the revision of a compaction, whose deletions are
        forgotten (etcd issue 18089). So this is asked once the watch has begun.

        Args:
            what: Completes "cannot ..." in errors.
            key: One that may be read.
            revision: 0 is before anything.
        """
        body = {"key": key, "count_only": True, "revision": str(max(1, revision))}  # etcd begins at 1
        try:
            self.call(what, "/kv/range", body)
        except RefusedError as error:
            if error.code != OUT_OF_RANGE:
                raise
            return False
        return True

    def stream(self, what: str, path: str, bodies: Iterable[Answer]) -> tuple[Stream, Answer]:
        """
        Return the stream that the first member opens, and the first message on it.

        Every member is asked once. Requests that are streams themselves have several *bodies*.

        Raises:
            RefusedError: A member refuses, and that is final.
            StoreUnavailableError: None opens one.
        """
        payload = lines_of(bodies)
        causes: Causes = {}
        for endpoint in self._in_order():
            try:
                return self._open(endpoint, path, payload)
            except BrokenError as error:
                causes[endpoint] = error
            except RefusedError as error:
                error.by = str(endpoint)
                if error.is_final:
                    raise
                causes[endpoint] = error
        raise self._unavailable(what, causes)

    def leave(self) -> None:
        """Ask another member first from now on."""
        self._preferred += 1

    def renew_token(self, old: str | None) -> bool:
        """Forget the token, if it is still *old*; return whether another can be had."""
        if self._credentials is None:
            return False
        with self._lock:
            if self.token == old:
                self.token = None
        return True

    def close(self) -> None:
        """Close the connections."""
        self.is_closed = True
        self._connections.close()

    def suspend(self) -> None:
        """Before a fork: nothing, for a thread that asks for a token may take long."""

    def resume(self) -> None:
        """After it, in the parent."""

    def start_anew(self) -> None:
        """After it, in the child, which does not have the thread that may hold the lock."""
        self._lock = threading.Lock()

    def _in_order(self) -> Sequence[Endpoint]:
        if self.is_closed:
            msg = f"the store is closed: {self}; open a new one"
            raise StoreError(msg)
        first = self._preferred % len(self._endpoints)
        return self._endpoints[first:] + self._endpoints[:first]

    def _pass_over(self, endpoint: Endpoint) -> None:
        """Let other calls begin with another member, if this was the one they would begin with."""
        if self._endpoints[self._preferred % len(self._endpoints)] is endpoint:
            self._preferred += 1

    def _ask(self, endpoint: Endpoint, path: str, payload: bytes, patience: float) -> Answer:
        token = self._authorize(endpoint, patience)
        try:
            answer = self._post(endpoint, path, payload, token, patience)
        except RefusedError as error:
            if not (error.wants_token and self.renew_token(token)):
                raise
            token = self._authorize(endpoint, patience)
            answer = self._post(endpoint, path, payload, token, patience)
        cluster = answer.get("header", {}).get("cluster_id")
        if cluster is not None and cluster != self.cluster:
            if self.cluster is not None:
                raise StrangerError(cluster, self.cluster)
            self.cluster = cluster
        self._preferred = self._endpoints.index(endpoint)
        return answer

    def _post(
        self, endpoint: Endpoint, path: str, payload: bytes, token: str | None, patience: float
    ) -> Answer:
        headers = {"Authorization": token} if token else {}
        return read_answer(*self._connections.request(endpoint, "/v3" + path, payload, headers, patience))

    def _open(self, endpoint: Endpoint, path: str, payload: bytes) -> tuple[Stream, Answer]:
        token = self._authorize(endpoint, self.patience)
        headers = _STREAM_HEADERS | ({"Authorization": token} if token else {})
        stream = self._connections.stream(endpoint, "/v3" + path, payload, headers, self.patience)
        try:
            return stream, self._first(stream)
        except BaseException:
            stream.close()
            raise

    def _first(self, stream: Stream) -> Answer:
        """Return the first message, which comes at once: what has none is not alive."""
        message = stream.read(self.patience)
        if message is None:
            msg = f"no answer within {self.patience:.3g} s"
            raise BrokenError(msg, sent=True)
        if "result" not in message:
            raise refusal(message)
        answer: Answer = message["result"]
        return answer

    def _authorize(self, endpoint: Endpoint, patience: float) -> str | None:
        """Return a token for the user, None when there is no user."""
        if self._credentials is None:
            return None
        with self._lock:
            if self.token is None:
                name, password = self._credentials
                payload = json.dumps({"name": name, "password": password}).encode()
                try:
                    answer = self._post(endpoint, _AUTHENTICATE, payload, None, patience)
                    self.token = str(answer["token"])
                except RefusedError as error:
                    if error.code != FAILED_PRECONDITION:  # authentication is not enabled
                        raise
                    logger().warning("%s does not ask for a user; %r goes without", self, name)
                    self.token = ""
            return self.token

    def _adopt(self, causes: Causes) -> None:
        """Follow the members to another cluster, when none of the old one says anything any more."""
        strangers = {error.cluster for error in causes.values() if isinstance(error, StrangerError)}
        if len(strangers) != 1 or any(isinstance(error, RefusedError) for error in causes.values()):
            return
        (cluster,) = strangers
        logger().warning("%s: it is another cluster now, %s instead of %s", self, cluster, self.cluster)
        self.cluster = cluster

    def _unavailable(self, what: str, causes: Causes) -> StoreUnavailableError:
        reasons = "; ".join(f"{endpoint}: {cause}" for endpoint, cause in causes.items())
        msg = f"cannot {what}: no member of etcd answers ({reasons}); try again when it is back"
        return StoreUnavailableError(msg)
