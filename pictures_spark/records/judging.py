"""A record source as functions on Arrow tables: rows of raw text to judged rows, to events and to rows of tables.

Enters: the texts of rows as they stand in a file. Leaves: Arrow tables. Pure; runs on executors, on whatever rows a task was given: what a
row becomes follows from the row and the declaration alone, and no value stops a job.

A column's texts are few and come again, so each is looked at once and the row holds its number (`_Column`); what was found about a text is
remembered from table to table. Judging took 5 to 8 µs a row, events 2 to 10 µs (labs, PIS and SMR01, one core of a busy machine,
2026).
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pictures_spark.linkage import identity
from pictures_spark.records import codes, dates, steps
from pictures_spark.records.source import PERSON, EventSpec, Source, SourceColumn, TableSpec

_SEPARATOR = "\x1f"
# Hex digits of SHA-256 that a key keeps: 128 bits, as pseudonyms do.
_KEY_DIGITS = 32
# Fifteen digits are what a double holds exactly; exponents stay far from overflow.
_NUMBER = r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?"
_COMPARATORS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "=": "=", "=<": "<=", "=>": ">=", "≤": "<=", "≥": ">="}
_MEASURE = re.compile(rf"({'|'.join(sorted(_COMPARATORS, key=len, reverse=True))})?\s*({_NUMBER})", re.ASCII)
_WHOLE_NUMBER = re.compile(_NUMBER)
# Types whose values have one form whatever way they were written, so that the way makes no other key.
_ONE_FORM = ("identity", "date", "code")
_DAYS = ("date", "datetime", "time")
# Types of which any text will do: a result may be in words, a unit need not be listed.
_ANY_TEXT = ("text", "measure", "unit")
_WRONG = {
    "text": "bad_value",
    "date": "bad_date",
    "datetime": "bad_date",
    "time": "bad_value",
    "number": "bad_number",
    "integer": "bad_number",
    "identity": "bad_person_id",
}
# Texts of a column that are remembered: a worker's memory is bounded however many there are.
_REMEMBERED = 400_000
_STRING = pa.string()
JUDGED = {
    **dict.fromkeys(("person_id", "row_key"), "string"),
    "content_hash": "long",
    **dict.fromkeys(("fault", "fault_column"), "string"),
    "nulled": "long",
    "month": "string",
}
EVENT = {
    **dict.fromkeys(("event_key", "source", "scheme", "row_key", "file_sha256", "person_id", "stay_key", "kind"), "string"),
    "position": "long",
    **dict.fromkeys(("system", "code", "code_root"), "string"),
    "date": "date",
    "end_date": "date",
    "time": "string",
    "value": "double",
    **dict.fromkeys(("value_raw", "comparator", "unit_raw", "unit_std"), "string"),
    "value_std": "double",
    "status": "string",
}
_ARROW = {"string": _STRING, "long": pa.int64(), "date": pa.date32(), "double": pa.float64()}


def judge(found: Source, rows: pa.Table) -> pa.Table:
    """The columns `JUDGED` of rows of raw text.

    ``rows`` has the source's fields as text, and ``read_fault``: what was wrong with the row as part of a file, or null. ``fault`` and
    ``fault_column`` are, of several faults, the first in the order of the declaration. ``month`` (YYYY-MM) is that of the first day that
    the row tells.
    """
    told = _Rows(found, rows)
    faults: list[tuple[np.ndarray, str, str]] = [
        (~told.person_given, "missing_person_id", ""),
        (_null(told.person_id), "bad_person_id", ""),
    ]
    nulled = np.zeros(rows.num_rows, np.int64)
    for column in found.columns:
        if column.needs == "value":
            faults.append((~told[column.name].given, "missing_value", column.name))
        if column.type in _ANY_TEXT and not column.pattern:
            continue
        if column.on_error:
            nulled += told[column.name].wrong
        else:
            faults.append((told[column.name].wrong, _WRONG.get(column.type, "bad_code"), column.name))
    for column in found.columns:
        if column.not_before:
            early = pc.less(told[column.name].part("value"), told[column.not_before].part("value"))
            faults.append((_true(early), "bad_order", column.name))
    if not found.tables:
        yields = reduce(np.logical_or, [_yields(told, event) for event in found.events])
        faults.append((~yields, "no_event", ""))
    number = np.zeros(rows.num_rows, np.int64)
    for at in range(len(faults), 0, -1):
        number[faults[at - 1][0]] = at
    fault = _taken([None, *(reason for _, reason, _ in faults)], number)
    place = _taken([None, *(name or None for _, _, name in faults)], number)
    unread = rows["read_fault"].combine_chunks()
    readable = pc.is_null(unread)
    none = pa.scalar(None, _STRING)
    return pa.table(
        {
            "person_id": told.person_id,
            "row_key": pc.if_else(readable, _key(told), none),
            "content_hash": _content(found, rows),
            "fault": pc.if_else(readable, fault, unread),
            "fault_column": pc.if_else(readable, place, none),
            "nulled": pc.if_else(readable, pa.array(nulled), 0),
            "month": _month(told),
        }
    )


def events(found: Source, rows: pa.Table) -> pa.Table:
    """The events (columns `EVENT`) of judged rows without a fault.

    ``rows`` has the fields that `event_fields` names, ``row_key``, ``file_sha256`` and ``person_id``.
    """
    told = _Rows(found, rows)
    stay = _stay(told)
    parts = []
    for event in found.events:
        day = told.day(event)
        holds = told.when(event) & ~_null(day)
        by_row = {"date": day, "stay_key": stay, **_values(told, event)}
        for position, code in _places(told, event):
            # A null among the indices would be a row; so the mask becomes numbers first.
            chosen = np.flatnonzero(holds if code is None or event.uncoded else holds & ~_null(code[1]))
            if len(chosen):
                parts.append(_events_of(found, event, position, code, by_row, rows, chosen))
    empty = pa.table({name: pa.array([], _ARROW[type_]) for name, type_ in EVENT.items()})
    return pa.concat_tables([empty, *parts])


def _events_of(
    found: Source,
    event: EventSpec,
    position: int | None,
    code: tuple[pa.Array, pa.Array, pa.Array] | None,
    by_row: Mapping[str, pa.Array],
    rows: pa.Table,
    chosen: np.ndarray,
) -> pa.Table:
    """The events of one entry of emits and one place of a code."""
    count, at = len(chosen), pa.array(chosen)
    row_key = rows["row_key"].combine_chunks().take(at)
    fixed = {"source": found.name, "scheme": found.scheme, "kind": event.kind, "position": position}
    made = {name: _repeated(value, EVENT[name], count) for name, value in fixed.items()}
    made |= {name: rows[name].combine_chunks().take(at) for name in ("file_sha256", "person_id")}
    made["row_key"] = row_key
    made["event_key"] = pc.binary_join_element_wise(row_key, event.kind, str(position or 0), ".")
    if code is not None:
        made |= {name: part.take(at) for name, part in zip(("system", "code", "code_root"), code, strict=True)}
    made |= {name: values.take(at) for name, values in by_row.items()}
    return pa.table({name: made[name] if name in made else pa.nulls(count, _ARROW[type_]) for name, type_ in EVENT.items()})


def _repeated(value: Any, type_: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, _ARROW[type_]), count)


def event_fields(found: Source) -> list[str]:
    """The fields that events are made of, in the order of the declaration."""
    used = {name for event in found.events for name in event.columns} | set(found.stay_key)
    return [column.field for column in found.columns if column.name in used]


def table_rows(found: Source, spec: TableSpec, rows: pa.Table) -> pa.Table:
    """Rows of a table of its own from judged rows without a fault: its columns, ``_latest`` and ``_open``.

    ``_latest`` is what the latest row is told by; ``_open`` is whether the column that says that a row still holds is empty.
    """
    told = _Rows(found, rows)
    made = {to: rows["person_id"].combine_chunks() if name == PERSON else told[name].part("value") for to, name in spec.columns.items()}
    is_open = ~told[spec.current["open"]].given if spec.current else np.ones(rows.num_rows, bool)
    return pa.table({**made, "_latest": told[spec.latest_by].part("value"), "_open": pa.array(is_open)})


class _Rows:
    """Rows of a source, with what its columns say; a column is looked at when it is asked for."""

    def __init__(self, found: Source, rows: pa.Table) -> None:
        self.found = found
        self.rows = rows
        self._columns: dict[str, _Column] = {}

    def __getitem__(self, name: str) -> "_Column":
        if name not in self._columns:
            column = self.found.column(name)
            self._columns[name] = _Column(self.found, column, self.rows[column.field].combine_chunks())
        return self._columns[name]

    @cached_property
    def _persons(self) -> list["_Column"]:
        named = [self.found.column(name) for name in self.found.person_columns]
        tell = _person_teller(self.found.scheme)
        return [_Column(self.found, column, self.rows[column.field].combine_chunks(), tell) for column in named]

    @cached_property
    def person_id(self) -> pa.Array:
        """Of the person columns the first that is an identifier."""
        return pc.coalesce(*[column.part("value") for column in self._persons])

    @property
    def person_given(self) -> np.ndarray:
        """Whether any person column holds something."""
        return reduce(np.logical_or, [_true(column.part("held")) for column in self._persons])

    def day(self, event: EventSpec) -> pa.Array:
        """The day of an event: the first of its columns that has one."""
        return pc.coalesce(*[self[name].part("value") for name in event.date])

    def when(self, event: EventSpec) -> np.ndarray:
        """The rows that an entry of emits is for."""
        held = [self[name].is_one_of(texts) for name, texts in event.when]
        return reduce(np.logical_and, held, np.ones(self.rows.num_rows, bool))


class _Column:
    """One column of some rows: its distinct texts, what each of them is, and which one a row has."""

    def __init__(self, found: Source, column: SourceColumn, raw: pa.Array, teller: "_Teller | None" = None) -> None:
        self._source = found
        self._column = column
        self._raw = pc.fill_null(raw, "")
        self._teller = teller or _teller(column)

    @cached_property
    def text(self) -> pa.Array:
        """Texts without white space around them, empty where there is none."""
        return pc.utf8_trim(self._raw, steps.BLANK)

    @cached_property
    def given(self) -> np.ndarray:
        """Whether there is a text."""
        return np.asarray(pc.not_equal(self.text, "").to_numpy(zero_copy_only=False), dtype=bool)

    def is_one_of(self, texts: Sequence[str]) -> np.ndarray:
        """Whether the text is one of some."""
        return _true(pc.is_in(self.text, pa.array(texts, _STRING)))

    @cached_property
    def _day(self) -> dates.Days:
        return dates.parse(self.text, self._column.formats, self._source.earliest_date)

    @cached_property
    def _encoded(self) -> tuple[np.ndarray, list[tuple]]:
        """Number of each row's text, and what each text is."""
        encoded = self._raw.dictionary_encode()
        return encoded.indices.to_numpy(), self._teller.tell(encoded.dictionary.to_pylist())

    @property
    def wrong(self) -> np.ndarray:
        """Whether there is a text that is not right."""
        if self._column.type in _DAYS:
            return self.given & ~self._day.valid
        numbers, told = self._encoded
        return np.array([one[0] for one in told], bool)[numbers]

    def part(self, name: str) -> pa.Array:
        """What the text says: ``value``, and more by type. Null where it is not right, so that its row may stand without."""
        if self._column.type in _DAYS:
            return self._day.times if name == "time" or self._column.type == "time" else self._day.days
        if self._column.type == "text" and not self._column.pattern and not self._teller.parts:
            return pc.if_else(pa.array(self.given), self.text, pa.scalar(None, _STRING))
        numbers, told = self._encoded
        at, type_ = self._teller.parts[name]
        return pa.array([one[at] for one in told], type_).take(pa.array(numbers))


class _Teller:
    """What a text of a column is, as a tuple: whether it is wrong, then the parts. What was told is remembered, up to a limit."""

    def __init__(self, look: Callable[[str], tuple], parts: dict[str, tuple[int, pa.DataType]]) -> None:
        self._look = look
        self._known: dict[str, tuple] = {}
        self.parts = parts

    def tell(self, texts: list[str]) -> list[tuple]:
        """What each of some texts is."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        known, look = self._known, self._look
        found = []
        for text in texts:
            one = known.get(text)
            if one is None:
                one = known[text] = look(text)
            found.append(one)
        return found


def _parts(**types: pa.DataType) -> dict[str, tuple[int, pa.DataType]]:
    """Name -> place in the tuple, after whether it is wrong; and type."""
    return {name: (place, type_) for place, (name, type_) in enumerate(types.items(), start=1)}


@cache
def _person_teller(scheme: str) -> _Teller:
    declared = identity.scheme(scheme)

    def look(raw: str) -> tuple:
        found = identity.normalise(declared, raw)
        return (False, found.value, found.reason != "no_identifier")

    return _Teller(look, _parts(value=_STRING, held=pa.bool_()))


_tellers: dict[tuple, _Teller] = {}


def _teller(column: SourceColumn) -> _Teller:
    # Columns that differ in their names only have one memory.
    values = tuple((column.values or {}).items())
    key = (column.type, column.range, values, column.pattern, column.systems, column.scheme, column.width, column.count)
    if key not in _tellers:
        _tellers[key] = _new_teller(column)
    return _tellers[key]


def _new_teller(column: SourceColumn) -> _Teller:
    match column.type:
        case "number" | "integer":
            return _Teller(lambda raw: _number(column, raw), _parts(value=pa.float64() if column.type == "number" else pa.int64()))
        case "map":
            values = column.values or {}
            return _Teller(lambda raw: _mapped(values, raw), _parts(value=_STRING))
        case "code":
            return _Teller(lambda raw: _code(column, raw), _parts(value=_STRING, system=_STRING, root=_STRING))
        case "codes":
            names = [f"{part}{place}" for place in range(column.count) for part in ("value", "system", "root")]
            return _Teller(lambda raw: _code_list(column, raw), _parts(**dict.fromkeys(names, _STRING)))
        case "identity":
            return _Teller(lambda raw: _identity(str(column.scheme), raw), _parts(value=_STRING))
        case "measure":
            return _Teller(_measure, _parts(value=pa.float64(), comparator=_STRING))
        case "comparator":
            return _Teller(lambda raw: _mapped(_COMPARATORS, raw), _parts(value=_STRING))
        case "unit":
            return _Teller(_unit, _parts(value=_STRING, std=_STRING, factor=pa.float64()))
        case _:
            return _Teller(lambda raw: _pattern(str(column.pattern), raw), _parts(value=_STRING) if column.pattern else {})


def _number(column: SourceColumn, raw: str) -> tuple:
    text = raw.strip(steps.BLANK)
    value: float | None = float(text) if _WHOLE_NUMBER.fullmatch(text) else None
    if value is not None and column.range and not column.range[0] <= value <= column.range[1]:
        value = None
    if column.type == "integer" and value is not None:
        value = int(value) if value == math.floor(value) and abs(value) < 2**63 else None
    return (bool(text) and value is None, value)


def _mapped(values: Mapping[str, str | None], raw: str) -> tuple:
    """What a listed text means. A listed one that ends in * stands for all that begin with what is before it."""
    text = raw.strip(steps.BLANK)
    for listed, value in values.items():
        if text == listed or (listed.endswith("*") and text and text.startswith(listed[:-1])):
            return (False, value)
    return (bool(text), None)


def _code(column: SourceColumn, raw: str) -> tuple:
    text = raw.strip(steps.BLANK)
    found = codes.normalise(column.systems, text) if text else None
    return (True, None, None, None) if text and found is None else (False, *_parts_of(found))


def _parts_of(found: codes.Code | None) -> tuple:
    return (found.code, found.system, found.root) if found else (None, None, None)


def _code_list(column: SourceColumn, raw: str) -> tuple:
    # Dots are no part of the width; leading blanks are, where the first code is missing.
    packed = raw.rstrip(" ").replace(".", "")
    parts: list[str | None] = []
    wrong = len(packed) > column.width * column.count
    for place in range(column.count):
        piece = packed[place * column.width : (place + 1) * column.width].strip(steps.BLANK)
        found = codes.normalise(column.systems, piece) if piece else None
        wrong |= bool(piece) and found is None
        parts += _parts_of(found)
    return (wrong, *parts)


def _identity(scheme: str, raw: str) -> tuple:
    found = identity.normalise(identity.scheme(scheme), raw)
    return (bool(raw.strip(steps.BLANK)) and found.value is None, found.value)


def _measure(raw: str) -> tuple:
    found = _MEASURE.fullmatch(raw.strip(steps.BLANK))
    return (False, float(found[2]), _COMPARATORS.get(found[1] or "")) if found else (False, None, None)


def _unit(raw: str) -> tuple:
    text = raw.strip(steps.BLANK)
    unit = codes.unit_of(text) if text else None
    return (False, text or None, *((unit.std, unit.factor) if unit else (None, None)))


def _pattern(pattern: str, raw: str) -> tuple:
    text = raw.strip(steps.BLANK)
    holds = bool(text) and re.fullmatch(pattern, text) is not None
    return (bool(text) and not holds, text if holds else None)


def _null(values: pa.Array) -> np.ndarray:
    return np.asarray(pc.is_null(values).to_numpy(zero_copy_only=False), dtype=bool)


def _true(values: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), dtype=bool)


def _taken(texts: list[str | None], numbers: np.ndarray) -> pa.Array:
    return pa.array(texts, _STRING).take(pa.array(numbers))


def _key(told: _Rows) -> pa.Array:
    """Hash over the key's columns, in one form where they have one: a lost leading zero makes no other row."""
    parts = []
    for name in told.found.row_key:
        if name == PERSON:
            parts.append(pc.fill_null(told.person_id, ""))
            continue
        column, text = told.found.column(name), told[name].text
        parts.append(pc.coalesce(told[name].part("value").cast(_STRING), text) if column.type in _ONE_FORM else text)
    return _hash([told.found.name, *parts])


def _stay(told: _Rows) -> pa.Array:
    """The stay that a row names; null where it names none."""
    count = told.rows.num_rows
    if not told.found.stay_key:
        return pa.nulls(count, _STRING)
    columns = [told[name] for name in told.found.stay_key]
    there = reduce(np.logical_and, [column.given for column in columns])
    return pc.if_else(pa.array(there), _hash([told.found.stays, "stay", *[column.text for column in columns]]), pa.scalar(None, _STRING))


def _hash(parts: "list[str | pa.Array]") -> pa.Array:
    joined = pc.binary_join_element_wise(*parts, _SEPARATOR).cast(pa.binary())
    sha256 = hashlib.sha256
    return pa.array([sha256(text).hexdigest()[:_KEY_DIGITS] for text in joined.to_pylist()], _STRING)


def _content(found: Source, rows: pa.Table) -> pa.Array:
    """Hash of 64 bits over all columns; one that the file lacks counts as empty."""
    texts = [rows[column.field].combine_chunks() for column in found.columns]
    joined = pc.binary_join_element_wise(*texts, _SEPARATOR, null_handling="replace", null_replacement="").cast(pa.binary())
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(text, digest_size=8).digest() for text in joined.to_pylist()])
    return pa.array(np.frombuffer(digests, "<i8"))


def _month(told: _Rows) -> pa.Array:
    days = [told.day(event) for event in told.found.events] + [told[spec.latest_by].part("value") for spec in told.found.tables]
    day = pc.coalesce(*days)
    months = day.cast(pa.int32()).fill_null(0).to_numpy().astype("datetime64[D]").astype("datetime64[M]")
    distinct, numbers = np.unique(months, return_inverse=True)
    texts = pa.array(np.datetime_as_string(distinct).tolist(), _STRING)
    return pc.if_else(pc.is_null(day), pa.scalar(None, _STRING), texts.take(pa.array(numbers)))


def _yields(told: _Rows, event: EventSpec) -> np.ndarray:
    """Whether a row gives at least one event of an entry of emits."""
    dated = told.when(event) & ~_null(told.day(event))
    coded = [~_null(code[1]) for _, code in _places(told, event) if code is not None]
    return dated & reduce(np.logical_or, coded) if coded and not event.uncoded else dated


def _places(told: _Rows, event: EventSpec) -> "Iterable[tuple[int | None, tuple[pa.Array, pa.Array, pa.Array] | None]]":
    """(position, (system, code, root)) of each code that an entry of emits may have in a row; position None where it has no list."""
    if event.code:
        columns = [told[name] for name in event.code]
        # Of the first column that has a code; a system without categories has no root, whatever the next column says.
        chosen = [~_null(column.part("value")) for column in columns]
        yield None, tuple(_first_of(chosen, [column.part(part) for column in columns]) for part in ("system", "value", "root"))
    elif not event.codes:
        yield None, None
    else:
        position = event.first_position
        for name in event.codes:
            column = told.found.column(name)
            for suffix in [str(n) for n in range(column.count)] if column.type == "codes" else [""]:
                system, code, root = (told[name].part(f"{part}{suffix}") for part in ("system", "value", "root"))
                yield position, (system, code, root)
                position += 1


def _first_of(chosen: list[np.ndarray], values: list[pa.Array]) -> pa.Array:
    found = pa.nulls(len(values[0]), values[0].type)
    for holds, value in reversed(list(zip(chosen, values, strict=True))):
        found = pc.if_else(pa.array(holds), value, found)
    return found


def _values(told: _Rows, event: EventSpec) -> dict[str, pa.Array]:
    """The columns of record_event that an entry of emits fills, but for the codes."""
    made: dict[str, pa.Array] = {}

    def part(column: str | None, which: str) -> pa.Array | None:
        return told[column].part(which) if column is not None else None

    measured = event.measure or event.value
    value, factor = part(measured, "value"), part(event.unit, "factor")
    signs = [sign for sign in (part(event.measure, "comparator"), part(event.comparator, "value")) if sign is not None]
    given = {
        "end_date": part(event.end_date, "value"),
        "time": part(event.time, "value") if event.time is not None else _time(told, event),
        "value": value.cast(pa.float64()) if value is not None else None,
        "value_raw": told[event.measure].text if event.measure is not None else None,
        "comparator": pc.coalesce(*signs) if signs else None,
        "unit_raw": part(event.unit, "value"),
        "unit_std": part(event.unit, "std"),
        "value_std": pc.multiply(value.cast(pa.float64()), factor) if value is not None and factor is not None else None,
        "status": part(event.status, "value"),
    }
    made.update({name: values for name, values in given.items() if values is not None})
    return made


def _time(told: _Rows, event: EventSpec) -> pa.Array | None:
    """The time of the day that is told, not of another."""
    columns = [told[name] for name in event.date]
    if not any(told.found.column(name).type == "datetime" for name in event.date):
        return None
    return _first_of([~_null(column.part("value")) for column in columns], [column.part("time") for column in columns])
