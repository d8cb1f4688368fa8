"""The table that VXLAN packets pass, as nft reads it."""

from __future__ import annotations

from pynetwork.kernel.vxlan_table import table_text


def test_packets_of_networks_are_of_members_and_frames_of_strict_ones_of_their_sources() -> None:
    assert table_text("t").splitlines() == [
        "create table inet t",
        "table inet t {",
        "\tset ports { typeof udp dport; }",
        "\tset networks { typeof @th,96,24; }",
        "\tset strict { typeof @th,96,24; }",
        "\tset members4 { typeof ip saddr . @th,96,24; }",
        "\tset members6 { typeof ip6 saddr . @th,96,24; }",
        "\tset sources4 { typeof ip saddr . @th,96,24 . @th,176,48; }",
        "\tset sources6 { typeof ip6 saddr . @th,96,24 . @th,176,48; }",
        "\tchain members {",
        "\t\tct state invalid counter drop",
        "\t\tip saddr . @th,96,24 @members4 return",
        "\t\tip6 saddr . @th,96,24 @members6 return",
        "\t\tcounter drop",
        "\t}",
        "\tchain sources {",
        "\t\tct state invalid counter drop",
        "\t\tip saddr . @th,96,24 . @th,176,48 @sources4 return",
        "\t\tip6 saddr . @th,96,24 . @th,176,48 @sources6 return",
        "\t\tcounter drop",
        "\t}",
        "\tchain input {",
        "\t\ttype filter hook input priority -150; policy accept;",
        "\t\tudp dport @ports @th,96,24 @networks jump members",
        "\t\tudp dport @ports @th,96,24 @strict jump sources",
        "\t}",
        "}",
    ]


def test_what_is_strict_stays_so_when_the_table_is_made_anew() -> None:
    assert table_text("t", [4790, 4789], [8, 7]).splitlines()[-2:] == [
        "add element inet t ports { 4789, 4790 }",
        "add element inet t strict { 7, 8 }",
    ]
