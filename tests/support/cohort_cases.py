"""Small dirty tables and questions about them: by hand as ASCII tables, and by Hypothesis. And how to load them into each engine."""

import random
import tempfile
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pictures_spark.cohort import check, domain
from pictures_spark.cohort.codelists import Codes, resolve
from pictures_spark.cohort.compile import PREFIX
from pictures_spark.cohort.model import (
    EVER,
    CodeList,
    Events,
    First,
    Has,
    Lacks,
    Order,
    Pick,
    Question,
    Step,
    Test,
    Where,
    Window,
    event_steps,
)
from pictures_spark.schema import DUCKDB_TYPES, Column, table

TABLES = ("patient", "residence", "source_cover", "study", "series", "image", "event")
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


def _quoted(name: str) -> str:
    return f'"{name}"'


def into_duckdb(connection: Any, tables: Tables, names: Iterable[str] = TABLES) -> None:
    """Make the tables of a plan, in memory."""
    for name in names:
        columns = ", ".join(f'"{c.name}" {DUCKDB_TYPES[c.type]}' for c in table("deidentified", name).columns)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {PREFIX}{name} ({columns})")
        connection.execute(f"TRUNCATE {PREFIX}{name}")
        for row in tables.get(name, []):
            marks, values = ", ".join("?" * len(row)), list(row.values())
            connection.execute(f"INSERT INTO {PREFIX}{name} ({', '.join(map(_quoted, row))}) VALUES ({marks})", values)


def into_spark(spark: Any, tables: Tables, names: Iterable[str] = TABLES) -> None:
    """Make the tables of a plan, as views; dirty tables may miss what a declared one may not."""
    for name in names:
        values = [tuple(row.values()) for row in full(tables)[name]]
        declared = table("deidentified", name).spark_type()
        for field in declared.fields:
            field.nullable = True
        spark.createDataFrame(values, declared).createOrReplaceTempView(f"{PREFIX}{name}")


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


# By Hypothesis

PEOPLE, STUDIES = ("p1", "p2", "p3", "p4"), ("t1", "t2", "t3", "t4")
SERIES = ("s1", "s2", "s3", "s4", "s5", "s6")
DAYS = st.integers(0, LENGTH).map(day)
TEXTS = ("plain", "it's", "back\\slash", "per%cent", "Größe", "10")
CODES = {
    "icd10": ("I61", "I639", "I64", "G30", "G309"),
    "bnf": ("0208020", "0208020V0AAAAAA", "0206010"),
    "opcs4": ("W371", "W46"),
}
KINDS = ("diagnosis", "dispensing", "procedure", "death_cause")
SYSTEM_OF = {"diagnosis": "icd10", "death_cause": "icd10", "dispensing": "bnf", "procedure": "opcs4"}


def values(column: Column) -> st.SearchStrategy:
    """A value of a column, from few, so that comparisons meet."""
    if column.name == "birth_month":
        return st.sampled_from(["1950-01", "2010-02", "2010-03"])
    if column.type == "string":
        return st.sampled_from(column.allowed[:3] if column.allowed else TEXTS[:4])
    if column.type == "array<string>":
        elements = column.allowed[:3] if column.allowed else TEXTS[:3]
        return st.lists(st.sampled_from(elements), max_size=2, unique=True).map(sorted)
    if column.type == "array<double>":
        return st.just([1.0, 2.0])
    return {
        "long": st.sampled_from([0, 65, 80]),
        "double": st.sampled_from([-1.0, 1.5, 1.5000000000000002, 3.0]),
        "boolean": st.booleans(),
        "date": DAYS,
    }[column.type]


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """A value three times out of four."""
    return st.one_of(strategy, strategy, strategy, st.none())


@st.composite
def questions(draw: st.DrawFn, unit: str | None = None) -> Question:
    """A question that can be asked: every kind of step, operator, window, policy, population and pick."""
    unit = unit or draw(st.sampled_from(["series", "study", "image", "series", "patient"]))
    fields = domain.fields(unit)
    index: str | date | None = (
        draw(st.sampled_from([name for name, f in fields.items() if f.kind == "date"])) if unit != "patient" else None
    )
    if unit != "patient" and "scan_date" in fields and draw(st.booleans()):
        index = "scan_date"
    elif unit == "patient" or draw(st.integers(0, 5)) == 0:
        index = draw(DAYS)
    codelists: dict[str, CodeList] = {}
    steps = tuple(
        Step(
            f"step_{number}",
            draw(st.one_of(wheres(unit, index), events(codelists))),
            draw(st.sampled_from(["exclude", "exclude", "include", "report"])),
        )
        for number in range(draw(st.sampled_from([1, 1, 1, 2, 3])))
    )
    population = draw(st.sampled_from(["all", "all", "all", "linked", "alive_and_resident"]))
    question = Question(draw(ids()), unit, index, population, (), steps, draw(picks(unit)))
    used = {name for _, _, asked in event_steps(question) for name in asked.codes}
    kept = tuple(codelist for name, codelist in codelists.items() if name in used)
    return Question(question.id, unit, index, population, kept, steps, question.pick)


def ids() -> st.SearchStrategy[str]:
    """Names of cohorts, the awkward ones too."""
    return st.sampled_from(["a", "ct-head", "0206010", "1e3", "no", "null", "2016-01-01", "0x1f", "12_30"])


@st.composite
def wheres(draw: st.DrawFn, unit: str, index: Any) -> Where:
    fields = domain.fields(unit)
    names = [name for name in fields if name != domain.AGE or index == domain.AGE_DATE]
    tests: list[Test] = []
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=draw(st.sampled_from([1, 1, 2])), unique=True)):
        field = fields[name]
        operator = draw(st.sampled_from(domain.OPERATORS[field.kind]))
        if operator == "is_missing":
            tests.append(Test(name, "is_missing", (draw(st.booleans()),)))
            continue
        value = (
            st.sampled_from((field.choices or TEXTS[:4])[:3])
            if field.kind in ("choice", "set") or (field.kind == "text" and name != "birth_month")
            else values(field.column)
        )
        many = {"in": (1, 3), "ne": (1, 2), "between": (2, 2)}.get(operator, (1, 1))
        chosen = draw(st.lists(value, min_size=many[0], max_size=many[1], unique=operator != "between"))
        tests.append(Test(name, operator, tuple(sorted(chosen) if operator == "between" else chosen)))
    return Where(tuple(tests))


@st.composite
def events(draw: st.DrawFn, codelists: dict[str, CodeList]) -> Has | Lacks | First:
    kinds = tuple(draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2, unique=True)))
    names = []
    for system in sorted({SYSTEM_OF[kind] for kind in kinds}):
        name = f"list-{len(codelists)}"
        codes = tuple(draw(st.lists(st.sampled_from([*CODES[system], CODES[system][0][:2]]), min_size=1, max_size=2, unique=True)))
        codelists[name] = CodeList(name, system, codes, None, draw(st.sampled_from(["prefix", "exact"])))
        names.append(name)
    kind = draw(st.sampled_from([Has, Lacks, First]))
    ends = sorted(draw(st.tuples(st.integers(-20, 20), st.integers(-20, 20))))
    low, high = (None if draw(st.integers(0, 5)) == 0 else end for end in ends)
    window = Window(low, high)
    if kind is First and window == EVER:
        window = Window(None, 5)
    fits = window.low is None or window.high is None or window.low < window.high
    at_least = draw(st.integers(1, 2)) if kind is not First and fits else 1
    return kind(Events(kinds, tuple(names) if draw(st.integers(0, 4)) else (), window, at_least))


@st.composite
def picks(draw: st.DrawFn, unit: str) -> Pick | None:
    above = [name for name in ("patient", "study") if name in domain.levels(unit)[1:]]
    if not above or draw(st.booleans()):
        return None
    fields = domain.fields(unit)
    names = [name for name, field in fields.items() if field.kind not in ("set", "list", "id") and name != domain.AGE]
    chosen = draw(st.lists(st.sampled_from([*names, domain.key(unit)]), min_size=1, max_size=2, unique=True))
    return Pick(draw(st.sampled_from(above)), tuple(Order(name, draw(st.booleans())) for name in chosen))


@st.composite
def tables_for(draw: st.DrawFn, question: Question) -> Tables:
    """Tables with values in every column the question looks at, keys that may lead nowhere, and gaps in cover and residence."""
    looked_at = {test.column for step in question.steps if isinstance(step.predicate, Where) for test in step.predicate.tests}
    looked_at |= {order.column for order in question.pick.order} if question.pick else set()
    looked_at |= {question.index} if isinstance(question.index, str) else set()
    used = {(f.table, f.name) for name, f in domain.fields(question.unit).items() if name in looked_at}

    def row(name: str, **given: Any) -> dict[str, Any]:
        columns = table("deidentified", name).by_name
        drawn = {
            column: draw(maybe(values(columns[column])) if columns[column].nullable else values(columns[column]))
            for level, column in sorted(used)
            if level == name and column not in given
        }
        return {**drawn, **given}

    people = [row("patient", patient_id=p, merged_into=draw(st.sampled_from([None] * 7 + ["p1"]))) for p in PEOPLE[:3]]
    for person in people:
        person.setdefault("birth_month", draw(st.sampled_from([None, "1950-01", "1950-01", "2010-02", "2010-03"])))
        person.setdefault("death_date", draw(st.one_of(st.none(), st.none(), DAYS)))
    who = st.sampled_from([*PEOPLE[:3] * 3, PEOPLE[3], None])
    found: Tables = {"patient": people}
    found["study"] = [row("study", study_id=s, patient_id=draw(who)) for s in STUDIES[:3]]
    count = draw(st.integers(3, len(SERIES)))
    found["series"] = [
        row("series", series_id=s, study_id=draw(st.sampled_from(STUDIES)), patient_id=draw(who))
        for s in (SERIES[:count] if question.unit == "series" else SERIES[:2])
    ]
    if question.unit == "image":
        found["image"] = [
            row(
                "image",
                image_id=f"i{draw(st.integers(1, 6))}",
                locator_id=f"l{number}",
                series_id=draw(st.sampled_from(SERIES[:3])),
                study_id=draw(st.sampled_from(STUDIES)),
                patient_id=draw(who),
            )
            for number in range(draw(st.integers(3, 6)))
        ]
    if not event_steps(question) and question.population != "alive_and_resident":
        return found
    asked = tuple(kind for _, _, events in event_steps(question) for kind in events.kinds)
    # Mostly observed, so that answers are yes and no as often as unknown; then gaps, late starts and early ends of every kind.
    found["residence"] = []
    for person in PEOPLE:
        spells = draw(st.sampled_from(["whole", "whole", "whole", "whole", "pieces", "none"]))
        if spells == "whole":
            found["residence"].append({"patient_id": person, "from_date": day(-90), "to_date": None})
        if spells == "pieces":
            move = draw(st.integers(-10, LENGTH))
            found["residence"] += [
                {"patient_id": person, "from_date": day(-90), "to_date": day(move)},
                {
                    "patient_id": person,
                    "from_date": day(move + draw(st.sampled_from([-2, 1, 1, 2]))),
                    "to_date": draw(st.one_of(st.none(), DAYS)),
                },
            ]
    groups = [KINDS[:1], KINDS[1:3], KINDS[3:], *draw(st.sampled_from([[], [], [KINDS[:2]]]))]
    found["source_cover"] = [
        {
            "source": f"source{number}",
            "site": "demo",
            "from_date": day(draw(st.sampled_from([-60, -60, -60, 0, 12]))),
            "to_date": day(draw(st.sampled_from([LENGTH + 40, LENGTH + 40, LENGTH + 40, LENGTH, 11]))),
            "lag_days": draw(st.sampled_from([0, 3])),
            "kinds": list(kinds),
        }
        for number, kinds in enumerate(groups)
    ]
    found["event"] = draw(st.lists(one_event(asked or KINDS), min_size=5, max_size=9))
    return found


def dense_tables(seed: int) -> Tables:
    """Tables in which much happens, drawn evenly: Hypothesis prefers few and small, and some faults show among many events only."""
    chance = random.Random(seed)

    def days(low: int, high: int) -> date:
        return day(chance.randint(low, high))

    people = PEOPLE[:3]
    found: Tables = {"patient": [{"patient_id": p, "birth_month": "1950-01"} for p in people]}
    found["study"] = [{"study_id": s, "patient_id": chance.choice(people)} for s in STUDIES]
    found["series"] = [
        {
            "series_id": series,
            "study_id": chance.choice(STUDIES),
            "patient_id": chance.choice(people),
            "scan_date": days(0, LENGTH),
            "slice_thickness_max": chance.choice([None, 1.5, 3.0]),
            "image_count": chance.choice([1, 80]),
        }
        for series in SERIES
    ]
    found["residence"] = []
    for person in people:
        left, back = sorted((days(-10, LENGTH), days(-10, LENGTH + 20)))
        whole = chance.random() < 0.5
        found["residence"].append({"patient_id": person, "from_date": day(-90), "to_date": None if whole else left})
        if not whole:
            found["residence"].append({"patient_id": person, "from_date": back, "to_date": None})
    found["source_cover"] = [
        {
            "source": f"source{number}",
            "site": "demo",
            "from_date": day(chance.choice([-60, -60, 0, 12])),
            "to_date": day(chance.choice([LENGTH + 40, LENGTH + 40, LENGTH, 20])),
            "lag_days": chance.choice([0, 3]),
            "kinds": [kind],
        }
        for number, kind in enumerate(KINDS)
    ]
    found["event"] = [
        {
            "event_id": f"e{number}",
            "patient_id": chance.choice(people),
            "source": "source0",
            "kind": (kind := chance.choice(KINDS)),
            # A code means nothing without its system: the same letters may stand in another one.
            "system": chance.choice([SYSTEM_OF[kind], SYSTEM_OF[kind], "local"]),
            "code": chance.choice([*CODES[SYSTEM_OF[kind]], None]),
            "date": days(0, LENGTH),
        }
        for number in range(chance.choice([6, 12, 24]))
    ]
    found["event"] += [{**chance.choice(found["event"]), "event_id": f"again{number}"} for number in range(4)]
    return found


@st.composite
def one_event(draw: st.DrawFn, asked: tuple[str, ...]) -> dict[str, Any]:
    kind = draw(st.sampled_from([*asked, *asked, *asked, *KINDS]))
    system = draw(st.sampled_from([SYSTEM_OF[kind]] * 7 + ["local"]))
    return {
        "event_id": draw(st.sampled_from(["e1", "e2", "e3"])),
        "patient_id": draw(st.sampled_from([*PEOPLE[:3], *PEOPLE])),
        "source": "source0",
        "kind": kind,
        "system": system,
        "code": draw(st.sampled_from([*CODES.get(system, CODES["icd10"]), None])),
        "date": draw(DAYS),
    }


@st.composite
def cases(draw: st.DrawFn, unit: str | None = None) -> tuple[Question, dict[str, Codes], Tables]:
    """A question, its code lists and tables to ask it of."""
    question = draw(questions(unit))
    return question, codes_of(question), draw(tables_for(question))


def codes_of(question: Question) -> dict[str, Codes]:
    """Code lists of a question that can be asked."""
    assert check.faults(question) == []
    codes, faults = resolve(question, NOWHERE)
    assert faults == []
    return codes
