"""`pictures records`: extract files in, typed events and people out.

Enters: the CSV and Parquet files that the settings name, below the extracts zone, and the declarations of schemas/records/. Leaves, in the
identifiable zone: the rows as they came (``record_<source>``), ``record_event``, ``person``, ``person_residence``, ``source_cover``,
``record_file`` and quarantine, and from the texts of reports ``record_report_finding``. Files are opened by executors, block by block; the
driver holds names, counts and hashes.

The typed tables are a function of the accepted files alone, in the order in which they were loaded: of the rows with one key the one that
was loaded last counts, where it has no fault; where several rows say the same, the first of them stands for all. A file is accepted when
everything made of it is written; a run that was stopped before is made good by the next, from the rows of the accepted files.
"""

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures_spark import tables
from pictures_spark.datafiles import DataFile
from pictures_spark.errors import ConfigError, InputError
from pictures_spark.job import Job
from pictures_spark.keys import pseudonym_udf
from pictures_spark.radiology.read import REPORTS, read_reports
from pictures_spark.records import contracts, judging, latest, worker
from pictures_spark.records.csvfile import Survey
from pictures_spark.records.source import EVENTS, Source, TableSpec, schema_version, source
from pictures_spark.resources import load_schema
from pictures_spark.schema import table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# The generator's answers lie beside its extracts, and are no extract.
_NOT_EXTRACTS = "truth"
# Corrections up to this many are sent to every task; more are joined.
_FEW = 1_000_000
# Keys that are looked at together, in the memory of one worker.
_SHARE = 2_000_000
_FAULT = "fault:"
# What rows are counted by, beside their source.
_COUNTED = ("file_sha256", "month", "fault")


@dataclass
class _File:
    """An extract file of this run."""

    source: str
    name: str
    path: str
    survey: Survey
    fault: str | None = None
    fault_column: str | None = None
    order: int = 0

    @property
    def sha256(self) -> str:
        return self.survey.sha256


@dataclass
class _Work:
    """What a run does for one source: files that are new or must be judged again, and those that stand.

    ``written`` are the data files that workers wrote of the rows of new files; None where Spark wrote the table.
    """

    source: Source
    version: str
    accepted: dict[str, Any]
    new: list[_File] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    written: list[DataFile] | None = None

    @property
    def rebuild(self) -> bool:
        """Whether accepted files were judged by other declarations, so that everything is made again."""
        return any(row.schema_version != self.version for row in self.accepted.values())

    @property
    def read(self) -> bool:
        """Whether there is a file of it that has rows and was not refused as a whole."""
        judged = {file.sha256: file.fault is None and file.survey.row_count > 0 for file in self.new}
        return any(judged.get(sha, row.quarantined_count < row.row_count) for sha, row in self.accepted.items()) or any(judged.values())

    @property
    def readable(self) -> list[_File]:
        """New files that can be read."""
        return [file for file in self.new if file.fault is None]

    @property
    def blocks(self) -> list[str]:
        """Their blocks, as workers are told of them."""
        return [block for file in self.readable for block in worker.blocks_of(self.source, file.path, file.survey)]

    @property
    def row_count(self) -> int:
        """Rows of the accepted files and of those of this run."""
        counts = {sha: row.row_count for sha, row in self.accepted.items()} | {file.sha256: file.survey.row_count for file in self.new}
        return sum(counts.values())

    @property
    def fresh(self) -> list[str]:
        """Files whose rows are judged in this run."""
        return [file.sha256 for file in self.new] + self.again

    @property
    def orders(self) -> dict[str, int]:
        """File -> load order, of the accepted files and those of this run."""
        return {sha: row.load_order for sha, row in self.accepted.items()} | {file.sha256: file.order for file in self.new}


def run(job: Job) -> None:
    """Load what is new below the extracts zone.

    Raises
    ------
    ConfigError
        A source in the settings is not declared, or two sources give the same table.
    InputError
        No file matches any source, and none was ever loaded.
    QuarantineLimitError
        More rows than the limit are in quarantine; the typed tables are then left as they were.
    """
    sources = _sources(job)
    works = [_Work(found, schema_version(found.name), {}) for found in sources]
    accepted = job.read("identifiable", "record_file").collect()
    for work in works:
        work.accepted = {row.file_sha256: row for row in accepted if row.source == work.source.name}
    files = _surveyed(job, sources)
    if not files and not accepted:
        raise InputError("no extract file matches records.sources of the settings below the extracts zone: put the extracts there")
    counts: Counter[str] = Counter()
    for work in works:
        _sort_out(job, work, [file for file in files if file.source == work.source.name], counts)
    working = [work for work in works if work.new or work.rebuild]
    if working:
        _load(job, working, counts)
    job.report.counts = _balanced(counts)
    _cover(job, works)
    if any(spec.table == REPORTS for found in sources for spec in found.tables):
        read_reports(job)
    for name in (EVENTS, "person"):
        job.report.tables[name] = job.version("identifiable", name)


def _sources(job: Job) -> list[Source]:
    found, faults = [], []
    for name in sorted(job.config["records"]["sources"]):
        try:
            found.append(source(name))
        except ConfigError as error:
            faults.append(str(error))
    givers = Counter(spec.table for one in found for spec in one.tables)
    faults += [f"table {name} is given by {count} record sources; it can come from one only" for name, count in givers.items() if count > 1]
    if faults:
        raise ConfigError("; ".join(faults))
    return found


def _surveyed(job: Job, sources: list[Source]) -> list[_File]:
    """Every file of every source by name, surveyed by executors."""
    root = job.zones.path("extracts")
    places = []
    for found in sources:
        for path in sorted(root.glob(job.config["records"]["sources"][found.name]["files"])):
            name = path.relative_to(root).as_posix()
            if path.is_file() and Path(name).parts[0] != _NOT_EXTRACTS:
                places.append((found.name, name, str(job.zones.path("extracts", name))))
    if not places:
        return []
    job.say(f"{len(places)} extract files")
    session = job.spark
    # One file per task: they differ in size, and each is read from front to back.
    rows = session.createDataFrame(session.sparkContext.parallelize(places, len(places)), "source string, name string, path string")
    surveys = rows.mapInArrow(worker.surveying, "source string, name string, path string, survey string").collect()
    files = [_File(row.source, row.name, row.path, Survey.from_dict(json.loads(row.survey))) for row in surveys]
    return sorted(files, key=lambda file: (file.source, file.name))


def _sort_out(job: Job, work: _Work, files: list[_File], counts: Counter[str]) -> None:
    """Tell new files from known ones, number them, and find those that cannot be read at all."""
    seen: set[str] = set()
    again: set[str] = set()
    last = max((row.load_order for row in work.accepted.values()), default=0)
    extra = 0
    for file in files:
        known = work.accepted.get(file.sha256)
        if file.sha256 in seen:
            counts["skipped_same_file"] += file.survey.row_count
            continue
        seen.add(file.sha256)
        if known is not None and not work.rebuild:
            counts["unchanged"] += file.survey.row_count
            continue
        if known is None:
            last += 1
        else:
            again.add(file.sha256)
        file.order = known.load_order if known is not None else last
        file.fault, file.fault_column = _header_fault(work.source, file.survey)
        extra += len(_unknown_columns(work.source, file.survey)) if file.fault is None else 0
        work.new.append(file)
    # Files that are not there any more are judged again from their rows, which were kept.
    work.again = sorted(set(work.accepted) - again) if work.rebuild else []
    if extra:
        # Their number only: a file without a header has values where the names should be.
        job.report.details[f"{work.source.name}_columns_not_declared"] = extra


def _header_fault(found: Source, facts: Survey) -> tuple[str | None, str | None]:
    """(reason, declared column) why a file cannot be read at all."""
    if facts.fault is not None:
        return facts.fault, None
    names = [name.casefold() for name in facts.header]
    for column in found.columns:
        if names.count(column.name.casefold()) > 1:
            return "duplicate_column", column.name
        if column.needs and column.name.casefold() not in names:
            return "missing_column", column.name
    return None, None


def _unknown_columns(found: Source, facts: Survey) -> set[str]:
    return {name.casefold() for name in facts.header} - {column.name.casefold() for column in found.columns}


def _load(job: Job, works: list[_Work], counts: Counter[str]) -> None:
    """Read, judge, count, and then - if not too much is wrong - write."""
    for work in works:
        job.say(f"{work.source.name}: {sum(file.survey.row_count for file in work.new):,} rows in {len(work.new)} new files")
    _write_raw(job, works)
    repeats = _repeats(job, works)
    told = _told(job, works, repeats)
    _count(job, works, told, counts)
    _quarantine(job, works)
    job.report.counts = _balanced(counts)
    job.check_quarantine_limit()
    replaced = {row.source: row["count"] for row in repeats.where("touched").groupBy("source").count().collect()}
    left_over = _left_over(job, works)
    added: list[_Work] = []
    for work in works:
        for spec in work.source.tables:
            _write_table(job, work.source, spec, _standing(job, work, repeats))
        if not work.source.events:
            continue
        again = replaced.get(work.source.name, 0)
        if again:
            job.report.details[f"{work.source.name}_rows_replaced"] = again
        if work.rebuild or again or work.source.name in left_over:
            _replace_events(job, work, _standing(job, work, repeats))
        else:
            added.append(work)
    _append_events(job, added, repeats)
    repeats.unpersist()
    _contracts(job, works, told)
    _accept(job, works, told)


def _balanced(counts: Counter[str]) -> dict[str, int]:
    return {"seen": sum(counts.values()), **{name: counts[name] for name in ("written", "unchanged", "quarantined")}, **counts}


def _write_raw(job: Job, works: list[_Work]) -> None:
    """The rows of the new files, judged, to ``record_<source>``; where declarations have changed, all rows of the source."""
    zone = "identifiable"
    bulk = []
    for work in works:
        if work.rebuild:
            _rewrite_raw(job, work)
            continue
        _remove_strays(job, work)
        if not work.readable:
            continue
        if tables.mounted(job.spark, job.zones, zone, work.source.table):
            bulk.append(work)
        else:
            tables.append(_judged(job, work), job.zones, zone, work.source.table)
    if not bulk:
        return
    sources = {work.source.name: work.source for work in bulk}
    folders = {name: job.zones.table(zone, found.table, "write") for name, found in sources.items()}
    blocks = [block for work in bulk for block in work.blocks]
    # One block per task: equal work, and a lost task repeats little.
    plan = job.spark.createDataFrame(job.spark.sparkContext.parallelize([(block,) for block in blocks], len(blocks)), "block string")
    files = _data_files(plan.mapInArrow(worker.writing(sources, folders, job.run_id), worker.TOLD))
    for work in bulk:
        work.written = files.get(work.source.name, [])
        if sum(file.rows for file in work.written) != sum(file.survey.row_count for file in work.readable):
            raise InputError(f"{work.source.name}: fewer or more rows were written than were counted in its files; run the job again")
    # Side by side: a commit is a dialogue of the driver with the disk.
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda work: tables.commit(job.spark, job.zones, zone, work.source.table, work.written), bulk))


def _data_files(told: "DataFrame") -> dict[str, list[DataFile]]:
    """Source -> the data files with rows that workers wrote for it."""
    found: dict[str, list[DataFile]] = {}
    for row in told.collect():
        file = DataFile(**json.loads(row.file))
        if file.rows:
            found.setdefault(row.source, []).append(file)
    return found


def _remove_strays(job: Job, work: _Work) -> None:
    """A run that was stopped may have left rows of files that are not accepted; they may have been judged by other declarations."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    zone, name = "identifiable", work.source.table
    if tables.exists(job.spark, job.zones, zone, name):
        strays = F.col("file_sha256").isin([file.sha256 for file in work.new])
        if not job.read(zone, name).where(strays).isEmpty():
            DeltaTable.forPath(job.spark, job.zones.table(zone, name, "write")).delete(strays)


def _rewrite_raw(job: Job, work: _Work) -> None:
    """All rows of a source, judged by the declarations as they are now: those of files that are there, and those that were kept."""
    from pyspark.sql import functions as F

    zone, name = "identifiable", work.source.table
    known = job.read(zone, name)
    fields = [F.col(c.field) if c.field in known.columns else F.lit(None).cast("string").alias(c.field) for c in work.source.columns]
    # What was wrong with a row as CSV cannot be told from its columns, so it is carried on.
    from_csv = F.when(F.col("fault").isin(list(_csv_reasons())), F.col("fault")).alias("read_fault")
    kept = known.where(F.col("file_sha256").isin(work.again)).select(*fields, "row_number", from_csv, "file_sha256")
    again = kept.mapInArrow(worker.judging_again(work.source), worker.judged_layout(work.source)).withColumn("run_id", F.lit(job.run_id))
    tables.replace(tables.union([again, *([_judged(job, work)] if work.readable else [])]), job.zones, zone, name)


def _csv_reasons() -> tuple[str, ...]:
    return ("bad_encoding", "nul_byte", "wrong_field_count", "unterminated_quote")


def _judged(job: Job, work: _Work) -> "DataFrame":
    """The rows of new files, block by block, as rows of ``record_<source>``."""
    from pyspark.sql import functions as F

    plan = job.spark.sparkContext.parallelize([(block,) for block in work.blocks], max(len(work.blocks), 1))
    rows = job.spark.createDataFrame(plan, "block string")
    return rows.mapInArrow(worker.reading(work.source), worker.judged_layout(work.source)).withColumn("run_id", F.lit(job.run_id))


def _events(job: Job, found: Source, standing: "DataFrame") -> "DataFrame":
    """The events of rows that stand."""
    from pyspark.sql import functions as F

    needed = standing.select(*judging.event_fields(found), "row_key", "file_sha256", "person_id")
    made = needed.mapInArrow(worker.emitting(found), ", ".join(f"{name} {type_}" for name, type_ in judging.EVENT.items()))
    return made.withColumn("run_id", F.lit(job.run_id))


def _with_order(rows: "DataFrame", work: _Work) -> "DataFrame":
    """Rows of files that are accepted or of this run, with ``load_order`` and ``fresh`` (judged in this run)."""
    from pyspark.sql import functions as F

    fresh = set(work.fresh)
    orders = [(sha, order, sha in fresh) for sha, order in sorted(work.orders.items())]
    frame = _local(rows.sparkSession, orders, {"file_sha256": "string", "load_order": "int64", "fresh": "bool"})
    return rows.join(F.broadcast(frame), "file_sha256")


def _local(spark: "SparkSession", rows: list[tuple], types: dict[str, str]) -> "DataFrame":
    """A small frame that lies in the plan itself, so that no task is needed to make it."""
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    arrays = [pa.array(column, pa.type_for_alias(type_)) for column, type_ in zip(columns, types.values(), strict=True)]
    return spark.createDataFrame(pa.table(arrays, names=list(types)))


def _repeats(job: Job, works: list[_Work]) -> "DataFrame":
    """Rows without fault that share their key with another row, kept in memory.

    Columns are source, file_sha256, row_number, month, fresh, state and touched. ``state`` is standing (counts), duplicate (says what the
    standing row says) or superseded. ``touched``: a standing row whose key has rows of earlier runs that say something else, so that the
    events made of them may have to go.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    good = {work.source.name: job.read("identifiable", work.source.table).where("fault IS NULL") for work in works}
    # Keys that occur more than once, found by a number that is cheap to group by; equal numbers of different keys do no harm.
    number = F.xxhash64("row_key").alias("number")
    shares = -(-sum(work.row_count for work in works) // _SHARE) or 1
    numbers = tables.union([rows.select(number) for rows in good.values()]).repartition(shares, "number")
    repeated = numbers.mapInArrow(worker.repeated, "number long").persist()
    many = repeated.count()
    parts = []
    for work in works:
        keyed = _with_order(good[work.source.name].withColumn("number", number), work)
        some = keyed.join(F.broadcast(repeated) if many <= _FEW else repeated, "number", "left_semi") if many else keyed.where(F.lit(False))
        parts.append(
            some.select(
                F.lit(work.source.name).alias("source"),
                *("file_sha256", "row_number", "row_key", "content_hash", "month", "load_order", "fresh"),
            )
        )
    key = Window.partitionBy("row_key")
    newest = key.orderBy(F.col("load_order").desc(), F.col("row_number").desc())
    oldest = Window.partitionBy("row_key", "content_hash").orderBy("load_order", "row_number")
    told = tables.union(parts).select(
        *("source", "file_sha256", "row_number", "month", "fresh"),
        (F.col("content_hash") == F.first("content_hash").over(newest)).alias("same"),
        F.row_number().over(oldest).alias("rank"),
        (F.min("fresh").over(key) != F.max("fresh").over(key)).alias("mixed"),
        (F.min("content_hash").over(key) != F.max("content_hash").over(key)).alias("differ"),
    )
    state = F.when(~F.col("same"), "superseded").when(F.col("rank") > 1, "duplicate").otherwise("standing")
    touched = (state == "standing") & F.col("mixed") & F.col("differ")
    repeats = told.select("source", "file_sha256", "row_number", "month", "fresh", state.alias("state"), touched.alias("touched"))
    repeats = repeats.persist()
    repeats.count()
    repeated.unpersist()
    return repeats


@dataclass(frozen=True)
class _Told:
    """How many rows became what.

    Attributes
    ----------
    files : (source, file of this run) -> rows by outcome: ``written``, ``duplicate``, ``superseded``, ``fault:<reason>``; and values
        ``nulled``.
    months : source -> (month, reason) -> rows, of all rows that count and those of this run.
    """

    files: dict[tuple[str, str], Counter[str]]
    months: dict[str, Counter[tuple[str, str]]]


def _told(job: Job, works: list[_Work], repeats: "DataFrame") -> _Told:
    """Count the rows that are in the tables now."""
    from pyspark.sql import functions as F

    told = _Told({}, {work.source.name: Counter() for work in works})
    fresh = {(work.source.name, sha) for work in works for sha in work.fresh}
    rows = tables.union(
        [job.read("identifiable", work.source.table).select(F.lit(work.source.name).alias("source"), *_COUNTED, "nulled") for work in works]
    )
    known = {(work.source.name, sha) for work in works for sha in work.orders}
    for row in rows.groupBy("source", *_COUNTED).agg(F.count(F.lit(1)).alias("n"), F.sum("nulled").alias("nulled")).collect():
        if (row.source, row.file_sha256) not in known:
            continue
        month, counter = row.month or contracts.UNKNOWN, told.months[row.source]
        counter[(month, row.fault or contracts.ACCEPTED)] += row.n
        if row.fault is None:
            counter[(month, contracts.LEFT_OUT)] += row.nulled
        if (row.source, row.file_sha256) in fresh:
            outcome = told.files.setdefault((row.source, row.file_sha256), Counter())
            outcome["written" if row.fault is None else f"{_FAULT}{row.fault}"] += row.n
            outcome["nulled"] += row.nulled if row.fault is None else 0
    for row in repeats.where("state != 'standing'").groupBy("source", "file_sha256", "month", "state").count().collect():
        month, count = row.month or contracts.UNKNOWN, row["count"]
        told.months[row.source] += Counter({(month, row.state): count})
        told.months[row.source][(month, contracts.ACCEPTED)] -= count
        if (row.source, row.file_sha256) in fresh:
            told.files[(row.source, row.file_sha256)][row.state] += count
            told.files[(row.source, row.file_sha256)]["written"] -= count
    for work in works:
        for file in work.new:
            if file.fault is not None:
                told.months[work.source.name][(contracts.UNKNOWN, file.fault)] += file.survey.row_count
    return told


def _contracts(job: Job, works: list[_Work], told: _Told) -> None:
    """Write what the sources of this run keep and break by month, and tell the sums."""
    held = job.read("identifiable", "record_contract").where(~_named("source", told.months)).collect()
    rows = [tuple(row) for row in held]
    for work in works:
        name = work.source.name
        settings = job.config["records"]["sources"][name]
        days = date.fromisoformat(settings["from_date"]), date.fromisoformat(settings["to_date"])
        sums: Counter[str] = Counter()
        for month, contract, reason, count in contracts.judged(told.months[name], days, settings["lag_days"]):
            rows.append((name, month, contract, reason, count, job.run_id))
            sums["months_without_rows" if reason == "no_rows" else f"broken_{contract}"] += count or 1
        sums.pop(f"broken_{contracts.KEPT}", None)
        job.report.details |= {f"{name}_{what}": count for what, count in sorted(sums.items())}
    frame = job.spark.createDataFrame(rows, table("identifiable", "record_contract").spark_type())
    tables.replace(frame, job.zones, "identifiable", "record_contract")


def _named(column: str, names: "Iterable[str]") -> "Column":
    from pyspark.sql import functions as F

    return F.col(column).isin(sorted(names))


def _faults(outcome: Counter[str]) -> dict[str, int]:
    return {name.removeprefix(_FAULT): count for name, count in outcome.items() if name.startswith(_FAULT)}


def _count(job: Job, works: list[_Work], told: _Told, counts: Counter[str]) -> None:
    """Add the files of this run to the report's counts, each row once."""
    report = job.report
    for work in works:
        nulled = 0
        for file in work.new:
            if file.fault is not None:
                report.details["files_quarantined"] = int(report.details.get("files_quarantined", 0)) + 1
                counts["quarantined"] += file.survey.row_count
                _add(report.quarantined, file.fault, file.survey.row_count)
                continue
            outcome = told.files.get((work.source.name, file.sha256), Counter())
            counts["written"] += outcome["written"]
            for state in ("duplicate", "superseded"):
                if outcome[state]:
                    counts[f"skipped_{state}"] += outcome[state]
            for reason, count in _faults(outcome).items():
                counts["quarantined"] += count
                _add(report.quarantined, reason, count)
            nulled += outcome["nulled"]
            if sum(count for name, count in outcome.items() if name != "nulled") != file.survey.row_count:
                raise InputError(f"{work.source.name}: a file does not have the rows that were counted in it; run the job again")
        report.details[f"{work.source.name}_rows"] = sum(file.survey.row_count for file in work.new)
        if nulled:
            report.details[f"{work.source.name}_values_left_out"] = nulled


def _add(reasons: dict[str, int], reason: str, count: int) -> None:
    reasons[reason] = reasons.get(reason, 0) + count


def _quarantine(job: Job, works: list[_Work]) -> None:
    """Rows and files of this run that cannot be used, each with where it is and a reason."""
    from pyspark.sql import functions as F

    texts = load_schema("record_reasons.yaml")
    files, refused = [], []
    for work in works:
        listed = [(file.sha256, file.name) for file in work.new] + [(sha, work.accepted[sha].file_name) for sha in work.again]
        files += [(work.source.name, sha, name) for sha, name in listed]
        refused += [(work.source.name, f.sha256, f.fault, f.fault_column) for f in work.new if f.fault is not None]
    if not refused and not job.report.quarantined:
        return
    columns = {"source": "string", "file_sha256": "string", "fault": "string", "fault_column": "string"}
    whole = _local(job.spark, refused, columns).withColumn("row_number", F.lit(None).cast("long"))
    faulty = [
        job.read("identifiable", work.source.table)
        .where(F.col("fault").isNotNull() & F.col("file_sha256").isin(work.fresh))
        .select(F.lit(work.source.name).alias("source"), *list(columns)[1:], "row_number")
        for work in works
    ]
    bad = tables.union([*faulty, whole])
    names = _local(job.spark, files, {"source": "string", "file_sha256": "string", "name": "string"})
    suffix = F.coalesce(F.concat(F.lit("#"), F.col("row_number").cast("string")), F.lit(""))
    detail = F.lit(None).cast("string")
    for reason, text in {**texts["row"], **texts["file"]}.items():
        worded = F.replace(F.lit(text), F.lit("{column}"), F.coalesce("fault_column", F.lit("")))
        detail = F.when(F.col("fault") == reason, worded).otherwise(detail)
    place = F.concat("source", F.lit("/"), "file_sha256", suffix)
    job.quarantine(
        bad.join(F.broadcast(names), ["source", "file_sha256"]).select(
            pseudonym_udf(job.key("object"), "object")(place).alias("object_id"),
            F.concat("name", suffix).alias("locator"),
            F.col("fault").alias("reason"),
            detail.alias("detail"),
        )
    )


def _standing(job: Job, work: _Work, repeats: "DataFrame") -> "DataFrame":
    """The rows that stand, one per key, with ``fresh`` and ``touched``."""
    from pyspark.sql import functions as F

    rows = _with_order(job.read("identifiable", work.source.table).where("fault IS NULL"), work)
    mine = repeats.where(F.col("source") == work.source.name).select("file_sha256", "row_number", "state", "touched")
    joined = rows.join(mine, ["file_sha256", "row_number"], "left")
    return joined.where("state IS NULL OR state = 'standing'").withColumn("touched", F.coalesce("touched", F.lit(False))).drop("state")


def _write_table(job: Job, found: Source, spec: TableSpec, standing: "DataFrame") -> None:
    """Make a table of its own from all rows of its source that stand."""
    from pyspark.sql import functions as F

    declared = table("identifiable", spec.table).by_name
    types = ", ".join(f"{name} {declared[name].type}" for name in spec.columns)
    day = "date" if found.column(spec.latest_by).type in ("date", "datetime") else "string"
    layout = f"{types}, _latest {day}, _open boolean, file_sha256 string, load_order long, row_number long"
    rows = standing.mapInArrow(worker.tabling(found, spec), layout).withColumn("scheme", F.lit(found.scheme))
    rows = latest.latest_rows(spec, rows)
    if spec.current:
        rows = _followed(rows, spec.one_per[0], spec.current["of"])
    made = latest.with_current(spec, rows).withColumn("run_id", F.lit(job.run_id))
    done = tables.refresh(made, job.zones, "identifiable", spec.table)
    job.report.details[f"{spec.table}_rows"] = done["written"] + done["unchanged"]


def _followed(rows: "DataFrame", key: str, into: str) -> "DataFrame":
    """Rows whose ``into`` is where their merges end. Merges are few, so the driver follows them."""
    from pyspark.sql import functions as F

    merges = {row[key]: row[into] for row in rows.where(F.col(key) != F.col(into)).select(key, into).collect()}
    further = [(start, end) for start, end in sorted(masters(merges).items()) if merges[start] != end]
    if not further:
        return rows
    ends = _local(rows.sparkSession, further, {key: "string", "_end": "string"})
    return rows.join(F.broadcast(ends), key, "left").withColumn(into, F.coalesce("_end", into)).drop("_end")


def _left_over(job: Job, works: list[_Work]) -> set[str]:
    """Sources of which a run that was stopped has left events of files that are not accepted."""
    from pyspark.sql import functions as F

    new = [file.sha256 for work in works for file in work.new]
    events = job.read("identifiable", EVENTS).where(F.col("file_sha256").isin(new))
    return {row.source for row in events.select("source").distinct().collect()}


def _replace_events(job: Job, work: _Work, standing: "DataFrame") -> None:
    """Put events in the place of those that their rows gave before; of a source that is made again also take away what no row gives."""
    from pyspark.sql import functions as F

    made = _events(job, work.source, standing if work.rebuild else standing.where("fresh OR touched"))
    if not tables.exists(job.spark, job.zones, "identifiable", EVENTS):
        tables.append(made, job.zones, "identifiable", EVENTS)
        return
    tables.supersede(made, job.zones, "identifiable", EVENTS, by=("row_key",))
    if not work.rebuild:
        return
    events = job.read("identifiable", EVENTS).where(F.col("source") == work.source.name)
    gone = events.join(standing.select("row_key"), "row_key", "left_anti").select("event_key")
    if not gone.isEmpty():
        tables.remove(gone, job.zones, "identifiable", EVENTS)


def _append_events(job: Job, works: list[_Work], repeats: "DataFrame") -> None:
    """The events of the rows of this run that stand, where no row of theirs had events before."""
    from pyspark.sql import functions as F

    zone = "identifiable"
    for work in works:
        if work.written is None and work.readable:
            made = _events(job, work.source, _standing(job, work, repeats).where("fresh"))
            tables.append(made, job.zones, zone, EVENTS)
    bulk = [work for work in works if work.written]
    if not bulk:
        return
    files = [
        (work.source.name, f"{job.zones.table(zone, work.source.table)}/{file.name}", *file.span("file_sha256"), *file.span("row_number"))
        for work in bulk
        for file in work.written or ()
    ]
    # A data file is made of one block, which is a stretch of rows of one extract file.
    names = ("source", "path", "file_sha256", "_", "first", "last")
    plan = _local(job.spark, files, dict.fromkeys(names[:4], "string") | dict.fromkeys(names[4:], "int64")).drop("_")
    gone = repeats.where("fresh AND state != 'standing'").select("source", "file_sha256", "row_number")
    among = F.col("row_number").between(F.col("first"), F.col("last"))
    left_out = (
        gone.join(F.broadcast(plan), ["source", "file_sha256"])
        .where(among)
        .groupBy("path")
        .agg(F.collect_list("row_number").alias("left_out"))
    )
    rows = plan.join(left_out, "path", "left").select("source", "path", "left_out").repartition(len(files))
    sources = {work.source.name: work.source for work in bulk}
    folder = job.zones.table(zone, EVENTS, "write")
    found = _data_files(rows.mapInArrow(worker.writing_events(sources, folder, job.run_id), worker.TOLD))
    tables.commit(job.spark, job.zones, zone, EVENTS, [file for each in found.values() for file in each])


def masters(merges: dict[str, str]) -> dict[str, str]:
    """Where each merge ends: identifier -> identifier it was merged into, followed to the end.

    Identifiers that are merged into each other in a ring are all given the smallest of the ring.

    Examples
    --------
    >>> masters({"a": "b", "b": "c"})
    {'a': 'c', 'b': 'c'}
    """
    ends: dict[str, str] = {}
    for start in sorted(merges):
        path = [start]
        while path[-1] in merges and merges[path[-1]] not in path and path[-1] not in ends:
            path.append(merges[path[-1]])
        last = path[-1]
        if last in ends:
            end = ends[last]
        elif last in merges:
            end = min(path[path.index(merges[last]) :])
        else:
            end = last
        ends |= {step: end for step in path if step in merges}
    return ends


def _cover(job: Job, works: list[_Work]) -> None:
    """What each source can tell and for which days: the settings' days, the declaration's kinds.

    A source of which no file was ever read has no cover: that nothing is found in it would say nothing.
    """
    settings = job.config["records"]
    rows = []
    for work in works:
        if not work.read:
            continue
        days = settings["sources"][work.source.name]
        dates = date.fromisoformat(days["from_date"]), date.fromisoformat(days["to_date"])
        rows.append((work.source.name, settings["site"], *dates, days["lag_days"], work.source.kinds, job.run_id))
    known = [tuple(row)[:-1] for row in job.read("identifiable", "source_cover").collect()]
    if sorted(known) != sorted(row[:-1] for row in rows):
        frame = job.spark.createDataFrame(rows, table("identifiable", "source_cover").spark_type())
        tables.replace(frame, job.zones, "identifiable", "source_cover")


def _accept(job: Job, works: list[_Work], told: _Told) -> None:
    """Record that the files of this run are loaded."""
    rows = []
    for work in works:
        files = [(file.sha256, file.name, file.order, file.survey.row_count, file.fault is not None) for file in work.new]
        kept = [work.accepted[sha] for sha in work.again]
        # Of a file that was refused as a whole no row was kept.
        files += [(old.file_sha256, old.file_name, old.load_order, old.row_count, old.quarantined_count == old.row_count) for old in kept]
        for sha, name, order, row_count, refused in files:
            outcome = told.files.get((work.source.name, sha), Counter())
            bad = row_count if refused else sum(_faults(outcome).values())
            rows.append((work.source.name, sha, name, order, work.version, row_count, outcome["written"], bad, job.run_id))
    frame = job.spark.createDataFrame(rows, table("identifiable", "record_file").spark_type())
    tables.merge(frame, job.zones, "identifiable", "record_file")
