"""What a question may name: the columns of its unit, and of the series, study and patient that the unit belongs to.

A value flows down freely: a patient's sex is also the sex of each of their series. Going up needs an aggregate, so a question about
patients cannot name a column of series. Where several tables have a column of the same name, the unit's own comes first.

Besides columns there are header tags, ``tag.<DICOM keyword>`` (those of schemas/tags.yaml, and as sets the texts that are common enough to
be published, schemas/derive/common_texts.yaml), and pixel features,
``feature.<name>@<version>`` (those of schemas/features.yaml): of an image its own value, of a series ``….min`` and ``….max`` over its
images, or its own value where it was measured of the whole series. ``health_board`` and ``simd_quintile`` are those of the residence that
began last on or before the index date, if it contains it, and ``text_verdict`` says whether text was found in the pixels of an image, or of
any image of a series.

A date, a time of day and a whole number have parts that are named behind a dot: ``scan_date.weekday``, ``scan_time.hour``,
``age_at.decade`` (`PARTS`). They may stand where the column may, but are not shown of members: beside a date that was moved they would tell
by how much.

A condition inside an event, ``{event: lab, where: {value_std: {lt: 30}}}``, names columns of the table of events.
"""

from dataclasses import dataclass, replace
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

# The days of the week, Monday first.
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
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
class Part:
    """A part of a value: what sort of value it is part of, what it is itself, and how it is called in a sentence."""

    of: Kind | Literal["time"]
    kind: Kind
    said: str
    range: tuple[float, float] | None = None
    given: tuple[str, ...] | None = None


PARTS = {
    "year": Part("date", "whole", "year"),
    "month": Part("date", "text", "month"),
    "month_of_year": Part("date", "whole", "month of the year", (1, 12)),
    "weekday": Part("date", "choice", "day of the week", given=WEEKDAYS),
    "hour": Part("time", "whole", "hour", (0, 23)),
    "decade": Part("whole", "whole", "decade"),
    "five": Part("whole", "whole", "five"),
}


@dataclass(frozen=True)
class Field:
    """A column, header tag or pixel feature that a question about some unit may name.

    ``keyword`` is the tag, or ``(feature, version, aggregate)``; ``given`` are the values that there may be of a tag that is a set, or of a
    part. With ``part`` it is that of the column of the table, one of `PARTS`.
    """

    table: str
    column: Column
    keyword: str | tuple[str, str, str] | None = None
    given: tuple[str, ...] | None = None
    part: str | None = None

    @property
    def name(self) -> str:
        """Name in the table; of a tag, feature or part, a name that no column has."""
        return f"{self.column.name}_{self.part}" if self.part is not None else self.column.name

    @property
    def kind(self) -> Kind:
        """What sort of value it has; decides which operators and which texts make sense."""
        if self.part is not None:
            return PARTS[self.part].kind
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
        allowed = self.given or (self.column.allowed if self.part is None else None)
        return tuple(v for v in allowed if v != UNKNOWN) if allowed is not None else None

    @property
    def has_unknown(self) -> bool:
        """Whether ``unknown`` is how the column writes a missing value."""
        return self.part is None and UNKNOWN in (self.column.allowed or ())

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the most that a number may be."""
        return self.column.range if self.part is None else PARTS[self.part].range

    @property
    def empty_is_missing(self) -> bool:
        """Whether an empty set says that it could not be told (a closed list) rather than that there is nothing in it (flags, findings)."""
        closed = self.column.vocabulary is not None or self.keyword is not None
        return self.kind == "set" and closed and not self.column.empty_is_value

    @property
    def personal(self) -> bool:
        """Whether it is about a person, so that it asks for somebody alive and resident unless the question says otherwise."""
        return self.table in ("patient", RESIDENCE) or self.column.name in PERSONAL or self.keyword in _PERSONAL_TAGS


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
    return found | _parts(found) | _tags(unit) | _features(unit)


def _parts(fields: dict[str, Field]) -> dict[str, Field]:
    """The parts of columns."""
    found: dict[str, Field] = {}
    for name, field in fields.items():
        kind = "time" if field.column.pattern == "time" else field.kind
        of_it = {part: about for part, about in PARTS.items() if about.of == kind}
        found |= {f"{name}.{part}": replace(field, given=about.given, part=part) for part, about in of_it.items()}
    return found


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
    found = {name: Field("event", table(ZONE, "event").by_name[name]) for name in EVENT_COLUMNS}
    return found | _parts(found)


@cache
def taken_fields() -> dict[str, Field]:
    """Columns of an event that a nearest takes which may be shown, or be in a condition."""
    return shown("event") | event_fields()


@cache
def shown(unit: str) -> dict[str, Field]:
    """Columns that an output may show, of a unit or, with ``event``, of an event."""
    if unit == "event":
        return {name: Field("event", table(ZONE, "event").by_name[name]) for name in EVENT_SHOWN}
    return {name: field for name, field in fields(unit).items() if field.kind not in ("set", "list", "span") and field.part is None}


def groups(field: Field) -> bool:
    """Whether a column has few values, so that something may be counted by it."""
    return field.kind not in ("id", "number")


@cache
def grouped(unit: str) -> dict[str, Field]:
    """What members may be counted by: columns of few values, and parts such as the year of a date or the decade of an age."""
    parts = {name: field for name, field in fields(unit).items() if field.part is not None}
    return {name: field for name, field in shown(unit).items() if groups(field)} | parts


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


@cache
def changes() -> dict[str, Field]:
    """What two measurements make."""
    said = {"change": "The later value less the earlier.", RATIO: "How many times the earlier value the later is."}
    return {name: Field("", Column(name, "double", meaning, label=f"the {name} of the value")) for name, meaning in said.items()}


@cache
def valued_kinds() -> tuple[str, ...]:
    """Kinds of events that some record source gives a number with a unit."""
    found = {event.kind for name in source_names() for event in source(name).events if event.unit is not None}
    return tuple(sorted(found))


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
    said = field.column.label or field.column.name.replace("_", " ")
    return said if field.part is None else f"{said} ({PARTS[field.part].said})"


def pick_order(unit: str, pick: Pick) -> tuple[Order, ...]:
    """The order of a pick with the unit's own id at its end, so that it is total."""
    own = key(unit)
    return pick.order if any(order.column == own for order in pick.order) else (*pick.order, Order(own))
