"""Frozen cohorts, for the jobs that work on them."""

from typing import TYPE_CHECKING

from pictures_spark.cohort.duck import ZONE
from pictures_spark.errors import ChecksFailedError, ConfigError
from pictures_spark.job import Job

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row


def frozen(job: Job, cohort_id: str) -> "tuple[Row, DataFrame]":
    """The newest freeze of a cohort: its row of `cohort_run`, and its rows of `cohort_member`.

    Raises
    ------
    ConfigError
        The cohort was never frozen.
    ChecksFailedError
        The members are not as many as the freeze says.
    """
    from pyspark.sql import functions as F

    runs = job.read(ZONE, "cohort_run")
    run = runs.where(F.col("cohort_id") == cohort_id).orderBy(F.desc("frozen"), F.desc("cohort_run_id")).first()
    if run is None:
        known = sorted(row[0] for row in runs.select("cohort_id").distinct().collect())
        there = f"there is {', '.join(known)}" if known else "none is"
        raise ConfigError(f"no cohort {cohort_id!r} is frozen ({there}): run `pictures cohort freeze FILE` first")
    members = job.read(ZONE, "cohort_member").where(F.col("cohort_run_id") == run["cohort_run_id"])
    found = members.count()
    if found != run["member_count"]:
        raise ChecksFailedError(f"cohort {cohort_id} was frozen with {run['member_count']} members but {found} are there: freeze it again")
    return run, members


def resolved(people: "DataFrame", patient: "DataFrame") -> "DataFrame":
    """People of an older cohort as they are known now.

    Parameters
    ----------
    people : ``patient_id`` as frozen, and any other columns, which stay.
    patient : the published table, of any later release.

    Returns
    -------
    DataFrame
        ``current_patient_id`` beside ``patient_id``: that which it was merged into; itself where it was not, or where that was undone.
    """
    from pyspark.sql import functions as F

    merged = patient.where("merged_into IS NOT NULL").select("patient_id", "merged_into")
    found = people.join(merged, "patient_id", "left")
    return found.withColumn("current_patient_id", F.coalesce("merged_into", "patient_id")).drop("merged_into")
