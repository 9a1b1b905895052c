"""From a question to one relational plan, built as sqlglot expressions and printed for each engine.

What every engine must agree on is written out, never left to a default:

- Three values. A comparison with a missing value is unknown (SQL's NULL); a step of several tests is their AND, where one no decides.
  ``unknown`` in a closed list, and an empty set of one, are missing values.
- Days. Dates become whole days since 1970-01-01 and are only compared as numbers: no interval arithmetic, no time zone, no clipping.
  Where hours are asked for, a time of day is a number of seconds, and one that is not known a first and a last second.
- Order. Missing values come last, and the unit's own id ends every order.
- Patterns are written again in the words that all engines read alike (`pictures_spark.cohort.pattern`).
- Samples are the first by the SHA-256 of seed and id, which every engine computes alike.
- Cover. No event found means no only where the window, as far as the person lived, lies inside the cover of every source that can hold
  such an event and inside one unbroken residence; else the answer is unknown.

The shape of the plan is the same for every question: ``unit``, its rows with every column that is looked at; ``asked``, each person and
index day that units share (a dozen series of one day are asked about once); ``observed``, which windows are, and who is resident, from one
join with the residences; ``event``, one scan of the events with a flag for each thing asked of them; ``ever``, what it says of a person
whatever the day, and ``found``, one join with it that is reduced once; ``said``, all that is known of a person and day, so that the many
rows of units are joined once; ``answered``, the three-valued answers; ``judged``, bits. What acts on the survivors looks at them alone.

The plan's rows (`Plan.flags`) are one per unit: ``unit_id``, ``patient_id``, ``index_date``, ``holds`` and ``unknowns`` (bit k is step k of
the attrition) and ``passed``, the last step a unit survived; last what its own row says it belongs to and has (`OWN`). Attrition, members
and hashes are small questions about these rows, so steps can be switched off or put in another order without asking the tables again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Protocol

from sqlglot import exp

from pictures_spark.cohort import domain, sentence
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.domain import Field
from pictures_spark.cohort.model import (
    EVER,
    MATCH_ROUNDS,
    AllOf,
    Anchor,
    AnyOf,
    Chain,
    Change,
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
    Output,
    Predicate,
    Question,
    Related,
    Split,
    Stay,
    Test,
    Unknown,
    Where,
    Window,
    counts_hours_from_index,
    event_steps,
    events_of,
    in_hours,
    last_acts,
)
from pictures_spark.cohort.pattern import canonical
from pictures_spark.cohort.sql import (
    FALSE,
    NULL,
    TRUE,
    Join,
    Node,
    all_of,
    any_of,
    bit,
    case,
    coalesce,
    col,
    cols,
    count_distinct,
    day,
    eq,
    ge,
    gt,
    is_null,
    is_one_of,
    lag,
    le,
    literal,
    lt,
    named,
    not_,
    not_null,
    number,
    over,
    plus,
    relation,
    select,
    subquery,
    text,
    with_ctes,
)

PREFIX = "deidentified_"
DIALECTS = ("duckdb", "spark")
# What a plan may read.
TABLES = (
    *domain.UNITS,
    *sorted(domain.TAG_TABLES),
    *(
        domain.FEATURES,
        domain.TEXT,
        domain.TEXTS,
        "residence",
        "event",
        "stay",
        "source_cover",
        "report",
        "report_finding",
        "cohort_member",
    ),
)
_FLAGS = ("unit_id", "patient_id", "index_date", "holds", "unknowns", "passed")
# Carried along, so that nobody who counts the rows has to join them with their table again.
OWN: Mapping[str, tuple[str, ...]] = {"patient": (), "study": (), "series": ("study_id", "image_count"), "image": ("study_id", "series_id")}
_FIRST_STEP = 2  # after the start and the population
_LAST_DAY = 2932896  # 9999-12-31: a residence that lasts
_NO_DAY = -(1 << 30)  # stands for no index date in a key, where NULL would equal nothing
_NO_MOMENT = -(1 << 60)  # the same where a key has the time of day too
_HOUR, _DAY = 3600, 86400  # seconds
_MEASURE = "value_std"
_WEEK, _EPOCH_WEEKDAY = 7, 3  # days; 1970-01-01 was a Thursday, three days after a Monday
_OTHER_TIME = 100_000  # seconds that no day has, so that a day and a second are one number
ASKED = ("patient_id", "asked_day")  # the key of what is said of a person and day
HELD = ("unit_id",)  # the same where each has a number
_VERDICTS = ("text", "not_determined", "clean")  # of several images, the first that any has
_NUMBERED = frozenset({"ever", "found", "observed"})  # relations whose columns are numbered, each number being used once
_READ_AGAIN = frozenset({"unit", "cover"})  # computed again for less than it takes to keep them: wide rows, and one row
_STRETCHES = 16  # of codes that a scan of the events is narrowed to
_WHOLE_HASHES = 1 << 32  # hashes are told apart by their first 8 hexadecimal digits


@dataclass(frozen=True)
class PlannedStep:
    """One line of the attrition: ``index`` in the plan is its bit."""

    id: str
    sentence: str
    unknown: Unknown


@dataclass(frozen=True)
class Saved:
    """A frozen cohort that a question refers to."""

    run_id: str
    unit: str


@dataclass(frozen=True)
class Plan:
    """A compiled question.

    ``flags`` gives one row per unit, ``touching`` one row with, for each event step, how many units have a window that touches the
    cover of its sources at all (None where there are no such steps). ``shown`` gives one row per unit too, member or not: ``unit_id``,
    ``patient_id``, ``study_id`` and ``image_count`` where the unit has them, one column for each that an output shows (`columns`), and for
    each column of the breakdowns one (`keys`); None where the question has neither. ``pairs`` gives the controls of a match: ``case_id``,
    ``control_id`` and ``place``, from 1. ``tables`` are the tables of the de-identified zone
    that all of these read, each under its name with `PREFIX`.
    """

    unit: str
    steps: tuple[PlannedStep, ...]
    flags: exp.Select
    touching: exp.Select | None
    tables: tuple[str, ...]
    shown: exp.Select | None = None
    columns: tuple[str, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()
    pairs: exp.Select | None = None

    @property
    def last(self) -> int:
        """Index of the last step: members are the rows that passed it."""
        return len(self.steps) - 1

    def sql(self, dialect: str, pretty: bool = False) -> str:
        """The SQL of `flags` for an engine, ``duckdb`` or ``spark``."""
        return self.flags.sql(dialect, pretty=pretty)

    @property
    def relations(self) -> tuple[str, ...]:
        """Names of the relations that `flags` is made of, in order."""
        return tuple(cte.alias for cte in self.flags.args["with_"].expressions)

    @property
    def stages(self) -> tuple[str, ...]:
        """Relations of `flags` that an engine which computes them anew for each reader should keep, in order; and that which is joined to
        all units, because a small one is sent to them."""
        read = Counter(node.name for node in self.flags.find_all(exp.Table))
        return tuple(name for name in self.relations if name == "said" or (read[name] > 1 and name not in _READ_AGAIN))

    def reading(self, given: Mapping[str, str], name: str | None = None) -> exp.Select:
        """`flags`, or one of the relations that it is made of, where some of them are there under other names."""
        return _reading(self.flags, given, name)

    def paired(self, given: Mapping[str, str]) -> exp.Select | None:
        """`pairs` in the same way."""
        return _reading(self.pairs, given) if self.pairs is not None else None


def _reading(query: exp.Select, given: Mapping[str, str], name: str | None = None) -> exp.Select:
    known = {cte.alias: cte.this for cte in query.args["with_"].expressions}
    query = select([exp.Star()], name) if name is not None else query.copy()
    query.set("with_", None)
    wanted: set[str] = set()
    queue: list[exp.Select] = [query]
    while queue:
        read = {node.name for node in queue.pop().find_all(exp.Table)} & known.keys() - wanted
        wanted |= read
        queue += [known[one] for one in read - given.keys()]
    ctes = [(one, select([exp.Star()], given[one]) if one in given else cte) for one, cte in known.items() if one in wanted]
    return with_ctes(query, ctes) if ctes else query


def compiled(question: Question, codes: Mapping[str, Codes], saved: Mapping[str, Saved] | None = None) -> Plan:
    """Compile a checked question with its resolved code lists and saved cohorts."""
    plan = _Compiler(question, codes, saved or {}).plan()
    if not question.outputs and not question.breakdowns:
        return plan
    # A plan of its own, so that what is shown of members makes the question who they are no slower.
    compiler = _Compiler(question, codes, saved or {})
    shown, columns, keys = compiler.shown()
    return replace(plan, shown=shown, columns=columns, keys=keys, tables=tuple(sorted({*plan.tables, *compiler.tables})))


def planned(question: Question, codes: Mapping[str, Codes]) -> tuple[PlannedStep, ...]:
    """The lines of the attrition of a question: start, population, its steps, and what acts on the survivors."""
    acts = last_acts(question)
    policies: list[Unknown] = ["exclude", "exclude", *(step.unknown for step in question.steps)]
    policies += ["exclude" for _ in acts]
    ids = ["start", "population", *(step.id for step in question.steps), *acts]
    return tuple(PlannedStep(*step) for step in zip(ids, sentence.lines(question, codes), policies, strict=True))


@dataclass(frozen=True)
class Leaves:
    """Conditions of a question, compiled apart from the rest of it.

    ``says`` gives ``unit_id`` and, for each condition, ``says_<n>`` of every unit: 0 no, 1 unknown, 2 yes; so the least of several answers
    is their AND and the greatest their OR. A unit of which each says no may be missing. ``touching`` and ``tables`` are as in `Plan`. Both
    read the relations of ``ctes``; ``observed`` is what each column of the relation of that name depends on, besides the units: a window,
    and the kinds and sources of events that must cover it. ``windows`` are the places in it of what each condition of ``touching`` asks.
    """

    says: exp.Select
    touching: exp.Select | None
    ctes: tuple[tuple[str, exp.Select], ...]
    observed: tuple[Any, ...]
    windows: tuple[tuple[int, ...], ...]
    tables: tuple[str, ...]

    def reading(self, query: exp.Select, given: Mapping[str, exp.Select]) -> exp.Select:
        """A query on the relations of the leaves; those that are given are read instead of asking the tables for them."""
        needless = {"spell": ("residence_days", "residence_opens", "residence_islands"), "lived": ("days",), "asked": ("days", "lived")}
        dropped = {name for known in given for name in needless.get(known, ())}
        return with_ctes(query, [(name, given.get(name, cte)) for name, cte in self.ctes if name not in dropped])


def leaves(question: Question, codes: Mapping[str, Codes], saved: Mapping[str, Saved], key: tuple[str, ...] = ASKED) -> Leaves:
    """Compile every step of a question for itself, and last its population, if that is not all or there are no steps.

    ``key`` is `HELD` where people and days are numbered, and the units are they.
    """
    return _Compiler(question, codes, saved, key).leaves()


def kept(question: Question, codes: Mapping[str, Codes]) -> dict[str, exp.Select]:
    """What all questions about people share that have the unit and index of one which asks who is alive and resident, and nothing else.

    ``unit`` is each unit with its person and days, ``asked`` each person and day with the person's lifetime, ``spell`` the residences.
    """
    compiler = _Compiler(question, codes, {})
    relations = {
        "unit": [*compiler.anchored(), ("unit", compiler.unit())],
        "asked": [*compiler.anchored(), *compiler.asked()],
        "spell": compiler.spells(),
    }
    return {name: with_ctes(select([exp.Star()], name), ctes) for name, ctes in relations.items()}


class _Valued(Protocol):
    """Rows that conditions can be asked of."""

    @property
    def fields(self) -> Mapping[str, Field]: ...

    def value(self, field: Field) -> Node: ...

    def most(self, field: Field) -> Node: ...


class _Rows:
    """The rows of a unit with the values that a question turns out to look at; ``name`` is the relation they are in.

    ``index`` is the day of the residence that is looked at, in the words of the unit's own table.
    """

    def __init__(self, unit: str, name: str, index: Node) -> None:
        self.unit = unit
        self.name = name
        self.index = index
        self.fields = domain.fields(unit)
        self.used: dict[str, Field] = {}
        self.tables: set[str] = {unit}

    def value(self, field: Field) -> Node:
        """A value of a row, NULL in every way of being missing; of a span of numbers, the smallest."""
        name = _name(field)
        self.tables.add(field.table)
        self.used[name] = field
        return col(name, self.name)

    def most(self, field: Field) -> Node:
        """The largest number of a span."""
        self.value(field)
        return col(f"{_name(field)}_most", self.name)

    def select(self, columns: Sequence[Node], more: Sequence[Join] = ()) -> exp.Select:
        """The rows: these columns, and one for each value that was asked for."""
        unit = self.unit
        columns = list(columns)
        joins: list[Join] = [*more] + [
            (_table(parent), eq(col(domain.key(parent), unit), col(domain.key(parent), parent)), "left")
            for parent in domain.levels(unit)[1:]
            if parent in self.tables
        ]
        if domain.RESIDENCE in self.tables:
            on = [eq(col("patient_id", "home"), col("patient_id", unit))]
            on += [le(col("from_day", "home"), self.index), ge(col("to_day", "home"), self.index)]
            joins.append((subquery(_homes(), "home"), all_of(*on), "left"))
        for name, field in self.used.items():
            if field.table == domain.RESIDENCE:
                columns.append(named(_part(col(field.column.name, "home"), field.part), name))
                continue
            if field.keyword is None:
                columns.append(named(_present(_part(col(field.column.name, field.table), field.part), field), name))
                continue
            below = {"study_tag": "study", "tag": "series", domain.TEXTS: "study" if unit == "study" else "series"}
            key = domain.key(below.get(field.table, unit))
            joins.append((subquery(_tag(field, key, unit), name), eq(col(key, unit), col("owner_id", name)), "left"))
            columns.append(named(col("least", name), name))
            if field.kind == "span":
                columns.append(named(col("most", name), f"{name}_most"))
        source, where = _table(unit), []
        if unit == "patient":
            # A pseudonym that was merged into another is not a person of its own.
            where.append(is_null(col("merged_into", "patient")))
        if unit == "image":
            # Several contents under one instance UID are one image; the first locator stands for it.
            place = over(exp.RowNumber(), [col("image_id", "image")], [exp.Ordered(this=col("locator_id", "image"))])
            source = subquery(select([exp.column(exp.Star(), "image"), named(place, "content")], _table("image")), "image")
            where.append(eq(col("content", "image"), number(1)))
        return select(columns, source, joins, where)


class _Compiler:
    """One question on its way to a plan; collects the columns, tables and common table expressions that its steps turn out to need."""

    def __init__(self, question: Question, codes: Mapping[str, Codes], saved: Mapping[str, Saved], key: tuple[str, ...] = ASKED) -> None:
        self.question = question
        self.key = key
        self.codes = codes
        self.saved = saved
        self.fields = domain.fields(question.unit)
        self.rows = _Rows(question.unit, "unit", day(self._index()))
        self.timed = counts_hours_from_index(question)
        self.tables: set[str] = set()
        self.ctes: list[tuple[str, exp.Select]] = []
        self.joined: list[str] = []
        self.by_asked: dict[str, tuple[str, ...]] = {}  # of those joined, what is said of a person or of a person and day, and its key
        # What is asked about events; a place in these lists is the number in the names of its columns.
        self.covers: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self.windows: list[tuple[Window, Anchor]] = []
        self.observed: list[tuple[int, int]] = []  # window and cover
        self.wanted: list[Node] = []
        self.sought: list[Events] = []  # what those are flags of
        self.found: list[tuple[Node, Node | None]] = []  # what is made of those, and which rows of the join matter; no join without
        self.steps: dict[int, list[tuple[int, int]]] = {}  # what each step must have observed
        self.event_columns: dict[str, Node] = {}  # of `event`, besides person, day and flags
        self.counted: dict[str, int] = {}

    def plan(self) -> Plan:
        question = self.question
        answers = {1: self._population()}
        for index, step in enumerate(question.steps, start=_FIRST_STEP):
            answers[index] = self._answer(step.predicate)
            asked = self._asked_of(index - _FIRST_STEP)
            if asked:
                self.steps[index] = asked
        steps = planned(question, self.codes)
        events = self._events()
        said, answered = self._answered(answers)  # before the unit's own rows, so that every column they must have is known
        unit = self.unit()
        self.tables |= self.rows.tables
        ctes = [*self.anchored(), ("unit", unit), *self.spells(), *self._lifetimes(), *events, *self.ctes, *said]
        last = len(answers)
        relations = [("answered", answered), ("judged", self._judged([step.unknown for step in steps], last))]
        flags = select([*cols(_FLAGS), *self._own], "judged")
        if question.pick is not None:
            flags = self._picked(last)
            last += 1
        if question.match is not None:
            if question.pick is not None:
                relations.append(("picked", flags))
            relations += self._matching(question.match, last, relations[-1][0])
            flags = self._matched(last, relations[-1][0])
            last += 1
        if question.sample is not None:
            if question.pick is not None or question.match is not None:
                relations.append(("unsampled", flags))
            flags = self._sampled(last, relations[-1][0])
            last += 1
        if question.split is not None:
            if last_acts(question) != ["split"]:
                relations.append(("unsplit", flags))
            flags = self._split(question.split, last, relations[-1][0])
        pairs = None
        if question.match is not None:
            place = over(exp.RowNumber(), [col("case_id")], [exp.Ordered(this=col("hash")), exp.Ordered(this=col("control_id"))])
            upto = [name for name, _ in relations].index("matched") + 1
            pairs = with_ctes(select([*cols(("case_id", "control_id")), named(place, "place")], "matched"), [*ctes, *relations[:upto]])
        return Plan(
            question.unit,
            steps,
            with_ctes(flags, [*ctes, *relations]),
            with_ctes(self._touching(), ctes) if self.steps else None,
            tuple(sorted(self.tables)),
            pairs=pairs,
        )

    def leaves(self) -> Leaves:
        answers = [self._answer(step.predicate) for step in self.question.steps]
        if not answers or self.question.population != "all":
            answers.append(self._population())
        self.steps = {index: asked for index in range(len(self.question.steps)) if (asked := self._asked_of(index))}
        events = self._events()
        steps = [f"step_{n}" for n in range(len(answers))]
        rows = select([col("unit_id", "unit"), *map(named, answers, steps)], "unit", self._joins())
        columns = []
        for n, name in enumerate(steps):
            # Without branches, which take longer than what they decide upon.
            twice = plus(exp.cast(col(name), "tinyint"), exp.cast(col(name), "tinyint"))
            columns.append(named(exp.cast(coalesce(twice, number(1)), "tinyint"), f"says_{n}"))
        # One says yes of few, as a rule; several together leave hardly any out.
        some = [coalesce(col(steps[0]), TRUE)] if len(steps) == 1 else []
        return Leaves(
            select([col("unit_id"), *columns], subquery(rows, "answered"), where=some),
            self._touching() if self.steps else None,
            (*self.anchored(), ("unit", self.unit()), *self.spells(), *events, *self.ctes),
            tuple((self.windows[window], self.covers[cover]) for window, cover in self.observed),
            tuple(tuple(map(self.observed.index, asked)) for asked in self.steps.values()),
            tuple(sorted(self.tables | self.rows.tables)),
        )

    def _asked_of(self, index: int) -> list[tuple[int, int]]:
        """The windows, and what must cover them, of all that a step asks of events."""
        asked = [_window_of(events) for i, _, events in event_steps(self.question) if i == index]
        return [(self._number(self.windows, window), self._number(self.covers, cover)) for window, cover in asked]

    def shown(self) -> tuple[exp.Select, tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The rows that outputs and breakdowns are shown of, with the names of their columns."""
        unit = self.question.unit
        carried = [named(self.rows.value(self.fields["study_id"]), "study_id")] if unit != "patient" else []
        carried += [named(self.rows.value(self.fields["image_count"]), "image_count")] if unit == "series" else []
        found = [column for output in self.question.outputs for column in self._output(output)]
        grouped, keys = domain.grouped(unit), []
        groups: dict[str, Node] = {}
        for breakdown in self.question.breakdowns:
            for name in breakdown.by:
                if name in grouped:
                    groups.setdefault(name, self.rows.value(grouped[name]))
                else:
                    groups.setdefault(name, dict(found)[name])
            keys.append(tuple(f"by_{list(groups).index(name)}" for name in breakdown.by))
        columns = [*cols(("unit_id", "patient_id"), "unit"), *carried, *(named(value, name) for name, value in found)]
        columns += [named(value, f"by_{n}") for n, value in enumerate(groups.values())]
        events = self._events()
        rows = self.unit()
        said, query = self._gathered(columns, [(relation("cover"), None, "cross")] if "cover" in dict(events) else [])
        self.tables |= self.rows.tables
        ctes = [*self.anchored(), ("unit", rows), *self.spells(), *events, *self.ctes, *said]
        return with_ctes(query, ctes), tuple(name for name, _ in found), tuple(keys)

    # Rows

    def unit(self) -> exp.Select:
        """One row per unit with every value that a step, the index or the pick looks at."""
        unit = self.question.unit
        index = self._index()
        columns = [named(col(domain.key(unit), unit), "unit_id"), named(col("patient_id", unit), "patient_id")]
        columns += [named(index, "index_date"), named(day(index), "index_day")]
        if self.timed:
            columns += self._index_moment()
        if self._is_about_people:
            columns.append(named(self._asked_day(), "asked_day"))
        return self._of_units(self.rows, columns)

    def _of_units(self, rows: _Rows, columns: Sequence[Node]) -> exp.Select:
        """The rows of the unit, with the table or the relation that the index date is in."""
        if isinstance(self.question.index, str):
            rows.tables.add(self.fields[self.question.index].table)
            clock = domain.clock(self.question.unit, self.question.index)
            rows.tables |= {clock.table} if clock is not None and self.timed else set()
        same_person = eq(col("patient_id", "anchor"), col("patient_id", self.question.unit))
        anchored: list[Join] = [(relation("anchor"), same_person, "left")]
        return rows.select(columns, anchored if isinstance(self.question.index, IndexEvent) else ())

    def _days(self) -> list[tuple[str, exp.Select]]:
        """Each person and day that units are asked about; read apart from the rows of units, which have many more columns."""
        index = self._index()
        row = [named(col("patient_id", self.question.unit), "patient_id"), named(self._asked_day(), "asked_day")]
        moment: tuple[str, ...] = ()
        if self.timed:
            moment = ("index_day", *_INDEX_SECONDS)
            row += [named(day(index), "index_day"), *self._index_moment()]
        days = select(
            cols((*ASKED, *moment)), subquery(self._of_units(_Rows(self.question.unit, "dated", day(index)), row), "dated"), distinct=True
        )
        self.tables.add("patient")
        indexed = cols(moment, "days") or [named(exp.Nullif(this=col("asked_day", "days"), expression=number(_NO_DAY)), "index_day")]
        lifetime = [named(_born(), "birth_day"), named(day(col("death_date", "patient")), "death_day")]
        same_person = eq(col("patient_id", "patient"), col("patient_id", "days"))
        asked = select([*cols(ASKED, "days"), *indexed, *lifetime], "days", [(_table("patient"), same_person, "left")])
        return [("days", days), ("lived", asked)]

    def _index_seconds(self) -> Node:
        """The time of day of the index date, as the unit's own rows have it."""
        index = self.question.index
        if isinstance(index, IndexEvent):
            return col("index_seconds", "anchor")
        field = domain.clock(self.question.unit, index) if isinstance(index, str) else None
        assert field is not None, "the check refuses hours from a date without a time"
        # Without a day a time says nothing, and would make two of what is one.
        return case([(not_null(self._index()), _seconds(col(field.name, field.table)))], NULL)

    def _index_moment(self) -> list[Node]:
        """The first and the last second that the index date's time may be."""
        return [named(value, name) for value, name in zip(_ends_of_day(self._index_seconds()), _INDEX_SECONDS, strict=True)]

    def _asked_day(self) -> Node:
        """What tells the days apart that a person is asked about: the day, and where hours count from it the time of day."""
        index = day(self._index())
        if not self.timed:
            return coalesce(index, number(_NO_DAY))
        return coalesce(_composed(index, coalesce(self._index_seconds(), number(_OTHER_TIME - 1))), number(_NO_MOMENT))

    @property
    def _is_about_people(self) -> bool:
        return bool(self.observed) or self.question.population == "alive_and_resident"

    def _index(self) -> Node:
        index = self.question.index
        match index:
            case None:
                return exp.cast(NULL, "date")
            case date():
                return literal(index)
            case IndexEvent():
                return col("index_date", "anchor")
            case _:
                field = self.fields[index]
                return col(field.name, field.table)

    def anchored(self) -> list[tuple[str, exp.Select]]:
        """The index date of each person, where it is the day of an event."""
        index = self.question.index
        if not isinstance(index, IndexEvent):
            return []
        self.tables |= {"event", "source_cover"}  # the cover, to refuse an event that no source can hold
        first = (exp.Min if index.which == "first" else exp.Max)(this=col("date", "event"))
        person = col("patient_id", "event")
        columns = [person, named(first, "index_date")]
        if self.timed:
            # The first or last second of that day; one that has no time is before, or after, all that have.
            lost = -1 if index.which == "first" else _OTHER_TIME - 1
            moment = _composed(day(col("date", "event")), coalesce(_seconds(col("time", "event")), number(lost)))
            moment = type(first)(this=moment)
            seconds = exp.Sub(this=moment, expression=_composed(exp.Paren(this=day(first)), number(0)))
            columns.append(named(exp.Nullif(this=exp.Paren(this=seconds), expression=number(lost)), "index_seconds"))
        return [("anchor", select(columns, _table("event"), where=self._among(index.events), group=[person]))]

    def _stays(self) -> list[tuple[str, exp.Select]]:
        """The stay that contains the index date: the one that began last, then that of the last id."""
        if not any(anchor != "index" for _, anchor in self.windows):
            return []
        self.tables.add("stay")
        begins, ends = day(col("start_date", "stay")), day(col("end_date", "stay"))
        index, asked = col("index_day", "lived"), cols(self.key, "lived")
        on = [eq(col("patient_id", "stay"), col("patient_id", "lived")), le(begins, index), any_of(is_null(ends), ge(ends, index))]
        order = [exp.Ordered(this=begins, desc=True), exp.Ordered(this=col("stay_id", "stay"), desc=True)]
        columns = [
            *asked,
            named(begins, "start_of_stay"),
            named(ends, "end_of_stay"),
            named(over(exp.RowNumber(), asked, order), "place"),
        ]
        around = select(columns, "lived", [(_table("stay"), all_of(*on), "")])
        kept = cols((*self.key, "start_of_stay", "end_of_stay"))
        return [("around", select(kept, subquery(around, "placed"), where=[eq(col("place"), number(1))]))]

    # Steps

    def _population(self) -> Node:
        linked = not_null(col("patient_id", "unit"))
        match self.question.population:
            case "all":
                return TRUE
            case "linked":
                return linked
        index, born, died = col("index_day", "unit"), col("birth_day", "asked"), col("death_day", "asked")
        self._join_asked("asked")
        self._join_asked("observed")
        return case(
            [
                (is_null(col("patient_id", "unit")), FALSE),
                (is_null(index), NULL),
                (any_of(lt(died, index), gt(born, index)), FALSE),
                (eq(col("resident", "observed"), number(1)), TRUE),
            ],
            FALSE,
        )

    def _answer(self, predicate: Predicate) -> Node:
        match predicate:
            case Where(tests):
                return _tests(self.rows, tests)
            case Has(events):
                return self._has(events)
            case Lacks(events):
                return not_(self._has(events))
            case First(events):
                return self._end(events, first=True)
            case Last(events):
                return self._end(events, first=False)
            case Chain():
                return self._chain(predicate)
            case Cover(events):
                return self._observed(events)
            case Stay():
                return self._stay(predicate)
            case Change():
                return self._change(predicate)
            case Nearest():
                return self._nearest(predicate)
            case Related():
                answer, found = self._related(predicate, self._own_rows())
                self.joined.append(found)
                return answer
            case Gap(start, end, window) if window.unit == "hour":
                return _hours_within(self._date_moment(start), self._date_moment(end), window)
            case Gap(_, _, window):
                return all_of(*_within(self._gap(predicate), window))
            case Finding():
                return self._finding(predicate)
            case Member():
                answer, found = self._member(predicate, self._own_rows())
                self.joined.append(found)
                return answer
            case AllOf(parts):
                return all_of(*map(self._answer, parts))
            case AnyOf(parts):
                return any_of(*map(self._answer, parts))
            case NoneOf(parts):
                return not_(any_of(*map(self._answer, parts)))

    def _has(self, events: Events) -> Node:
        branches: list[tuple[Node, Node]] = [(self._enough(events), TRUE)]
        if events.where is not None or events.window.unit == "hour":
            branches.append((self._enough(events, possible=True), NULL))
        return case([*branches, (self._observed(events), FALSE)], NULL)

    def _enough(self, events: Events, possible: bool = False) -> Node:
        """Whether there are events on enough days, those of which a condition is unknown counted where ``possible``."""
        inside = self._is_found(events, possible)
        within = None if events.window == EVER else inside
        if events.apart is not None:
            days = case([(inside, col("day", "event"))], NULL)
            far = ge(self._reduced(exp.Sub(this=exp.Max(this=days), expression=exp.Min(this=days)), within), number(events.apart))
            return all_of(far, self._enough(replace(events, apart=None), possible))
        if events.at_least == 1:
            return eq(self._reduced(exp.Max(this=case([(inside, number(1))], number(0))), within), number(1))
        return ge(self._reduced(count_distinct(case([(inside, col("day", "event"))], NULL)), within), number(events.at_least))

    def _end(self, events: Events, first: bool) -> Node:
        """The first or the last event of a person, and where it lies."""
        far = exp.Min if first else exp.Max

        def found(possible: bool) -> Node:
            return self._reduced(far(this=case([(self._is_wanted(events, possible), col("day", "event"))], NULL)), None)

        sure, possible = found(False), found(events.where is not None)
        low, high = self._asked_ends(events, "unit")
        inside, undecided = [not_null(sure)], [not_null(possible)]
        branches: list[tuple[Node, Node]] = []
        if events.window.low is not None:
            inside.append(ge(possible if first else sure, low))
            if first:
                branches.append((lt(sure, low), FALSE))
            else:
                undecided.append(ge(possible, low))
        if events.window.high is not None:
            inside.append(le(sure if first else possible, high))
            if first:
                undecided.append(le(possible, high))
            else:
                branches.append((gt(sure, high), FALSE))
        branches.append((all_of(*inside), TRUE))
        if events.where is not None:
            branches.append((all_of(*undecided), NULL))
        return case([*branches, (self._observed(events), FALSE)], NULL)

    def _chain(self, chain: Chain) -> Node:
        events = chain.events
        inside, n = self._is_found(events), self._next("chain")
        asked, row = cols(self.key), (*self.key, "day")
        days = [*cols(self.key, "asked"), col("day", "event")]
        same_person = eq(col("patient_id", "event"), col("patient_id", "asked"))
        order = [exp.Ordered(this=col("day"))]
        gap = exp.Sub(this=col("day"), expression=lag(col("day"), 1, asked, order))
        follows = [not_null(gap)]
        follows += [ge(gap, number(chain.gap.low))] if chain.gap.low is not None else []
        follows += [le(gap, number(chain.gap.high))] if chain.gap.high is not None else []
        opens = case([(all_of(*follows), number(0))], number(1))
        island = over(exp.Sum(this=col("opens")), asked, order, preceding=False)
        start = lag(col("day"), events.at_least - 1, [*asked, col("island")], order)
        starts = [*cols(row), named(start, "start_day")]
        long = [not_null(col("start_day"))]
        if chain.within is not None:
            long.append(le(exp.Sub(this=col("day"), expression=col("start_day")), number(chain.within)))
        found = f"chain_found_{n}"
        self.ctes += [
            (f"chain_days_{n}", select(days, "asked", [(relation("event"), same_person, "")], [inside], distinct=True)),
            (f"chain_opens_{n}", select([*cols(row), named(opens, "opens")], f"chain_days_{n}")),
            (f"chain_islands_{n}", select([*cols(row), named(island, "island")], f"chain_opens_{n}")),
            (f"chain_starts_{n}", select(starts, f"chain_islands_{n}")),
            (found, select(asked, f"chain_starts_{n}", where=long, distinct=True)),
        ]
        self._join_asked(found)
        return case([(not_null(col(self.key[0], found)), TRUE), (self._observed(events), FALSE)], NULL)

    def _join_asked(self, name: str, key: tuple[str, ...] | None = None) -> None:
        """Join what a relation says of a person and day, or of a person, to each unit that shares them."""
        self.by_asked[name] = key or self.key
        if name not in self.joined:
            self.joined.append(name)

    def _joins(self) -> list[Join]:
        """The relations that say something of units, each with how it is joined to them."""
        keys = {name: self.by_asked.get(name, ("unit_id",)) for name in self.joined}
        return [(relation(name), all_of(*(eq(col(key, name), col(key, "unit")) for key in keys[name])), "left") for name in self.joined]

    def _gathered(self, columns: Sequence[Node], more: Sequence[Join] = ()) -> tuple[list[tuple[str, exp.Select]], exp.Select]:
        """Columns of units, and before them ``said``: all that relations say of a person and day, so that it is joined to units once."""
        of_asked = [name for name in self.joined if name in self.by_asked]
        if not of_asked:
            return [], select(columns, "unit", [*self._joins(), *more])
        said: dict[tuple[str, str], str] = {}

        def moved(node: Node) -> Node:
            if not isinstance(node, exp.Column) or node.table not in self.by_asked:
                return node
            # Other relations may have columns of the same name.
            name = node.name if node.name[-1].isdigit() and node.table in _NUMBERED else f"{node.table}_{node.name}"
            said[node.table, node.name] = name
            return col(name, "said")

        columns = [column.transform(moved) for column in columns]
        others = [name for name in of_asked if name != "asked"]
        keys = [
            (relation(name), all_of(*(eq(col(key, name), col(key, "asked")) for key in self.by_asked[name])), "left") for name in others
        ]
        row = [*cols(ASKED, "asked"), *(named(col(column, table), name) for (table, column), name in said.items())]
        of_unit = [join for join, name in zip(self._joins(), self.joined, strict=True) if name not in self.by_asked]
        same: list[Join] = [(relation("said"), all_of(*(eq(col(key, "said"), col(key, "unit")) for key in ASKED)), "left")]
        return [("said", select(row, "asked", keys))], select(columns, "unit", [*same, *of_unit, *more])

    def _next(self, what: str) -> int:
        """A number of its own for each of several common table expressions of a kind."""
        self.counted[what] = self.counted.get(what, -1) + 1
        return self.counted[what]

    def _number(self, known: list[Any], wanted: Any) -> int:
        """The place of what is wanted among what is known already, so that nothing is asked twice."""
        if wanted not in known:
            known.append(wanted)
        return known.index(wanted)

    def _observed(self, events: Events) -> Node:
        window, cover = _window_of(events)
        asked = self._number(self.observed, (self._number(self.windows, window), self._number(self.covers, cover)))
        return eq(coalesce(col(f"is_{asked}", "observed"), number(0)), number(1))

    def _reduced(self, aggregate: Node, within: Node | None) -> Node:
        """What the one join of windows and events says of each person and day; NULL where there are no events.

        ``within`` is which rows of the join the aggregate looks at; without it, it depends on no window, and the events alone are asked.
        """
        return col(f"of_{self._number(self.found, (aggregate, within))}", "ever" if within is None else "found")

    def _is_wanted(self, events: Events, possible: bool = False) -> Node:
        """Whether a row of ``event`` is one of these."""
        self._number(self.sought, events)
        return col(f"is_{self._number(self.wanted, self._is_asked(events, possible))}", "event")

    def _is_found(self, events: Events, possible: bool = False) -> Node:
        """Whether a row of ``event`` is one of these, and inside the window of the row of ``asked``."""
        if events.window.unit == "hour":
            inside = coalesce(self._within_hours(events), TRUE if possible else FALSE)
            return all_of(self._is_wanted(events, possible), not_null(col("index_day", "asked")), inside)
        low, high = self._asked_ends(events, "asked")
        found = [self._is_wanted(events, possible)]
        found += [ge(col("day", "event"), low)] if events.window.low is not None else []
        found += [le(col("day", "event"), high)] if events.window.high is not None else []
        return all_of(*found)

    def _within_hours(self, events: Events) -> Node:
        """Whether a row of ``event`` lies in the window of the row of ``asked``, in hours."""
        return _hours_within(_moment("asked"), self._event_moment(), events.window)

    def _event_moment(self) -> "_Moment":
        """When a row of ``event`` happened."""
        for name, value in zip(("least", "most"), _ends_of_day(_seconds(col("time", "event"))), strict=True):
            self.event_columns[name] = value
        return _Moment(col("day", "event"), col("least", "event"), col("most", "event"))

    def _asked_ends(self, events: Events, where: str) -> tuple[Node, Node]:
        """First and last day of a window; an open end is never compared with an event."""
        anchor = self._anchor_day(events.anchor, where)
        return plus(anchor, events.window.low or 0), plus(anchor, events.window.high or 0)

    def _anchor_day(self, anchor: Anchor, where: str) -> Node:
        """The day that windows count from, in the words of the rows ``asked`` or ``unit``."""
        if anchor == "index":
            return col("index_day", where)
        if where == "unit":
            self._join_asked("around")
        return col(anchor, "around" if where == "unit" else where)

    def spells(self) -> list[tuple[str, exp.Select]]:
        """Unbroken residence of each person: rows that touch or overlap are one spell (a move inside the area is not an absence)."""
        at_risk = self.question.match is not None and self.question.match.risk_set is not None
        if not self.observed and self.question.population != "alive_and_resident" and not at_risk:
            return []
        self.tables.add("residence")
        row = ("patient_id", "from_day", "to_day")
        until = coalesce(day(col("to_date", "residence")), number(_LAST_DAY))
        days = [col("patient_id", "residence"), named(day(col("from_date", "residence")), "from_day"), named(until, "to_day")]
        person, order = [col("patient_id")], [exp.Ordered(this=col("from_day")), exp.Ordered(this=col("to_day"))]
        so_far = over(exp.Max(this=col("to_day")), person, order, preceding=True)
        opens = case([(le(col("from_day"), plus(so_far, 1)), number(0))], number(1))
        island = over(exp.Sum(this=col("opens")), person, order, preceding=False)
        ends = [named(exp.Min(this=col("from_day")), "from_day"), named(exp.Max(this=col("to_day")), "to_day")]
        return [
            ("residence_days", select(days, _table("residence"))),
            ("residence_opens", select([*cols(row), named(opens, "opens")], "residence_days", where=[le(col("from_day"), col("to_day"))])),
            ("residence_islands", select([*cols(row), named(island, "island")], "residence_opens")),
            ("spell", select([*person, *ends], "residence_islands", group=[*person, col("island")])),
        ]

    def asked(self) -> list[tuple[str, exp.Select]]:
        """Who is asked about which day, with the stay around it where a window counts from that."""
        found, stays = self._days(), self._stays()
        if not stays:
            return [found[0], ("asked", found[1][1])]
        own = dict.fromkeys((*self.key, "patient_id", "index_day", "birth_day", "death_day", *(_INDEX_SECONDS if self.timed else ())))
        kept = [*cols(tuple(own), "lived"), *cols(("start_of_stay", "end_of_stay"), "around")]
        on = all_of(*(eq(col(key, "around"), col(key, "lived")) for key in self.key))
        return [*found, *stays, ("asked", select(kept, "lived", [(relation("around"), on, "left")]))]

    def _events(self) -> list[tuple[str, exp.Select]]:
        """Who is asked about which day, which windows are observed, one scan of the events and one join with it."""
        if not self._is_about_people:
            return []
        found = self.asked()
        if self.observed:
            self.tables.add("source_cover")
            found.append(("cover", _cover(self.covers)))
        found.append(("observed", self._observe()))
        self._join_asked("observed")
        if not self.wanted:
            return found
        self.tables.add("event")
        # One flag alone is what the rows are chosen by.
        flags = [named(wanted if len(self.wanted) > 1 else TRUE, f"is_{n}") for n, wanted in enumerate(self.wanted)]
        row = [col("patient_id", "event"), named(day(col("date", "event")), "day")]
        row += [named(value, name) for name, value in self.event_columns.items()]
        found.append(("event", select([*row, *flags], _table("event"), where=[*self._at_least(self.sought), any_of(*self.wanted)])))
        person = col("patient_id", "event")
        ever = [named(value, f"of_{n}") for n, (value, within) in enumerate(self.found) if within is None]
        if ever:
            found.append(("ever", select([person, *ever], "event", group=[person])))
            self._join_asked("ever", ("patient_id",))
        reduced = [(named(value, f"of_{n}"), within) for n, (value, within) in enumerate(self.found) if within is not None]
        if reduced:
            asked = cols(self.key, "asked")
            joins: list[Join] = [(relation("event"), eq(person, col("patient_id", "asked")), "")]
            some = any_of(*(within for _, within in reduced))
            found.append(("found", select([*asked, *(value for value, _ in reduced)], "asked", joins, [some], asked)))
            self._join_asked("found")
        return found

    def _observe(self) -> exp.Select:
        person, born, died = cols(("patient_id", "birth_day", "death_day"), "asked")
        asked = cols(self.key, "asked")
        columns = list(asked)
        if self.question.population == "alive_and_resident":
            index = col("index_day", "asked")
            resident = all_of(le(col("from_day", "spell"), index), ge(col("to_day", "spell"), index))
            columns.append(named(exp.Max(this=case([(resident, number(1))], number(0))), "resident"))
        for n, (window, cover) in enumerate(self.observed):
            low, high = self._ends(window, cover)
            # Nothing happens to a person before the month of birth or after death: that time needs no cover.
            lived_from, lived_to = case([(gt(born, low), born)], low), case([(lt(died, high), died)], high)
            covered = all_of(
                ge(lived_from, col(f"from_{cover}", "cover")),
                le(lived_to, col(f"to_{cover}", "cover")),
                le(col("from_day", "spell"), lived_from),
                ge(col("to_day", "spell"), lived_to),
            )
            seen = all_of(not_null(person), le(low, high), any_of(gt(lived_from, lived_to), covered))
            columns.append(named(exp.Max(this=case([(seen, number(1))], number(0))), f"is_{n}"))
        joins: list[Join] = [(relation("cover"), None, "cross")] if self.observed else []
        joins.append((relation("spell"), eq(col("patient_id", "spell"), person), "left"))
        return select(columns, "asked", joins, group=asked)

    def _ends(self, window: int, cover: int) -> tuple[Node, Node]:
        """First and last day of a window; an open end is where the cover begins or ends."""
        asked, name = self.windows[window]
        anchor = self._anchor_day(name, "asked")
        least, most = (col(second, "asked") if asked.unit == "hour" else None for second in _INDEX_SECONDS)
        low = col(f"from_{cover}", "cover") if asked.low is None else _later(anchor, least, asked.low)
        high = col(f"to_{cover}", "cover") if asked.high is None else _later(anchor, most, asked.high)
        return low, high

    def _is_asked(self, events: Events, possible: bool = False) -> Node:
        """Whether an event is one of those asked for; never unknown: where a condition is, what ``possible`` says."""
        asked = [is_one_of(col("kind", "event"), [text(kind) for kind in events.kinds])]
        if events.codes:
            asked.append(any_of(*(_in_codelist(self.codes[name]) for name in events.codes)))
        if events.main:
            asked.append(eq(col("position", "event"), number(0)))
        if events.sources:
            asked.append(is_one_of(col("source", "event"), [text(name) for name in events.sources]))
        such = coalesce(all_of(*asked), FALSE) if len(asked) > 1 else asked[0]
        if events.where is None:
            return such
        return all_of(such, coalesce(_tests(_EventRow(), events.where.tests), TRUE if possible else FALSE))

    def _among(self, events: Events) -> list[Node]:
        """Whether a row of the table of events is one of these."""
        return [*self._at_least([events]), self._is_asked(events)]

    def _at_least(self, sought: Sequence[Events]) -> list[Node]:
        """What holds of every event that is one of these, in words by which a reader of Parquet leaves out whole stretches of rows."""
        found = [is_one_of(col("kind", "event"), [text(kind) for kind in sorted({kind for events in sought for kind in events.kinds})])]
        heads = {code for events in sought for name in events.codes for code in self.codes[name].codes}
        if not all(events.codes for events in sought) or not heads or not all(head and head.isascii() for head in heads):
            return found
        for length in range(max(map(len, heads)), 0, -1):
            heads = {head[:length] for head in heads}
            if len(heads) <= _STRETCHES:
                code = col("code", "event")
                beyond = {head: head[:-1] + chr(ord(head[-1]) + 1) for head in sorted(heads)}
                found.append(any_of(*(all_of(ge(code, text(head)), lt(code, text(end))) for head, end in beyond.items())))
                break
        return found

    def _own_rows(self) -> "_Subject":
        unit = self.question.unit
        own: dict[str, Node] = {unit: col("unit_id", "unit"), "patient": col("patient_id", "unit")}
        return _Subject("unit", unit, "unit_id", "index_day", self.rows, own)

    def _related(self, related: Related, subject: "_Subject") -> tuple[Node, str]:
        """What is said of each row of the subject, and the relation that must be joined to it for that."""
        pairs, _ = self._pairs(related, subject)
        found = f"found_in_{pairs}"
        unit_id = col("unit_id", pairs)
        certain, possible = _counts(pairs)
        columns = [unit_id, named(certain, "certain"), named(possible, "possible")]
        if related.apart is not None:
            columns += _spans(pairs)
        counts = select(columns, pairs, group=[unit_id])
        if related.within is not None:
            counts = self._rolling(related.within, pairs, counts)
        self.ctes.append((found, counts))
        least = number(related.at_least)
        certain, possible = (coalesce(col(name, found), number(0)) for name in ("certain", "possible"))
        enough, few = [ge(certain, least)], [lt(possible, least)]
        if related.apart is not None:
            enough.append(ge(coalesce(col("certain_span", found), number(-1)), number(related.apart)))
            few.append(lt(coalesce(col("possible_span", found), number(-1)), number(related.apart)))
        return case([(is_null(subject.id_of(related.of)), NULL), (all_of(*enough), TRUE), (any_of(*few), FALSE)], NULL), found

    def _pairs(self, related: Related, subject: "_Subject", dated: bool = False, carried: Sequence[str] = ()) -> tuple[str, "_Rows"]:
        """Each row of the subject with each other scan that may be asked for: ``says`` is whether it is one.

        ``carried`` are columns of the other scan that are needed further on; ``dated``: one whose distance is unknown is none for sure.
        """
        n = self._next("related")
        key, shared = domain.key(related.unit), domain.key(related.of)
        others = _Rows(related.unit, f"other_rows_{n}", day(col("scan_date", related.unit)))
        says = _tests(others, related.where.tests) if related.where is not None else TRUE
        ratios = related.ratio.tests if related.ratio is not None else ()
        compared = [*related.same, *related.differ, *(test.column for test in ratios)]
        same = [(subject.rows.value(subject.rows.fields[name]), others.value(others.fields[name])) for name in compared]
        timed = in_hours(related.window)
        clock = domain.clock(related.unit, domain.AGE_DATE)
        assert clock is not None or not in_hours(related), "the check refuses hours to a scan without a time"
        for name in carried:
            (others.most if others.fields[name].kind == "span" else others.value)(others.fields[name])
        place = len(self.ctes)
        nested: list[Join] = []
        their_own: dict[str, Node] = {related.unit: col("other_id", others.name)}
        they = _Subject(others.name, related.unit, "other_id", "other_day", others, their_own)
        asked = [self._related(related.related, they)] if related.related is not None else []
        asked += [self._member(related.among, they)] if related.among is not None else []
        for answer, found in asked:
            nested.append((relation(found), eq(col("unit_id", found), col("other_id", others.name)), "left"))
            says = all_of(says, answer)
        own = [
            named(col(key, related.unit), "other_id"),
            named(col(shared, related.unit), "group_id"),
            named(col(domain.key(related.count), related.unit), "count_id"),
            named(day(col("scan_date", related.unit)), "other_day"),
        ]
        if clock is not None and in_hours(related.related):
            seconds = _ends_of_day(_seconds(col(clock.name, clock.table)))
            own += [named(value, name) for value, name in zip(seconds, _INDEX_SECONDS, strict=True)]
        row = ("other_id", "group_id", "count_id", "other_day")
        kept = [named(says, "says"), *(named(value, f"same_{i}") for i, (_, value) in enumerate(same))]
        kept += [named(col(name, others.name), name) for name in _carried_names(others, carried)]
        if clock is not None and timed:
            seconds = _ends_of_day(_seconds(others.value(clock)))
            kept += [named(value, name) for value, name in zip(seconds, ("other_least", "other_most"), strict=True)]
        other = f"other_{n}"
        self.ctes.insert(place, (others.name, others.select(own)))
        self.ctes.append((other, select([*cols(row, others.name), *kept], others.name, nested, [coalesce(says, TRUE)])))
        self.tables |= others.tables
        group = subject.id_of(related.of)
        on = [eq(group, col("group_id", other))]
        if related.unit in domain.levels(subject.unit):
            mine = subject.id_of(related.unit)
            on.append(any_of(is_null(mine), not_(eq(mine, col("other_id", other)))))
        index, other_day = col(subject.day, subject.relation), col("other_day", other)
        conditions = [col("says", other)]
        if timed:
            start = _Moment(index, *cols(_INDEX_SECONDS, subject.relation))
            end = _Moment(other_day, col("other_least", other), col("other_most", other))
            conditions.append(_hours_within(start, end, related.window))
        elif related.window.low is not None:
            conditions.append(ge(other_day, plus(index, related.window.low)))
        if not timed and related.window.high is not None:
            conditions.append(le(other_day, plus(index, related.window.high)))
        if related.within is not None or related.apart is not None:
            # One without a day may or may not lie within the time.
            conditions.append(case([(not_null(other_day), TRUE)], NULL))
        gap = _seconds_between(start, end) if timed else exp.Sub(this=other_day, expression=index)
        if dated:
            conditions.append(case([(not_null(gap), TRUE)], NULL))
        pairs_of = [(mine, col(f"same_{i}", other)) for i, (mine, _) in enumerate(same)]
        conditions += [eq(*pair) for pair in pairs_of[: len(related.same)]]
        conditions += [not_(eq(*pair)) for pair in pairs_of[len(related.same) : len(related.same) + len(related.differ)]]
        conditions += [_test(_Ratio(*pair), test) for pair, test in zip(pairs_of[len(compared) - len(ratios) :], ratios, strict=True)]
        columns = [named(col(subject.id, subject.relation), "unit_id"), *cols(("count_id", "other_day"), other)]
        columns.append(named(all_of(*conditions), "says"))
        if dated:
            columns += [col("other_id", other), named(gap, "gap"), *cols(_carried_names(others, carried), other)]
        pairs = f"pair_{n}"
        self.ctes.append((pairs, select(columns, subject.relation, [(relation(other), all_of(*on), "")])))
        return pairs, others

    def _rolling(self, within: int, pairs: str, counts: exp.Select) -> exp.Select:
        """The most that lie within so many days of one another; one without a day is possible wherever it may be."""
        other = "later"
        unit_id = col("unit_id", pairs)
        on = all_of(
            eq(unit_id, col("unit_id", other)),
            ge(col("other_day", other), col("other_day", pairs)),
            le(col("other_day", other), plus(col("other_day", pairs), within)),
        )
        certain, possible = _counts(other)
        columns = [unit_id, col("other_day", pairs), named(certain, "certain"), named(possible, "possible")]
        by_day = select(columns, pairs, [(relation(pairs, other), on, "")], group=[unit_id, col("other_day", pairs)])
        undated = case([(all_of(is_null(col("other_day")), coalesce(col("says"), TRUE)), number(1))], number(0))
        lost = select([col("unit_id"), named(exp.Max(this=undated), "undated")], pairs, group=[col("unit_id")])
        most = [named(exp.Max(this=col(name)), name) for name in ("certain", "possible")]
        dated = select([col("unit_id"), *most], subquery(by_day, "by_day"), group=[col("unit_id")])
        every = col("possible", "every")
        columns = [
            col("unit_id", "every"),
            named(col("certain", "dated"), "certain"),
            named(case([(eq(col("undated", "lost"), number(1)), every)], col("possible", "dated")), "possible"),
        ]
        joins: list[Join] = [
            (subquery(lost, "lost"), eq(col("unit_id", "lost"), col("unit_id", "every")), "left"),
            (subquery(dated, "dated"), eq(col("unit_id", "dated"), col("unit_id", "every")), "left"),
        ]
        return select(columns, subquery(counts, "every"), joins)

    # Stays, the nearest, reports, saved cohorts

    def _stay(self, asked: Stay) -> Node:
        n = self._next("stay")
        self.tables.add("stay")
        held = f"held_{n}"
        self.event_columns["stay_id"] = col("stay_id", "event")
        stay_id, person = col("stay_id", "event"), col("patient_id", "event")
        flags = []
        for i, events in enumerate(asked.holds):
            levels = [(self._is_wanted(events), number(2))]
            levels += [(self._is_wanted(events, possible=True), number(1))] if events.where is not None else []
            flags.append(named(exp.Max(this=case(levels, number(0))), f"holds_{i}"))
        self.ctes.append((held, select([person, stay_id, *flags], "event", where=[not_null(stay_id)], group=[person, stay_id])))
        index = col("index_day", "asked")
        says = _within(exp.Sub(this=day(col("start_date", "stay")), expression=index), asked.begins)
        says += _within(exp.Sub(this=day(col("end_date", "stay")), expression=index), asked.ends)
        says += _within(exp.Sub(this=day(col("end_date", "stay")), expression=day(col("start_date", "stay"))), asked.days)
        for i in range(len(asked.holds)):
            level = coalesce(col(f"holds_{i}", held), number(0))
            says.append(case([(eq(level, number(2)), TRUE), (eq(level, number(1)), NULL)], FALSE))
        same = all_of(eq(col("stay_id", held), col("stay_id", "stay")), eq(col("patient_id", held), col("patient_id", "stay")))
        joins: list[Join] = [
            (_table("stay"), eq(col("patient_id", "stay"), col("patient_id", "asked")), ""),
            (relation(held), same, "left"),
        ]
        rows = select([*cols(self.key, "asked"), named(all_of(*says), "says")], "asked", joins)
        stayed = f"stayed_{n}"
        counts = [("certain", col("says")), ("possible", coalesce(col("says"), TRUE))]
        counted = [named(exp.Count(this=case([(holds, number(1))], NULL)), name) for name, holds in counts]
        key = cols(self.key)
        self.ctes.append((stayed, select([*key, *counted], subquery(rows, "pair"), group=key)))
        self._join_asked(stayed)
        of_it = events_of(asked)
        assert of_it is not None
        enough, maybe = (ge(coalesce(col(name, stayed), number(0)), number(asked.at_least)) for name in ("certain", "possible"))
        indexed = is_null(col("index_day", "unit")) if asked.begins != EVER or asked.ends != EVER else FALSE
        return case(
            [(enough, TRUE), (maybe, NULL), (indexed, NULL), (self._observed(of_it), FALSE)],
            NULL,
        )

    def _change(self, asked: Change) -> Node:
        events, n = asked.events, self._next("changed")
        measured, changed, ends = f"measured_{n}", f"changed_{n}", asked.take == "ends"
        self.event_columns[_MEASURE] = _EventRow().value(domain.event_fields()[_MEASURE])
        row, timed = ["day", _MEASURE], asked.gap.unit == "hour"
        if timed:
            self._event_moment()
            row += ["least", "most"]
        if ends:
            self.event_columns["event_id"] = col("event_id", "event")
            row.append("event_id")
        sure, inside = self._is_found(events), self._is_found(events, possible=True)
        same_person = eq(col("patient_id", "event"), col("patient_id", "asked"))
        columns = [*cols(self.key, "asked"), *cols(row, "event"), named(case([(sure, TRUE)], NULL), "says")]
        # A record that arrives twice is one measurement.
        self.ctes.append((measured, select(columns, "asked", [(relation("event"), same_person, "")], [inside], distinct=True)))
        if ends:
            order = [[exp.Ordered(this=value), exp.Ordered(this=col("event_id"))] for value in (col("day"), exp.Neg(this=col("day")))]
            places = [named(over(exp.RowNumber(), cols(self.key), by), name) for by, name in zip(order, ("first", "last"), strict=True)]
            self.ctes.append((f"placed_{n}", select([*cols((*self.key, *row, "says")), *places], measured)))
            measured = f"placed_{n}"
        level = exp.Max(this=self._changed(asked))
        on: list[Node] = [eq(*_of_both(name)) for name in self.key]
        if ends:
            on += [eq(col("first", "earlier"), number(1)), eq(col("last", "later"), number(1))]
        else:
            on += self._may_be_both(asked)
        joins: list[Join] = [(relation(measured, "later"), all_of(*on), "")]
        key = cols(self.key, "earlier")
        self.ctes.append((changed, select([*key, named(level, "level")], relation(measured, "earlier"), joins, group=key)))
        self._join_asked(changed)
        found = col("level", changed)
        branches = [(eq(found, number(2)), TRUE), (eq(found, number(1)), NULL), (eq(found, number(0)), FALSE)]
        return case([*branches, (self._observed(events), FALSE)], NULL)

    def _may_be_both(self, asked: Change) -> list[Node]:
        """What surely holds of two measurements that may be asked for, in words that leave out most of them."""
        days = _days_between()
        if asked.gap.unit == "day":
            return _within(days, replace(asked.gap, low=max(asked.gap.low or 1, 1)))
        known = all_of(*(eq(*_of_both(name)) for name in ("day", "least", "most")))
        no_value = all_of(*(is_null(value) for value in _of_both(_MEASURE)))
        found = [not_(all_of(known, coalesce(any_of(eq(*_of_both(_MEASURE)), no_value), FALSE))), ge(days, number(0))]
        return found + ([le(days, number(asked.gap.high // 24 + 1))] if asked.gap.high is not None else [])

    def _changed(self, asked: Change) -> Node:
        """Of two measurements 2 where they are such, 1 where they may be, 0 where they would decide but are not, else -1."""
        says = _tests(_Pair(*_of_both(_MEASURE)), asked.then.tests)
        sure = all_of(*_of_both("says"))
        if asked.take == "ends":
            such = all_of(*_within(_days_between(), asked.gap), says)
            branches = [
                (is_null(sure), number(1)),
                (lt(_days_between(), number(1)), number(-1)),
                (such, number(2)),
                (is_null(such), number(1)),
            ]
            return case(branches, number(0))
        if asked.gap.unit == "hour":
            moments = [_Moment(*cols(("day", "least", "most"), name)) for name in ("earlier", "later")]
            says = all_of(says, _hours_within(moments[0], moments[1], asked.gap, after=1))
        such = all_of(sure, says)
        return case([(such, number(2)), (is_null(such), number(1))], number(-1))

    def _nearest(self, nearest: Nearest) -> Node:
        then = [test.column for test in nearest.then.tests] if nearest.then is not None else []
        taken, none = self._taken(nearest, then)
        says = _tests(taken, nearest.then.tests) if nearest.then is not None else TRUE
        return case([(is_null(taken.of), none), (col("says", taken.name), says)], NULL)

    def _taken(self, nearest: Nearest, columns: Sequence[str]) -> tuple["_Taken", Node]:
        """The one that is taken, with these columns of it, and the answer where there is none; it is sure where ``says`` is true."""
        columns = [name for name in dict.fromkeys(columns) if name != domain.GAP]
        n = self._next("taken")
        if isinstance(nearest.among, Events):
            source, fields, key = self._near_events(nearest.among, n, columns), domain.taken_fields(), "event_id"
            of: tuple[str, ...] = self.key
            missing = is_null(self._anchor_day(nearest.among.anchor, "unit"))
            none = case([(missing, NULL), (self._observed(nearest.among), FALSE)], NULL)
            names = [fields[name].name for name in columns]
        else:
            related = nearest.among
            source, others = self._pairs(related, self._own_rows(), dated=True, carried=columns)
            fields, key, of = others.fields, "other_id", ("unit_id",)
            none = case([(is_null(self._own_rows().id_of(related.of)), NULL)], FALSE)
            names = list(_carried_names(others, columns))
        gap = col("gap")
        orders: dict[str, list[Node]] = {
            "nearest": [exp.Abs(this=gap), gap],
            "earliest": [gap],
            "latest": [exp.Neg(this=gap)],
        }
        undated = case([(is_null(gap), number(0))], number(1))
        place = over(exp.RowNumber(), cols(of), [exp.Ordered(this=value) for value in (undated, *orders[nearest.take], col(key))])
        kept = cols((*of, "gap", "says", *names))
        placed = select([*kept, named(place, "place")], source, where=[coalesce(col("says"), TRUE)])
        if nearest.among.window.unit == "hour":
            kept[kept.index(gap)] = named(exp.Div(this=exp.cast(gap, "double"), expression=number(_HOUR)), domain.GAP)
        name = f"taken_{n}"
        self.ctes.append((name, select(kept, subquery(placed, "placed"), where=[eq(col("place"), number(1))])))
        if isinstance(nearest.among, Events):
            self._join_asked(name)
        else:
            self.joined.append(name)
        return _Taken(name, fields, of[0]), none

    def _near_events(self, events: Events, n: int, columns: Sequence[str]) -> str:
        """Events in the window of each unit, with their distance from the day that it counts from."""
        self.event_columns["event_id"] = col("event_id", "event")
        taken = {field.name: _EventRow().value(field) for field in (domain.taken_fields()[name] for name in columns)}
        self.event_columns |= taken
        distance: Node = exp.Sub(this=col("day", "event"), expression=self._anchor_day(events.anchor, "asked"))
        # Without the day that a window counts from, nothing is near it.
        inside = all_of(self._is_found(events, possible=True), not_null(self._anchor_day(events.anchor, "asked")))
        says = self._is_wanted(events)
        if events.window.unit == "hour":
            distance = _seconds_between(_moment("asked"), self._event_moment())
            says = all_of(says, not_null(distance))
        row = [*cols(self.key, "asked"), named(distance, "gap"), named(case([(says, TRUE)], NULL), "says")]
        same_person = eq(col("patient_id", "event"), col("patient_id", "asked"))
        name = f"near_{n}"
        self.ctes.append(
            (
                name,
                select(
                    [*row, *cols(("event_id", *taken), "event")],
                    "asked",
                    [(relation("event"), same_person, "")],
                    [inside],
                ),
            )
        )
        return name

    def _gap(self, gap: Gap) -> Node:
        start, end = (
            col("index_day", "unit") if name == domain.INDEX else day(self.rows.value(self.fields[name])) for name in (gap.start, gap.end)
        )
        return exp.Sub(this=end, expression=start)

    def _date_moment(self, name: str) -> "_Moment":
        """When a date of the unit is."""
        if name == domain.INDEX:
            return _moment("unit")
        clock = domain.clock(self.question.unit, name)
        assert clock is not None, "the check refuses hours between dates without a time"
        return _Moment(day(self.rows.value(self.fields[name])), *_ends_of_day(_seconds(self.rows.value(clock))))

    def _finding(self, asked: Finding) -> Node:
        n = self._next("finding")
        self.tables |= {"report", "report_finding"}
        mine = self._own_rows().id_of(asked.of)
        wanted = {"finding": asked.finding, "polarity": asked.polarity, "subject": asked.subject}
        wanted |= {"certainty": asked.certainty} if asked.certainty is not None else {}
        report_id = col("report_id", "report_finding")
        saying = select(
            [report_id],
            _table("report_finding"),
            where=[eq(col(name, "report_finding"), text(value)) for name, value in wanted.items()],
            distinct=True,
        )
        on = [eq(col(domain.key(asked.of), "report"), mine)]
        on += _within(exp.Sub(this=day(col("report_date", "report")), expression=col("index_day", "unit")), asked.window)
        on.append(coalesce(not_(eq(col("status", "report"), text("cancelled"))), TRUE))
        joins: list[Join] = [
            (_table("report"), all_of(*on), ""),
            (subquery(saying, "saying"), eq(col("report_id", "saying"), col("report_id", "report")), "left"),
        ]
        unit_id = col("unit_id", "unit")
        said = exp.Max(this=case([(not_null(col("report_id", "saying")), number(1))], number(0)))
        found = f"reported_{n}"
        self.ctes.append((found, select([unit_id, named(said, "said")], "unit", joins, group=[unit_id])))
        self.joined.append(found)
        return eq(col("said", found), number(1))

    def _member(self, asked: Member, subject: "_Subject") -> tuple[Node, str]:
        """What is said of each row of the subject, and the relation that must be joined to it for that."""
        n = self._next("member")
        saved = self.saved[asked.cohort]
        self.tables |= {"cohort_member", saved.unit}
        member, level = col("unit_id", "cohort_member"), col(domain.key(asked.level), saved.unit)
        of_run = eq(col("cohort_run_id", "cohort_member"), text(saved.run_id))
        joins: list[Join] = [(_table(saved.unit), eq(col(domain.key(saved.unit), saved.unit), member), "")]
        found = f"member_{n}"
        ids = select([named(level, "level_id")], _table("cohort_member"), joins, [of_run, not_null(level)], distinct=True)
        mine = subject.id_of(asked.level)
        on = eq(col("level_id", "ids"), mine)
        unit_id = named(col(subject.id, subject.relation), "unit_id")
        self.ctes.append((found, select([unit_id], subject.relation, [(subquery(ids, "ids"), on, "")], distinct=True)))
        return case([(is_null(mine), NULL), (not_null(col("unit_id", found)), TRUE)], FALSE), found

    # Outputs

    def _output(self, output: Output) -> list[tuple[str, Node]]:
        match output.of:
            case str(name):
                return [(output.id, self.rows.value(self.fields[name]))]
            case Gap() as gap:
                return [(output.id, self._gap(gap))]
            case Nearest() as nearest:
                taken, _ = self._taken(nearest, output.give)
                sure = col("says", taken.name)
                return [(f"{output.id}_{name}", case([(sure, taken.shown(name))], NULL)) for name in output.give]
            case FollowUp() as follow_up:
                return [(f"{output.id}_{name}", value) for name, value in self._followed(follow_up).items()]

    def _followed(self, asked: FollowUp) -> dict[str, Node]:
        """Days, event and end of a follow-up."""
        outcome = asked.outcome
        _, cover = _window_of(outcome)
        c = self._number(self.covers, cover)
        self._number(self.observed, (self._number(self.windows, (Window(0, 0), "index")), c))
        index = col("index_day", "unit")
        inside = self._is_found(outcome)
        at = self._reduced(exp.Min(this=case([(inside, col("day", "event"))], NULL)), inside)
        if "at_risk" not in self.joined:
            on = [eq(col("patient_id", "spell"), col("patient_id", "unit"))]
            on += [le(col("from_day", "spell"), index), ge(col("to_day", "spell"), index)]
            columns = [col("unit_id", "unit"), col("to_day", "spell")]
            self.ctes.append(("at_risk", select(columns, "unit", [(relation("spell"), all_of(*on), "")])))
            self.joined.append("at_risk")
        never = number(_LAST_DAY + 1)
        born, died = col("birth_day", "asked"), col("death_day", "asked")
        self._join_asked("asked")
        until = day(literal(asked.until)) if asked.until is not None else never
        ends = {
            "death": coalesce(died, never),
            "transfer_out": col("to_day", "at_risk"),
            "study_end": until,
            "window_end": plus(index, outcome.window.high) if outcome.window.high is not None else never,
            "cover_end": col(f"to_{c}", "cover"),
        }
        first, *others = ends.values()
        censored = exp.Least(this=first, expressions=others)
        known = all_of(
            not_null(col("to_day", "at_risk")),
            any_of(is_null(died), ge(died, index)),
            any_of(is_null(born), le(born, index)),
            ge(index, col(f"from_{c}", "cover")),
            le(index, col(f"to_{c}", "cover")),
            le(index, until),
        )
        found = all_of(known, le(at, censored))
        reasons = [(eq(censored, end), text(reason)) for reason, end in ends.items()]
        return {
            "days": case([(found, exp.Sub(this=at, expression=index)), (known, exp.Sub(this=censored, expression=index))], NULL),
            "event": case([(found, number(1)), (known, number(0))], NULL),
            "end": case([(found, text("event")), (not_(coalesce(known, FALSE)), NULL), *reasons], NULL),
        }

    # Answers

    @property
    def _strata(self) -> tuple[str, ...]:
        return self.question.sample.strata if self.question.sample is not None else ()

    @property
    def _own(self) -> list[Node]:
        return cols(OWN[self.question.unit])

    @property
    def _carried_columns(self) -> list[Node]:
        """What is carried on for the acts after the pick, and to the end."""
        return cols([name for name, _ in self._carried_on])

    @property
    def _carried_on(self) -> list[tuple[str, str]]:
        """Names of the columns that are carried to the end, or that the match and the sample look at, and of the values in them."""
        match = self.question.match
        found = [*((name, name) for name in OWN[self.question.unit]), *((f"stratum_{i}", name) for i, name in enumerate(self._strata))]
        if match is not None:
            found += [(f"exact_{i}", name) for i, name in enumerate(match.exact)]
            found += [(f"caliper_{i}", name) for i, (name, _) in enumerate(match.caliper)]
            found.append(("is_case", ""))
        return found

    def _answered(self, answers: Mapping[int, Node]) -> tuple[list[tuple[str, exp.Select]], exp.Select]:
        """Every step's answer as a three-valued column, with what is carried on; and what is said of people before it."""
        columns = [*cols(_FLAGS[:3], "unit"), *(named(answer, f"step_{index}") for index, answer in answers.items())]
        pick = self.question.pick
        if pick is not None:
            columns += [
                named(self.rows.value(self.fields[name]), carried) for name, carried in self._picking.items() if carried == f"pick_{name}"
            ]
        columns += [named(self.rows.value(self.fields[name]), carried) for carried, name in self._carried_on if name]
        if self.question.match is not None:
            is_case, found = self._member(Member(self.question.match.cases, self.question.match.level), self._own_rows())
            self.joined.append(found)
            columns.append(named(is_case, "is_case"))
        return self._gathered(columns)

    def _judged(self, policies: Sequence[Unknown], last: int) -> exp.Select:
        """Answers packed into bits, and how far each unit got."""
        holds, unknowns, fails = bit(0), bit(None), []
        for index in range(1, last + 1):
            step = col(f"step_{index}")
            holds = plus(holds, case([(step, bit(index))], bit(None)))
            unknowns = plus(unknowns, case([(is_null(step), bit(index))], bit(None)))
            kept = coalesce(step, FALSE if policies[index] == "exclude" else TRUE)
            fails.append((not_(kept), number(index - 1)))
        columns = [*cols(_FLAGS[:3]), named(holds, "holds"), named(unknowns, "unknowns"), named(case(fails, number(last)), "passed")]
        if self.question.pick is not None:
            columns += cols([carried for name, carried in self._picking.items() if carried == f"pick_{name}"])
        return select([*columns, *self._carried_columns], "answered")

    def _picked(self, last: int) -> exp.Select:
        """The pick as a last step: the first survivor of each group holds, a survivor without a group is unknown."""
        assert self.question.pick is not None
        order, names = [], self._picking
        for key in domain.pick_order(self.question.unit, self.question.pick):
            value = col(names[key.column])
            order += [
                exp.Ordered(this=case([(is_null(value), number(1))], number(0))),
                exp.Ordered(this=value, desc=key.descending),
            ]
        group, carried = col(names[domain.key(self.question.pick.one_per)]), [name for name, _ in self._carried_on]
        survives = eq(col("passed"), number(last))
        first, lost = all_of(survives, not_null(group), eq(col("place"), number(1))), all_of(survives, is_null(group))
        index = last + 1
        columns = [
            *cols(_FLAGS[:3]),
            named(plus(col("holds"), case([(first, bit(index))], bit(None))), "holds"),
            named(plus(col("unknowns"), case([(lost, bit(index))], bit(None))), "unknowns"),
            named(case([(first, number(index))], col("passed")), "passed"),
            *cols(carried),
        ]
        return select(columns, self._placed("judged", last, dict.fromkeys((*carried, *names.values())), [group], order))

    @property
    def _picking(self) -> dict[str, str]:
        """The columns that the pick looks at, and under which name each is carried: some are there already."""
        pick, unit = self.question.pick, self.question.unit
        assert pick is not None
        there = {"patient_id": "patient_id", domain.key(unit): "unit_id", **{name: name for name in OWN[unit]}}
        if isinstance(self.question.index, str):
            there.setdefault(self.question.index, "index_date")
        names = [domain.key(pick.one_per), *(key.column for key in domain.pick_order(unit, pick))]
        return {name: there[name] if name in there and self.fields[name].table == unit else f"pick_{name}" for name in names}

    def _placed(self, source: str, last: int, names: Iterable[str], groups: Sequence[Node], order: Sequence[exp.Ordered]) -> Node:
        """Rows with the place of each survivor in its group; the others, who are many, are not put in order."""
        row, survives = cols(tuple(dict.fromkeys((*_FLAGS, *names)))), eq(col("passed"), number(last))
        others = select([*row, named(number(0), "place")], source, where=[not_(survives)])
        placed = select([*row, named(over(exp.RowNumber(), groups, order), "place")], source, where=[survives])
        return subquery(exp.Union(this=others, expression=placed, distinct=False), "placed")

    def _matching(self, match: Match, last: int, source: str) -> list[tuple[str, exp.Select]]:
        """Cases with their controls: ``matched`` has a row for each control of a case that has enough, and the rounds that lead there."""
        row = ["unit_id", "patient_id", "index_date", "is_case", *(f"exact_{i}" for i in range(len(match.exact)))]
        row += [f"caliper_{i}" for i in range(len(match.caliper))]
        survivors = select(cols(row), source, where=[eq(col("passed"), number(last))])
        of_case = select([col("patient_id")], "surviving", where=[col("is_case"), not_null(col("patient_id"))], distinct=True)
        joins: list[Join] = [(subquery(of_case, "of_case"), eq(col("patient_id", "of_case"), col("patient_id", "surviving")), "left")]
        control = [not_(col("is_case", "surviving")), is_null(col("patient_id", "of_case"))]
        case_row, control_row = relation("case_row"), relation("control_row")
        fits: list[Node] = [eq(col(f"exact_{i}", "case_row"), col(f"exact_{i}", "control_row")) for i in range(len(match.exact))]
        for i, (name, most) in enumerate(match.caliper):
            mine, its = (col(f"caliper_{i}", where) for where in ("case_row", "control_row"))
            if self.fields[name].kind == "date":
                mine, its = day(mine), day(its)
            fits.append(le(exp.Abs(this=exp.Paren(this=exp.Sub(this=mine, expression=its))), literal(float(most))))
        found = [
            ("surviving", survivors),
            ("case_row", select(cols(row), "surviving", where=[col("is_case")])),
            ("control_row", select(cols(row, "surviving"), "surviving", joins, control)),
        ]
        more: list[Join] = []
        if match.risk_set is not None:
            found.append(("had", self._had(match.risk_set)))
            index = day(col("index_date", "case_row"))
            lived = [eq(col("patient_id", "spell"), col("patient_id", "control_row"))]
            lived += [le(col("from_day", "spell"), index), ge(col("to_day", "spell"), index)]
            more.append((relation("spell"), all_of(*lived), ""))
            more.append((relation("lifetime"), eq(col("patient_id", "lifetime"), col("patient_id", "control_row")), "left"))
            more.append((relation("had"), eq(col("patient_id", "had"), col("patient_id", "control_row")), "left"))
            born, died, had = col("birth_day", "lifetime"), col("death_day", "lifetime"), col("had_day", "had")
            fits += [any_of(is_null(born), le(born, index)), any_of(is_null(died), ge(died, index)), any_of(is_null(had), gt(had, index))]
        case_id, control_id = col("unit_id", "case_row"), col("unit_id", "control_row")
        seeded = exp.Concat(expressions=[text(f"{match.seed}:"), case_id, text(":"), control_id])
        pair = [named(case_id, "case_id"), named(control_id, "control_id")]
        pair.append(named(exp.SHA2(this=seeded, length=exp.Literal.number(256)), "hash"))
        on = all_of(*fits) if fits else TRUE
        kept = [on] if more else []
        joined: list[Join] = [(control_row, None if more else on, "cross" if more else ""), *more]
        found.append(("fitting", select(pair, case_row, joined, kept)))
        names = cols(("case_id", "control_id", "hash"))
        by_case = [exp.Ordered(this=col("hash")), exp.Ordered(this=col("control_id"))]
        place = over(exp.RowNumber(), [col("case_id")], by_case)
        if match.replacement:
            first = select([*names, named(place, "place")], "fitting")
            got = "chosen_0"
            found.append((got, select(names, subquery(first, "placed"), where=[le(col("place"), number(match.ratio))])))
        else:
            got = ""
            for n in range(MATCH_ROUNDS):
                got = self._round(match, n, got, found)
        has = select([col("case_id"), named(exp.Count(this=exp.Star()), "n")], got, group=[col("case_id")])
        enough: list[Join] = [(subquery(has, "has"), eq(col("case_id", "has"), col("case_id", got)), "")]
        found.append(
            ("matched", select(cols(("case_id", "control_id", "hash"), got), got, enough, [ge(col("n", "has"), number(match.at_least))]))
        )
        both = exp.Union(
            this=select([named(col("case_id"), "unit_id")], "matched"), expression=select([col("control_id")], "matched"), distinct=True
        )
        found.append(("matched_units", select([col("unit_id")], subquery(both, "both"))))
        flagged: list[Join] = [(relation("matched_units"), eq(col("unit_id", "matched_units"), col("unit_id", source)), "left")]
        columns = [*cols(_FLAGS, source), *cols([name for name, _ in self._carried_on], source)]
        columns.append(named(not_null(col("unit_id", "matched_units")), "is_matched"))
        found.append(("matching", select(columns, source, flagged)))
        return found

    def _round(self, match: Match, n: int, before: str, found: list[tuple[str, exp.Select]]) -> str:
        """One round: each case asks as many free controls as it lacks, and each control goes with the first that asks."""
        names = cols(("case_id", "control_id", "hash"), "fitting")
        joins: list[Join] = []
        where: list[Node] = []
        lacks: Node = number(match.ratio)
        if before:
            taken = select([col("control_id")], before, distinct=True)
            has = select([col("case_id"), named(exp.Count(this=exp.Star()), "n")], before, group=[col("case_id")])
            joins = [
                (subquery(taken, "taken"), eq(col("control_id", "taken"), col("control_id", "fitting")), "left"),
                (subquery(has, "has"), eq(col("case_id", "has"), col("case_id", "fitting")), "left"),
            ]
            where = [is_null(col("control_id", "taken"))]
            lacks = exp.Sub(this=number(match.ratio), expression=coalesce(col("n", "has"), number(0)))
        by_case = [exp.Ordered(this=col("hash", "fitting")), exp.Ordered(this=col("control_id", "fitting"))]
        place = over(exp.RowNumber(), [col("case_id", "fitting")], by_case)
        asked = select([*names, named(lacks, "lacks"), named(place, "place")], "fitting", joins, where)
        row = cols(("case_id", "control_id", "hash"))
        by_control = [exp.Ordered(this=col("hash")), exp.Ordered(this=col("case_id"))]
        first = over(exp.RowNumber(), [col("control_id")], by_control)
        asking = select([*row, named(first, "first")], subquery(asked, "asked_for"), where=[le(col("place"), col("lacks"))])
        answered = select(row, subquery(asking, "asking"), where=[eq(col("first"), number(1))])
        name = f"chosen_{n}"
        if before:
            both = exp.Union(this=select(row, before), expression=answered, distinct=False)
            found.append((name, select(row, subquery(both, "both"))))
        else:
            found.append((name, answered))
        return name

    def _had(self, events: Events) -> exp.Select:
        """The day of each person's first such event."""
        self.tables |= {"event", "source_cover"}
        person, first = col("patient_id", "event"), exp.Min(this=day(col("date", "event")))
        return select([person, named(first, "had_day")], _table("event"), where=self._among(events), group=[person])

    def _lifetimes(self) -> list[tuple[str, exp.Select]]:
        """Birth and death of each person, for risk sets."""
        match = self.question.match
        if match is None or match.risk_set is None:
            return []
        self.tables.add("patient")
        days = [named(_born(), "birth_day"), named(day(col("death_date", "patient")), "death_day")]
        return [("lifetime", select([col("patient_id", "patient"), *days], _table("patient")))]

    def _matched(self, last: int, source: str) -> exp.Select:
        """The match as a last step: matched cases and their controls hold, of whom nobody knows whether they are cases is unknown."""
        survives = eq(col("passed"), number(last))
        index = last + 1
        chosen, lost = all_of(survives, col("is_matched")), all_of(survives, is_null(col("is_case")))
        columns = [
            *cols(_FLAGS[:3]),
            named(plus(col("holds"), case([(chosen, bit(index))], bit(None))), "holds"),
            named(plus(col("unknowns"), case([(lost, bit(index))], bit(None))), "unknowns"),
            named(case([(chosen, number(index))], col("passed")), "passed"),
            *self._own,
            *cols([f"stratum_{i}" for i in range(len(self._strata))]),
        ]
        return select(columns, source)

    def _sampled(self, last: int, source: str) -> exp.Select:
        """The sample as a last step: of each stratum, the first survivors by the hash of seed and id."""
        assert self.question.sample is not None
        seeded = exp.Concat(expressions=[text(f"{self.question.sample.seed}:"), col("unit_id")])
        order = [exp.Ordered(this=exp.SHA2(this=seeded, length=exp.Literal.number(256))), exp.Ordered(this=col("unit_id"))]
        strata = cols([f"stratum_{i}" for i in range(len(self._strata))])
        chosen = all_of(eq(col("passed"), number(last)), le(col("place"), number(self.question.sample.size)))
        index = last + 1
        columns = [
            *cols(_FLAGS[:3]),
            named(plus(col("holds"), case([(chosen, bit(index))], bit(None))), "holds"),
            col("unknowns"),
            named(case([(chosen, number(index))], col("passed")), "passed"),
            *self._own,
        ]
        carried = [*OWN[self.question.unit], *(f"stratum_{i}" for i in range(len(self._strata)))]
        return select(columns, self._placed(source, last, carried, strata, order))

    def _split(self, split: Split, last: int, source: str) -> exp.Select:
        """The split as a last step: who has a part holds, who has no patient is unknown."""
        survives = eq(col("passed"), number(last))
        person = col("patient_id")
        index = last + 1
        if split.at is None:
            seeded = exp.Concat(expressions=[text(f"{split.seed}:"), person])
            digits = exp.Substring(this=exp.SHA2(this=seeded, length=exp.Literal.number(256)), start=number(1), length=number(8))
            upto = [sum(split.percent[: i + 1]) for i in range(len(split.parts) - 1)]
            # The first hash beyond a share of all of them, in hexadecimal digits.
            shares = [f"{-(-(percent * _WHOLE_HASHES) // 100):08x}" for percent in upto]
            parts = [(lt(digits, text(share)), text(name)) for share, name in zip(shares, split.parts, strict=False)]
            part, lost = case([(is_null(person), NULL), *parts], text(split.parts[-1])), is_null(person)
            placed: Node = relation(source)
        else:
            at = literal(split.at)
            before = lt(col("index_date"), at)
            early = exp.Max(this=case([(all_of(survives, before), number(1))], number(0)))
            columns = [*cols(_FLAGS), *self._own, named(over(early, [person], []), "early")]
            placed = subquery(select(columns, source), "placed")
            lost = any_of(is_null(person), is_null(col("index_date")))
            first = all_of(eq(col("early"), number(1)), before)
            part = case([(lost, NULL), (first, text(split.parts[0])), (eq(col("early"), number(1)), NULL)], text(split.parts[1]))
        part = case([(survives, part)], NULL)
        columns = [
            *cols(_FLAGS[:3]),
            named(plus(col("holds"), case([(not_null(part), bit(index))], bit(None))), "holds"),
            named(plus(col("unknowns"), case([(all_of(survives, lost), bit(index))], bit(None))), "unknowns"),
            named(case([(not_null(part), number(index))], col("passed")), "passed"),
            named(part, "part"),
            *self._own,
        ]
        return select(columns, placed)

    def _touching(self) -> exp.Select:
        counts = []
        for index, asked in self.steps.items():
            # A step that asks several things must have windows that touch for each of them.
            least = [subquery(self._touched(*window)) for window in asked]
            counts.append(named(least[0] if len(least) == 1 else exp.Least(this=least[0], expressions=least[1:]), f"step_{index}"))
        units = select([exp.Count(this=exp.Star())], "unit")
        return exp.select(named(subquery(units), "units"), *counts, copy=False)

    def _touched(self, window: int, cover: int) -> exp.Select:
        low, high = self._ends(window, cover)
        touches = all_of(le(low, col(f"to_{cover}", "cover")), ge(high, col(f"from_{cover}", "cover")))
        return select([exp.Count(this=case([(touches, number(1))], NULL))], "asked", [(relation("cover"), None, "cross")])


@dataclass(frozen=True)
class _Subject:
    """Rows that others are related to: the units, or other scans. ``own`` are the columns of its ids that are no values of its rows."""

    relation: str
    unit: str
    id: str
    day: str
    rows: _Rows
    own: Mapping[str, Node]

    def id_of(self, level: str) -> Node:
        """The id of a row, or of what it belongs to, as its own row says."""
        return self.own[level] if level in self.own else self.rows.value(self.rows.fields[domain.key(level)])


class _EventRow:
    """A row of the table of events; a number that is only a bound is missing."""

    fields = domain.event_fields()

    def value(self, field: Field) -> Node:
        value = _part(col(field.column.name, "event"), field.part)
        if field.name not in domain.EVENT_NUMBERS:
            return value
        comparator = col("comparator", "event")
        return case([(any_of(is_null(comparator), eq(comparator, text("="))), value)], NULL)

    most = value


def _of_both(name: str) -> tuple[Node, Node]:
    """A column of the earlier and of the later of two measurements."""
    return col(name, "earlier"), col(name, "later")


def _days_between() -> Node:
    """Days from the earlier to the later of two measurements."""
    earlier, later = _of_both("day")
    return exp.Sub(this=later, expression=earlier)


class _Pair:
    """What two measurements make."""

    fields = domain.changes()

    def __init__(self, earlier: Node, later: Node) -> None:
        self.earlier, self.later = earlier, later

    def value(self, field: Field) -> Node:
        if field.name == domain.RATIO:
            return _Ratio(self.earlier, self.later).ratio
        return exp.Sub(this=self.later, expression=self.earlier)

    most = value


class _Ratio:
    """How many times a number is another that is above 0."""

    def __init__(self, mine: Node, its: Node) -> None:
        double = exp.cast(mine, "double")
        self.ratio = case([(gt(mine, number(0)), exp.Div(this=exp.cast(its, "double"), expression=double))], NULL)
        self.fields = _AnyRatio()

    def value(self, field: Field) -> Node:
        return self.ratio

    most = value


class _AnyRatio(dict[str, Field]):
    """The one number that a condition on a ratio is about, whatever its column is called."""

    def __missing__(self, name: str) -> Field:
        return domain.ratio()


class _Taken:
    """The row that a nearest takes; ``of`` is missing where there is none."""

    def __init__(self, name: str, fields: Mapping[str, Field], of: str) -> None:
        self.name = name
        self.of = col(of, name)
        self.fields = fields

    def value(self, field: Field) -> Node:
        return col(field.name if field.table == "event" else _name(field), self.name)

    def most(self, field: Field) -> Node:
        return col(f"{_name(field)}_most" if field.table != "event" else field.name, self.name)

    def shown(self, name: str) -> Node:
        return col("gap", self.name) if name == domain.GAP else self.value(self.fields[name])


def _carried_names(others: _Rows, columns: Sequence[str]) -> list[str]:
    """The names under which columns of other scans are carried on."""
    fields = [others.fields[name] for name in columns]
    names = [name for f in fields for name in ((_name(f), f"{_name(f)}_most") if f.kind == "span" else (_name(f),))]
    return list(dict.fromkeys(names))


_INDEX_SECONDS = ("index_least", "index_most")


@dataclass(frozen=True)
class _Moment:
    """A day and a second of it, which is only known to lie between two where they differ."""

    day: Node
    least: Node
    most: Node


def _moment(relation: str) -> _Moment:
    """The index date of a relation with its time of day."""
    return _Moment(col("index_day", relation), *cols(_INDEX_SECONDS, relation))


def _seconds(time: Node) -> Node:
    """A time of day, HH:MM:SS, in seconds; NULL where it is none."""
    parts = [exp.Substring(this=time, start=number(at), length=number(2)) for at in (1, 4, 7)]
    hours, minutes, seconds = (exp.TryCast(this=part, to=exp.DataType.build("bigint"), safe=True) for part in parts)
    return plus(plus(exp.Mul(this=hours, expression=number(_HOUR)), exp.Mul(this=minutes, expression=number(60))), seconds)


def _ends_of_day(seconds: Node) -> tuple[Node, Node]:
    """The first and the last second that a time may be."""
    return coalesce(seconds, number(0)), coalesce(seconds, number(_DAY - 1))


def _composed(day: Node, seconds: Node) -> Node:
    """A day and a second of it as one number."""
    return plus(exp.Mul(this=exp.cast(day, "bigint"), expression=number(_OTHER_TIME)), seconds)


def _between(start: _Moment, end: _Moment, first: Node, last: Node) -> Node:
    """Seconds from a second of the one day to a second of the other."""
    days = exp.cast(exp.Sub(this=end.day, expression=start.day), "bigint")
    return exp.Sub(this=plus(exp.Mul(this=days, expression=number(_DAY)), last), expression=first)


def _seconds_between(start: _Moment, end: _Moment) -> Node:
    """Seconds from the one to the other; NULL where it is not known exactly."""
    least, most = _between(start, end, start.most, end.least), _between(start, end, start.least, end.most)
    return case([(eq(least, most), most)], NULL)


def _hours_within(start: _Moment, end: _Moment, window: Window, after: int | None = None) -> Node:
    """Whether the hours from the one to the other lie in a window; unknown where times that are not known decide.

    ``after`` is how many seconds the other is later at least, whatever the window says.
    """
    least, most = _between(start, end, start.most, end.least), _between(start, end, start.least, end.most)
    lows = [bound for bound in (after, None if window.low is None else window.low * _HOUR) if bound is not None]
    sure, possible = [], []
    if lows:
        sure.append(ge(least, number(max(lows))))
        possible.append(ge(most, number(max(lows))))
    if window.high is not None:
        sure.append(le(most, number(window.high * _HOUR)))
        possible.append(le(least, number(window.high * _HOUR)))
    return case([(all_of(*sure), TRUE), (not_(all_of(*possible)), FALSE)], NULL)


def _later(day: Node, seconds: Node | None, more: int) -> Node:
    """The day so many days after a day, or with a second of it so many hours after that second."""
    if seconds is None:
        return plus(day, more)
    days, hours = divmod(more, 24)
    over_night = ge(plus(seconds, hours * _HOUR), number(_DAY))
    return plus(plus(day, days), case([(over_night, number(1))], number(0)))


def _within(days: Node, window: Window) -> list[Node]:
    """Whether a number of days lies in a window."""
    found = [ge(days, number(window.low))] if window.low is not None else []
    return found + ([le(days, number(window.high))] if window.high is not None else [])


def _part(value: Node, part: str | None) -> Node:
    """A part of a date, a time of day or a whole number; of a number the ten or five that it is in."""
    match part:
        case "year":
            return exp.cast(exp.Year(this=value), "bigint")
        case "month":
            return exp.Substring(this=exp.cast(value, "varchar"), start=number(1), length=number(7))
        case "month_of_year":
            return exp.cast(exp.Month(this=value), "bigint")
        case "weekday":
            since_monday = exp.Paren(this=plus(day(value), _EPOCH_WEEKDAY))
            after = plus(exp.Paren(this=exp.Mod(this=since_monday, expression=number(_WEEK))), _WEEK)
            place = exp.Mod(this=exp.Paren(this=after), expression=number(_WEEK))
            return case([(eq(place, number(n)), text(name)) for n, name in enumerate(domain.WEEKDAYS)], NULL)
        case "hour":
            return exp.TryCast(
                this=exp.Substring(this=value, start=number(1), length=number(2)), to=exp.DataType.build("bigint"), safe=True
            )
        case "decade" | "five":
            width = number(10 if part == "decade" else 5)
            over = exp.Mod(this=value, expression=width)
            # What is left over of a number below 0 is below 0 on every engine.
            below = case([(lt(over, number(0)), width)], number(0))
            return exp.Sub(this=exp.Sub(this=value, expression=over), expression=below)
        case _:
            return value


def _born() -> Node:
    """The first day of a person's month of birth."""
    month = exp.Concat(expressions=[col("birth_month", "patient"), text("-01")])
    return day(exp.TryCast(this=month, to=exp.DataType.build("date"), safe=True))


def _homes() -> exp.Select:
    """Where each person lived, one row per residence, up to the day before the next one begins: no two hold the same day."""
    order = [exp.Ordered(this=col("from_day")), exp.Ordered(this=col("until_day"))]
    begun = exp.Lead(this=col("from_day"), offset=exp.Literal.number(1))
    person = [col("patient_id")]
    until = coalesce(day(col("to_date", "residence")), number(_LAST_DAY))
    row = [
        *cols(("patient_id", *domain.LIVED), "residence"),
        named(day(col("from_date", "residence")), "from_day"),
        named(until, "until_day"),
    ]
    next_day = coalesce(over(begun, person, order), number(_LAST_DAY + 1))
    to_day = exp.Least(this=col("until_day"), expressions=[plus(next_day, -1)])
    columns = [*cols(("patient_id", *domain.LIVED, "from_day")), named(to_day, "to_day")]
    return select(columns, subquery(select(row, _table("residence")), "residence_rows"))


def _spans(pairs: str) -> list[Node]:
    """Days between the first and the last of those that certainly are counted, and that may be; one without a day may lie anywhere."""
    says, counted, at = cols(("says", "count_id", "other_day"), pairs)
    found = []
    for name, holds in (("certain_span", says), ("possible_span", coalesce(says, TRUE))):
        days = case([(all_of(holds, not_null(counted)), at)], NULL)
        span: Node = exp.Sub(this=exp.Max(this=days), expression=exp.Min(this=days))
        if name == "possible_span":
            undated = exp.Max(this=case([(all_of(holds, not_null(counted), is_null(at)), number(1))], number(0)))
            span = case([(eq(undated, number(1)), number(_LAST_DAY))], span)
        found.append(named(span, name))
    return found


def _name(field: Field) -> str:
    return field.name if field.keyword is not None else f"{field.table}_{field.name}"


def _tests(rows: "_Valued", tests: Sequence[Test]) -> Node:
    return all_of(*(_test(rows, test) for test in tests))


def _test(rows: "_Valued", test: Test) -> Node:
    field = rows.fields[test.column]
    value = rows.value(field)
    literals = [literal(v) for v in test.values]
    if test.operator == "is_missing":
        return is_null(value) if test.values[0] else not_null(value)
    if test.operator == "matches":
        pattern = text(canonical(str(test.values[0])))
        if field.kind != "set":
            return exp.RegexpLike(this=value, expression=pattern)
        one = exp.Lambda(this=exp.RegexpLike(this=exp.column("one"), expression=pattern), expressions=[exp.to_identifier("one")])
        found = gt(exp.ArraySize(this=exp.ArrayFilter(this=value, expression=one)), number(0))
        return case([(is_null(value), NULL)], found)
    if field.kind == "set":
        # A set is equal to a value that it contains; what an engine does with missing elements must not matter.
        contains = [coalesce(exp.ArrayContains(this=value, expression=v), FALSE) for v in literals]
        found = case([(is_null(value), NULL)], any_of(*contains))
        return not_(found) if test.operator == "ne" else found
    most = rows.most(field) if field.kind == "span" else value
    match test.operator:
        case "eq" if field.kind == "span":
            return all_of(eq(value, literals[0]), eq(most, literals[0]))
        case "eq" | "in":
            return is_one_of(value, literals)
        case "ne":
            return not_(is_one_of(value, literals))
        case "between":
            return all_of(ge(value, literals[0]), le(most, literals[1]))
        case "lt" | "le":
            return {"lt": lt, "le": le}[test.operator](most, literals[0])
        case _:
            return {"gt": gt, "ge": ge}[test.operator](value, literals[0])


def _tag(field: Field, key: str, unit: str) -> exp.Select:
    """What one tag, pixel feature or search for text says, by the id it belongs to: ``owner_id``, ``least`` and, of a span, ``most``."""
    if field.table == domain.TEXT:
        owner, verdict = col(key, domain.TEXT), col("verdict", domain.TEXT)
        said = [(eq(exp.Max(this=case([(eq(verdict, text(v)), number(1))], number(0))), number(1)), text(v)) for v in _VERDICTS]
        return select([named(owner, "owner_id"), named(case(said, NULL), "least")], _table(domain.TEXT), group=[owner])
    if field.table == domain.FEATURES:
        assert isinstance(field.keyword, tuple)
        feature, version, aggregate = field.keyword
        value = col("value", domain.FEATURES)
        level = "series" if aggregate == "own" else "image"
        where = [
            eq(col(name, domain.FEATURES), text(wanted))
            for name, wanted in (("level", level), ("feature", feature), ("version", version), ("status", "ok"))
        ]
        if unit == level:
            return select([named(col("id", domain.FEATURES), "owner_id"), named(value, "least")], _table(domain.FEATURES), where=where)
        of = col("series_id", domain.FEATURES)
        end = (exp.Min if aggregate == "min" else exp.Max)(this=value)
        return select([named(of, "owner_id"), named(end, "least")], _table(domain.FEATURES), where=where, group=[of])
    if field.table == domain.TEXTS:
        owner = col(key, field.table)
        texts = exp.ArrayAgg(this=exp.Distinct(expressions=[col("text", field.table)]))
        wanted = [eq(col("keyword", field.table), text(str(field.keyword)))]
        return select([named(owner, "owner_id"), named(texts, "least")], _table(field.table), where=wanted, group=[owner])
    of, where = named(col(key, field.table), "owner_id"), [eq(col("keyword", field.table), text(str(field.keyword)))]
    if field.kind == "span":
        ends = [named(col("min", field.table), "least"), named(col("max", field.table), "most")]
        return select([of, *ends], _table(field.table), where=where)
    values = exp.column(exp.to_identifier("values", quoted=True), field.table)
    some = case([(gt(exp.ArraySize(this=values), number(0)), values)], NULL)
    return select([of, named(some, "least")], _table(field.table), where=where)


def _counts(pairs: str) -> tuple[Node, Node]:
    """How many certainly meet the conditions, and how many may."""
    says, counted = cols(("says", "count_id"), pairs)
    return count_distinct(case([(says, counted)], NULL)), count_distinct(case([(coalesce(says, TRUE), counted)], NULL))


def _table(name: str) -> Node:
    return relation(f"{PREFIX}{name}", name)


def _present(column: Node, field: Field) -> Node:
    """A column with every way of writing "missing" turned into NULL."""
    if field.has_unknown:
        return exp.Nullif(this=column, expression=text(domain.UNKNOWN))
    if field.empty_is_missing:
        return case([(gt(exp.ArraySize(this=column), number(0)), column)], NULL)
    return column


def _window_of(events: Events) -> tuple[tuple[Window, Anchor], tuple[tuple[str, ...], tuple[str, ...]]]:
    """What decides whether nothing found means that nothing was there: window, and the kinds and record sources that must cover it."""
    return (events.window, events.anchor), (events.kinds, events.sources)


def _cover(asked: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]) -> exp.Select:
    """One row: the days that every source which can hold such events covers; late rows may still be missing in the last ``lag_days``."""
    ends, columns = [], []
    end = exp.Sub(this=day(col("to_date", "source_cover")), expression=coalesce(col("lag_days", "source_cover"), number(0)))
    for n, (kinds, sources) in enumerate(asked):
        holds = any_of(*(exp.ArrayContains(this=col("kinds", "source_cover"), expression=text(kind)) for kind in kinds))
        if sources:
            holds = all_of(holds, is_one_of(col("source", "source_cover"), [text(name) for name in sources]))
        ends.append(named(exp.Max(this=case([(holds, day(col("from_date", "source_cover")))], NULL)), f"from_{n}"))
        ends.append(named(exp.Min(this=case([(holds, end)], NULL)), f"to_{n}"))
        # Sources that share no day cover none together.
        some = le(col(f"from_{n}"), col(f"to_{n}"))
        columns += [named(case([(some, col(name))], NULL), name) for name in (f"from_{n}", f"to_{n}")]
    return select(columns, subquery(select(ends, _table("source_cover")), "shared"))


def _in_codelist(codes: Codes) -> Node:
    """Whether an event's code is in a list: one look-up per length of prefix, so that long lists stay fast."""
    code = col("code", "event")
    if codes.expand == "exact":
        matches = [is_one_of(code, [text(c) for c in codes.codes])]
    else:
        matches = [
            is_one_of(exp.Substring(this=code, start=number(1), length=number(length)), [text(c) for c in codes.codes if len(c) == length])
            for length in sorted({len(c) for c in codes.codes})
        ]
    return all_of(eq(col("system", "event"), text(codes.system)), any_of(*matches))
