"""Dates as text in the form that a source declares, as Arrow dates. Fixed-width forms only, which is what extracts have.

A form is written with %Y %m %d %H %M %S and the characters between them. Pure; runs on executors.
"""

import re
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pictures_spark.errors import ConfigError

# What a form must tell.
DAY = ("%Y", "%m", "%d")
TIME = ("%H", "%M")
# Width of each part, and what numbers it may be; how long a month is is looked at later.
_PARTS = {"%Y": 4, "%m": 2, "%d": 2, "%H": 2, "%M": 2, "%S": 2}
_LIMITS = {"%m": (1, 12), "%d": (1, 31), "%H": (0, 23), "%M": (0, 59), "%S": (0, 59)}
_EPOCH = 1970
_NINE = 9


class Layout(NamedTuple):
    """A form: how long a text is, where each part begins, from 1, and what stands between."""

    width: int
    places: dict[str, int]
    between: dict[int, str]


@cache
def layout(form: str, needs: tuple[str, ...] = DAY) -> Layout:
    """The layout of a declared form.

    Raises
    ------
    ConfigError
        It has a directive that is not known, or lacks one that it ``needs``.

    Examples
    --------
    >>> layout("%d/%m/%Y").places
    {'%d': 1, '%m': 4, '%Y': 7}
    """
    places: dict[str, int] = {}
    between: dict[int, str] = {}
    at = 1
    for part in re.findall(r"%.|.", form):
        if part.startswith("%") and part not in _PARTS:
            raise ConfigError(f"date format {form!r}: {part} is not one of {', '.join(_PARTS)}")
        if part in _PARTS:
            places[part] = at
        else:
            between[at] = part
        at += _PARTS.get(part, 1)
    if not set(needs) <= set(places):
        raise ConfigError(f"date format {form!r} needs {', '.join(needs[:-1])} and {needs[-1]}")
    return Layout(at - 1, places, between)


class Days(NamedTuple):
    """What texts in declared forms tell: days (date32) and times of day (HH:MM:SS), null where none; and which texts are right."""

    days: pa.Array
    times: pa.Array
    valid: np.ndarray


def parse(texts: pa.Array, forms: tuple[str, ...], earliest: str | None = None) -> Days:
    """Days and times of texts that have one of some forms, on a day of the calendar that is not before the earliest.

    Examples
    --------
    >>> parse(pa.array(["29/02/2016", "29/02/2015", ""]), ("%d/%m/%Y",)).days.to_pylist()
    [datetime.date(2016, 2, 29), None, None]
    """
    count = len(texts)
    valid, timed = np.zeros(count, bool), np.zeros(count, bool)
    days, seconds = np.zeros(count, np.int32), np.zeros(count, np.int32)
    _, offsets, content = texts.buffers()
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + count + 1] if count else np.zeros(1, np.int32)
    data = np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8)
    lengths = np.diff(starts)
    for form in forms:
        shape = layout(form, ())
        rows = np.flatnonzero((lengths == shape.width) & ~valid)
        if not len(rows):
            continue
        found = data[starts[rows][:, None] + np.arange(shape.width)]
        fits = np.ones(len(rows), bool)
        for place, character in shape.between.items():
            fits &= found[:, place - 1] == ord(character)
        parts = {}
        for directive, place in shape.places.items():
            digits = found[:, place - 1 : place - 1 + _PARTS[directive]].astype(np.int32) - ord("0")
            fits &= ((digits >= 0) & (digits <= _NINE)).all(axis=1)
            parts[directive] = digits @ (10 ** np.arange(_PARTS[directive] - 1, -1, -1))
        for directive, (low, high) in _LIMITS.items():
            if directive in parts:
                fits &= (parts[directive] >= low) & (parts[directive] <= high)
        rows, parts = rows[fits], {directive: numbers[fits] for directive, numbers in parts.items()}
        if "%Y" in parts:
            month = ((parts["%Y"] - _EPOCH) * 12 + parts["%m"] - 1).astype("datetime64[M]")
            first = month.astype("datetime64[D]")
            day = first + (parts["%d"] - 1)
            there = (day < (month + 1).astype("datetime64[D]")) & (day >= np.datetime64(earliest or "0001-01-01"))
            rows, parts = rows[there], {directive: numbers[there] for directive, numbers in parts.items()}
            days[rows] = day[there].astype(np.int32)
        valid[rows] = True
        if "%H" in parts:
            timed[rows] = True
            seconds[rows] = parts["%H"] * 3600 + parts["%M"] * 60 + parts.get("%S", 0)
    return Days(pa.array(days, pa.int32(), mask=~valid).cast(pa.date32()), _clock(seconds, timed), valid)


def _clock(seconds: np.ndarray, timed: np.ndarray) -> pa.Array:
    if not timed.any():
        return pa.nulls(len(seconds), pa.string())
    distinct, numbers = np.unique(seconds, return_inverse=True)
    texts = [f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}" for second in distinct.tolist()]
    return pa.array(texts, pa.string()).take(pa.array(numbers, mask=~timed))
