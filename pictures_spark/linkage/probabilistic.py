"""Who a header most likely means, by names, dates, sex, postcode and what is left of a number: splink in DuckDB, with a stored model.

Enters: headers that exact linking left and the register, as Parquet in a folder of the identifiable zone. Leaves: scored candidates there.
Runs on the driver, in DuckDB with a limit of memory and spill into the same folder, because only what exact linking leaves comes here: of
10^6 people some 10^5 headers. Splink on Spark needs a jar of its own for the text distances. Nothing is collected into Python.
"""

import json
import logging
import math
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures_spark.linkage import evidence
from pictures_spark.resources import schemas_dir

if TYPE_CHECKING:
    import duckdb
    from pyspark.sql import Column, DataFrame

HEADERS, REGISTER, SCORED = "headers", "register", "scored.parquet"
# Spark's driver lives on the same machine; what is more spills.
_MEMORY = "2GB"


@cache
def model() -> dict[str, Any]:
    """The stored model: what is compared, its weights and which pairs are looked at, in splink's form. Callers must not change it."""
    # Not as YAML, to which 3e-05 is a text.
    found: dict[str, Any] = json.loads((schemas_dir() / "linkage" / "model.json").read_text(encoding="utf-8"))
    return found


def compared(surname: "Column", forename: "Column", number: "Column") -> "dict[str, Column]":
    """The columns that the model compares and blocks on, beside birth_date, sex and postcode."""
    from pyspark.sql import functions as F

    birth = F.col("birth_date")
    return {
        "surname": surname,
        "forename": forename,
        # Null unless both are there, so that no pair is looked at for what is missing.
        "full_name": F.concat(surname, F.lit(" "), forename),
        "turned_name": F.concat(forename, F.lit(" "), surname),
        "birth_year": F.year(birth),
        "birth_day": F.date_format(birth, "MM-dd"),
        "number_start": F.substring(number, 1, 6),
        "number_end": F.substring(number, -4, 4),
    }


def headers(rows: "DataFrame") -> "DataFrame":
    """Columns of the model from evidence (evidence_id, surname, forename, birth_date, sex, postcode, number)."""
    from pyspark.sql import functions as F

    number = F.col("number")
    made = compared(F.col("surname"), F.col("forename"), number)
    return rows.select(F.col("evidence_id").alias("unique_id"), *[made[n].alias(n) for n in made], "birth_date", "sex", "postcode")


def register(people: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """Columns of the model from table ``person``, with scheme, person_id and upi. Older numbers keep the names that they had."""
    from pyspark.sql import functions as F

    surname = evidence.letters(evidence.folded(F.col("surname")))
    forename = evidence.first_name(evidence.folded(F.col("forename")), rules)
    made = compared(surname, forename, F.col("person_id"))
    return people.select(
        F.concat_ws("|", "scheme", "person_id").alias("unique_id"),
        *[made[n].alias(n) for n in made],
        "birth_date",
        "sex",
        evidence.postcode(F.col("postcode"), rules).alias("postcode"),
        "scheme",
        "person_id",
        "upi",
    )


def linker(connection: "duckdb.DuckDBPyConnection", settings: dict[str, Any]) -> Any:
    """A splink linker of the tables `HEADERS` and `REGISTER` of a connection."""
    from splink import Linker
    from splink.backends.duckdb import DuckDBAPI

    # Splink tells of every step, and DuckDB of progress, on standard output: a report is no place for either.
    logging.getLogger("splink").setLevel(logging.ERROR)
    api = DuckDBAPI(connection)
    tables = [api.register(name, dataset_display_name=f"{name}_rows") for name in (HEADERS, REGISTER)]
    return Linker(tables, settings, log_level=logging.ERROR)


def connect(folder: Path) -> "duckdb.DuckDBPyConnection":
    """DuckDB that sees the folder's Parquet as `HEADERS` and `REGISTER` and spills into it."""
    import duckdb

    connection = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(folder / "spill")})
    connection.execute("SET enable_progress_bar = false")
    for name in (HEADERS, REGISTER):
        columns = "* EXCLUDE (scheme, person_id, upi)" if name == REGISTER else "*"
        connection.execute(f"CREATE TABLE {name} AS SELECT {columns} FROM read_parquet({_text(folder / name / '*.parquet')})")
    rows = f"read_parquet({_text(folder / REGISTER / '*.parquet')})"
    connection.execute(f"CREATE TABLE people AS SELECT unique_id, scheme, person_id, upi FROM {rows}")
    return connection


def prior(people: int, rules: dict[str, Any]) -> float:
    """Chance that a header and a row of a register of so many people are one person."""
    return float(rules["probabilistic"]["share_in_register"]) / max(people, 2)


def bits(probability: float) -> float:
    """Log2 of the odds of a probability.

    >>> bits(0.5)
    0.0
    """
    return math.log2(probability / (1 - probability))


def score(folder: Path, rules: dict[str, Any]) -> None:
    """Score the folder's headers against its register and judge them; writes `SCORED`: the columns of ``link_candidate``.

    The verdict is the header's: ``linked`` where the best person is likely enough and leads, ``ambiguous`` where the next one is too near,
    ``needs_review`` between the two thresholds, and above both where nobody is linked by score. Headers whose best candidate is below
    ``review_from`` have no row.
    """
    limits = rules["probabilistic"]
    connection = connect(folder)
    people = connection.execute("SELECT COUNT(DISTINCT upi) FROM people").fetchone()
    settings = deepcopy(model()) | {"probability_two_random_records_match": prior(people[0] if people else 0, rules)}
    linked = "false" if limits["link_from"] is None else f"top >= {limits['link_from']}"
    lowest = bits(limits["review_from"]) - limits["lead"]
    pairs = linker(connection, settings).inference.predict(threshold_match_weight=lowest).physical_name
    # A person has a row for each number, and counts once. Ties go by identifiers, so that the same input gives the same rows.
    connection.execute(f"""
        COPY (
            WITH persons AS (
                SELECT unique_id_l AS evidence_id, upi, scheme, person_id, match_weight AS weight, match_probability AS probability
                FROM {pairs} JOIN people ON unique_id_r = people.unique_id
                QUALIFY ROW_NUMBER() OVER (PARTITION BY unique_id_l, upi ORDER BY match_weight DESC, scheme, person_id) = 1
            ),
            ranked AS (
                SELECT *, ROW_NUMBER() OVER best AS place, FIRST(probability) OVER best AS top, FIRST(weight) OVER best AS heaviest
                FROM persons WINDOW best AS (PARTITION BY evidence_id ORDER BY weight DESC, upi)
            ),
            led AS (
                SELECT *, heaviest - MAX(CASE WHEN place = 2 THEN weight END) OVER (PARTITION BY evidence_id) AS lead FROM ranked
            )
            SELECT evidence_id, upi, scheme, person_id, place, ROUND(probability, 6) AS probability, ROUND(weight, 3) AS weight,
                CASE WHEN COALESCE(lead, {limits["lead"]}) < {limits["lead"]} THEN 'ambiguous'
                    WHEN {linked} THEN 'linked' ELSE 'needs_review' END AS verdict
            FROM led WHERE top >= {limits["review_from"]} AND place <= {limits["candidates"]}
        ) TO {_text(folder / SCORED)} (FORMAT parquet)
    """)
    connection.close()


def _text(path: Path) -> str:
    """A path as SQL text."""
    return "'" + str(path).replace("'", "''") + "'"
