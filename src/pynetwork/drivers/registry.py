"""Finding drivers by name: built in, passed as an argument, or installed as an entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pynetwork.errors import ConflictError, InvalidValueError, UnknownDriverError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Registry"]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


D = TypeVar("D", bound=_Named)


class Registry(Generic[D]):
    """
    The drivers one controller knows.

    Args:
        what: ``driver`` or ``IPAM driver``, for errors.
        group: Entry point group that unknown names are looked up in; an entry point is a class or
            function that returns a driver when called without arguments.
        builtin: Drivers of this library.
        given: The caller's own.

    Raises:
        ConflictError: Two drivers have the same name (libnetwork's ErrActiveRegistration).
    """

    def __init__(self, what: str, group: str, builtin: Iterable[D], given: Iterable[D]) -> None:
        self._what = what
        self._group = group
        self._drivers: dict[str, D] = {}
        for driver in (*builtin, *given):
            self.add(driver)

    def add(self, driver: D) -> D:
        """Add *driver*; adding the same object again does nothing."""
        name = getattr(driver, "name", None)
        if not isinstance(name, str) or not name.strip():
            msg = f"{driver!r} is no {self._what}: it has no name"
            raise InvalidValueError(msg)
        if self._drivers.setdefault(name, driver) is not driver:
            msg = f"{self._what} {name!r} is registered already: {self._drivers[name]!r}"
            raise ConflictError(msg)
        return driver

    def __getitem__(self, name: str) -> D:
        """Return the driver called *name*, loading its entry point when it is not known yet."""
        if not isinstance(name, str):
            msg = f"invalid {self._what} {name!r}: a name is expected"
            raise InvalidValueError(msg)
        driver = self._drivers.get(name)
        return driver if driver is not None else self.add(self._load(name))

    def _load(self, name: str) -> D:
        from importlib.metadata import entry_points  # 10 ms that most programs never need

        for entry in entry_points(group=self._group, name=name):
            try:
                driver: Any = entry.load()()
            except Exception as error:
                msg = f"{self._what} {name!r} (entry point {entry.value}) cannot be loaded: {error}"
                raise UnknownDriverError(msg) from error
            if getattr(driver, "name", None) != name:
                msg = f"entry point {entry.value} is called {name!r} but makes {driver!r}"
                raise UnknownDriverError(msg)
            return driver  # type: ignore[no-any-return]  # an entry point has no static type
        known = ", ".join(sorted(self._drivers))
        msg = f"unknown {self._what} {name!r}: known are {known}, and none is installed in {self._group!r}"
        raise UnknownDriverError(msg)
