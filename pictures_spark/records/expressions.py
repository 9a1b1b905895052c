"""A record source as Spark expressions: raw text to judged rows, judged rows to events and table rows. No Python runs per row.

Every function is frame in, frame out, nothing read or written; casts are ``try_cast``, so no value stops a job. Executors; nothing is
broadcast. What a row becomes follows from the row and the declaration alone.

What is looked at more than once is a column of its own first, in layers of projections: otherwise each place that looks at it would hold a
copy of the expression, and the generated code would outgrow what the JVM compiles (measured: 480 s instead of 30 for 2,000 rows).
"""

from functools import reduce
from typing import TYPE_CHECKING

from pictures_spark.linkage import identity
from pictures_spark.records import codes, dates, steps
from pictures_spark.records.source import PERSON, EventSpec, Source, SourceColumn, TableSpec
from pictures_spark.schema import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyspark.sql import Column, DataFrame

    # (system, code, root) of one code that a row may hold.
    CodeParts = tuple[Column, Column, Column]

_SEPARATOR = "\x1f"
# Hex digits of SHA-256 that a key keeps: 128 bits, as pseudonyms do.
_KEY_DIGITS = 32
# Fifteen digits are what a double holds exactly; exponents stay far from overflow.
_NUMBER = r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?"
_COMPARATORS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "=": "=", "=<": "<=", "=>": ">=", "≤": "<=", "≥": ">="}
_MEASURE = rf"({'|'.join(sorted(_COMPARATORS, key=len, reverse=True))})?\s*({_NUMBER})"
# Types whose values have one form whatever way they were written, so that the way makes no other key.
_ONE_FORM = ("identity", "date", "code")
# Types of which any text will do: a result may be in words, a unit need not be listed.
_ANY_TEXT = ("text", "measure", "unit")
_WRONG = {
    "text": "bad_value",
    "date": "bad_date",
    "datetime": "bad_date",
    "number": "bad_number",
    "integer": "bad_number",
    "identity": "bad_person_id",
}


def judge(found: Source, df: "DataFrame") -> "DataFrame":
    """Add the person, the row's key, hash and fault to rows of raw text.

    ``df`` has the source's fields as text, and ``read_fault``: what was wrong with the row as CSV, or null. Added are ``person_id``,
    ``row_key``, ``content_hash``, ``fault``, ``fault_column`` (of several faults the first, in the order of the declaration) and
    ``nulled``; ``read_fault`` is gone.
    """
    from pyspark.sql import functions as F

    faults: list[tuple[Column, str, str]] = [
        (~F.col("_person_given"), "missing_person_id", ""),
        (F.col("person_id").isNull(), "bad_person_id", ""),
    ]
    nulled = F.lit(0)
    for column in found.columns:
        if column.needs == "value":
            faults.append((_part(column, "text") == "", "missing_value", column.name))
        if column.type in _ANY_TEXT and not column.pattern:
            continue
        if column.on_error:
            nulled = nulled + _wrong(column).cast("int")
        else:
            faults.append((_wrong(column), _WRONG.get(column.type, "bad_code"), column.name))
    for column in found.columns:
        if column.not_before:
            early = _part(column, "value") < _part(found.column(column.not_before), "value")
            faults.append((F.coalesce(early, F.lit(False)), "bad_order", column.name))
    if not found.tables:
        yields = reduce(lambda left, right: left | right, [_yields(found, event) for event in found.events])
        faults.append((~yields, "no_event", ""))
    (first, reason, name), *more = faults
    fault = F.when(first, F.lit(f"{reason}{_SEPARATOR}{name}"))
    for holds, reason, name in more:
        fault = fault.when(holds, F.lit(f"{reason}{_SEPARATOR}{name}"))
    readable = F.col("read_fault").isNull()
    typed = _with_person(found, _typed(found, df, [column.name for column in found.columns]))
    rows = typed.select(
        *df.columns,
        "person_id",
        F.when(readable, _key(found)).alias("row_key"),
        F.xxhash64(*[F.col(column.field) for column in found.columns]).alias("content_hash"),
        F.when(readable, fault).otherwise(F.col("read_fault")).alias("_fault"),
        F.when(readable, nulled).otherwise(F.lit(0)).cast("long").alias("nulled"),
    )
    place = F.substring_index("_fault", _SEPARATOR, -1)
    return rows.select(
        *[name for name in rows.columns if name not in ("read_fault", "_fault")],
        F.substring_index("_fault", _SEPARATOR, 1).alias("fault"),
        F.when(F.contains("_fault", F.lit(_SEPARATOR)) & (place != ""), place).alias("fault_column"),
    )


def events(found: Source, df: "DataFrame") -> "DataFrame":
    """The events of judged rows without a fault: the columns of record_event but for ``run_id``."""
    from pyspark.sql import functions as F

    stay = F.lit(None).cast("string")
    if found.stay_key:
        parts = [_part(found.column(name), "text") for name in found.stay_key]
        there = reduce(lambda left, right: left & right, [part != "" for part in parts])
        stay = F.when(there, _hash([F.lit(found.name), F.lit("stay"), *parts]))
    used = {name for event in found.events for name in event.columns} | set(found.stay_key)
    typed = _typed(found, df, used)
    # Only what differs from code to code goes through the array; the rest follows from the kind.
    codes_of = [
        F.struct(F.lit(event.kind).alias("kind"), F.lit(at).cast("long").alias("position"), *_named_code(code))
        for event in found.events
        for at, code in _places(found, event)
    ]
    kept = [name for name in typed.columns if name not in df.columns]
    rows = typed.select("row_key", "file_sha256", "person_id", stay.alias("stay_key"), *kept, F.inline(F.array(*codes_of)))
    place = F.coalesce(F.col("position"), F.lit(0)).cast("string")
    return rows.select(
        F.concat_ws(".", "row_key", "kind", place).alias("event_key"),
        F.lit(found.name).alias("source"),
        F.lit(found.scheme).alias("scheme"),
        *("row_key", "file_sha256", "person_id", "stay_key", "kind", "position", "system", "code", "code_root"),
        *[_by_kind(found, name, type_).alias(name) for name, type_ in _BY_KIND.items()],
    ).where(_coded(found) & F.col("date").isNotNull())


_BY_KIND = {
    "date": "date",
    "end_date": "date",
    "time": "string",
    "value": "double",
    "value_raw": "string",
    "comparator": "string",
    "unit_raw": "string",
    "unit_std": "string",
    "value_std": "double",
    "status": "string",
}


def latest_rows(found: Source, spec: TableSpec, df: "DataFrame") -> "DataFrame":
    """The rows of a table of its own from judged rows without a fault: of those with one key the latest.

    ``df`` also has ``load_order`` and ``row_number``, which break ties of ``latest_by``. Beside the table's columns there are those, named
    with a leading _, that `with_current` needs.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    named = [(F.col("person_id") if name == PERSON else _part(found.column(name), "value")).alias(to) for to, name in spec.columns.items()]
    latest = _part(found.column(spec.latest_by), "value")
    order = [latest.alias("_latest"), F.col("load_order").alias("_load"), F.col("row_number").alias("_row")]
    is_open = _part(found.column(spec.current["open"]), "text") == "" if spec.current else F.lit(False)
    used = {*spec.columns.values(), spec.latest_by, *([spec.current["open"]] if spec.current else [])} - {PERSON}
    rows = _typed(found, df, used).select(*named, F.lit(found.scheme).alias("scheme"), "file_sha256", *order, is_open.alias("_open"))
    one = Window.partitionBy(*spec.one_per).orderBy(*_newest())
    return rows.withColumn("_rank", F.row_number().over(one)).where("_rank = 1").drop("_rank")


def with_current(spec: TableSpec, rows: "DataFrame") -> "DataFrame":
    """`latest_rows` with the column that is true for one row of each group, where the table has one; exactly the table's columns."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if spec.current:
        group = Window.partitionBy(spec.current["of"]).orderBy(F.col("_open").desc(), *_newest(), *spec.one_per)
        rows = rows.withColumn(spec.current["column"], F.row_number().over(group) == 1)
    return rows.select(*[name for name in table("identifiable", spec.table).names if name != "run_id"])


def _newest() -> "list[Column]":
    from pyspark.sql import functions as F

    return [F.col(name).desc() for name in ("_latest", "_load", "_row")]


def _typed(found: Source, df: "DataFrame", names: "Iterable[str]") -> "DataFrame":
    """Rows with the text and the typed parts of some columns, named ``<field>__<part>``."""
    columns = [column for column in found.columns if column.name in set(names)]
    for layer in (_text_parts, _tidy_parts, lambda column: _typed_parts(found, column)):
        df = df.select("*", *[value.alias(_name(column, part)) for column in columns for part, value in layer(column).items()])
    return df


def _with_person(found: Source, df: "DataFrame") -> "DataFrame":
    """Rows with ``person_id``, of the person columns the first that is an identifier, and whether any of them holds something."""
    from pyspark.sql import functions as F

    scheme = identity.scheme(found.scheme)
    fields = [found.column(name).field for name in found.person_columns]
    df = df.select("*", *[identity.tidied(scheme, F.col(field)).alias(f"_identity{n}") for n, field in enumerate(fields)])
    told = [F.coalesce(identity.refusal(scheme, F.col(f"_identity{n}")), F.lit("")) for n, _ in enumerate(fields)]
    df = df.select("*", *[refusal.alias(f"_refusal{n}") for n, refusal in enumerate(told)])
    refusals = [F.col(f"_refusal{n}") for n, _ in enumerate(fields)]
    return df.select(
        "*",
        F.coalesce(*[F.when(refusal == "", F.col(f"_identity{n}")) for n, refusal in enumerate(refusals)]).alias("person_id"),
        reduce(lambda left, right: left | right, [refusal != "no_identifier" for refusal in refusals]).alias("_person_given"),
    )


def _name(column: SourceColumn, part: str) -> str:
    return f"{column.field}__{part}"


def _part(column: SourceColumn, part: str) -> "Column":
    from pyspark.sql import functions as F

    return F.col(_name(column, part))


def _text_parts(column: SourceColumn) -> "dict[str, Column]":
    """``text``: without white space around it, empty where there is none."""
    from pyspark.sql import functions as F

    raw = F.coalesce(F.col(column.field), F.lit(""))
    parts = {"text": F.btrim(raw, F.lit(steps.BLANK))}
    if column.type == "codes":
        # Dots are no part of the width; leading blanks are, where the first code is missing.
        parts["packed"] = F.translate(F.rtrim(raw), ".", "")
    return parts


def _tidy_parts(column: SourceColumn) -> "dict[str, Column]":
    """What the typed parts of a column look at, beside its text."""
    from pyspark.sql import functions as F

    text = _part(column, "text")
    match column.type:
        case "date" | "datetime":
            day, time = dates.tidied(text, column.formats)
            return {"iso": day, "clock": time}
        case "code":
            return {f"candidate{n}": code for n, code in enumerate(codes.candidates(column.systems, text))}
        case "codes":
            parts = {}
            for place in range(column.count):
                piece = F.btrim(F.substring(_part(column, "packed"), 1 + place * column.width, column.width), F.lit(steps.BLANK))
                parts[f"piece{place}"] = piece
                parts |= {f"candidate{place}_{n}": code for n, code in enumerate(codes.candidates(column.systems, piece))}
            return parts
        case "identity":
            return {"tidied": identity.tidied(identity.scheme(str(column.scheme)), text)}
        case "measure":
            return {name: F.regexp_extract(text, steps.whole(_MEASURE), group) for name, group in (("sign", 1), ("number", 2))}
        case "unit":
            return {"key": codes.unit_key(text)}
        case _:
            return {}


def _typed_parts(found: Source, column: SourceColumn) -> "dict[str, Column]":
    """``value`` and what else a column says. A value that is not right is null, and so is left out everywhere where its row may stand."""
    from pyspark.sql import functions as F

    text = _part(column, "text")
    match column.type:
        case "date" | "datetime":
            # As text, because days written year first are in order as text.
            there = _part(column, "iso") >= F.lit(found.earliest_date or "")
            return {"value": F.when(there, _part(column, "iso").try_cast("date")), "time": F.when(there, _part(column, "clock"))}
        case "number" | "integer":
            value = F.when(steps.matches(text, _NUMBER), text.try_cast("double"))
            if column.type == "integer":
                value = F.when(value == F.floor(value), value).cast("long")
            return {"value": F.when(value.between(*column.range), value) if column.range else value}
        case "map":
            return {"value": _lookup(text, column.values or {})}
        case "code":
            code = codes.express(column.systems, [_part(column, f"candidate{n}") for n, _ in enumerate(column.systems)])
            return {"value": code.code, "system": code.system, "root": code.root}
        case "codes":
            parts: dict[str, Column] = {}
            for place in range(column.count):
                code = codes.express(column.systems, [_part(column, f"candidate{place}_{n}") for n, _ in enumerate(column.systems)])
                parts |= {f"value{place}": code.code, f"system{place}": code.system, f"root{place}": code.root}
            return parts
        case "identity":
            refusal = identity.refusal(identity.scheme(str(column.scheme)), _part(column, "tidied"))
            return {"value": F.when(refusal.isNull(), _part(column, "tidied"))}
        case "measure":
            return {"value": _part(column, "number").try_cast("double"), "comparator": _lookup(_part(column, "sign"), _COMPARATORS)}
        case "comparator":
            return {"value": _lookup(text, _COMPARATORS)}
        case "unit":
            std, factor = codes.express_unit(_part(column, "key"))
            return {"value": F.when(text != "", text), "std": std, "factor": factor}
        case _:
            return {"value": F.when(steps.matches(text, column.pattern) if column.pattern else text != "", text)}


def _lookup(text: "Column", listed: "Mapping[str, str | None]") -> "Column":
    """What a listed text means; null for any other."""
    from pyspark.sql import functions as F

    none = F.when(F.lit(False), F.lit(""))
    return reduce(lambda case, entry: case.when(text == entry[0], F.lit(entry[1])), listed.items(), none)


def _wrong(column: SourceColumn) -> "Column":
    """Whether a column holds a text that is not right; never null."""
    from pyspark.sql import functions as F

    text = _part(column, "text")
    match column.type:
        case "map":
            return (text != "") & ~text.isin(list(column.values or {}))
        case "codes":
            too_long = F.length(_part(column, "packed")) > column.width * column.count
            pieces = [(_part(column, f"piece{n}") != "") & _part(column, f"value{n}").isNull() for n in range(column.count)]
            return reduce(lambda left, right: left | right, pieces, too_long)
        case _:
            return (text != "") & _part(column, "value").isNull()


def _key(found: Source) -> "Column":
    """Hash over the key's columns, in one form where they have one: a lost leading zero makes no other row."""
    from pyspark.sql import functions as F

    parts = []
    for name in found.row_key:
        if name == PERSON:
            parts.append(F.coalesce(F.col("person_id"), F.lit("")))
        else:
            column = found.column(name)
            text = _part(column, "text")
            parts.append(F.coalesce(_part(column, "value").cast("string"), text) if column.type in _ONE_FORM else text)
    return _hash([F.lit(found.name), *parts])


def _hash(parts: "list[Column]") -> "Column":
    from pyspark.sql import functions as F

    return F.substring(F.sha2(F.concat_ws(_SEPARATOR, *parts), 256), 1, _KEY_DIGITS)


def _yields(found: Source, event: EventSpec) -> "Column":
    """Whether a row gives at least one event of a kind."""
    dated = _day(found, event).isNotNull()
    coded = [code[1].isNotNull() for _, code in _places(found, event) if code is not None]
    return dated & reduce(lambda left, right: left | right, coded) if coded else dated


def _places(found: Source, event: EventSpec) -> "list[tuple[int | None, CodeParts | None]]":
    """(position, code) of each code that an event kind may have in a row; position None where it has no list of codes."""
    from pyspark.sql import functions as F

    if event.code:
        first, *others = [found.column(name) for name in event.code]

        def of_first(part: str) -> "Column":
            case = F.when(_part(first, "value").isNotNull(), _part(first, part))
            return reduce(lambda case, other: case.when(_part(other, "value").isNotNull(), _part(other, part)), others, case)

        return [(None, (of_first("system"), of_first("value"), of_first("root")))]
    if not event.codes:
        return [(None, None)]
    suffixes = [(c, str(n) if c.type == "codes" else "") for c in map(found.column, event.codes) for n in range(c.count)]
    return [(at, (_part(c, f"system{n}"), _part(c, f"value{n}"), _part(c, f"root{n}"))) for at, (c, n) in enumerate(suffixes)]


def _named_code(code: "CodeParts | None") -> "list[Column]":
    from pyspark.sql import functions as F

    parts = code or (F.lit(None).cast("string"),) * 3
    return [part.alias(name) for part, name in zip(parts, ("system", "code", "code_root"), strict=True)]


def _coded(found: Source) -> "Column":
    """Whether an event has the code that its kind must have."""
    from pyspark.sql import functions as F

    without = [event.kind for event in found.events if not event.codes and not event.code]
    return F.col("code").isNotNull() | F.col("kind").isin(without) if without else F.col("code").isNotNull()


def _day(found: Source, event: EventSpec) -> "Column":
    from pyspark.sql import functions as F

    return F.coalesce(*[_part(found.column(name), "value") for name in event.date])


def _by_kind(found: Source, name: str, type_: str) -> "Column":
    """A column of record_event that follows from an event's kind."""
    from pyspark.sql import functions as F

    given = [(event.kind, value) for event in found.events if (value := _value(found, event, name)) is not None]
    if not given:
        return F.lit(None).cast(type_)
    (kind, value), *more = given
    case = F.when(F.col("kind") == kind, value)
    return reduce(lambda case, entry: case.when(F.col("kind") == entry[0], entry[1]), more, case).cast(type_)


def _value(found: Source, event: EventSpec, name: str) -> "Column | None":
    """The same for one kind; None where the kind never has it."""
    from pyspark.sql import functions as F

    def part(column: str | None, which: str) -> "Column | None":
        return _part(found.column(column), which) if column is not None else None

    match name:
        case "date":
            return _day(found, event)
        case "end_date":
            return part(event.end_date, "value")
        case "time":
            # Of the day that is told, not of another.
            days = [found.column(day) for day in event.date]
            if not any(day.type == "datetime" for day in days):
                return None
            first, *more = [(_part(day, "value").isNotNull(), _part(day, "time")) for day in days]
            return reduce(lambda case, entry: case.when(*entry), more, F.when(*first))
        case "value":
            return part(event.measure or event.value, "value")
        case "value_raw":
            return part(event.measure, "text")
        case "comparator":
            signs = [sign for sign in (part(event.measure, "comparator"), part(event.comparator, "value")) if sign is not None]
            return F.coalesce(*signs) if signs else None
        case "unit_raw":
            return part(event.unit, "value")
        case "unit_std":
            return part(event.unit, "std")
        case "value_std":
            value, factor = part(event.measure or event.value, "value"), part(event.unit, "factor")
            return value * factor if value is not None and factor is not None else None
        case _:
            return part(event.status, "value")
