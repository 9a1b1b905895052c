"""A small question with every kind of answer, and tables on which each of its steps loses somebody; for the tests of freezes."""

import hashlib
from typing import Any

from cohort_cases import rows
from cohort_delta import publish

from pictures_spark.config import Config
from pictures_spark.schema import table
from pictures_spark.zones import Zones

TABLES = {
    "patient": """
        patient_id | death_date
        p1         |
        p2         | +5
    """,
    "residence": """
        patient_id | from_date | to_date
        p1         | -900      |
        p2         | -900      |
    """,
    "source_cover": """
        source | site | from_date | to_date | lag_days | kinds
        pis    | demo | -200      | +300    | 0        | dispensing
    """,
    "event": """
        event_id | patient_id | source | kind       | system | code    | date
        e1       | p1         | pis    | dispensing | bnf    | 0208020 | +9
    """,
    "series": """
        series_id | study_id | patient_id | scan_date | modality | age_years | image_count | frame_count | n_objects
        s1        | t1       | p1         | +10       | CT       | 70        | 5           | 5           | 5
        s2        | t1       | p1         | +10       | CT       | 70        | 9           | 9           | 9
        s3        | t2       | p2         | +10       | CT       | 70        | 5           | 5           | 5
        s4        | t2       | p2         | +4        | CT       | 70        | 5           | 5           | 5
        s5        | t3       |            | +10       | CT       |           | 5           | 5           | 5
        s6        | t1       | p1         | +10       | MR       | 70        | 5           | 5           | 5
    """,
}
QUESTION = """
cohort: 1
id: on-drug
unit: series
codelists: {drug: {system: bnf, codes: [0208020]}}
steps:
  - {id: ct, where: {modality: CT}}
  - {id: age, where: {age_at: {between: [65, 80]}}, unknown: include}
  - {id: thickness, where: {slice_thickness_max: {le: 1.5}}, unknown: report}
  - {id: on_drug, has: {event: dispensing, codes: drug, window: [-90d, -1d]}}
pick: {one_per: patient, order: [scan_date, -image_count]}
"""


def hexed(name: str) -> str:
    """A pseudonym, as the writer wants them."""
    return hashlib.md5(name.encode()).hexdigest()


def published(config: Config, more: str = "", release: str = "r1", **changed: str) -> None:
    """Publish the tables with pseudonyms in the place of ids, and a release of them."""
    made: dict[str, list[dict[str, Any]]] = {
        name: rows(name, text + (more if name == "series" else "")) for name, text in {**TABLES, **changed}.items()
    }
    for name, found in made.items():
        keyed = [column.name for column in table("deidentified", name).columns if column.deid == "pseudonym"]
        for row in found:
            row |= {column: hexed(row[column]) for column in keyed if row.get(column)} | {"release": release, "run_id": "run"}
    publish(Zones(config, "publisher").path("deidentified", mode="write"), made, release=release)
