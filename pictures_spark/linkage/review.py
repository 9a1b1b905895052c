"""`pictures link --clerical-sample N`: headers that nobody may link without looking, beside the people they may mean.

Enters: ``link_candidate`` of the last `pictures link`, ``header_instance`` and ``person``. Leaves one CSV file in the identifiable zone,
mode 0600. It holds names: it never leaves that zone. Spark does the work; the driver writes the sample.
"""

import csv
import os
from typing import TYPE_CHECKING

from pictures_spark.errors import InputError
from pictures_spark.job import Job
from pictures_spark.linkage import evidence

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FILE = "clerical_sample.csv"


def sample(job: Job, size: int) -> None:
    """Write ``clerical/clerical_sample.csv``: ``size`` headers, each with its candidates, in an order that tells nothing.

    Raises
    ------
    InputError
        No header needs review, or `pictures link` has not run.
    """
    rows = chosen(
        job.read("identifiable", "link_candidate"), job.read("identifiable", "header_instance"), job.read("identifiable", "person"), size
    )
    found = rows.collect()
    if not found:
        raise InputError("link: no header needs review, or none was looked at yet: run `pictures link` first")
    path = job.zones.path("identifiable", "clerical", FILE, mode="write")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*rows.columns, "same_person"])
        writer.writerows([*row, ""] for row in found)
    headers = len({row["evidence_id"] for row in found})
    job.report.counts = {"seen": headers, "written": headers, "quarantined": 0}
    job.report.details["candidates"] = len(found)


def chosen(candidates: "DataFrame", headers: "DataFrame", people: "DataFrame", size: int) -> "DataFrame":
    """The sample: one row per candidate of headers with verdict needs_review or ambiguous, what the header says beside the register."""
    from pyspark.sql import functions as F

    open_ones = candidates.where("verdict <> 'linked'").drop("run_id")
    # evidence_id is a hash: its order is a random one, and the same each time.
    picked = open_ones.select("evidence_id").distinct().orderBy("evidence_id").limit(size)
    said = headers.select(evidence.evidence_id().alias("evidence_id"), *evidence.SAID).dropDuplicates(["evidence_id"])
    person = people.select(
        "scheme", "person_id", *[F.col(name).alias(f"register_{name}") for name in ("surname", "forename", "birth_date", "sex", "postcode")]
    )
    rows = open_ones.join(picked, "evidence_id").join(said, "evidence_id").join(person, ["scheme", "person_id"])
    return rows.select(
        *("evidence_id", "verdict", "place", "probability", "weight", *evidence.SAID),
        *(name for name in person.columns if name.startswith("register_")),
        *("scheme", "person_id", "upi"),
    ).orderBy("evidence_id", "place")
