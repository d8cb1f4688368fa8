"""Open vSwitch: its database by the package ``ovs``, its flows by OpenFlow over a bridge's own socket."""
