"""The rules by which packets of networks are taken from their members only, as nft reads them."""

from __future__ import annotations

from pynetwork.kernel.admission import table_text


def test_each_network_has_its_members_and_all_else_is_left_alone() -> None:
    text = table_text("t", 4789, {7: ["192.0.2.3", "192.0.2.2", "fd00::2"], 5: []})
    assert text.splitlines() == [
        "add table inet t",
        "delete table inet t",
        "table inet t {",
        "\tchain vni-5 {",
        "\t\tcounter drop",
        "\t}",
        "\tchain vni-7 {",
        "\t\tip saddr { 192.0.2.2, 192.0.2.3 } return",
        "\t\tip6 saddr { fd00::2 } return",
        "\t\tcounter drop",
        "\t}",
        "\tchain input {",
        "\t\ttype filter hook input priority -150; policy accept;",
        "\t\tudp dport 4789 @th,96,24 vmap { 5 : jump vni-5, 7 : jump vni-7 }",
        "\t}",
        "}",
    ]


def test_without_networks_there_is_no_table() -> None:
    assert table_text("t", 4789, {}) == "add table inet t\ndelete table inet t\n"
