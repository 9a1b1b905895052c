"""A release held in memory, for questions that are edited while one looks at their counts. Runs on the driver; reads one zone.

Two things make an edit fast. Ids are whole numbers here, given out in the order of the published ids so that ties break alike, and events
lie sorted by code, so that a code list reads a few stretches of them. And every condition of a question is compiled and answered apart
(`compile.leaves`) and its answers are kept, one byte a unit: an edit asks one condition again, and everything else is the least and the
greatest of bytes that are known already. What conditions of people say depends on person and day only; they are asked once for all scans
that share both.

A condition's answers are kept under the condition itself with the codes of its lists, and a `Live` belongs to one release, so nothing
that is kept can be out of date. The published tables are read at the release's versions, through Delta's log, once, when a question first
needs them. Questions about images, whose table may not fit into memory, and matched controls are answered by the plan itself.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlglot import exp

from pictures_spark.cohort import attrition, check, compile, domain, duck
from pictures_spark.cohort.attrition import Level
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.compile import Saved
from pictures_spark.cohort.duck import ZONE, Release
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.model import (
    AllOf,
    AnyOf,
    Change,
    Events,
    Finding,
    Gap,
    Member,
    Nearest,
    NoneOf,
    Population,
    Predicate,
    Question,
    Related,
    Step,
    Where,
    asked_events,
    in_hours,
    leaves,
    members_in,
)
from pictures_spark.cohort.sql import col, cols, named, select
from pictures_spark.errors import InputError, PicturesError
from pictures_spark.schema import table
from pictures_spark.zones import Zones

Answers = npt.NDArray[np.int8]  # one per unit: 0 no, 1 unknown, 2 yes
_NUMBERED = ("patient", "study", "series")
# Long tables, of which a question looks at a few rows of each unit: numbered as they are read.
_READ_THROUGH = ("tag", "study_tag", "image_feature")
_EVENT_CODE = ("source", "kind", "system", "code", "code_root")
# Events that are sorted at a time: some 200 bytes each until they are packed.
_SORTED = 8_000_000
_KEPT_BYTES = 1 << 29
# A window that is observed takes some ten bytes a person and day.
_KEPT_WINDOWS = 64


class CancelledError(PicturesError):
    """Another question came before this one was answered."""


@dataclass(frozen=True)
class Found:
    """What a question found: the attrition, and the numbers of the members."""

    unit: str
    levels: tuple[Level, ...]
    numbers: npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Units:
    """All units of one kind: which numbers are units, and of each level above them the order that brings its groups together."""

    ids: pa.ChunkedArray
    there: npt.NDArray[np.bool_]
    groups: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]


@dataclass(frozen=True)
class _Asked:
    """The days on which people are asked about, for one unit and index: the relation that has them, and each unit's place in it."""

    unit: Any
    place: npt.NDArray[np.int32]
    size: int


@dataclass(frozen=True)
class _Window:
    """For which people and days the windows of a condition are observed: columns of a table. And whether each touches cover for any."""

    table: str
    columns: tuple[str, ...]
    touches: bool


@dataclass(frozen=True)
class _Case:
    """A question with all that it refers to."""

    question: Question
    codes: Mapping[str, Codes]
    saved: Mapping[str, Saved]

    def key(self, condition: Predicate | str) -> Any:
        """What the answers of a condition depend on."""
        index = self.question.index
        lists = tuple(self.codes[name] for name in _codelists((condition, index)))
        return self.question.unit, index, condition, lists, tuple(self.saved[member.cohort] for member in members_in(condition))

    def alone(self, *predicates: Predicate, population: Population = "all") -> "_Case":
        """A question of the same unit and index with these steps alone."""
        steps = tuple(Step(f"step_{n}", predicate) for n, predicate in enumerate(predicates))
        question = self.question
        return replace(self, question=Question(question.id, question.unit, question.index, population, question.codelists, steps))

    def leaves(self, key: tuple[str, ...] = compile.ASKED) -> compile.Leaves:
        return compile.leaves(self.question, self.codes, self.saved, key)


def _codelists(node: Any) -> Iterator[str]:
    """Names of the code lists that a part of a question refers to."""
    if isinstance(node, Events):
        yield from node.codes
    elif isinstance(node, tuple):
        for part in node:
            yield from _codelists(part)
    elif is_dataclass(node):
        for one in fields(node):
            yield from _codelists(getattr(node, one.name))


@dataclass
class Live:
    """One release in memory. One question at a time; `cancel` ends the one that is being answered."""

    connection: duckdb.DuckDBPyConnection
    release: Release
    _there: set[str] = field(default_factory=set)
    _units: dict[str, _Units] = field(default_factory=dict)
    _asked: dict[tuple[str, Any], _Asked] = field(default_factory=dict)
    _spell: Any = None
    _windows: "OrderedDict[tuple[str, Any], _Window]" = field(default_factory=OrderedDict)
    _made: int = 0
    _answers: "OrderedDict[Any, tuple[Answers, bool]]" = field(default_factory=OrderedDict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, question: Question, codes: Mapping[str, Codes], source: str = "", saved: Mapping[str, Saved] | None = None) -> Found:
        """The exact attrition of a checked question with its resolved code lists and saved cohorts.

        Raises
        ------
        QuestionError
            No published source can hold what a step asks for, or none covers any unit's window.
        CancelledError
            `cancel` was called meanwhile.
        """
        with self._turn:
            try:
                # A question that was cancelled may have left the names of another schema.
                self.connection.execute("USE live.main")
                return self._ask(_Case(question, codes, saved or {}), source)
            except duckdb.InterruptException:
                raise CancelledError("the question was changed before it was answered") from None

    def cancel(self) -> None:
        """End the question that is being answered in another thread; what it has found out is kept."""
        self.connection.interrupt()

    def forget(self) -> None:
        """Let go of every answer; the tables stay."""
        self._answers.clear()
        self._make_room(0)

    def ids(self, found: Found) -> list[str]:
        """Published ids of the members, in their order; of images, only of the last answer."""
        self.connection.register("member", pa.table({"number": found.numbers}))
        sql = f"SELECT n.id FROM live.number_{found.unit} AS n JOIN member ON member.number = n.number ORDER BY n.number"
        return [row[0] for row in self.connection.execute(sql).fetchall()]

    def facet(self, unit: str, column: str, among: Found | None = None) -> list[tuple[Any, int, int]]:
        """Each value of a column with how many units and how many linked patients have it, most units first.

        A set is counted under each of its values, an empty one as missing. ``among`` counts the members of an answer only.
        """
        found = domain.fields(unit)[column]
        assert found.keyword is None, "a facet counts a column, not a header tag or a pixel feature"
        assert found.part is None, "a facet counts a column, not a part of it"
        with self._turn:
            self._load(unit)
            self._load(found.table)
            source = f"live.deidentified_{unit} AS u"
            if found.table != unit:
                key = domain.key(found.table)
                source += f" LEFT JOIN live.deidentified_{found.table} AS o ON o.{key} = u.{key}"
            if among is not None:
                self.connection.register("member", pa.table({"number": among.numbers}))
                source += f" SEMI JOIN member ON member.number = u.{domain.key(unit)}"
            value = f'{"u" if found.table == unit else "o"}."{found.name}"'
            if found.kind in ("set", "list"):
                value = f"unnest(CASE WHEN len({value}) > 0 THEN {value} ELSE [NULL] END)"
            rows = f"SELECT {value} AS value, u.patient_id FROM {source}"
            sql = f"SELECT value, count(*), count(DISTINCT patient_id) FROM ({rows}) GROUP BY value ORDER BY 2 DESC, value"
            return self.connection.execute(sql).fetchall()

    # Answers

    def _ask(self, case: "_Case", source: str) -> Found:
        question = case.question
        if asked_events(question):
            self._load("source_cover")
            self._refuse(source, check.not_held(question, duck.kinds_held(self.connection)))
        if question.unit == "image" or question.match is not None:
            return self._by_plan(case, source)
        self._tests(case)
        self._records(case)
        says, faults = [self._population(case)], []
        for step in question.steps:
            answer, touches = self._predicate(case, step.predicate)
            says.append(answer)
            if not touches:
                faults.append(check.untouched(step.id, question.unit))
        self._make_room(_KEPT_WINDOWS)
        self._refuse(source, faults)
        return self._counted(case, says)

    def _refuse(self, source: str, faults: list[str]) -> None:
        if faults:
            raise QuestionError(source, faults)

    def _predicate(self, case: "_Case", predicate: Predicate) -> tuple[Answers, bool]:
        """What a predicate says of every unit, and whether each window of it touches what is covered for some unit."""
        match predicate:
            case AllOf(parts):
                answers, touches = zip(*(self._predicate(case, part) for part in parts), strict=True)
                return np.minimum.reduce(answers), all(touches)
            case AnyOf(parts):
                answers, touches = zip(*(self._predicate(case, part) for part in parts), strict=True)
                return np.maximum.reduce(answers), all(touches)
            case NoneOf(parts):
                answer, touch = self._predicate(case, AnyOf(parts))
                return (2 - answer).astype(np.int8), touch
            case Where(tests):
                return np.minimum.reduce([self._answers[case.key(Where((test,)))][0] for test in tests]), True
        key = case.key(predicate)
        return self._kept(key) or self._keep(key, self._asked_apart(case.alone(predicate)))

    def _tests(self, case: "_Case") -> None:
        """Have the answers of all comparisons of a question, asking for those that are not known yet in one scan."""
        wheres = [leaf for step in case.question.steps for leaf in leaves(step.predicate) if isinstance(leaf, Where)]
        tests = {case.key(Where((test,))): Where((test,)) for where in wheres for test in where.tests}
        new = {key: test for key, test in tests.items() if self._kept(key) is None}
        if new:
            answers = self._said(case.alone(*new.values()).leaves(), {}, len(self._all(case.question.unit).there))
            for key, answer in zip(new, answers, strict=True):
                self._keep(key, (answer, True))

    def _records(self, case: "_Case") -> None:
        """Have the answers of all conditions about people's records and residence, asking together for those that are not known yet."""
        population = case.question.population
        asked = {case.key(leaf): leaf for step in case.question.steps for leaf in leaves(step.predicate) if _is_about_days(leaf)}
        new = {key: leaf for key, leaf in asked.items() if self._kept(key) is None}
        if population != "alive_and_resident" or self._kept(case.key(population)) is not None:
            population = "all"
        keys = [*new, *([case.key(population)] if population != "all" else [])]
        if len(keys) > 1:
            for key, found in zip(keys, self._asked_of_days(case.alone(*new.values(), population=population)), strict=True):
                self._keep(key, found)

    def _population(self, case: "_Case") -> Answers:
        key = case.key(case.question.population)
        found = self._kept(key)
        if found is None and case.question.population == "all":
            found = self._keep(key, (np.full(len(self._all(case.question.unit).there), 2, np.int8), True))
        return (found or self._keep(key, self._asked_apart(case.alone(population=case.question.population))))[0]

    def _kept(self, key: Any) -> tuple[Answers, bool] | None:
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def _keep(self, key: Any, found: tuple[Answers, bool]) -> tuple[Answers, bool]:
        self._answers[key] = found
        return found

    def _make_room(self, windows: int) -> None:
        """Let go of the answers and windows that were not used for longest."""
        while len(self._windows) > windows:
            self._drop(self._windows.popitem(last=False)[1].table)
        while len(self._answers) > 1 and sum(answers.nbytes for answers, _ in self._answers.values()) > _KEPT_BYTES:
            self._answers.popitem(last=False)

    def _asked_apart(self, case: "_Case") -> tuple[Answers, bool]:
        """Ask the tables for the one condition of a question about events, other scans or residence."""
        size = len(self._all(case.question.unit).there)
        asks = case.leaves()
        predicate = case.question.steps[0].predicate if case.question.steps else None
        if any(members_in(predicate)) or _takes_an_event(predicate):
            return self._said_by_tables(case, asks, size)
        if isinstance(predicate, Related | Nearest | Gap | Finding):
            return self._said(asks, {}, size)[0], True
        if in_hours(predicate):
            # Of each unit's own time of day, which no other shares.
            self._load_all(asks)
            return self._said(asks, {}, size)[0], all(self._touches(asks, {}))
        return self._asked_of_days(case)[0]

    def _asked_of_days(self, case: "_Case") -> list[tuple[Answers, bool]]:
        """Ask the tables for conditions that depend on person and day alone, and last for the population if it does: as `_predicate`."""
        asks, asked = case.leaves(compile.HELD), self._days(case)
        given = {"unit": asked.unit, "spell": self._spell, "lived" if "around" in dict(asks.ctes) else "asked": asked.unit}
        touches = [True] * len(asks.windows)
        if asks.observed:
            self._load_all(asks)
            # Who is resident is a column of the same relation, and not kept with the windows.
            given["observed"], touches = self._observed(asks, given, anew=case.question.population != "all")
        answers = self._said(asks, given, asked.size)
        touches += [True] * (len(answers) - len(touches))
        return [(answer[asked.place], touch) for answer, touch in zip(answers, touches, strict=True)]

    def _load_all(self, asks: compile.Leaves) -> None:
        for name in asks.tables:
            self._load(name)

    def _said(self, asks: compile.Leaves, given: Mapping[str, exp.Select], size: int) -> list[Answers]:
        self._load_all(asks)
        return _scattered(self._columns(asks.reading(asks.says, given).sql("duckdb")), size)

    def _said_by_tables(self, case: "_Case", asks: compile.Leaves, size: int) -> tuple[Answers, bool]:
        """What needs ids of events or of saved cohorts, which are not held, is asked of the published tables."""
        with self._published():
            touches = all(self._touches(asks, {}))
            sql = asks.reading(asks.says, {}).sql("duckdb")
            sql = (
                f"SELECT n.number AS unit_id, says_0 FROM ({sql}) AS s JOIN live.main.number_{case.question.unit} AS n ON n.id = s.unit_id"
            )
            return _scattered(self._columns(sql), size)[0], touches

    def _columns(self, sql: str) -> dict[str, npt.NDArray[Any]]:
        return {name: np.asarray(column) for name, column in self.connection.execute(sql).fetchnumpy().items()}

    def _touches(self, asks: compile.Leaves, given: Mapping[str, exp.Select]) -> list[bool]:
        """Whether the windows of each condition about events touch what is covered for some unit."""
        if asks.touching is None:
            return []
        units, *touched = self.connection.execute(asks.reading(asks.touching, given).sql("duckdb")).fetchone() or (0,)
        return [not units or bool(count) for count in touched]

    def _observed(self, asks: compile.Leaves, given: Mapping[str, exp.Select], anew: bool) -> tuple[exp.Select, list[bool]]:
        """Which windows are observed, and of each condition whether its windows touch what is covered for some unit."""
        of = [(given["unit"].sql(), tuple(asks.observed[place] for place in places)) for places in asks.windows]
        if not anew and len(of) == 1 and of[0] in self._windows:
            self._windows.move_to_end(of[0])
            known = self._windows[of[0]]
            renamed = [named(col(column), f"is_{place}") for column, place in zip(known.columns, asks.windows[0], strict=True)]
            return select([*cols(compile.HELD), *renamed], known.table), [known.touches]
        name = f"observed_{self._made}"
        self._made += 1
        observed = asks.reading(select([exp.Star()], "observed"), given)
        self.connection.execute(f"CREATE OR REPLACE TABLE live.{name} AS {observed.sql('duckdb')}")
        touches = self._touches(asks, given)
        for key, places, touch in zip(of, asks.windows, touches, strict=True):
            before = self._windows.pop(key, None)
            self._windows[key] = _Window(name, tuple(f"is_{place}" for place in places), touch)
            if before is not None:
                self._drop(before.table)
        return select([exp.Star()], name), touches

    def _drop(self, table: str) -> None:
        """Let go of a table of windows that none is read from any more."""
        if all(window.table != table for window in self._windows.values()):
            self.connection.execute(f"DROP TABLE IF EXISTS live.{table}")

    def _counted(self, case: "_Case", says: list[Answers]) -> Found:
        """The attrition from the answers of every step."""
        question = case.question
        units, steps = self._all(question.unit), compile.planned(question, case.codes)
        alive = units.there.copy()
        passed = np.where(alive, 0, -1).astype(np.int8)
        unknowns = []
        for step, answers in zip(steps[1:], says, strict=False):
            unknowns.append(int(np.count_nonzero(alive & (answers == 1))))
            alive &= answers > (1 if step.unknown == "exclude" else 0)
            passed += alive
        numbers = np.flatnonzero(alive).astype(np.int32)
        if len(steps) > len(says) + 1:
            numbers, lost = self._last(case, numbers, passed)
            unknowns += lost
        last = len(steps) - 1
        nothing = [0] * last
        by_units = [(*row, *nothing) for row in _by_last_step(passed)] + [(last, 0, *unknowns)]
        by_people = _by_last_step(_furthest(passed, *units.groups["patient"]))
        return Found(question.unit, attrition.levels(steps, by_units, by_people), numbers)

    def _last(self, case: "_Case", numbers: npt.NDArray[np.int32], passed: npt.NDArray[np.int8]) -> tuple[npt.NDArray[np.int32], list[int]]:
        """What acts on the survivors: members, and how many each act cannot tell of.

        A pick knows them by their numbers, which stand in the order of the published ids; what hashes ids by the published ones. ``passed``
        of the survivors is counted on.
        """
        question = case.question
        plan = compile.compiled(replace(question, population="all", steps=(), outputs=(), breakdowns=()), case.codes)
        unit = question.unit
        hashed = question.sample is not None or question.split is not None
        ids = self._all(unit).ids.take(numbers) if hashed else numbers
        self.connection.register("survivor_now", pa.table({"number": numbers, "id": ids}))
        self.connection.execute("CREATE OR REPLACE TABLE live.survivor AS FROM survivor_now")
        self.connection.execute("CREATE SCHEMA IF NOT EXISTS live.survivors")
        for name in plan.tables:
            self._load(name)
            # Wherever a survivor is named, it is by its published id.
            named = [column for column, level in _numbers_in(name).items() if level == unit]
            join = "JOIN" if name == unit else "LEFT JOIN"
            joins = " ".join(f"{join} live.main.survivor AS s_{column} ON s_{column}.number = t.{column}" for column in named)
            ids = ", ".join(f"s_{column}.id AS {column}" for column in named)
            rows = f"SELECT t.*{f' REPLACE ({ids})' if named else ''} FROM live.main.deidentified_{name} AS t {joins}"
            self.connection.execute(f"CREATE OR REPLACE VIEW live.survivors.deidentified_{name} AS {rows}")
        with self._published("live.survivors"):
            sql = f"SELECT s.number, f.passed, f.unknowns FROM ({plan.sql('duckdb')}) AS f JOIN live.main.survivor AS s ON s.id = f.unit_id"
            found = self._columns(sql)
        passed[found["number"]] += (found["passed"] - 1).astype(np.int8)
        acts = range(2, len(plan.steps))
        lost = [int(np.count_nonzero((found["passed"] >= act - 1) & (found["unknowns"] >> act & 1 == 1))) for act in acts]
        return np.sort(found["number"][found["passed"] == plan.last]).astype(np.int32), lost

    def _by_plan(self, case: "_Case", source: str) -> Found:
        unit = case.question.unit
        plan = compile.compiled(case.question, case.codes, case.saved)
        with self._published():
            self._refuse(source, [check.untouched(step, unit) for step in duck.untouched(self.connection, plan)])
            answer = duck.answer(self.connection, plan)
            ids = f"SELECT unit_id AS id FROM flags WHERE passed = {plan.last}"
            if unit == "image":
                self.connection.execute(f"CREATE OR REPLACE TABLE live.main.number_image AS {_numbered(ids)}")
            members = f"SELECT n.number FROM live.main.number_{unit} AS n SEMI JOIN ({ids}) AS m ON m.id = n.id ORDER BY 1"
            numbers = self._columns(members)["number"]
        return Found(unit, answer.levels, numbers.astype(np.int32))

    @contextmanager
    def _published(self, schema: str = "memory.main") -> Iterator[None]:
        """Names of tables are those of another schema for a while: as published, or with the ids of survivors."""
        self.connection.execute(f"USE {schema}")
        try:
            yield
        finally:
            self.connection.execute("USE live.main")

    # What is held

    def _all(self, unit: str) -> _Units:
        if unit not in self._units:
            self._load(unit)
            self._load("patient")
            key = domain.key(unit)
            size = self._size(f"number_{unit}")
            where = "WHERE merged_into IS NULL" if unit == "patient" else ""
            keys = [domain.key(level) for level in domain.levels(unit)]
            rows = self.connection.execute(f"SELECT {', '.join(keys)} FROM live.deidentified_{unit} {where}").fetchnumpy()
            there = np.zeros(size, np.bool_)
            there[rows[key]] = True
            groups = {}
            for name, level in zip(keys, domain.levels(unit), strict=True):
                of = np.full(size, -1, np.int64)
                of[rows[key]] = np.ma.filled(rows[name], -1)
                order = np.argsort(of, kind="stable")
                order = order[np.searchsorted(of[order], 0) :]
                groups[level] = order, np.flatnonzero(np.diff(of[order], prepend=-1))
            ids = self.connection.execute(f"SELECT id FROM live.number_{unit} ORDER BY number").to_arrow_table()["id"]
            self._units[unit] = _Units(ids, there, groups)
        return self._units[unit]

    def _days(self, case: "_Case") -> _Asked:
        question = case.question
        key = case.key("")
        if key not in self._asked:
            for name in {*domain.levels(question.unit), "patient", "residence", "event"}:
                self._load(name)
            shared = compile.kept(case.alone(population="alive_and_resident").question, case.codes)
            number = len(self._asked)
            asked = f"asked_{number}"
            self.connection.execute(f"CREATE OR REPLACE TEMP TABLE unit_now AS {shared['unit'].sql('duckdb')}")
            self.connection.execute(
                f"CREATE OR REPLACE TABLE live.{asked} AS SELECT (row_number() OVER () - 1)::INTEGER AS unit_id, * "
                f"FROM ({shared['asked'].sql('duckdb')})"
            )
            sql = f"SELECT u.unit_id, a.unit_id AS place FROM unit_now AS u JOIN live.{asked} AS a"
            sql += " ON a.asked_day = u.asked_day AND a.patient_id IS NOT DISTINCT FROM u.patient_id"
            rows = self.connection.execute(sql).fetchnumpy()
            self.connection.execute("DROP TABLE unit_now")
            place = np.zeros(len(self._all(question.unit).there), np.int32)
            place[rows["unit_id"]] = rows["place"]
            if self._spell is None:
                self.connection.execute(f"CREATE OR REPLACE TABLE live.spells AS {shared['spell'].sql('duckdb')}")
                self._spell = select([exp.Star()], "spells")
            self._asked[key] = _Asked(select([exp.Star()], asked), place, self._size(asked))
        return self._asked[key]

    def _size(self, name: str) -> int:
        found = self.connection.execute(f"SELECT count(*) FROM live.{name}").fetchone()
        return found[0] if found else 0

    def _load(self, name: str) -> None:
        """Have a table of the release in memory, with numbers for ids."""
        if name in self._there:
            return
        if name == "event":
            self._load_events()
        else:
            ids = _numbers_in(name)
            columns = [column.name for column in table(ZONE, name).own]
            chosen = ", ".join(f'n_{c}.number AS "{c}"' if c in ids else f't."{c}"' for c in columns)
            joins = " ".join(f"LEFT JOIN live.number_{level} AS n_{c} ON n_{c}.id = t.{c}" for c, level in ids.items())
            kind = "VIEW" if name in _READ_THROUGH else "TABLE"
            self.connection.execute(
                f"CREATE OR REPLACE {kind} live.deidentified_{name} AS SELECT {chosen} FROM memory.main.deidentified_{name} AS t {joins}"
            )
            self._pack()
        self._there.add(name)

    def _load_events(self) -> None:
        code = ", ".join(_EVENT_CODE)
        same = " AND ".join(f"c.{name} IS NOT DISTINCT FROM e.{name}" for name in _EVENT_CODE[2:])
        same += "".join(f" AND c.{name} = e.{name}" for name in _EVENT_CODE[:2])
        rest = [column.name for column in table(ZONE, "event").own if column.name not in (*_EVENT_CODE, "event_id", "patient_id")]
        self.connection.execute(
            "CREATE OR REPLACE TABLE live.event_code AS "
            f"SELECT (row_number() OVER (ORDER BY kind, system, code, source, code_root) - 1)::INTEGER AS code_number, {code}, events "
            f"FROM (SELECT {code}, count(*) AS events FROM memory.main.deidentified_event GROUP BY {code})"
        )
        # People that no unit can have are left out: nothing joins with them.
        rows = (
            f"SELECT c.code_number, n.number AS patient_id, {', '.join(f'e.{name}' for name in rest)} "
            f"FROM memory.main.deidentified_event AS e JOIN live.number_patient AS n ON n.id = e.patient_id "
            f"JOIN live.event_code AS c ON {same}"
        )
        self.connection.execute(f"CREATE OR REPLACE TABLE live.event_row AS {rows} LIMIT 0")
        for first, last, kinds in self._stretches():
            within = f"c.code_number BETWEEN {first} AND {last} AND e.kind IN ({', '.join(map(duck.quoted, kinds))})"
            self.connection.execute(f"INSERT INTO live.event_row {rows} WHERE {within} ORDER BY c.code_number, n.number, e.date")
            self._pack()
        self.connection.execute(
            "CREATE OR REPLACE VIEW live.deidentified_event AS "
            f"SELECT r.* EXCLUDE (code_number), {', '.join(f'c.{name}' for name in _EVENT_CODE)} "
            "FROM live.event_row AS r JOIN live.event_code AS c USING (code_number)"
        )

    def _stretches(self) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """The codes in their order, cut so that few enough events can be sorted at a time: first and last number, and kinds of event."""
        stretches: list[list[tuple[int, str]]] = []
        room = 0
        for number, kind, events in self.connection.execute("SELECT code_number, kind, events FROM live.event_code ORDER BY 1").fetchall():
            if events > room:
                stretches.append([])
                room = _SORTED
            stretches[-1].append((number, kind))
            room -= events
        for codes in stretches:
            yield codes[0][0], codes[-1][0], tuple(sorted({kind for _, kind in codes}))

    def _pack(self) -> None:
        """Compress what was read since: DuckDB does that to tables in memory at a checkpoint, to a fifth or less."""
        self.connection.execute("CHECKPOINT live")


@contextmanager
def opened(zones: Zones) -> Iterator[Live]:
    """The newest release, ready to be asked.

    Raises
    ------
    InputError
        Nothing is published.
    """
    with duck.reader(zones) as connection:
        release = duck.newest_release(connection, zones)
        if release is None:
            raise InputError("nothing is published yet: run `pictures publish`, then ask again")
        there = (name for name in compile.TABLES if name not in duck.UNPINNED or duck.is_written(zones, name))
        duck.pin(connection, zones, release, tuple(there))
        yield held(connection, release)


def held(connection: duckdb.DuckDBPyConnection, release: Release) -> Live:
    """A release whose tables a connection has under their names with `compile.PREFIX`, ready to be asked."""
    connection.execute("ATTACH ':memory:' AS live (COMPRESS)")
    connection.execute("USE live.main")
    for level in _NUMBERED:
        # Every row that names one: a study's patient may be missing from the table of patients.
        names = _NUMBERED[_NUMBERED.index(level) :]
        ids = " UNION ALL ".join(f"SELECT {level}_id AS id FROM memory.main.deidentified_{name}" for name in names)
        connection.execute(f"CREATE TABLE live.number_{level} AS {_numbered(ids)}")
    return Live(connection, release)


def _numbers_in(name: str) -> dict[str, str]:
    """The columns of a table that hold numbers for ids, and what each is an id of."""
    found = {f"{level}_id": level for level in _NUMBERED if f"{level}_id" in table(ZONE, name).by_name}
    # A feature is of the image or the series that its ``id`` names; those of images are asked for by their series.
    return found | ({"id": "series"} if name == domain.FEATURES else {})


def _numbered(ids: str) -> str:
    """Different ids, numbered from 0 in their order."""
    distinct = f"SELECT DISTINCT id FROM ({ids}) WHERE id IS NOT NULL"
    return f"SELECT id, (row_number() OVER (ORDER BY id) - 1)::INTEGER AS number FROM ({distinct})"


def _is_about_days(leaf: Predicate) -> bool:
    """Whether a condition depends on person and day alone."""
    about_units = isinstance(leaf, Where | Related | Nearest | Gap | Finding | Member)
    return not about_units and not _takes_an_event(leaf) and not in_hours(leaf)


def _takes_an_event(leaf: Predicate | None) -> bool:
    """Whether of several events of a day their ids say which is taken."""
    match leaf:
        case Nearest(among):
            return isinstance(among, Events)
        case Change():
            return leaf.take == "ends"
        case _:
            return False


def _scattered(rows: Mapping[str, npt.NDArray[Any]], size: int) -> list[Answers]:
    """Each column of answers as an array with a place for every unit; the places are in ``unit_id``."""
    found = []
    for name in rows:
        if name != "unit_id":
            found.append(np.zeros(size, np.int8))
            found[-1][rows["unit_id"]] = rows[name]
    return found


def _furthest(passed: npt.NDArray[np.int8], order: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """How far the furthest unit of each group got."""
    return np.maximum.reduceat(passed[order], starts) if len(starts) else passed[:0]


def _by_last_step(passed: npt.NDArray[np.int8]) -> list[tuple[int, int]]:
    """Each last step passed, and by how many."""
    counts = np.bincount(passed[passed >= 0])
    return [(int(last), int(count)) for last, count in enumerate(counts) if count]
