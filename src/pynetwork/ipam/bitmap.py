"""A set of numbers below a limit that finds its lowest absent member at once, in every state.

Python integers serve as words of 4096 bits. A word costs memory only once a number in it is taken,
so the 2**64 addresses of an IPv6 subnet are no harder than the 254 of an IPv4 one.
"""

from __future__ import annotations

from typing import Final

import attrs

from pynetwork.errors import InvalidValueError

__all__ = ["Bitmap"]

# Measured: shorter words need more dict look-ups, longer ones make each integer operation slower.
_SHIFT: Final = 12
_WORD_BITS: Final = 1 << _SHIFT
_OFFSET: Final = _WORD_BITS - 1
# Every full word is this one object: a full word costs a dict entry, not 560 bytes.
_FULL: Final = (1 << _WORD_BITS) - 1
_MAX_SIZE: Final = 1 << 128


def _new_levels(bitmap: Bitmap) -> tuple[dict[int, int], ...]:
    _check_size(bitmap, None, bitmap.size)  # attrs makes defaults before it validates
    count = 1
    while bitmap.size > 1 << (_SHIFT * count):
        count += 1
    return tuple({} for _ in range(count))


def _check_size(_instance: object, _attribute: object, size: int) -> None:
    if type(size) is not int or not 1 <= size <= _MAX_SIZE:
        msg = f"invalid bitmap size {size!r}: use 1 to 2**128"
        raise InvalidValueError(msg)


@attrs.define(eq=False)
class Bitmap:
    """
    Numbers in ``[0, size)``, each free or taken. Not thread-safe by itself.

    Level 0 holds one bit per number. A bit of the next level says that the word below it is full, and
    so on: whatever is taken, the lowest free number is two or three look-ups away. Words beyond the
    end are simply absent, hence free; a search that ends there has found nothing.

    Args:
        size: 1 to 2**128.

    Raises:
        InvalidValueError: Here and in the methods, for a number or window outside ``[0, size)``.
    """

    size: int = attrs.field(on_setattr=attrs.setters.frozen)
    _levels: tuple[dict[int, int], ...] = attrs.field(
        init=False, repr=False, default=attrs.Factory(_new_levels, takes_self=True)
    )
    _taken: int = attrs.field(init=False, default=0)

    def __contains__(self, n: int) -> bool:
        """Tell whether *n* is taken."""
        return n >= 0 and bool(self._levels[0].get(n >> _SHIFT, 0) >> (n & _OFFSET) & 1)

    def take(self, n: int) -> bool:
        """Take *n*; False when it was taken already."""
        self._check(n)
        if n in self:
            return False
        self._set(n)
        return True

    def release(self, n: int) -> bool:
        """Free *n*; False when it was free already."""
        self._check(n)
        if n not in self:
            return False
        self._clear(n)
        return True

    def lowest_free(self, start: int = 0, stop: int | None = None) -> int | None:
        """Return the lowest free number in ``[start, stop)``, None when all are taken. Does not wrap."""
        if stop is None:
            stop = self.size
        self._check_window(start, stop)
        n = self._first_clear(0, start)
        return n if n < stop else None

    def take_lowest(self, start: int = 0, stop: int | None = None) -> int | None:
        """Take the lowest free number in ``[start, stop)`` and return it; None when all are taken."""
        n = self.lowest_free(start, stop)
        if n is not None:
            self._set(n)
        return n

    def count(self, start: int = 0, stop: int | None = None) -> int:
        """Count the taken numbers in ``[start, stop)``: at once for all, by words for a window."""
        if stop is None:
            stop = self.size
        self._check_window(start, stop)
        if (start, stop) == (0, self.size):
            return self._taken
        words = self._levels[0]
        first, last = start >> _SHIFT, (stop - 1) >> _SHIFT
        # Whichever is shorter: the words that exist, or those of the window.
        indexes = range(first, last + 1) if last - first < len(words) else words
        return sum(
            _ones(words[index], start - (index << _SHIFT), stop - (index << _SHIFT))
            for index in indexes
            if first <= index <= last and index in words
        )

    def _first_clear(self, level: int, start: int) -> int:
        words = self._levels[level]
        index, offset = start >> _SHIFT, start & _OFFSET
        word = words.get(index, 0)
        if word is not _FULL:
            bit = offset + _lowest_clear(word >> offset)
            if bit < _WORD_BITS:
                return index << _SHIFT | bit
        # The rest of this word is full. The level above knows the next word that is not; the top
        # level is one word long, so there the search ends beyond it.
        index += 1
        if level + 1 < len(self._levels):
            index = self._first_clear(level + 1, index)
        return index << _SHIFT | _lowest_clear(words.get(index, 0))

    def _set(self, n: int) -> None:
        self._taken += 1
        for words in self._levels:
            index = n >> _SHIFT
            word = words.get(index, 0) | 1 << (n & _OFFSET)
            if word != _FULL:
                words[index] = word
                return
            words[index] = _FULL
            n = index  # this word is full: mark it so, one level up

    def _clear(self, n: int) -> None:
        self._taken -= 1
        for words in self._levels:
            index = n >> _SHIFT
            full = words[index]
            word = full ^ 1 << (n & _OFFSET)
            if word:
                words[index] = word
            else:
                del words[index]
            if full is not _FULL:
                return
            n = index

    def _check(self, n: int) -> None:
        if not 0 <= n < self.size:
            msg = f"invalid number {n}: not in [0, {self.size})"
            raise InvalidValueError(msg)

    def _check_window(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.size:
            msg = f"invalid window [{start}, {stop}): not within [0, {self.size})"
            raise InvalidValueError(msg)


def _lowest_clear(word: int) -> int:
    # Adding one flips the trailing ones and the lowest zero; exactly those differ.
    return (word ^ word + 1).bit_length() - 1


def _ones(word: int, start: int, stop: int) -> int:
    start, stop = max(start, 0), min(stop, _WORD_BITS)
    return (word >> start & (1 << (stop - start)) - 1).bit_count()
