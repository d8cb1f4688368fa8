"""The two drivers without interfaces of their own: ``host`` shares the host's stack, ``null`` has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pynetwork.drivers.base import NoOptions
from pynetwork.plan import Plan
from pynetwork.specs import Capabilities

if TYPE_CHECKING:
    from pynetwork.specs import EndpointSpec, NetworkSpec, SandboxSpec

__all__ = ["HostDriver", "NullDriver"]


class _PlainDriver:
    options_type = NoOptions

    def interface_prefix(self, network: NetworkSpec[NoOptions]) -> str:  # noqa: ARG002 - no interface is named
        """Return no prefix: there is no interface to name."""
        return ""

    def network_plan(self, network: NetworkSpec[NoOptions]) -> Plan:  # noqa: ARG002 - nothing, for any network
        """Return nothing."""
        return Plan()

    def join_plan(
        self,
        network: NetworkSpec[NoOptions],  # noqa: ARG002 - nothing, for any network
        endpoint: EndpointSpec,  # noqa: ARG002
        sandbox: SandboxSpec,  # noqa: ARG002
    ) -> Plan:
        """Return nothing."""
        return Plan()


class HostDriver(_PlainDriver):
    """Makes the one network of type ``host``: its sandboxes are the host's own namespace."""

    name = "host"
    capabilities = Capabilities(addressed=False, singleton=True, host_sandbox=True)


class NullDriver(_PlainDriver):
    """Makes the one network of type ``null``: its endpoints have no interface and no address."""

    name = "null"
    capabilities = Capabilities(addressed=False, singleton=True)
