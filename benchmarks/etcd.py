"""What the store of a cluster costs: writes, reads, watches, numbers that several hosts take, and failures.

Run: ``python -m benchmarks.etcd [--members 1,3] [--disk DIRECTORY]`` (root: the members are on a private
host). By default their data is in memory, so that the figures are those of the program and not of the
disk; with *--disk* each write waits for the disk, as in earnest. Figures are milliseconds. The floor of a
write is what ``etcdctl`` would send and nothing else: one put, over a connection that stays open, with
the standard library's HTTP client, measured alternately with the store.

Clients that take numbers are processes of their own. Each begins at a place of its own in a pool of
65536, and takes what nobody else has: create if absent.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from benchmarks.measure import ROOT, percentile, print_table, python

from pynetwork.store import Absent, EtcdStore, Put
from pynetwork.testing.cluster import EtcdMember, etcd_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetwork.testing.cluster import EtcdCluster

ROUNDS = 500
EXISTING = 2000  # keys in the store before the clock starts
VALUE = "x" * 300  # an endpoint's record is about that long
CLIENTS = 3
KEYS = 300
POOL = 65536
FAILING_SECONDS = 3.0
_HEADERS = ("", "p50", "p99", "worst")


def bare_put(endpoint: str) -> tuple[http.client.HTTPConnection, Callable[[], object]]:
    """Return a connection, and a call that puts one key over it."""
    place = urlsplit(endpoint)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    value = base64.b64encode(VALUE.encode()).decode()

    def put() -> None:
        key = base64.b64encode(f"/bare/{random.randrange(EXISTING)}".encode()).decode()  # noqa: S311 - no secret
        connection.request("POST", "/v3/kv/put", json.dumps({"key": key, "value": value}))
        connection.getresponse().read()

    return connection, put


def timed(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the milliseconds of each of `ROUNDS` calls, all called in turn."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            call()
            samples[name].append((time.perf_counter_ns() - start) / 1e6)
    return samples


def row(name: str, samples: Sequence[float]) -> tuple[str, float, float, float]:
    return name, percentile(samples, 50), percentile(samples, 99), max(samples)


def measure_calls(cluster: EtcdCluster) -> None:
    """Print what one thread waits for."""
    connection, put = bare_put(cluster.endpoints[0])
    with closing(connection), EtcdStore(cluster.endpoints, prefix="/calls") as store:
        for start in range(0, EXISTING, 100):
            store.transact([], [Put(f"eps/{n}", VALUE) for n in range(start, start + 100)])
        numbers = iter(range(EXISTING, 1 << 30))

        def create() -> None:
            key = f"eps/{next(numbers)}"
            store.transact([Absent(key)], [Put(key, VALUE)])

        def endpoint() -> None:
            number = next(numbers)
            keys = [f"{kind}/{number}" for kind in ("held", "ends", "ipam", "macs", "eps")]
            store.transact([Absent(key) for key in keys], [Put(key, VALUE) for key in keys])

        lease = store.grant(60)
        samples = timed(
            {
                "bare put": put,
                "transact, 1 key, create if absent": create,
                "transact, 5 keys, create if absent": endpoint,
                "get": lambda: store.get("eps/7"),
                "keep_alive": lambda: store.keep_alive(lease),
            }
        )
        print_table(
            f"one thread, {len(cluster.members)} member(s), milliseconds",
            _HEADERS,
            [row(name, each) for name, each in samples.items()],
        )
        begin = time.perf_counter()
        entries = len(store.list("").entries)
        print(f"  list of {entries} keys: {(time.perf_counter() - begin) * 1000:.1f}")


def measure_watch(cluster: EtcdCluster) -> None:
    """Print how long after a write began, and after it ended, a watch of another store tells of it."""
    since_begin: list[float] = []
    since_end: list[float] = []
    told = threading.Semaphore(0)
    times: list[float] = []
    stop = threading.Event()
    endpoints = cluster.endpoints
    with (
        EtcdStore(endpoints, prefix="/watch") as writer,
        EtcdStore([endpoints[-1], *endpoints[:-1]], prefix="/watch") as reader,
    ):

        def follow() -> None:
            for _ in reader.watch("", reader.list("").revision, stop=stop):
                times.append(time.perf_counter())
                told.release()

        thread = threading.Thread(target=follow)
        thread.start()
        time.sleep(0.5)
        for n in range(ROUNDS):
            begin = time.perf_counter()
            writer.transact([], [Put("a", f"{n}")])
            end = time.perf_counter()
            told.acquire()
            since_begin.append((times[-1] - begin) * 1000)
            since_end.append((times[-1] - end) * 1000)
        stop.set()
        thread.join()
    print_table(
        f"a watch tells, {len(cluster.members)} member(s), milliseconds",
        _HEADERS,
        [row("since the write began", since_begin), row("since it was acknowledged", since_end)],
    )


def take(endpoints: str, name: str) -> None:
    """Be a client: say ready, and when told to, take numbers; print how long each took and the tries."""
    with EtcdStore(endpoints, prefix="/take") as store:
        store.get("nothing")
        print("ready", flush=True)
        sys.stdin.readline()
        number = random.Random(name).randrange(POOL)  # noqa: S311 - a place of its own, and no secret
        tries = 0
        samples: list[float] = []
        begin = time.time()
        while len(samples) < KEYS:
            start = time.perf_counter()
            while True:
                tries += 1
                number = (number + 1) % POOL
                if store.transact([Absent(f"{number}")], [Put(f"{number}", name)]) is not None:
                    break
            samples.append((time.perf_counter() - start) * 1000)
        print(
            json.dumps({"begin": begin, "end": time.time(), "tries": tries, "samples": samples}), flush=True
        )


def measure_taking(cluster: EtcdCluster) -> None:
    """Print how fast several clients together take numbers."""
    argv = python("-m", "benchmarks.etcd", "--take", ",".join(cluster.endpoints))
    clients = [
        subprocess.Popen(
            [*argv, f"client{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for n in range(CLIENTS)
    ]
    for client in clients:
        if client.stdout is None or client.stdout.readline() != "ready\n":
            sys.exit("a client did not start; see its messages above")
    for client in clients:
        if client.stdin is not None:
            client.stdin.write("\n")
            client.stdin.flush()
    found = [json.loads(client.communicate()[0]) for client in clients]
    seconds = max(each["end"] for each in found) - min(each["begin"] for each in found)
    samples = [sample for each in found for sample in each["samples"]]
    tries = sum(each["tries"] for each in found) / len(samples)
    print_table(
        f"{CLIENTS} clients take {KEYS} numbers each, {len(cluster.members)} member(s)",
        ("", "per second", "tries each", "p50 ms", "p99 ms"),
        [("all together", len(samples) / seconds, tries, percentile(samples, 50), percentile(samples, 99))],
    )


def measure_failures(cluster: EtcdCluster) -> None:
    """Print the longest that a writer waits when a member fails, with the store's default time-outs."""
    rows = []
    for name, is_leader, fail in (
        ("a follower is killed", False, EtcdMember.kill),
        ("a follower hangs", False, EtcdMember.stop),
        ("the leader ends in order", True, EtcdMember.terminate),
        ("the leader is killed", True, EtcdMember.kill),
        ("the leader hangs", True, EtcdMember.stop),
    ):
        leader = cluster.leader()
        victim = leader if is_leader else next(each for each in cluster.members if each is not leader)
        others = [each.endpoint for each in cluster.members if each is not victim]
        waits = []
        with EtcdStore([victim.endpoint, *others], prefix="/fail") as store:
            store.transact([], [Put("a", "")])
            fail(victim)
            end = time.perf_counter() + FAILING_SECONDS
            while time.perf_counter() < end:
                start = time.perf_counter()
                store.transact([], [Put("a", "")])
                waits.append(time.perf_counter() - start)
        rows.append((name, max(waits)))
        victim.resume()
        cluster.start()
    print_table("a writer that is connected to the victim waits at most, seconds", ("", "worst"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--members", default="1,3", help="sizes of clusters, by default 1,3")
    parser.add_argument("--disk", help="a directory for the members' data, by default in memory")
    parser.add_argument("--take", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.take:
        take(*arguments.take)
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.platform()}")
    for members in map(int, arguments.members.split(",")):
        with etcd_cluster(members=members, directory=arguments.disk) as cluster:
            measure_calls(cluster)
            measure_watch(cluster)
            measure_taking(cluster)
            if members > 1:
                measure_failures(cluster)


if __name__ == "__main__":
    main()
