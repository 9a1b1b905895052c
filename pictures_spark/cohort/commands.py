"""``pictures cohort check | count | freeze``: read a question, say what it asks, answer it, keep the answer.

``check`` needs no data. ``count`` is answered by the embedded reader under the role counter. ``freeze`` runs under the role deidentified:
Spark computes the members, the embedded reader answers the same question apart, and nothing is written unless both agree at every step.

What is printed is exact for a reader who may see that (`pictures_spark.readers`), and through the disclosure gate for everybody else. Every
count and every freeze is an event of the audit chain before anything of it is printed.

The gate guards numbers that one person changes by one person. So everybody else is told of a match only how many are cases, as one case
brings its controls with it; nothing of a cohort that holds controls; and no refusal that hangs on whether there is anybody.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pictures_spark import __version__, audit, tables
from pictures_spark.cohort import attrition, check, codelists, duck, gate, sentence, shown, spark, tally, yaml_face
from pictures_spark.cohort.attrition import Answer, Level
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.compile import DIALECTS, Plan, Saved, compiled
from pictures_spark.cohort.duck import ZONE, Release
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.model import Member, Question, Step, last_acts, saved_cohorts
from pictures_spark.config import Config
from pictures_spark.errors import ChecksFailedError, ConfigError, InputError
from pictures_spark.job import Job, run_job
from pictures_spark.keys import fingerprint
from pictures_spark.readers import ANALYST, Reader
from pictures_spark.report import utc_now
from pictures_spark.resources import code_fingerprint
from pictures_spark.schema import table
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    import duckdb
    from pyspark.sql import DataFrame

_MAX_BYTES = 1 << 20
_CASES_ALONE = "  A line match counts cases alone: how many controls there are hangs on single cases."
# What a freeze leaves; one of an older format is frozen anew.
_FORMAT = 2


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


def run(action: str, question: str, config: Config, reader: Reader = ANALYST, by: Sequence[str] = ()) -> None:
    """Do what ``pictures cohort <action> FILE`` says and print the result.

    Parameters
    ----------
    by : one or two breakdowns of the people who are counted.

    Raises
    ------
    PicturesError
        The question cannot be asked, there is nothing to ask it of, or the answer failed its checks.
    """
    path = Path(question)
    if action == "freeze":
        run_job("select", config, "deidentified", lambda job: freeze(job, path, reader))
        return
    asked = load(path)
    if action == "count":
        wrong = sorted(set(by) - set(tally.breakdowns(asked.question.unit)))
        if wrong or len(by) > 2 or len(set(by)) < len(by):
            names = ", ".join(tally.breakdowns(asked.question.unit))
            raise ConfigError(f"a count is broken down by one or two of {names}, not by {', '.join(by)}")
        said = told(asked, Zones(config, "counter"), reader, by)
    print("\n".join(read_back(asked)))
    if action == "count":
        print("\n".join(["", *said]))


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
        plan = asked.plan()
        return _count(connection, zones, asked, plan, release, plan.tables)


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


def for_everybody(asked: Asked) -> Asked:
    """The question of which numbers may be told to whoever sees no exact ones: of a match only who is a case."""
    match = asked.question.match
    if match is None:
        return asked
    cases = Step("match", Member(match.cases, match.level))
    return replace(asked, question=replace(asked.question, steps=(*asked.question.steps, cases), match=None, sample=None, split=None))


def _refuse_controls(connection: "duckdb.DuckDBPyConnection", zones: Zones, asked: Asked) -> None:
    """Refuse a question about members of a cohort that was matched, or made of one that was.

    Raises
    ------
    QuestionError
        It asks for such members.
    """
    if not asked.saved:
        return
    runs = duck.latest(connection, zones, "cohort_run").project("cohort_run_id, spec, manifest").fetchall()
    known = {run_id: (spec, json.loads(manifest)) for run_id, spec, manifest in runs}

    def holds_controls(run_id: str) -> bool:
        if run_id not in known:
            return True
        spec, manifest = known[run_id]
        question, _ = yaml_face.read(spec)
        made_of = [one["run_id"] for one in manifest.get("saved", {}).values()]
        return question is None or question.match is not None or any(map(holds_controls, made_of))

    faults = [
        f"cohort {name} holds controls, and how many hangs on single cases: only a reader of exact counts may ask for its members"
        for name, one in asked.saved.items()
        if holds_controls(one.run_id)
    ]
    if faults:
        raise QuestionError(asked.source, faults)


def told(asked: Asked, zones: Zones, reader: Reader, by: Sequence[str] = ()) -> list[str]:
    """The printed attrition of a question, and its breakdown, as the reader may see them; an event of the audit chain.

    Raises
    ------
    PicturesError
        As for `count`.
    """
    with duck.reader(zones) as connection:
        release = _release(connection, zones)
        asked = with_saved(connection, zones, asked, release)
        if not reader.exact:
            _refuse_controls(connection, zones, asked)
        plan = (asked if reader.exact else for_everybody(asked)).plan()
        found = _count(connection, zones, asked, plan, release, tally.tables(plan) if by else plan.tables, reader.exact)
        lines, counts = _as_told(connection, zones, asked, plan, found, reader, by)
    audited(zones, "count", asked, release, reader, counts)
    return lines


def _as_told(
    connection: "duckdb.DuckDBPyConnection",
    zones: Zones,
    asked: Asked,
    plan: Plan,
    found: Answer,
    reader: Reader,
    by: Sequence[str] = (),
) -> tuple[list[str], dict[str, int | None]]:
    """Lines to print and counts to audit. Needs the plan's rows in the embedded reader, as `flags`, and of breakdowns `shown`."""
    unit = asked.question.unit
    values = [tally.values_sql(unit, name, "flags") for name in by]
    if reader.exact:
        lines = attrition.lines(unit, found.levels)
        for breakdown, cells in zip(asked.question.breakdowns, found.cells, strict=True):
            lines += ["", *attrition.cell_lines(unit, breakdown.by, cells)]
        if by:
            # Names that only this process knows: nothing is kept of them.
            lines += ["", *shown.crossed(None, plan, _people(connection, plan, b"", values), by)]
        return lines, {"units": found.members, "patients": found.patients}
    with gate.Ledger(zones, reader.project) as gated:
        rows = shown.rows(gated, plan, _people(connection, plan, gated.key))
        lines = shown.lines(unit, rows)
        for breakdown, keys in zip(asked.question.breakdowns, plan.keys, strict=True):
            columns = [f"SELECT unit_id, CAST({key} AS VARCHAR) AS value FROM shown" for key in keys]
            lines += ["", *shown.crossed(gated, plan, _people(connection, plan, gated.key, columns), breakdown.by)]
        if by:
            lines += ["", *shown.crossed(gated, plan, _people(connection, plan, gated.key, values), by)]
    more = [_CASES_ALONE] if asked.question.match is not None else []
    return [*lines, "", *more, shown.note()], shown.audited(rows)


def _people(connection: "duckdb.DuckDBPyConnection", plan: Plan, key: bytes, values: Sequence[str] = ()) -> shown.People:
    found = connection.execute(tally.persons_sql(plan, "flags", values)).fetchnumpy()
    columns = tuple(np.asarray(found[f"value_{i}"], object) for i in range(len(values)))
    passed, unknowns, n = (np.asarray(found[name], np.int64) for name in ("passed", "unknowns", "n"))
    persons = gate.keyed_names(key, np.asarray(found["subject"], object))
    return shown.People(persons, np.asarray(found["linked"], bool), passed, unknowns, n, columns)


def audited(
    zones: Zones, action: str, asked: Asked, release: Release, reader: Reader, counts: Mapping[str, Any], **more: Any
) -> audit.Head:
    """Add to the audit chain that a reader was shown these counts of a question."""
    return audit.record(
        zones,
        action,
        reader=reader.role,
        purpose=reader.purpose,
        project=reader.project,
        cohort=asked.question.id,
        question=asked.spec_sha256,
        release=release.name,
        shown="exact" if reader.exact else gate.policy().name,
        counts=dict(counts),
        **more,
    )


def freeze(job: Job, question_path: Path, reader: Reader = ANALYST) -> None:
    """Freeze a question: members, flags, attrition, breakdowns and, last, the run with its manifest. The heart of job ``select``.

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
        if not reader.exact:
            _refuse_controls(connection, job.zones, asked)
        plan = asked.plan()
        run_id = cohort_run_id(asked, plan, release)
        done = _frozen_levels(connection, job.zones, run_id, plan)
        job.say(f"cohort {asked.question.id} is frozen already" if done else f"asking release {release.name} of the embedded reader")
        counted = Answer(done, "") if done else None
        if counted is None or asked.question.breakdowns or not reader.exact:
            counted = _count(connection, job.zones, asked, plan, release, tally.tables(plan), reader.exact)
        public = plan if reader.exact or asked.question.match is None else for_everybody(asked).plan()
        if public is not plan:
            duck.answer(connection, public)
        said, counts = _as_told(connection, job.zones, asked, public, counted, reader)
        if public is not plan:
            duck.answer(connection, plan)
        if done is None:
            duck_counts = tally.counts(plan, "flags", lambda sql: connection.execute(sql).fetchall())
            parts = tally.parts(plan, "flags", lambda sql: connection.execute(sql).fetchall())
    if done is None:
        job.say("asking it of Spark")
        with spark.flags(job, plan, release, tally.tables(plan)) as rows:
            spark_counts = spark.counts(plan, rows)
            computed = spark.answer(plan, rows, spark_counts)
            try:
                _agree(counted, computed)
                _agree_at_all_levels(plan, duck_counts, spark_counts)
            except ChecksFailedError:
                if reader.exact:
                    raise
                raise ChecksFailedError("the engines disagree; nothing was frozen: a data manager who freezes it is told where") from None
            frozen = Frozen(run_id, release, plan, computed, spark_counts, parts)
            _write(job, frozen, rows)
            if plan.columns or plan.pairs is not None or asked.question.split is not None:
                _write_outputs(job, release, run_id, spark.outputs(plan, rows))
        with duck.reader(job.zones) as connection:
            _verify(connection, job.zones, frozen)
    else:
        _make_newest(job, asked.question.id, run_id)
    head = audited(job.zones, "freeze", asked, release, reader, counts, cohort_run_id=run_id, again=True if done else None)
    if done is None:
        _write_run(job, asked, frozen, reader, head)
    job.report.details["audit"] = str(head)
    _report(job, asked, release, run_id, done or computed.levels, said, reader, fresh=done is None)


@dataclass(frozen=True)
class Frozen:
    """What a freeze found, before it is written."""

    run_id: str
    release: Release
    plan: Plan
    answer: Answer
    counts: tuple[tally.Count, ...]
    parts: tuple[tally.Part, ...]


def cohort_run_id(asked: Asked, plan: Plan, release: Release) -> str:
    """Name of a freeze: a hash of everything its content depends on."""
    return fingerprint(
        str(_FORMAT),
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


def _count(
    connection: "duckdb.DuckDBPyConnection",
    zones: Zones,
    asked: Asked,
    plan: Plan,
    release: Release,
    names: tuple[str, ...],
    exact: bool = True,
) -> Answer:
    duck.pin(connection, zones, release, names)
    if "source_cover" in plan.tables:
        faults = check.not_held(asked.question, duck.kinds_held(connection))
        if exact and not faults:
            faults = [check.untouched(step_id, plan.unit) for step_id in duck.untouched(connection, plan)]
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


def _agree_at_all_levels(plan: Plan, counted: tuple[tally.Count, ...], computed: tuple[tally.Count, ...]) -> None:
    for one, other in zip(counted, computed, strict=True):
        if one != other:
            raise ChecksFailedError(
                f"the engines disagree at step {plan.steps[one.step_index].id} on the level {one.level}: the embedded reader keeps "
                f"{one.kept} and does not know of {one.unknown}, Spark {other.kept} and {other.unknown}; nothing was frozen"
            )


def _write(job: Job, frozen: Frozen, rows: "DataFrame") -> None:
    """Everything but the run, each table once: a freeze that was interrupted finds its own rows and adds none."""
    from pyspark.sql import functions as F

    plan, name, run_id = frozen.plan, frozen.release.name, frozen.run_id
    included = sum(1 << index for index, step in enumerate(plan.steps) if step.unknown == "include")
    ours = [F.lit(name).alias("release"), F.lit(job.run_id).alias("run_id")]
    members = spark.members(plan, rows).select(
        F.lit(run_id).alias("cohort_run_id"),
        "unit_id",
        "patient_id",
        "index_date",
        F.col("holds").bitwiseOR(F.col("unknowns").bitwiseAND(F.lit(included))).alias("steps"),
        *ours,
    )
    flags = rows.select(F.lit(run_id).alias("cohort_run_id"), "unit_id", "holds", "unknowns", "passed", *ours)
    levels = [(run_id, x.index, x.step_id, x.sentence, x.kept, x.failed, x.unknown, x.kept_patients) for x in frozen.answer.levels]
    counts = [(run_id, x.step_index, x.level, x.kept, x.failed, x.unknown) for x in frozen.counts]
    parts = [(run_id, x.breakdown, x.value, x.units, x.patients) for x in frozen.parts]
    frames = {"cohort_member": members, "cohort_flag": flags}
    for target, made in (("cohort_attrition", levels), ("cohort_level", counts), ("cohort_breakdown", parts)):
        rows_of = job.spark.createDataFrame([(*row, name, job.run_id) for row in made], table(ZONE, target).spark_type())
        frames[target] = rows_of.coalesce(1)
    # A commit is waiting for the most part: all at once take as long as the longest.
    with ThreadPoolExecutor(len(frames)) as pool:
        list(pool.map(lambda target: tables.append(frames[target], job.zones, ZONE, target, txn=run_id), frames))


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


def _write_run(job: Job, asked: Asked, frozen: Frozen, reader: Reader, head: audit.Head) -> None:
    question, found = asked.question, frozen.answer
    now = utc_now()
    said = manifest(job, asked, frozen) | {"frozen": now.isoformat(), "by": reader.role, "purpose": reader.purpose, "audit": str(head)}
    row = {
        "cohort_run_id": frozen.run_id,
        "cohort_id": question.id,
        "spec_sha256": asked.spec_sha256,
        "spec": asked.spec,
        "unit": question.unit,
        "member_count": found.members,
        "patient_count": found.patients,
        "content_sha256": found.content_sha256,
        "manifest": json.dumps(said, sort_keys=True, ensure_ascii=False),
        "frozen": now,
        "release": frozen.release.name,
        "run_id": job.run_id,
    }
    declared = table(ZONE, "cohort_run")
    frame = job.spark.createDataFrame([tuple(row[name] for name in declared.names)], declared.spark_type())
    tables.append(frame, job.zones, ZONE, "cohort_run", txn=frozen.run_id)


def manifest(job: Job, asked: Asked, frozen: Frozen) -> dict[str, Any]:
    """Everything that is needed to ask the same question again and to explain the answer; no identifier is in it."""
    from importlib.metadata import version

    plan, found = frozen.plan, frozen.answer
    return {
        "manifest": _FORMAT,
        "cohort_run_id": frozen.run_id,
        "cohort_id": asked.question.id,
        "spec": asked.spec,
        "spec_sha256": asked.spec_sha256,
        "codelists": {
            name: {"system": codes.system, "expand": codes.expand, "codes": list(codes.codes), "sha256": codes.sha256}
            | ({"version": codes.version} if codes.version else {})
            for name, codes in asked.codes.items()
        },
        "release": frozen.release.name,
        "saved": {name: asdict(one) for name, one in asked.saved.items()},
        "table_versions": dict(frozen.release.versions),
        "versions": {
            "pictures_spark": __version__,
            "code": code_fingerprint(),
            "spark": job.spark.version,
            **{name: version(name) for name in ("delta-spark", "duckdb", "duckdb-extension-delta", "sqlglot")},
        },
        "key_id": job.config["keys"]["key_id"],
        "seeds": {act: seed for act in last_acts(asked.question) if (seed := getattr(getattr(asked.question, act), "seed", None))},
        "sentence": sentence.whole(asked.question, asked.codes),
        "methods": sentence.methods(asked.question, asked.codes, frozen.release.name),
        "sql": {dialect: plan.sql(dialect) for dialect in DIALECTS},
        "counts": {"seen": found.seen, "members": found.members, "patients": found.patients},
        "attrition": [asdict(level) for level in found.levels],
        "levels": [asdict(count) for count in frozen.counts],
        "breakdowns": [asdict(part) for part in frozen.parts],
        "content_sha256": found.content_sha256,
        "who": audit.account(),
        "role": job.zones.role,
        "run_id": job.run_id,
    }


def _verify(connection: "duckdb.DuckDBPyConnection", zones: Zones, frozen: Frozen) -> None:
    """Read back what was written: Delta adds nothing, without a word, under a transaction name that it has seen."""
    mine = f"cohort_run_id = '{frozen.run_id}'"
    ids = duck.latest(connection, zones, "cohort_member").filter(mine).project("unit_id").fetchall()
    wanted = {
        "cohort_flag": frozen.answer.seen,
        "cohort_attrition": len(frozen.answer.levels),
        "cohort_level": len(frozen.counts),
        "cohort_breakdown": len(frozen.parts),
    }
    there = {name: duck.latest(connection, zones, name).filter(mine).aggregate("count(*)").fetchone() for name in wanted}
    if attrition.content_hash(row[0] for row in ids) != frozen.answer.content_sha256 or there != {name: (n,) for name, n in wanted.items()}:
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


def _report(
    job: Job, asked: Asked, release: Release, run_id: str, levels: tuple[Level, ...], said: list[str], reader: Reader, fresh: bool
) -> None:
    job.report.tables = dict(release.versions)
    job.report.details |= {"cohort": asked.question.id, "cohort_run_id": run_id, "release": release.name}
    if reader.exact:
        # A report is read by others than whoever froze: its counts are exact only for those who may see them.
        last = levels[-1]
        job.report.counts = {
            "seen": levels[0].kept,
            "written": last.kept if fresh else 0,
            "unchanged": 0 if fresh else last.kept,
            **attrition.skipped(levels),
        }
        job.report.details["patients"] = last.kept_patients
    print("\n".join(said))
