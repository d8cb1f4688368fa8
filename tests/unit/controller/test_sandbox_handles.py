"""Sandboxes as handles: what they say, what they run, what they are made of; the namespace is pretended."""

from __future__ import annotations

import signal
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pynetwork import (
    HOST_GATEWAY,
    ApplyError,
    Controller,
    InterfaceStatistics,
    InvalidValueError,
    Limits,
    MemoryStore,
    NotFoundError,
    UnavailableError,
)
from pynetwork.resources import Cgroup, File, Netns
from pynetwork.testing import Chaos, FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class Namespaces:
    """Enters no namespace, and notes which one it was to be."""

    def __init__(self) -> None:
        self.entered: list[str | None] = []

    def call(self, path: str, function: Callable[[], T]) -> T:
        self.entered.append(path)
        return function()

    def home(self, function: Callable[[], T]) -> T:
        self.entered.append(None)
        return function()

    def apart(
        self, path: str | None, function: Callable[[], T], *, undo: Callable[[T], None] | None = None
    ) -> T:
        self.entered.append(path)
        return function()


class Host(FakeKernel):
    def __init__(self) -> None:
        super().__init__()
        self.namespaces = Namespaces()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def here(host: Host) -> Iterator[Controller]:
    around = fake_surroundings()
    with Controller(store=MemoryStore(), kernel=host, surroundings=around, dns="off") as controller:
        yield controller


class TestRun:
    """Running programs: as subprocess does, in the namespace."""

    def test_a_program_runs_in_its_namespace_and_its_output_is_returned(
        self, here: Controller, host: Host
    ) -> None:
        sandbox = here.new_sandbox("s")
        done = sandbox.run(["echo", "hello"], capture_output=True, text=True)
        assert (done.args, done.returncode, done.stdout, done.stderr) == (["echo", "hello"], 0, "hello\n", "")
        assert host.namespaces.entered == [str(sandbox.netns_path)]

    def test_the_hosts_namespace_has_no_path(self, here: Controller, host: Host) -> None:
        sandbox = here.new_sandbox("s", netns="host")
        assert sandbox.netns_path is None
        assert sandbox.run(["true"]).returncode == 0
        assert host.namespaces.entered == [None]

    def test_input_is_sent_and_exit_status_is_told(self, here: Controller) -> None:
        sandbox = here.new_sandbox("s")
        assert sandbox.run(["cat"], input=b"x", capture_output=True).stdout == b"x"
        assert sandbox.run(["sh", "-c", "exit 3"]).returncode == 3
        with pytest.raises(subprocess.CalledProcessError) as caught:
            sandbox.run(["sh", "-c", "echo no >&2; exit 3"], check=True, capture_output=True)
        assert (caught.value.returncode, caught.value.stderr) == (3, b"no\n")

    def test_what_takes_too_long_is_killed(self, here: Controller) -> None:
        with pytest.raises(subprocess.TimeoutExpired):
            here.new_sandbox("s").run(["sleep", "60"], timeout=0.01)

    def test_there_is_no_shell(self, here: Controller, host: Host) -> None:
        sandbox = here.new_sandbox("s")
        junk: list[Any] = ["ip link", b"ip link", [], None, 7, {"ip": "link"}]
        for argv in junk:
            with pytest.raises(InvalidValueError, match="there is no shell"):
                sandbox.run(argv)
        with pytest.raises(InvalidValueError, match="there is no shell"):
            sandbox.run(["ip link"], shell=True)  # noqa: S604 - it is refused
        assert host.namespaces.entered == []

    def test_a_started_program_is_the_callers(self, here: Controller) -> None:
        with here.new_sandbox("s").popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            assert process.poll() is None
            process.communicate(b"\n")
        assert process.returncode == 0

    def test_counters_come_by_interface_name(self, here: Controller) -> None:
        found = here.new_sandbox("s", netns="host").stats().interfaces
        assert "lo" not in found
        assert all(isinstance(value, InterfaceStatistics) for value in found.values())

    def test_a_deleted_sandbox_runs_nothing(self, here: Controller, host: Host) -> None:
        sandbox = here.new_sandbox("s")
        sandbox.delete()
        uses: list[Callable[[], object]] = [
            lambda: sandbox.run(["true"]),
            lambda: sandbox.popen(["true"]),
            sandbox.stats,
            sandbox.entered,
        ]
        for use in uses:
            with pytest.raises(NotFoundError, match="was deleted"):
                use()
        assert host.namespaces.entered == []


class TestNamespaces:
    """What a sandbox can be made of."""

    @pytest.mark.parametrize(
        ("netns", "adopted"),
        [
            ("/run/netns/x", "/run/netns/x"),
            (Path("/run/netns/x"), "/run/netns/x"),
            (4711, "/proc/4711/ns/net"),
        ],
    )
    def test_one_that_exists_is_adopted_and_only_pinned(
        self, here: Controller, host: Host, netns: object, adopted: str
    ) -> None:
        sandbox = here.new_sandbox("s", netns=netns)
        (pin,) = (item for item in host.resources if isinstance(item, Netns))
        assert pin == Netns(path=str(sandbox.netns_path), adopted=adopted)
        sandbox.delete()
        assert host.resources == ()

    def test_an_open_file_is_one(self, here: Controller) -> None:
        with Path("/proc/self/ns/net").open() as file:
            sandbox = here.new_sandbox("s", netns=file)
            assert sandbox.inspect()["adopted"] == f"/proc/self/fd/{file.fileno()}"
        with pytest.raises(InvalidValueError, match="closed file"):
            here.new_sandbox("t", netns=file)

    def test_its_own_is_deaf_to_router_advertisements(self, here: Controller, host: Host) -> None:
        """Else whoever is on the bridge could give it addresses and a default route (RFC 4861)."""
        sandbox = here.new_sandbox("s")
        assert f"{sandbox.netns_path} sysctl -w net.ipv6.conf.default.accept_ra=0\n" in host.render()

    def test_one_that_cannot_be_made_leaves_no_name_behind(self) -> None:
        store, host = MemoryStore(), Host()
        with Controller(
            store=store, kernel=Chaos(host, fail_at=0), surroundings=fake_surroundings()
        ) as controller:
            with pytest.raises(ApplyError, match="cannot create sandbox 's'"):
                controller.new_sandbox("s")
            assert dict(controller.sandboxes) == {}
            controller.new_sandbox("s")


class TestSettings:
    """What its files, its processes and its limits are made of."""

    def test_it_says_what_it_was_told(self, here: Controller) -> None:
        sandbox = here.new_sandbox(
            "s",
            domainname="lab.example",
            dns=["192.0.2.53"],
            dns_search=["lab.example"],
            dns_options=["ndots:2"],
            extra_hosts={"db": "192.0.2.7", "host": HOST_GATEWAY},
            stop_signal="SIGINT",
            limits={"pids": 10},
            cgroup_parent="jobs",
        )
        assert sandbox.domainname == "lab.example"
        assert sandbox.dns == (ip_address("192.0.2.53"),)
        assert (sandbox.dns_search, sandbox.dns_options) == (("lab.example",), ("ndots:2",))
        assert sandbox.extra_hosts == {"db": ip_address("192.0.2.7"), "host": "host-gateway"}
        assert (sandbox.stop_signal, sandbox.limits) == (signal.SIGINT, Limits(pids=10))
        assert sandbox.inspect()["cgroup_parent"] == "jobs"

    def test_its_group_has_its_name_and_its_limits(self, here: Controller, host: Host) -> None:
        sandbox = here.new_sandbox("s", limits={"pids": 10}, cgroup_parent="jobs")
        (group,) = (item for item in host.resources if isinstance(item, Cgroup))
        name = f"pynetwork-{sandbox.id[:12]}.{here._core.instance[:8]}"
        assert group == Cgroup(path=f"jobs/{name}", pids=10)
        assert (sandbox.cgroup, sandbox.cgroup_problem) == (Path("/sys/fs/cgroup/jobs", name), "")
        assert here.reconcile().is_clean
        sandbox.delete()
        assert host.resources == ()

    def test_where_there_are_no_groups_it_does_without_unless_it_needs_one(self, host: Host) -> None:
        around = fake_surroundings(cgroup_problem="they cannot be written")
        with Controller(store=MemoryStore(), kernel=host, surroundings=around) as controller:
            sandbox = controller.new_sandbox("s")
            assert (sandbox.cgroup, sandbox.cgroup_problem) == (None, "they cannot be written")
            for needs in ({"limits": {"pids": 10}}, {"cgroup_parent": "jobs"}):
                with pytest.raises(UnavailableError, match="cannot be limited: they cannot be written"):
                    controller.new_sandbox("t", **needs)
            assert list(controller.sandboxes) == ["s"]

    def test_its_files_are_made_when_first_asked_for_and_follow_its_endpoints(
        self, here: Controller, host: Host
    ) -> None:
        def texts() -> dict[str, str]:
            found = (item for item in host.resources if isinstance(item, File))
            return {item.path.rpartition("/")[2]: item.text for item in found}

        sandbox = here.new_sandbox("s", hostname="web", extra_hosts={"host": HOST_GATEWAY})
        network = here.new_network("bridge", "n", subnets=["10.88.0.0/24"], dns=["198.51.100.1"])
        network.create_endpoint("e").join(sandbox)
        assert texts() == {}
        assert sandbox.hosts_path.parent == sandbox.resolv_conf_path.parent == sandbox.hostname_path.parent
        assert texts()["hosts"].endswith("10.88.0.1\thost\n10.88.0.2\tweb\n")
        assert texts()["hostname"] == "web\n"
        assert texts()["resolv.conf"] == "nameserver 198.51.100.1\n"
        requests = here.statistics()["revision"]
        assert sandbox.hosts_path.name == "hosts"
        assert here.statistics()["revision"] == requests
        network.endpoints["e"].leave()
        assert "10.88.0" not in texts()["hosts"]
        assert texts()["resolv.conf"] == "nameserver 192.0.2.53\n"
        sandbox.delete()
        assert texts() == {}
        with pytest.raises(NotFoundError):
            sandbox.hosts_path  # noqa: B018 - looking is the test

    def test_it_is_told_nothing_by_default(self, here: Controller) -> None:
        sandbox = here.new_sandbox("s")
        assert (sandbox.domainname, sandbox.dns, sandbox.dns_search, sandbox.dns_options) == (
            None,
            (),
            (),
            (),
        )
        assert (sandbox.extra_hosts, sandbox.stop_signal, sandbox.limits) == ({}, signal.SIGTERM, None)

    def test_what_makes_no_sense_is_refused_before_anything_is_made(
        self, here: Controller, host: Host
    ) -> None:
        with pytest.raises(InvalidValueError, match="invalid signal"):
            here.new_sandbox("s", stop_signal="SIGNOTHING")
        assert dict(here.sandboxes) == {}
        assert host.resources == ()


class TestDelete:
    """The end of a sandbox."""

    def test_its_endpoints_leave_and_keep_what_is_theirs(self, here: Controller, host: Host) -> None:
        sandbox = here.new_sandbox("s")
        endpoints = [
            here.new_network("bridge", f"n{number}").create_endpoint("e", interface=name)
            for number, name in enumerate(("wan", None))
        ]
        for endpoint in endpoints:
            endpoint.join(sandbox)
        assert sandbox.endpoints == tuple(endpoints)
        kept = [(endpoint.addresses, endpoint.mac) for endpoint in endpoints]
        assert "ip link delete" in sandbox.plan_delete().render()
        assert sandbox.endpoints == tuple(endpoints)
        sandbox.delete()
        assert [(endpoint.addresses, endpoint.mac) for endpoint in endpoints] == kept
        assert [endpoint.interface for endpoint in endpoints] == ["wan", None]
        assert [endpoint.gateways for endpoint in endpoints] == [(), ()]
        kinds = {item.kind for item in host.resources}
        assert kinds == {"bridge", "address", "up", "sysctl", "link_sysctl", "ruleset", "network_rules"}

    def test_they_can_join_another_at_once(self, here: Controller) -> None:
        sandbox = here.new_sandbox("s")
        endpoint = here.new_network("bridge", "n").create_endpoint("e")
        endpoint.join(sandbox)
        sandbox.delete()
        again = here.new_sandbox("s")
        endpoint.join(again)
        assert (endpoint.sandbox, endpoint.interface) == (again, "eth0")
        assert again != sandbox
