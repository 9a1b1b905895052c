"""Who the people of the nation are by name and number: the identifiable side of people whom `nation` only draws.

Enters: people as arrays, and `Draws`. Leaves: CHI numbers, names and postcodes as Arrow strings. Pure. No two people have one number,
however many there are: the people of one day of birth (two digits of the year) and sex are numbered in the order of their indices, and each
takes the number of that rank. So a number depends on seed and on how many people there are, and on nothing else.
"""

from dataclasses import dataclass
from functools import cache
from itertools import islice
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pictures_spark.resources import load_schema
from pictures_spark.synthetic.draws import Bits, Draws, Flags, Whole
from pictures_spark.synthetic.lives import People
from pictures_spark.synthetic.nation import Home, first_day, last_day, people
from pictures_spark.synthetic.people import invented_words
from pictures_spark.synthetic.questions import planted

_WEIGHTS = np.arange(10, 1, -1)
_SURNAMES, _FORENAMES = 4000, 600
_BLOCK = 500_000
_LETTERS = "ABDEFGHJLNPQRSTUWXYZ"


@dataclass(frozen=True)
class Ranks:
    """Rank of each person among those of one birth day and sex; ``older`` that of the person's older number, -1 where there is none.

    The first entries are the people ``planted``, by index from the greatest, then come people 0, 1, 2 …
    """

    planted: Whole
    current: Whole
    older: Whole

    def of(self, index: Whole) -> tuple[Whole, Whole]:
        """(current, older) of people by index."""
        # Indices of planted people are negative.
        place = np.where(index < 0, np.searchsorted(-self.planted, -index), index + len(self.planted))
        return self.current[place], self.older[place]


def ranks(draws: Draws, count: int) -> Ranks:
    """The ranks of the planted people and of ``count`` more: 8 bytes a person."""
    share = load_schema("synthetic/extracts.yaml")["older_number"]
    seeded = planted(draws).lives.people
    keys, had = [_key(seeded.birth, seeded.male)], [np.zeros(len(seeded), bool)]
    for start in range(0, count, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, count))
        group = people(draws, index)
        keys.append(_key(group.birth, group.male))
        had.append(draws.happens("older", index, share))
    key, older = np.concatenate(keys), np.flatnonzero(np.concatenate(had))
    rank = _rank(np.concatenate([key, key[older]]))
    second = np.full(len(key), -1, np.int64)
    second[older] = rank[len(key) :]
    return Ranks(seeded.index, rank[: len(key)], second)


def _key(birth: Whole, male: Flags) -> Whole:
    year, month, day = _calendar(birth)
    return (((year % 100) * 13 + month) * 32 + day) * 2 + male


def _rank(key: Whole) -> Whole:
    """How many of the same key come before each."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    firsts = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(key), np.int64)
    rank[order] = np.arange(len(key)) - firsts
    return rank


def _calendar(days: Whole) -> tuple[Whole, Whole, Whole]:
    """Year, month and day."""
    dates = np.asarray(days).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    return dates.astype("datetime64[Y]").astype(np.int64) + 1970, months.astype(np.int64) % 12 + 1, (dates - months).astype(np.int64) + 1


@cache
def _serials() -> dict[tuple[int, int], Whole]:
    """(sex, rest of the first six digits' sum by 11) -> the three digits that have a check digit, in order."""
    numbers = np.arange(1000)
    digits = np.stack([numbers // 100, numbers // 10 % 10, numbers % 10], axis=1)
    rest = digits @ _WEIGHTS[6:]
    found = {}
    for male in (0, 1):
        for before in range(11):
            # 11 - sum = 10 is no digit.
            found[male, before] = numbers[(digits[:, 2] % 2 == male) & ((rest + before) % 11 != 1)]
    return found


def numbers_of(birth: Whole, male: Flags, rank: Whole) -> pa.StringArray:
    """CHI numbers.

    Examples
    --------
    >>> from pictures_spark.synthetic.people import check_digit
    >>> found = numbers_of(np.array([7000, 7000]), np.array([True, True]), np.array([0, 1])).to_pylist()
    >>> [text[:6] for text in found], all(check_digit(text[:9]) == text[9] for text in found), found[0] != found[1]
    (['020389', '020389'], True, True)
    """
    year, month, day = _calendar(birth)
    digits = np.empty((len(birth), 10), np.int64)
    for at, part in enumerate((day, month, year % 100)):
        digits[:, 2 * at], digits[:, 2 * at + 1] = part // 10, part % 10
    before = digits[:, :6] @ _WEIGHTS[:6] % 11
    serial = np.empty(len(birth), np.int64)
    for (sex, rest), choice in _serials().items():
        rows = (male == bool(sex)) & (before == rest)
        serial[rows] = choice[rank[rows]]
    digits[:, 6], digits[:, 7], digits[:, 8] = serial // 100, serial // 10 % 10, serial % 10
    digits[:, 9] = (11 - digits[:, :9] @ _WEIGHTS % 11) % 11
    return texts(digits + ord("0"))


def texts(characters: Whole) -> pa.StringArray:
    """Rows of ASCII characters as strings of one width."""
    rows, width = characters.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    data = np.ascontiguousarray(characters, dtype=np.uint8).tobytes()
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data))


@dataclass(frozen=True)
class Register:
    """Names and numbers of a batch; where there is an ``older`` number it was in use before day ``change``."""

    upi: pa.Array
    older: pa.Array
    change: Whole
    forename: pa.Array
    surname: pa.Array

    def number(self, who: Whole, on: Whole) -> pa.Array:
        """The number that was in use on a day."""
        before = (on < self.change[who]) & self.older.is_valid().to_numpy(zero_copy_only=False)[who]
        return pc.if_else(pa.array(before), self.older.take(pa.array(who)), self.upi.take(pa.array(who)))


def register(draws: Draws, group: People, ranked: Ranks, homes: Home) -> Register:
    """Who the people of a batch are. An older number was given up while its person lived here, or there is none."""
    current, older = ranked.of(group.index)
    change = draws.whole("older/day", group.index, first_day() + 400, last_day() - 400)
    inside = np.zeros(len(group), bool)
    during = (homes.start < change[homes.who]) & (homes.to >= change[homes.who])
    inside[homes.who[during]] = True
    had = (older >= 0) & inside
    second = numbers_of(group.birth, group.male, np.maximum(older, 0))
    surnames, forenames = _names()
    return Register(
        upi=numbers_of(group.birth, group.male, current),
        older=pc.if_else(pa.array(had), second, pa.scalar(None, pa.string())),
        change=change,
        forename=forenames.take(pa.array(draws.choice("forename", group.index, _met(_FORENAMES)))),
        surname=surnames.take(pa.array(draws.choice("surname", group.index, _met(_SURNAMES)))),
    )


@cache
def _names() -> tuple[pa.Array, pa.Array]:
    words = list(islice(invented_words(Random("names")), _SURNAMES + _FORENAMES))
    return pa.array(words[:_SURNAMES]), pa.array(words[_SURNAMES:])


@cache
def _met(count: int) -> tuple[float, ...]:
    """How often names are met: the n-th with weight 1 / (n + 10)."""
    return tuple(1 / (place + 10) for place in range(count))


def postcodes(draws: Draws, index: Whole, slot: Whole) -> pa.StringArray:
    """Postcodes of homes, in areas that do not exist."""
    areas = load_schema("synthetic/words.yaml")["postcode_areas"]
    bits: Bits = draws.bits("postcode", index, slot)
    letters = np.frombuffer("".join(areas).encode(), np.uint8).reshape(len(areas), 2)
    inner = np.frombuffer(_LETTERS.encode(), np.uint8)
    found = np.full((len(index), 8), ord(" "), np.int64)
    found[:, :2] = letters[(bits % np.uint64(len(areas))).astype(np.int64)]
    found[:, 2] = ord("1") + (bits >> np.uint64(8)) % np.uint64(9)
    found[:, 3] = ord("0") + (bits >> np.uint64(16)) % np.uint64(10)
    found[:, 5] = ord("1") + (bits >> np.uint64(24)) % np.uint64(9)
    for at in (6, 7):
        found[:, at] = inner[((bits >> np.uint64(8 * at - 16)) % np.uint64(len(inner))).astype(np.int64)]
    return texts(found)
