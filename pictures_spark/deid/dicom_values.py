"""A person's own identifiers in codes, numbers and bytes that would stay, and what would have to be of a person for a value to be refused.

What enters: the identifiers, as a :class:`Scrub` holds them, and values of elements. What leaves: whether one is in a value. Pure;
executors.

Most values are nobody's. A value is judged once as nobody's, and :class:`Noted` keeps which words must not be the person's for that to
hold: to ask a person for them costs less than to judge anew.
"""

import re
import struct
from datetime import date
from functools import cache
from typing import NamedTuple

import numpy as np

from pictures_spark.deid.dicom_scrub import GLUED, LONG, Scrub, joined_words, known_code, normal, plainly, words_of

NUMBERS = {"UL": "<u4", "SL": "<i4", "FL": "<f4", "FD": "<f8"}
# Of fewer bytes, to make an array would cost more than to look at each number.
_FEW = 128
_UNPACKED = {"UL": struct.Struct("<I"), "SL": struct.Struct("<i"), "FL": struct.Struct("<f"), "FD": struct.Struct("<d")}
# Numbers of more digits are looked at; smaller ones are no identifier.
_SMALL = 10.0 ** (LONG - 1)
# No measurement is so far from one; letters that are read as a number are.
_LARGEST, _SMALLEST = 1e15, 1e-20
# Letters in a row by chance are shorter; in a table, which may be a ramp through the whole alphabet, they mean nothing.
_LETTERS = re.compile(rb"[A-Za-z][A-Za-z ^'-]{8,}[A-Za-z]")
_LONG_RUNS = re.compile(f"[0-9]{{{LONG},}}")
_DIGITS = re.compile(r"[0-9]+")
_WORDS = re.compile(r"[A-Za-z0-9]+")


def _in_order(letters: bytes) -> bool:
    """Whether letters come in the order of the alphabet, or backwards: a ramp of grey values, and no name.

    Examples
    --------
    >>> _in_order(b"AABBCCDDEE"), _in_order(b"zyxwvutsrq"), _in_order(b"Quillfeather")
    (True, True, False)
    """
    return list(letters) in (sorted(letters), sorted(letters, reverse=True))


class Values:
    """Looks for a person's own identifiers, and for what reads like a date or a long number, in codes and numbers that would stay."""

    def __init__(self, scrub: Scrub, limits: dict[str, int]) -> None:
        self.limits = limits
        self.is_glued = scrub.is_glued
        self.words = frozenset(word for word in scrub.words if len(word) >= limits["identifier_length"])
        self.inside = scrub.long
        # A number without as many digits in a row is neither.
        self.long_run = _run_of(min(LONG, limits["integer_digits"] + 1, 8))
        self._encoded: list[bytes] | None = None

    @property
    def encoded(self) -> list[bytes]:
        """The long identifiers as bytes."""
        if self._encoded is None:
            self._encoded = [word.encode(form) for word in self.inside for form in ("utf-8", "utf-16-le", "utf-16-be")]
        return self._encoded

    def in_text(self, value: str) -> bool:
        """Whether a code string holds an identifier or a long run of digits."""
        if any(len(run) > self.limits["code_digits"] for run in _DIGITS.findall(value)):
            return True
        whole = normal(value)
        if any(word in whole for word in self.inside):
            return True
        words = _WORDS.findall(value)
        return whole in self.words or any(normal(word) in self.words for word in words) or any(map(self.is_glued, _unknown(words)))

    def in_bytes(self, value: bytes, table: bool) -> bool:
        """Whether binary numbers are letters in truth, or an identifier in any encoding of it."""
        if len(value) < LONG:
            return False
        low = value.lower()
        return any(word in low for word in self.encoded) or (
            not table and any(not _in_order(found[0]) for found in _LETTERS.finditer(value))
        )

    def in_numbers(self, vr: str, value: bytes) -> bool:
        """Whether one of some binary numbers is an identifier, reads as a date, or is no measurement."""
        if len(value) <= _FEW:
            return self._in_few_numbers(vr[0] == "F", [number for (number,) in _UNPACKED[vr].iter_unpack(value)])
        numbers = np.frombuffer(value, dtype=NUMBERS[vr])
        if vr[0] == "F":
            size = np.abs(numbers)
            if not (np.isfinite(size) & (size <= _LARGEST) & ((size >= _SMALLEST) | (size == 0))).all():
                return True
        large = np.unique(numbers[np.abs(numbers.astype(np.float64)) >= _SMALL])
        return any(self.in_number(f"{number:.6f}" if vr[0] == "F" else str(number)) for number in large.tolist())

    def _in_few_numbers(self, real: bool, numbers: list[float]) -> bool:
        if real and not all(number == 0 or _SMALLEST <= abs(number) <= _LARGEST for number in numbers):
            return True
        return any(self.in_number(f"{number:.6f}" if real else str(number)) for number in numbers if abs(number) >= _SMALL)

    def in_number(self, value: str) -> bool:
        """Whether a number, as text, is an identifier, reads as a date, or is longer than any measurement."""
        if not self.long_run.search(value):
            return False
        whole = _DIGITS.search(value)[0].lstrip("0")  # type: ignore[index]
        if len(whole) > self.limits["integer_digits"] or (len(whole) == 8 and calendar(whole) is not None):
            return True
        return not self.words.isdisjoint(_readings(value))

    def in_fractions(self, value: bytes) -> bool:
        """Whether an identifier is in the digits of decimal numbers whose whole parts are too short for one."""
        return not self.words.isdisjoint(_readings(value.decode("ascii")))

    def inside_any(self, whole: str, blob: bytes) -> bool:
        """Whether a long identifier is in letters that were put together, or in bytes."""
        return any(word in whole for word in self.inside) or (bool(blob) and any(word in blob for word in self.encoded))


class Unless(NamedTuple):
    """What must not be the person's: words; words near to which none of the person's may be; letters, and bytes in lower case, inside which
    no long identifier may be."""

    words: frozenset[str]
    near: tuple[str, ...]
    whole: str
    blob: bytes


NOTHING = Unless(frozenset(), (), "", b"")


class Noted:
    """Gathers what must not be the person's while an element is judged as nobody's."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self.words: set[str] = set()
        self.near: set[str] = set()
        self.wholes: list[str] = []
        self.blobs: list[bytes] = []

    def unless(self) -> Unless:
        """All that was noted."""
        if not (self.words or self.near or self.wholes or self.blobs):
            return NOTHING
        return Unless(frozenset(self.words), tuple(self.near), "\0".join(self.wholes), b"\xff".join(self.blobs))

    def code(self, wholes: tuple[str, ...], words: frozenset[str]) -> None:
        """The values of a code string: all letters of each, and their words."""
        self.wholes += wholes
        self.words |= words


class NotedValues(Values):
    """Nobody's identifiers; notes what somebody else's are to be looked for in."""

    def __init__(self, scrub: Scrub, limits: dict[str, int], noted: Noted) -> None:
        super().__init__(scrub, limits)
        self.noted = noted

    def in_text(self, value: str) -> bool:
        """As `Values.in_text`."""
        whole = normal(value)
        words = _WORDS.findall(value)
        self.noted.code((whole,), frozenset((whole, *map(normal, words))))
        self.noted.near.update(_unknown(words))
        return super().in_text(value)

    def in_bytes(self, value: bytes, table: bool) -> bool:
        """As `Values.in_bytes`."""
        if len(value) >= LONG:
            self.noted.blobs.append(value.lower())
        return super().in_bytes(value, table)

    def in_fractions(self, value: bytes) -> bool:
        """As `Values.in_fractions`."""
        self.noted.words |= _readings(value.decode("ascii"))
        return False

    def in_number(self, value: str) -> bool:
        """As `Values.in_number`."""
        if self.long_run.search(value):
            self.noted.words |= _readings(value)
        return super().in_number(value)


class NotedScrub(Scrub):
    """Nobody's identifiers; notes the texts that somebody else's are to be looked for in."""

    def __init__(self, shortest: int, noted: Noted) -> None:
        super().__init__((), (), shortest)
        self.noted = noted

    def clean(self, text: str, vocabulary: bool = False, mask: bool = False) -> str:
        """As `Scrub.clean`."""
        plain = plainly(text)
        words = [word for word, _ in words_of(plain)]
        self.noted.words.update(words, (word for word, _ in joined_words(plain)))
        self.noted.near.update(word for word in words if len(word) > GLUED)
        self.noted.wholes.append(normal(plain))
        return super().clean(text, vocabulary, mask)


def _unknown(words: list[str]) -> list[str]:
    """Words of a code string that no code string is known to hold, and that a name might be in."""
    return [normal(word) for word in words if len(word) > GLUED and not known_code(word)]


def calendar(digits: str) -> date | None:
    """The day that eight digits are, year first; None where they are none."""
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _readings(value: str) -> set[str]:
    """The long runs of digits in a number as an identifier may be spelt: as they are, without zeros before them, with one."""
    found = set()
    for run in _LONG_RUNS.findall(value):
        found.add(run)
        bare = run.lstrip("0")
        if len(bare) >= LONG:
            found.update((bare, f"0{bare}"))
    return found


@cache
def _run_of(digits: int) -> "re.Pattern[str]":
    return re.compile(f"[0-9]{{{digits},}}")
