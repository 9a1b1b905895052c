"""`pictures pixels`: every image not yet examined -> tables pixel_feature and pixel_text. Identifiable zone.

`--feature` and `--where` ask for certain features of certain images only, and no text.

The driver plans (which instances, in which groups, tasks and batches) and writes the plan first. Executors open the objects by locator:
each Spark task has one supervised child in which decoders and the text detector run. A batch is computed once; then its failures are merged
into quarantine, its features appended, and its verdicts last, so that an instance with a verdict is done, and whatever an interruption
left undone is planned again, and only that.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from pictures_spark import tables
from pictures_spark.cohort.faults import nearest
from pictures_spark.errors import ChecksFailedError, ConfigError
from pictures_spark.job import Job
from pictures_spark.pixels import plan
from pictures_spark.pixels.examine import Locator
from pictures_spark.pixels.features import computed, named
from pictures_spark.pixels.groups import FRAME, NOT_DETERMINED, PROJECTION, Instance, Result, examine_group
from pictures_spark.pixels.supervise import COMMAND, ChildCannotStartError, Limits, Supervised
from pictures_spark.pixels.text import engine_version
from pictures_spark.pixels.words import DATE, NAME, NUMBER, matches
from pictures_spark.resources import load_schema
from pictures_spark.roots import Root
from pictures_spark.schema import table

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Row

ZONE = "identifiable"
_FEATURES = "array<struct<feature string, version string, unit string, value double, value_text string, status string, reason string>>"
_TEXTS = (
    "array<struct<frame_from bigint, frame_to bigint, x0 bigint, y0 bigint, x1 bigint, y1 bigint, score double, text string, rule string, "
    "plane string, kind string, matches array<string>>>"
)
_RESULT = (
    "sop_uid string, content_sha256 string, series_uid string, object_id string, locator string, want_text boolean, verdict string, "
    f"reason string, detail string, frames bigint, readings bigint, way string, features {_FEATURES}, texts {_TEXTS}"
)


@dataclass(frozen=True)
class Choice:
    """What a run is asked for: everything, or certain features (``name@version``), of all images or of those whose header says so."""

    features: tuple[str, ...] = ()
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def wanted(self) -> dict[str, dict[str, Any]]:
        """Entries of the features wanted, by ``name@version``."""
        known = computed()
        return {name: known[name] for name in self.features} if self.features else known

    @property
    def engine(self) -> str | None:
        """The text engine wanted; None where features were asked for."""
        return None if self.features else engine_version()

    def among(self, headers: "DataFrame") -> "DataFrame":
        """The rows of header_instance that are asked for."""
        from pyspark.sql import functions as F

        for column, values in self.where:
            headers = headers.where(F.col(column).cast("string").isin(list(values)))
        return headers


def choice(features: Sequence[str], where: Sequence[str]) -> Choice:
    """What a user asks for.

    Parameters
    ----------
    features : names, or ``name@version``.
    where : ``column=value`` or ``column=value,value``, with columns of header_instance that are no arrays; all must hold.

    Raises
    ------
    ConfigError
        A feature or a column is not known, or a condition has another form.
    """
    columns = {c.name for c in table(ZONE, "header_instance").columns if not c.type.startswith("array")}
    conditions = []
    for text in where:
        column, equals, values = text.partition("=")
        if not equals or not values:
            raise ConfigError(f"--where {text!r} must be like modality=CT, or modality=CT,MR")
        if column not in columns:
            raise ConfigError(f"--where: header_instance has no single-valued column {column!r}{nearest(column, columns)}")
        conditions.append((column, tuple(values.split(","))))
    return Choice(tuple(named(features)), tuple(conditions))


def run(job: Job, asked: Choice = Choice()) -> None:
    """Examine what is not examined yet.

    Counts: seen = instances with pixels that are asked for; written = examined by this run; unchanged = by earlier ones; quarantined =
    those without a verdict (or, where features are asked for, without these), of this and earlier runs; skipped_vanished = not examined,
    and no object with that content is in the archive any more.
    """
    from pyspark.sql import functions as F

    todo = _unexamined(job, asked)
    # Not for longer than the plan takes: Spark computes a cached frame anew once a table it reads is written.
    todo.persist()
    undone, planned = todo.agg(F.count("*"), F.count("path")).collect()[0]
    if planned:
        _write_plan(job, todo.where("path IS NOT NULL"))
    todo.unpersist()
    sums = _work_off(job) if planned else {}
    _count(job, asked, undone, planned)
    job.report.details.update({name: sums.get(name, 0) for name in ("frames", "text_instances", "text_boxes", "ocr_calls")})
    job.report.versions["text_engine"] = engine_version()
    for name in ("pixel_feature", "pixel_text"):
        job.report.tables[name] = job.version(ZONE, name)
    job.check_quarantine_limit()


def _unexamined(job: Job, asked: Choice) -> "DataFrame":
    """Instances that still lack something, each with the place of its bytes where there is one."""
    headers, texts, values = (job.read(ZONE, name) for name in ("header_instance", "pixel_text", "pixel_feature"))
    undone = plan.unexamined(asked.among(headers), texts, values, asked.wanted, asked.engine)
    return plan.located(undone, job.read(ZONE, "object"))


def _count(job: Job, asked: Choice, undone: int, planned: int) -> None:
    """Fill in the report's counts from the tables, after the work.

    Parameters
    ----------
    undone : instances that lacked something before the work.
    planned : those of them that an object was found for; all of them are examined now.
    """
    from pyspark.sql import functions as F

    instances = asked.among(job.read(ZONE, "header_instance")).where("has_pixels").select(*plan.INSTANCE)
    bad = _without_result(job, asked, instances)
    if undone > planned:
        # What has vanished is counted as such, whatever was known of it before.
        bad = bad.join(_unexamined(job, asked), plan.INSTANCE, "left_anti")
    mine = job.read(ZONE, "pixel_plan").where(F.col("run_id") == job.run_id).select(*plan.INSTANCE, F.lit(True).alias("now"))
    counted = bad.join(mine, plan.INSTANCE, "left").groupBy("reason", F.col("now").isNotNull().alias("now")).count().collect()
    now, before = (sum(row["count"] for row in counted if row.now is which) for which in (True, False))
    seen = instances.count()
    counts = {"seen": seen, "written": planned - now, "unchanged": seen - undone - before, "quarantined": now + before}
    if undone > planned:
        counts["skipped_vanished"] = undone - planned
    job.report.counts.update(counts)
    for row in counted:
        job.report.quarantined[row.reason] = job.report.quarantined.get(row.reason, 0) + row["count"]


def _without_result(job: Job, asked: Choice, instances: "DataFrame") -> "DataFrame":
    """Instances of which nothing could be had, with the reason: no verdict on text, or features that failed with the whole image."""
    from pyspark.sql import functions as F

    whole = list(load_schema("pixels/reasons.yaml")["image"])
    texts = job.read(ZONE, "pixel_text").where(F.col("verdict") == NOT_DETERMINED)
    values = job.read(ZONE, "pixel_feature").where((F.col("status") == "failed") & F.col("reason").isin(whole))
    values = values.where(F.concat_ws("@", "feature", "version").isin(list(asked.wanted)))
    found = [values] if asked.engine is None else [texts, values]
    failed = tables.union([df.select(*plan.INSTANCE, "reason") for df in found])
    return failed.groupBy(*plan.INSTANCE).agg(F.min("reason").alias("reason")).join(instances, plan.INSTANCE, "left_semi")


def _write_plan(job: Job, placed: "DataFrame") -> None:
    """Write down what this run will do, before it is done."""
    from pyspark.sql import functions as F

    rows = plan.packed(plan.grouped(placed), job.spark.sparkContext.defaultParallelism)
    columns = table(ZONE, "pixel_plan").names
    tables.replace(rows.withColumn("run_id", F.lit(job.run_id)).select(*columns), job.zones, ZONE, "pixel_plan")


def _work_off(job: Job) -> dict[str, int]:
    """Do the plan batch by batch; sums of what was done."""
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import to_arrow_schema
    from pyspark.sql.types import StructType

    limits = Limits(job.config["pixels"]["timeout_seconds"], job.config["pixels"]["memory_bytes"], job.config["pixels"]["max_pixels"])
    schema = to_arrow_schema(cast(StructType, StructType.fromDDL(_RESULT)))
    examine_with = partial(examine_partition, root=job.zones.archive(), schema=schema, limits=limits, command=COMMAND)
    planned = job.read(ZONE, "pixel_plan")
    batches = planned.groupBy("batch").agg(
        F.max("task").alias("last"),
        F.count("*").alias("rows"),
        F.max("supersedes").alias("supersedes"),
        F.max("want_text").alias("want_text"),
        F.max(F.size("want_features") > 0).alias("want_features"),
    )
    sums: dict[str, int] = {}
    todo = batches.orderBy("batch").collect()
    for batch in todo:
        job.say(f"batch {batch.batch + 1} of {len(todo)}: {batch.rows} images in {batch.last + 1} tasks")
        mine = planned.where(F.col("batch") == batch.batch).repartitionById(batch.last + 1, F.col("task").cast("int"))
        ordered = mine.sortWithinPartitions("group_id", "sequence")
        # Computed once, used by every write below.
        results = ordered.mapInArrow(partial(examine_with, text=batch.want_text), _RESULT).persist()
        (tally,) = _started(
            results.agg(
                F.count("*").alias("rows"),
                F.count("reason").alias("failed"),
                F.sum("frames").alias("frames"),
                F.sum("readings").alias("ocr_calls"),
                F.sum((F.size("texts") > 0).cast("long")).alias("text_instances"),
                F.sum(F.size("texts")).alias("text_boxes"),
            )
        )
        if tally.rows != batch.rows:
            raise ChecksFailedError(f"pixels: batch {batch.batch} has {batch.rows} images but {tally.rows} results; run pixels again")
        if tally.failed:
            job.quarantine(results.where("reason IS NOT NULL").select("object_id", "locator", "reason", "detail"))
        # Whose text is not determined stays there, whatever else was measured meanwhile.
        job.release(results.where("reason IS NULL AND want_text"))
        txn = f"{job.run_id}-{batch.batch}"
        if batch.want_features:
            tables.append(feature_rows(results, job.run_id), job.zones, ZONE, "pixel_feature", txn=txn)
        # Verdicts last: an instance with a verdict is done. Those of another engine version are replaced in the same commit.
        if batch.supersedes:
            tables.supersede(text_rows(results, job.run_id), job.zones, ZONE, "pixel_text", by=tuple(plan.INSTANCE))
        elif batch.want_text:
            tables.append(text_rows(results, job.run_id), job.zones, ZONE, "pixel_text", txn=txn)
        results.unpersist()
        for name, value in tally.asDict().items():
            sums[name] = sums.get(name, 0) + (value or 0)
    return sums


def _started(tally: "DataFrame") -> "list[Row]":
    """Compute a batch.

    Raises
    ------
    ChecksFailedError
        The supervised child cannot be started on an executor.
    """
    try:
        return tally.collect()
    except Exception as error:
        if ChildCannotStartError.__name__ in str(error):
            raise ChecksFailedError(f"pixels: {ChildCannotStartError.sentence}") from None
        raise


def feature_rows(results: "DataFrame", run_id: str) -> "DataFrame":
    """Rows of pixel_feature."""
    from pyspark.sql import functions as F

    rows = results.select("sop_uid", "content_sha256", "series_uid", F.explode("features").alias("f"))
    kept = ("feature", "version", "value", "value_text", "unit", "status", "reason")
    return rows.select(
        "sop_uid",
        "content_sha256",
        "series_uid",
        F.lit("image").alias("level"),
        *[f"f.{name}" for name in kept],
        F.lit(run_id).alias("run_id"),
    )


def text_rows(results: "DataFrame", run_id: str) -> "DataFrame":
    """Rows of pixel_text: one per text, and one without a box for an instance that has none."""
    from pyspark.sql import functions as F

    rows = results.where("want_text").select(*plan.INSTANCE, "series_uid", "verdict", "reason", "way", F.explode_outer("texts").alias("t"))
    return rows.select(
        *plan.INSTANCE,
        "series_uid",
        "t.frame_from",
        "t.frame_to",
        "t.plane",
        *[f"t.{name}" for name in ("x0", "y0", "x1", "y1")],
        "t.kind",
        "t.score",
        "t.text",
        "t.matches",
        "verdict",
        "reason",
        F.lit(engine_version()).alias("engine_version"),
        F.coalesce("t.rule", "way").alias("rule"),
        F.lit(run_id).alias("run_id"),
    )


def examine_partition(
    batches: "Iterable[pa.RecordBatch]", root: Root, schema: "pa.Schema", limits: Limits, command: tuple[str, ...], text: bool
) -> "Iterator[pa.RecordBatch]":
    """Plan rows of one task -> results; runs in an executor, with one supervised child for all of them."""
    import pyarrow as pa

    rows = (row for batch in batches for row in batch.to_pylist())
    with Supervised(root, limits, command, text) as looks:
        for _, members in groupby(rows, key=lambda row: row["group_id"]):
            group = list(members)
            results = examine_group([_instance(row) for row in group], looks, group[0]["pattern"])
            yield pa.RecordBatch.from_pylist([_record(row, result) for row, result in zip(group, results, strict=True)], schema)


def _instance(row: dict[str, Any]) -> Instance:
    """A plan row as what is to be done."""
    at = Locator(*(row[name] for name in ("path", "offset", "length", "compression", "content_sha256")))
    return Instance(at, row["want_text"], tuple(row["want_features"]), row["whole"])


def _record(row: dict[str, Any], result: Result) -> dict[str, Any]:
    """A result as a row of `_RESULT`."""
    kept = ("sop_uid", "content_sha256", "series_uid", "object_id", "locator", "want_text")
    own = {
        NAME: [row["patient_name"]],
        NUMBER: [row["patient_id_raw"], row["accession_number"]],
        DATE: [row["patient_birth_date"], row["study_date"]],
    }
    return {
        **{name: row[name] for name in kept},
        "verdict": result.verdict,
        "reason": result.reason,
        "detail": result.detail,
        "frames": result.frames,
        "readings": result.readings,
        "way": PROJECTION if row["pattern"] else FRAME,
        "features": [asdict(feature) for feature in result.features],
        "texts": [
            {
                **asdict(text.box),
                **{name: getattr(text, name) for name in ("frame_from", "frame_to", "rule", "plane")},
                "kind": result.kind,
                "matches": matches(text.box.text, own),
            }
            for text in result.texts
        ],
    }
