"""People planted for questions of the cohort language, and the answer key that is true by construction.

Enters: schemas/synthetic/questions.yaml. Leaves: people, their scans and events in the arrays that drawn people come in, and the key: which
units are in a question's answer and which only nearly are, with why. Pure. No query is ever asked to make the key.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from pictures_spark.errors import ConfigError
from pictures_spark.resources import load_schema
from pictures_spark.synthetic.draws import Draws, day
from pictures_spark.synthetic.lives import NEVER, Events, Lives, People
from pictures_spark.synthetic.nation import dates
from pictures_spark.synthetic.scanning import PLANTED, Scans, scanning

COLUMNS = ("question", "unit", "uid", "answer", "why", "value")
SYSTEMS = {
    "diagnosis": "icd10",
    "death_cause": "icd10",
    "tumour": "icd10",
    "delivery": "icd10",
    "procedure": "opcs4",
    "dispensing": "bnf",
    "lab": "read2",
}
# Copies of a case have numbers below this.
_COPIES = 1_000
_ANSWERS = ("yes", "no")
_FINDING = ("finding", "polarity", "certainty", "subject")


@dataclass(frozen=True)
class Case:
    """One planted person."""

    question: str
    unit: str
    id: str
    answer: str
    why: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Planted:
    """The planted people and what is true of them.

    Attributes
    ----------
    reports : rows of ``report`` and ``report_finding``, by table.
    key : columns of `COLUMNS`; ``value`` is what a question tells of a unit beside that it is in, or empty.
    """

    lives: Lives
    ids: pa.Array
    scans: tuple[Scans, ...]
    reports: Mapping[str, pa.Table]
    key: pa.Table


@cache
def cases() -> tuple[Case, ...]:
    """Every case, its question's base filled in.

    Raises
    ------
    ConfigError
        A case has an answer that is neither yes nor no, or a protocol that is not declared.
    """
    found = []
    for question in load_schema("synthetic/questions.yaml")["questions"]:
        for case in question["cases"]:
            facts = {**question["base"], **case}
            faulty = [name for _, name, *_ in facts["scans"] if name not in scanning()["protocols"]]
            if case["answer"] not in _ANSWERS or faulty:
                raise ConfigError(
                    f"schemas/synthetic/questions.yaml: case {case['id']} of question {question['question']} is not well formed"
                )
            found.append(Case(question["question"], question["unit"], case["id"], case["answer"], case["why"], facts))
    return tuple(found)


def planted(draws: Draws, copies: int = 1) -> Planted:
    """Plant every case ``copies`` times, each at another time. Indices are negative, so that they are never those of drawn people."""
    every = [(case, -1 - (number * _COPIES + copy)) for number, case in enumerate(cases()) for copy in range(copies)]
    index = np.array([number for _, number in every], np.int64)
    span = load_schema("synthetic/questions.yaml")["anchor"]
    anchors = draws.whole("anchor", index, day(span["from"]), day(span["to"]))
    men = draws.happens("male", index, 0.5)
    columns: dict[str, list[int]] = defaultdict(list)
    male: list[bool] = []
    scans: dict[str, list[tuple[int, int, int, int]]] = defaultdict(list)
    reports: list[tuple[Any, ...]] = []
    events: dict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    key: list[tuple[str, ...]] = []
    for who, (case, number) in enumerate(every):
        facts = case.facts
        anchor, birth = _born(day(facts["on"]) if "on" in facts else int(anchors[who]), facts["age"])
        away = facts.get("away")
        died = anchor + facts["died"] if "died" in facts else NEVER
        row = {
            "birth": birth,
            "death": died,
            "start": birth,
            "end": NEVER,
            "gap_start": anchor + away[0] if away else NEVER,
            "gap_end": anchor + away[1] if away else NEVER,
        }
        for name, value in row.items():
            columns[name].append(value)
        male.append(facts["sex"] == "M" if "sex" in facts else bool(men[who]))
        same = facts.get("same_pixels", {})
        for place, (at, protocol, *_) in enumerate(facts["scans"]):
            scans[protocol].append((who, anchor + at, place, same.get(place, -1)))
        for place, (scan, *told) in enumerate(facts.get("reports", ())):
            reports.append((number, who, scan, place, anchor + facts["scans"][scan][0], *told))
        for at, source, kind, code, *more in facts.get("events", ()):
            given: Mapping[str, Any] = more[0] if more else {}
            form = (source, kind, SYSTEMS.get(kind), given.get("position"), given.get("unit"))
            events[form].append(
                (who, anchor + at, code, anchor + given["end"] if "end" in given else NEVER, given.get("stay", -1), given.get("value"))
            )
        if died < NEVER:
            events[("deaths", "death", None, None, None)].append((who, died, "", NEVER, -1, None))
        key += _answers(draws, case, number)
    group = People(index=index, male=np.array(male), **{name: np.array(values, np.int64) for name, values in columns.items()})
    lives = Lives(group, tuple(_events(events)), (), (), np.zeros(len(index), np.int64))
    made = tuple(
        Scans(protocol, *(np.array(part, np.int64) for part in zip(*rows, strict=True))) for protocol, rows in sorted(scans.items())
    )
    table = pa.table({name: pa.array([row[at] for row in key], pa.string()) for at, name in enumerate(COLUMNS)})
    ids = draws.names("patient", index)
    return Planted(lives, ids, made, _reports(draws, ids, reports), table)


def _reports(draws: Draws, ids: pa.Array, rows: list[tuple[Any, ...]]) -> dict[str, pa.Table]:
    """Rows of two tables from (number, place in the batch, scan, report, day, finding, polarity, certainty, subject)."""
    number, who, scan, place, on, *told = (list(part) for part in zip(*rows, strict=True))
    index = np.array(number, np.int64)
    shared = {
        "report_id": draws.names("report", index, np.array(place, np.int64)),
        "study_id": draws.names("study", index, np.array(scan, np.int64)),
        "patient_id": ids.take(pa.array(who)),
    }
    count = len(rows)
    report = {
        "report_date": dates(np.array(on, np.int64)),
        "status": pa.repeat(pa.scalar("final"), count),
        "study_link": pa.repeat(pa.scalar("linked"), count),
    }
    finding = {name: pa.array(values, pa.string()) for name, values in zip(_FINDING, told, strict=True)}
    return {
        "report": pa.table({**shared, **report}),
        "report_finding": pa.table({**shared, **finding, "nlp_version": pa.repeat(pa.scalar(PLANTED), count)}),
    }


def _born(anchor: int, age: list[int]) -> tuple[int, int]:
    """The day of the first scan, moved by one where the birthday would be 29 February, and the birth date."""
    years, days = age
    birthday = date.fromordinal(date(1970, 1, 1).toordinal() + anchor - days)
    if (birthday.month, birthday.day) == (2, 29):
        return _born(anchor + 1, age)
    return anchor, (birthday.replace(year=birthday.year - years) - date(1970, 1, 1)).days


def _answers(draws: Draws, case: Case, number: int) -> Iterator[tuple[str, ...]]:
    """The units of a case that are judged: those whose answer is not empty."""
    index = np.array([number], np.int64)

    def row(kind: str, slot: int, answer: str) -> tuple[str, ...]:
        value = str(case.facts.get("value", "")) if answer == "yes" else ""
        return case.question, case.unit, draws.names(kind, index, slot)[0].as_py(), answer, case.why, value

    if case.unit == "patient":
        yield row("patient", 0, case.answer)
        return
    for place, (_, protocol, *own) in enumerate(case.facts["scans"]):
        told = own[0] if own else case.answer
        if case.unit == "study":
            if told:
                yield row("study", place, told)
            continue
        series = scanning()["protocols"][protocol]["series"]
        # A lone answer is that of the study's only series, or of all of them.
        each = told if isinstance(told, list) else [told] * len(series)
        for at, answer in enumerate(each):
            if answer:
                yield row("series", place * 100 + at, answer)


def _events(events: Mapping[tuple[Any, ...], list[tuple[Any, ...]]]) -> Iterator[Events]:
    for (source, kind, system, position, unit), rows in events.items():
        codes = tuple(sorted({row[2] for row in rows if row[2]}))
        who, on, code, end, stay = (
            np.array(part, np.int64) for part in zip(*[(w, o, codes.index(c) if c else -1, e, s) for w, o, c, e, s, _ in rows], strict=True)
        )
        value = np.array([row[5] for row in rows], np.float64) if any(row[5] is not None for row in rows) else None
        yield Events(source, kind, system, codes, who, on, code, end, stay, position, value, unit)
