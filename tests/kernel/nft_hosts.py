"""What the tests of nftables share: what is on a host, as ``nft -j`` tells it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pynetwork.testing import PrivateHost


def ruleset(host: PrivateHost) -> Any:
    """Return all tables, but for what is different whenever it is read."""
    listed = json.loads(host.run(["nft", "-j", "-s", "list", "ruleset"]).stdout)["nftables"]
    return [each for each in listed if "metainfo" not in each]


def normal(listed: Any) -> list[str]:
    """Return a ruleset without its handles, the elements of sets and the tables in one order."""
    found = []
    for each in listed:
        ((kind, value),) = each.items()
        value = {name: field for name, field in value.items() if name != "handle"}
        if "elem" in value:
            value["elem"] = sorted(map(json.dumps, value["elem"]))
        owner = value["name"] if kind == "table" else value["table"]
        found.append((f"{owner} {value['family']}", f"{kind} {json.dumps(value)}"))
    return [f"{owner} {text}" for owner, text in sorted(found, key=lambda each: each[0])]


def elements(listed: Any) -> list[tuple[str, str, str, str]]:
    """Return family, table, set and text of each element."""
    found = []
    for each in listed:
        kind = "map" if "map" in each else "set"
        if kind in each and "elem" in each[kind]:
            value = each[kind]
            place = (value["family"], value["table"], value["name"])
            found += [(*place, element(each_)) for each_ in value["elem"]]
    return found


def element(value: Any) -> str:
    """Return an element as nft reads it, from how it writes it as JSON."""
    match value:
        case [key, data]:
            return f"{element(key)} : {element(data)}"
        case {"concat": parts}:
            return " . ".join(map(element, parts))
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{first}-{last}"
        case {"elem": {"val": inner}}:
            return element(inner)
        case _:
            return str(value)
