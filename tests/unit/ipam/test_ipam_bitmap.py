"""The bitmap agrees with a plain set, at every size and at every fill level."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pynetwork.errors import InvalidValueError
from pynetwork.ipam import Bitmap, bitmap

WORD = 4096
SIZES = [1, 2, 63, WORD - 1, WORD, WORD + 1, 3 * WORD, WORD**2 - 1, WORD**2, WORD**2 + 1, 2**64, 2**128]


@pytest.mark.parametrize("size", SIZES)
def test_empty_bitmap_gives_zero_then_one_and_keeps_the_last_number_apart(size: int) -> None:
    """Both ends of every size can be taken once, found taken, and released once."""
    bits = Bitmap(size)
    for n in {0, size - 1}:
        assert n not in bits
        assert bits.take(n)
        assert not bits.take(n)
        assert n in bits
    assert bits.lowest_free() == (None if size <= 2 else 1)
    assert bits.count() == len({0, size - 1})
    for n in {0, size - 1}:
        assert bits.release(n)
        assert not bits.release(n)
    assert bits.count() == 0
    assert bits.lowest_free() == 0


@pytest.mark.parametrize("size", [1, WORD - 1, WORD, WORD + 1, 3 * WORD - 5])
def test_every_number_is_given_once_in_order_then_none(size: int) -> None:
    bits = Bitmap(size)
    assert [bits.take_lowest() for _ in range(size)] == list(range(size))
    assert bits.take_lowest() is None
    assert bits.count() == size
    bits.release(size // 2)
    assert bits.take_lowest() == size // 2
    assert bits.lowest_free() is None


def test_window_is_respected_at_word_boundaries() -> None:
    bits = Bitmap(4 * WORD)
    start, stop = WORD - 2, 2 * WORD + 2
    assert [bits.take_lowest(start, stop) for _ in range(stop - start)] == list(range(start, stop))
    assert bits.take_lowest(start, stop) is None
    assert bits.lowest_free(start) == stop
    assert bits.lowest_free() == 0
    assert bits.count(start, stop) == stop - start
    assert bits.count(WORD, WORD + 10) == 10
    assert bits.count(0, start) == bits.count(stop, 4 * WORD) == 0


def test_empty_window_holds_nothing() -> None:
    bits = Bitmap(10)
    assert [bits.take_lowest(n, n) for n in (0, 5, 10)] == [None] * 3
    assert bits.count(5, 5) == 0


def test_search_skips_a_thousand_full_words_of_a_huge_space() -> None:
    """Full words in the middle of a 2**64 space are stepped over, not scanned, on all levels."""
    bits = Bitmap(2**64)
    for n in range(1 << 63, (1 << 63) + 3 * WORD):
        bits.take(n)
    assert bits.lowest_free(1 << 63) == (1 << 63) + 3 * WORD
    bits.release((1 << 63) + WORD)
    assert bits.take_lowest(1 << 63) == (1 << 63) + WORD


def test_full_words_share_one_integer_and_empty_ones_are_dropped() -> None:
    """Memory: a full word costs a dict entry; releasing everything leaves nothing behind."""
    bits = Bitmap(2**24)
    for n in range(8 * WORD):
        bits.take(n)
    words = bits._levels[0]
    assert {id(word) for word in words.values()} == {id(bitmap._FULL)}
    assert sys.getsizeof(words) < 1000
    for n in reversed(range(8 * WORD)):
        bits.release(n)
    assert [len(level) for level in bits._levels] == [0, 0]


@pytest.mark.parametrize("size", [0, -1, 2**128 + 1, 1.0, "8", None, True])
def test_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(InvalidValueError, match="invalid bitmap size"):
        Bitmap(size)  # type: ignore[arg-type]


def test_numbers_and_windows_outside_are_refused() -> None:
    bits = Bitmap(100)
    assert -1 not in bits
    assert 100 not in bits
    for n in (-1, 100, 2**200):
        with pytest.raises(InvalidValueError, match="not in"):
            bits.take(n)
        with pytest.raises(InvalidValueError, match="not in"):
            bits.release(n)
    for start, stop in [(-1, 5), (6, 5), (0, 101), (101, None)]:
        with pytest.raises(InvalidValueError, match="window"):
            bits.lowest_free(start, stop)
        with pytest.raises(InvalidValueError, match="window"):
            bits.count(start, stop)


def test_size_cannot_be_changed_and_typos_are_errors() -> None:
    bits = Bitmap(5)
    with pytest.raises(AttributeError):
        bits.size = 6
    with pytest.raises(AttributeError):
        bits.sizes = 6  # type: ignore[attr-defined]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), exponent=st.integers(0, 40))
def test_random_bulk_agrees_with_a_set(seed: int, exponent: int) -> None:
    """Thousands of random operations with real word sizes, clustered so that words do fill."""
    rng = random.Random(seed)
    size = 6000 + (1 << exponent)
    base = rng.randrange(size - 6000)
    bits, model = Bitmap(size), set[int]()
    for n in range(base, base + 5000):
        if rng.random() < 0.98:
            assert bits.take(n) == (n not in model)
            model.add(n)
    for _ in range(100):
        start = base + rng.randrange(5000)
        expected = next(n for n in range(start, size + 1) if n not in model)
        if expected < size:
            assert bits.take_lowest(start) == expected
            model.add(expected)
        gone = rng.choice(sorted(model))
        assert bits.release(gone)
        model.remove(gone)
    window = (base + rng.randrange(3000), base + 3000 + rng.randrange(3000))
    assert bits.count(*window) == sum(window[0] <= n < window[1] for n in model)
    assert bits.count() == len(model)


class TinyWords(RuleBasedStateMachine):
    """With words of four bits, every level fills and empties within a few dozen operations."""

    size: int
    bits: Bitmap
    model: set[int]

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        constants = {"_SHIFT": 2, "_WORD_BITS": 4, "_OFFSET": 3, "_FULL": 15}
        for name, value in constants.items():
            self.patch.setattr(bitmap, name, value)

    def teardown(self) -> None:
        """Give the module its real words back."""
        self.patch.undo()

    @initialize(size=st.integers(1, 70), share=st.sampled_from([0, 50, 100]), rng=st.randoms())
    def new(self, size: int, share: int, rng: random.Random) -> None:
        """Start somewhere between empty and full."""
        self.size, self.bits = size, Bitmap(size)
        self.model = {n for n in range(size) if rng.randrange(100) < share}
        for n in self.model:
            assert self.bits.take(n)

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(0, self.size - 1))
        assert self.bits.take(n) == (n not in self.model)
        self.model.add(n)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(0, self.size - 1))
        assert self.bits.release(n) == (n in self.model)
        self.model.discard(n)

    @rule(data=st.data(), take=st.booleans())
    def lowest(self, data: st.DataObject, take: bool) -> None:
        start = data.draw(st.integers(0, self.size))
        stop = data.draw(st.integers(start, self.size))
        expected = next((n for n in range(start, stop) if n not in self.model), None)
        assert self.bits.lowest_free(start, stop) == expected
        assert self.bits.count(start, stop) == sum(start <= n < stop for n in self.model)
        if take:
            assert self.bits.take_lowest(start, stop) == expected
            self.model |= {expected} - {None}  # type: ignore[arg-type]

    @invariant()
    def agrees(self) -> None:
        """Membership, count, and the levels: a bit above says exactly that the word below is full."""
        if not hasattr(self, "bits"):
            return
        assert {n for n in range(self.size) if n in self.bits} == self.model
        assert self.bits.count() == len(self.model)
        for below, above in zip(self.bits._levels, self.bits._levels[1:], strict=False):
            full = {index for index, word in below.items() if word == bitmap._FULL}
            marked = {
                index << 2 | bit for index, word in above.items() for bit in range(4) if word >> bit & 1
            }
            assert full == marked


TestTinyWords = TinyWords.TestCase
TestTinyWords.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
