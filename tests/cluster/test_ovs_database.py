"""The database of a real Open vSwitch: changed in one piece, waited for, found again after it was away."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork.errors import PynetworkError, UnavailableError
from pynetwork.kernel.ovs import session
from pynetwork.kernel.ovs.database import Database
from pynetwork.kernel.ovs.place import Place, default_directory
from pynetwork.testing import private_host
from pynetwork.testing.cluster import ovs_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetwork.kernel.ovs.database import Edit
    from pynetwork.testing.cluster import OvsHost

pytestmark = pytest.mark.root


@pytest.fixture(name="host")
def one_host() -> Iterator[OvsHost]:
    with private_host(), ovs_cluster(1) as hosts:
        yield hosts[0]


@pytest.fixture(name="database")
def a_database(host: OvsHost) -> Iterator[Database]:
    database = Database(Place(host.directory))
    yield database
    database.close()
    database.close()


def add_bridge(edit: Edit, name: str = "br-new") -> None:
    bridge, port, interface = map(edit.insert, ("Bridge", "Port", "Interface"))
    bridge.name = port.name = interface.name = name
    bridge.datapath_type = "netdev"
    interface.type = "internal"
    port.interfaces = [interface]
    bridge.ports = [port]
    edit.root.addvalue("bridges", bridge)


def broken(edit: Edit) -> None:
    add_bridge(edit)
    raise ZeroDivisionError


def note(edit: Edit) -> Any:
    return edit.find("Bridge", "br-phy").external_ids.get("note")


def test_a_change_returns_when_the_switch_has_followed(host: OvsHost, database: Database) -> None:
    database.change(add_bridge)
    assert "br-new" in host.vsctl("list-br").split()
    assert (host.directory / "br-new.mgmt").exists()
    assert database.look(lambda edit: edit.find("Interface", "br-new").ofport) == [65534]


def test_what_others_change_is_seen(host: OvsHost, database: Database) -> None:
    assert database.look(note) is None
    host.vsctl("set", "bridge", "br-phy", "external_ids:note=x")
    database.until(lambda edit: note(edit) == "x")
    assert database.look(note) == "x"


def test_a_change_is_made_again_when_somebody_was_faster(host: OvsHost, database: Database) -> None:
    tries: list[Any] = []

    def append(edit: Edit) -> None:
        bridge = edit.find("Bridge", "br-phy")
        bridge.verify("external_ids")
        if not tries:
            host.vsctl("set", "bridge", "br-phy", "external_ids:note=theirs")
        tries.append(note(edit))
        bridge.external_ids = {**bridge.external_ids, "note": f"{note(edit)} and ours"}

    database.change(append)
    assert tries == [None, "theirs"]
    assert database.look(note) == "theirs and ours"


def test_a_change_whose_server_goes_away_is_made_once(host: OvsHost, database: Database) -> None:
    repeated = []

    def add(edit: Edit) -> None:
        repeated.append(edit.is_repeated)
        if len(repeated) == 1:
            host.kill_database()
            host.start_database()
        add_bridge(edit)

    database.change(add)
    assert len(repeated) == 2
    assert sorted(host.vsctl("list-br").split()) == ["br-new", "br-phy"]


def test_a_change_that_is_refused_changes_nothing(host: OvsHost, database: Database) -> None:
    def twice(edit: Edit) -> None:
        add_bridge(edit)
        add_bridge(edit)

    with pytest.raises(PynetworkError, match="constraint violation"):
        database.change(twice)
    with pytest.raises(ZeroDivisionError):
        database.change(broken)
    assert host.vsctl("list-br").split() == ["br-phy"]
    database.change(add_bridge)  # it is as good as before


def test_threads_take_turns(host: OvsHost, database: Database) -> None:
    threads = [
        threading.Thread(target=database.change, args=(lambda edit, n=n: add_bridge(edit, f"br{n}"),))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(host.vsctl("list-br").split()) == ["br-phy", *(f"br{n}" for n in range(6))]


def test_a_database_that_is_away_is_named_and_found_again(host: OvsHost, database: Database) -> None:
    assert database.look(note) is None
    host.kill_database()
    for use in (database.look, database.change):
        with pytest.raises(UnavailableError, match=r"ovsdb-server does not answer at .*db\.sock: start"):
            use(note)
    host.start_database()
    host.vsctl("set", "bridge", "br-phy", "external_ids:note=back")
    assert database.look(note) == "back"


def test_nothing_is_changed_when_no_switch_would_follow(host: OvsHost, database: Database) -> None:
    host.kill_switch()
    with pytest.raises(UnavailableError, match=r"ovs-vswitchd of .* does not run: start"):
        database.change(add_bridge)
    assert "br-new" not in host.vsctl("--no-wait", "list-br")
    host.start_switch()
    database.change(add_bridge)


def test_a_server_that_hangs_is_not_waited_for_for_ever(
    host: OvsHost, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_SECONDS", 0.3)
    with host.frozen(database=True), pytest.raises(UnavailableError, match="does not answer"):
        database.look(note)
    monkeypatch.undo()
    assert database.look(note) is None


def test_an_empty_database_is_told_apart(host: OvsHost, database: Database) -> None:
    host.kill_switch()
    host.kill_database()
    (host.directory / "conf.db").unlink()
    host.start_database()
    host.vsctl("--no-wait", "emer-reset")
    with pytest.raises(UnavailableError):
        database.change(add_bridge)


def test_a_closed_one_says_so(host: OvsHost) -> None:
    database = Database(Place(host.directory))
    database.close()
    with pytest.raises(UnavailableError, match="is closed"):
        database.look(note)


def test_without_the_package_it_says_what_to_install(
    host: OvsHost, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ovs.db.idl", None)
    session._library.cache_clear()
    with pytest.raises(UnavailableError, match=r"pip install 'pynetwork\[overlay\]'"):
        database.look(note)


def test_the_directory_is_the_one_that_the_switchs_own_programs_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OVS_RUNDIR", str(tmp_path))
    assert default_directory() == tmp_path
    monkeypatch.delenv("OVS_RUNDIR")
    assert str(default_directory()) == "/run/openvswitch"
