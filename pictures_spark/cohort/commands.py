"""``pictures cohort check | count | freeze``: read a question, say what it asks, answer it, keep the answer.

``check`` needs no data. ``count`` is answered by the embedded reader under the role counter. ``freeze`` runs under the role deidentified:
Spark computes the members, the embedded reader answers the same question apart, and nothing is written unless both agree at every step.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures_spark import __version__, tables
from pictures_spark.cohort import attrition, check, codelists, duck, sentence, spark, yaml_face
from pictures_spark.cohort.attrition import Answer, Level
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.compile import DIALECTS, Plan, Saved, compiled
from pictures_spark.cohort.duck import ZONE, Release
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.model import Question, last_acts, saved_cohorts
from pictures_spark.config import Config
from pictures_spark.errors import ChecksFailedError, ConfigError, InputError
from pictures_spark.job import Job, run_job
from pictures_spark.keys import fingerprint
from pictures_spark.report import utc_now
from pictures_spark.resources import code_fingerprint
from pictures_spark.schema import table
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    import duckdb
    from pyspark.sql import DataFrame

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Asked:
    """A checked question with its code lists and saved cohorts, and the name it goes by in messages."""

    source: str
    question: Question
    codes: Mapping[str, Codes]
    saved: Mapping[str, Saved] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The canonical specification, YAML."""
        return yaml_face.to_yaml(self.question)

    @property
    def spec_sha256(self) -> str:
        """SHA-256 of the canonical specification, hex."""
        return fingerprint(self.spec)

    def plan(self) -> Plan:
        """The plan that answers it."""
        return compiled(self.question, self.codes, self.saved)


def run(action: str, question: str, config: Config) -> None:
    """Do what ``pictures cohort <action> FILE`` says and print the result.

    Raises
    ------
    PicturesError
        The question cannot be asked, there is nothing to ask it of, or the answer failed its checks.
    """
    path = Path(question)
    if action == "freeze":
        run_job("select", config, "deidentified", lambda job: freeze(job, path))
        return
    asked = load(path)
    print("\n".join(read_back(asked)))
    if action == "count":
        found = count(asked, Zones(config, "counter"))
        print("\n".join(["", *attrition.lines(asked.question.unit, found.levels)]))
        for breakdown, cells in zip(asked.question.breakdowns, found.cells, strict=True):
            print("\n".join(["", *attrition.cell_lines(asked.question.unit, breakdown.by, cells)]))


def load(path: Path) -> Asked:
    """Read a question and its code lists.

    Raises
    ------
    QuestionError
        With every fault of both.
    """
    try:
        text = path.read_bytes()
    except OSError:
        raise ConfigError(f"question {path} cannot be read: give the path of a cohort specification, YAML") from None
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"question {path} is larger than {_MAX_BYTES} bytes; put long code lists into CSV files")
    try:
        question, faults = yaml_face.read(text.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"question {path} is not UTF-8 text") from None
    codes: dict[str, Codes] = {}
    if question is not None:
        codes, wrong = codelists.resolve(question, path.parent)
        faults += wrong
    if question is None or faults:
        raise QuestionError(str(path), faults)
    return Asked(str(path), question, codes)


def read_back(asked: Asked) -> list[str]:
    """The question in plain English, step by step, and the size of its code lists."""
    question = asked.question
    ids = ["start", "population", *(step.id for step in question.steps), *last_acts(question)]
    more = [*sentence.index(question, asked.codes), *sentence.shown(question, asked.codes)]
    width = max(map(len, ids))
    said = [f"  {name:<{width}}  {text}" for name, text in zip(ids, sentence.lines(question, asked.codes), strict=True)]
    lists = [
        f"  code list {codes.name}: {codes.label}, {len(codes.codes)} code{'' if len(codes.codes) == 1 else 's'}, {codes.expand}"
        for codes in asked.codes.values()
    ]
    return [f"cohort {question.id}:", *said, *(f"  {text}" for text in more), *lists]


def count(asked: Asked, zones: Zones) -> Answer:
    """The attrition of a question on the newest release, by the embedded reader.

    Raises
    ------
    InputError
        Nothing is published.
    QuestionError
        No published source can hold what a step asks for, or none covers any unit's window.
    """
    with duck.reader(zones) as connection:
        release = _release(connection, zones)
        asked = with_saved(connection, zones, asked, release)
        return _count(connection, zones, asked, asked.plan(), release)


def with_saved(connection: "duckdb.DuckDBPyConnection", zones: Zones, asked: Asked, release: Release) -> Asked:
    """A question with the frozen cohorts that it refers to.

    Raises
    ------
    QuestionError
        One is not there, of another release, or has not the level that is asked for.
    """
    names = saved_cohorts(asked.question)
    if not names:
        return asked
    known = duck.saved(connection, zones)
    units, releases = ({name: one.unit for name, (one, _) in known.items()}, {name: of for name, (_, of) in known.items()})
    faults = check.not_saved(asked.question, units, releases, release.name)
    if faults:
        raise QuestionError(asked.source, faults)
    return replace(asked, saved={name: known[name][0] for name in names})


def freeze(job: Job, question_path: Path) -> None:
    """Freeze a question: members, attrition and, last, the run with its manifest. The heart of job ``select``.

    Freezing the same question on the same release again changes nothing.

    Raises
    ------
    ChecksFailedError
        Spark and the embedded reader disagree at some step, or what was written is not what was computed; `cohort_run` has no row.
    """
    asked = load(question_path)
    with duck.reader(job.zones) as connection:
        release = _release(connection, job.zones)
        asked = with_saved(connection, job.zones, asked, release)
        plan = asked.plan()
        run_id = cohort_run_id(asked, plan, release)
        done = _frozen_levels(connection, job.zones, run_id, plan)
        if done is not None:
            job.say(f"cohort {asked.question.id} is frozen already")
            _make_newest(job, asked.question.id, run_id)
            _report(job, asked, release, run_id, done, fresh=False)
            return
        job.say(f"asking release {release.name} of the embedded reader")
        counted = _count(connection, job.zones, asked, plan, release)
    job.say("asking it of Spark")
    with spark.flags(job, plan, release) as rows:
        computed = spark.answer(plan, rows)
        _agree(counted, computed)
        _write(job, asked, plan, release, run_id, computed, spark.members(plan, rows))
        if plan.columns or plan.pairs is not None or asked.question.split is not None:
            _write_outputs(job, release, run_id, spark.outputs(plan, rows))
    with duck.reader(job.zones) as connection:
        _verify(connection, job.zones, run_id, computed)
    _write_run(job, asked, plan, release, run_id, computed)
    _report(job, asked, release, run_id, computed.levels, fresh=True)


def cohort_run_id(asked: Asked, plan: Plan, release: Release) -> str:
    """Name of a freeze: a hash of everything its content depends on."""
    return fingerprint(
        asked.spec_sha256,
        *(f"{name}={codes.sha256}" for name, codes in sorted(asked.codes.items())),
        release.name,
        json.dumps(dict(release.versions), sort_keys=True),
        *(plan.sql(dialect) for dialect in DIALECTS),
    )[:32]


def _release(connection: "duckdb.DuckDBPyConnection", zones: Zones) -> Release:
    release = duck.newest_release(connection, zones)
    if release is None:
        raise InputError("nothing is published yet: run `pictures publish`, then ask again")
    return release


def _count(connection: "duckdb.DuckDBPyConnection", zones: Zones, asked: Asked, plan: Plan, release: Release) -> Answer:
    duck.pin(connection, zones, release, plan.tables)
    if "source_cover" in plan.tables:
        faults = check.not_held(asked.question, duck.kinds_held(connection)) or [
            f"step {name}: its window overlaps what the record sources cover for no {plan.unit} at all; check the window and the index"
            for name in duck.untouched(connection, plan)
        ]
        if faults:
            raise QuestionError(asked.source, faults)
    return duck.answer(connection, plan)


def _agree(counted: Answer, computed: Answer) -> None:
    for duck_level, spark_level in zip(counted.levels, computed.levels, strict=True):
        if duck_level != spark_level:
            raise ChecksFailedError(
                f"the engines disagree at step {duck_level.step_id}: the embedded reader keeps {duck_level.kept} units of "
                f"{duck_level.kept_patients} patients, Spark {spark_level.kept} of {spark_level.kept_patients}; nothing was frozen"
            )
    if counted.content_sha256 != computed.content_sha256:
        raise ChecksFailedError("the engines agree on the counts but not on the members; nothing was frozen")


def _write(job: Job, asked: Asked, plan: Plan, release: Release, run_id: str, found: Answer, members: "DataFrame") -> None:
    """Members and attrition, each once: a freeze that was interrupted finds its own rows and adds none."""
    from pyspark.sql import functions as F

    included = sum(1 << index for index, step in enumerate(plan.steps) if step.unknown == "include")
    tables.append(
        members.select(
            F.lit(run_id).alias("cohort_run_id"),
            "unit_id",
            "patient_id",
            "index_date",
            F.col("holds").bitwiseOR(F.col("unknowns").bitwiseAND(F.lit(included))).alias("steps"),
            F.lit(release.name).alias("release"),
            F.lit(job.run_id).alias("run_id"),
        ),
        job.zones,
        ZONE,
        "cohort_member",
        txn=run_id,
    )
    lines = [
        (run_id, x.index, x.step_id, x.sentence, x.kept, x.failed, x.unknown, x.kept_patients, release.name, job.run_id)
        for x in found.levels
    ]
    frame = job.spark.createDataFrame(lines, table(ZONE, "cohort_attrition").spark_type())
    tables.append(frame.coalesce(1), job.zones, ZONE, "cohort_attrition", txn=run_id)


def _write_outputs(job: Job, release: Release, run_id: str, outputs: "DataFrame") -> None:
    from pyspark.sql import functions as F

    rows = outputs.select(
        F.lit(run_id).alias("cohort_run_id"),
        "unit_id",
        "column",
        "value",
        F.lit(release.name).alias("release"),
        F.lit(job.run_id).alias("run_id"),
    )
    tables.append(rows, job.zones, ZONE, "cohort_output", txn=run_id)


def _write_run(job: Job, asked: Asked, plan: Plan, release: Release, run_id: str, found: Answer) -> None:
    question = asked.question
    row = {
        "cohort_run_id": run_id,
        "cohort_id": question.id,
        "spec_sha256": asked.spec_sha256,
        "spec": asked.spec,
        "unit": question.unit,
        "member_count": found.members,
        "patient_count": found.patients,
        "content_sha256": found.content_sha256,
        "manifest": json.dumps(manifest(job, asked, plan, release, run_id, found), sort_keys=True, ensure_ascii=False),
        "frozen": utc_now(),
        "release": release.name,
        "run_id": job.run_id,
    }
    declared = table(ZONE, "cohort_run")
    frame = job.spark.createDataFrame([tuple(row[name] for name in declared.names)], declared.spark_type())
    tables.append(frame, job.zones, ZONE, "cohort_run", txn=run_id)


def manifest(job: Job, asked: Asked, plan: Plan, release: Release, run_id: str, found: Answer) -> dict[str, Any]:
    """Everything that is needed to ask the same question again and to explain the answer; no identifier is in it."""
    from importlib.metadata import version

    return {
        "manifest": 1,
        "cohort_run_id": run_id,
        "cohort_id": asked.question.id,
        "spec_sha256": asked.spec_sha256,
        "codelists": {
            name: {"system": codes.system, "expand": codes.expand, "codes": list(codes.codes), "sha256": codes.sha256}
            | ({"version": codes.version} if codes.version else {})
            for name, codes in asked.codes.items()
        },
        "release": release.name,
        "table_versions": dict(release.versions),
        "versions": {
            "pictures_spark": __version__,
            "code": code_fingerprint(),
            "spark": job.spark.version,
            **{name: version(name) for name in ("delta-spark", "duckdb", "duckdb-extension-delta", "sqlglot")},
        },
        "sentence": sentence.whole(asked.question, asked.codes),
        "methods": sentence.methods(asked.question, asked.codes, release.name),
        "sql": {dialect: plan.sql(dialect) for dialect in DIALECTS},
        "counts": {"seen": found.seen, "members": found.members, "patients": found.patients},
        "attrition": [asdict(level) for level in found.levels],
        "content_sha256": found.content_sha256,
        "role": job.zones.role,
        "run_id": job.run_id,
    }


def _verify(connection: "duckdb.DuckDBPyConnection", zones: Zones, run_id: str, found: Answer) -> None:
    """Read back what was written: Delta adds nothing, without a word, under a transaction name that it has seen."""
    ids = duck.latest(connection, zones, "cohort_member").filter(f"cohort_run_id = '{run_id}'").project("unit_id").fetchall()
    levels = duck.latest(connection, zones, "cohort_attrition").filter(f"cohort_run_id = '{run_id}'").aggregate("count(*)").fetchone()
    if attrition.content_hash(row[0] for row in ids) != found.content_sha256 or levels != (len(found.levels),):
        raise ChecksFailedError("what was written of the cohort is not what was computed; nothing was frozen, run the same command again")


def _frozen_levels(connection: "duckdb.DuckDBPyConnection", zones: Zones, run_id: str, plan: Plan) -> tuple[Level, ...] | None:
    """The attrition of this very freeze, where it is complete."""
    if not duck.is_written(zones, "cohort_run"):
        return None
    mine = f"cohort_run_id = '{run_id}'"
    if not duck.latest(connection, zones, "cohort_run").filter(mine).fetchall():
        return None
    rows = duck.latest(connection, zones, "cohort_attrition").filter(mine).order("step_index")
    columns = "step_index, step_id, sentence, kept, failed, unknown, kept_patients"
    return tuple(Level(*row) for row in rows.project(columns).fetchall())


def _make_newest(job: Job, cohort_id: str, run_id: str) -> None:
    """Give an older freeze today's time, where its name was frozen with another question since: the last freeze is the one that counts."""
    from pyspark.sql import functions as F

    with duck.reader(job.zones) as connection:
        named = duck.latest(connection, job.zones, "cohort_run").filter(f"cohort_id = '{cohort_id}'")
        newest = named.order("frozen DESC, cohort_run_id DESC").project("cohort_run_id, frozen").fetchone()
    if newest is None or newest[0] == run_id:
        return
    # Times are whole seconds: one more than the last, so that two freezes in one second are still in order.
    later = max(utc_now(), newest[1] + timedelta(seconds=1))
    again = job.read(ZONE, "cohort_run").where(F.col("cohort_run_id") == run_id).withColumn("frozen", F.lit(later))
    tables.merge(again, job.zones, ZONE, "cohort_run")


def _report(job: Job, asked: Asked, release: Release, run_id: str, levels: tuple[Level, ...], fresh: bool) -> None:
    last = levels[-1]
    job.report.counts = {
        "seen": levels[0].kept,
        "written": last.kept if fresh else 0,
        "unchanged": 0 if fresh else last.kept,
        **attrition.skipped(levels),
    }
    job.report.tables = dict(release.versions)
    job.report.details |= {"cohort": asked.question.id, "cohort_run_id": run_id, "release": release.name, "patients": last.kept_patients}
    print("\n".join(attrition.lines(asked.question.unit, levels)))
