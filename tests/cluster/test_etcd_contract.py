"""A store in etcd keeps the promises of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests import store_contract
from tests.store_contract import (  # noqa: F401 - pytest runs what is imported
    TestChanges,
    TestClosing,
    TestCompares,
    TestHistory,
    TestReading,
    TestTransactions,
    TestWatching,
)
from tests.store_model import check_against_the_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetwork.store import Store

pytestmark = pytest.mark.root


class TestThreads(store_contract.TestThreads):
    times = 25


def test_a_store_behaves_like_a_dict_with_a_memory(open_store: Callable[..., Store]) -> None:
    check_against_the_model(open_store, examples=20, counts=False)
