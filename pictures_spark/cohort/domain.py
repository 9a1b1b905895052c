"""What a question may name: the columns of its unit, and of the series, study and patient that the unit belongs to.

A value flows down freely: a patient's sex is also the sex of each of their series. Going up needs an aggregate, so a question about
patients cannot name a column of series. Where several tables have a column of the same name, the unit's own comes first.

Besides columns there are header tags, ``tag.<DICOM keyword>`` (those of schemas/tags.yaml, and as sets the texts that are common enough to
be published, schemas/derive/common_texts.yaml), and pixel features,
``feature.<name>@<version>`` (those of schemas/features.yaml): of an image its own value, of a series ``….min`` and ``….max`` over its
images, or its own value where it was measured of the whole series. ``health_board`` and ``simd_quintile`` are those of the residence that
began last on or before the index date, if it contains it, and ``text_verdict`` says whether text was found in the pixels of an image, or of
any image of a series.

A condition inside an event, ``{event: lab, where: {value_std: {lt: 30}}}``, names columns of the table of events.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pictures_spark.cohort.model import Order, Pick
from pictures_spark.records.source import source, source_names
from pictures_spark.resources import load_schema
from pictures_spark.schema import Column, table, vocabulary

ZONE = "deidentified"
UNITS = ("patient", "study", "series", "image")
# What reads a person out of a header or a register, although the column lies in a table of scans.
PERSONAL = frozenset({"age_years", "before_birth", "after_death"})
AGE = "age_at"
# The column an age was computed at by publish; ages are never computed from a date here.
AGE_COLUMN, AGE_DATE = "age_years", "scan_date"
UNKNOWN = "unknown"
# Where a unit's tags are: an image has those of its series.
TAGS_OF = {"image": "tag", "series": "tag", "study": "study_tag"}
TAG_TABLES = frozenset(TAGS_OF.values())
TEXTS = "description"
FEATURES = "image_feature"
RESIDENCE, TEXT = "residence", "burned_in_text"
# What a residence says of a unit on its index date.
LIVED = ("health_board", "simd_quintile")
VERDICT = "text_verdict"
INDEX, GAP = "index", "gap"
# Numbers of events that a comparator makes a bound of, columns that a condition inside an event may name, and those that may be shown.
EVENT_COLUMNS = (
    "date",
    "value",
    "value_std",
    "comparator",
    "unit_raw",
    "unit_std",
    "status",
    "age_years",
    "end_date",
    "time",
    "position",
    "source",
)
EVENT_NUMBERS = ("value", "value_std")
# The time of day of a date: of which table, which column, and where its time is.
CLOCKS = {
    ("series", "scan_date"): "scan_time",
    ("image", "scan_date"): "scan_time",
    ("study", "study_date"): "study_time",
    ("event", "date"): "time",
}
EVENT_SHOWN = ("kind", "system", "code", "code_root", *EVENT_COLUMNS)
FOLLOWED = ("days", "event", "end")
# How many times one number is another.
RATIO = "ratio"
_LONGEST_CS = 16  # characters of a code string, PS3.5
_PERSONAL_TAGS = frozenset({"PatientSex", "PatientAge"})

Kind = Literal["text", "choice", "set", "number", "whole", "flag", "date", "id", "list", "span"]
_ANY = ("eq", "ne", "in", "is_missing")
_ORDERED = ("eq", "ne", "in", "lt", "le", "gt", "ge", "between", "is_missing")
OPERATORS: dict[Kind, tuple[str, ...]] = {
    "text": ("eq", "ne", "in", "matches", "is_missing"),
    "choice": _ANY,
    "set": ("eq", "ne", "in", "matches", "is_missing"),
    "number": _ORDERED,
    "whole": _ORDERED,
    "date": _ORDERED,
    "flag": ("eq", "ne", "is_missing"),
    "id": ("is_missing",),
    "list": ("is_missing",),
    "span": ("eq", "lt", "le", "gt", "ge", "between", "is_missing"),
}


@dataclass(frozen=True)
class Field:
    """A column, header tag or pixel feature that a question about some unit may name.

    ``keyword`` is the tag, or ``(feature, version, aggregate)``; ``given`` are the values that may cross for a tag that is a set.
    """

    table: str
    column: Column
    keyword: str | tuple[str, str, str] | None = None
    given: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Name in the table; of a tag or feature, a name that no column has."""
        return self.column.name

    @property
    def kind(self) -> Kind:
        """What sort of value it has; decides which operators and which texts make sense."""
        if self.column.deid == "pseudonym":
            return "id"
        if self.table in TAG_TABLES:
            return "set" if self.column.type == "array<string>" else "span"
        if self.column.type == "string":
            return "choice" if self.column.vocabulary else "text"
        kinds: dict[str, Kind] = {
            "long": "whole",
            "double": "number",
            "boolean": "flag",
            "date": "date",
            "array<string>": "set",
            "array<double>": "list",
        }
        return kinds[self.column.type]

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The closed list a value must be from. ``unknown`` is no value but a missing one, so it is left out."""
        allowed = self.given or self.column.allowed
        return tuple(v for v in allowed if v != UNKNOWN) if allowed is not None else None

    @property
    def has_unknown(self) -> bool:
        """Whether ``unknown`` is how the column writes a missing value."""
        return UNKNOWN in (self.column.allowed or ())

    @property
    def empty_is_missing(self) -> bool:
        """Whether an empty set says that it could not be told (a closed list) rather than that there is nothing in it (flags, findings)."""
        closed = self.column.vocabulary is not None or self.keyword is not None
        return self.kind == "set" and closed and not self.column.empty_is_value

    @property
    def personal(self) -> bool:
        """Whether it is about a person, so that it asks for somebody alive and resident unless the question says otherwise."""
        return self.table in ("patient", RESIDENCE) or self.name in PERSONAL or self.keyword in _PERSONAL_TAGS


def levels(unit: str) -> tuple[str, ...]:
    """Tables whose values a unit has, its own first."""
    return UNITS[UNITS.index(unit) :: -1]


@cache
def fields(unit: str) -> dict[str, Field]:
    """Every column a question about this unit may name, with ``age_at`` where the unit has an age."""
    found: dict[str, Field] = {}
    for name in levels(unit):
        for column in table(ZONE, name).own:
            if column.type != "timestamp_ntz":
                found.setdefault(column.name, Field(name, column))
    if AGE_COLUMN in found:
        found[AGE] = found[AGE_COLUMN]
    found |= {name: Field(RESIDENCE, table(ZONE, RESIDENCE).by_name[name]) for name in LIVED}
    if unit in ("series", "image"):
        verdict = Column(
            VERDICT, "string", "Whether text was found in the pixels.", vocabulary="verdict", deid="derived", label="Text in pixels"
        )
        found[VERDICT] = Field(TEXT, verdict, VERDICT)
    return found | _tags(unit) | _features(unit)


@cache
def clock(unit: str, name: str) -> Field | None:
    """The time of day that goes with a date of a unit, None where there is none."""
    known = fields(unit)
    time = CLOCKS.get((known[name].table, name)) if name in known else None
    return known[time] if time is not None else None


@cache
def timed_kinds() -> tuple[str, ...]:
    """Kinds of events that some record source gives a time of day."""
    found = {
        event.kind
        for name in source_names()
        for event in source(name).events
        if event.time is not None or any(source(name).column(day).type == "datetime" for day in event.date)
    }
    return tuple(sorted(found))


@cache
def event_fields() -> dict[str, Field]:
    """Columns that a condition inside an event may name."""
    return {name: Field("event", table(ZONE, "event").by_name[name]) for name in EVENT_COLUMNS}


@cache
def shown(unit: str) -> dict[str, Field]:
    """Columns that an output may show, of a unit or, with ``event``, of an event."""
    if unit == "event":
        return {name: Field("event", table(ZONE, "event").by_name[name]) for name in EVENT_SHOWN}
    return {name: field for name, field in fields(unit).items() if field.kind not in ("set", "list", "span")}


def groups(field: Field) -> bool:
    """Whether a column has few values, so that something may be counted by it."""
    return field.kind not in ("id", "number")


# Suffixes of a column in a breakdown, and the kind of column each goes with.
PARTS: dict[str, Kind] = {"year": "date", "month": "date", "decade": "whole", "five": "whole"}


@cache
def grouped(unit: str) -> dict[str, tuple[Field, str | None]]:
    """What members may be counted by: columns of few values, the year or month of a date, the decade of an age or another whole number."""
    found: dict[str, tuple[Field, str | None]] = {}
    for name, field in shown(unit).items():
        if groups(field):
            found[name] = (field, None)
        found |= {f"{name}.{part}": (field, part) for part, kind in PARTS.items() if field.kind == kind}
    return found


def _tags(unit: str) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for entry in load_schema("tags.yaml")["tags"] if unit in TAGS_OF else ():
        keyword = entry["keyword"]
        given = _tag_values(entry)
        column = Column(f"tag_{keyword}", "array<string>" if given else "double", f"DICOM {keyword}.", deid="keep", label=keyword)
        found[f"tag.{keyword}"] = Field(TAGS_OF[unit], column, keyword, given)
    for keyword in load_schema("derive/common_texts.yaml")["keywords"] if unit in TAGS_OF else ():
        column = Column(f"tag_{keyword}", "array<string>", f"DICOM {keyword}, in upper case.", deid="vocabulary", label=keyword)
        found[f"tag.{keyword}"] = Field(TEXTS, column, keyword)
    return found


def _tag_values(entry: dict[str, Any]) -> tuple[str, ...] | None:
    """The closed list of a code string; None for a number."""
    if "vocabulary" in entry:
        return vocabulary(entry["vocabulary"])
    if "terms_of" in entry:
        lists = load_schema(f"derive/{entry['terms_of']}.yaml")["terms"]
        return tuple(dict.fromkeys(term for terms in lists.values() for term in terms if len(term) <= _LONGEST_CS))
    return tuple(entry["values"]) if "values" in entry else None


def _features(unit: str) -> dict[str, Field]:
    aggregates = {"image": ("",), "series": ("own", "min", "max")}.get(unit, ())
    found: dict[str, Field] = {}
    for entry in load_schema("features.yaml")["features"]:
        if not entry["publish"] or entry["level"] not in ("image", unit):
            continue
        for aggregate in aggregates if entry["level"] == "image" else ("own",):
            key = (entry["name"], str(entry["version"]), aggregate)
            said = {"min": "smallest ", "max": "largest "}.get(aggregate, "")
            label = f"{said}{entry['name'].replace('_', ' ')} (version {entry['version']})"
            name = "_".join(("feature", *key)).rstrip("_")
            column = Column(name, "double", entry["meaning"], unit=entry.get("unit"), deid="keep", label=label)
            dotted = f"feature.{key[0]}@{key[1]}" + (f".{aggregate}" if aggregate in ("min", "max") else "")
            found[dotted] = Field(FEATURES, column, key)
    return found


def ratio() -> Field:
    """What a condition on a ratio compares: a number of its own."""
    return Field("", Column(RATIO, "double", "How many times a number is another."))


def below(unit: str, name: str) -> str | None:
    """The table below the unit that has a column of this name, which only an aggregate could bring up; None where none has."""
    lower = UNITS[UNITS.index(unit) + 1 :]
    return next((t for t in lower if any(column.name == name for column in table(ZONE, t).own)), None)


def key(unit: str) -> str:
    """The column that identifies a unit."""
    return f"{unit}_id"


def label(field: Field) -> str:
    """The column in words, as a page or a sentence shows it."""
    return field.column.label or field.name.replace("_", " ")


def pick_order(unit: str, pick: Pick) -> tuple[Order, ...]:
    """The order of a pick with the unit's own id at its end, so that it is total."""
    own = key(unit)
    return pick.order if any(order.column == own for order in pick.order) else (*pick.order, Order(own))
