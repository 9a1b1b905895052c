"""What a header says of who was scanned: names, birth date, sex, postcode, and identifiers that stand elsewhere than in PatientID.

Enters: rows of ``header_instance`` and ``header_series``. Leaves: one row per distinct statement, named by ``evidence_id``, by which
publish finds its person again. Spark expressions on executors, and one Arrow function over the templates that have other identifiers.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from pictures_spark.resources import load_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

# What evidence_id is made of: columns of header_instance.
SAID = ("patient_id_raw", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex")
_PATIENT_ID, _ADDRESS = "00100020", "00101040"


def evidence_id() -> "Column":
    """Name of what a row of ``header_instance`` says of its patient: SHA-256, hex, of `SAID`; missing and empty are the same."""
    from pyspark.sql import functions as F

    return F.sha2(F.concat_ws("\x1f", *[F.coalesce(F.col(name).cast("string"), F.lit("")) for name in SAID]), 256)


def statements(headers: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """One row per distinct statement: evidence_id, source_id (empty where missing), patient_name, surname, forename, birth_date, sex."""
    from pyspark.sql import functions as F

    distinct = headers.select(evidence_id().alias("evidence_id"), *SAID).dropDuplicates(["evidence_id"])
    sex: Column = F.lit(None).cast("string")
    for written, meant in rules["header_sex"].items():
        sex = F.when(F.upper(F.trim("patient_sex")) == written, F.lit(meant)).otherwise(sex)
    read = distinct.withColumn("folded", folded(F.col("patient_name")))
    surname, forename = parts(F.col("folded"), rules)
    return read.select(
        "evidence_id",
        F.coalesce("patient_id_raw", F.lit("")).alias("source_id"),
        F.regexp_replace("folded", r"[\^,= ]+", " ").alias("whole_name"),
        surname.alias("surname"),
        forename.alias("forename"),
        known_date(F.col("patient_birth_date"), rules).alias("birth_date"),
        sex.alias("sex"),
    )


def folded(name: "Column") -> "Column":
    """The alphabetic group of a person name (PS3.5 6.2.1) in capitals, without accents."""
    from pyspark.sql import functions as F

    accents, plain = _accents()
    return F.upper(F.translate(F.substring_index(name, "=", 1), accents, plain))


@cache
def _accents() -> tuple[str, str]:
    """Letters with accents, and the same without."""
    pairs = [(letter, unicodedata.normalize("NFD", letter)[0]) for letter in map(chr, range(0xC0, 0x250))]
    return "".join(a for a, b in pairs if b.isascii()), "".join(b for _, b in pairs if b.isascii())


def parts(name: "Column", rules: dict[str, Any]) -> "tuple[Column, Column]":
    """Surname and first forename of a `folded` name, letters only; null where there is none.

    ``SURNAME^FORENAME MIDDLE^...``; without ``^`` as ``SURNAME, FORENAME`` and else by blanks. Which is which may be wrong: comparing tries
    both ways round.
    """
    from pyspark.sql import functions as F

    by = (
        F.when(name.contains("^"), F.split(name, r"\^"))
        .when(name.contains(","), F.split(name, ","))
        .otherwise(F.split(F.trim(name), " +", 2))
    )
    return letters(F.get(by, F.lit(0))), first_name(F.get(by, F.lit(1)), rules)


def letters(text: "Column") -> "Column":
    """Letters A to Z of a text; null where there are none."""
    from pyspark.sql import functions as F

    return F.nullif(F.regexp_replace(text, "[^A-Z]", ""), F.lit(""))


def first_name(text: "Column", rules: dict[str, Any]) -> "Column":
    """The first word of a forename that is no title."""
    from pyspark.sql import functions as F

    untitled = F.regexp_replace(F.trim(text), rf"^(({'|'.join(rules['names']['titles'])})\b[. ]*)+", "")
    return letters(F.substring_index(untitled, " ", 1))


def known_date(day: "Column", rules: dict[str, Any]) -> "Column":
    """The date; null where it is one that systems write when they have none."""
    from pyspark.sql import functions as F

    return F.when(~day.cast("string").isin(rules["no_birth_dates"]), day)


def postcode(text: "Column", rules: dict[str, Any]) -> "Column":
    """The postcode in a text, without its blank; null where there is none."""
    from pyspark.sql import functions as F

    found = F.upper(text)
    return F.nullif(F.concat(*[F.regexp_extract(found, rules["postcode"], group) for group in (1, 2)]), F.lit(""))


def elsewhere(headers: "DataFrame", series: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """What the common elements of series say beside `SAID`: evidence_id, others (distinct other identifiers), postcode (one of them).

    Only headers whose series have any. Elements that differ among the images of a series are not looked at: who the patient is does not.
    """
    from pyspark.sql import functions as F

    tags = _tags(rules)
    told = F.col("elements").contains(f'"{_ADDRESS}"')
    for tag in (*tags[0], *tags[1]):
        told = told | F.col("elements").contains(f'"{tag}"')

    def read(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for batch in batches:
            found = [others_in(text, *tags) for text in batch.column("elements").to_pylist()]
            columns = [batch.column("template_id"), pa.array([f[0] for f in found], pa.list_(pa.string())), pa.array([f[1] for f in found])]
            columns[2] = columns[2].cast(pa.string())
            yield pa.RecordBatch.from_arrays(columns, names=["template_id", "others", "address"])

    read_off = (
        series.where(told).select("template_id", "elements").mapInArrow(read, "template_id string, others array<string>, address string")
    )
    saying = read_off.where((F.size("others") > 0) | F.col("address").isNotNull())
    pairs = headers.select(evidence_id().alias("evidence_id"), "template_id").distinct().join(saying, "template_id")
    return pairs.groupBy("evidence_id").agg(
        F.array_sort(F.array_distinct(F.flatten(F.collect_set("others")))).alias("others"),
        F.max(postcode(F.col("address"), rules)).alias("postcode"),
    )


def _tags(rules: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The attributes and sequences of the rules as tags, eight hex digits."""
    from pydicom.datadict import tag_for_keyword

    def tag(keyword: str) -> str:
        return f"{tag_for_keyword(keyword):08X}"

    nested = rules["nested"]
    return tuple(map(tag, nested["attributes"])), tuple(map(tag, nested["sequences"]))


def others_in(elements: str, attributes: Iterable[str], sequences: Iterable[str]) -> tuple[list[str], str | None]:
    """Identifiers in the DICOM JSON model of a header elsewhere than in its PatientID, and its address.

    Examples
    --------
    >>> others_in('{"00101002":{"vr":"SQ","Value":[{"00100020":{"vr":"LO","Value":["0101011237"]}}]}}', (), ("00101002",))
    (['0101011237'], None)
    """
    import orjson

    try:
        model = orjson.loads(elements)
    except orjson.JSONDecodeError:
        return [], None
    found: list[str] = []
    _collect({tag: model[tag] for tag in attributes if tag in model}, {*attributes}, found)
    _collect({tag: model[tag] for tag in sequences if tag in model}, {*attributes, _PATIENT_ID}, found)
    address = _values(model.get(_ADDRESS))
    return list(dict.fromkeys(found)), next((text for text in address if isinstance(text, str)), None)


def _values(element: Any) -> list[Any]:
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _collect(model: dict[str, Any], wanted: set[str], found: list[str]) -> None:
    """Texts of the wanted elements of a model, at any depth."""
    for tag, element in model.items():
        for value in _values(element):
            if isinstance(value, dict):
                _collect(value, wanted, found)
            elif isinstance(value, str) and tag in wanted and value.strip():
                found.append(value)


def rules() -> dict[str, Any]:
    """schemas/linkage.yaml."""
    declared: dict[str, Any] = load_schema("linkage.yaml")
    return declared
