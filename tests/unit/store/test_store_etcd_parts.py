"""The parts of the cluster store that need no cluster: addresses, words, answers, streams."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pynetwork.errors import InvalidValueError, StoreError, StoreUnavailableError
from pynetwork.store import Absent, Compare, Delete, EtcdStore, Lease, PrefixUnchanged, Put, Tls, Unchanged
from pynetwork.store.etcd_answers import RefusedError, read_answer, refusal
from pynetwork.store.etcd_endpoints import Endpoint, parse_endpoints
from pynetwork.store.etcd_http import BrokenError, Stream
from pynetwork.store.etcd_wire import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAYOUT = Layout.under("/pynetwork/")


def plain(text: str) -> bytes:
    return base64.b64decode(text)


class TestEndpoints:
    @pytest.mark.parametrize(
        ("text", "endpoint", "printed"),
        [
            ("http://192.0.2.1:2379", Endpoint("http", "192.0.2.1", 2379), "http://192.0.2.1:2379"),
            ("http://192.0.2.1/", Endpoint("http", "192.0.2.1", 2379), "http://192.0.2.1:2379"),
            ("192.0.2.1:1", Endpoint("http", "192.0.2.1", 1), "http://192.0.2.1:1"),
            ("etcd.example", Endpoint("http", "etcd.example", 2379), "http://etcd.example:2379"),
            ("https://[2001:db8::1]", Endpoint("https", "2001:db8::1", 2379), "https://[2001:db8::1]:2379"),
            ("[::1]:22", Endpoint("http", "::1", 22), "http://[::1]:22"),
        ],
    )
    def test_scheme_and_port_may_be_missing(self, text: str, endpoint: Endpoint, printed: str) -> None:
        assert parse_endpoints(text, tls=False) == (endpoint,)
        assert str(endpoint) == printed
        assert parse_endpoints(printed, tls=False) == (endpoint,)

    def test_several_are_one_text_or_many(self) -> None:
        both = parse_endpoints("192.0.2.1, 192.0.2.2", tls=False)
        assert both == parse_endpoints(["192.0.2.1", "192.0.2.2"], tls=False)
        assert [each.host for each in both] == ["192.0.2.1", "192.0.2.2"]

    def test_with_tls_https_is_what_is_meant(self) -> None:
        assert parse_endpoints("192.0.2.1", tls=True)[0].scheme == "https"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"endpoints": []}, "needs an endpoint at least"),
        ({"endpoints": ""}, "'' is no endpoint"),
        ({"endpoints": "ftp://192.0.2.1"}, "'ftp://192.0.2.1' is no endpoint of etcd"),
        ({"endpoints": "http://192.0.2.1:99999"}, "is no endpoint of etcd: Port out of range"),
        ({"endpoints": "http://192.0.2.1/v3"}, "only scheme, host and port"),
        ({"endpoints": "http://me@192.0.2.1"}, "only scheme, host and port"),
        ({"endpoints": ["192.0.2.1", "http://192.0.2.1:2379"]}, "named twice"),
        (
            {"endpoints": "http://192.0.2.1", "tls": Tls()},
            "tls is set, but http://192.0.2.1:2379 would not be",
        ),
        ({"user": "agent"}, "user and password go together"),
        ({"password": "pass"}, "user and password go together"),
        ({"prefix": ""}, "'' is no prefix"),
        ({"prefix": "/"}, "'/' is no prefix"),
        ({"prefix": "\ud800"}, "cannot be encoded"),
        ({"timeout": 0}, "timeout is a number of seconds above 0, not 0"),
        ({"silence": "5"}, "silence is a number of seconds above 0, not '5'"),
        ({"refresh": float("nan")}, "refresh is a number of seconds above 0, not nan"),
    ],
)
def test_a_malformed_argument_is_refused(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidValueError, match=match):
        EtcdStore(**{"endpoints": "http://192.0.2.1", **arguments})  # type: ignore[arg-type]  # on purpose


def test_a_store_tells_where_it_is_and_not_the_password() -> None:
    with EtcdStore(["192.0.2.1", "192.0.2.2"], prefix="/a/b/", user="me", password="geheim") as store:  # noqa: S106
        assert repr(store) == "<EtcdStore /a/b in etcd at http://192.0.2.1:2379, http://192.0.2.2:2379>"


def test_a_closed_store_says_so() -> None:
    store = EtcdStore("192.0.2.1")
    store.close()
    store.close()
    with pytest.raises(StoreError, match=r"the store is closed: etcd at http://192\.0\.2\.1:2379; open a"):
        store.get("a")
    with pytest.raises(StoreError, match="the store is closed"):
        next(iter(store.watch("", 1)))


class TestWords:
    @given(prefix=st.text(max_size=4), key=st.text(max_size=6))
    def test_a_span_holds_what_starts_with_its_prefix_and_nothing_else(self, prefix: str, key: str) -> None:
        span = LAYOUT.span(prefix)
        for each in (key, prefix + key):
            is_inside = plain(span["key"]) <= plain(LAYOUT.key(each)) < plain(span["range_end"])
            assert is_inside is each.startswith(prefix)

    @given(keys=st.lists(st.text(max_size=4)))
    def test_keys_sort_alike_on_both_sides(self, keys: list[str]) -> None:
        assert sorted(keys) == sorted(keys, key=lambda key: plain(LAYOUT.key(key)))

    @given(key=st.text(max_size=6), value=st.text(max_size=6), revision=st.integers(1, 1 << 62))
    def test_an_entry_comes_back_as_it_was_put(self, key: str, value: str, revision: int) -> None:
        (operation,) = LAYOUT.operations([Put(key, value)])
        entry = LAYOUT.entry({**operation["request_put"], "mod_revision": str(revision)})
        assert (entry.key, entry.value, entry.revision) == (key, value, revision)

    def test_operations_are_in_etcds_words(self) -> None:
        lease = Lease(77, 10)
        put, deletion = LAYOUT.operations([Put("a", "1", lease=lease), Delete("b")])
        key, value = base64.b64encode(b"/pynetwork/data/a").decode(), base64.b64encode(b"1").decode()
        assert put == {"request_put": {"key": key, "value": value, "lease": "77"}}
        assert deletion == {"request_delete_range": {"key": base64.b64encode(b"/pynetwork/data/b").decode()}}

    @pytest.mark.parametrize("revision", [-1, 0, 1 << 63, 1 << 70])
    def test_what_cannot_hold_is_not_asked(self, revision: int) -> None:
        assert LAYOUT.compares([Absent("a"), Unchanged("a", revision)]) is None

    @pytest.mark.parametrize(
        ("revision", "limit"),
        [(-5, 1), (0, 1), (7, 8), ((1 << 63) - 1, (1 << 63) - 1), (1 << 70, (1 << 63) - 1)],
    )
    def test_numbers_that_etcd_does_not_have_are_brought_into_its_range(
        self, revision: int, limit: int
    ) -> None:
        compares: list[Compare] = [PrefixUnchanged("n/", revision)]
        found = LAYOUT.compares(compares)
        assert found is not None
        assert found[0]["mod_revision"] == str(limit)
        assert found[0]["result"] == "LESS"

    def test_what_is_no_text_is_somebody_elses(self) -> None:
        item = {"key": LAYOUT.key("a"), "value": base64.b64encode(b"\xff").decode(), "mod_revision": "1"}
        with pytest.raises(StoreError, match=r"is not text: .*; somebody else uses /pynetwork/data/"):
            LAYOUT.entry(item)


class TestAnswers:
    @pytest.mark.parametrize(
        ("code", "message", "is_final"),
        [
            (3, "etcdserver: user name is empty", True),
            (5, "etcdserver: requested lease not found", True),
            (7, "etcdserver: permission denied", True),
            (8, "etcdserver: mvcc: database space exceeded", True),
            (8, "etcdserver: too many requests", False),
            (11, "etcdserver: mvcc: required revision has been compacted", True),
            (14, "etcdserver: request timed out", False),
            (14, "etcdserver: leader changed", False),
            (14, "etcdserver: no leader", False),
            (4, "context deadline exceeded", False),
            (2, "client connection is closing", False),
        ],
    )
    def test_what_may_pass_is_told_from_what_does_not(self, code: int, message: str, is_final: bool) -> None:
        body = json.dumps({"error": message, "message": message, "code": code}).encode()
        with pytest.raises(RefusedError) as no:
            read_answer(503, body)
        assert (no.value.code, no.value.message, no.value.is_final) == (code, message, is_final)

    def test_an_error_in_a_stream_is_read_likewise(self) -> None:
        error = refusal({"error": {"grpc_code": 14, "http_code": 503, "message": "etcdserver: no leader"}})
        assert (error.code, error.message, error.is_final) == (14, "etcdserver: no leader", False)

    @pytest.mark.parametrize("body", [b"", b"Not Found\n", b"[]", b"<html>", b"\xff"])
    def test_what_does_not_speak_like_etcd_may_be_tried_again(self, body: bytes) -> None:
        with pytest.raises(
            RefusedError, match=r"does not speak like etcd 3\.4 or later: HTTP status 404"
        ) as no:
            read_answer(404, body)
        assert not no.value.is_final


class TestStream:
    @pytest.fixture
    def ends(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield ours, theirs

    @pytest.fixture
    def begin(self, ends: tuple[socket.socket, socket.socket]) -> Iterator[Callable[[], Stream]]:
        """Return a function that begins to read our end."""
        with contextlib.ExitStack() as streams:
            yield lambda: streams.enter_context(contextlib.closing(Stream(ends[0], 30)))

    def test_lines_may_come_in_any_pieces(
        self, ends: tuple[socket.socket, socket.socket], begin: Callable[[], Stream]
    ) -> None:
        _, theirs = ends
        theirs.sendall(b'HTTP/1.0 200 OK\r\nX: y\r\n\r\n{"result":')
        stream = begin()
        assert stream.read(0.01) is None
        theirs.sendall(b'{"a":1}}\n{"result":{"a":2}}\n{"resu')
        assert stream.read(30) == {"result": {"a": 1}}
        assert stream.read(30) == {"result": {"a": 2}}
        assert stream.read(0.01) is None
        theirs.sendall(b'lt":{}}\n')
        assert stream.read(30) == {"result": {}}

    def test_a_large_line_is_read_in_full(
        self, ends: tuple[socket.socket, socket.socket], begin: Callable[[], Stream]
    ) -> None:
        _, theirs = ends
        payload = json.dumps({"result": "x" * 3_000_000}).encode()
        sender = threading.Thread(target=theirs.sendall, args=(b"HTTP/1.0 200 OK\r\n\r\n" + payload + b"\n",))
        sender.start()
        message = begin().read(30)
        sender.join()
        assert message is not None
        assert len(message["result"]) == 3_000_000

    def test_an_error_ends_with_the_connection(
        self, ends: tuple[socket.socket, socket.socket], begin: Callable[[], Stream]
    ) -> None:
        _, theirs = ends
        theirs.sendall(b'HTTP/1.0 503 no\r\n\r\n{"error":"no leader"}')
        stream = begin()
        theirs.close()
        assert stream.read(30) == {"error": "no leader"}
        with pytest.raises(BrokenError, match="it hung up"):
            stream.read(30)

    def test_what_is_no_json_is_refused(
        self, ends: tuple[socket.socket, socket.socket], begin: Callable[[], Stream]
    ) -> None:
        _, theirs = ends
        theirs.sendall(b"HTTP/1.0 502 no\r\n\r\n<html>\n")
        with pytest.raises(BrokenError, match=r"does not speak like etcd 3\.4 or later: b'<html>'"):
            begin().read(30)

    @pytest.mark.parametrize(
        "head", [b"", b"SSH-2.0-x\r\n\r\n", b"\x15\x03\x01\r\n\r\n", b"HTTP/1.0\r\n\r\n", b"\r\n\r\n"]
    )
    def test_what_is_no_http_is_refused(
        self, ends: tuple[socket.socket, socket.socket], begin: Callable[[], Stream], head: bytes
    ) -> None:
        _, theirs = ends
        theirs.sendall(head)
        theirs.close()
        with pytest.raises(ConnectionError):
            begin()


class Member(http.server.BaseHTTPRequestHandler):
    """Answers as its server is told to."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        status, answer = self.server.answer(self.path, json.loads(self.rfile.read(length)))  # type: ignore[attr-defined]
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Return a function that starts a member with an answer to everything, and returns its endpoint."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answer: Callable[[str, Any], tuple[int, Any]]) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Member)
        server.daemon_threads = True
        server.answer = answer  # type: ignore[attr-defined]
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def header(cluster: str, revision: int = 5) -> dict[str, Any]:
    return {"header": {"cluster_id": cluster, "revision": str(revision)}}


class TestOneOfSeveral:
    def test_the_next_is_asked_while_one_has_no_leader(self, serve: Callable[..., str]) -> None:
        no_leader = {"error": "etcdserver: no leader", "message": "etcdserver: no leader", "code": 14}
        endpoints = [serve(lambda *_: (503, no_leader)), serve(lambda *_: (200, header("1")))]
        with EtcdStore(endpoints) as store:
            assert store.list("").revision == 5

    def test_who_answered_last_is_asked_first(self, serve: Callable[..., str]) -> None:
        asked: list[str] = []

        def broken(path: str, _: object) -> tuple[int, object]:
            asked.append(path)
            return 500, {}

        with EtcdStore([serve(broken), serve(lambda *_: (200, header("1")))]) as store:
            for _ in range(5):
                store.get("a")
        assert len(asked) == 1

    def test_a_final_refusal_is_not_taken_to_the_others(self, serve: Callable[..., str]) -> None:
        denied = {
            "error": "etcdserver: permission denied",
            "message": "etcdserver: permission denied",
            "code": 7,
        }
        endpoint = serve(lambda *_: (403, denied))
        with (
            EtcdStore([endpoint, serve(lambda *_: (200, header("1")))]) as store,
            pytest.raises(
                StoreError, match=r"cannot read 'a': etcd at .* refuses: etcdserver: permission"
            ) as no,
        ):
            store.get("a")
        assert endpoint in str(no.value)

    def test_a_stranger_is_not_believed_while_a_member_is_there(
        self, serve: Callable[..., str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Also when that one has no leader just now, in several rounds."""
        answers = iter([(200, header("1")), *[(503, {})] * 3])
        endpoints = [
            serve(lambda *_: next(answers, (200, header("1", 6)))),
            serve(lambda *_: (200, header("2", 77))),
        ]
        with EtcdStore(endpoints) as store:
            assert store.list("").revision == 5
            assert store.list("").revision == 6
        assert caplog.records == []

    def test_strangers_are_followed_when_nobody_else_is_left(
        self, serve: Callable[..., str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A cluster that was made anew from a copy has another number."""
        number = "1"
        with EtcdStore(serve(lambda *_: (200, header(number)))) as store:
            assert store.get("a") is None
            number = "2"
            assert store.get("a") is None
        assert "it is another cluster now, 2 instead of 1" in caplog.text

    def test_two_kinds_of_strangers_are_not(self, serve: Callable[..., str]) -> None:
        numbers = {"1": "1", "2": "1"}
        endpoints = [
            serve(lambda *_: (200, header(numbers["1"]))),
            serve(lambda *_: (200, header(numbers["2"]))),
        ]
        with EtcdStore(endpoints, timeout=0.3) as store:
            store.get("a")
            numbers.update({"1": "2", "2": "3"})
            with pytest.raises(StoreUnavailableError, match="it belongs to another cluster: 2 instead of 1"):
                store.get("a")

    @pytest.mark.parametrize(
        ("message", "match"),
        [
            (
                "etcdserver: too many operations in txn request",
                "it is too much for etcd .*--max-txn-ops, 128",
            ),
            ("etcdserver: request is too large", "it is too much for etcd .*--max-request-bytes"),
        ],
    )
    def test_what_is_too_much_is_the_callers_fault(
        self, serve: Callable[..., str], message: str, match: str
    ) -> None:
        def answer(path: str, _: object) -> tuple[int, object]:
            if path == "/v3/kv/txn":
                return 400, {"error": message, "message": message, "code": 3}
            return 200, header("1") | {"TTL": "600"}

        with (
            EtcdStore(serve(answer)) as store,
            pytest.raises(InvalidValueError, match=f"cannot write 'a' and 1 more: {match}"),
        ):
            store.transact([], [Put("a", "1"), Put("b", "1")])
