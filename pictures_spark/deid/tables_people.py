"""Patient, residence, event, stay and source_cover, made from the record tables and the crosswalk.

What enters: tables of the identifiable zone at fixed versions. What leaves: frames with the columns of the de-identified tables, except the
provenance that publish adds; a column ``counted`` names what to count in the report. `people` is the only frame with birth dates: publish
computes ages from it and drops it. Executors do the work; nothing is collected.
"""

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pictures_spark.deid import derive
from pictures_spark.deid.tables_guard import copied, guard, withheld_names
from pictures_spark.keys import KeyRef, pseudonym_udf
from pictures_spark.resources import load_schema
from pictures_spark.schema import table

Inputs = Mapping[str, DataFrame]


def record_links(crosswalk: DataFrame) -> DataFrame:
    """(scheme, person_id) of the records -> patient_id, null where unlinked."""
    rows = crosswalk.where(F.col("source") == "records")
    return rows.select("scheme", F.col("source_id").alias("person_id"), "patient_id", F.lit(True).alias("known"))


def people(inputs: Inputs) -> DataFrame:
    """Everybody in the crosswalk: patient_id, birth_date, sex, death_date, death_source.

    The death is the earliest recorded one, of the source that sorts first where several give that date.
    """
    linked = inputs["crosswalk"].where(F.col("patient_id").isNotNull()).groupBy("patient_id").agg(F.min("upi").alias("upi"))
    register = inputs["person"].where("current").select("upi", "birth_date", "sex")
    dead = inputs["record_event"].where(F.col("kind") == "death").join(record_links(inputs["crosswalk"]), ["scheme", "person_id"])
    deaths = dead.groupBy("patient_id").agg(F.min(F.struct("date", "source")).alias("death"))
    frame = linked.join(register, "upi", "left").join(deaths, "patient_id", "left")
    return frame.select(
        "patient_id", "birth_date", "sex", F.col("death.date").alias("death_date"), F.col("death.source").alias("death_source")
    )


def event(inputs: Inputs, everybody: DataFrame, key: KeyRef) -> DataFrame:
    """One row per event, linked or not: the columns of table ``event``, with ``patient_id`` null and ``skip`` set where unlinked."""
    declared = table("deidentified", "event")
    records = inputs["record_event"].drop("run_id").join(record_links(inputs["crosswalk"]), ["scheme", "person_id"], "left")
    records = records.join(everybody.select("patient_id", "birth_date"), "patient_id", "left")
    # Most sources name every stay: whether one is missing is told by two columns, without rebuilding any.
    if not inputs["record_event"].where((F.col("kind") == "admission") & F.col("stay_key").isNull()).isEmpty():
        records = records.join(rebuilt_stays(inputs), "row_key", "left").withColumn("stay_key", F.coalesce("stay_key", "rebuilt_key"))
    guards = copied(declared, records, leave=("patient_id", "unit_raw"))
    age = guard(declared.by_name["age_years"], derive.age_years(F.col("birth_date"), F.col("date")))
    # A unit that the unit table does not list is free text.
    unit = guard(declared.by_name["unit_raw"], F.col("unit_raw"))
    listed = F.regexp_replace(F.lower("unit_raw"), "\\s+", "").isin(sorted(unit_spellings()))
    unlisted = F.coalesce(~listed & (F.length(F.trim("unit_raw")) > 0), F.lit(False))
    guards |= {"age_years": age, "unit_raw": type(unit)(F.when(listed, unit.value), unit.withheld | unlisted)}
    skip = F.when(F.col("known").isNull(), F.lit("not_linked_yet")).when(F.col("patient_id").isNull(), F.lit("skipped_unlinked"))
    return records.select(
        pseudonym_udf(key, "event")("event_key").alias("event_id"),
        pseudonym_udf(key, "stay")("stay_key").alias("stay_id"),
        "patient_id",
        *[g.value.alias(name) for name, g in guards.items()],
        skip.alias("skip"),
        F.concat(F.array(F.lit("events")), F.when(skip.isNull(), withheld_names("event", guards)).otherwise(F.array(skip))).alias(
            "counted"
        ),
    )


def rebuilt_stays(inputs: Inputs) -> DataFrame:
    """(row_key, rebuilt_key): the stay of each linked inpatient episode whose source gives none.

    The episodes of a person, of all sources that have admissions, are taken in the order of their first day (then last day, then key). An
    episode goes on with those before it where it begins before the last day that they reach; or on that day or the day after it, where
    the episode that reached it ended in a transfer; or on that day, where it does not say how it ended. Else it begins another stay. An
    episode without a last day reaches its first. Within such a run of episodes, one without a stay belongs to that of the nearest before
    it that has one, else of the nearest after it; where none has, they make a stay of their own. Stays that a source gives never change.
    """
    events = inputs["record_event"]
    links = record_links(inputs["crosswalk"]).where(F.col("patient_id").isNotNull())
    admitted = events.where(F.col("kind") == "admission").join(links, ["scheme", "person_id"])
    admitted = admitted.select("patient_id", "row_key", "stay_key", "date", F.coalesce("end_date", "date").alias("last"))
    episodes = admitted.join(admitted.where(F.col("stay_key").isNull()).select("patient_id").distinct(), "patient_id", "left_semi")
    ended = events.where(F.col("kind") == "discharge").select("row_key", "status")
    # Of several that reach the same day, a transfer counts most.
    way = F.when(F.col("status") == "transfer", 2).when(F.col("status").isNull(), 1).otherwise(0)
    episodes = episodes.join(ended, "row_key", "left").withColumn("reach", F.struct("last", way.alias("way")))
    order = Window.partitionBy("patient_id").orderBy("date", "last", "row_key")
    reached = F.max("reach").over(order.rowsBetween(Window.unboundedPreceding, -1))
    rows = episodes.withColumn("reached", reached).withColumn("gap", F.date_diff("date", F.col("reached.last")))
    goes_on = (F.col("gap") < 0) | ((F.col("reached.way") == 2) & (F.col("gap") <= 1)) | ((F.col("reached.way") == 1) & (F.col("gap") == 0))
    rows = rows.withColumn("run", F.sum(F.when(goes_on, 0).otherwise(1)).over(order))
    run = Window.partitionBy("patient_id", "run").orderBy("date", "last", "row_key")
    before = F.last("stay_key", ignorenulls=True).over(run.rowsBetween(Window.unboundedPreceding, 0))
    after = F.first("stay_key", ignorenulls=True).over(run.rowsBetween(0, Window.unboundedFollowing))
    own = F.substring(F.sha2(F.concat(F.lit("stay "), F.first("row_key").over(run)), 256), 1, 32)
    return (
        rows.select("row_key", "stay_key", F.coalesce(before, after, own).alias("rebuilt_key")).where("stay_key IS NULL").drop("stay_key")
    )


def unit_spellings() -> frozenset[str]:
    """Every spelling of a unit that schemas/units.yaml lists, in small letters without spaces."""
    return frozenset(
        "".join(spelling.lower().split()) for row in load_schema("units.yaml") for spelling in (row["unit"], *row["spellings"])
    )


def stay(events: DataFrame) -> DataFrame:
    """Continuous stays from the linked events that name one.

    ``start_date`` is the first admission (else the first event), ``end_date`` the last discharge (else the last end date of an admission,
    else null). A stay whose events belong to several people is left out: it can be told neither's.
    """
    admission, discharge = F.col("kind") == "admission", F.col("kind") == "discharge"
    frame = (
        events.where(F.col("stay_id").isNotNull())
        .groupBy("stay_id")
        .agg(
            F.min("patient_id").alias("patient_id"),
            F.max("patient_id").alias("other_patient_id"),
            F.coalesce(F.min(F.when(admission, F.col("date"))), F.min("date")).alias("start_date"),
            F.coalesce(F.max(F.when(discharge, F.col("date"))), F.max(F.when(admission, F.col("end_date")))).alias("end_date"),
            F.min("source").alias("type"),
            F.array_sort(F.collect_set(F.when(admission, F.col("event_id")))).alias("episode_ids"),
        )
    )
    return frame.where(F.col("patient_id") == F.col("other_patient_id")).drop("other_patient_id")


def patient(everybody: DataFrame, studies: DataFrame, records: DataFrame, merges: DataFrame) -> DataFrame:
    """One row per person with a linked scan or a linked record; sex from the register, else that of most of the person's studies.

    And one for each person who was merged into one of them, with ``merged_into`` and nothing else: cohorts of before name it.
    ``records`` has their patient_id, as often as it comes.
    """
    scanned = studies.where(F.col("patient_id").isNotNull()).groupBy("patient_id").agg(F.mode("sex", True).alias("header_sex"))
    recorded = records.select("patient_id").distinct().withColumn("header_sex", F.lit(None).cast("string"))
    seen = scanned.unionByName(recorded).groupBy("patient_id").agg(F.max("header_sex").alias("header_sex"))
    frame = seen.join(everybody, "patient_id", "left")
    declared = table("deidentified", "patient")
    guards = {
        "birth_month": guard(declared.by_name["birth_month"], F.date_format("birth_date", "yyyy-MM")),
        "sex": guard(declared.by_name["sex"], F.coalesce("sex", "header_sex")),
        "death_source": guard(declared.by_name["death_source"], F.col("death_source")),
    }
    found = frame.select(
        "patient_id",
        *[g.value.alias(name) for name, g in guards.items()],
        "death_date",
        F.lit(None).cast("string").alias("merged_into"),
        withheld_names("patient", guards).alias("counted"),
    )
    merged = merges.select("patient_id", F.col("into_patient_id").alias("merged_into"))
    merged = merged.join(found.select(F.col("patient_id").alias("merged_into")), "merged_into", "left_semi")
    return found.unionByName(merged.withColumn("counted", F.array().cast("array<string>")), allowMissingColumns=True)


def residence(inputs: Inputs, patients: DataFrame, everybody: DataFrame) -> DataFrame:
    """Periods of residence of published patients.

    A period that starts or ends on the birth date is given from the first day of that month, because the zone knows the month of birth
    only. Of several periods of a person from one day (merged identifiers), the one that lasts longest stays.
    """
    declared = table("deidentified", "residence")
    linked = inputs["person_residence"].drop("run_id").join(record_links(inputs["crosswalk"]), ["scheme", "person_id"])
    linked = linked.join(patients.select("patient_id"), "patient_id", "left_semi")
    linked = linked.join(everybody.select("patient_id", "birth_date"), "patient_id", "left")
    safe = {name: _unless_birth(F.col(name)) for name in ("from_date", "to_date")}
    linked = linked.withColumns(safe)
    longest = Window.partitionBy("patient_id", "from_date").orderBy(
        F.desc_nulls_first("to_date"), "health_board", "simd_quintile", "simd_edition"
    )
    linked = linked.withColumn("nth", F.row_number().over(longest)).where(F.col("nth") == 1)
    guards = copied(declared, linked, leave=("patient_id",))
    return linked.select(
        "patient_id", *[g.value.alias(name) for name, g in guards.items()], withheld_names("residence", guards).alias("counted")
    )


def _unless_birth(day: Column) -> Column:
    return F.when(day == F.col("birth_date"), F.trunc(day, "month")).otherwise(day)


def source_cover(inputs: Inputs) -> DataFrame:
    """What each source can tell, unchanged."""
    return inputs["source_cover"].drop("run_id")
