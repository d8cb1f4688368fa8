"""How fast names are answered: pynetwork beside aardvark-dns and dnsmasq, in one run.

A C program (``dnsload.c``) asks from inside sandboxes, with a number of questions under way at any time: a
name of a sandbox, and a name that all three forward to the same dnsmasq on another machine. pynetwork answers
on the sandboxes' loopback, as its users get it, in a process that does nothing else meanwhile; the others
answer on an address of the bridge, as they do for podman and for libvirt. Nobody caches what is forwarded.
The contestants take turns for each figure; read the ratios. Needs root, gcc and dnsmasq; aardvark-dns is left
out if it is not installed.

    python -m benchmarks.dns                    # the tables
    python -m benchmarks.dns --rounds 3 --memory 0 --json FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for ``python benchmarks/dns.py``

from benchmarks.measure import machine, print_table, python

import pynetwork
from pynetwork.kernel import syscalls
from pynetwork.testing import private_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pynetwork.testing import PrivateHost

UPSTREAM = "192.0.2.2"
LOCAL, FORWARDED = "e7", "www.example.test"
SERVERS = {"pynetwork": "127.0.0.11", "aardvark-dns": "10.88.255.253", "dnsmasq": "10.88.255.254"}
AARDVARK = ("/usr/lib/podman/aardvark-dns", "/usr/libexec/podman/aardvark-dns")
OPEN = (1, 32)


class Rate(NamedTuple):
    """What one run of the client found; times in microseconds."""

    per_second: float
    median: float
    p99: float
    lost: int
    wrong: int


def compile_client(directory: Path) -> Path:
    program = directory / "dnsload"
    source = Path(__file__).with_name("dnsload.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
    return program


class Lab:
    """
    A private host with sandboxes, a machine with the server that others forward to, and the contestants.

    Args:
        host: The host.
        directory: For files.
        count: Of sandboxes.
    """

    def __init__(self, host: PrivateHost, directory: Path, count: int, stack: contextlib.ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        conf = directory / "resolv.conf"
        conf.write_text(f"nameserver {UPSTREAM}\n")
        syscalls.mount(str(conf), "/etc/resolv.conf", "none", syscalls.MS_BIND)
        stack.callback(syscalls.umount, "/etc/resolv.conf")
        upstream = host.add_machine("lan", address=f"{UPSTREAM}/24", host_address="192.0.2.1/24")
        serving = f"--listen-address={UPSTREAM}", "--no-resolv", "--address=/example.test/192.0.2.80"
        self._keep(upstream.start(["dnsmasq", "-k", "--user=root", "--pid-file=", *serving]))
        controller = pynetwork.Controller(directory / "state", run_dir=Path("/run/bench-dns"))
        stack.callback(controller.erase)
        network = controller.new_network(
            "bridge", "bench", subnets=["10.88.0.0/16"], options={"bridge": "bench"}
        )
        self.paths: list[str] = []
        self.hosts: dict[str, str] = {}
        for number in range(count):
            endpoint, sandbox = network.create_endpoint(f"e{number}"), controller.new_sandbox(f"s{number}")
            endpoint.join(sandbox)
            sandbox.run(["true"])
            self.paths.append(str(sandbox.netns_path))
            self.hosts[endpoint.name] = str(endpoint.addresses[0].ip)
        for address in list(SERVERS.values())[1:]:
            host.run(["ip", "address", "add", f"{address}/32", "dev", "bench"])

    def start_dnsmasq(self) -> None:
        hosts = self._directory / "hosts"
        hosts.write_text("".join(f"{address} {name}\n" for name, address in self.hosts.items()))
        where = f"--listen-address={SERVERS['dnsmasq']}", "--bind-interfaces", f"--server={UPSTREAM}"
        what = (
            f"--addn-hosts={hosts}",
            "--no-hosts",
            "--no-resolv",
            "--cache-size=0",
            "--dns-forward-max=10000",
        )
        self._keep(subprocess.Popen(["dnsmasq", "-k", "--user=root", "--pid-file=", *where, *what]))

    def start_aardvark(self, program: str) -> None:
        directory = self._directory / "aardvark"
        directory.mkdir()
        lines = [SERVERS["aardvark-dns"]]
        lines += [
            f"{number:064x} {address}  {name}" for number, (name, address) in enumerate(self.hosts.items())
        ]
        (directory / "bench").write_text("\n".join(lines) + "\n")
        subprocess.run([program, "--config", directory, "-p", "53", "run"], check=True)  # it detaches
        self._stack.callback(self._stop, directory / "aardvark.pid")

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        def end() -> None:
            process.kill()
            process.wait()

        self._stack.callback(end)

    @staticmethod
    def _stop(pid_file: Path) -> None:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}/fd").exists() and any(Path(f"/proc/{pid}/fd").iterdir()):
            time.sleep(0.01)


def ask(client: Sequence[str], open_: int, server: str, name: str, paths: Sequence[str]) -> Rate:
    argv = [*client, str(open_), server, name, "--", *paths]
    answers, took, median, p99, _, lost, wrong = subprocess.run(
        argv, check=True, capture_output=True, text=True
    ).stdout.split()
    return Rate(int(answers) / float(took), float(median), float(p99), int(lost), int(wrong))


@contextlib.contextmanager
def lab(directory: Path, count: int) -> Iterator[tuple[Lab, list[str]]]:
    """Yield a lab and the names of the contestants that can run here."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(private_host((*_PRIVATE, "/run/bench-dns")))
        made = Lab(host, directory, count, stack)
        names = ["pynetwork"]
        if shutil.which("dnsmasq"):
            made.start_dnsmasq()
            names.append("dnsmasq")
        program = next((path for path in AARDVARK if Path(path).exists()), shutil.which("aardvark-dns"))
        if program is None:
            print("aardvark-dns is left out: it is not installed")
        else:
            made.start_aardvark(program)
            names.append("aardvark-dns")
        time.sleep(1)  # until all listen
        yield made, names


_PRIVATE = ("/run/pynetwork", "/var/lib/pynetwork", "/run/netns")


def rates(client: Sequence[str], place: Lab, names: Sequence[str], rounds: int) -> dict[str, dict[str, Rate]]:
    """
    Return what each contestant reaches, by question, sandboxes that ask, and questions under way.

    The best of some rounds, in which they take turns: a busy machine is busy now and then.
    """
    found: dict[str, dict[str, Rate]] = {}
    for name, paths, open_ in product((LOCAL, FORWARDED), (place.paths[:1], place.paths), OPEN):
        key = f"{'local' if name == LOCAL else 'forwarded'}, {len(paths)} sandboxes, {open_} open"
        samples: dict[str, list[Rate]] = {who: [] for who in names}
        for _ in range(rounds):
            for who in names:
                samples[who].append(ask(client, open_, SERVERS[who], name, paths))
        found[key] = {who: max(tried) for who, tried in samples.items()}
    return found


def memory(count: int) -> dict[str, float]:
    """Return how many MB a process grows by for *count* sandboxes, with the name server and without."""
    found = {}
    for mode in ("off", "here"):
        argv = [
            "unshare",
            "--net",
            "--mount",
            "--propagation",
            "private",
            *python("-c", _GROW, mode, str(count)),
        ]
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=root)
        found[mode] = float(done.stdout)
    return found


_GROW = """
import os, subprocess, sys, tempfile
from pathlib import Path
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
import pynetwork
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
with tempfile.TemporaryDirectory() as directory:
    controller = pynetwork.Controller(directory, dns=sys.argv[1])
    network = controller.new_network("bridge", "bench", subnets=["10.88.0.0/16"])
    def wire(number):
        endpoint, sandbox = network.create_endpoint(f"e{number}"), controller.new_sandbox(f"s{number}")
        endpoint.join(sandbox)
        if controller._core.dns is not None:
            controller._core.dns.ensure(sandbox.id)
    wire(0)
    before = rss()
    for number in range(1, int(sys.argv[2])):
        wire(number)
    print(rss() - before)
    controller.erase()
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement (0.5)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements, the best of which counts (5)")
    parser.add_argument("--sandboxes", type=int, default=100, help="that ask (100)")
    parser.add_argument("--memory", type=int, default=1000, metavar="N", help="growth for N sandboxes (1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("The benchmark makes network namespaces: run it as root.")
    print_table("Machine", ("", ""), list(machine().items()))
    with tempfile.TemporaryDirectory(prefix="pynetwork-benchmark-") as directory:
        client = compile_client(Path(directory))
        with lab(Path(directory), options.sandboxes) as (place, names):
            found = rates([str(client), str(options.seconds)], place, names, options.rounds)
    for key, by_name in found.items():
        print_table(
            f"Names: {key}",
            ("contestant", "per second", "median us", "p99 us", "lost", "wrong"),
            [(name, *rate) for name, rate in by_name.items()],
        )
    results: dict[str, object] = {
        "machine": machine(),
        "dns": {key: {name: rate._asdict() for name, rate in each.items()} for key, each in found.items()},
    }
    if options.memory:
        results["memory"] = grown = memory(options.memory)
        print_table(
            f"A process with {options.memory} sandboxes grows by (MB)",
            ("", "MB"),
            [("without a name server", grown["off"]), ("with it", grown["here"])],
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
