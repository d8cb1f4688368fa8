"""TLS, client certificates, users: what is right gets through, and what is wrong is said clearly."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from tests.cluster.follower import Follower

from pynetwork.errors import InvalidValueError, StoreError, StoreUnavailableError
from pynetwork.store import EtcdStore, Put, Tls
from pynetwork.testing.cluster import etcd_cluster, make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetwork.testing.cluster import Certificates, EtcdCluster
    from pynetwork.testing.hosts import PrivateHost

pytestmark = pytest.mark.root


class Credentials(TypedDict):
    user: str
    password: str


AGENT: Credentials = {"user": "agent", "password": "pass"}


@pytest.fixture(scope="module")
def certificates(host: PrivateHost, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(host: PrivateHost, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority that the cluster does not know, nor the client."""
    return make_certificates(tmp_path_factory.mktemp("others"), ["192.0.2.1"])


@pytest.fixture(scope="module")
def encrypted(host: PrivateHost, certificates: Certificates) -> Iterator[EtcdCluster]:
    with etcd_cluster(host=host, tls=certificates) as cluster:
        yield cluster


class TestTls:
    def test_everything_works_with_the_right_certificates(
        self, encrypted: EtcdCluster, certificates: Certificates
    ) -> None:
        """Also a stream whose reads time out in between."""
        tls = Tls(ca=certificates.ca, cert=certificates.cert, key=certificates.key)
        with EtcdStore(encrypted.endpoints, tls=tls) as store, Follower(store) as follower:
            for n in range(5):
                assert store.transact([], [Put("a", f"{n}" * 30_000)]) is not None
                follower.wait_for("a", f"{n}" * 30_000)
            store.revoke(store.grant(10))

    def test_prefixes_are_added_and_dropped_on_an_encrypted_stream(
        self, encrypted: EtcdCluster, certificates: Certificates
    ) -> None:
        """Also while much is told on it: what was decrypted and not read yet the kernel knows nothing of."""
        tls = Tls(ca=certificates.ca, cert=certificates.cert, key=certificates.key)
        with EtcdStore(encrypted.endpoints, tls=tls) as store:
            since = store.list("").revision
            watcher = store.watcher()
            watcher.add("much/", since)
            with Follower(watcher=watcher) as follower:
                for number in range(20):
                    watcher.add(f"{number}/", since)
                    large = [Put(f"much/{number}/{part}", f"{part}" * 20_000) for part in range(10)]
                    store.transact([], [*large, Put(f"{number}/", "1")])
                    follower.wait_for(f"{number}/", "1")
                    follower.wait_for(f"much/{number}/9", "9" * 20_000)
                    if number % 2:
                        watcher.drop(f"{number}/")
                store.transact([], [Put(f"{number}/", "2") for number in range(20)])
                for number in range(0, 20, 2):
                    follower.wait_for(f"{number}/", "2")
            told = [int(each.key[:-1]) for each in follower.changes if each.value == "2"]
            assert sorted(told) == list(range(0, 20, 2))

    def test_a_context_of_the_callers_own_is_used(
        self, encrypted: EtcdCluster, certificates: Certificates
    ) -> None:
        context = ssl.create_default_context(cafile=certificates.ca)
        context.load_cert_chain(certificates.cert, certificates.key)
        with EtcdStore(encrypted.endpoints, tls=context) as store:
            assert store.get("nothing") is None

    @pytest.mark.parametrize("is_told_of_the_strangers", [True, False])
    def test_a_member_whose_certificate_is_not_trusted_is_told_nothing(
        self, encrypted: EtcdCluster, strangers: Certificates, is_told_of_the_strangers: bool
    ) -> None:
        tls = Tls(ca=strangers.ca) if is_told_of_the_strangers else None
        with (
            EtcdStore(encrypted.endpoints, tls=tls, timeout=0.5) as store,
            pytest.raises(StoreUnavailableError, match="its certificate is not trusted: ") as no,
        ):
            store.get("a")
        assert encrypted.endpoints[0] in str(no.value)

    def test_a_client_without_a_certificate_is_turned_away(
        self, encrypted: EtcdCluster, certificates: Certificates, strangers: Certificates
    ) -> None:
        nothing = Tls(ca=certificates.ca)
        wrong = Tls(ca=certificates.ca, cert=strangers.cert, key=strangers.key)
        for tls in (nothing, wrong):
            with (
                EtcdStore(encrypted.endpoints, tls=tls, timeout=0.5) as store,
                pytest.raises(StoreUnavailableError, match=r"TLS failed|hung up|reset|Broken pipe"),
            ):
                store.get("a")

    def test_the_name_in_the_certificate_counts(
        self, encrypted: EtcdCluster, certificates: Certificates
    ) -> None:
        tls = Tls(ca=certificates.ca, cert=certificates.cert, key=certificates.key)
        elsewhere = encrypted.endpoints[0].replace("127.0.0.1", "127.0.0.2")
        with (
            EtcdStore(elsewhere, tls=tls, timeout=0.5) as store,
            pytest.raises(StoreUnavailableError, match=r"not trusted|refused"),
        ):
            store.get("a")

    def test_plain_text_to_an_encrypted_member_is_an_error(self, encrypted: EtcdCluster) -> None:
        endpoint = encrypted.endpoints[0].replace("https", "http")
        with (
            EtcdStore(endpoint, timeout=0.5) as store,
            pytest.raises(StoreUnavailableError, match=r"HTTP status 400|does not speak|hung up"),
        ):
            store.get("a")

    def test_tls_to_a_plain_member_is_an_error(self, single: EtcdCluster) -> None:
        endpoint = single.endpoints[0].replace("http", "https")
        with (
            EtcdStore(endpoint, timeout=0.5) as store,
            pytest.raises(StoreUnavailableError, match=r"TLS failed: |reset"),
        ):
            store.get("a")

    def test_files_that_are_wrong_are_refused_at_once(
        self, certificates: Certificates, strangers: Certificates, tmp_path: Path
    ) -> None:
        junk = tmp_path / "junk"
        junk.write_text("junk")
        for tls, match in (
            (
                Tls(ca=tmp_path / "missing"),
                "cannot read the certificates of the authority, .*missing: No such",
            ),
            (Tls(ca=junk), "cannot read the certificates of the authority, .*junk"),
            (Tls(cert=tmp_path / "missing"), "cannot use the client certificate .*missing .*No such file"),
            (
                Tls(cert=certificates.cert, key=strangers.key),
                "cannot use the client certificate .*(?i:mismatch)",
            ),
            (Tls(key=certificates.key), "has a key, .* but no certificate"),
        ):
            with pytest.raises(InvalidValueError, match=match):
                EtcdStore("https://192.0.2.1", tls=tls)


@pytest.fixture
def guarded(own: EtcdCluster) -> EtcdCluster:
    """A cluster with users: root, and agent, who may use one prefix."""
    for command in (
        "user add root:secret",
        "user add agent:pass",
        "role add agent",
        "role grant-permission agent readwrite --prefix=true /ours/",
        "user grant-role agent agent",
        "user grant-role root root",
        "auth enable",
    ):
        own.etcdctl(*command.split())
    return own


class TestUsers:
    def test_a_user_needs_no_more_than_its_prefix(self, guarded: EtcdCluster) -> None:
        with (
            EtcdStore(guarded.endpoints, prefix="/ours", **AGENT) as store,
            Follower(store) as follower,
        ):
            lease = store.grant(100)
            revision = store.transact([], [Put("a", "1", lease=lease)])
            assert revision is not None
            follower.wait_for("a", "1")
            assert store.keep_alive(lease) == 100
            assert store.changes(revision - 1) is not None
            store.revoke(lease)
            follower.wait_for("a", None)

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            (
                {"user": "agent", "password": "wrong"},
                "refuses: .*authentication failed, invalid user ID or pass",
            ),
            (
                {"user": "nobody", "password": "pass"},
                "refuses: .*authentication failed, invalid user ID or pass",
            ),
            ({}, "refuses: .*user name is empty"),
            ({"user": "agent", "password": "pass", "prefix": "/theirs"}, "refuses: .*permission denied"),
        ],
    )
    def test_who_may_not_is_told_why(
        self, guarded: EtcdCluster, arguments: dict[str, Any], match: str
    ) -> None:
        with EtcdStore(guarded.endpoints, **{"prefix": "/ours", **arguments}) as store:
            for call in (
                lambda: store.get("a"),
                lambda: store.list(""),
                lambda: store.transact([], [Put("a", "1")]),
                lambda: store.changes(1),
                lambda: next(iter(store.watch("", 1))),
            ):
                with pytest.raises(StoreError, match=match) as no:
                    call()
                assert not isinstance(no.value, StoreUnavailableError)
                assert guarded.endpoints[0] in str(no.value)

    def test_a_token_that_the_cluster_has_forgotten_is_renewed(self, guarded: EtcdCluster) -> None:
        """Tokens are in the memory of a member; it says of one that it does not know that it is invalid."""
        (member,) = guarded.members
        with (
            EtcdStore(guarded.endpoints, prefix="/ours", **AGENT) as store,
            Follower(store) as follower,
        ):
            store.transact([], [Put("a", "1")])
            follower.wait_for("a", "1")
            for n in range(3):
                member.kill()
                guarded.start()
                store.transact([], [Put("a", f"after {n}")])
                assert store.get("a") is not None
                follower.wait_for("a", f"after {n}")

    def test_a_watch_renews_its_token_by_itself(self, guarded: EtcdCluster) -> None:
        (member,) = guarded.members
        with EtcdStore(guarded.endpoints, prefix="/ours", **AGENT) as store, Follower(store) as follower:
            store.transact([], [Put("a", "1")])
            follower.wait_for("a", "1")
            member.kill()
            guarded.start()
            with EtcdStore(guarded.endpoints, prefix="/ours", **AGENT) as other:
                other.transact([], [Put("a", "2")])
            follower.wait_for("a", "2")

    def test_a_watch_that_is_no_longer_allowed_ends(self, guarded: EtcdCluster) -> None:
        with (
            EtcdStore(guarded.endpoints, silence=0.2, prefix="/ours", **AGENT) as store,
            Follower(store) as follower,
        ):
            store.transact([], [Put("a", "1")])
            follower.wait_for("a", "1")
            guarded.etcdctl("--user=root:secret", "user", "revoke-role", "agent", "agent")
            error = follower.wait_for_end()
        assert isinstance(error, StoreError)
        assert "permission denied" in str(error)

    def test_a_user_is_no_obstacle_where_nobody_asks(self, single: EtcdCluster) -> None:
        with EtcdStore(single.endpoints, prefix="/users", **AGENT) as store:
            assert store.transact([], [Put("a", "1")]) is not None
