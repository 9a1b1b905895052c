"""What the texts that were read in pixels mean: markers that name nobody, the kind of a page, and this patient's own words. Pure.

Data: schemas/pixels/words.yaml. Identifiable zone only.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any
from unicodedata import normalize

from pictures_spark.resources import load_schema

TEXT, DOSE_REPORT, FORM = "text", "dose_report", "form"
NAME, NUMBER, DATE = "name", "number", "date"
# How a day is written: on devices, in words, without and with the century.
_DAYS = ("%d%m%Y", "%Y%m%d", "%m%d%Y", "%d%m%y", "%y%m%d", "%d%b%Y", "%d%b%y", "%d%B%Y")
# Letters that a reader takes for one another, in numbers.
_AS_DIGITS = str.maketrans("OQDILZSBG", "000112586")


def is_marker(text: str) -> bool:
    """Whether a whole text is a marker of side, view, position or scale.

    >>> is_marker("R MLO"), is_marker("10 cm"), is_marker("R SMITH")
    (True, True, False)
    """
    word = "".join(text.upper().split())
    return word in _markers() or any(re.fullmatch(pattern, word) for pattern in _words()["scales"])


def kind_of(texts: Sequence[str]) -> str:
    """The kind of what has these texts: ``dose_report``, ``form`` or just ``text``.

    >>> kind_of(["Total DLP 512 mGycm", "CTDIvol"] + ["1.2"] * 5)
    'dose_report'
    """
    rule = _words()["kinds"]
    if len(texts) >= rule["least_lines"]:
        together = " " + " ".join(re.sub(r"[^A-Z]+", " ", text.upper()) for text in texts) + " "
        for kind in (DOSE_REPORT, FORM):
            if sum(f" {word} " in together for word in rule[kind]) >= rule["least_words"]:
                return kind
    return TEXT


def matches(text: str, own: Mapping[str, Iterable[Any]]) -> list[str]:
    """Which kinds of a patient's own words a text has in it, sorted: name, number, date.

    Parameters
    ----------
    own : ``name`` and ``number`` (texts as the header has them) and ``date`` (days) of the patient and the study; None counts for nothing.
    """
    rule = _words()["matches"]
    letters = _plain(text)
    digits = "".join(filter(str.isdigit, letters.translate(_AS_DIGITS)))
    found = set()
    for name in own.get(NAME, ()):
        for word in re.split(r"[\^=,\s]+", name or ""):
            wanted = _plain(word)
            if len(wanted) >= rule["least_letters"] and _within(wanted, letters, len(wanted) // rule["letters_per_error"]):
                found.add(NAME)
    for number in own.get(NUMBER, ()):
        wanted = "".join(filter(str.isdigit, number or ""))
        if len(wanted) >= rule["least_digits"] and _within(wanted, digits, len(wanted) // (2 * rule["letters_per_error"])):
            found.add(NUMBER)
    for day in own.get(DATE, ()):
        if isinstance(day, date) and any(_plain(form) in letters for form in _written(day)):
            found.add(DATE)
    return sorted(found)


def _written(day: date) -> list[str]:
    return [day.strftime(form) for form in _DAYS]


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, normalize("NFKD", text).upper()))


def _within(wanted: str, text: str, errors: int) -> bool:
    """Whether ``text`` has ``wanted`` in it with at most so many letters wrong, missing or too many (Sellers 1980)."""
    if wanted in text:
        return True
    if not errors:
        return False
    row = [0] * (len(text) + 1)
    for number, letter in enumerate(wanted, 1):
        before, row = row, [number]
        for place, other in enumerate(text, 1):
            row.append(min(before[place - 1] + (letter != other), before[place] + 1, row[place - 1] + 1))
    return min(row) <= errors


@cache
def _words() -> dict[str, Any]:
    loaded: dict[str, Any] = load_schema("pixels/words.yaml")
    return loaded


@cache
def _markers() -> frozenset[str]:
    return frozenset(word for words in _words()["markers"].values() for word in words)
