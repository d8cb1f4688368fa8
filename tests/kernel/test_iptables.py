"""iptables in the kernel has the rules that it should, whoever else writes to it and whoever dies."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pynetwork.errors import InvalidValueError, PortTakenError, UnavailableError
from pynetwork.kernel.firewall import RulesRefusedError, choose_firewall, open_firewall
from pynetwork.kernel.iptables import IptablesFirewall, wire
from pynetwork.kernel.iptables.layout import chain_names, jumps, static_rules, user_chain
from pynetwork.kernel.iptables.rules import rules_of
from pynetwork.kernel.iptables.values import restore_text
from pynetwork.kernel.netns import Namespaces
from pynetwork.plan import Plan, Step, Verb, diff
from pynetwork.resources import (
    EndpointRules,
    NetworkRules,
    PublishedPort,
    Resource,
    Rules,
    Ruleset,
    SubnetRules,
)
from pynetwork.resources.stray import StrayRules
from pynetwork.testing import Child, private_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetwork.testing import HostNamespace, PrivateHost

pytestmark = pytest.mark.root

ID, OTHER = "0123abcd4567", "89abcdef0123"
OWNER = "endpoint 'web' of network 'n'"
MAC = "02:00:00:00:00:01"
NETWORK = NetworkRules(
    bridge="br0",
    subnets=(
        SubnetRules(subnet="10.88.0.0/24", source="masquerade"),
        SubnetRules(subnet="fd88::/64", mode="routed", source="2001:db8::1"),
    ),
)
GUARD = EndpointRules(link="veth0", mac=MAC, addresses=("10.88.0.2", "fd88::2"), bridge="br0")


def port(first: int, last: int = 0, **fields: object) -> PublishedPort:
    known = {
        "proto": "tcp",
        "target": "10.88.0.2",
        "target_first": first,
        "owner": "endpoint 'web' of network 'n'",
    }
    return PublishedPort(first=first, last=last or first, **{**known, **fields})  # type: ignore[arg-type]  # of a port


PLAN = Plan((Ruleset(), NETWORK, GUARD, port(8080, target_first=80), port(53, proto="udp", target="fd88::2")))


@contextmanager
def firewall(instance: str = ID) -> Iterator[IptablesFirewall]:
    namespaces = Namespaces()
    made = IptablesFirewall(instance, namespaces.home)
    try:
        yield made
    finally:
        made.close()
        namespaces.close()


def saved(host: PrivateHost, version: int) -> list[str]:
    """Return the rules and chains of the host, without counters, policies and the order of tables."""
    text = host.run([f"{'ip6' if version == 6 else 'ip'}tables-legacy-save"]).stdout
    found = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A") or (line.startswith(":") and " - " in line):
            found.append(f"{table} {line.partition(' [')[0] if line.startswith(':') else line}")
    return sorted(line for line in found if " :" in line) + [line for line in found if " :" not in line]


def everything(host: PrivateHost) -> list[str]:
    return [*saved(host, 4), *saved(host, 6)]


def create(made: IptablesFirewall, *resources: Resource, replay: bool = False) -> None:
    made.apply(diff(Plan(), Plan(resources)), replay=replay)


def delete(made: IptablesFirewall, *resources: Resource, replay: bool = False) -> None:
    made.apply([Step(Verb.DELETE, resource) for resource in resources], replay=replay)


def variety() -> list[Rules]:
    """Return resources with every option."""
    found: list[Rules] = []
    modes = ("nat", "nat-unprotected", "routed", "isolated")
    options = itertools.product(modes, (None, "masquerade", "address"), (False, True), ((), ("eth1",)))
    for number, (mode, source, flag, trusted) in enumerate(options):
        addresses = {4: f"10.{number}.0.0/16", 6: f"fd00:{number:x}::/64"}
        sources = {4: "192.0.2.1", 6: "2001:db8::1"}
        found.append(
            NetworkRules(
                bridge=f"br{number}",
                internal=flag and number % 3 == 0,
                icc=not flag,
                is_open=flag,
                trusted=trusted,
                subnets=tuple(
                    SubnetRules(
                        subnet=addresses[v], mode=mode, source=sources[v] if source == "address" else source
                    )
                    for v in (4, 6)
                ),
            )
        )
    found.append(GUARD)
    start = 1000
    for proto, target, is_at, nat in itertools.product(
        ("tcp", "udp", "sctp"), ("10.88.0.2", "fd88::2"), (False, True), (False, True)
    ):
        host = {False: None, True: "2001:db8::1" if ":" in target else "192.0.2.1"}[is_at]
        for last, shift in ((0, 0), (0, 1), (9, 0), (9, 5)):
            found.append(
                port(
                    start,
                    start + last,
                    target_first=start - shift,
                    proto=proto,
                    target=target,
                    host=host,
                    nat=nat,
                )
            )
            start += 20
    return found


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_has_what_iptables_makes_of_the_lines(version: int) -> None:
    resources = variety()
    chains = chain_names(ID)
    built_in = {"raw": 0, "filter": 0, "nat": 0}
    text = restore_text(
        [
            [*static_rules(ID, version), *jumps(ID, version)],
            *(rules_of(resource, ID, version) for resource in resources),
        ],
        {table: chains[table] for table in built_in},
    )
    program = f"{'ip6' if version == 6 else 'ip'}tables-legacy-restore"
    with private_host() as host:
        subprocess.run([program], input=text, text=True, check=True)
        expected = saved(host, version)
    with private_host() as host, firewall() as made:
        create(made, Ruleset(), *resources)
        assert sorted(saved(host, version)) == sorted(expected)
        assert [line for line in text.splitlines() if line.startswith("-A")] != []
        assert {line for line in text.splitlines() if line.startswith("-A")} == {
            line.partition(" ")[2] for line in expected if " -A " in line
        }
        for table, names in chains.items():
            for chain in names:
                start = f"{table} -A {chain} "
                assert [x for x in saved(host, version) if x.startswith(start)] == [
                    x for x in expected if x.startswith(start)
                ]
        assert made.observe(Plan((Ruleset(), *resources))) == Plan((Ruleset(), *resources))


def test_what_was_made_is_observed_and_when_deleted_is_gone() -> None:
    with private_host() as host, firewall() as made:
        before = everything(host)
        assert made.observe(PLAN) == Plan()
        made.apply(diff(Plan(), PLAN))
        assert made.observe(PLAN) == PLAN
        assert made.missing() == ()
        assert made.observe(Plan()) == Plan((Ruleset(),))
        made.apply(diff(PLAN, Plan()))
        assert everything(host) == before == []
        assert made.observe(Plan()) == Plan()


def test_each_resource_goes_alone_and_leaves_what_was_there_before() -> None:
    with private_host() as host, firewall() as made:
        create(made, Ruleset())
        for resource in PLAN[1:]:
            before = everything(host)
            create(made, resource)
            assert everything(host) != before
            delete(made, resource)
            assert everything(host) == before


def test_a_change_is_what_making_it_anew_would_be() -> None:
    changed = NetworkRules(bridge="br0", internal=True, subnets=NETWORK.subnets[:1])
    with private_host() as host, firewall() as made:
        create(made, Ruleset(), changed)
        expected = everything(host)
        made.apply(diff(Plan((changed,)), Plan((NETWORK,))))
        assert made.observe(Plan((Ruleset(), NETWORK))) == Plan((Ruleset(), NETWORK))
        made.apply(diff(Plan((NETWORK,)), Plan((changed,))))
        assert everything(host) == expected


def test_steps_may_be_taken_again() -> None:
    with private_host() as host, firewall() as made:
        for replay in (False, True, True):
            create(made, *PLAN, replay=replay)
            assert made.observe(PLAN) == PLAN
        for _ in range(2):
            delete(made, *reversed(PLAN), replay=True)
            assert everything(host) == []


def test_another_process_sees_the_same() -> None:
    with private_host(), firewall() as made:
        create(made, *PLAN)
        with firewall() as again:
            assert again.observe(PLAN) == PLAN


def rule_in(host: PrivateHost, table: str, text: str) -> list[str]:
    """Return the words after ``-D`` that delete the first rule of a table with *text* in it."""
    lines = host.run(["iptables-legacy", "-t", table, "-S"]).stdout.splitlines()
    chain = next(line for line in lines if line.startswith("-A") and text in line).split()[1]
    listed = [line for line in lines if line.startswith(f"-A {chain} ")]
    return [chain, str(1 + next(n for n, line in enumerate(listed) if text in line))]


@pytest.mark.parametrize(
    ("table", "text", "lost"),
    [
        ("nat", "port 4 tcp", {3}),
        ("raw", "--mac-source", {2}),
        ("nat", "network_rules br0", {1}),
        ("filter", "-A FORWARD", {0}),
    ],
)
def test_what_lacks_a_rule_is_not_there_and_is_made_again(table: str, text: str, lost: set[int]) -> None:
    with private_host() as host, firewall() as made:
        create(made, *PLAN)
        whole = everything(host)
        host.run(["iptables-legacy", "-t", table, "-D", *rule_in(host, table, text)])
        found = made.observe(PLAN)
        assert found == Plan(item for number, item in enumerate(PLAN) if number not in lost)
        made.apply(diff(found, PLAN))
        assert made.observe(PLAN) == PLAN
        assert sorted(everything(host)) == sorted(whole)


def test_when_the_skeleton_is_broken_nothing_counts_and_all_is_made_again() -> None:
    with private_host() as host, firewall() as made:
        create(made, *PLAN)
        whole = everything(host)
        host.run(["iptables-legacy", "-F"])
        assert any("PYNETWORK-TO" in text for text in made.missing())
        assert any("jump from FORWARD" in text for text in made.missing())
        assert made.observe(PLAN) == Plan()
        made.apply(diff(Plan(), PLAN))
        assert everything(host) == whole


def test_what_no_record_knows_is_found_and_deleted() -> None:
    with private_host() as host, firewall() as made:
        create(made, Ruleset(), NETWORK)
        before = everything(host)
        create(made, port(80), port(53, proto="udp", target="fd88::2"))
        known = Plan((Ruleset(), NETWORK))
        found = made.observe(known)
        assert [item.key for item in found if isinstance(item, StrayRules)] == [
            ("stray_rules", "4", "pynetwork-0123abcd port 4 tcp * 80-80"),
            ("stray_rules", "6", "pynetwork-0123abcd port 6 udp * 53-53"),
        ]
        stray = found[-2]
        host.run(["sh", "-c", *stray.render_delete()])
        assert made.observe(known) == Plan(item for item in found if item != stray)
        made.apply(diff(made.observe(known), known))
        assert everything(host) == before


def test_rules_of_others_are_left_alone() -> None:
    with private_host() as host, firewall() as made, firewall(OTHER) as other:
        for table, chain in (("filter", "FORWARD"), ("nat", "POSTROUTING"), ("raw", "PREROUTING")):
            host.run(["iptables-legacy", "-t", table, "-A", chain, "-s", "192.0.2.7", "-j", "ACCEPT"])
        host.run(["iptables-legacy", "-P", "FORWARD", "DROP"])
        create(other, Ruleset(), NETWORK)
        before = everything(host)
        create(made, *PLAN)
        made.remove()
        assert everything(host) == before
        assert other.observe(Plan((Ruleset(), NETWORK))) == Plan((Ruleset(), NETWORK))
        assert "-P FORWARD DROP" in host.run(["iptables-legacy", "-S", "FORWARD"]).stdout


def test_the_users_chain_is_never_flushed_and_stays_as_long_as_it_has_rules() -> None:
    chain = user_chain(ID)
    rule = f"filter -A {chain} -s 192.0.2.7/32 -j DROP"
    with private_host() as host, firewall() as made:
        create(made, *PLAN)
        host.run(["iptables-legacy", "-A", chain, "-s", "192.0.2.7", "-j", "DROP"])
        assert made.observe(PLAN) == PLAN
        made.apply(diff(PLAN, Plan()))
        assert everything(host) == [f"filter :{chain} -", rule]
        assert made.observe(Plan()) == Plan()
        create(made, *PLAN)
        assert rule in everything(host)
        assert made.observe(PLAN) == PLAN
        host.run(["iptables-legacy", "-F", chain])
        made.remove()
        assert everything(host) == []


# Conflicts


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (port(80), port(80, target="10.88.0.9"), 80),
        (port(80), port(70, 90, target_first=1), 80),
        (port(70, 90), port(85, 99), 85),
        (port(80, host="192.0.2.1"), port(80), 80),
        (port(80), port(80, host="192.0.2.1"), 80),
        (port(80, target="fd88::2"), port(80, target="fd88::3"), 80),
    ],
)
def test_a_port_that_any_instance_has_published_is_taken(
    first: PublishedPort, second: PublishedPort, taken: int
) -> None:
    with private_host() as host, firewall() as made, firewall(OTHER) as other:
        create(made, Ruleset(), first)
        create(other, Ruleset())
        for who, replay in ((made, False), (other, False), (other, True)):
            before = everything(host)
            with pytest.raises(RulesRefusedError) as refused:
                create(who, NETWORK, second, replay=replay)
            assert refused.value.number == 1
            error = refused.value.__cause__
            assert isinstance(error, PortTakenError)
            assert (error.proto, error.port) == ("tcp", taken)
            assert "by endpoint 'web' of network 'n'" in str(error)
            assert everything(host) == before
        delete(made, first)
        create(other, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (port(80), port(80, proto="udp")),
        (port(80), port(80, target="fd88::2")),
        (port(80, host="192.0.2.1"), port(80, host="192.0.2.2")),
        (port(70, 79), port(80, 89)),
        (port(80, nat=False), port(80)),
    ],
)
def test_ports_that_do_not_meet_are_free(first: PublishedPort, second: PublishedPort) -> None:
    with private_host(), firewall() as made, firewall(OTHER) as other:
        create(made, Ruleset(), first)
        create(other, Ruleset(), second)


def test_what_is_refused_for_ipv6_is_undone_for_ipv4() -> None:
    with private_host() as host, firewall() as made, firewall(OTHER) as other:
        create(other, Ruleset(), port(80, target="fd88::2"))
        before = everything(host)
        with pytest.raises(RulesRefusedError) as refused:
            create(made, Ruleset(), NETWORK, port(80), port(80, target="fd88::2"))
        assert refused.value.number == 3
        assert everything(host) == before
        create(made, Ruleset(), NETWORK)
        before = everything(host)
        changed = NetworkRules(bridge="br0", internal=True)
        steps = [Step(Verb.UPDATE, changed, NETWORK), Step(Verb.CREATE, port(80, target="fd88::2"))]
        with pytest.raises(RulesRefusedError):
            made.apply(steps)
        assert everything(host) == before


def test_what_the_kernel_refuses_changes_nothing_and_names_the_step() -> None:
    with private_host() as host, firewall() as made:
        create(made, Ruleset())
        before = everything(host)
        with pytest.raises(RulesRefusedError) as refused:
            create(made, NETWORK, NetworkRules(bridge="br+"))
        assert refused.value.number == 1
        assert isinstance(refused.value.__cause__, InvalidValueError)
        with pytest.raises(RulesRefusedError) as refused:
            create(made, NETWORK, port(80, proto="nonsense"))
        assert refused.value.number == 1
        assert "python-iptables cannot make a rule" in str(refused.value.__cause__)
        assert everything(host) == before


def test_without_its_chain_a_rule_is_refused() -> None:
    with private_host(), firewall() as made:
        with pytest.raises(RulesRefusedError) as refused:
            create(made, port(80))
        assert "is gone" in str(refused.value.__cause__)
        delete(made, port(80))


# Processes


def publish(instance: str, start: str) -> None:
    from pynetwork.kernel.iptables import IptablesFirewall
    from pynetwork.kernel.netns import Namespaces
    from pynetwork.plan import Plan, diff
    from pynetwork.resources import PublishedPort, Ruleset
    from pynetwork.testing import reach

    namespaces = Namespaces()
    made = IptablesFirewall(instance, namespaces.home)
    made.apply(diff(Plan(), Plan((Ruleset(),))))
    reach("ready")
    for number in range(int(start), int(start) + 100):
        new = PublishedPort(proto="tcp", first=number, last=number, target="10.88.0.2", target_first=number)
        made.apply(diff(Plan(), Plan((new,))))
    reach("done")


def test_two_processes_at_once_lose_nothing() -> None:
    with private_host() as host, Child(publish, ID, "1000") as one, Child(publish, OTHER, "2000") as two:
        for child in (one, two):
            child.wait_for("ready")
        for child in (one, two):
            child.proceed()
        for child in (one, two):
            child.wait_for("done")
        rules = [line for line in saved(host, 4) if "--dport" in line and "DNAT" in line]
        assert len(rules) == 200
        for instance, child in ((ID, one), (OTHER, two)):
            child.kill()
            with firewall(instance) as made:
                made.remove()
        assert everything(host) == []


def workers_of(pid: int) -> set[int]:
    """Return the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def until(test: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_workers_end_when_their_parent_is_killed() -> None:
    with private_host(), Child(publish, ID, "1000") as child:
        child.wait_for("ready")
        workers = workers_of(child.pid)
        assert len(workers) == 2
        child.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        with firewall() as made:
            made.remove()


def test_workers_are_started_when_needed_and_leave_no_zombie() -> None:
    with private_host():
        before = workers_of(os.getpid())
        with firewall() as made:
            assert workers_of(os.getpid()) == before
            create(made, Ruleset())
            assert len(workers_of(os.getpid()) - before) == 2
            made.close()
            assert workers_of(os.getpid()) == before
            made.remove()
            made.close()
        assert workers_of(os.getpid()) == before


def test_a_worker_that_was_killed_is_replaced() -> None:
    with private_host(), firewall() as made:
        create(made, Ruleset())
        for worker in made._workers.values():
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        create(made, *PLAN[1:])
        assert made.observe(PLAN) == PLAN
        made.remove()


# Takes the place of python-iptables, is it, and dies with the commit of that number.
DYING = """
import os, sys
sys.path.remove(os.path.dirname(__file__))
del sys.modules["iptc"]
import iptc
commits = []

class Table6(iptc.Table6):
    def commit(self):
        commits.append(self.name)
        if len(commits) == {at}:
            if {after}:
                super().commit()
            os._exit(1)
        super().commit()

iptc.Table6 = Table6
"""


@pytest.mark.parametrize("at", [4, 5, 6])
@pytest.mark.parametrize("after", [False, True])
def test_a_worker_that_dies_half_way_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: int, after: bool
) -> None:
    instead(monkeypatch, tmp_path, DYING.format(at=at, after=after))
    with private_host() as host, firewall() as made:
        create(made, Ruleset())  # three commits
        before = everything(host)
        with pytest.raises(RulesRefusedError) as refused:
            create(made, *PLAN[1:])
        assert "worker ended with status 1" in str(refused.value.__cause__)
        assert everything(host) == before
        (tmp_path / "iptc.py").unlink()
        made.close()
        create(made, *PLAN[1:])
        assert made.observe(PLAN) == PLAN
        made.apply(diff(PLAN, Plan()))
        assert everything(host) == []


def test_what_was_told_and_not_done_is_undone_without_harm() -> None:
    with private_host() as host, firewall() as made:
        create(made, *PLAN)
        before = everything(host)
        told: list[tuple[int, wire.Message]] = []
        for version, worker in made._workers.items():
            request = {"do": "apply", "instance": ID[:8], "tables": {"nat": [made._end("nat")]}}
            worker.ask(request, lambda message, version=version: told.append((version, message)))  # type: ignore[misc]
        assert len(everything(host)) < len(before)
        for _ in range(2):
            for version, message in told:
                undo = {"do": "undo", "instance": ID[:8], "table": "nat", "undo": message["undo"]}
                assert "done" in made._workers[version].ask(undo)
            assert sorted(everything(host)) == sorted(before)
        assert made.observe(PLAN) == PLAN


@pytest.mark.parametrize("junk", [b"junk", b"\0\0\0\4junk", b"\0\0\0\2[]", b"\xff" * 64])
def test_a_worker_ends_when_it_is_told_nonsense(junk: bytes) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pynetwork.kernel.iptables.worker",
        "4",
        str(os.getpid()),
    ]
    with private_host():
        done = subprocess.run(command, input=junk, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "request_", [{}, {"do": "x"}, {"do": "apply"}, {"do": "undo", "table": "nonsense", "undo": 7}]
)
def test_a_worker_survives_a_request_that_makes_no_sense(request_: wire.Message) -> None:
    with private_host(), firewall() as made:
        worker = made._workers[4]
        pid = worker.pid
        assert "error" in worker.ask(request_)
        assert pid in {None, worker.pid}
        assert made.observe(PLAN) == Plan()


# What is missing


def instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Let workers find another module iptc."""
    (tmp_path / "iptc.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ModuleNotFoundError('No module named iptc')", "pip install 'pynetwork.iptables.'"),
        ("raise OSError('no libxtables')", "apt-get install iptables"),
        ("import os, sys; sys.stderr.write('libxt: already registered'); os._exit(1)", "already registered"),
    ],
)
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, says: str
) -> None:
    instead(monkeypatch, tmp_path, code)
    before = workers_of(os.getpid())
    with private_host(), firewall() as made:
        for _ in range(2):
            with pytest.raises(UnavailableError, match=says):
                create(made, Ruleset())
        with pytest.raises(UnavailableError, match=says):
            made.observe(PLAN)
        assert workers_of(os.getpid()) == before


def test_a_table_that_the_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
    class IPTCError(Exception): pass
    def Table(name, autocommit):
        raise IPTCError("can't initialize nat: b'Table does not exist (do you need to insmod?)'")
    Table6, Rule, Rule6 = Table, None, None
    """
    instead(monkeypatch, tmp_path, re.sub(r"(?m)^    ", "", code))
    says = r"table nat cannot be read: .*do you need to insmod"
    with private_host(), firewall() as made, pytest.raises(UnavailableError, match=says):
        made.remove()


def test_a_host_without_nft_has_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    with private_host() as host:
        assert choose_firewall() == "nftables"
        host.run(["mount", "--bind", "/dev/null", shutil.which("nft") or "/usr/sbin/nft"])
        assert choose_firewall() == "iptables"
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [])
            with pytest.raises(UnavailableError, match="apt-get install nftables"):
                choose_firewall()
        namespaces = Namespaces()
        try:
            made = open_firewall("auto", ID, namespaces.home)
            assert made.name == "iptables"
            made.close()
        finally:
            namespaces.close()


# Packets


@contextmanager
def container(host: PrivateHost) -> Iterator[HostNamespace]:
    """Make a bridge with a container of GUARD's addresses on it; the cable is a port of the bridge."""
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    host.run(["ip", "address", "add", "10.88.0.1/24", "dev", "br0"])
    host.run(["ip", "link", "set", "br0", "up"])
    for setting in ("ip_forward", "conf/br0/route_localnet"):
        host.run(["sysctl", "-qw", f"net.ipv4.{setting.replace('/', '.')}=1"])
    try:
        inside = host.add_machine("c1", address="10.88.0.2/24", host_address="10.99.99.1/32")
        host.run(["ip", "address", "flush", "dev", "c1"])
        host.run(["ip", "link", "set", "c1", "master", "br0"])
        inside.run(["ip", "link", "set", "eth0", "address", MAC])
        inside.run(["ip", "route", "add", "default", "via", "10.88.0.1"])
        yield inside
    finally:
        host.run(["ip", "link", "delete", "br0"])


SERVER = """
import socket, sys
server = socket.create_server(("10.88.0.2", int(sys.argv[1])))
print("up", flush=True)
while True:
    peer, address = server.accept()
    peer.sendall(address[0].encode())
    peer.close()
"""
CLIENT = """
import socket, sys
peer = socket.socket()
if len(sys.argv) > 3:
    peer.bind((sys.argv[3], 0))
peer.settimeout(1.0)
try:
    peer.connect((sys.argv[1], int(sys.argv[2])))
    print(peer.recv(99).decode())
except OSError as error:
    print("no")
"""


def ask(machine: HostNamespace | PrivateHost, address: str, number: int, *source: str) -> str:
    return machine.run([sys.executable, "-c", CLIENT, address, str(number), *source]).stdout.strip()


@contextmanager
def serving(inside: HostNamespace, number: int) -> Iterator[None]:
    command = ["ip", "netns", "exec", inside.name, sys.executable, "-c", SERVER, str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        try:
            yield
        finally:
            process.kill()


def test_a_published_range_is_reached_and_nothing_else_is() -> None:
    with private_host() as host, container(host) as inside, firewall() as made, serving(inside, 82):
        lan = host.add_machine("lan", address="192.0.2.2/24", host_address="192.0.2.1/24")
        lan.run(["ip", "route", "add", "10.88.0.0/24", "via", "192.0.2.1"])
        assert ask(lan, "10.88.0.2", 82) == "192.0.2.2"
        create(made, Ruleset(), NETWORK, GUARD, port(8080, 8089, target_first=80))
        assert ask(lan, "192.0.2.1", 8082) == "192.0.2.2"
        assert ask(lan, "10.88.0.2", 82) == "no"
        assert ask(host, "192.0.2.1", 8082) == "192.0.2.1"
        assert ask(host, "127.0.0.1", 8082) == "10.88.0.1"
        assert ask(host, "10.88.0.2", 82) == "10.88.0.1"
        host.run(["bridge", "link", "set", "dev", "c1", "hairpin", "on"])  # bridge-nf may be on
        assert ask(inside, "192.0.2.1", 8082) == "10.88.0.1"
        delete(made, port(8080, 8089, target_first=80))
        assert ask(lan, "192.0.2.1", 8082) == "no"
        made.remove()


def test_an_endpoint_leaves_masqueraded_and_cannot_pretend_to_be_another() -> None:
    with private_host() as host, container(host) as inside, firewall() as made:
        lan = host.add_machine("lan", address="192.0.2.2/24", host_address="192.0.2.1/24")
        create(made, Ruleset(), NETWORK, GUARD)
        assert "1 received" in inside.run(["ping", "-c1", "-W2", "192.0.2.2"]).stdout
        inside.run(["ip", "address", "add", "10.88.0.77/24", "dev", "eth0"])
        inside.run(["ip", "address", "add", "198.51.100.1/32", "dev", "eth0"])
        for source in ("10.88.0.77", "198.51.100.1"):
            lan.run(["ip", "route", "replace", source, "via", "192.0.2.1"])
            assert (
                "0 received"
                in inside.run(["ping", "-c1", "-W1", "-I", source, "192.0.2.2"], check=False).stdout
            )
        assert "1 received" in inside.run(["ping", "-c1", "-W2", "-I", "10.88.0.2", "192.0.2.2"]).stdout
        made.remove()
