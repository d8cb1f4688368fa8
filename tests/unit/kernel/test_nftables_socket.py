"""The firewall's socket, which any thread may be the first to need."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from pynetwork.kernel.netlink import NetlinkSocket
from pynetwork.kernel.nftables import NftablesFirewall

if TYPE_CHECKING:
    from collections.abc import Callable


def test_threads_that_need_it_at_once_have_one() -> None:
    opened: list[NetlinkSocket] = []
    waiting = threading.Barrier(2, timeout=0.5)

    def home(_open: Callable[[], object]) -> NetlinkSocket:
        with suppress(threading.BrokenBarrierError):
            waiting.wait()  # for the other one, which must not come
        opened.append(NetlinkSocket())
        return opened[-1]

    firewall = NftablesFirewall("0" * 32, home)
    threads = [threading.Thread(target=lambda: firewall._nft) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    firewall.close()
    firewall.close()
    assert len(opened) == 1
