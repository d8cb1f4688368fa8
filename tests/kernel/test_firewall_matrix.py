"""Who reaches what: every way of publishing, from everywhere, in one table."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.kernel.lan import FIREWALLS, HOST, Question, ask, laboratory

from pynetwork import BridgeOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.lan import Box, Lab, Place

pytestmark = pytest.mark.root

# P: what is published is reached; U: what is not published is, too; P4: by IPv4 only. The published port
# of a network that publishes nothing is the endpoint's own.
TABLE: Final = """
from      to         nat  nat-unprotected  routed  internal  isolated
host      container  PU   PU               PU      PU        -
host      host       P    P                -       -         -
host      loopback   P4   P4               -       -         -
lan       container  -    PU               P       -         -
lan       host       P    P                -       -         -
other     container  -    -                P       -         -
other     host       P    P                -       -         -
sibling   container  PU   PU               PU      PU        PU
sibling   host       P    P                -       -         -
itself    host       P    P                -       -         -
"""
LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
PUBLISHED, UNPUBLISHED = 80, 81

ROWS = [line.split() for line in TABLE.strip().splitlines()]
MODES: Final = ROWS[0][2:]


def options(mode: str) -> tuple[BridgeOptions, bool]:
    """Return the options of a network of that mode, and whether it is internal."""
    gateway = "nat" if mode == "internal" else mode
    return BridgeOptions(gateway_mode_ipv4=gateway, gateway_mode_ipv6=gateway), mode in {
        "internal",
        "isolated",
    }


class Setting:
    """A network of each mode with two endpoints in it, one of them published, and one more network."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.boxes: dict[str, Box] = {}
        self.ports: dict[str, int] = {}
        for number, mode in enumerate(MODES):
            bridge, internal = options(mode)
            network = lab.network(mode, number, options=bridge, internal=internal)
            lab.route_to(network)
            self.ports[mode] = PUBLISHED if internal else 8000 + number
            ports = [] if internal else [f"{8000 + number}:{PUBLISHED}/{proto}" for proto in ("tcp", "udp")]
            self.boxes[mode] = lab.box(network, mode, ports)
            self.boxes[f"{mode} sibling"] = lab.box(network, f"{mode}-sibling")
        self.boxes["other"] = lab.box(lab.network("other", 99), "other")

    def place(self, name: str, mode: str) -> Place:
        places = {
            "host": self.lab.home,
            "lan": self.lab.lan,
            "other": self.boxes["other"],
            "sibling": self.boxes[f"{mode} sibling"],
            "itself": self.boxes[mode],
        }
        return places[name]

    def questions(self) -> Iterator[tuple[Question, str, bool]]:
        """Yield every question, what it is in words, and whether it must be answered."""
        for source, to, *cells in ROWS[1:]:
            for mode, cell in zip(MODES, cells, strict=True):
                for port, version, proto in product((PUBLISHED, UNPUBLISHED), (4, 6), ("tcp", "udp")):
                    yield self.question(source, to, mode, cell, port=port, version=version, proto=proto)

    def question(
        self, source: str, to: str, mode: str, cell: str, *, port: int, version: int, proto: str
    ) -> tuple[Question, str, bool]:
        address = {"host": HOST, "loopback": LOOPBACK}.get(to, {}).get(version)
        at = self.ports[mode] if address is not None and port == PUBLISHED else port
        address = self.boxes[mode].addresses[version] if address is None else address
        letter = "P" if port == PUBLISHED else "U"
        is_wanted = letter in cell and (not cell.endswith("4") or version == 4)
        words = f"{mode}: {source} to {to} {'un' * (letter == 'U')}published {proto} {address}"
        return Question(self.place(source, mode), address, at, proto), words, is_wanted


def wrong(setting: Setting) -> list[str]:
    """Return in words which answers are not those of the table."""
    asked = list(setting.questions())
    assert len(asked) == 8 * len(MODES) * len(ROWS[1:])
    answers = ask([question for question, *_ in asked], {question for question, _, wanted in asked if wanted})
    found = []
    for question, words, wanted in asked:
        answer = answers[question]
        if (answer is not None) != wanted:
            found.append(f"{words}: {answer or 'silence'}")
        elif answer is not None and answer.server != words.partition(":")[0]:
            found.append(f"{words}: answered by {answer.server}")
    return found


@pytest.mark.parametrize("bridge_nf", ["0", "1"], ids=["bridge-nf off", "bridge-nf on"])
@pytest.mark.parametrize("firewall", FIREWALLS)
def test_everybody_reaches_what_the_table_says_and_nothing_else(firewall: str, bridge_nf: str) -> None:
    with laboratory(firewall) as lab:
        for name in ("iptables", "ip6tables", "arptables"):
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}").write_text(bridge_nf)
        setting = Setting(lab)
        assert wrong(setting) == []
