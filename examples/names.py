"""Names between containers: aliases, a link, a service, and what another process changes. Needs root.

The names are served by a companion process, so they resolve while this program is not there, too.
"""

from __future__ import annotations

import tempfile

import pynetwork


def look_up(sandbox: pynetwork.Sandbox, *question: str) -> str:
    """Return what ``dig`` finds in *sandbox*, on one line."""
    done = sandbox.run(["dig", "+short", *question], capture_output=True, text=True, check=True)
    return ", ".join(sorted(done.stdout.splitlines())) or "nothing"


def main() -> None:
    """Name three containers, and ask for them."""
    with tempfile.TemporaryDirectory(prefix="pynetwork-") as directory:
        state, run = f"{directory}/state", f"{directory}/run"
        with pynetwork.Controller(state, run_dir=run, dns="companion") as controller:
            network = controller.new_network("bridge", "shop", subnets=["10.93.0.0/24"])
            for number in (1, 2):
                web = network.create_endpoint(f"web{number}", aliases=["web"], exposed=["80/tcp"])
                web.join(controller.new_sandbox(f"web{number}"))
            network.create_endpoint("client", links={"first": "web1"}).join(controller.new_sandbox("client"))

        # Another run of the program:
        with pynetwork.Controller(state, run_dir=run, dns="companion") as controller:
            client = controller.sandboxes["client"]
            print("web:           ", look_up(client, "web"))
            print("web2.shop:     ", look_up(client, "web2.shop"))
            print("first:         ", look_up(client, "first"))
            print("_http._tcp.web:", look_up(client, "_http._tcp.web", "SRV"))
            controller.sandboxes["web2"].delete()
            print("web, one left: ", look_up(client, "web"))
            print("questions:     ", controller.dns_statistics().queries)
            controller.erase()


if __name__ == "__main__":
    main()
