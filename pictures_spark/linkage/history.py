"""Links in time: what of a versioned table a run must write, and which people the register has merged.

Rows are never lost: a row that holds no more gets ``valid_to``, and what holds instead gets a row of its own with ``valid_from``. Both are
SQL that Spark and DuckDB read alike, with the tables' places in braces: jobs run it on executors, the property tests in DuckDB.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

DATED = ("valid_from", "valid_to", "run_id")


def changes(keys: Sequence[str], values: Sequence[str], told: Sequence[str] = ()) -> str:
    """SQL for the rows to merge into a versioned table so that what lasts in it is what is wanted: ended rows, then new ones.

    Tables: ``held`` (every row so far), ``wanted`` (``keys``, ``values`` and ``told``), ``now`` (one row: ``instant``, ``run_id``). A row
    changes where a value does; ``told`` columns go with a new row and change nothing. Missing is a value like any other.

    Returns
    -------
    str
        Columns keys, values, told, valid_from, valid_to, run_id. No row where nothing changes.
    """
    columns = [*keys, *values, *told]
    same = " AND ".join(f"h.{name} IS NOT DISTINCT FROM w.{name}" for name in (*keys, *values))
    return f"""
        SELECT {", ".join(f"h.{name}" for name in columns)}, h.valid_from, now.instant AS valid_to, now.run_id
        FROM {{held}} h CROSS JOIN {{now}} now
        WHERE h.valid_to IS NULL AND NOT EXISTS (SELECT 1 FROM {{wanted}} w WHERE {same})
        UNION ALL
        SELECT {", ".join(f"w.{name}" for name in columns)}, now.instant AS valid_from, NULL AS valid_to, now.run_id
        FROM {{wanted}} w CROSS JOIN {{now}} now
        WHERE NOT EXISTS (SELECT 1 FROM {{held}} h WHERE h.valid_to IS NULL AND {same})
    """


# Which master identifiers are merged: (upi, into_upi). Tables: `links` (upi, scheme, person_id of every link, also of ended ones) and
# `register` (scheme, person_id, upi). A upi that the register has no more was merged where all of its numbers that the register still has
# belong to one other; where they went to several people it was split, and nobody can say who an older cohort meant. Because numbers are
# looked up in the register as it is, a merge of a merge leads to the last one at once, and an un-merge leaves no row.
MERGED = """
    SELECT l.upi, MIN(r.upi) AS into_upi
    FROM (SELECT DISTINCT upi, scheme, person_id FROM {links} WHERE upi IS NOT NULL AND person_id IS NOT NULL) l
    JOIN {register} r ON l.scheme = r.scheme AND l.person_id = r.person_id
    WHERE NOT EXISTS (SELECT 1 FROM {register} still WHERE still.upi = l.upi)
    GROUP BY l.upi
    HAVING COUNT(DISTINCT r.upi) = 1
"""


def current(rows: "DataFrame") -> "DataFrame":
    """The rows of a versioned table that hold now."""
    return rows.where("valid_to IS NULL")
