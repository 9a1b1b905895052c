"""`pictures link`: every identifier in images and records to one person, or to the reason why not.

Enters, from the identifiable zone: PatientID with birth date and sex of ``header_instance``, the person identifiers of ``record_event``
and ``record_report``, and the register ``person``. Leaves ``crosswalk`` there: identifier -> upi -> keyed patient_id. All work is Spark's
on executors, where the key is read; the driver sees counts only.

An image's identifier is tried as each scheme of schemas/linkage.yaml. It is linked where it is an identifier, is in the register (as the
current or an older number of somebody) and no header that carries it contradicts the register in everything that is compared.
"""

from functools import reduce
from typing import TYPE_CHECKING, Any

from pictures_spark import tables
from pictures_spark.job import Job
from pictures_spark.keys import pseudonym_udf
from pictures_spark.linkage import identity
from pictures_spark.resources import load_schema

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

IMAGES, RECORDS = "dicom", "records"
_INPUTS = ("header_instance", "record_event", "record_report", "person")


def run(job: Job) -> None:
    """Make the crosswalk that follows from the tables as they are; where it is that already, nothing is written."""

    report = job.report
    versions = {name: job.version("identifiable", name) for name in _INPUTS}
    mark = job.input_fingerprint(key_id=job.config["keys"]["key_id"], **versions)
    if job.already_done(mark):
        known = job.read("identifiable", "crosswalk").count()
        report.counts = {"seen": known, "written": 0, "unchanged": known, "quarantined": 0}
        report.tables["crosswalk"] = job.version("identifiable", "crosswalk")
        return
    rules = load_schema("linkage.yaml")
    people = job.read("identifiable", "person")
    found = judged(images(job.read("identifiable", "header_instance"), rules), people, rules)
    named = [job.read("identifiable", name).select("scheme", "person_id") for name in ("record_event", "record_report")]
    found = found.unionByName(judged(records(tables.union(named)), people, rules)).persist()
    done = tables.refresh(crosswalk(job, found, rules), job.zones, "identifiable", "crosswalk")
    report.counts = {
        "seen": done["written"] + done["unchanged"],
        "written": done["written"],
        "unchanged": done["unchanged"],
        "quarantined": 0,
    }
    _tell(job, found)
    found.unpersist()
    if done["removed"]:
        report.details["not_seen_any_more"] = done["removed"]
    report.tables["crosswalk"] = job.version("identifiable", "crosswalk")
    job.done(mark)


def images(headers: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """Distinct (source_id, birth_date, sex) of the images, with the scheme each identifier was read as, its form or why it has none.

    A missing PatientID is the empty text, so that it is counted too.
    """
    from pyspark.sql import functions as F

    sex: Column = F.lit(None).cast("string")
    for written, meant in rules["header_sex"].items():
        sex = F.when(F.upper(F.trim("patient_sex")) == written, F.lit(meant)).otherwise(sex)
    distinct = headers.select(
        F.coalesce("patient_id_raw", F.lit("")).alias("source_id"), F.col("patient_birth_date").alias("birth_date"), sex.alias("sex")
    ).distinct()
    return read_as(distinct, rules["schemes"]).withColumn("source", F.lit(IMAGES))


def read_as(rows: "DataFrame", schemes: list[str]) -> "DataFrame":
    """Rows with ``scheme``, ``person_id`` and ``reason`` of their ``source_id``.

    The first scheme under which it is an identifier counts; else the first under which only the check digit is wrong; else the first.
    """
    from pyspark.sql import functions as F

    declared = [identity.scheme(name) for name in schemes]
    tidied = rows.select("*", *[identity.tidied(one, F.col("source_id")).alias(f"_tidied_{one.name}") for one in declared])
    told = tidied.select("*", *[identity.refusal(one, F.col(f"_tidied_{one.name}")).alias(f"_reason_{one.name}") for one in declared])
    first = declared[0].name
    ranked = [(one.name, F.col(f"_reason_{one.name}").isNull()) for one in declared]
    ranked += [(one.name, F.col(f"_reason_{one.name}") == "check_digit") for one in declared]
    scheme = reduce(lambda other, rule: F.when(rule[1], F.lit(rule[0])).otherwise(other), reversed(ranked), F.lit(first))
    chosen = told.withColumn("scheme", scheme)

    def of_chosen(prefix: str) -> "Column":
        return F.coalesce(*[F.when(F.col("scheme") == one.name, F.col(f"{prefix}{one.name}")) for one in declared])

    return chosen.select(
        *rows.columns,
        "scheme",
        F.when(of_chosen("_reason_").isNull(), of_chosen("_tidied_")).alias("person_id"),
        of_chosen("_reason_").alias("reason"),
    )


def records(named: "DataFrame") -> "DataFrame":
    """Distinct identifiers (scheme, person_id) of the records.

    They were read when the records were loaded, and have no other evidence beside them.
    """
    from pyspark.sql import functions as F

    return (
        named.select("scheme", "person_id")
        .distinct()
        .select(
            F.col("person_id").alias("source_id"),
            F.lit(None).cast("date").alias("birth_date"),
            F.lit(None).cast("string").alias("sex"),
            "scheme",
            "person_id",
            F.lit(None).cast("string").alias("reason"),
            F.lit(RECORDS).alias("source"),
        )
    )


def judged(seen: "DataFrame", people: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """One row per identifier: (source, scheme, source_id, person_id, upi or null, reason or null, and which comparisons disagree).

    ``people`` is the register. Demographics are those of the row in use; of several headers with one identifier any that contradicts the
    register in everything makes it ambiguous. A value missing on either side contradicts nothing.
    """
    from pyspark.sql import functions as F

    known = people.select("scheme", "person_id", "upi")
    current = people.where("current").select("upi", F.col("birth_date").alias("register_birth_date"), F.col("sex").alias("register_sex"))
    joined = seen.join(known, ["scheme", "person_id"], "left").join(current, "upi", "left")
    compared = rules["exact"]["ambiguous_when_all_differ"]
    differs = {name: F.coalesce(F.col(name) != F.col(f"register_{name}"), F.lit(False)) for name in compared}
    everything = reduce(lambda left, right: left & right, differs.values())
    rows = joined.select("*", everything.alias("contradicts"), *[differ.alias(f"{name}_differs") for name, differ in differs.items()])
    grouped = rows.groupBy("source", "scheme", "source_id", "person_id", "upi", "reason").agg(
        F.max("contradicts").alias("contradicts"), *[F.max(f"{name}_differs").alias(f"{name}_differs") for name in compared]
    )
    reason = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("upi").isNull(), F.lit("unknown_person"))
        .when(F.col("contradicts"), F.lit("ambiguous"))
    )
    return grouped.withColumn("reason", reason).withColumn("upi", F.when(F.col("reason").isNull(), F.col("upi"))).drop("contradicts")


def crosswalk(job: Job, found: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """The rows of ``crosswalk``: `judged` with pseudonyms."""
    from pyspark.sql import functions as F

    linked = F.col("upi").isNotNull()
    # Once per person, not once per identifier; and where it is expensive, in Python, on nothing else.
    ids = found.where(linked).select("upi").distinct()
    ids = ids.withColumn("patient_id", pseudonym_udf(job.key("deidentified"), "patient")("upi"))
    return found.join(ids, "upi", "left").select(
        *("source", "source_id", "scheme", "person_id", "upi", "patient_id"),
        F.when(linked, F.lit("exact")).alias("method"),
        F.when(linked, F.lit(float(rules["exact"]["score"]))).alias("score"),
        F.col("reason").alias("unlinked_reason"),
        F.lit(None).cast("date").alias("valid_from"),
        F.lit(None).cast("date").alias("valid_to"),
        F.lit(job.config["keys"]["key_id"]).alias("key_id"),
        F.lit(job.run_id).alias("run_id"),
    )


def _tell(job: Job, found: "DataFrame") -> None:
    """How many identifiers were linked, how many were not and why, and how often a header disagrees with the register."""
    from pyspark.sql import functions as F

    disagreements = [name for name in found.columns if name.endswith("_differs")]
    counts = [F.count(F.lit(1)).alias("n"), *[F.count_if(F.col(name)).alias(name) for name in disagreements]]
    for row in found.groupBy("source", "reason").agg(*counts).orderBy("source", "reason").collect():
        outcome = "linked" if row.reason is None else f"unlinked_{row.reason}"
        job.report.details[f"{row.source}_{outcome}"] = row.n
        for name in disagreements:
            if row[name] and row.reason is None:
                job.report.details[f"{row.source}_{name}_but_linked"] = row[name]
