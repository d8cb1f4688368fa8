"""DNS messages: questions taken apart, answers put together (RFC 1035, 6891), as far as a server needs it.

Names are kept as they are on the wire, labels with their lengths, and compared in lower case: a length is
at most 63, below the first capital letter, so ``bytes.lower`` changes nothing but letters.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetwork.types import IPAddress

__all__ = [
    "AAAA",
    "ANY",
    "FORMERR",
    "HEADER",
    "IN",
    "NAME_MAX",
    "NOERROR",
    "NOTIMP",
    "NXDOMAIN",
    "PTR",
    "REFUSED",
    "SERVFAIL",
    "SOA",
    "SRV",
    "TC",
    "UDP_LIMIT",
    "A",
    "Body",
    "Question",
    "Record",
    "address_record",
    "answers_to",
    "error",
    "is_whole",
    "parse",
    "prepare",
    "ptr_record",
    "reply",
    "reverse_name",
    "soa_record",
    "srv_record",
    "text",
    "truncated",
    "wire_name",
]

HEADER: Final = 12
IN: Final = 1
A: Final = 1
SOA: Final = 6
PTR: Final = 12
AAAA: Final = 28
SRV: Final = 33
_OPT: Final = 41
ANY: Final = 255

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
_BADVERS: Final = 16

#: Bytes of a message over UDP that every asker takes (RFC 1035 section 4.2.1).
UDP_LIMIT: Final = 512
#: Bytes that we take and offer over UDP: what passes everywhere in one piece (DNS flag day 2020).
OUR_LIMIT: Final = 1232
NAME_MAX: Final = 255
_LABEL_MAX: Final = 63
_RECORDS_MAX: Final = 4  # additional ones of a question: OPT, perhaps a signature

_QR: Final = 0x80
_OPCODE: Final = 0x78
_AA: Final = 0x04
TC: Final = 0x02
_RD: Final = 0x01
_RA: Final = 0x80
_CD: Final = 0x10
_DO: Final = 0x8000
_ONE_QUESTION: Final = bytes((0, 1, 0, 0, 0, 0))  # counts of questions, answers, authorities
_TO_QUESTION: Final = b"\xc0\x0c"  # a pointer to the name right after the header
_RECORD: Final = struct.Struct("!HHIH")
_TWO: Final = struct.Struct("!HH")


class Question(NamedTuple):
    """
    What is asked.

    Args:
        name: As asked, on the wire.
        key: The same in lower case.
        type: Of the records wanted.
        klass: Nearly always 1, the Internet.
        end: Where the question ends in the message.
        limit: Bytes that the asker takes over UDP.
        edns: Whether the asker speaks EDNS (RFC 6891).
        dnssec: Whether it wants signatures (its DO bit, RFC 3225).
    """

    name: bytes
    key: bytes
    type: int
    klass: int
    end: int
    limit: int = UDP_LIMIT
    edns: bool = False
    dnssec: bool = False


class Record(NamedTuple):
    """A resource record; an *owner* of None is the name in the question."""

    type: int
    ttl: int
    rdata: bytes
    owner: bytes | None = None

    def packed(self) -> bytes:
        """Return it as in a message."""
        owner = _TO_QUESTION if self.owner is None else self.owner
        return owner + _RECORD.pack(self.type, IN, self.ttl, len(self.rdata)) + self.rdata


def parse(message: bytes) -> Question | int | None:
    """
    Take a query apart.

    Returns:
        The question; the rcode to answer with when there is something wrong with it; None when it must
        not be answered at all: too short for a header, or itself an answer.
    """
    if len(message) < HEADER or message[2] & _QR:
        return None
    if message[2] & _OPCODE:
        return NOTIMP
    if message[4:10] != _ONE_QUESTION:
        return FORMERR
    end = _name_end(message, HEADER)
    if end is None or end + 4 > len(message):
        return FORMERR
    kind, klass = _TWO.unpack_from(message, end)
    name = message[HEADER:end]
    question = Question(name, name.lower(), kind, klass, end + 4)
    count = message[10] << 8 | message[11]
    return question if not count and len(message) == end + 4 else _with_options(message, question, count)


def _with_options(message: bytes, question: Question, count: int) -> Question | int:
    """Return *question* with what the records after it say, of which the OPT record matters."""
    at = question.end
    if count > _RECORDS_MAX:
        return FORMERR
    for _ in range(count):
        start = at
        at = _name_end(message, at) or len(message)
        if at + _RECORD.size > len(message):
            return FORMERR
        kind, klass, ttl, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size + length
        if at > len(message):
            return FORMERR
        if kind == _OPT:
            if question.edns or message[start]:  # one at most, and it belongs to the root
                return FORMERR
            if ttl >> 16 & 0xFF:
                return _BADVERS
            question = question._replace(limit=max(klass, UDP_LIMIT), edns=True, dnssec=bool(ttl & _DO))
    return question if at == len(message) else FORMERR


def _name_end(message: bytes, at: int) -> int | None:
    """Return where the name at *at* ends; None if it is none. Nothing is there yet that it could point to."""
    start, size = at, len(message)
    while at < size:
        length = message[at]
        at += 1
        if not length:
            return at if at - start <= NAME_MAX else None
        if length > _LABEL_MAX:
            return None
        at += length
    return None


class Body(NamedTuple):
    """
    What is answered, but for what varies from asker to asker: id, wishes, and the case of the name.

    Args:
        flags: The two bytes of flags that do not depend on the asker.
        counts: Of the sections, all four.
        records: What follows the question.
    """

    flags: tuple[int, int]
    counts: bytes
    records: bytes


def prepare(
    question: Question,
    *,
    limit: int,
    rcode: int = NOERROR,
    answers: Sequence[Record] = (),
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
) -> Body:
    """
    Return an authoritative answer to *question*, truncated so that the message has *limit* bytes at most.

    Additional records that do not fit are left out; for want of others it is marked as truncated
    (RFC 2181 section 9).
    """
    room = limit - question.end - (11 if question.edns else 0)
    body = bytearray()
    counts = [0, 0, 0]
    tc = 0
    for section, records in enumerate((answers, authority, additional)):
        for record in records:
            packed = record.packed()
            if len(body) + len(packed) > room:
                tc |= TC if section < 2 else 0
                break
            body += packed
            counts[section] += 1
    if question.edns:
        body += b"\0" + _RECORD.pack(_OPT, OUR_LIMIT, _DO if question.dnssec else 0, 0)
        counts[2] += 1
    return Body((_QR | _AA | tc, _RA | rcode), struct.pack("!4H", 1, *counts), bytes(body))


def reply(query: bytes, question: Question, body: Body) -> bytes:
    """
    Return the message that says *body* to whoever sent *query*.

    It repeats the question in the asker's case, so that whoever draws random cases against spoofing
    recognises it.
    """
    flags = bytes((body.flags[0] | query[2] & _RD, body.flags[1] | query[3] & _CD))
    return query[:2] + flags + body.counts + query[HEADER : question.end] + body.records


def error(query: bytes, question: Question | None, rcode: int) -> bytes:
    """Return the answer that says no more than *rcode*; the query has a header at least."""
    flags = bytes((_QR | query[2] & (_OPCODE | _RD), _RA | query[3] & _CD | rcode & 0xF))
    asked = b"" if question is None else query[HEADER : question.end]
    options = b""
    if rcode > 0xF or (question is not None and question.edns):
        dnssec = _DO if question is not None and question.dnssec else 0
        options = b"\0" + _RECORD.pack(_OPT, OUR_LIMIT, rcode >> 4 << 24 | dnssec, 0)
    counts = struct.pack("!4H", int(question is not None), 0, 0, int(bool(options)))
    return query[:2] + flags + counts + asked + options


def truncated(reply: bytes, question: Question) -> bytes:
    """Return *reply*, another server's, without its records: the asker shall come back with TCP."""
    flags = bytes((reply[2] | TC, reply[3]))
    options = b""
    if question.edns:
        options = b"\0" + _RECORD.pack(_OPT, OUR_LIMIT, _DO if question.dnssec else 0, 0)
    counts = struct.pack("!4H", 1, 0, 0, int(bool(options)))
    return reply[:2] + flags + counts + reply[HEADER : question.end] + options


def answers_to(reply: bytes, query: bytes, question: Question) -> bool:
    """
    Whether *reply* can be an answer to *query*: same id, and the question repeated (RFC 5452 section 9.1).

    And whole. Some servers leave the question out when they refuse; that says too little to do harm.
    """
    if len(reply) < HEADER or reply[:2] != query[:2] or (reply[2] ^ _QR) & (_QR | _OPCODE):
        return False
    if reply[4:6] == b"\0\0":
        return reply[3] & 0xF in {FORMERR, SERVFAIL, NOTIMP, REFUSED} and is_whole(reply, HEADER)
    end = question.end
    return (
        reply[4:6] == b"\0\1"
        and reply[end - 4 : end] == query[end - 4 : end]
        and reply[HEADER : end - 4].lower() == question.key
        and is_whole(reply, end)
    )


def is_whole(reply: bytes, at: int) -> bool:
    """
    Whether the records of a message, which begin at *at*, are all there and nothing else.

    What is in them is the asker's to judge.
    """
    size = len(reply)
    for _ in range(sum(struct.unpack_from("!3H", reply, 6))):
        while at < size and 0 < reply[at] <= _LABEL_MAX:
            at += 1 + reply[at]
        at += 1 if at < size and not reply[at] else 2  # the root's label, or a pointer
        if at + _RECORD.size > size:
            return False
        at += _RECORD.size + (reply[at + 8] << 8 | reply[at + 9])
    return at == size


# Names


def wire_name(name: str) -> bytes | None:
    """Return a name with dots as on the wire, in lower case; None when DNS cannot say it (RFC 1035)."""
    labels = name.lower().removesuffix(".").encode("ascii", "replace").split(b".")
    if not all(1 <= len(label) <= _LABEL_MAX for label in labels):
        return None
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return wire if len(wire) <= NAME_MAX else None


def text(name: bytes) -> str:
    """Return a name on the wire for people to read."""
    labels, at = [], 0
    while at < len(name) and name[at]:
        labels.append(name[at + 1 : at + 1 + name[at]].decode("ascii", "backslashreplace"))
        at += 1 + name[at]
    return ".".join(labels) or "."


def reverse_name(address: IPAddress) -> bytes:
    """Return the name that stands for an address, as on the wire (RFC 1035 3.5, RFC 3596 2.5)."""
    if address.version == 4:
        octets = [str(octet).encode() for octet in reversed(address.packed)]
        return b"".join([b"%c%b" % (len(octet), octet) for octet in octets]) + b"\7in-addr\4arpa\0"
    digits = address.packed.hex()[::-1].encode()
    return b"".join([b"\1%c" % digit for digit in digits]) + b"\3ip6\4arpa\0"


# Records


def address_record(address: IPAddress, ttl: int, owner: bytes | None = None) -> Record:
    """Return the A or AAAA record of an address."""
    return Record(A if address.version == 4 else AAAA, ttl, address.packed, owner)


def ptr_record(name: bytes, ttl: int) -> Record:
    """Return the record that says what an address is called."""
    return Record(PTR, ttl, name)


def srv_record(target: bytes, port: int, ttl: int) -> Record:
    """Return the record of a service, all of the same priority and weight (RFC 2782)."""
    return Record(SRV, ttl, struct.pack("!HHH", 0, 1, port) + target)


def soa_record(zone: bytes, ttl: int) -> Record:
    """Return what says how long the absence of something in *zone* may be remembered (RFC 2308)."""
    # Nobody transfers such zones, so of the timers only the last means anything; there is no mailbox.
    return Record(SOA, ttl, zone + b"\0" + struct.pack("!5I", 1, 3600, 600, 86400, ttl), zone)
