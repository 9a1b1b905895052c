"""Identity schemes: whether a text is a person identifier, and its one form. schemas/identity/ says how; another scheme is another file.

Enters: an identifier as found. Leaves: an `Identity` (`normalise`), or what it is under the first of several schemes that fits
(`read_as`). Pure.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from typing import Any, NamedTuple

from pictures_spark.errors import ConfigError
from pictures_spark.records import steps
from pictures_spark.resources import load_schema, schemas_dir

_FIELDS = {"scheme", "label", "steps", "masked", "pattern", "date", "checks", "sex"}
# What counts before what, of the reasons that schemes give of one text.
_RANKS = {None: 0, "check_digit": 1}
_WIDTHS = {"%d": 2, "%m": 2, "%y": 2, "%Y": 4}


@dataclass(frozen=True)
class Check:
    """A check-digit rule: digit times weight, added up, must be a multiple of the modulus.

    With ``fold`` a product above 9 loses 9, which is Luhn's rule where the weights are 1 and 2.
    """

    name: str
    modulus: int
    weights: tuple[int, ...]
    fold: bool

    def holds(self, digits: str) -> bool:
        """Whether the rule holds of a text of as many digits as there are weights.

        Examples
        --------
        >>> Check("mod11", 11, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1), False).holds("0101011237")
        True
        """
        # What a digit counts in each place is looked up: a register of millions is checked number by number.
        return sum([counts[digit] for counts, digit in zip(self._counts, digits, strict=True)]) % self.modulus == 0

    @cached_property
    def _counts(self) -> list[dict[str, int]]:
        products = [[digit * weight for digit in range(10)] for weight in self.weights]
        return [{str(digit): p - 9 if self.fold and p > 9 else p for digit, p in enumerate(each)} for each in products]


@dataclass(frozen=True)
class Scheme:
    """A declared identity scheme; fields as in schemas/identity/chi.yaml."""

    name: str
    label: str
    steps: steps.Steps
    masked: tuple[str, ...]
    pattern: str
    date_at: int | None
    date_format: str | None
    checks: tuple[Check, ...]
    sex: dict[str, Any] | None

    @cached_property
    def tidy(self) -> Callable[[str], str]:
        """The steps as a function."""
        return steps.compiled(self.steps)

    @cached_property
    def blank(self) -> re.Pattern[str]:
        """What is masked, or nothing at all."""
        return re.compile("|".join(["", *(f"(?:{pattern})" for pattern in self.masked)]))

    @cached_property
    def shape(self) -> re.Pattern[str]:
        """The pattern."""
        return re.compile(self.pattern)

    @cached_property
    def date_parts(self) -> tuple[tuple[int, int], ...]:
        """(first character from 0, width) of year, month and day. Two digits of year are read as 20YY: 29 February holds in 00 too."""
        places: dict[str, tuple[int, int]] = {}
        at = (self.date_at or 1) - 1
        for directive in re.findall(r"%.|.", self.date_format or ""):
            width = _WIDTHS.get(directive, 1)
            places[directive.lower()] = (at, width)
            at += width
        return places["%y"], places["%m"], places["%d"]


class Identity(NamedTuple):
    """What an identifier is under a scheme.

    ``value`` is its one form, or None with a ``reason`` of vocabulary unlinked_reason: no_identifier, not_an_identifier, check_digit.
    ``check`` names the check rule that held; ``sex`` is what the identifier itself says, where the scheme has that.
    """

    value: str | None
    reason: str | None
    check: str | None = None
    sex: str | None = None


@cache
def scheme(name: str) -> Scheme:
    """A scheme of schemas/identity/.

    Raises
    ------
    ConfigError
        No scheme of that name is declared, or its declaration is faulty.
    """
    if not (schemas_dir() / "identity" / f"{name}.yaml").is_file():
        raise ConfigError(f"identity scheme {name!r} is not declared: add schemas/identity/{name}.yaml")
    return scheme_from(load_schema(f"identity/{name}.yaml"))


def scheme_from(raw: dict[str, Any]) -> Scheme:
    """A scheme from its declaration.

    Raises
    ------
    ConfigError
        A field is unknown or missing, or a step is not one.
    """
    where = f"identity scheme {raw.get('scheme', '?')}"
    faults = [f"unknown field {name}" for name in sorted(set(raw) - _FIELDS)]
    faults += [f"needs {name}" for name in ("scheme", "label", "steps", "pattern") if name not in raw]
    if faults:
        raise ConfigError(f"{where}: {'; '.join(faults)}")
    steps.check(raw["steps"], where)
    dated = raw.get("date")
    return Scheme(
        name=raw["scheme"],
        label=raw["label"],
        steps=raw["steps"],
        masked=tuple(raw.get("masked", ())),
        pattern=raw["pattern"],
        date_at=dated["at"] if dated else None,
        date_format=dated["format"] if dated else None,
        checks=tuple(Check(c["name"], c["modulus"], tuple(c["weights"]), c["fold"]) for c in raw.get("checks", ())),
        sex=raw.get("sex"),
    )


def normalise(declared: Scheme, text: str | None) -> Identity:
    """The identity that a text is under a scheme.

    Examples
    --------
    >>> normalise(scheme("chi"), "010101 1237").value, normalise(scheme("chi"), "0101011238").reason
    ('0101011237', 'check_digit')
    """
    return _judged(declared, declared.tidy(text or ""))


def _judged(declared: Scheme, found: str) -> Identity:
    """What a tidied text is."""
    if declared.blank.fullmatch(found):
        return Identity(None, "no_identifier")
    if not declared.shape.fullmatch(found) or not _date_holds(declared, found):
        return Identity(None, "not_an_identifier")
    held = next((check.name for check in declared.checks if check.holds(found)), None)
    if declared.checks and held is None:
        return Identity(None, "check_digit")
    sex = None
    if declared.sex:
        sex = declared.sex["odd" if int(found[declared.sex["at"] - 1]) % 2 else "even"]
    return Identity(found, None, held, sex)


class Reading(NamedTuple):
    """What a text is under one of several schemes: ``number`` is the tidied text, ``value`` and ``reason`` are as in `Identity`."""

    scheme: str
    number: str
    value: str | None
    reason: str | None


def read_as(declared: Sequence[Scheme], text: str) -> Reading:
    """A text under the first scheme of which it is an identifier; else the first that only its check digit fails; else the first.

    Examples
    --------
    >>> read_as([scheme("nhs"), scheme("chi")], "010101 1237")
    Reading(scheme='chi', number='0101011237', value='0101011237', reason=None)
    """
    best: Reading | None = None
    for one in declared:
        number = one.tidy(text)
        told = _judged(one, number)
        if best is None or _rank(told.reason) < _rank(best.reason):
            best = Reading(one.name, number, told.value, told.reason)
        if told.reason is None:
            break
    assert best is not None
    return best


def _rank(reason: str | None) -> int:
    return _RANKS.get(reason, len(_RANKS))


def _date_holds(declared: Scheme, text: str) -> bool:
    if declared.date_at is None:
        return True
    year, month, day = (int(text[first : first + width]) for first, width in declared.date_parts)
    try:
        date(year if year > 99 else 2000 + year, month, day)
    except ValueError:
        return False
    return True
