"""A directory that has followed any changes knows what one knows that was told only how it ended."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pynetwork.dns import codec
from pynetwork.dns.codec import AAAA, ANY, PTR, SRV, A, Question
from pynetwork.dns.zone import Directory
from pynetwork.peers import Peer
from pynetwork.specs import EndpointSpec, NetworkSpec, PortSpec, SandboxSpec

NETWORKS, SANDBOXES, ENDPOINTS = ("n", "m.n"), ("s", "t"), ("a", "b", "c")
REVERSE = ("1.0.0.10.in-addr.arpa", "2.0.0.10.in-addr.arpa", "9.0.0.10.in-addr.arpa")
NAMES = ("a", "b", "x", "a.n", "x.m.n", "b.n", "n", "m.n", "_80._tcp.a", "_80._tcp.x.n", *REVERSE)
MAC = "02:00:00:00:00:01"


def _network(name: str, internal: bool, label: str) -> tuple[str, Any]:
    spec = NetworkSpec(id=name, name=label, driver="bridge", options=None, internal=internal)
    return f"network/{name}", spec


def _sandbox(name: str, servers: tuple[str, ...]) -> tuple[str, Any]:
    return f"sandbox/{name}", SandboxSpec(id=name, name=name, netns=f"/run/{name}", dns=servers)


def _endpoint(
    name: str, sandbox: str | None, alias: str, *, link: bool, last: int, priority: int
) -> tuple[str, Any]:
    network = NETWORKS[ENDPOINTS.index(name) % 2]
    spec = EndpointSpec(
        id=name,
        name=name,
        network=network,
        mac=MAC,
        addresses=(f"10.0.0.{last}/24", f"fd00::{last}/64")[: 1 + last % 2],
        aliases=(alias,),
        links={"x": "a"} if link else {},
        exposed=("80/tcp",) if link else (),
        sandbox=sandbox,
        priority=priority,
        joined=ENDPOINTS.index(name),
    )
    return f"endpoint/{network}/{name}", spec


def _port(endpoint: str, port: int) -> tuple[str, Any]:
    binding: Any = {"first": port, "last": port}
    return f"port/{endpoint}/{port}", PortSpec(id=str(port), endpoint=endpoint, binding=binding)


def _peer(name: str, network: str, last: int) -> tuple[str, Any]:
    spec = Peer(host="h", vtep="192.0.2.1", mac=MAC, addresses=(f"10.0.0.{last}",), name=name, aliases=("x",))
    return f"peer/{network}/p{name}", spec


LAST = st.integers(1, 3)
PUTS = st.one_of(
    st.builds(_network, st.sampled_from(NETWORKS), st.booleans(), st.sampled_from(("n", "m.n", "o"))),
    st.builds(_sandbox, st.sampled_from(SANDBOXES), st.sampled_from(((), ("9.9.9.9",)))),
    st.builds(
        _endpoint,
        st.sampled_from(ENDPOINTS),
        st.sampled_from((None, *SANDBOXES)),
        st.sampled_from(("x", "b")),
        link=st.booleans(),
        last=LAST,
        priority=st.integers(0, 1),
    ),
    st.builds(_port, st.sampled_from(ENDPOINTS), st.sampled_from((80, 81))),
    st.builds(_peer, st.sampled_from(ENDPOINTS), st.sampled_from(NETWORKS), LAST),
)


def known(directory: Directory) -> dict[object, object]:
    """Return all that can be asked of *directory*, the order of answers aside."""
    found: dict[object, object] = {}
    for identity, inmate in directory.inmates.items():
        found[identity, "wants"] = inmate.wants_server
        found[identity, "route"] = (inmate.route, inmate.uses_host) if inmate.endpoints else None
        for name in NAMES if inmate.endpoints else ():
            wire = codec.wire_name(name)
            assert wire is not None
            for kind in (A, AAAA, ANY, PTR, SRV):
                question = Question(wire, wire, kind, codec.IN, codec.HEADER + len(wire) + 4)
                bodies = inmate.view.bodies(question, 4096)
                found[identity, name, kind] = bodies and {(body.flags, body.counts) for body in bodies}
                found[identity, name, kind, "records"] = bodies and sorted(bodies[0].records)
    return found


@example(
    [
        (_sandbox("s", ("9.9.9.9",)), False, False),
        (_endpoint("a", "s", "x", link=False, last=1, priority=0), False, False),
        (_sandbox("s", ()), True, False),
    ]
)
@settings(max_examples=150)
@given(st.lists(st.tuples(PUTS, st.booleans(), st.booleans()), max_size=30))
def test_what_is_known_does_not_depend_on_the_way(
    changes: list[tuple[tuple[str, Any], bool, bool]],
) -> None:
    followed, records = Directory(), dict[str, Any]()
    for (key, spec), is_deletion, asks in changes:
        followed.put(key, None if is_deletion else spec)
        if is_deletion:
            records.pop(key, None)
        else:
            records[key] = spec
        if asks:
            known(followed)  # what it prepares must not outlive the next change
    told = Directory()
    for key in sorted(records):
        told.put(key, records[key])
    there = {identity for identity, inmate in told.inmates.items() if inmate.endpoints or inmate.netns}
    for directory in (followed, told):
        directory.inmates = {key: each for key, each in directory.inmates.items() if key in there}
    assert known(followed) == known(told)
