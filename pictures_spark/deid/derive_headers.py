"""What publish takes from the stored header JSON: functional groups of enhanced multi-frame images, and the allow-listed tags.

Headers are DICOM JSON (PS3.18 F.2), kept as ``header_series.elements`` (common to a series) and ``header_instance.differences``. Pure
functions over one parsed header; they run on executors, once per series for the common part and once per image for the differences.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from pydicom.datadict import dictionary_VR, tag_for_keyword

from pictures_spark.deid.derive import body_part_terms
from pictures_spark.errors import ConfigError
from pictures_spark.resources import load_schema
from pictures_spark.schema import vocabulary

Elements = Mapping[str, Any]
# Widest range a number may have: below it lie no date (YYYYMMDD) and no CHI number, with or without its leading zero.
_WIDEST = 10_000_000
_AGE_UNITS = {"Y": 1, "M": 12, "W": 52, "D": 365}


def parse(json: str | None) -> Elements:
    """The elements of a stored header; empty where there is none."""
    return orjson.loads(json) if json else {}


@cache
def tag_hex(keyword: str) -> str:
    """Key of an attribute in DICOM JSON: eight hex digits.

    Raises
    ------
    ConfigError
        PS3.6 has no attribute of that keyword.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ConfigError(f"schemas/ names DICOM keyword {keyword!r}, which PS3.6 does not have")
    return f"{tag:08X}"


def _values(elements: Any, keyword: str) -> list[Any]:
    """The values of an attribute; empty where it is missing, empty, or not of the JSON model's form."""
    element = elements.get(tag_hex(keyword)) if isinstance(elements, Mapping) else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    return [value for value in values if value is not None] if isinstance(values, list) else []


def number(value: Any) -> float | None:
    """A JSON value as a finite number (DS and IS may be text, PS3.18 F.2.3); None where it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def functional_groups(elements: Elements) -> dict[str, list[list[float]]]:
    """Values that the functional groups of a header hold, by column of header_instance as functional_groups.yaml declares.

    One list of numbers per frame, or a single one where all frames share it; a column that the header does not have is left out. An
    attribute with a value that is no number is as good as missing from its frame.
    """
    rule = load_schema("derive/functional_groups.yaml")
    shared, frames = _values(elements, rule["shared"]), _values(elements, rule["per_frame"])
    found = {}
    for column, where in rule["columns"].items() if shared or frames else ():
        by_frame = _group_values(frames, where) or _group_values(shared, where)
        if by_frame:
            found[column] = by_frame
    return found


def _group_values(items: Sequence[Any], where: Mapping[str, str]) -> list[list[float]]:
    found = []
    for item in items:
        for group in _values(item, where["sequence"])[:1]:
            numbers = [number(value) for value in _values(group, where["attribute"])]
            if numbers and None not in numbers:
                found.append([n for n in numbers if n is not None])
    return found


@dataclass(frozen=True)
class TagRule:
    """One row of schemas/tags.yaml: what of an attribute may cross."""

    keyword: str
    vr: str
    values: frozenset[str] | None
    range: tuple[float, float] | None


@dataclass(frozen=True)
class Listed:
    """What crosses of one listed attribute of one header, and whether something of it was withheld."""

    keyword: str
    vr: str
    numbers: list[float]
    codes: list[str]
    withheld: bool


@cache
def tag_rules() -> tuple[TagRule, ...]:
    """The allow-list, checked.

    Raises
    ------
    ConfigError
        All faults at once: a value type that may not cross, a keyword or VR that PS3.6 does not have, a code string without a closed
        list, a number without a range or with one wide enough for a date or a CHI number.
    """
    return read_tag_rules(load_schema("tags.yaml"))


def read_tag_rules(raw: Mapping[str, Any]) -> tuple[TagRule, ...]:
    """`tag_rules` of a given file content."""
    faults, rules = [], []
    for entry in raw["tags"]:
        keyword, vr = entry["keyword"], entry["vr"]
        where = f"schemas/tags.yaml: {keyword}"
        if vr not in raw["value_types"]:
            faults.append(f"{where}: values of type {vr} do not cross; allowed are {', '.join(raw['value_types'])}")
            continue
        tag = tag_for_keyword(keyword)
        if tag is None or vr not in dictionary_VR(tag).split(" or "):
            faults.append(f"{where}: PS3.6 has no such attribute of type {vr}")
            continue
        closed = _closed_list(entry)
        limits = (float(entry["range"][0]), float(entry["range"][1])) if "range" in entry else None
        if (vr == "CS") != (closed is not None) or (vr == "CS") == (limits is not None):
            faults.append(f"{where}: a code string needs a closed list, a number a range")
        if limits is not None and max(map(abs, limits)) >= _WIDEST:
            faults.append(f"{where}: a range of ten million or more could hold a date or a CHI number")
        rules.append(TagRule(keyword, vr, closed, limits))
    names = [rule.keyword for rule in rules]
    faults += [f"schemas/tags.yaml: {name} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if faults:
        raise ConfigError("; ".join(faults))
    return tuple(rules)


def _closed_list(entry: Mapping[str, Any]) -> frozenset[str] | None:
    if "values" in entry:
        return frozenset(entry["values"])
    if "vocabulary" in entry:
        return frozenset(vocabulary(entry["vocabulary"]))
    return frozenset(body_part_terms()) if entry.get("terms_of") == "body_region" else None


def listed_tags(elements: Elements) -> list[Listed]:
    """Every allow-listed attribute that a header has a value of, with what of it may cross."""
    found = []
    for rule in tag_rules():
        values = [value for value in _values(elements, rule.keyword) if str(value).strip()]
        if not values:
            continue
        numbers: list[float] = []
        codes: list[str] = []
        if rule.values is not None:
            codes = [code for value in values if (code := str(value).strip().upper()) in rule.values]
        elif rule.range is not None:
            read = [age_in_years(value) if rule.vr == "AS" else number(value) for value in values]
            # Adding 0.0 makes -0.0 plain 0, so that equal values are one.
            numbers = [value + 0.0 for value in read if value is not None and rule.range[0] <= value <= rule.range[1]]
        found.append(Listed(rule.keyword, rule.vr, numbers, codes, len(numbers) + len(codes) < len(values)))
    return found


def age_in_years(text: Any) -> float | None:
    """Completed years from an age string (PS3.5 6.2 AS); None where it is none.

    Examples
    --------
    >>> age_in_years("018M"), age_in_years("045Y"), age_in_years("45")
    (1.0, 45.0, None)
    """
    plain = str(text).strip().upper()
    if len(plain) != 4 or not (plain[:3].isascii() and plain[:3].isdigit()) or plain[3] not in _AGE_UNITS:
        return None
    return float(int(plain[:3]) // _AGE_UNITS[plain[3]])
