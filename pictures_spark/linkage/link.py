"""`pictures link`: every identifier in images and records to one person, or to the reason why not.

Enters, from the identifiable zone: what headers say of their patients (``header_instance``, ``header_series``), the person identifiers of
``record_event`` and ``record_report``, and the register ``person``. Leaves there ``crosswalk``, in which links have a beginning and an
end, ``person_merge`` and ``link_candidate``. Work is Spark's on executors, where the key is read; only what exact linking leaves is
scored on the driver, by DuckDB.

Rules, in this order; schemas/linkage.yaml has their numbers:

exact, alias : PatientID is a number of the register, a current or an older one, and no header with it contradicts the register.
nested : another identifier in the header is, and its person agrees with the header.
probabilistic : names, dates, sex and postcode name one person well enough, and nobody else nearly as well.

A header that names a phantom, a test patient, or nobody yet is held back first.
"""

import shutil
from contextlib import contextmanager
from copy import copy
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures_spark import tables
from pictures_spark.job import Job
from pictures_spark.keys import pseudonym_udf
from pictures_spark.linkage import evidence, history, identity, probabilistic
from pictures_spark.report import utc_now
from pictures_spark.schema import table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pyarrow import RecordBatch
    from pyspark.sql import Column, DataFrame

IMAGES, RECORDS = "dicom", "records"
_INPUTS = ("header_instance", "header_series", "record_event", "record_report", "person")
# Reasons after which other evidence is looked at; any other is a verdict.
_OPEN = ("no_identifier", "not_an_identifier", "check_digit")
_LINK = ("scheme", "person_id", "upi", "method", "score", "reason")


def run(job: Job) -> None:
    """Make the crosswalk that follows from the tables as they are; only links that changed are written."""

    report = job.report
    versions = {name: job.version("identifiable", name) for name in _INPUTS}
    mark = job.input_fingerprint(key_id=job.config["keys"]["key_id"], **versions)
    if job.already_done(mark):
        known = history.current(job.read("identifiable", "crosswalk")).count()
        report.counts = {"seen": known, "written": 0, "unchanged": known, "quarantined": 0}
        report.tables["crosswalk"] = job.version("identifiable", "crosswalk")
        return
    rules = evidence.rules()
    people = job.read("identifiable", "person")
    with _scratch(job) as folder:
        job.say("identifiers")
        seen = settled(images(job.read("identifiable", "header_instance"), job.read("identifiable", "header_series"), rules))
        register = settled(registered(people, rules))
        first = settled(exact(seen, register, rules))
        second = settled(nested(first, register, rules))
        job.say("names and dates")
        candidates = likely(second, people, rules, folder)
        found = decided(second, candidates, rules)
        named = [job.read("identifiable", name).select("scheme", "person_id") for name in ("record_event", "record_report")]
        found = found.unionByName(of_records(tables.union(named), people, rules), allowMissingColumns=True)
        found = settled(found)
        job.say("writing")
        total = found.count()
        now = _instant(job)
        done = _write(job, "crosswalk", wanted(job, found), now, told=("score",))
        tables.refresh(candidates.withColumn("run_id", _text(job.run_id)), job.zones, "identifiable", "link_candidate")
        _write(job, "person_merge", merges(job, people), now)
        report.counts = {"seen": total, "written": done["new"], "unchanged": total - done["new"], "quarantined": 0}
        _tell(job, found)
    if done["ended"]:
        report.details["ended"] = done["ended"]
    for name in ("crosswalk", "person_merge", "link_candidate"):
        report.tables[name] = job.version("identifiable", name)
    job.done(mark)


@contextmanager
def _scratch(job: Job) -> "Iterator[Path]":
    """A folder in the identifiable zone that is there for this run only; what a killed run left is removed first."""
    folder = job.zones.path("identifiable", "scratch", "link", mode="write")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settled(frame: "DataFrame") -> "DataFrame":
    """The frame, computed now and kept on the executors' disks.

    Without this Spark does what comes before once for each of several uses, and plans for minutes (measured).
    """
    return frame.localCheckpoint(eager=True)


def _text(value: str) -> "Column":
    from pyspark.sql import functions as F

    return F.lit(value)


def images(headers: "DataFrame", series: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """`evidence.statements` and `evidence.elsewhere` of all headers, read as identities, with ``nobody``: why a header names no person."""
    from pyspark.sql import functions as F

    said = evidence.statements(headers, rules).join(evidence.elsewhere(headers, series, rules), "evidence_id", "left")
    reason: Column = F.lit(None).cast("string")
    unless: Column = F.lit(None).cast("string")
    for rule in reversed(rules["nobody"]):
        fits = F.coalesce(F.col("whole_name").rlike(rule["name"]), F.lit(False))
        if "identifier" in rule:
            fits = fits | F.upper(F.trim("source_id")).rlike(rule["identifier"])
        reason = F.when(fits, F.lit(rule["reason"])).otherwise(reason)
        unless = F.when(fits, F.lit(rule.get("unless_agrees"))).otherwise(unless)
    return read_as(said, rules["schemes"]).withColumns({"source": F.lit(IMAGES), "nobody": reason, "unless": unless})


def read_as(rows: "DataFrame", schemes: list[str]) -> "DataFrame":
    """Rows with what `identity.read_as` says of their ``source_id``: ``scheme``, ``number``, ``person_id`` (where it is one), ``reason``.

    In Arrow, each distinct text of a batch once: as Spark expressions the check rules are evaluated again and again.
    """
    declared = [identity.scheme(name) for name in schemes]
    names = ("scheme", "number", "person_id", "reason")

    def read(batches: "Iterator[RecordBatch]") -> "Iterator[RecordBatch]":
        import pyarrow as pa

        for batch in batches:
            texts = batch.column("source_id").dictionary_encode()
            told = [identity.read_as(declared, text) for text in texts.dictionary.to_pylist()]
            parts = [pa.array([one[at] for one in told], pa.string()).take(texts.indices) for at in range(len(names))]
            yield pa.RecordBatch.from_arrays([*batch.columns, *parts], names=[*batch.schema.names, *names])

    layout = copy(rows.schema)
    layout.fields = [*rows.schema.fields]
    layout.names = [*rows.schema.names]
    for name in names:
        layout.add(name, "string")
    return rows.mapInArrow(read, layout)


def registered(people: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """Every number of the register with its person and the person's row in use: scheme, person_id, upi, current, register_*."""
    from pyspark.sql import functions as F

    in_use = people.where("current").select(
        "upi",
        F.col("birth_date").alias("register_birth_date"),
        F.col("sex").alias("register_sex"),
        evidence.letters(evidence.folded(F.col("surname"))).alias("register_surname"),
        evidence.first_name(evidence.folded(F.col("forename")), rules).alias("register_forename"),
    )
    return people.select("scheme", "person_id", "upi", "current").join(in_use, "upi", "left")


def exact(seen: "DataFrame", register: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """One row per statement, linked where its identifier is in the register: ``upi``, ``method``, ``score`` or ``reason``.

    Of several headers with one identifier any that contradicts the register in everything makes it ambiguous for all. A value missing on
    either side contradicts nothing. A header that gives the name of the person's twin is ambiguous: one of name and number is the other's.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    joined = seen.join(register, ["scheme", "person_id"], "left")
    compared = rules["exact"]["ambiguous_when_all_differ"]
    differs = {name: F.coalesce(F.col(name) != F.col(f"register_{name}"), F.lit(False)) for name in compared}
    everything = reduce(lambda left, right: left & right, differs.values())
    agrees: Column = F.lit(False)
    for name in sorted({rule["unless_agrees"] for rule in rules["nobody"] if "unless_agrees" in rule}):
        agrees = F.when(F.col("unless") == name, F.coalesce(F.col(name) == F.col(f"register_{name}"), F.lit(False))).otherwise(agrees)
    rows = joined.withColumns(
        {
            "contradicts": everything & F.col("upi").isNotNull(),
            "held_back": F.col("nobody").isNotNull() & ~agrees,
            **{f"{name}_differs": differ for name, differ in differs.items()},
        }
    )
    # Only a number of the register can be contradicted; of the others, which are often all alike, each is a group of its own.
    same = Window.partitionBy("scheme", F.when(F.col("upi").isNotNull(), F.col("source_id")).otherwise(F.col("evidence_id")))
    rows = rows.withColumn("contradicted", F.max("contradicts").over(same))
    rows = rows.join(_twins(register), ["register_birth_date", "register_surname"], "left")
    names_the_twin = (F.col("forename") != F.col("register_forename")) & F.array_contains("twins", F.col("forename"))
    reason = (
        F.when(F.col("held_back"), F.col("nobody"))
        .when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("upi").isNull(), F.lit("unknown_person"))
        .when(F.col("contradicted") | F.coalesce(names_the_twin, F.lit(False)), F.lit("ambiguous"))
    )
    linked = F.col("reason").isNull()
    return rows.withColumn("reason", reason).select(
        *("source", "source_id", "evidence_id", "scheme", "number", "person_id", "reason"),
        *("surname", "forename", "birth_date", "sex", "postcode", "others"),
        F.when(linked, F.col("upi")).alias("upi"),
        F.when(linked, F.when(F.col("current"), F.lit("exact")).otherwise(F.lit("alias"))).alias("method"),
        F.when(linked, F.lit(float(rules["exact"]["score"]))).alias("score"),
        *[f"{name}_differs" for name in compared],
    )


def _twins(register: "DataFrame") -> "DataFrame":
    """Forenames of the people of one birth date and surname, where there are several: register_birth_date, register_surname, twins."""
    from pyspark.sql import functions as F

    in_use = register.where("current").groupBy("register_birth_date", "register_surname")
    return in_use.agg(F.collect_set("register_forename").alias("twins")).where(F.size("twins") > 1)


def nested(rows: "DataFrame", register: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """The rows, those linked too that another identifier in the header leads to one person of the register who agrees with the header."""
    from pyspark.sql import functions as F

    still = rows.where(F.col("reason").isin(*_OPEN))
    others = still.select("evidence_id", "surname", "birth_date", F.explode("others").alias("source_id"))
    known = settled(read_as(others, rules["schemes"])).join(register, ["scheme", "person_id"])
    agrees = reduce(
        lambda left, right: left | right,
        [F.coalesce(F.col(name) == F.col(f"register_{name}"), F.lit(False)) for name in rules["nested"]["agrees_in"]],
    )
    people_found = known.where(agrees).groupBy("evidence_id")
    one = people_found.agg(F.min(F.struct("upi", "scheme", "person_id")).alias("by_nested"), F.countDistinct("upi").alias("n_nested"))
    joined = rows.join(one, "evidence_id", "left")
    hit, several = F.coalesce(F.col("n_nested") == 1, F.lit(False)), F.coalesce(F.col("n_nested") > 1, F.lit(False))
    replaced = {name: F.when(hit, F.col(f"by_nested.{name}")).otherwise(F.col(name)) for name in ("upi", "scheme", "person_id")}
    return joined.withColumns(
        {
            **replaced,
            "method": F.when(hit, F.lit("nested")).otherwise(F.col("method")),
            "score": F.when(hit, F.lit(float(rules["nested"]["score"]))).otherwise(F.col("score")),
            "reason": F.when(several, F.lit("ambiguous")).when(~hit, F.col("reason")),
        }
    ).drop("by_nested", "n_nested")


def likely(rows: "DataFrame", people: "DataFrame", rules: dict[str, Any], folder: Path) -> "DataFrame":
    """Candidates of the rows that no identifier decided, as columns of ``link_candidate`` without run_id."""
    from pyspark.sql import functions as F

    spark = rows.sparkSession
    columns = [column for column in table("identifiable", "link_candidate").spark_type().fields if column.name != "run_id"]
    named = F.col("birth_date").isNotNull() | (F.col("surname").isNotNull() & F.col("forename").isNotNull())
    still = rows.where(F.col("reason").isin(*_OPEN) & named)
    if still.isEmpty() or people.isEmpty():
        from pyspark.sql.types import StructType

        return spark.createDataFrame([], StructType(columns))
    # What is no number of a scheme says nothing about one.
    number = F.when(F.col("reason") == "check_digit", F.col("number"))
    probabilistic.headers(still.withColumn("number", number)).write.parquet(str(folder / probabilistic.HEADERS))
    probabilistic.register(people, rules).write.parquet(str(folder / probabilistic.REGISTER))
    probabilistic.score(folder, rules)
    return spark.read.parquet(str(folder / probabilistic.SCORED)).select(*[column.name for column in columns])


def decided(rows: "DataFrame", candidates: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """The rows, those linked too whose best candidate is likely enough and leads; of the others, some ambiguous or for review."""
    from pyspark.sql import functions as F

    best = candidates.where("place = 1").select(
        "evidence_id",
        F.struct("upi", "scheme", "person_id").alias("best"),
        F.col("probability").alias("best_score"),
        "verdict",
    )
    joined = rows.join(best, "evidence_id", "left")
    hit = F.coalesce(F.col("verdict") == "linked", F.lit(False))
    replaced = {name: F.when(hit, F.col(f"best.{name}")).otherwise(F.col(name)) for name in ("upi", "scheme", "person_id")}
    return joined.withColumns(
        {
            **replaced,
            "method": F.when(hit, F.lit("probabilistic")).otherwise(F.col("method")),
            "score": F.when(hit, F.col("best_score")).otherwise(F.col("score")),
            "reason": F.when(~hit, F.coalesce("verdict", "reason")),
        }
    ).select(*rows.columns)


def of_records(named: "DataFrame", people: "DataFrame", rules: dict[str, Any]) -> "DataFrame":
    """Distinct identifiers of the records. They were read when the records were loaded, and have no other evidence beside them."""
    from pyspark.sql import functions as F

    known = people.select("scheme", "person_id", "upi", "current")
    rows = named.select("scheme", "person_id").distinct().join(known, ["scheme", "person_id"], "left")
    linked = F.col("upi").isNotNull()
    return rows.select(
        F.lit(RECORDS).alias("source"),
        F.col("person_id").alias("source_id"),
        F.lit(None).cast("string").alias("evidence_id"),
        *("scheme", "person_id", "upi"),
        F.when(linked, F.when(F.col("current"), F.lit("exact")).otherwise(F.lit("alias"))).alias("method"),
        F.when(linked, F.lit(float(rules["exact"]["score"]))).alias("score"),
        F.when(~linked, F.lit("unknown_person")).alias("reason"),
    )


def wanted(job: Job, found: "DataFrame") -> "DataFrame":
    """The rows that ``crosswalk`` is to have now, without their dates."""
    from pyspark.sql import functions as F

    # Once per person, not once per identifier; and where it is expensive, in Python, on nothing else.
    ids = found.where("upi IS NOT NULL").select("upi").distinct()
    ids = ids.withColumn("patient_id", pseudonym_udf(job.key("deidentified"), "patient")("upi"))
    return found.join(ids, "upi", "left").select(
        *("source", "source_id", "evidence_id", *(name for name in _LINK if name != "reason"), "patient_id"),
        F.col("reason").alias("unlinked_reason"),
        F.lit(job.config["keys"]["key_id"]).alias("key_id"),
    )


def merges(job: Job, people: "DataFrame") -> "DataFrame":
    """The rows that ``person_merge`` is to have now: people of the crosswalk, also of earlier, whom the register has merged."""
    from pyspark.sql import functions as F

    links = job.read("identifiable", "crosswalk")
    found = job.spark.sql(history.MERGED, links=links, register=people.select("scheme", "person_id", "upi"))
    name = pseudonym_udf(job.key("deidentified"), "patient")
    return found.select(
        *("upi", "into_upi", name("upi").alias("patient_id"), name("into_upi").alias("into_patient_id")),
        F.lit(job.config["keys"]["key_id"]).alias("key_id"),
    )


def _instant(job: Job) -> "datetime":
    """When this run's links begin: now, and after every date that the crosswalk has, whatever the clock says."""
    from datetime import timedelta

    from pyspark.sql import functions as F

    held = _held(job, "crosswalk").agg(F.max(F.greatest("valid_from", "valid_to"))).first()
    last = held[0] if held is not None else None
    return max(utc_now(), last + timedelta(microseconds=1)) if last is not None else utc_now()


def _held(job: Job, name: str) -> "DataFrame":
    """A versioned table as declared; columns that an older release did not write are null."""
    from pyspark.sql import functions as F

    found = job.read("identifiable", name)
    types = {field.name: field.dataType for field in table("identifiable", name).spark_type().fields}
    return found.select(*[(F.col(n) if n in found.columns else F.lit(None)).cast(kind).alias(n) for n, kind in types.items()])


def _write(job: Job, name: str, rows: "DataFrame", now: "datetime", told: tuple[str, ...] = ()) -> dict[str, int]:
    """Bring a versioned table to what is wanted, in one commit; how many rows are ``new`` and how many ``ended``."""
    from pyspark.sql import functions as F

    declared = table("identifiable", name)
    keys = [key for key in declared.key if key not in history.DATED]
    values = [column for column in declared.names if column not in (*keys, *told, *history.DATED)]
    held = _held(job, name)
    if tables.exists(job.spark, job.zones, "identifiable", name) and job.read("identifiable", name).dtypes != held.dtypes:
        tables.replace(held, job.zones, "identifiable", name)
        held = job.read("identifiable", name)
    clock = job.spark.createDataFrame([(now, job.run_id)], "instant timestamp_ntz, run_id string")
    changed = job.spark.sql(history.changes(keys, values, told), held=held, wanted=rows, now=clock).persist()
    ended = F.count_if(F.col("valid_to").isNotNull())
    counted = changed.agg(ended.alias("ended"), F.count(F.lit(1)).alias("all")).first()
    done = {"ended": counted["ended"], "new": counted["all"] - counted["ended"]} if counted is not None else {"ended": 0, "new": 0}
    if done["ended"] or done["new"] or not tables.exists(job.spark, job.zones, "identifiable", name):
        if done["ended"]:
            tables.merge(changed, job.zones, "identifiable", name)
        else:
            tables.append(changed, job.zones, "identifiable", name, txn=job.run_id)
    changed.unpersist()
    return done


def _tell(job: Job, found: "DataFrame") -> None:
    """How many identifiers were linked and how, how many were not and why, and how often a header disagrees with the register."""
    from pyspark.sql import functions as F

    disagreements = [name for name in found.columns if name.endswith("_differs")]
    counts = [F.count(F.lit(1)).alias("n"), *[F.count_if(F.col(name)).alias(name) for name in disagreements]]
    grouped = found.groupBy("source", "method", "reason").agg(*counts).orderBy("source", "method", "reason")
    for row in grouped.collect():
        outcome = f"linked_{row.method}" if row.reason is None else f"unlinked_{row.reason}"
        job.report.details[f"{row.source}_{outcome}"] = row.n
        for name in disagreements:
            if row[name] and row.reason is None:
                told = f"{row.source}_{name}_but_linked"
                job.report.details[told] = job.report.details.get(told, 0) + row[name]
