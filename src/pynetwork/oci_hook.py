"""The hook of OCI runtimes (runc, crun, and what is built on them): networks for containers they make.

Run as ``createRuntime`` or ``prestart`` it puts a container into networks of this host's, as
``poststop`` it takes it out again. Which networks, annotations of the container say, or arguments; a
container of which nobody says anything is let alone.

The runtime sends the container's state on standard input, as JSON (OCI runtime specification, State). Exit
status 0: done, also if it was done before. 1: refused or failed, and nothing of it is left. 2: the state or
the arguments make no sense. Why goes to standard error, where runtimes look for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pynetwork.errors import PynetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pynetwork import Controller, Sandbox

__all__ = ["main"]

_NETWORKS: Final = "org.pynetwork.networks"
_PORTS: Final = "org.pynetwork.ports"
_ENDPOINT: Final = "org.pynetwork.endpoint"
#: Label of what the hook made, and so deletes.
_LABEL: Final = "org.pynetwork.oci-hook"
_OPTIONS: Final = frozenset(
    {"addresses", "aliases", "interface", "link_local", "mac", "ports", "priority", "routes", "sysctls"}
)
_STOPPED: Final = "stopped"


class _SenselessError(Exception):
    """The state or the annotations make no sense."""


class _Wish(NamedTuple):
    """A network that the container is to be in, and what its endpoint there is made with."""

    network: str
    options: dict[str, Any]


class _Container(NamedTuple):
    """What the runtime says of a container."""

    id: str
    status: str
    pid: int
    annotations: Mapping[str, str]
    hostname: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """
    Be the hook.

    Args:
        argv: The arguments, without the program's name; those of the process when None.

    Returns:
        The exit status.
    """
    arguments = _parser().parse_args(argv)
    name = "?"
    try:
        container = _container(sys.stdin.read())
        name = container.id
        is_over = arguments.stop or container.status == _STOPPED
        if is_over:
            _with_controller(arguments, lambda controller: _stop(controller, container))
        else:
            wishes = _wishes(container, arguments)
            _with_controller(arguments, lambda controller: _start(controller, container, wishes))
    except _SenselessError as error:
        return _fail(2, name, error)
    except (PynetworkError, ExceptionGroup, OSError) as error:
        return _fail(1, name, error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pynetwork.oci_hook",
        description="Hook of an OCI runtime: reads the container's state on standard input.",
    )
    parser.add_argument("--state-dir", help="where the records are (default: that of pynetwork.Controller)")
    parser.add_argument("--run-dir", help="where namespaces are pinned (likewise)")
    parser.add_argument(
        "--dns",
        choices=("off", "companion"),
        default="off",
        help="whether a process serves names from now on",
    )
    parser.add_argument("--network", action="append", default=[], metavar="NAME", help="may be repeated")
    parser.add_argument("--publish", action="append", default=[], metavar="PORT", help="such as 8080:80/tcp")
    parser.add_argument("--stop", action="store_true", help="take the container out, whatever its status")
    return parser


def _fail(status: int, container: str, error: BaseException) -> int:
    lines = [str(error), *map(str, getattr(error, "exceptions", ())), *getattr(error, "__notes__", ())]
    sys.stderr.write(f"pynetwork: container {container}: {'; '.join(lines)}\n")
    return status


def _with_controller(arguments: argparse.Namespace, act: Callable[[Controller], None]) -> None:
    from pynetwork import Controller

    given = {"state_dir": arguments.state_dir, "run_dir": arguments.run_dir}
    places = {name: value for name, value in given.items() if value is not None}
    with Controller(**places, dns=arguments.dns) as controller:  # not "here": this process ends at once
        act(controller)


def _start(controller: Controller, container: _Container, wishes: Sequence[_Wish]) -> None:
    """Put a container into its networks, all at once; what is there already is left as it is."""
    sandbox = controller.sandboxes.get(container.id)
    if sandbox is None and not wishes:
        return
    if container.pid <= 0:
        msg = f"its state names no process ({container.pid}), but is {container.status!r}"
        raise _SenselessError(msg)
    undo: list[Callable[[], None]] = []
    try:
        if sandbox is None:
            sandbox = controller.new_sandbox(
                container.id, netns="later", hostname=container.hostname, labels={_LABEL: container.id}
            )
            undo.append(sandbox.delete)
        for wish in wishes:
            _join(controller, container, sandbox, wish, undo)
        sandbox.attach(container.pid)
    except BaseException as error:
        for step in reversed(undo):
            try:
                step()
            except PynetworkError as failure:
                error.add_note(f"not undone: {failure}")
        raise


def _join(
    controller: Controller,
    container: _Container,
    sandbox: Sandbox,
    wish: _Wish,
    undo: list[Callable[[], None]],
) -> None:
    network = controller.networks[wish.network]
    name = container.annotations.get(_ENDPOINT, container.id)
    endpoint = network.endpoints.get(name)
    if endpoint is None:
        endpoint = network.create_endpoint(name, **wish.options, labels={_LABEL: container.id})
        undo.append(endpoint.delete)
    if endpoint.sandbox != sandbox:
        endpoint.join(sandbox)
        undo.append(endpoint.leave)


def _stop(controller: Controller, container: _Container) -> None:
    """Take a container out; delete what the hook made, leave what it found."""
    sandbox = controller.sandboxes.get(container.id)
    if sandbox is None:
        return
    # The sandbox last: whoever is interrupted is called again, and finds the rest by it.
    name = container.annotations.get(_ENDPOINT, container.id)
    named = (network.endpoints.get(name) for network in controller.networks.values())
    for endpoint in {*sandbox.endpoints, *(each for each in named if each is not None)}:
        if endpoint.labels.get(_LABEL) == container.id:
            endpoint.delete(force=True, missing_ok=True)
    if sandbox.labels.get(_LABEL) == container.id:
        sandbox.delete(missing_ok=True)
    elif sandbox.is_attached:
        sandbox.detach()


def _container(text: str) -> _Container:
    """Return what *text*, an OCI state, and the bundle that it names say of the container."""
    state = _object(text, "the state on standard input")
    identity = state.get("id")
    if not isinstance(identity, str) or not identity:
        msg = "the state on standard input has no id: is this program run as a hook?"
        raise _SenselessError(msg)
    pid, status = state.get("pid", 0), state.get("status", "")
    if isinstance(pid, bool) or not isinstance(pid, int) or not isinstance(status, str):
        msg = f"its state has status {status!r} and process {pid!r}: text and a number are expected"
        raise _SenselessError(msg)
    config = _config(state.get("bundle"))
    annotations = state.get("annotations") or config.get("annotations") or {}
    if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
        msg = f"invalid annotations {annotations!r}: an object of text to text is expected"
        raise _SenselessError(msg)
    hostname = config.get("hostname")
    return _Container(
        identity, status, pid, annotations, hostname if isinstance(hostname, str) and hostname else None
    )


def _config(bundle: object) -> dict[str, Any]:
    """Return the container's configuration; nothing when it cannot be read, as after its end."""
    if not isinstance(bundle, str):
        return {}
    try:
        text = Path(bundle, "config.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    return _object(text, f"{bundle}/config.json")


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{what} is no JSON: {error}"
        raise _SenselessError(msg) from error
    if not isinstance(found, dict):
        msg = f"{what} is no JSON object"
        raise _SenselessError(msg)
    return found


def _wishes(container: _Container, arguments: argparse.Namespace) -> list[_Wish]:
    """Return the networks that a container is to be in: as its annotations say, or else the arguments."""
    annotation = container.annotations.get(_NETWORKS)
    names = arguments.network if annotation is None else _listed(annotation)
    wishes = [_wish(name) for name in names]
    ports = container.annotations.get(_PORTS)
    published = arguments.publish if ports is None else [port for port in ports.split(",") if port.strip()]
    if published and not wishes:
        msg = f"ports are to be published ({', '.join(published)}), but in no network"
        raise _SenselessError(msg)
    if published:
        first = wishes[0].options
        first["ports"] = [*first.get("ports", ()), *(port.strip() for port in published)]
    return wishes


def _listed(annotation: str) -> list[Any]:
    if not annotation.lstrip().startswith("["):
        return [name.strip() for name in annotation.split(",") if name.strip()]
    try:
        found: list[Any] = json.loads(annotation)
    except (ValueError, RecursionError) as error:
        msg = f"annotation {_NETWORKS} is neither names with commas between them nor a JSON list: {error}"
        raise _SenselessError(msg) from error
    return found


def _wish(item: object) -> _Wish:
    if isinstance(item, str):
        return _Wish(item, {})
    if not isinstance(item, dict) or not isinstance(item.get("network"), str):
        msg = f"annotation {_NETWORKS} lists {item!r}: a name is expected, or an object with a 'network'"
        raise _SenselessError(msg)
    options = {name: value for name, value in item.items() if name != "network"}
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        msg = f"annotation {_NETWORKS} has {', '.join(unknown)}: known are {', '.join(sorted(_OPTIONS))}"
        raise _SenselessError(msg)
    return _Wish(item["network"], options)


if __name__ == "__main__":
    sys.exit(main())
