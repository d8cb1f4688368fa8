"""The codec against dnspython, which knows nothing of it, and against junk."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetwork.dns import codec
from pynetwork.dns.codec import Question

LABELS = st.text("abcXYZ019-_", min_size=1, max_size=63)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join).filter(lambda name: len(name) < 250)
TYPES = st.sampled_from([1, 2, 5, 6, 12, 15, 16, 28, 33, 65, 255])
SIZES = st.none() | st.integers(0, 65535)


def query(name: str, kind: int = codec.A, *, edns: int | None = None, dnssec: bool = False) -> bytes:
    """Return a query, made by dnspython."""
    message = dns.message.make_query(name, dns.rdatatype.RdataType(kind))
    if edns is not None:
        message.use_edns(0, dns.flags.DO if dnssec else 0, edns)
    return message.to_wire()


def parsed(wire: bytes) -> Question:
    question = codec.parse(wire)
    assert isinstance(question, Question)
    return question


def answer(wire: bytes, **parts: Any) -> bytes:
    """Return the answer to a query, put together."""
    question = parsed(wire)
    return codec.reply(wire, question, codec.prepare(question, **parts))


@given(NAMES, TYPES, SIZES, st.booleans())
def test_queries_are_taken_apart_as_dnspython_made_them(
    name: str, kind: int, edns: int | None, dnssec: bool
) -> None:
    wire = query(name, kind, edns=edns, dnssec=dnssec)
    question = parsed(wire)
    assert question.name == dns.name.from_text(name).to_wire()
    assert question.key == dns.name.from_text(name.lower()).to_wire()
    assert (question.type, question.klass) == (kind, codec.IN)
    assert question.edns == (edns is not None)
    assert question.limit == max(512, edns or 0)
    assert question.dnssec == (dnssec and edns is not None)
    assert codec.text(question.name) == name


@given(st.binary(max_size=80))
def test_junk_is_refused_and_never_raises(junk: bytes) -> None:
    question = codec.parse(junk)
    if isinstance(question, Question):
        dns.message.from_wire(junk, ignore_trailing=False)  # then it is no junk
    elif isinstance(question, int):
        reply = dns.message.from_wire(codec.error(junk, None, question))
        assert reply.flags & dns.flags.QR
        assert reply.rcode() == question


@given(NAMES, st.none() | st.just(1232), st.data())
def test_a_damaged_query_is_refused_or_is_still_one(name: str, edns: int | None, data: st.DataObject) -> None:
    wire = bytearray(query(name, edns=edns))
    for at in data.draw(st.lists(st.integers(0, len(wire) - 1), max_size=3)):
        wire[at] = data.draw(st.integers(0, 255))
    damaged = bytes(wire[: data.draw(st.integers(0, len(wire)))])
    question = codec.parse(damaged)
    if isinstance(question, Question):
        assert question.end <= len(damaged)
        dns.name.from_wire(damaged, codec.HEADER)


# The same in all processes of pytest-xdist: they are part of the names of tests.
PLAIN, WITH_OPTIONS = b"id" + query("web")[2:], b"id" + query("web", edns=512)[2:]


@pytest.mark.parametrize(
    ("wire", "outcome"),
    [
        (b"", None),
        (bytes(11), None),
        (PLAIN[:2] + b"\x81" + PLAIN[3:], None),  # an answer
        (PLAIN[:2] + b"\x21" + PLAIN[3:], codec.NOTIMP),  # a NOTIFY
        (PLAIN[:4] + b"\0\2" + PLAIN[6:], codec.FORMERR),
        (PLAIN[:-1], codec.FORMERR),
        (PLAIN + b"\0", codec.FORMERR),
        (PLAIN[:12] + b"\xc0\x0c\0\1\0\1", codec.FORMERR),  # a pointer to itself
        (PLAIN[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", codec.FORMERR),
        (WITH_OPTIONS[:11] + b"\2" + WITH_OPTIONS[12:] + WITH_OPTIONS[-11:], codec.FORMERR),
        (WITH_OPTIONS[:-2] + b"\0\7", codec.FORMERR),
        (WITH_OPTIONS[:-5] + b"\1\0\0\0\0", dns.rcode.BADVERS),
    ],
)
def test_what_is_wrong_with_a_query_is_told(wire: bytes, outcome: int | None) -> None:
    assert codec.parse(wire) == outcome
    if outcome is not None:
        assert dns.message.from_wire(codec.error(wire, None, outcome)).rcode() == outcome


@given(NAMES, SIZES, st.lists(st.ip_addresses(), max_size=8), st.booleans())
def test_answers_are_read_by_dnspython(
    name: str, edns: int | None, addresses: list[IPv4Address | IPv6Address], dnssec: bool
) -> None:
    wire = query(name, edns=edns, dnssec=dnssec)
    records = [codec.address_record(address, 7) for address in addresses]
    target = codec.wire_name("host.net")
    assert target is not None
    records += [codec.ptr_record(target, 1), codec.srv_record(target, 8080, 1)]
    reply = answer(wire, limit=4096, answers=records, authority=[codec.soa_record(target, 1)])
    asked, message = dns.message.from_wire(wire), dns.message.from_wire(reply)
    assert message.is_response(asked) or asked.is_response(message)
    assert message.question[0].name.labels == dns.name.from_text(name).labels  # in the asker's case
    assert message.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.RA
    found = [str(item) for rrset in message.answer for item in rrset]
    assert found[-2:] == ["host.net.", "0 1 8080 host.net."]
    assert {ip_address(text) for text in found[:-2]} == set(addresses)
    assert str(message.authority[0].name) == "host.net."
    assert message.edns == (-1 if edns is None else 0)
    assert bool(message.ednsflags & dns.flags.DO) == (dnssec and edns is not None)


@given(st.integers(1, 200), st.integers(512, 4096))
def test_what_does_not_fit_is_marked_as_truncated(count: int, limit: int) -> None:
    wire = query("web", edns=limit)
    records = [codec.address_record(ip_address(0x0A000000 + number), 1) for number in range(count)]
    reply = answer(wire, limit=limit, answers=records)
    assert len(reply) <= limit
    message = dns.message.from_wire(reply)
    kept = sum(len(rrset) for rrset in message.answer)
    assert bool(message.flags & dns.flags.TC) == (kept < count)
    assert kept == count or len(reply) + 16 > limit


def test_additional_records_that_do_not_fit_are_left_out_in_silence() -> None:
    wire = query("web")
    records = [codec.address_record(ip_address(number), 1) for number in range(60)]
    message = dns.message.from_wire(answer(wire, limit=512, additional=records))
    assert not message.flags & dns.flags.TC
    assert 0 < len(message.additional[0]) < 60


def test_only_an_answer_to_the_very_question_is_one() -> None:
    """Same id and same question, in any case; or no question, and a refusal (RFC 5452)."""
    wire = query("web.example", edns=1232)
    question = parsed(wire)
    reply = dns.message.make_response(dns.message.from_wire(wire)).to_wire()
    assert codec.answers_to(reply, wire, question)
    assert codec.answers_to(reply[:12] + question.name.upper() + reply[25:], wire, question)
    for at in (0, 1, 2, 5, 13, 17, 24, question.end - 3, question.end - 1):
        forged = bytearray(reply)
        forged[at] ^= 0x80 if at == 2 else 1
        assert not codec.answers_to(bytes(forged), wire, question), at
    assert not codec.answers_to(reply[:11], wire, question)
    for rcode, is_one in ((0, False), (codec.REFUSED, True), (codec.NXDOMAIN, False), (codec.FORMERR, True)):
        header = reply[:3] + bytes((rcode,)) + bytes(8)
        assert codec.answers_to(header, wire, question) is is_one


@given(st.binary(max_size=60))
def test_junk_is_no_answer(junk: bytes) -> None:
    wire = query("web.example.org")
    assert not codec.answers_to(wire[:2] + junk, wire, parsed(wire))


def test_a_truncated_reply_keeps_its_rcode_and_has_no_records() -> None:
    wire = query("web", edns=512)
    made = dns.message.make_response(dns.message.from_wire(wire))
    made.set_rcode(dns.rcode.NXDOMAIN)
    message = dns.message.from_wire(codec.truncated(made.to_wire(), parsed(wire)))
    assert message.flags & dns.flags.TC
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert message.question == dns.message.from_wire(wire).question


@given(NAMES)
def test_names_are_written_as_dnspython_writes_them(name: str) -> None:
    assert codec.wire_name(name) == dns.name.from_text(name.lower()).to_wire()
    assert codec.wire_name(f"{name}.") == codec.wire_name(name)


@pytest.mark.parametrize("name", ["", ".", "a..b", ".a", "a" * 64, ".".join(["a" * 49] * 6)])
def test_what_dns_cannot_say_is_no_name(name: str) -> None:
    assert codec.wire_name(name) is None


@given(st.ip_addresses())
def test_reverse_names_are_dnspythons(address: IPv4Address | IPv6Address) -> None:
    assert codec.reverse_name(address) == dns.name.from_text(f"{address.reverse_pointer}.").to_wire()


@given(NAMES, st.lists(st.ip_addresses(v=4), max_size=5), st.data())
def test_messages_with_something_missing_or_too_much_are_not_whole(
    name: str, addresses: list[IPv4Address], data: st.DataObject
) -> None:
    wire = query(name, edns=1232)
    made = dns.message.make_response(dns.message.from_wire(wire))
    texts = [str(address) for address in addresses]
    if texts:
        made.answer.append(dns.rrset.from_text_list(made.question[0].name, 1, "IN", "A", texts))
    reply, end = made.to_wire(), parsed(wire).end
    assert codec.is_whole(reply, end)
    assert not codec.is_whole(reply + data.draw(st.binary(min_size=1, max_size=9)), end)
    assert not codec.is_whole(reply[: data.draw(st.integers(end, len(reply) - 1))], end)
    assert codec.is_whole(codec.error(wire, parsed(wire), codec.REFUSED), end)
