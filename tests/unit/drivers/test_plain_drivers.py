"""The drivers ``host`` and ``null``: nothing is made, whatever is asked."""

from __future__ import annotations

import pytest

from pynetwork import EndpointSpec, HostDriver, NetworkSpec, NoOptions, NullDriver, Plan, SandboxSpec, Scope


@pytest.mark.parametrize("driver", [HostDriver(), NullDriver()], ids=["host", "null"])
def test_plans_are_empty(driver: HostDriver | NullDriver) -> None:
    network = NetworkSpec(id="1", name="n", driver=driver.name, options=NoOptions())
    endpoint = EndpointSpec(id="2", name="e", network="1", mac="02:00:00:00:00:01")
    sandbox = SandboxSpec(id="3", name="s", netns=None)
    assert driver.network_plan(network) == Plan()
    assert driver.join_plan(network, endpoint, sandbox) == Plan()
    assert driver.interface_prefix(network) == ""
    assert driver.options_type is NoOptions


def test_there_is_one_of_each_without_addresses_and_host_is_for_the_host() -> None:
    for driver, for_host in ((HostDriver(), True), (NullDriver(), False)):
        capabilities = driver.capabilities
        assert capabilities.singleton
        assert not capabilities.addressed
        assert capabilities.scope is Scope.LOCAL
        assert capabilities.host_sandbox is for_host
