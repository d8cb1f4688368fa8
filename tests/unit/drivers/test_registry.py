"""Drivers by name: built in, given, or installed as an entry point, in a real interpreter."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pynetwork import (
    BridgeDriver,
    ConflictError,
    Controller,
    InvalidValueError,
    MemoryStore,
    UnknownDriverError,
)
from pynetwork.drivers import Registry
from pynetwork.testing import FakeKernel, fake_surroundings

if TYPE_CHECKING:
    from pathlib import Path


class Named:
    def __init__(self, name: Any) -> None:
        self.name = name


def _registry(*given: Any) -> Registry[Any]:
    return Registry("driver", "pynetwork.test_drivers", [Named("one")], given)


def test_a_driver_is_found_by_its_name() -> None:
    mine = Named("mine")
    registry = _registry(mine)
    assert registry["mine"] is mine
    assert registry["one"].name == "one"


def test_one_name_is_for_one_driver() -> None:
    mine = Named("mine")
    assert _registry(mine, mine)["mine"] is mine
    with pytest.raises(ConflictError, match="driver 'mine' is registered already"):
        _registry(mine, Named("mine"))


@pytest.mark.parametrize("driver", [object(), Named(None), Named(""), Named(" "), Named(7), None])
def test_what_has_no_name_is_no_driver(driver: Any) -> None:
    with pytest.raises(InvalidValueError, match="is no driver: it has no name"):
        _registry(driver)


@pytest.mark.parametrize("name", [None, 7, [], b"one"])
def test_what_is_no_name_is_not_looked_for(name: Any) -> None:
    with pytest.raises(InvalidValueError, match="a name is expected"):
        _registry()[name]


def test_an_unknown_name_is_said_with_those_that_are_known() -> None:
    with pytest.raises(
        UnknownDriverError, match=r"unknown driver 'two': known are mine, one, .*test_drivers"
    ):
        _registry(Named("mine"))["two"]


def test_a_given_driver_replaces_a_built_in_one_and_two_of_a_name_are_a_conflict() -> None:
    class Mine(BridgeDriver):
        pass

    mine = Mine()
    around = fake_surroundings()
    with Controller(
        store=MemoryStore(), kernel=FakeKernel(), surroundings=around, drivers=[mine]
    ) as controller:
        assert controller._core.drivers["bridge"] is mine
    with pytest.raises(ConflictError, match="'bridge' is registered already"):
        Controller(store=MemoryStore(), kernel=FakeKernel(), surroundings=around, drivers=[mine, Mine()])


PLUGIN = """
from pynetwork import BridgeDriver, DefaultIpam

print("plugin loaded")

class Good(BridgeDriver):
    name = "good"

class Ipam(DefaultIpam):
    name = "my-ipam"

class Misnamed(BridgeDriver):
    name = "other"

def broken():
    raise RuntimeError("no licence")

Number = 7
"""
ENTRY_POINTS = """
[pynetwork.drivers]
good = plugin_of_a_test:Good
misnamed = plugin_of_a_test:Misnamed
broken = plugin_of_a_test:broken
missing = plugin_of_a_test:Missing
nowhere = no_such_module_at_all:Driver
number = plugin_of_a_test:Number

[pynetwork.ipam]
my-ipam = plugin_of_a_test:Ipam
"""
PROGRAM = """
import sys
from pynetwork import Controller, MemoryStore, UnknownDriverError
from pynetwork.testing import FakeKernel, fake_surroundings

with Controller(store=MemoryStore(), kernel=FakeKernel(), surroundings=fake_surroundings()) as controller:
    controller.new_network("bridge", "plain")
    assert "plugin_of_a_test" not in sys.modules, "loaded before anybody asked for it"
    network = controller.new_network("good", "n", ipam="my-ipam")
    print(network.driver, network.inspect()["ipam"])
    controller.new_network("good", "m")
    for name in ("misnamed", "broken", "missing", "nowhere", "number", "absent"):
        try:
            controller.new_network(name, name)
        except UnknownDriverError as error:
            print(error)
    print(sorted(controller.networks))
"""


def test_installed_drivers_are_found_and_broken_ones_explained(tmp_path: Path) -> None:
    metadata = tmp_path / "plugin_of_a_test-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "plugin_of_a_test.py").write_text(PLUGIN)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded, good, misnamed, broken, missing, nowhere, number, absent, networks = done.stdout.splitlines()
    assert loaded == "plugin loaded"
    assert good == "good my-ipam"
    assert misnamed.startswith("entry point plugin_of_a_test:Misnamed is called 'misnamed' but makes")
    assert broken == "driver 'broken' (entry point plugin_of_a_test:broken) cannot be loaded: no licence"
    assert "entry point plugin_of_a_test:Missing) cannot be loaded" in missing
    assert "no_such_module_at_all" in nowhere
    assert "entry point plugin_of_a_test:Number) cannot be loaded" in number
    assert absent == (
        "unknown driver 'absent': known are bridge, good, host, null, "
        "and none is installed in 'pynetwork.drivers'"
    )
    assert networks == "['m', 'n', 'plain']"
