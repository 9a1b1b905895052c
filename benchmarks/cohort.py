"""Cohorts at the scale of NCI's Imaging Data Commons: facets, a cohort from scratch, edits of it, its freeze.

    python benchmarks/cohort.py [--conf FILE] [--edits 200] [--growth | --only-growth]

The data are the 1,044,191 real series of `pictures import-idc` (package idc-index-data, extra ``idc``) and ten million drawn events, made
below .cache once. ``--conf`` names the settings of a house that has them already. ``--growth`` also asks ten copies of it, with people of
their own (benchmarks/tenfold.py: 5 GB below .cache, and 8 GB of memory).

cohort_facet_ms        a column counted by the held release; the peer is the same count by DuckDB on the Delta table.
cohort_scratch_ms      six steps and a pick with no answer known, tables held; the peer is hand-written SQL on the Delta tables.
cohort_scratch_vs_sql  the plan, as `pictures cohort count` asks it, against hand-written SQL for the same attrition at four levels with
                       unknowns: both on a new connection to the same pinned Delta tables, nothing held. Both must agree.
cohort_edit_ms, _p95   seeded edits: every kind of step that these tables can answer, code list, window, index, unit, policy and pick, none
                       asked before; each is compared with the same question asked of a second held release that knows no answer. The peer
                       is asking from scratch.
cohort_freeze_cold_s   the start of a Spark session, and in it the first time of what follows.
cohort_freeze_warm_s   Spark computes the rows of the same cohort as a freeze does, all of them kept, session and code warm; the peer is the
                       hand-written SQL on Spark, of which nothing is kept.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import measure
from tenfold import grown

from pictures_spark.cohort import commands, duck, live, tally
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.model import (
    EVER,
    AnyOf,
    Chain,
    Change,
    Cover,
    Events,
    First,
    Gap,
    Has,
    Lacks,
    Last,
    Nearest,
    NoneOf,
    Pick,
    Question,
    Related,
    Stay,
    Step,
    Test,
    Where,
    Window,
)
from pictures_spark.config import load_config
from pictures_spark.zones import Zones

FOLDER = Path(__file__).parent.parent / ".cache" / "idc"
QUESTION = """
cohort: 1
id: six-steps
unit: series
index: scan_date
population: alive_and_resident
codelists:
  anticoagulants: {system: bnf, codes: ["020802"]}
  stroke: {system: icd10, codes: [I61, I62, I63, I64]}
steps:
  - {id: ct, where: {modality: CT}}
  - {id: thin, where: {slice_thickness_max: {le: 3}, orientation: AXIAL, image_kind: ORIGINAL}}
  - {id: plain, where: {contrast: "no"}, unknown: include}
  - {id: age, where: {age_at: {between: [50, 80]}}}
  - {id: on_drug, has: {event: dispensing, codes: anticoagulants, window: [-730d, -1d]}, unknown: include}
  - {id: first_stroke, first: {event: [diagnosis, death_cause], codes: stroke, ever: true, window: [0d, 365d]}, unknown: include}
pick: {one_per: patient, order: [scan_date, -image_count, series_id]}
"""
# Code lists that an edit puts in the place of the one that is named first.
OTHER_CODES = {
    "lipid_drugs": ("anticoagulants", ("0212",)),
    "antiplatelets": ("anticoagulants", ("0209",)),
    "diabetes_drugs": ("anticoagulants", ("060101", "060102")),
    "ischaemic": ("stroke", ("I63", "I64")),
    "heart": ("stroke", ("I21", "I48", "I50")),
    "cancer": ("stroke", tuple(f"C{number}" for number in range(15, 40))),
}
FACETS = ("modality", "body_region", "manufacturer_norm", "contrast", "orientation", "sex")
LEVELS = {"patient": "patient_id", "study": "study_id", "series": "series_id"}


def main() -> None:
    """Make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conf", type=Path, help="settings of a house that `pictures import-idc` has filled")
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--growth", action="store_true", help="also ask a house with ten times as much")
    parser.add_argument("--only-growth", action="store_true", help="ask for edits only, of this house and of one with ten times as much")
    arguments = parser.parse_args()
    settings = arguments.conf or made(FOLDER)
    config = load_config(settings)
    zones = Zones(config, "counter")
    question_file = FOLDER / "six-steps.yaml"
    question_file.parent.mkdir(parents=True, exist_ok=True)
    question_file.write_text(QUESTION)
    asked = commands.load(question_file)
    if not arguments.only_growth:
        with live.opened(zones) as held, live.opened(zones) as other:
            size = held.ask(asked.question, asked.codes).levels[0].kept
            scratch(zones, held, asked, size)
            facets(zones, held, size)
            edits(held, other, asked, arguments.edits, size)
        freeze(config, asked, size)
    if arguments.growth or arguments.only_growth:
        growth(settings, asked)


def growth(settings: Path, asked: commands.Asked) -> None:
    """The same edits of a house and of one with ten times as many people, one after the other in memory."""
    taken, sizes = {}, {}
    codes = asked.codes | other_codes(asked.codes)
    for times, of in ((1, settings), (10, grown(settings, FOLDER / "tenfold"))):
        with live.opened(Zones(load_config(of), "counter")) as held:
            sizes[times] = held.ask(asked.question, asked.codes).levels[0].kept
            each = [timed(lambda one=one, held=held: held.ask(one, codes))[0] for one in edited(asked.question, 40)]
            taken[times] = statistics.median(each) * 1000
    assert sizes[10] == 10 * sizes[1]
    print(measure.line("cohort_growth", taken[10], taken[1], "a tenth of the series and events", "ms", sizes[10]), flush=True)


def made(folder: Path) -> Path:
    """Settings of a house with the index, filled if it is not."""
    settings = folder / "conf.yaml"
    if not settings.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shipped = (Path(__file__).parent.parent / "conf" / "local.yaml").read_text()
        settings.write_text(shipped.replace("home: ../data", "home: house"))
        subprocess.run(
            [sys.executable, "-m", "pictures_spark.cli", "import-idc", "--conf-file", str(settings)], check=True, stdout=sys.stderr.fileno()
        )
    return settings


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def facets(zones: Zones, held: live.Live, size: int) -> None:
    """A facet of the held release against plain SQL, whose counts must be the same."""
    ours, theirs = [], []
    with duck.reader(zones) as connection:
        release = duck.newest_release(connection, zones)
        assert release is not None
        duck.pin(connection, zones, release, ("series", "patient"))
        for column in FACETS:
            value = f"unnest(CASE WHEN len({column}) > 0 THEN {column} ELSE [NULL] END)" if column == "body_region" else column
            join = "LEFT JOIN deidentified_patient USING (patient_id)" if column == "sex" else ""
            rows = f"SELECT {value} AS value, patient_id FROM deidentified_series {join}"
            sql = f"SELECT value, count(*), count(DISTINCT patient_id) FROM ({rows}) GROUP BY value ORDER BY 2 DESC, value"

            def mine(column: str = column) -> Any:
                return held.facet("series", column)

            def plain(sql: str = sql) -> Any:
                return connection.execute(sql).fetchall()

            assert mine() == plain()
            for _ in range(measure.ROUNDS):
                ours.append(timed(mine)[0])
                theirs.append(timed(plain)[0])
    print(
        measure.line("cohort_facet_ms", statistics.median(ours) * 1000, statistics.median(theirs) * 1000, "DuckDB on Delta", "ms", size),
        flush=True,
    )


def scratch(zones: Zones, held: live.Live, asked: commands.Asked, size: int) -> None:
    """From nothing known: with the tables held, and on new connections to the published tables."""

    def from_held() -> Any:
        held.forget()
        return held.ask(asked.question, asked.codes)

    def connected(work: Callable[[duckdb.DuckDBPyConnection], Any]) -> Any:
        with duck.reader(zones) as connection:
            release = duck.newest_release(connection, zones)
            assert release is not None
            duck.pin(connection, zones, release, tally.tables(plan))
            return work(connection)

    def by_plan(connection: duckdb.DuckDBPyConnection) -> Any:
        answer = duck.answer(connection, asked.plan())
        counts = tally.counts(plan, "flags", lambda sql: connection.execute(sql).fetchall())
        return answer.levels[-1].kept, [(count.kept, count.unknown) for count in counts]

    plan = asked.plan()
    assert connected(by_plan) == connected(by_hand)
    ours, held_seconds, theirs = measure.medians([lambda: connected(by_plan), from_held, lambda: connected(by_hand)])
    name = "hand-written SQL on Delta"
    print(measure.line("cohort_scratch_ms", held_seconds * 1000, theirs * 1000, name, "ms", size), flush=True)
    print(measure.line("cohort_scratch_vs_sql", ours * 1000, theirs * 1000, name, "ms", size), flush=True)


def by_hand(connection: duckdb.DuckDBPyConnection) -> Any:
    """The six steps as somebody who knows the tables would write them: what is cheap first, records only of those who are left."""
    return answered(list(hand_written()), connection.execute)


def hand_written() -> Iterator[str]:
    """Statements that leave table ``done``: a row per series with an answer per step (null is unknown) and ``passed``."""
    yield """
    CREATE OR REPLACE TEMPORARY {table} spell AS SELECT patient_id, min(f) AS f, max(t) AS t FROM (
      SELECT patient_id, f, t, sum(o) OVER (PARTITION BY patient_id ORDER BY f, t ROWS UNBOUNDED PRECEDING) AS g FROM (
        SELECT patient_id, f, t, CASE WHEN f <= max(t) OVER (
          PARTITION BY patient_id ORDER BY f, t ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + 1 THEN 0 ELSE 1 END AS o
        FROM (SELECT patient_id, {from_day} AS f, coalesce({to_day}, 2932896) AS t FROM deidentified_residence) WHERE f <= t))
    GROUP BY patient_id, g"""
    yield """
    CREATE OR REPLACE TEMPORARY {table} base AS SELECT series_id, study_id, s.patient_id, image_count, {scan_day} AS d, b, dd,
      CASE WHEN s.patient_id IS NULL THEN false WHEN scan_date IS NULL THEN NULL WHEN dd < {scan_day} OR b > {scan_day} THEN false
        ELSE EXISTS (SELECT 1 FROM spell WHERE spell.patient_id = s.patient_id AND f <= {scan_day} AND t >= {scan_day}) END AS a1,
      modality = 'CT' AS a2, slice_thickness_max <= 3 AND NULLIF(orientation, 'unknown') = 'AXIAL'
        AND NULLIF(image_kind, 'unknown') = 'ORIGINAL' AS a3,
      NULLIF(contrast, 'unknown') = 'no' AS a4, age_years >= 50 AND age_years <= 80 AS a5
    FROM deidentified_series AS s LEFT JOIN (SELECT patient_id, {death_day} AS dd, {birth_day} AS b FROM deidentified_patient) AS p
      ON p.patient_id = s.patient_id"""
    yield """
    CREATE OR REPLACE TEMPORARY {table} left5 AS SELECT series_id, patient_id, d, b, dd FROM base
    WHERE a1 AND a2 AND a3 AND coalesce(a4, true) AND a5"""
    # Ranges of codes, by which a reader of Parquet leaves out most rows of events that stand in their order.
    for place, kinds, system, codes, low, high in (
        (6, "'dispensing'", "bnf", "code >= '020802' AND code < '020803'", "d - 730", "d - 1"),
        (7, "'diagnosis', 'death_cause'", "icd10", "code >= 'I61' AND code < 'I65'", "d", "d + 365"),
    ):
        held = " OR ".join(f"{{contains}}(kinds, {kind.strip()})" for kind in kinds.split(","))
        lived = f"SELECT *, CASE WHEN b > {low} THEN b ELSE {low} END AS lo, CASE WHEN dd < {high} THEN dd ELSE {high} END AS hi FROM left5"
        if place == 6:
            found = f"max(CASE WHEN e.day >= {low} AND e.day <= {high} THEN 1 ELSE 0 END) = 1"
            answer = "CASE WHEN found THEN true WHEN observed THEN false END"
        else:
            found = "min(e.day)"
            answer = f"CASE WHEN found < {low} THEN false WHEN found >= {low} AND found <= {high} THEN true WHEN observed THEN false END"
        yield f"""
        CREATE OR REPLACE TEMPORARY {{table}} step{place} AS
        WITH cover AS (SELECT max({{cover_from}}) AS f, min({{cover_to}} - coalesce(lag_days, 0)) AS t
          FROM deidentified_source_cover WHERE {held}),
        event AS (SELECT patient_id, {{event_day}} AS day FROM deidentified_event WHERE kind IN ({kinds}) AND system = '{system}'
          AND {codes}),
        seen AS (SELECT l.series_id, {found} AS found FROM left5 AS l JOIN event AS e ON e.patient_id = l.patient_id GROUP BY l.series_id),
        watched AS (SELECT l.series_id, max(CASE WHEN lo > hi OR (lo >= cover.f AND hi <= cover.t AND spell.f <= lo AND spell.t >= hi)
          THEN 1 ELSE 0 END) = 1 AS observed
          FROM ({lived}) AS l CROSS JOIN cover LEFT JOIN spell ON spell.patient_id = l.patient_id GROUP BY l.series_id)
        SELECT l.series_id, {answer} AS a{place} FROM left5 AS l LEFT JOIN seen ON seen.series_id = l.series_id
        LEFT JOIN watched ON watched.series_id = l.series_id"""
    yield """
    CREATE OR REPLACE TEMPORARY {table} done AS SELECT *, CASE WHEN passed = 7 AND row_number() OVER (
        PARTITION BY patient_id, passed ORDER BY d IS NULL, d, image_count IS NULL, image_count DESC, series_id) = 1
        THEN 8 ELSE passed END AS last
    FROM (SELECT base.*, a6, a7, CASE WHEN NOT coalesce(a1, false) THEN 0 WHEN NOT coalesce(a2, false) THEN 1
        WHEN NOT coalesce(a3, false) THEN 2
        WHEN NOT coalesce(a4, true) THEN 3 WHEN NOT coalesce(a5, false) THEN 4 WHEN NOT coalesce(a6, true) THEN 5
        WHEN NOT coalesce(a7, true) THEN 6 ELSE 7 END AS passed
      FROM base LEFT JOIN step6 ON step6.series_id = base.series_id LEFT JOIN step7 ON step7.series_id = base.series_id) AS judged"""


DUCKDB = {
    "table": "TABLE",
    "from_day": "(from_date - DATE '1970-01-01')",
    "to_day": "(to_date - DATE '1970-01-01')",
    "scan_day": "(scan_date - DATE '1970-01-01')",
    "death_day": "(death_date - DATE '1970-01-01')",
    "birth_day": "(TRY_CAST(birth_month || '-01' AS DATE) - DATE '1970-01-01')",
    "cover_from": "(from_date - DATE '1970-01-01')",
    "cover_to": "(to_date - DATE '1970-01-01')",
    "event_day": "(date - DATE '1970-01-01')",
    "contains": "list_contains",
}
SPARK = {
    "table": "VIEW",
    **{
        name: f"datediff({column}, DATE '1970-01-01')"
        for name, column in (
            *(("from_day", "from_date"), ("to_day", "to_date"), ("scan_day", "scan_date"), ("death_day", "death_date")),
            *(("birth_day", "try_cast(concat(birth_month, '-01') AS DATE)"), ("cover_from", "from_date"), ("cover_to", "to_date")),
            ("event_day", "date"),
        )
    },
    "contains": "array_contains",
}


def answered(statements: list[str], execute: Callable[[str], Any]) -> Any:
    """Members, and for each step and level how many are kept and how many are unknown; by DuckDB."""
    for statement in statements:
        execute(statement.format(**DUCKDB))
    found: dict[str, list[tuple[int, int]]] = {}
    steps = range(9)
    for level, key in LEVELS.items():
        if level == "series":
            kept = [f"sum((last >= {i})::INTEGER)" for i in steps]
            unknown = ["0", *(f"sum((last >= {i - 1} AND a{i} IS NULL)::INTEGER)" for i in range(1, 8)), "0"]
            row = execute(f"SELECT {', '.join(kept + unknown)} FROM done").fetchone()
        else:
            some = ", ".join(
                f"max((last >= {i - 1} AND a{i} IS NULL)::INTEGER) AS u{i}, "
                f"max((last >= {i - 1} AND coalesce(a{i}, false))::INTEGER) AS y{i}"
                for i in range(1, 8)
            )
            kept = [f"sum((last >= {i})::INTEGER)" for i in steps]
            unknown = ["0", *(f"sum((u{i} = 1 AND y{i} = 0)::INTEGER)" for i in range(1, 8)), "0"]
            groups = f"SELECT max(last) AS last, {some} FROM done WHERE {key} IS NOT NULL GROUP BY {key}"
            row = execute(f"SELECT {', '.join(kept + unknown)} FROM ({groups})").fetchone()
        found[level] = list(zip(row[:9], row[9:], strict=True))
    kept = [f"coalesce(sum(CASE WHEN last >= {i} THEN image_count END), 0)::BIGINT" for i in steps]
    unknown = [
        "0",
        *(f"coalesce(sum(CASE WHEN last >= {i - 1} AND a{i} IS NULL THEN image_count END), 0)::BIGINT" for i in range(1, 8)),
        "0",
    ]
    row = execute(f"SELECT {', '.join(kept + unknown)} FROM done").fetchone()
    found["image"] = list(zip(row[:9], row[9:], strict=True))
    by_step = [tuple(map(int, found[level][i])) for i in steps for level in ("patient", "study", "series", "image")]
    return found["series"][-1][0], by_step


def edits(held: live.Live, other: live.Live, asked: commands.Asked, number: int, size: int) -> float:
    """Seeded edits, one after the other; returns the median in ms."""
    codes = asked.codes | other_codes(asked.codes)
    held.ask(asked.question, codes)
    ours, theirs = [], []
    for one in edited(asked.question, number):
        seconds, found = timed(lambda one=one: held.ask(one, codes))
        ours.append(seconds * 1000)
        other.forget()
        seconds, again = timed(lambda one=one: other.ask(one, codes))
        theirs.append(seconds * 1000)
        assert found.levels == again.levels
        assert (found.numbers == again.numbers).all()
    ours, theirs = sorted(ours), sorted(theirs)
    last = -(-len(ours) * 95 // 100) - 1
    print(
        measure.line("cohort_edit_ms", statistics.median(ours), statistics.median(theirs), "from scratch, tables held", "ms", size),
        flush=True,
    )
    print(measure.line("cohort_edit_p95_ms", ours[last], theirs[last], "from scratch, tables held", "ms", size), flush=True)
    return statistics.median(ours)


def other_codes(codes: dict[str, Codes]) -> dict[str, Codes]:
    """The lists of `OTHER_CODES`."""
    return {name: replace(codes[like], name=name, codes=found) for name, (like, found) in OTHER_CODES.items()}


def edited(question: Question, number: int) -> Iterator[Question]:
    """Edits of a question, each of one thing, none twice."""
    chance, seen = Random(20261130), {question}
    kinds = [_where, _thin, _age, _events, _codes, _other_step, _unknown, _pick, _population, _index, _unit, _other_step]
    at = 0
    while len(seen) <= number:
        one = kinds[at % len(kinds)](question, chance)
        at += 1
        if one not in seen:
            seen.add(one)
            yield one


def _step(question: Question, at: int, **changes: Any) -> Question:
    steps = list(question.steps)
    steps[at] = replace(steps[at], **changes)
    return replace(question, steps=tuple(steps))


def _where(question: Question, chance: Random) -> Question:
    tests = [Test("modality", "in", tuple(chance.sample(["CT", "MR", "PT", "CR", "DX", "MG", "US", "NM"], chance.randint(1, 4))))]
    if chance.random() < 0.5:
        tests.append(Test("body_region", "eq", (chance.choice(["HEAD", "CHEST", "ABDOMEN", "BREAST", "PELVIS"]),)))
    return _step(question, 0, predicate=Where(tuple(tests)))


def _thin(question: Question, chance: Random) -> Question:
    thickness = Test("slice_thickness_max", chance.choice(["le", "lt", "gt"]), (round(chance.uniform(0.5, 6), 2),))
    return _step(question, 1, predicate=Where((thickness, *question.steps[1].predicate.tests[1:])))


def _age(question: Question, chance: Random) -> Question:
    low = chance.randint(0, 80)
    return _step(question, 3, predicate=Where((Test("age_at", "between", (low, low + chance.randint(1, 40))),)))


def _window(chance: Random) -> Window:
    low = chance.randint(-1500, 300)
    return Window(low, low + chance.randint(0, 900))


def _events(question: Question, chance: Random) -> Question:
    at = chance.choice([4, 5])
    events = replace(question.steps[at].predicate.events, window=_window(chance), at_least=1)
    shapes = [Has(events), First(events), Last(events), Has(replace(events, at_least=2)), Chain(replace(events, at_least=2), Window(1, 90))]
    return _step(question, at, predicate=chance.choice(shapes))


def _codes(question: Question, chance: Random) -> Question:
    at = chance.choice([4, 5])
    events = question.steps[at].predicate.events
    name = chance.choice([name for name, (like, _) in OTHER_CODES.items() if like in events.codes])
    return _step(
        question, at, predicate=replace(question.steps[at].predicate, events=replace(events, codes=(name,), window=_window(chance)))
    )


def _other_step(question: Question, chance: Random) -> Question:
    scan = Where((Test("modality", "eq", (chance.choice(["MR", "PT", "CT"]),)),))
    value = Events(("lab",), (), _window(chance))
    new: list[Any] = [
        Lacks(Events(("dispensing",), (chance.choice(list(OTHER_CODES)[:3]),), _window(chance))),
        Cover(Events(("dispensing",), (), _window(chance))),
        Stay((Events(("diagnosis",), (chance.choice(list(OTHER_CODES)[3:]),), EVER),), begins=_window(chance)),
        Nearest(Related("series", "patient", scan, _window(chance)), then=Where((Test("image_count", "ge", (chance.randint(1, 200),)),))),
        Nearest(value, chance.choice(["nearest", "earliest", "latest"]), Where((Test("value_std", "ge", (chance.randint(1, 90),)),))),
        Change(value, Where((Test("ratio", "ge", (chance.choice([1.2, 1.5, 2]),)),)), Window(0, chance.randint(2, 90))),
        Gap("study_date", "index", Window(-chance.randint(0, 3), chance.randint(0, 3))),
        AnyOf((scan, Has(Events(("tumour",), (), _window(chance))))),
        NoneOf((scan, Has(Events(("attendance",), (), _window(chance))))),
        Related("series", "study", Where((Test("modality", "eq", (chance.choice(["MR", "PT", "SEG", "RTSTRUCT", "SR"]),)),))),
        Has(Events((chance.choice(["diagnosis", "procedure", "lab", "dispensing"]),), (), _window(chance))),
        Has(Events(("tumour",), (), EVER)),
        Where((Test("image_count", "ge", (chance.randint(1, 600),)),)),
    ]
    return replace(question, steps=(*question.steps, Step("more", chance.choice(new))))


def _unknown(question: Question, chance: Random) -> Question:
    policies = [chance.choice(["include", "exclude", "report"]) for _ in question.steps]
    return replace(question, steps=tuple(replace(step, unknown=policy) for step, policy in zip(question.steps, policies, strict=True)))


def _pick(question: Question, chance: Random) -> Question:
    assert question.pick is not None
    order = tuple(chance.sample(question.pick.order, len(question.pick.order)))
    return replace(question, pick=chance.choice([None, Pick(chance.choice(["patient", "study"]), order)]))


def _population(question: Question, chance: Random) -> Question:
    return replace(_thin(question, chance), population=chance.choice(["all", "linked"]))


def _index(question: Question, chance: Random) -> Question:
    return replace(_age(question, chance), index=chance.choice(["study_date", "scan_date"]))


def _unit(question: Question, chance: Random) -> Question:
    steps = tuple(step for step in _age(question, chance).steps if step.id in ("age", "on_drug", "first_stroke"))
    return replace(question, unit="study", steps=steps, pick=Pick("patient", (question.pick.order[0],)) if question.pick else None)


def freeze(config: Any, asked: commands.Asked, size: int) -> None:
    """The same plan on Spark, warm, against the hand-written SQL there."""
    from pictures_spark.cohort.spark import computed
    from pictures_spark.session import open_session

    zones = Zones(config, "deidentified")
    start = time.perf_counter()
    spark = open_session(config, zones)
    plan = asked.plan()
    with duck.reader(zones) as connection:
        release = duck.newest_release(connection, zones)
    assert release is not None
    for name in tally.tables(plan) + ("event", "source_cover"):
        path = str(zones.path("deidentified", "tables", name))
        if name in release.versions:
            frame = spark.read.format("delta").option("versionAsOf", release.versions[name]).load(path)
            frame.createOrReplaceTempView(f"deidentified_{name}")

    def ours() -> int:
        with computed(spark, plan) as rows:
            return int(rows.where("passed = 8").count())

    def peer() -> int:
        for statement in hand_written():
            spark.sql(statement.format(**SPARK))
        return int(spark.sql("SELECT * FROM done WHERE last = 8").count())

    found = ours()
    cold = time.perf_counter() - start
    assert found == peer()
    mine, theirs = measure.alternate(ours, peer)
    print(measure.line("cohort_freeze_cold_s", cold, mine, "the same, warm", "s", size), flush=True)
    print(measure.line("cohort_freeze_warm_s", mine, theirs, "hand-written Spark SQL", "s", size), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
