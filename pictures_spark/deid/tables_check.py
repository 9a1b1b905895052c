"""The last look before anything lands in the de-identified zone: does a string that would be published name somebody?

Every value has already passed a closed list, a range or a pattern; this check knows nothing of those and asks the other way round: it takes
the distinct strings of all tables and looks for shapes of identifiers, and for the very identifiers and names that the identifiable zone
holds. What is searched and what is left out is data: schemas/derive/leak_check.yaml. Executors do the work, the distinct published strings
are broadcast; only table, column and kind of a finding reach the driver.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pictures_spark.errors import ChecksFailedError
from pictures_spark.resources import load_schema
from pictures_spark.schema import Column as Declared
from pictures_spark.schema import Table, table, tables
from pictures_spark.tables import union

COUNTED = "counted"
_PSEUDONYM = "\\A[0-9a-f]{32}\\z"


@dataclass(frozen=True, order=True)
class Finding:
    """Where a published string looks like, or is, an identifier; never the string."""

    table: str
    column: str
    kind: str


def only_pseudonyms(frame: DataFrame, declared: Table) -> DataFrame:
    """The frame, which stops its own write where a column declared ``deid: pseudonym`` holds anything but 32 hex digits or null."""
    safe = {}
    for column in declared.columns:
        if column.deid != "pseudonym":
            continue
        value = F.col(column.name)
        fine = F.forall(value, lambda v: v.rlike(_PSEUDONYM)) if column.type.startswith("array") else value.rlike(_PSEUDONYM)
        message = F.lit(f"table {declared.zone}.{declared.name}: column {column.name} has a value that is not a pseudonym")
        safe[column.name] = F.when(value.isNull() | fine, value).otherwise(F.raise_error(message).cast(frame.schema[column.name].dataType))
    return frame.withColumns(safe)


def census(frames: Mapping[str, DataFrame], more: Iterable[DataFrame] = ()) -> DataFrame:
    """Every distinct string of the frames that are about to become tables, and how often: table, column, value, n.

    One pass serves the report and the check. Left out are pseudonyms (`only_pseudonyms` guards them) and columns of a closed list (the
    writer guards those, and their values are declared). The names in a frame's column ``counted`` are entries of column ``counted``. Of a
    row with a ``skip`` only those count, because nothing else of it is published.

    Parameters
    ----------
    more : further frames of the same four columns.
    """
    entries = [_entries(name, frame) for name, frame in frames.items()]
    grouped = union([part for part in entries if part is not None]).groupBy("table", "column", "value").agg(F.count(F.lit(1)).alias("n"))
    return union([grouped, *more]).localCheckpoint()


def counts(strings: DataFrame) -> dict[str, int]:
    """What a `census` says is to be counted: name -> how often."""
    rows = strings.where(F.col("column") == COUNTED).groupBy("value").agg(F.sum("n").alias("n")).where(F.col("n") > 0).collect()
    return {row["value"]: int(row["n"]) for row in rows}


def findings(strings: DataFrame, inputs: Mapping[str, DataFrame], declared: Iterable[str]) -> list[Finding]:
    """Look through a `census` for identifiers.

    Parameters
    ----------
    inputs : tables of the identifiable zone that hold the identifiers.
    declared : values of the settings that are published as they are (site, source names).

    Returns
    -------
    list of Finding
        Sorted; empty where nothing was found.
    """
    rule = load_schema("derive/leak_check.yaml")
    known = [(value,) for value in sorted({*_declared_values(), *declared, *rule["innocent"]})]
    number = f"\\A-?[0-9]{{1,{rule['digits'] - 1}}}(\\.[0-9]+)?\\z"
    asked = strings.where((F.col("column") != COUNTED) & ~F.col("value").rlike(number))
    published = asked.join(F.broadcast(strings.sparkSession.createDataFrame(known, "value string")), "value", "left_anti")
    looks = [published.where(F.col("value").rlike(shape)).withColumn("kind", F.lit(kind)) for kind, shape in rule["patterns"].items()]
    secrets = union(
        [_identifiers(inputs[name], columns, rule["identifier"]) for name, columns in rule["identifiers"].items()]
        + [_names(inputs[name], columns, rule["name"]) for name, columns in rule["names"].items()]
    )
    met = secrets.join(F.broadcast(published.withColumn("same", _plain(F.col("value")))), "same")
    rows = union([found.select("table", "column", "kind") for found in (*looks, met)]).distinct().collect()
    return sorted(Finding(row["table"], row["column"], row["kind"]) for row in rows)


def refuse(found: list[Finding]) -> None:
    """End the job where something was found.

    Raises
    ------
    ChecksFailedError
        Naming tables, columns and kinds only.
    """
    if found:
        places = ", ".join(f"{f.table}.{f.column} ({f.kind})" for f in found[:20])
        raise ChecksFailedError(
            f"publish: nothing was written, because {len(found)} columns would hold what looks like an identifier: {places}. "
            "Compare these columns with the identifiable tables; a coincidence that a person has looked at goes to `innocent` in "
            "schemas/derive/leak_check.yaml"
        )


def _entries(name: str, frame: DataFrame) -> DataFrame | None:
    """table, column, value of one frame; None where it has nothing to say."""

    def entry(column: str, value: Column) -> Column:
        return F.struct(F.lit(column).alias("column"), value.alias("value"))

    def every(column: str, values: Column) -> Column:
        return F.coalesce(F.transform(values, lambda value: entry(column, value)).cast(_ENTRIES), F.array().cast(_ENTRIES))

    texts = [c for c in _declared_columns(name) if c.name in frame.columns]
    parts = [
        every(c.name, F.col(c.name)) if c.type.startswith("array") else F.array(entry(c.name, F.col(c.name))).cast(_ENTRIES) for c in texts
    ]
    if parts and "skip" in frame.columns:
        parts = [F.when(F.col("skip").isNull(), F.concat(*parts)).otherwise(F.array().cast(_ENTRIES))]
    if COUNTED in frame.columns:
        parts.append(every(COUNTED, F.col(COUNTED)))
    if not parts:
        return None
    rows = frame.select(F.explode(F.concat(*parts)).alias("entry")).where(F.col("entry.value").isNotNull())
    return rows.select(F.lit(name).alias("table"), "entry.column", "entry.value")


def _declared_columns(name: str) -> list[Declared]:
    """The string columns of a table that the check looks at; none for a frame that is no table."""
    if name not in {declared.name for declared in tables("deidentified")}:
        return []
    return [c for c in table("deidentified", name).columns if "string" in c.type and c.deid != "pseudonym" and c.vocabulary is None]


_ENTRIES = "array<struct<column:string,value:string>>"


def _plain(value: Column) -> Column:
    """Upper case without spaces, so that a number or a postcode is the same however it was typed."""
    return F.regexp_replace(F.upper(value), "\\s+", "")


def _identifiers(source: DataFrame, columns: list[str], shortest: int) -> DataFrame:
    """same, kind: the values of some columns."""
    return _secrets(source, F.array(*[_plain(F.col(name)) for name in columns]), shortest, "identifier")


def _names(source: DataFrame, columns: list[str], shortest: int) -> DataFrame:
    """same, kind: the parts of the names in some columns."""
    return _secrets(source, F.split(F.upper(F.concat_ws(" ", *columns)), "[^\\p{L}]+"), shortest, "name")


def _secrets(source: DataFrame, values: Column, shortest: int, kind: str) -> DataFrame:
    return source.select(F.explode(values).alias("same"), F.lit(kind).alias("kind")).where(F.length("same") >= shortest)


def _declared_values() -> set[str]:
    """Every scalar text that the schemas of published values declare: closed lists, keywords, features, units."""
    files = ["vocabularies.yaml", "tags.yaml", "features.yaml", "pixels/reasons.yaml", "derive/body_region.yaml"]
    return {text for file in files for text in _scalars(load_schema(file))}


def _scalars(node: object) -> Iterable[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield str(key)
            yield from _scalars(value)
    elif isinstance(node, list):
        for value in node:
            yield from _scalars(value)
    else:
        yield str(node)
