"""The records that go with a delivery: events and people, under the project's own ids, dates moved as in the images.

What enters: de-identified tables at the versions of the cohort's release, and the people of the cohort. What leaves: data frames of the
project zone's schemas. The keyed functions run on executors.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
from pyspark.sql import functions as F
from pyspark.sql.functions import pandas_udf

from pictures_spark.keys import KeyRef, date_shift_days, pseudonym_udf
from pictures_spark.schema import table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def events_of(events: "DataFrame", people: "DataFrame", key: KeyRef, shift_limit: int) -> "DataFrame":
    """Every event of the people (patient_id of the zone)."""
    chosen = events.join(people, "patient_id", "left_semi").withColumn("days", _shift_udf(key, shift_limit)("patient_id"))
    return chosen.select(
        pseudonym_udf(key, "event")("event_id").alias("event_id"),
        pseudonym_udf(key, "patient")("patient_id").alias("patient_id"),
        pseudonym_udf(key, "stay")("stay_id").alias("stay_id"),
        F.date_add("date", F.col("days")).alias("date"),
        F.date_add("end_date", F.col("days")).alias("end_date"),
        *(name for name in table("project", "event").names if name not in ("event_id", "patient_id", "stay_id", "date", "end_date")),
    )


def patients_of(patients: "DataFrame", people: "DataFrame", key: KeyRef, shift_limit: int) -> "DataFrame":
    """One row per person; a person that the patient table does not have is left out."""
    chosen = patients.join(people, "patient_id", "left_semi").withColumn("days", _shift_udf(key, shift_limit)("patient_id"))
    return chosen.select(
        pseudonym_udf(key, "patient")("patient_id").alias("patient_id"),
        "sex",
        F.date_add("death_date", F.col("days")).alias("death_date"),
    )


def _shift_udf(key: KeyRef, limit: int) -> Callable:
    """A Spark function from the zone's patient_id to the days that the person's dates move in the project."""

    def days(patient_ids: pd.Series) -> pd.Series:
        secret = key.bytes()
        return patient_ids.map(lambda patient_id: date_shift_days(secret, patient_id, limit)).astype("int32")

    udf: Callable = pandas_udf("int")(days)  # type: ignore[call-overload]
    return udf
