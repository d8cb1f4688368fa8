"""What flows are, beyond their cookies: whether what is on a switch under a cookie is what was put there.

A switch gives back what it was told, with the fields of a match in an order of its own.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

from pynetwork.kernel.ovs.oxm import pack_instructions, pack_match

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pynetwork.kernel.ovs.messages import Seen

__all__ = ["Verified"]

_HEAD: Final = struct.Struct("!H")
_FIRST: Final = 4  # where the fields of a match begin

#: Priority, match and actions, as text.
Stated: TypeAlias = "tuple[int, str, str]"


class Verified:
    """Remembers what was found to be as stated, as a switch spells it: each flow is read once."""

    def __init__(self) -> None:
        self._known: dict[Seen, int] = {}

    def wrong(self, found: Mapping[Seen, bytes], stated: Iterable[tuple[Seen, Stated]]) -> set[Seen]:
        """
        Return those among *stated* that are there under their cookies, and are something else.

        Args:
            found: All that is on the switch, from :meth:`.channel.Channel.contents`.
            stated: What should be; flows that are not there are passed over.
        """
        if len(self._known) > len(found):
            self._known = {seen: digest for seen, digest in self._known.items() if seen in found}
        known, wrong = self._known, set()
        for seen, (priority, match, actions) in stated:
            content = found.get(seen)
            if content is None or known.get(seen) == (digest := hash(content)):
                continue
            wanted = _HEAD.pack(priority) + pack_match(match) + pack_instructions(actions)
            if _canonical(content) == _canonical(wanted):
                known[seen] = digest
            else:
                wrong.add(seen)
        return wrong


def _canonical(content: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return priority, the fields of the match in one order, and the instructions."""
    (length,) = _HEAD.unpack_from(content, 2 + 2)
    fields, offset = [], 2 + _FIRST
    while offset < 2 + length:
        end = offset + 4 + content[offset + 3]
        fields.append(content[offset:end])
        offset = end
    return content[:2], sorted(fields), content[2 + length + (-length % 8) :]
