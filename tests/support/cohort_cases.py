"""Small dirty tables and questions about them: by hand as ASCII tables, and by Hypothesis. And how to load them into each engine.

Questions are drawn backwards from the kind of node that is wanted, by `NODES`: each kind of node has its strategy. Tables are drawn evenly
from a seed and are dense, so that codes, days and persons meet; Hypothesis by itself prefers few and small, among which little happens.
"""

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from pictures_spark.cohort import check, domain
from pictures_spark.cohort.codelists import Codes, resolve
from pictures_spark.cohort.compile import PREFIX, Plan, Saved
from pictures_spark.cohort.model import (
    EVER,
    AllOf,
    AnyOf,
    Breakdown,
    Chain,
    Change,
    CodeList,
    Cover,
    Events,
    Finding,
    First,
    FollowUp,
    Gap,
    Has,
    IndexEvent,
    Lacks,
    Last,
    Match,
    Member,
    Nearest,
    NoneOf,
    Order,
    Output,
    Pick,
    Predicate,
    Question,
    Related,
    Sample,
    Split,
    Stay,
    Step,
    Test,
    Where,
    Window,
    asked_events,
)
from pictures_spark.cohort.spark import computed, pairs
from pictures_spark.schema import Column, table
from pictures_spark.session import settings

TABLES = (
    *("patient", "residence", "source_cover", "study", "series", "image", "event", "stay", "tag", "study_tag", "image_feature"),
    *("burned_in_text", "report", "report_finding", "cohort_member", "description"),
)
START = date(2010, 2, 1)
LENGTH = 40  # days that anything happens in: few, so that the ends of windows, cover and residence meet
NOWHERE = Path(tempfile.gettempdir()) / "no-such-folder"
Tables = dict[str, list[dict[str, Any]]]


def day(number: int) -> date:
    """Day ``number`` of the little world."""
    return START + timedelta(days=number)


def full(tables: Tables) -> Tables:
    """Every table of the language, every row with every declared column; what is not given is missing."""
    return {
        name: [{column: row.get(column) for column in table("deidentified", name).names} for row in tables.get(name, [])] for name in TABLES
    }


@cache
def _arrow_schema(name: str) -> pa.Schema:
    return pa.schema([(column.name, column.arrow_type) for column in table("deidentified", name).columns])


def into_duckdb(connection: Any, tables: Tables, names: Iterable[str] = TABLES) -> None:
    """Make the tables of a plan, in memory."""
    for name in names:
        connection.register(f"{PREFIX}{name}", into_arrow(name, tables.get(name, [])))


def into_arrow(name: str, given: list[dict[str, Any]]) -> pa.Table:
    """Rows of a table with every declared column."""
    schema = _arrow_schema(name)
    columns = [pa.array([row.get(column.name) for row in given], column.type) for column in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def into_spark(spark: Any, tables: Tables, names: Iterable[str] = TABLES) -> None:
    """Make the tables of a plan, as views; dirty tables may miss what a declared one may not."""
    for name in names:
        values = [tuple(row.values()) for row in full(tables)[name]]
        declared = table("deidentified", name).spark_type()
        for one in declared.fields:
            one.nullable = True
        spark.createDataFrame(values, declared).coalesce(1).createOrReplaceTempView(f"{PREFIX}{name}")


@contextmanager
def for_few_rows(spark: Any) -> Iterator[None]:
    """Spark as it is fastest with a few rows: nothing is compiled, planned twice or spread."""
    quick = {
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.shuffle.partitions": "1",
    }
    with settings(spark, quick):
        yield


def asked_of_spark(spark: Any, connection: Any, plan: Plan) -> None:
    """What Spark says to a plan, asked as a freeze does it, is what the embedded reader says, row by row."""

    def equal(rows: Any, query: Any) -> None:
        found = [tuple(row) for row in rows.collect()]
        assert sorted(found, key=str) == sorted(connection.execute(query.sql("duckdb")).fetchall(), key=str)

    with computed(spark, plan) as rows:
        equal(rows, plan.flags)
        if plan.pairs is not None:
            equal(pairs(spark, plan), plan.pairs)
    if plan.shown is not None:
        equal(spark.sql(plan.shown.sql("spark")), plan.shown)


# By hand


def rows(name: str, text: str) -> list[dict[str, Any]]:
    """Rows of an ASCII table: a header of column names, cells typed by the schema, an empty cell where there is no value.

    A set is written with spaces between its elements, ``{}`` is an empty one, and ``+5`` is day 5 of the little world.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    head, *body = [[part.strip() for part in line.split("|")] for line in lines if not set(line) <= set("-+| ")]
    columns = table("deidentified", name).by_name
    return [{column: cell(value, columns[column]) for column, value in zip(head, line, strict=True)} for line in body]


def cell(text: str, column: Column) -> Any:
    if text == "":
        return None
    match column.type:
        case "date":
            return day(int(text)) if text[0] in "+-" else date.fromisoformat(text)
        case "long":
            return int(text)
        case "double":
            return float(text)
        case "boolean":
            return text == "T"
        case "array<string>":
            return [] if text == "{}" else text.split()
        case _:
            return text


# Tables from a seed

PEOPLE, STUDIES = ("p1", "p2", "p3", "p4", "p5"), ("t1", "t2", "t3", "t4", "t5", "t6")
SERIES = tuple(f"s{n}" for n in range(1, 19))
TEXTS = ("plain", "it's", "back\\slash", "per%cent", "Größe", "10")
PATTERNS = ("^p", "a", "(?i)PLAIN|^IT", "[0-9]+$", r"\\", "n$", "[^a-z]", "(?:ai|er).", "^.{4,5}$", r"\d\d")
CODES = {
    "icd10": ("I61", "I639", "I64", "G30", "G309"),
    "bnf": ("0208020", "0208020V0AAAAAA", "0206010"),
    "opcs4": ("W371", "W46"),
}
KINDS = ("diagnosis", "dispensing", "procedure", "death_cause")
STAYS = ("y1", "y2", "y3", "y4", "y5", "y6", "y7", "y8")
# Cohorts that were saved: the name of each and what its members are.
SAVED = {"old-series": "series", "old-people": "patient", "few-series": "series", "few-people": "patient"}
FINDINGS = ("infarct", "mass")
# Kinds of events that have a time of day, and times, of which some are none.
TIMED = ("attendance", "lab")
TIMES = ("00:00:00", "00:00:01", "08:30:00", "12:00:00", "12:00:01", "20:30:00", "23:59:59", None)
SYSTEM_OF = {"diagnosis": "icd10", "death_cause": "icd10", "dispensing": "bnf", "procedure": "opcs4"}
PART_VALUES = {
    "year": (2009, 2010, 2011),
    "month": ("2010-02", "2010-03"),
    "month_of_year": (2, 3, 4),
    "weekday": domain.WEEKDAYS,
    "hour": (0, 8, 12, 20),
    "decade": (0, 60, 80),
    "five": (0, 65, 80),
}
COMMON = ("FLAIR", "T2 AX", "HEAD 5 0")
TAGS = {"SliceThickness": "DS", "EchoTime": "DS", "ScanningSequence": "CS"}
NUMBERS = (-1.0, 1.5, 1.5000000000000002, 3.0)


@cache
def pool(column: Column) -> tuple[Any, ...]:
    """Values of a column, few, so that comparisons meet."""
    if column.name == "birth_month":
        return ("1950-01", "2010-02", "2010-03")
    if column.type == "string":
        return tuple(column.allowed[:3]) if column.allowed else TEXTS[:4]
    if column.type == "array<string>":
        a, b, c = tuple(column.allowed[:3]) if column.allowed else TEXTS[:3]
        return ([], [a], sorted([a, b]), sorted([a, b]), sorted([b, c]))
    if column.type == "array<double>":
        return ([1.0, 2.0],)
    kinds = {"long": (0, 65, 80), "double": NUMBERS, "boolean": (True, False)}
    return kinds[column.type] if column.type in kinds else tuple(day(n) for n in (*range(0, LENGTH, 7), 27, 28))


def dense_tables(seed: int) -> Tables:
    """Tables in which much happens: every column of the scans has values, a quarter of them missing; keys may lead nowhere; persons are
    merged, move, die and are born; sources begin late, end early and lag."""
    chance = random.Random(seed)

    def days(low: int, high: int) -> date:
        return day(chance.randint(low, high))

    def row(name: str, **given: Any) -> dict[str, Any]:
        drawn = {
            c.name: chance.choice(pool(c)) if chance.random() < 0.75 else None
            for c in table("deidentified", name).columns
            if c.deid not in (None, "pseudonym") and c.name not in ("release", "run_id") and c.type != "timestamp_ntz"
        }
        return drawn | given

    def who() -> str | None:
        return chance.choice((*PEOPLE * 3, "nobody", None))

    found: Tables = {"patient": []}
    for person in PEOPLE:
        born, died = chance.choice((None, *["1950-01"] * 4, "2010-02", "2010-03")), chance.choice((None, None, days(0, LENGTH)))
        merged = chance.choice((None, None, None, None, None, "p1")) if person != "p1" else None
        found["patient"].append(row("patient", patient_id=person, birth_month=born, death_date=died, merged_into=merged))
    found["study"] = [row("study", study_id=s, patient_id=who(), scan_date=_maybe(chance, days(0, LENGTH))) for s in STUDIES]
    found["series"] = [
        row(
            "series",
            series_id=series,
            study_id=chance.choice((*STUDIES, "nothing")),
            patient_id=who(),
            scan_date=_maybe(chance, days(0, LENGTH)),
            frame_of_reference_id=chance.choice(("f1", "f2", None)),
        )
        for series in SERIES
    ]
    found["image"] = [
        row(
            "image",
            image_id=f"i{chance.randint(1, 9)}",
            locator_id=f"l{number}",
            series_id=chance.choice(SERIES[:4]),
            study_id=chance.choice(STUDIES),
            patient_id=who(),
        )
        for number in range(12)
    ]
    found["residence"] = []

    def lived(spell: dict[str, Any]) -> None:
        found["residence"].append(spell | {"health_board": chance.choice(("S1", "S2", None)), "simd_quintile": chance.choice((1, 5, None))})

    for person in PEOPLE:
        spells = chance.choice(("whole", "whole", "whole", "pieces", "pieces", "none"))
        if spells == "whole":
            lived({"patient_id": person, "from_date": day(-90), "to_date": None})
        if spells == "pieces":
            move = chance.randint(-10, LENGTH)
            back = {"from_date": day(move + chance.choice((-20, -9, 1, 1, 2))), "to_date": chance.choice((None, days(0, LENGTH)))}
            lived({"patient_id": person, "from_date": day(-90), "to_date": day(move)})
            lived({"patient_id": person} | back)
    found["stay"] = [
        {"stay_id": stay, "patient_id": chance.choice(PEOPLE), "start_date": (start := days(0, LENGTH)), "end_date": _left(chance, start)}
        for stay in STAYS
    ]
    groups = [(*KINDS[:1], TIMED[0]), (*KINDS[1:3], TIMED[1]), (*KINDS[3:], "admission"), *chance.choice(([], [], [KINDS[:2]]))]
    found["source_cover"] = [
        {
            "source": f"source{number}",
            "site": "demo",
            "from_date": day(chance.choice((-60, -60, -60, 0, 12))),
            "to_date": day(chance.choice((LENGTH + 40, LENGTH + 40, LENGTH + 40, LENGTH, 11))),
            "lag_days": chance.choice((0, 3, None)),
            "kinds": list(kinds),
        }
        for number, kinds in enumerate(groups)
    ]
    found["event"] = [
        {
            "event_id": f"e{number}",
            "patient_id": chance.choice((*PEOPLE, "nobody")),
            "source": chance.choice(("source0", "source1")),
            "kind": (kind := chance.choice(KINDS)),
            # A code means nothing without its system: the same letters may stand in another one.
            "system": chance.choice((SYSTEM_OF[kind], SYSTEM_OF[kind], "local")),
            "code": chance.choice((*CODES[SYSTEM_OF[kind]], None)),
            "date": days(0, LENGTH),
            "position": chance.choice((0, 0, 1, None)),
            "stay_id": chance.choice((*STAYS, None)),
            "value_std": _maybe(chance, chance.choice(NUMBERS)),
            "comparator": chance.choice((None, None, "=", ">")),
            "age_years": chance.choice((64, 65, None)),
        }
        for number in range(chance.choice((8, 24, 48)))
    ]
    found["event"] += [{**chance.choice(found["event"]), "event_id": f"again{number}"} for number in range(4)]
    _give_times(random.Random(-seed), found)
    _give_texts(random.Random(-seed - 1), found)
    found["tag"] = [_tag(chance, keyword, series_id=s) for s in SERIES for keyword in TAGS if chance.random() < 0.8]
    found["study_tag"] = [_tag(chance, keyword, study_id=s) for s in STUDIES for keyword in TAGS if chance.random() < 0.8]
    images = {(image["image_id"], image["series_id"]) for image in found["image"]}
    found["image_feature"] = [
        {
            "level": chance.choice(("image", "image", "image", "series")),
            "id": image_id,
            "series_id": series_id,
            "feature": "intensity_mean",
            "version": version,
            "value": _maybe(chance, chance.choice(NUMBERS)),
            "status": chance.choice(("ok", "ok", "ok", "failed")),
        }
        for image_id, series_id in sorted({image[0]: image for image in sorted(images)}.values())
        for version in ("1", "2")
    ]
    found["image_feature"] += [
        {"level": "series", "id": series, "series_id": series, "feature": "liver_mean", "version": "1"}
        | {"value": _maybe(chance, chance.choice(NUMBERS)), "status": "ok"}
        for series in SERIES
        if chance.random() < 0.7
    ]
    found["burned_in_text"] = [
        {
            "image_id": image["image_id"],
            "series_id": image["series_id"],
            "verdict": chance.choice(("clean", "clean", "text", "not_determined")),
        }
        for image in found["image"]
        if chance.random() < 0.7
    ]
    found["report"] = [
        {
            "report_id": f"r{number}",
            "study_id": chance.choice((*STUDIES, None)),
            "patient_id": chance.choice(PEOPLE),
            "report_date": days(0, LENGTH),
            "status": chance.choice(("final", "final", "cancelled", None)),
        }
        for number in range(10)
    ]
    found["report_finding"] = [
        {
            "report_id": f"r{number}",
            "finding": chance.choice(FINDINGS),
            "polarity": chance.choice(("affirmed", "affirmed", "negated")),
            "certainty": chance.choice(("certain", "possible")),
            "subject": chance.choice(("patient", "patient", "family")),
        }
        for number in range(8)
        for _ in range(chance.randint(0, 2))
    ]
    found["cohort_member"] = [
        {"cohort_run_id": name, "unit_id": unit_id}
        for name, unit in SAVED.items()
        for unit_id in (SERIES if unit == "series" else PEOPLE)
        if chance.random() < (0.5 if name.startswith("old") else 0.2)
    ]
    return found


def _give_times(chance: random.Random, found: Tables) -> None:
    """Times of day, and events on the days around scans that have some: hours meet there."""
    for name, column in (("series", "scan_time"), ("study", "study_time")):
        for row in found[name]:
            row[column] = chance.choice(TIMES) if chance.random() < 0.8 else row[column]
    days = [row["scan_date"] for row in found["series"] if row["scan_date"] is not None] or [day(0)]
    found["event"] += [
        {
            "event_id": f"timed{number}",
            "patient_id": chance.choice(PEOPLE),
            "source": chance.choice(("source0", "source1")),
            "kind": chance.choice(TIMED),
            "date": chance.choice(days) + timedelta(days=chance.choice((-1, 0, 0, 0, 1))),
            "time": chance.choice(TIMES),
            "position": chance.choice((0, None)),
            "value_std": chance.choice((*NUMBERS, None)),
        }
        for number in range(24)
    ]


def _give_texts(chance: random.Random, found: Tables) -> None:
    """Descriptions that are common: none, one or several of a series."""
    found["description"] = [
        {"series_id": row["series_id"], "study_id": row["study_id"], "keyword": keyword, "text": text}
        for row in found["series"]
        for keyword in ("SeriesDescription", "StudyDescription")
        for text in chance.sample(COMMON, chance.choice((0, 1, 1, 2)))
    ]


def saved_of(tables: Tables) -> dict[str, tuple[str, frozenset[str]]]:
    """The saved cohorts of tables: their units and the members' ids."""
    ids = {name: {row["unit_id"] for row in tables["cohort_member"] if row["cohort_run_id"] == name} for name in SAVED}
    return {name: (unit, frozenset(ids[name])) for name, unit in SAVED.items()}


def _left(chance: random.Random, start: date) -> date | None:
    return chance.choice((None, *[start + timedelta(days=n) for n in (0, 1, 5, 5, 12)]))


def _maybe(chance: random.Random, value: Any) -> Any:
    return value if chance.random() < 0.85 else None


def _tag(chance: random.Random, keyword: str, **key: str) -> dict[str, Any]:
    low, high = sorted((chance.choice(NUMBERS), chance.choice(NUMBERS)))
    numbers, some = TAGS[keyword] == "DS", chance.random() < 0.85
    words = sorted(chance.sample(("SE", "IR", "GR"), chance.choice((0, 1, 2))))
    return key | {
        "keyword": keyword,
        "vr": TAGS[keyword],
        "values": (["1.5"] if some else []) if numbers else words,
        "min": low if numbers and some else None,
        "max": high if numbers and some else None,
    }


# Questions by Hypothesis

DAYS = st.integers(0, LENGTH).map(day)
Draw = Callable[[st.SearchStrategy], Any]


@dataclass
class Asking:
    """What a node of a question stands in: its unit and index, the code lists drawn so far, and how deep it is nested."""

    draw: Draw
    unit: str
    index: str | date | None
    codelists: dict[str, CodeList] = field(default_factory=dict)
    depth: int = 0
    saved: bool = True

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def some(self, choices: Iterable[Any], least: int, most: int) -> list[Any]:
        return self.draw(st.lists(st.sampled_from(list(choices)), min_size=least, max_size=most, unique=True))

    def node(self, kind: type) -> Any:
        """A node of this kind."""
        return NODES[kind](self)


@st.composite
def questions(draw: st.DrawFn, unit: str | None = None) -> Question:
    """A question that can be asked: every kind of step, operator, window, policy, population, pick and sample."""
    unit = unit or draw(st.sampled_from(["series", "series", "study", "image", "patient"]))
    fields = domain.fields(unit)
    dates = [name for name, f in fields.items() if f.kind == "date"]
    index: str | date | None = draw(st.sampled_from(dates)) if unit != "patient" else None
    if unit != "patient" and "scan_date" in fields and draw(st.integers(0, 2)):
        index = "scan_date"
    elif unit == "patient" or draw(st.integers(0, 5)) == 0:
        index = draw(DAYS)
    ask = Asking(draw, unit, index)
    if draw(st.integers(0, 8)) == 0:
        ask.index = ask.node(IndexEvent)
    return ask.node(Question)


def _question(ask: Asking) -> Question:
    steps = tuple(ask.node(Step) for _ in range(ask.one_of(1, 1, 1, 2)))
    steps = tuple(replace(step, id=f"step_{n}") for n, step in enumerate(steps))
    population = ask.one_of("all", "all", "all", "all", "all", "linked", "alive_and_resident")
    pick = ask.node(Pick) if ask.unit != "patient" and ask.one_of(True, False, False) else None
    sample = ask.node(Sample) if ask.one_of(True, False, False, False) else None
    match = ask.node(Match) if ask.one_of(*[False] * 11, True) else None
    split = ask.node(Split) if ask.one_of(True, False, False, False) else None
    outputs = tuple(ask.node(Output) for _ in range(ask.one_of(0, 0, 1, 2)))
    outputs = tuple(replace(output, id=f"shown_{n}") for n, output in enumerate(outputs))
    breakdowns = (ask.node(Breakdown),) if ask.one_of(True, False, False) else ()
    few = [
        f"{o.id}_{name}" for o in outputs if isinstance(o.of, Nearest | FollowUp) for name in (*o.give, "end") if name in ("code", "end")
    ]
    few = [name for name in few if name.endswith("_code") or isinstance(outputs[int(name[6])].of, FollowUp)]
    breakdowns = (*breakdowns, Breakdown((few[0],))) if few and ask.one_of(True, False) else breakdowns
    question = Question(ask.draw(ids()), ask.unit, ask.index, population, (), steps, pick, sample, split, outputs, breakdowns, match)
    used = {name for _, asked in asked_events(question) for name in asked.codes}
    return replace(question, codelists=tuple(codelist for name, codelist in ask.codelists.items() if name in used))


def ids() -> st.SearchStrategy[str]:
    """Names of cohorts, the awkward ones too."""
    return st.sampled_from(["a", "ct-head", "0206010", "1e3", "no", "null", "2016-01-01", "0x1f", "12_30"])


def _predicate(ask: Asking) -> Predicate:
    simple = (Where, Where, Where, Related, Related, Has, Lacks, Lacks, First, Last, Chain, Cover, Stay, Nearest, Nearest, Finding, Member)
    simple = (*simple, Change, Change, Change)
    simple = (*simple, Gap, Gap, Gap) if _dates(ask) else simple
    if ask.depth >= 2:
        return ask.node(ask.one_of(*simple))
    node = ask.node(ask.one_of(*simple, AllOf, AnyOf, NoneOf))
    # Most conditions hold for few, so that as many hold for most; of some it would be the other way round.
    return NoneOf((node,)) if not isinstance(node, Lacks | NoneOf) and ask.one_of(False, False, True) else node


def _parts(ask: Asking) -> tuple[Predicate, ...]:
    ask.depth += 1
    parts = tuple(dict.fromkeys(ask.node(Predicate) for _ in range(ask.one_of(1, 2, 2, 2, 3))))
    ask.depth -= 1
    return parts


def _of_columns(fields: dict[str, domain.Field]) -> list[str]:
    """One column with each part that there is."""
    return [*{field.part: name for name, field in fields.items() if field.part is not None and not name.startswith(domain.AGE)}.values()]


@cache
def _names(unit: str, aged: bool) -> tuple[list[str], list[str]]:
    """Columns that a condition may be about, and tags and features that the tables have."""
    fields = domain.fields(unit)
    columns = [name for name in fields if "." not in name and (name != domain.AGE or aged)]
    # What is looked up apart from the rows, twice as often.
    columns += [name for name in (*domain.LIVED, domain.VERDICT) if name in fields]
    columns += _of_columns(fields)
    return columns, [
        name
        for name in fields
        if name.removeprefix("tag.") in (*TAGS, "SeriesDescription", "StudyDescription")
        or name.startswith(("feature.intensity_mean@1", "feature.liver_mean"))
    ]


def _dates(ask: Asking) -> list[str]:
    dates = [name for name, field in domain.fields(ask.unit).items() if field.kind == "date"]
    dates = dates if ask.index is None else ["index", *dates]
    return dates if len(dates) > 1 else []


@cache
def _sortable(unit: str, *kinds: str) -> list[str]:
    return [
        name
        for name, f in domain.fields(unit).items()
        if f.kind in kinds and not name.startswith(domain.AGE) and (f.part or "." not in name)
    ]


def _where(ask: Asking) -> Where:
    fields, (columns, tags) = domain.fields(ask.unit), _names(ask.unit, ask.index == domain.AGE_DATE)
    names = ask.some(tags, 1, 2) if tags and ask.one_of(True, False, False) else ask.some(columns, 1, ask.one_of(1, 1, 2))
    return Where(tuple(_one_test(ask, name, fields[name]) for name in names))


def _one_test(ask: Asking, name: str, field: domain.Field) -> Test:
    operators = domain.OPERATORS[field.kind]
    # Those that hold for many as often again as those that hold for few.
    operator = ask.one_of(*operators, *(o for o in ("ne", "between", "le", "ge", "matches") if o in operators))
    if operator == "is_missing":
        return Test(name, "is_missing", (ask.one_of(True, False),))
    if operator == "matches":
        return Test(name, "matches", (ask.one_of(*PATTERNS, "^[A-Z]2", "5"),))
    value: tuple[Any, ...] = (field.choices or TEXTS[:4])[:3] if field.kind in ("choice", "set", "text") else pool(field.column)
    value = PART_VALUES.get(field.part, value)
    if field.name == "birth_month":
        value = pool(field.column)
    if name == "tag.ScanningSequence":
        value = ("SE", "IR", "GR")
    if field.table == domain.TEXTS:
        value = COMMON
    if any(check.impossible(operator, one, field) for one in value):
        return Test(name, "is_missing", (False,))
    if operator == "between":
        return Test(name, operator, tuple(sorted((ask.one_of(*value), ask.one_of(*value)))))
    least, most = {"in": (2, 3), "ne": (1, 2)}.get(operator, (1, 1))
    return Test(name, operator, tuple(ask.some(value, least, most)))


def _dead(ask: Asking) -> bool:
    """Whether the person is dead from the index date on."""
    return ask.index == "death_date" or (isinstance(ask.index, IndexEvent) and set(ask.index.events.kinds) <= {"death", "death_cause"})


def _window(ask: Asking) -> Window:
    low, high = sorted((ask.draw(st.integers(-20, 20)), ask.draw(st.integers(-20, 20))))
    if _dead(ask):
        low, high = min(low, 0), max(high, 0)
    window = Window(*(None if ask.one_of(True, *[False] * 5) else end for end in (low, high)))
    return EVER if ask.index is None else window


def _events(ask: Asking) -> Events:
    kinds = tuple(ask.some(KINDS, 1, 2))
    names = [ask.node(CodeList).name for _ in {SYSTEM_OF[kind] for kind in kinds}] if ask.one_of(True, True, True, False) else []
    codes = tuple(name for name in names if any(SYSTEM_OF[k] == ask.codelists[name].system for k in kinds))
    window = ask.node(Window)
    fits = window.low is None or window.high is None or window.low < window.high
    sources = tuple(ask.some(("source0", "source1"), 1, 2)) if ask.one_of(True, *[False] * 5) else ()
    anchor = ask.one_of("index", "index", "index", "start_of_stay", "end_of_stay") if window != EVER else "index"
    return Events(kinds, codes, window, ask.one_of(1, 1, 2) if fits else 1, ask.one_of(True, False, False, False), sources, anchor)


def _clocked(ask: Asking) -> bool:
    """Whether the index date has a time of day."""
    if isinstance(ask.index, IndexEvent):
        return set(ask.index.events.kinds) <= set(TIMED)
    return isinstance(ask.index, str) and domain.clock(ask.unit, ask.index) is not None


def _hours(ask: Asking, often: int) -> Window | None:
    """A window of hours, once in so many times that one can be asked for."""
    if not _clocked(ask) or not ask.one_of(True, *[False] * (often - 1)):
        return None
    low, high = sorted((ask.one_of(-60, -24, -12, -4, -1, 0), ask.one_of(0, 1, 4, 12, 24, 60)))
    match ask.one_of("closed", "closed", "closed", "closed", "from", "to"):
        case "from":
            return Window(low, None, "hour")
        case "to":
            return Window(None, high, "hour")
    return Window(low, high, "hour")


def _timed(ask: Asking) -> Events:
    """Events with a condition, of which some are asked for in hours, and some must lie apart."""
    events, window = _conditioned(ask), _hours(ask, 2)
    if window is None:
        wide = events.window.low is None or events.window.high is None or events.window.high - events.window.low >= 12
        return replace(events, at_least=2, apart=ask.one_of(3, 12)) if wide and ask.one_of(True, False, False, False) else events
    return Events(tuple(ask.some(TIMED, 1, 2)), (), window, sources=events.sources, where=events.where)


def _any_time(ask: Asking) -> Events:
    """Events at any time, as an index date is the day of one."""
    events = replace(_conditioned(ask), window=EVER, at_least=1, anchor="index")
    return replace(events, kinds=tuple(ask.some(TIMED, 1, 2)), codes=(), main=False) if ask.one_of(True, False) else events


def _conditioned(ask: Asking) -> Events:
    """Events with a condition on their own columns."""
    events = ask.node(Events)
    return replace(events, where=_of_event(ask)) if ask.one_of(True, False) else events


def _of_event(ask: Asking) -> Where:
    fields = domain.event_fields()
    names = ("value_std", "age_years", "comparator", "date", "date.weekday", "time.hour")
    return Where(tuple(_one_test(ask, name, fields[name]) for name in ask.some(names, 1, 2)))


def _codelist(ask: Asking) -> CodeList:
    system = ask.one_of(*CODES)
    codes = tuple(ask.some([*CODES[system], CODES[system][0][:2]], 1, 2))
    found = CodeList(f"list-{len(ask.codelists)}", system, codes, None, ask.one_of("prefix", "exact"))
    ask.codelists[found.name] = found
    return found


def _end(ask: Asking) -> Events:
    """Events of which there is one, the first or the last, in a window."""
    events = _conditioned(ask)
    return replace(events, window=events.window if events.window != EVER else Window(None, 5), at_least=1)


def _chain(ask: Asking) -> Chain:
    events = ask.node(Events)
    gap = Window(ask.one_of(None, 1, 2, 5), ask.one_of(None, 6, 9, 20))
    within = ask.one_of(None, 10, 20)
    wide = Window(None if events.window.low is None else -20, None if events.window.high is None else 20)
    return Chain(replace(events, window=wide, at_least=ask.one_of(2, 2, 3)), gap, 20 if gap == EVER and within is None else within)


def _change(ask: Asking) -> Change:
    events = replace(_conditioned(ask), kinds=("lab",), codes=(), at_least=1)
    take = ask.one_of("any", "any", "ends")
    window, hours = _hours(ask, 4), ask.one_of(True, False)
    gap = Window(ask.one_of(None, 1, 3), ask.one_of(None, 9, 20))
    if take == "any":
        events = replace(events, window=window, anchor="index") if window is not None else events
        gap = Window(ask.one_of(None, 0, 1, 12), ask.one_of(None, 24, 200), "hour") if hours else gap
    operator = ask.one_of("ge", "gt", "le", "lt", "between", "ne", "is_missing")
    values = {"between": (-2.0, 1.5), "is_missing": (ask.one_of(True, False),)}.get(operator, (ask.one_of(-1.5, 0.0, 1.0, 1.5, 2.5),))
    return Change(
        events,
        Where((Test(ask.one_of("change", "change", "ratio"), operator, values),)),
        gap if gap != Window(None, None, "hour") else EVER,
        take,
    )


def _cover(ask: Asking) -> Cover:
    events = ask.node(Events)
    return Cover(Events(events.kinds, (), events.window, sources=events.sources))


def _related(ask: Asking) -> Related:
    levels = domain.levels(ask.unit)
    of = ask.one_of(*(level for level in ("patient", "study") if level in levels))
    unit = "series" if of == "study" else ask.one_of("series", "series", "study")
    where = Asking(ask.draw, unit, domain.AGE_DATE).node(Where) if ask.one_of(True, True, False) else None
    at_least = ask.one_of(1, 1, 2, 3)
    same = ("frame_of_reference_id",) if ask.unit == unit == "series" and ask.one_of(True, False, False) else ()
    names = _sortable(ask.unit, "text", "choice", "whole", "flag", "date") if ask.unit == unit else []
    differ = tuple(ask.some(names, 1, 1)) if names and ask.one_of(True, False, False, False) else ()
    numbers = _sortable(ask.unit, "number", "whole") if ask.unit == unit else []
    ratio = None
    if numbers and ask.one_of(True, False, False, False):
        ratio = Where((Test(ask.one_of(*numbers), ask.one_of("ge", "le", "gt", "lt", "eq"), (ask.one_of(0.5, 1.0, 2.0),)),))
    window = ask.node(Window) if ask.one_of(True, False) else EVER
    window = (_hours(ask, 3) if unit == "series" else None) or window
    count = ask.one_of("series", "study") if unit == "series" else "study"
    span = ask.one_of("no", "no", "within", "apart") if at_least > 1 else "no"
    within, apart = ask.one_of(5, 20) if span == "within" else None, ask.one_of(5, 20) if span == "apart" else None
    nested = None
    if ask.depth < 2 and ask.one_of(True, False, False):
        ask.depth += 2
        nested = _related(Asking(ask.draw, unit, domain.AGE_DATE, ask.codelists, ask.depth))
        ask.depth -= 2
    among = Asking(ask.draw, unit, None).node(Member) if ask.one_of(True, *[False] * 4) else None
    return Related(unit, of, where, window, same, at_least, count, within, apart, nested, among, differ, ratio)


def _gap(ask: Asking) -> Gap:
    dates = _dates(ask)
    window = ask.node(Window)
    clocked = [name for name in dates if domain.clock(ask.unit, name) is not None or (name == domain.INDEX and _clocked(ask))]
    if len(clocked) > 1 and ask.one_of(True, False):
        return Gap(*ask.some(clocked, 2, 2), Window(ask.one_of(None, -24, -12, 0), ask.one_of(1, 12, 30), "hour"))
    return Gap(*ask.some(dates, 2, 2), Window(-5, 5) if window == EVER else window)


def _stay(ask: Asking) -> Stay:
    holds = tuple(replace(_conditioned(ask), window=EVER, at_least=1, anchor="index") for _ in range(ask.one_of(1, 1, 2)))
    ends = ask.node(Window) if ask.one_of(True, False) else EVER
    days = Window(*ask.one_of((0, 5), (1, None), (None, 4))) if ask.one_of(True, False, False) else EVER
    return Stay(tuple(dict.fromkeys(holds)), ask.node(Window), ends, days, ask.one_of(1, 1, 1, 2))


def _nearest(ask: Asking) -> Nearest:
    among: Events | Related = replace(_timed(ask), at_least=1, apart=None)
    fields: Any = domain.event_fields()
    names = ["value_std", "age_years", "comparator", "date.weekday", "time.hour"]
    if ask.index is not None and ask.one_of(True, False):
        related = _related(ask)
        among = replace(related, at_least=1, count=related.unit, within=None, apart=None, related=None)
        fields, names = domain.fields(related.unit), _names(related.unit, True)[0]
    then = Where(tuple(_one_test(ask, name, fields[name]) for name in ask.some(names, 1, 2))) if ask.one_of(True, False) else None
    if ask.index is None and isinstance(among, Events):
        among = replace(among, window=EVER)
    return Nearest(among, ask.one_of("nearest", "earliest", "latest"), then)


def _finding(ask: Asking) -> Finding:
    of = ask.one_of(*(level for level in ("study", "patient") if level in domain.levels(ask.unit)))
    window = ask.node(Window) if ask.one_of(True, False) else EVER
    polarity, certainty = ask.one_of("affirmed", "affirmed", "negated"), ask.one_of(None, None, "certain", "possible")
    return Finding(ask.one_of(*FINDINGS), of, polarity, certainty, ask.one_of("patient", "patient", "family"), window)


def _member(ask: Asking) -> Member:
    return Member(*ask.one_of(*((name, level) for name, unit in SAVED.items() for level in _shared_levels(ask.unit, unit))))


def _shared_levels(unit: str, other: str) -> list[str]:
    return [level for level in domain.levels(unit) if level in domain.levels(other)]


def _match(ask: Asking) -> Match:
    fits = [(name, level) for name in SAVED for level in _shared_levels(ask.unit, SAVED[name])]
    member = Member(*ask.one_of(*fits))
    names = _sortable(ask.unit, "text", "choice", "whole", "flag", "date")
    exact = tuple(ask.some(names, 0, 1)) if ask.one_of(True, False) else ()
    near = [name for name in _sortable(ask.unit, "number", "whole", "date") if name not in exact]
    caliper = ((ask.one_of(*near), ask.one_of(0.0, 7.0, 20.0)),) if near and ask.one_of(True, False, False) else ()
    risk_set = None
    if ask.index is not None and ask.one_of(True, False):
        risk_set = replace(_conditioned(ask), window=EVER, at_least=1, anchor="index")
    ratio = ask.one_of(1, 2, 3)
    again = ask.one_of(True, False)
    return Match(member.cohort, member.level, ratio, ask.one_of("one", "2"), exact, caliper, again, ask.one_of(1, 1, ratio), risk_set)


def _split(ask: Asking) -> Split:
    if ask.one_of(True, False) and ask.index is not None:
        return Split(("train", "test"), at=ask.draw(DAYS))
    return Split(("a", "b", "c"), (50, 33, 17), ask.one_of("one", "2", "0x1f"))


def _follow_up(ask: Asking) -> FollowUp:
    events = replace(_conditioned(ask), at_least=1, anchor="index")
    window = Window(0 if _dead(ask) else ask.one_of(0, 1, 5), ask.one_of(None, 9, 30))
    return FollowUp(
        replace(events, window=window), ask.one_of(None, day(LENGTH + 5), *([] if isinstance(ask.index, date) else [day(LENGTH // 2)]))
    )


def _output(ask: Asking) -> Output:
    kinds = ["column", "nearest", "gap"] if _dates(ask) else ["column"]
    match ask.one_of(*kinds, *(["follow_up", "follow_up"] if ask.index is not None else [])):
        case "column":
            names = [name for name in domain.shown(ask.unit) if not name.startswith("feature.") and name != domain.AGE]
            return Output("shown", ask.one_of(*names))
        case "gap":
            return Output("shown", replace(ask.node(Gap), window=EVER))
        case "follow_up":
            return Output("shown", ask.node(FollowUp))
        case _:
            nearest = replace(ask.node(Nearest), then=None)
            unit = "event" if isinstance(nearest.among, Events) else nearest.among.unit
            names = ["date", "value_std", "code"] if unit == "event" else ["scan_date", domain.key(unit), "conflict_count"]
            return Output("shown", nearest, tuple(ask.some(["gap", *names], 1, 3)))


def _breakdown(ask: Asking) -> Breakdown:
    names = [name for name in domain.grouped(ask.unit) if name != domain.AGE and not name.startswith(domain.AGE)]
    return Breakdown(tuple(ask.some(names, 1, 2)))


def _pick(ask: Asking) -> Pick:
    names = _sortable(ask.unit, "text", "choice", "number", "whole", "flag", "date")
    orders = tuple(Order(name, ask.one_of(True, False)) for name in ask.some(names, 1, 2))
    return Pick(ask.one_of(*domain.levels(ask.unit)[1:]), orders)


def _sample(ask: Asking) -> Sample:
    names = _sortable(ask.unit, "text", "choice", "whole", "flag", "date")
    return Sample(ask.one_of(1, 2, 3), ask.one_of("one", "2", "0x1f"), tuple(ask.some(names, 0, 2)))


# How each kind of node is drawn; a meta-test fails where a kind is not here.
NODES: dict[Any, Callable[[Asking], Any]] = {
    Question: _question,
    Step: lambda ask: Step("step", ask.node(Predicate), ask.one_of("exclude", "include", *["report"] * 4)),
    Predicate: _predicate,
    Where: _where,
    Test: lambda ask: ask.node(Where).tests[0],
    Has: lambda ask: Has(_timed(ask)),
    Lacks: lambda ask: Lacks(_timed(ask)),
    First: lambda ask: First(_end(ask)),
    Last: lambda ask: Last(_end(ask)),
    Chain: _chain,
    Change: _change,
    Cover: _cover,
    Related: _related,
    Gap: _gap,
    Stay: _stay,
    Nearest: _nearest,
    Finding: _finding,
    Member: _member,
    AllOf: lambda ask: AllOf(_parts(ask)),
    AnyOf: lambda ask: AnyOf(_parts(ask)),
    NoneOf: lambda ask: NoneOf(_parts(ask)),
    Events: _events,
    Window: _window,
    CodeList: _codelist,
    Order: lambda ask: ask.node(Pick).order[0],
    Pick: _pick,
    Sample: _sample,
    Split: _split,
    Match: _match,
    FollowUp: _follow_up,
    Output: _output,
    Breakdown: _breakdown,
    IndexEvent: lambda ask: IndexEvent(ask.one_of("first", "last"), _any_time(ask)),
}


@st.composite
def cases(draw: st.DrawFn, unit: str | None = None) -> tuple[Question, dict[str, Codes], Tables]:
    """A question, its code lists and tables to ask it of."""
    question = draw(questions(unit))
    return question, codes_of(question), dense_tables(draw(st.integers(0, 9999)))


SAVED_RUNS = {name: Saved(name, unit) for name, unit in SAVED.items()}


def codes_of(question: Question) -> dict[str, Codes]:
    """Code lists of a question that can be asked."""
    assert check.faults(question) == []
    codes, faults = resolve(question, NOWHERE)
    assert faults == []
    return codes


def expected_rows(rows: list[Any]) -> list[tuple[Any, ...]]:
    """(unit, patient, index date, bits that hold, bits that are unknown, how far it got) as the interpreter says."""
    found = []
    for row in rows:
        holds = 1 + sum(2 << i for i, said in enumerate(row.answers) if said is True)
        unknowns = sum(2 << i for i, said in enumerate(row.answers) if said is None)
        found.append((row.one.id, row.one.person, row.one.index, holds, unknowns, row.passed))
    return sorted(found)
