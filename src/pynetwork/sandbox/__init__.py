"""Sandboxes, and namespaces without a controller.

>>> from pynetwork.sandbox import Namespace
>>> with Namespace() as namespace:  # doctest: +SKIP
...     namespace.run(["ip", "link"])
"""

from __future__ import annotations

from pynetwork.sandbox.gateway import Gateway
from pynetwork.sandbox.handle import Sandbox
from pynetwork.sandbox.namespace import Namespace

__all__ = ["Gateway", "Namespace", "Sandbox"]
