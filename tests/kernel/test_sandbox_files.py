"""The files of a sandbox on a real host: written in place, seen through mounts, kept, repaired, gone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork import Controller
from pynetwork.kernel import files
from pynetwork.resources import File

if TYPE_CHECKING:
    from pynetwork import Sandbox
    from pynetwork.testing import PrivateHost

pytestmark = pytest.mark.root


def _read(sandbox: Sandbox, name: str) -> str:
    """Return what programs in the sandbox find in a file of /etc."""
    done = sandbox.run(["cat", f"/etc/{name}"], capture_output=True, text=True, check=True)
    return str(done.stdout)


def test_programs_in_a_sandbox_see_its_files_and_nobody_else_does(controller: Controller) -> None:
    before = [Path(f"/etc/{name}").read_bytes() for name in ("hosts", "hostname", "resolv.conf")]
    sandbox = controller.new_sandbox("s", hostname="web", domainname="lab", dns=["192.0.2.53"])
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24", "fd88::/64"])
    network.create_endpoint("e").join(sandbox)
    assert _read(sandbox, "hostname") == "web\n"
    asked = _read(sandbox, "resolv.conf")
    assert "\n# asked by it: 192.0.2.53\nnameserver 127.0.0.11\nnameserver ::1\n" in asked
    hosts = _read(sandbox, "hosts")
    assert "\n10.88.0.2\tweb.lab web\nfd88::2\tweb.lab web\n" in hosts
    assert hosts == sandbox.hosts_path.read_text()
    said = sandbox.run(["hostname", "-f"], capture_output=True, text=True)
    assert said.stdout == "web.lab\n"
    found = sandbox.run(["getent", "ahosts", "web.lab"], capture_output=True, text=True).stdout
    assert {line.split()[0] for line in found.splitlines()} == {"10.88.0.2", "fd88::2"}
    assert [Path(f"/etc/{name}").read_bytes() for name in ("hosts", "hostname", "resolv.conf")] == before
    assert " /etc/" not in Path("/proc/thread-self/mountinfo").read_text()
    assert os.uname().nodename != "web"


def test_a_program_that_runs_sees_who_joins_and_leaves(controller: Controller) -> None:
    """Through the bind mount that it has had since it started: the file keeps its inode."""
    sandbox = controller.new_sandbox("s", hostname="web")
    endpoint = controller.new_network(
        "bridge", "n", subnets=["10.88.0.0/24"], dns=["192.0.2.1"]
    ).create_endpoint("e")
    inode = sandbox.hosts_path.stat().st_ino
    script = "while read _; do cat /etc/hosts /etc/resolv.conf; echo end; done"
    with sandbox.popen(["sh", "-c", script], stdin=-1, stdout=-1, text=True) as program:
        stdin, stdout = program.stdin, program.stdout
        assert stdin is not None
        assert stdout is not None

        def look() -> str:
            stdin.write("\n")
            stdin.flush()
            return "".join(iter(stdout.readline, "end\n"))

        alone = look()
        endpoint.join(sandbox)
        joined = look()
        endpoint.leave()
        assert look() == alone
        stdin.close()
    assert "10.88.0.2\tweb\n" in joined
    assert "# asked by it: 192.0.2.1\n" in joined
    assert "10.88.0.2" not in alone
    assert sandbox.hosts_path.stat().st_ino == inode


def test_its_name_server_is_found_through_its_files(controller: Controller) -> None:
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"])
    sandbox = controller.new_sandbox("s", dns_search=["."])
    network.create_endpoint("e").join(sandbox)
    network.create_endpoint("db", addresses=["10.88.0.9"]).join(controller.new_sandbox("t"))
    found = sandbox.run(["getent", "hosts", "db"], capture_output=True, text=True).stdout
    assert found.split() == ["10.88.0.9", "db"]


def test_without_a_name_server_of_its_own_it_asks_others_itself(host: PrivateHost) -> None:
    with Controller(dns="off") as controller:
        sandbox = controller.new_sandbox("s", dns=["192.0.2.53", "127.0.0.1"])
        assert "\nnameserver 192.0.2.53\nnameserver 127.0.0.1\n" in _read(sandbox, "resolv.conf")
        controller.erase()


def test_what_somebody_edits_is_kept(controller: Controller) -> None:
    sandbox = controller.new_sandbox("s", hostname="web")
    sandbox.run(
        ["sh", "-c", "echo 192.0.2.7 mine >> /etc/hosts; echo nameserver 192.0.2.9 > /etc/resolv.conf"]
    )
    network = controller.new_network("bridge", "n", subnets=["10.88.0.0/24"], dns=["192.0.2.1"])
    network.create_endpoint("e").join(sandbox)
    assert _read(sandbox, "resolv.conf") == "nameserver 192.0.2.9\n"
    assert _read(sandbox, "hosts").endswith("192.0.2.7 mine\n")
    assert "10.88.0.2\tweb\n" in _read(sandbox, "hosts")
    assert controller.reconcile().is_clean


def test_what_somebody_breaks_is_repaired(controller: Controller) -> None:
    sandbox = controller.new_sandbox("s", hostname="web")
    text = sandbox.hosts_path.read_text()
    directory = sandbox.hosts_path.parent
    sandbox.hosts_path.write_text("")
    sandbox.hostname_path.unlink()
    stray = directory.with_name(f"0123456789ab.{directory.name.rpartition('.')[2]}")
    foreign = directory.with_name("0123456789ab.ffffffff")
    for path in (stray, foreign):
        path.mkdir()
    report = controller.reconcile()
    assert {step.resource.kind for step in report.repaired} == {"file"}
    assert [step.resource.key for step in report.pruned] == [("directory", str(stray))]
    assert (sandbox.hosts_path.read_text(), sandbox.hostname_path.read_text()) == (text, "web\n")
    assert (stray.exists(), foreign.exists()) == (False, True)
    foreign.rmdir()
    files.remove_directory(str(directory))
    assert controller.reconcile().repaired
    assert sandbox.hosts_path.read_text() == text
    assert controller.reconcile().is_clean


def test_they_are_made_when_first_asked_for_and_go_with_the_sandbox(controller: Controller) -> None:
    place = Path("/run/pynetwork/files")
    sandbox = controller.new_sandbox("s")
    assert not place.exists()
    assert {path.name for path in sandbox.resolv_conf_path.parent.iterdir()} == {
        "hosts",
        "hostname",
        "resolv.conf",
    }
    with Controller() as other:
        assert other.sandboxes["s"].hosts_path == sandbox.hosts_path
    sandbox.delete()
    assert list(place.iterdir()) == []


def test_nothing_is_left_of_their_directory_when_all_is_erased(host: PrivateHost) -> None:
    controller = Controller()
    assert controller.new_sandbox("s").hosts_path.exists()
    controller.erase()
    assert not Path("/run/pynetwork/files").exists()


def test_a_sandbox_in_the_hosts_namespace_has_the_hosts_files(controller: Controller) -> None:
    sandbox = controller.new_sandbox("s", netns="host", extra_hosts={"db": "192.0.2.7", "me": "host-gateway"})
    host = Path("/etc/hosts").read_text()
    assert _read(sandbox, "hosts").removeprefix(host) == "192.0.2.7\tdb\n127.0.0.1\tme\n::1\tme\n"
    assert sandbox.resolv_conf_path.read_text() == Path("/etc/resolv.conf").read_text()
    assert sandbox.run(["hostname"], capture_output=True, text=True).stdout == f"{os.uname().nodename}\n"


def test_a_write_that_is_cut_short_leaves_the_new_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less over more: what the old text had more is empty lines, until it is cut off."""
    path = tmp_path / "hosts"
    long, short = (File(path=str(path), text="192.0.2.1\ta\n" * n, upkeep="part") for n in (9, 1))
    files.write(long)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", killed)
        with pytest.raises(KeyboardInterrupt):
            files.write(short)
    assert len(path.read_text()) == len(long.full)
    assert path.read_text().rstrip("\n") + "\n" == short.full
    assert files.seen(short) == short
    assert files.seen(long) != long
    files.write(long)
    assert path.read_text().rstrip("\n") + "\n" == long.full


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("x\n")
    (tmp_path / "hosts").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"):
        files.write(File(path=str(tmp_path / "hosts"), text="y\n"))
    assert (tmp_path / "victim").read_text() == "x\n"
