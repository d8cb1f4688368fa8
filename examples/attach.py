"""A runtime that makes namespaces itself, and an orchestrator that attaches sandboxes to them. Needs root.

The runtime here is ``unshare``: it stands for runc, which makes a namespace for each container it starts,
and another one when the container is started again. The orchestrator decides on networks, addresses and
ports before anything runs, and has to do nothing but attach when something does.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from pynetwork import Controller, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pynetwork import Endpoint

SERVE = "import http.server as h; h.HTTPServer(('', 80), h.SimpleHTTPRequestHandler).serve_forever()"


@contextlib.contextmanager
def started() -> Iterator[int]:
    """Start a container that serves a page, somewhere; yields the id of its process."""
    with tempfile.TemporaryDirectory() as root:
        Path(root, "index.html").write_text("hello\n", encoding="utf-8")
        code = f'ip link set lo up; echo; exec python3 -c "{SERVE}" 2>/dev/null'
        argv = ["unshare", "--net", "sh", "-c", code]
        with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE) as process:
            try:
                if process.stdout is not None:
                    process.stdout.readline()
                yield process.pid
            finally:
                process.kill()


def fetch(endpoint: Endpoint) -> str:
    """Return what the container serves, asked at its published port; it may have begun a moment ago."""
    port = endpoint.ports[0].host_port
    for _ in range(50):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            return str(answer.read().decode())
        time.sleep(0.1)
    message = "it does not answer"
    raise TimeoutError(message)


def main() -> None:
    """Decide, attach, restart, attach again."""
    with tempfile.TemporaryDirectory(prefix="pynetwork-example-") as place:
        controller = Controller(f"{place}/state", run_dir=f"{place}/run")
        try:
            network = controller.new_network("bridge", "front", subnets=["10.90.1.0/24"])
            sandbox = controller.new_sandbox("web", netns="later")
            endpoint = network.create_endpoint("web", ports=["80"])
            endpoint.join(sandbox)
            print(f"decided: {endpoint.addresses[0]}, port {endpoint.ports[0]}; nothing runs yet")

            for attempt in ("started", "started again"):
                with started() as pid:
                    sandbox.attach(pid)
                    print(f"{attempt}, process {pid}: {fetch(endpoint)!r} from {endpoint.addresses[0]}")

            try:
                sandbox.attach(pid)
            except NotFoundError as error:
                print(f"refused: {error}")
            sandbox.detach()
            print(f"waiting for the next one: {endpoint.addresses[0]} is still its own")
        finally:
            controller.erase()


if __name__ == "__main__":
    main()
