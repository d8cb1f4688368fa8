"""What happens to networks, endpoints, sandboxes and ports, whichever process does it.

No event is written: they are read off the changes of the records, of which the store remembers the
last ones. So following costs whoever follows, and making a container costs the same as ever.
"""

from __future__ import annotations

from pynetwork.events.kinds import Event, EventKind
from pynetwork.events.reader import EventReader

__all__ = ["Event", "EventKind", "EventReader"]
