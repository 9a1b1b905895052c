"""Random numbers that depend on (seed, stream, person, slot) only: the same for a person in whatever batch or process they are drawn.

Enters: 64-bit indices of people (or of their things). Leaves: numpy arrays of the same length. Pure. Counter-based: each number is the
finalizer of SplitMix64 (Steele, Lea, Flood 2014) over index and slot, so nothing is carried from one draw to the next.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Whole = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

_STEP, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def mixed(values: Bits) -> Bits:
    """SplitMix64's finalizer: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """A source of numbers for one seed.

    Examples
    --------
    >>> draws = Draws(1)
    >>> draws.whole("day", np.array([5, 6, 7]), 1, 6).tolist() == [draws.whole("day", np.array([i]), 1, 6)[0] for i in (5, 6, 7)]
    True
    """

    seed: int

    def bits(self, stream: str, index: npt.NDArray[np.int64], slot: npt.NDArray[np.int64] | int = 0) -> Bits:
        """64 random bits per index."""
        start = np.uint64(int.from_bytes(hashlib.sha256(f"{self.seed}\x1f{stream}".encode()).digest()[:8], "little"))
        slots = np.atleast_1d(np.asarray(slot)).astype(np.uint64)
        return mixed(mixed(np.asarray(index).astype(np.uint64) * _STEP + start) + (slots + np.uint64(1)) * _STEP)

    def uniform(self, stream: str, index: Whole, slot: Whole | int = 0) -> Real:
        """Numbers in [0, 1)."""
        return (self.bits(stream, index, slot) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def happens(self, stream: str, index: Whole, share: float | Real, slot: Whole | int = 0) -> Flags:
        """True with the given probability."""
        return self.uniform(stream, index, slot) < share

    def whole(self, stream: str, index: Whole, low: int | Whole, high: int | Whole, slot: Whole | int = 0) -> Whole:
        """Whole numbers of the closed range [low, high]; ``low`` where the range is empty."""
        room = np.maximum(np.asarray(high) - np.asarray(low) + 1, 1)
        return np.asarray(low) + (self.uniform(stream, index, slot) * room).astype(np.int64)

    def choice(self, stream: str, index: Whole, weights: Sequence[float], slot: Whole | int = 0) -> Whole:
        """Positions in ``weights``, each as often as its weight says."""
        ends = np.cumsum(np.asarray(weights, dtype=np.float64))
        return np.minimum(np.searchsorted(ends, self.uniform(stream, index, slot) * ends[-1], side="right"), len(ends) - 1)

    def names(self, kind: str, index: Whole, slot: Whole | int = 0) -> pa.StringArray:
        """Names in the form of a pseudonym: 32 hex digits, one per (kind, index, slot)."""
        halves = np.empty((len(index), 2), np.dtype(">u8"))
        halves[:, 0], halves[:, 1] = self.bits(f"name/{kind}/0", index, slot), self.bits(f"name/{kind}/1", index, slot)
        return hexadecimal(halves.view(np.uint8).reshape(len(index), 16))


def hexadecimal(rows: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Rows of bytes as strings of hex digits.

    Examples
    --------
    >>> hexadecimal(np.array([[1, 255]], np.uint8)).to_pylist()
    ['01ff']
    """
    digits = np.empty((*rows.shape, 2), np.uint8)
    digits[..., 0], digits[..., 1] = _HEX[rows >> 4], _HEX[rows & 15]
    width = rows.shape[1] * 2
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets.tobytes()), pa.py_buffer(digits.tobytes()))


def completed_years(birth: Whole, on: Whole) -> Whole:
    """Completed years between two days (counted from 1970-01-01); who is born on 29 February has the birthday on 1 March in common years.

    Negative where ``on`` lies before ``birth``. The same rule as `pictures_spark.deid.derive.completed_years`.
    """
    (birth_year, birth_rest), (year, rest) = _parts(birth), _parts(on)
    return year - birth_year - (rest < birth_rest)


def _parts(days: Whole) -> tuple[Whole, Whole]:
    """Year, and month * 100 + day."""
    dates = np.asarray(days).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    month = months.astype(np.int64) % 12 + 1
    return dates.astype("datetime64[Y]").astype(np.int64) + 1970, month * 100 + (dates - months).astype(np.int64) + 1


def day(text: str) -> int:
    """Days from 1970-01-01 to a date.

    Examples
    --------
    >>> day("1970-01-02")
    1
    """
    return int(np.datetime64(text, "D").astype(np.int64))
