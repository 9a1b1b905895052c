"""What publish takes from the stored header JSON: functional groups of enhanced multi-frame images, the allow-listed tags, and facts.

Headers are DICOM JSON (PS3.18 F.2), kept as ``header_series.elements`` (common to a series) and ``header_instance.differences``. Pure
functions over one parsed header; they run on executors, once per series for the common part and once per image for the differences.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import orjson
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from pictures_spark.deid.derive import body_part_terms, plain_number
from pictures_spark.errors import ConfigError
from pictures_spark.resources import load_schema
from pictures_spark.schema import vocabulary

Elements = Mapping[str, Any]
# Values of one attribute per frame; one entry where all frames share them.
Frames = list[list[Any] | None]
_SCALARS = (str, int, float)
_NUMBERS = {"DS", "IS", "US", "SS", "UL", "SL", "FD", "FL"}
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


def functional_groups(elements: Elements) -> dict[str, Frames]:
    """Values that the functional groups of a header hold, by the classic attribute that functional_groups.yaml reads them as.

    One list of values per frame, in the order of the frames and None where a frame has none, or a single list where all frames share it.
    An attribute that no frame has is left out. Numbers are finite floats; an attribute with a value that is none is as good as missing from
    its frame.
    """
    rule = load_schema("derive/functional_groups.yaml")
    shared, frames = _values(elements, rule["shared"]), _values(elements, rule["per_frame"])
    found: dict[str, Frames] = {}
    if not shared and not frames:
        return found
    for keyword, place in _group_places():
        if keyword not in found and (by_frame := _in_frames(frames, place) or _in_frames(shared[:1], place)):
            found[keyword] = by_frame
    return found


@cache
def _group_places() -> tuple[tuple[str, str], ...]:
    """(classic attribute, its place in a frame's functional groups) in the order of the file."""
    rows = load_schema("derive/functional_groups.yaml")["columns"]
    return tuple(
        (where.get("as", name), ".".join(where[part] for part in ("sequence", "attribute", "of") if part in where))
        for name, where in rows.items()
    )


def _in_frames(items: Sequence[Any], place: str) -> Frames:
    found = [_at(item, place) or None for item in items]
    if not any(found):
        return []
    return found[:1] if all(values == found[0] for values in found) else found


def _at(elements: Any, place: str) -> list[Any]:
    """The values at a place such as ``PixelMeasuresSequence.SliceThickness``; empty where they are not of the attribute's type."""
    *sequences, keyword = place.split(".")
    for sequence in sequences:
        elements = next(iter(_values(elements, sequence)), None)
    values = _values(elements, keyword)
    if _is_text(keyword):
        return [text for value in values if isinstance(value, str) and (text := value.strip())]
    numbers = [number(value) for value in values]
    return [] if None in numbers else numbers


@cache
def _is_text(keyword: str) -> bool:
    return not set(dictionary_VR(int(tag_hex(keyword), 16)).split(" or ")) & _NUMBERS


@dataclass(frozen=True)
class TagRule:
    """One row of schemas/tags.yaml: what of an attribute may cross.

    ``single``: the attribute has one value (PS3.6), so that values which differ are values of different images. ``level``: ``study`` or
    ``series`` where the standard has it say the same in all of one.
    """

    keyword: str
    vr: str
    values: frozenset[str] | None
    range: tuple[float, float] | None
    single: bool
    level: str | None


@dataclass(frozen=True)
class Listed:
    """What crosses of one listed attribute of one header, and whether something of it was withheld.

    ``numbers`` or ``codes`` are distinct; ``frames`` says of each how many frames have it, 1 for a value of the whole image.
    ``vr`` is None for a fact of schemas/derive/facts.yaml, which becomes part of columns of ``series`` and is no row of ``tag``.
    """

    keyword: str
    vr: str | None
    numbers: list[float]
    codes: list[str]
    frames: list[int]
    withheld: bool


@cache
def tag_rules() -> tuple[TagRule, ...]:
    """The allow-list, checked.

    Raises
    ------
    ConfigError
        All faults at once: a value type that may not cross, a keyword or VR that PS3.6 does not have, a code string without a closed
        list, a number without a range or with one wide enough for a date or a CHI number, a keyword or code that is not of its pattern.
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
        shapes = load_schema("patterns.yaml")
        if not re.fullmatch(shapes["keyword"], keyword) or not all(re.fullmatch(shapes["tag_value"], code) for code in closed or ()):
            faults.append(f"{where}: table tag takes no such keyword or value; see keyword and tag_value in schemas/patterns.yaml")
        if entry.get("level") not in (None, "study", "series"):
            faults.append(f"{where}: level is study or series")
        rules.append(TagRule(keyword, vr, closed, limits, dictionary_VM(tag) == "1", entry.get("level")))
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
    # Longer terms are what devices write although a code string has 16 characters at most (PS3.5 6.2); they tell the region only.
    return frozenset(term for term in body_part_terms() if len(term) <= 16) if entry.get("terms_of") == "body_region" else None


def listed_tags(elements: Elements, frames: Mapping[str, Frames] | None = None) -> list[Listed]:
    """Every allow-listed attribute that a header has a value of, with what of it may cross.

    An attribute that is only in functional groups has the values of all frames, the one that most frames have first. ``frames`` are the
    `functional_groups` of the header, where the caller has them.
    """
    found = []
    frames = functional_groups(elements) if frames is None else frames
    by_tag, by_keyword = _rules_by_name()
    for rule in dict.fromkeys([*map(by_tag.get, elements), *map(by_keyword.get, frames)]):
        if rule is None:
            continue
        own = {value: 1 for value in _values(elements, rule.keyword) if isinstance(value, _SCALARS) and str(value).strip()}
        values = own or _counted(frames.get(rule.keyword, ()))
        if not values:
            continue
        crossed: dict[Any, int] = {}
        withheld = False
        for value, count in values.items():
            safe = _safe(rule, value)
            withheld |= safe is None
            if safe is not None:
                crossed[safe] = count if safe not in crossed else max(count, crossed[safe])
        kept = list(crossed)
        numbers, codes = (kept, []) if rule.values is None else ([], kept)
        found.append(Listed(rule.keyword, rule.vr, numbers, codes, list(crossed.values()), withheld))
    return found


@cache
def _rules_by_name() -> tuple[dict[str, TagRule], dict[str, TagRule]]:
    """The allow-list by tag, as the JSON model writes it, and by keyword."""
    return {tag_hex(rule.keyword): rule for rule in tag_rules()}, {rule.keyword: rule for rule in tag_rules()}


def _safe(rule: TagRule, value: Any) -> Any:
    """A value as it may cross; None where it may not."""
    if rule.values is not None:
        code = str(value).strip().upper()
        return code if code in rule.values else None
    found = age_in_years(value) if rule.vr == "AS" else number(value)
    inside = found is not None and rule.range is not None and rule.range[0] <= found <= rule.range[1]
    return plain_number(found) if found is not None and inside else None


def _counted(frames: Iterable[Sequence[Any] | None]) -> dict[Any, int]:
    """The distinct values of frames in the order of `most_first`, and how many frames have each."""
    counts = Counter(value for values in frames if values for value in dict.fromkeys(values))
    return {value: counts[value] for value in sorted(counts, key=lambda value: (-counts[value], value))}


def most_first(frames: Iterable[Sequence[Any] | None]) -> list[Any]:
    """The distinct values of frames, those that most of them have first, the smaller first on a tie.

    Examples
    --------
    >>> most_first([[3.0], [2.0], None, [3.0]]), most_first([[2.0, 1.0]])
    ([3.0, 2.0], [1.0, 2.0])
    """
    return list(_counted(frames))


def told_facts(elements: Elements, frames: Mapping[str, Frames] | None = None) -> list[Listed]:
    """What a header says in words of our own lists, by schemas/derive/facts.yaml; ``frames`` as in `listed_tags`."""
    found = []
    frames = functional_groups(elements) if frames is None else frames
    for name, told_in in _fact_places().items():
        said: Counter[str] = Counter()
        for start, place in told_in:
            if start not in elements and place not in frames:
                continue
            own = dict.fromkeys(_at(elements, place)[:1], 1)
            for value, count in (own or _counted(values and values[:1] for values in frames.get(place, ()))).items():
                said.update(dict.fromkeys(fact_words(name, value), count))
        if said:
            found.append(Listed(name, None, [], list(said), list(said.values()), False))
    return found


@cache
def _fact_places() -> dict[str, list[tuple[str, str]]]:
    """Fact -> (tag that a place starts with, place) of each attribute that tells it."""
    facts = load_schema("derive/facts.yaml")["facts"]
    return {name: [(tag_hex(place.split(".")[0]), place) for place in rule["from"]] for name, rule in facts.items()}


@lru_cache(4096)
def fact_words(name: str, value: str) -> tuple[str, ...]:
    """The words of a fact's closed list that a header value stands for; none where it says nothing.

    Examples
    --------
    >>> fact_words("convolution_kernel", "B31f"), fact_words("contrast_agent", "none"), fact_words("contrast_agent", "Omnipaque 300")
    (('STANDARD',), (), ('IODINE',))
    """
    rule = load_schema("derive/facts.yaml")["facts"][name]
    text = value.strip().upper()
    if text in rule.get("silent", ()):
        return ()
    for row in rule["patterns"]:
        if re.search(row["pattern"], text):
            return tuple([row["is"]] if isinstance(row["is"], str) else row["is"])
    return (rule["otherwise"],) if "otherwise" in rule else ()


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
