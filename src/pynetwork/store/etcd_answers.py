"""What etcd says, and what to make of it: an answer, a refusal that is final, or one to try again after."""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias

__all__ = ["Answer", "RefusedError", "read_answer", "refusal"]

#: The JSON of an answer. Numbers of 64 bits are text in it, and what is zero or false is missing.
Answer: TypeAlias = dict[str, Any]

# gRPC's codes, as etcd uses them (etcdserver/api/v3rpc/rpctypes/error.go).
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
FAILED_PRECONDITION: Final = 9
OUT_OF_RANGE: Final = 11  # a revision that is compacted, or not there yet
UNAUTHENTICATED: Final = 16
_UNKNOWN: Final = 2

# Another try, or another member, does not help. All others (unavailable, no leader, leader changed, timed
# out, cancelled, internal) may pass, and leave open whether a write was made.
_FINAL: Final = frozenset({3, 5, 6, 7, 8, 9, 11, 12, 15, 16})
_BUSY: Final = "etcdserver: too many requests"
# With code 3, although a new token is all that it takes.
_OLD_TOKEN: Final = ("invalid auth token", "revision of auth store is old")
_OK: Final = 200


class RefusedError(Exception):
    """
    A member answered with an error.

    Attributes:
        code: gRPC's.
        by: The member's endpoint.
    """

    def __init__(self, message: str, code: int = _UNKNOWN) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.by = ""

    @property
    def is_final(self) -> bool:
        """Whether trying again makes no sense, and nothing was written."""
        return self.code in _FINAL and self.message != _BUSY

    @property
    def wants_token(self) -> bool:
        """Whether a new token may help."""
        return self.code == UNAUTHENTICATED or any(text in self.message for text in _OLD_TOKEN)


def read_answer(status: int, body: bytes) -> Answer:
    """
    Return the answer in *body*.

    Raises:
        RefusedError: It is an error, or no answer of etcd's.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        msg = f"it does not speak like etcd 3.4 or later: HTTP status {status}, {body[:200]!r}"
        raise RefusedError(msg)
    if status != _OK or "error" in answer:
        raise refusal(answer)
    return answer


def refusal(answer: Answer) -> RefusedError:
    """Return the error that *answer* is: at its top, or within a stream in a field of that name."""
    error = answer.get("error", answer)
    if not isinstance(error, dict):
        error = answer
    message = str(error.get("message") or error.get("error") or error)
    code = error.get("code", error.get("grpc_code", _UNKNOWN))
    return RefusedError(message, code if isinstance(code, int) else _UNKNOWN)
