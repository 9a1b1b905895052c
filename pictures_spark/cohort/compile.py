"""From a question to one relational plan, built as sqlglot expressions and printed for each engine.

What every engine must agree on is written out, never left to a default:

- Three values. A comparison with a missing value is unknown (SQL's NULL); a step of several tests is their AND, where one no decides.
  ``unknown`` in a closed list, and an empty set of one, are missing values.
- Days. Dates become whole days since 1970-01-01 and are only compared as numbers: no interval arithmetic, no time zone, no clipping.
- Order. Missing values come last, and the unit's own id ends every order.
- Patterns are written again in the words that all engines read alike (`pictures_spark.cohort.pattern`).
- Samples are the first by the SHA-256 of seed and id, which every engine computes alike.
- Cover. No event found means no only where the window, as far as the person lived, lies inside the cover of every source that can hold
  such an event and inside one unbroken residence; else the answer is unknown.

The shape of the plan is the same for every question: ``unit``, its rows with every column that is looked at; ``asked``, each person and
index day that units share (a dozen series of one day are asked about once); ``observed``, which windows are, from one join with the
residences; ``event``, one scan of the events with a flag for each thing asked of them, and ``found``, one join with it that is reduced
once; ``answered``, the three-valued answers; ``judged``, bits.

The plan's rows (`Plan.flags`) are one per unit: ``unit_id``, ``patient_id``, ``index_date``, ``holds`` and ``unknowns`` (bit k is step k of
the attrition) and ``passed``, the last step a unit survived. Attrition, members and hashes are small questions about these rows, so
steps can be switched off or put in another order without asking the tables again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from sqlglot import exp

from pictures_spark.cohort import domain, sentence
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.domain import Field
from pictures_spark.cohort.model import (
    AllOf,
    AnyOf,
    Chain,
    Cover,
    Events,
    First,
    Has,
    Lacks,
    Last,
    NoneOf,
    Predicate,
    Question,
    Related,
    Test,
    Unknown,
    Where,
    Window,
    event_steps,
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
TABLES = (*domain.UNITS, *sorted(domain.TAG_TABLES), domain.FEATURES, "residence", "event", "source_cover")
_FLAGS = ("unit_id", "patient_id", "index_date", "holds", "unknowns", "passed")
_FIRST_STEP = 2  # after the start and the population
_LAST_DAY = 2932896  # 9999-12-31: a residence that lasts
_NO_DAY = -(1 << 30)  # stands for no index date in a key, where NULL would equal nothing
_ASKED = ("patient_id", "asked_day")


@dataclass(frozen=True)
class PlannedStep:
    """One line of the attrition: ``index`` in the plan is its bit."""

    id: str
    sentence: str
    unknown: Unknown


@dataclass(frozen=True)
class Plan:
    """A compiled question.

    ``flags`` gives one row per unit, ``touching`` one row with, for each event step, how many units have a window that touches the
    cover of its sources at all (None where there are no such steps). ``tables`` are the tables of the de-identified zone it reads, each
    under its name with `PREFIX`.
    """

    unit: str
    steps: tuple[PlannedStep, ...]
    flags: exp.Select
    touching: exp.Select | None
    tables: tuple[str, ...]

    @property
    def last(self) -> int:
        """Index of the last step: members are the rows that passed it."""
        return len(self.steps) - 1

    def sql(self, dialect: str, pretty: bool = False) -> str:
        """The SQL of `flags` for an engine, ``duckdb`` or ``spark``."""
        return self.flags.sql(dialect, pretty=pretty)


def compiled(question: Question, codes: Mapping[str, Codes]) -> Plan:
    """Compile a checked question with its resolved code lists."""
    return _Compiler(question, codes).plan()


def planned(question: Question, codes: Mapping[str, Codes]) -> tuple[PlannedStep, ...]:
    """The lines of the attrition of a question: start, population, its steps, and what acts on the survivors."""
    acts = last_acts(question)
    policies: list[Unknown] = ["exclude", "exclude", *(step.unknown for step in question.steps), *("exclude" for _ in acts)]
    ids = ["start", "population", *(step.id for step in question.steps), *acts]
    return tuple(PlannedStep(*step) for step in zip(ids, sentence.lines(question, codes), policies, strict=True))


@dataclass(frozen=True)
class Leaves:
    """Conditions of a question, compiled apart from the rest of it.

    ``says`` gives ``unit_id`` and, for each condition, ``says_<n>`` of every unit: 0 no, 1 unknown, 2 yes; so the least of several answers
    is their AND and the greatest their OR. A unit of which each says no may be missing. ``touching`` and ``tables`` are as in `Plan`. Both
    read the relations of ``ctes``; ``observed`` is what the relation of that name depends on, besides the units: the windows, and the kinds
    and sources of events that must cover them.
    """

    says: exp.Select
    touching: exp.Select | None
    ctes: tuple[tuple[str, exp.Select], ...]
    observed: tuple[Any, ...]
    tables: tuple[str, ...]

    def reading(self, query: exp.Select, given: Mapping[str, exp.Select]) -> exp.Select:
        """A query on the relations of the leaves; those that are given are read instead of asking the tables for them."""
        needless = ("residence_",) if "spell" in given else ()
        return with_ctes(query, [(name, given.get(name, cte)) for name, cte in self.ctes if not name.startswith(needless)])


def leaves(question: Question, codes: Mapping[str, Codes]) -> Leaves:
    """Compile every step of a question for itself, or of a question without steps its population."""
    return _Compiler(question, codes).leaves()


def kept(question: Question) -> dict[str, exp.Select]:
    """What questions about people of one unit and index share: ``unit``, each unit with its person and days, and ``spell``, residences."""
    compiler = _Compiler(replace(question, population="alive_and_resident", steps=(), pick=None, sample=None), {})
    spells = compiler.spells()
    return {"unit": compiler.unit(), "spell": with_ctes(select([exp.Star()], "spell"), spells)}


class _Rows:
    """The rows of a unit with the values that a question turns out to look at; ``name`` is the relation they are in."""

    def __init__(self, unit: str, name: str) -> None:
        self.unit = unit
        self.name = name
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

    def select(self, columns: Sequence[Node]) -> exp.Select:
        """The rows: these columns, and one for each value that was asked for."""
        unit = self.unit
        columns = list(columns)
        joins: list[Join] = [
            (_table(parent), eq(col(domain.key(parent), unit), col(domain.key(parent), parent)), "left")
            for parent in domain.levels(unit)[1:]
            if parent in self.tables
        ]
        for name, field in self.used.items():
            if field.keyword is None:
                columns.append(named(_present(col(field.name, field.table), field), name))
                continue
            key = domain.key({"study_tag": "study", "tag": "series"}.get(field.table, unit))
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

    def __init__(self, question: Question, codes: Mapping[str, Codes]) -> None:
        self.question = question
        self.codes = codes
        self.fields = domain.fields(question.unit)
        self.rows = _Rows(question.unit, "unit")
        self.tables: set[str] = set()
        self.ctes: list[tuple[str, exp.Select]] = []
        self.joined: list[Join] = []
        # What is asked about events; a place in these lists is the number in the names of its columns.
        self.covers: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self.windows: list[Window] = []
        self.observed: list[tuple[int, int]] = []  # window and cover
        self.wanted: list[Node] = []
        self.found: list[Node] = []
        self.steps: dict[int, list[tuple[int, int]]] = {}  # what each step must have observed
        self.related = 0
        self.chains = 0

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
        answered = self._answered(answers)  # before the unit's own rows, so that every column they must have is known
        unit = self.unit()
        self.tables |= self.rows.tables
        ctes = [("unit", unit), *self.spells(), *events, *self.ctes]
        last = len(answers)
        relations = [("answered", answered), ("judged", self._judged([step.unknown for step in steps], last))]
        flags = select(cols(_FLAGS), "judged")
        if question.pick is not None:
            flags = self._picked(last)
            last += 1
        if question.sample is not None:
            if question.pick is not None:
                relations.append(("picked", flags))
            flags = self._sampled(last, relations[-1][0])
        return Plan(
            question.unit,
            steps,
            with_ctes(flags, [*ctes, *relations]),
            with_ctes(self._touching(), ctes) if self.steps else None,
            tuple(sorted(self.tables)),
        )

    def leaves(self) -> Leaves:
        answers = [self._answer(step.predicate) for step in self.question.steps] or [self._population()]
        self.steps = {index: asked for index in range(len(self.question.steps)) if (asked := self._asked_of(index))}
        events = self._events()
        steps = [f"step_{n}" for n in range(len(answers))]
        rows = select([col("unit_id", "unit"), *map(named, answers, steps)], "unit", self.joined)
        says = [case([(col(name), number(2)), (is_null(col(name)), number(1))], number(0)) for name in steps]
        columns = [named(exp.cast(said, "tinyint"), f"says_{n}") for n, said in enumerate(says)]
        some = any_of(*(coalesce(col(name), TRUE) for name in steps))
        return Leaves(
            select([col("unit_id"), *columns], subquery(rows, "answered"), where=[some]),
            self._touching() if self.steps else None,
            (("unit", self.unit()), *self.spells(), *events, *self.ctes),
            tuple((self.windows[window], self.covers[cover]) for window, cover in self.observed),
            tuple(sorted(self.tables | self.rows.tables)),
        )

    def _asked_of(self, index: int) -> list[tuple[int, int]]:
        """The windows, and what must cover them, of all that a step asks of events."""
        asked = [_window_of(events) for i, _, events in event_steps(self.question) if i == index]
        return [(self._number(self.windows, window), self._number(self.covers, cover)) for window, cover in asked]

    # Rows

    def unit(self) -> exp.Select:
        """One row per unit with every value that a step, the index or the pick looks at."""
        unit = self.question.unit
        index = self._index()
        columns = [named(col(domain.key(unit), unit), "unit_id"), named(col("patient_id", unit), "patient_id")]
        columns += [named(index, "index_date"), named(day(index), "index_day")]
        if self._is_about_people:
            columns.append(named(coalesce(day(index), number(_NO_DAY)), "asked_day"))
            self.rows.tables.add("patient")
            month = exp.Concat(expressions=[col("birth_month", "patient"), text("-01")])
            born = exp.TryCast(this=month, to=exp.DataType.build("date"), safe=True)
            columns += [named(day(born), "birth_day"), named(day(col("death_date", "patient")), "death_day")]
        return self.rows.select(columns)

    @property
    def _is_about_people(self) -> bool:
        return bool(event_steps(self.question)) or self.question.population == "alive_and_resident"

    def _index(self) -> Node:
        index = self.question.index
        if index is None:
            return exp.cast(NULL, "date")
        if isinstance(index, date):
            return literal(index)
        field = self.fields[index]
        self.rows.tables.add(field.table)
        return col(field.name, field.table)

    # Steps

    def _population(self) -> Node:
        linked = not_null(col("patient_id", "unit"))
        match self.question.population:
            case "all":
                return TRUE
            case "linked":
                return linked
        index = col("index_day", "unit")
        inside = [
            eq(col("patient_id", "spell"), col("patient_id", "asked")),
            le(col("from_day", "spell"), col("index_day", "asked")),
            ge(col("to_day", "spell"), col("index_day", "asked")),
        ]
        resident = select(cols(_ASKED, "asked"), "asked", [(relation("spell"), all_of(*inside), "")], distinct=True)
        self.ctes.append(("resident", resident))
        self._join_asked("resident")
        return case(
            [
                (is_null(col("patient_id", "unit")), FALSE),
                (is_null(index), NULL),
                (any_of(lt(col("death_day", "unit"), index), gt(col("birth_day", "unit"), index)), FALSE),
                (is_null(col("patient_id", "resident")), FALSE),
            ],
            TRUE,
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
            case Related():
                return self._related(predicate)
            case AllOf(parts):
                return all_of(*map(self._answer, parts))
            case AnyOf(parts):
                return any_of(*map(self._answer, parts))
            case NoneOf(parts):
                return not_(any_of(*map(self._answer, parts)))

    def _has(self, events: Events) -> Node:
        inside = self._is_found(events)
        if events.at_least == 1:
            enough = eq(self._reduced(exp.Max(this=case([(inside, number(1))], number(0)))), number(1))
        else:
            enough = ge(self._reduced(count_distinct(case([(inside, col("day", "event"))], NULL))), number(events.at_least))
        return case([(enough, TRUE), (self._observed(events), FALSE)], NULL)

    def _end(self, events: Events, first: bool) -> Node:
        """The first or the last event of a person, and where it lies."""
        any_day = case([(self._is_wanted(events), col("day", "event"))], NULL)
        found = self._reduced((exp.Min if first else exp.Max)(this=any_day))
        low, high = self._asked_ends(events, "unit")
        inside = [not_null(found)]
        branches: list[tuple[Node, Node]] = []
        if events.window.low is not None:
            inside.append(ge(found, low))
            if first:
                branches.append((lt(found, low), FALSE))
        if events.window.high is not None:
            inside.append(le(found, high))
            if not first:
                branches.append((gt(found, high), FALSE))
        return case([*branches, (all_of(*inside), TRUE), (self._observed(events), FALSE)], NULL)

    def _chain(self, chain: Chain) -> Node:
        events = chain.events
        inside, n = self._is_found(events), self.chains
        self.chains += 1
        asked, row = cols(_ASKED), (*_ASKED, "day")
        days = [*cols(_ASKED, "asked"), col("day", "event")]
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
        return case([(not_null(col("patient_id", found)), TRUE), (self._observed(events), FALSE)], NULL)

    def _join_asked(self, name: str) -> None:
        """Bring what a relation says of a person and day to each unit that shares them."""
        self.joined.append((relation(name), all_of(*(eq(col(key, name), col(key, "unit")) for key in _ASKED)), "left"))

    def _number(self, known: list[Any], wanted: Any) -> int:
        """The place of what is wanted among what is known already, so that nothing is asked twice."""
        if wanted not in known:
            known.append(wanted)
        return known.index(wanted)

    def _observed(self, events: Events) -> Node:
        window, cover = _window_of(events)
        asked = self._number(self.observed, (self._number(self.windows, window), self._number(self.covers, cover)))
        return eq(coalesce(col(f"is_{asked}", "observed"), number(0)), number(1))

    def _reduced(self, aggregate: Node) -> Node:
        """What the one join of windows and events says of each person and day; NULL where there are no events."""
        return col(f"of_{self._number(self.found, aggregate)}", "found")

    def _is_wanted(self, events: Events) -> Node:
        """Whether a row of ``event`` is one of these."""
        return col(f"is_{self._number(self.wanted, self._is_asked(events))}", "event")

    def _is_found(self, events: Events) -> Node:
        """Whether a row of ``event`` is one of these, and inside the window of the row of ``asked``."""
        low, high = self._asked_ends(events, "asked")
        found = [self._is_wanted(events)]
        found += [ge(col("day", "event"), low)] if events.window.low is not None else []
        found += [le(col("day", "event"), high)] if events.window.high is not None else []
        return all_of(*found)

    def _asked_ends(self, events: Events, where: str) -> tuple[Node, Node]:
        """First and last day of a window; an open end is never compared with an event."""
        index = col("index_day", where)
        return plus(index, events.window.low or 0), plus(index, events.window.high or 0)

    def spells(self) -> list[tuple[str, exp.Select]]:
        """Unbroken residence of each person: rows that touch or overlap are one spell (a move inside the area is not an absence)."""
        if not self.observed and self.question.population != "alive_and_resident":
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

    def _events(self) -> list[tuple[str, exp.Select]]:
        """Who is asked about which day, which windows are observed, one scan of the events and one join with it."""
        if not self._is_about_people:
            return []
        row = cols((*_ASKED, "index_day", "birth_day", "death_day"), "unit")
        found = [("asked", select(row, "unit", where=[not_null(col("patient_id", "unit"))], distinct=True))]
        if not self.observed:
            return found
        self.tables.add("source_cover")
        found += [("cover", _cover(self.covers)), ("observed", self._observe())]
        if not self.wanted:
            self._join_asked("observed")
            return found
        self.tables.add("event")
        flags = [named(wanted, f"is_{n}") for n, wanted in enumerate(self.wanted)]
        row = [col("patient_id", "event"), named(day(col("date", "event")), "day")]
        found.append(("event", select([*row, *flags], _table("event"), where=[any_of(*self.wanted)])))
        if self.found:
            asked = cols(_ASKED, "asked")
            reduced = [named(value, f"of_{n}") for n, value in enumerate(self.found)]
            same_person = eq(col("patient_id", "event"), col("patient_id", "asked"))
            found.append(("found", select([*asked, *reduced], "asked", [(relation("event"), same_person, "")], group=asked)))
            self._join_asked("found")
        self._join_asked("observed")
        return found

    def _observe(self) -> exp.Select:
        person, born, died = cols(("patient_id", "birth_day", "death_day"), "asked")
        asked = cols(_ASKED, "asked")
        columns = list(asked)
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
            seen = all_of(le(low, high), any_of(gt(lived_from, lived_to), covered))
            columns.append(named(exp.Max(this=case([(seen, number(1))], number(0))), f"is_{n}"))
        joins: list[Join] = [(relation("cover"), None, "cross"), (relation("spell"), eq(col("patient_id", "spell"), person), "left")]
        return select(columns, "asked", joins, group=asked)

    def _ends(self, window: int, cover: int) -> tuple[Node, Node]:
        """First and last day of a window; an open end is where the cover begins or ends."""
        asked, index = self.windows[window], col("index_day", "asked")
        low = col(f"from_{cover}", "cover") if asked.low is None else plus(index, asked.low)
        high = col(f"to_{cover}", "cover") if asked.high is None else plus(index, asked.high)
        return low, high

    def _is_asked(self, events: Events) -> Node:
        """Whether an event is one of those asked for; never unknown."""
        asked = [is_one_of(col("kind", "event"), [text(kind) for kind in events.kinds])]
        if events.codes:
            asked.append(any_of(*(_in_codelist(self.codes[name]) for name in events.codes)))
        if events.main:
            asked.append(eq(col("position", "event"), number(0)))
        if events.sources:
            asked.append(is_one_of(col("source", "event"), [text(name) for name in events.sources]))
        return coalesce(all_of(*asked), FALSE) if len(asked) > 1 else asked[0]

    def _related(self, related: Related) -> Node:
        n = self.related
        self.related += 1
        others = _Rows(related.unit, f"other_rows_{n}")
        key, shared = domain.key(related.unit), domain.key(related.of)
        says = _tests(others, related.where.tests) if related.where is not None else TRUE
        same = [(self.rows.value(self.fields[name]), others.value(others.fields[name])) for name in related.same]
        own = [
            named(col(key, related.unit), "other_id"),
            named(col(shared, related.unit), "group_id"),
            named(col(domain.key(related.count), related.unit), "count_id"),
            named(day(col("scan_date", related.unit)), "other_day"),
        ]
        row = ("other_id", "group_id", "count_id", "other_day")
        kept = [named(says, "says"), *(named(value, f"same_{i}") for i, (_, value) in enumerate(same))]
        other = f"other_{n}"
        self.ctes += [
            (others.name, others.select(own)),
            (other, select([*cols(row), *kept], others.name, where=[coalesce(says, TRUE)])),
        ]
        self.tables |= others.tables
        group = self._own(related.of)
        on = [eq(group, col("group_id", other))]
        if related.unit in domain.levels(self.question.unit):
            mine = self._own(related.unit)
            on.append(any_of(is_null(mine), not_(eq(mine, col("other_id", other)))))
        index, other_day = col("index_day", "unit"), col("other_day", other)
        conditions = [col("says", other)]
        if related.window.low is not None:
            conditions.append(ge(other_day, plus(index, related.window.low)))
        if related.window.high is not None:
            conditions.append(le(other_day, plus(index, related.window.high)))
        if related.within is not None:
            # One without a day may or may not lie within the time.
            conditions.append(case([(not_null(other_day), TRUE)], NULL))
        conditions += [eq(mine, col(f"same_{i}", other)) for i, (mine, _) in enumerate(same)]
        columns = [col("unit_id", "unit"), *cols(("count_id", "other_day"), other), named(all_of(*conditions), "says")]
        pairs, found = f"pair_{n}", f"related_{n}"
        self.ctes.append((pairs, select(columns, "unit", [(relation(other), all_of(*on), "")])))
        unit_id = col("unit_id", pairs)
        certain, possible = _counts(pairs)
        counts = select([unit_id, named(certain, "certain"), named(possible, "possible")], pairs, group=[unit_id])
        if related.within is not None:
            counts = self._rolling(related.within, pairs, counts)
        self.ctes.append((found, counts))
        self.joined.append((relation(found), eq(col("unit_id", found), col("unit_id", "unit")), "left"))
        least = number(related.at_least)
        certain, possible = (coalesce(col(name, found), number(0)) for name in ("certain", "possible"))
        return case([(is_null(group), NULL), (ge(certain, least), TRUE), (lt(possible, least), FALSE)], NULL)

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

    def _own(self, level: str) -> Node:
        """The unit's own id, or that of what it belongs to, as its own row says."""
        unit = self.question.unit
        if level == unit:
            return col("unit_id", "unit")
        if level == "patient":
            return col("patient_id", "unit")
        return self.rows.value(self.fields[domain.key(level)])

    # Answers

    @property
    def _strata(self) -> tuple[str, ...]:
        return self.question.sample.strata if self.question.sample is not None else ()

    @property
    def _strata_columns(self) -> list[Node]:
        return cols([f"stratum_{i}" for i in range(len(self._strata))])

    def _answered(self, answers: Mapping[int, Node]) -> exp.Select:
        """Every step's answer as a three-valued column, with what the pick sorts by."""
        columns = [*cols(_FLAGS[:3], "unit"), *(named(answer, f"step_{index}") for index, answer in answers.items())]
        pick = self.question.pick
        if pick is not None:
            columns.append(named(self.rows.value(self.fields[domain.key(pick.one_per)]), "pick_group"))
            order = domain.pick_order(self.question.unit, pick)
            columns += [named(self.rows.value(self.fields[o.column]), f"pick_{i}") for i, o in enumerate(order)]
        columns += [named(self.rows.value(self.fields[name]), f"stratum_{i}") for i, name in enumerate(self._strata)]
        return select(columns, "unit", self.joined)

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
            order = domain.pick_order(self.question.unit, self.question.pick)
            columns += cols(["pick_group", *(f"pick_{i}" for i in range(len(order)))])
        return select([*columns, *self._strata_columns], "answered")

    def _picked(self, last: int) -> exp.Select:
        """The pick as a last step: the first survivor of each group holds, a survivor without a group is unknown."""
        assert self.question.pick is not None
        survives = eq(col("passed"), number(last))
        order = []
        for i, key in enumerate(domain.pick_order(self.question.unit, self.question.pick)):
            value = col(f"pick_{i}")
            order += [
                exp.Ordered(this=case([(is_null(value), number(1))], number(0))),
                exp.Ordered(this=value, desc=key.descending),
            ]
        place = over(exp.RowNumber(), [survives, col("pick_group")], order)
        placed = select([*cols(_FLAGS), *self._strata_columns, col("pick_group"), named(place, "place")], "judged")
        first = all_of(survives, not_null(col("pick_group")), eq(col("place"), number(1)))
        lost = all_of(survives, is_null(col("pick_group")))
        index = last + 1
        columns = [
            *cols(_FLAGS[:3]),
            named(plus(col("holds"), case([(first, bit(index))], bit(None))), "holds"),
            named(plus(col("unknowns"), case([(lost, bit(index))], bit(None))), "unknowns"),
            named(case([(first, number(index))], col("passed")), "passed"),
            *self._strata_columns,
        ]
        return select(columns, subquery(placed, "placed"))

    def _sampled(self, last: int, source: str) -> exp.Select:
        """The sample as a last step: of each stratum, the first survivors by the hash of seed and id."""
        assert self.question.sample is not None
        survives = eq(col("passed"), number(last))
        seeded = exp.Concat(expressions=[text(f"{self.question.sample.seed}:"), col("unit_id")])
        order = [exp.Ordered(this=exp.SHA2(this=seeded, length=exp.Literal.number(256))), exp.Ordered(this=col("unit_id"))]
        place = over(exp.RowNumber(), [survives, *self._strata_columns], order)
        chosen = all_of(survives, le(col("place"), number(self.question.sample.size)))
        index = last + 1
        columns = [
            *cols(_FLAGS[:3]),
            named(plus(col("holds"), case([(chosen, bit(index))], bit(None))), "holds"),
            col("unknowns"),
            named(case([(chosen, number(index))], col("passed")), "passed"),
        ]
        return select(columns, subquery(select([*cols(_FLAGS), named(place, "place")], source), "placed"))

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
        return select([exp.Count(this=case([(touches, number(1))], NULL))], relation("unit", "asked"), [(relation("cover"), None, "cross")])


def _name(field: Field) -> str:
    return field.name if field.keyword is not None else f"{field.table}_{field.name}"


def _tests(rows: _Rows, tests: Sequence[Test]) -> Node:
    return all_of(*(_test(rows, test) for test in tests))


def _test(rows: _Rows, test: Test) -> Node:
    field = rows.fields[test.column]
    value = rows.value(field)
    literals = [literal(v) for v in test.values]
    if test.operator == "is_missing":
        return is_null(value) if test.values[0] else not_null(value)
    if test.operator == "matches":
        return exp.RegexpLike(this=value, expression=text(canonical(str(test.values[0]))))
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
    """What one tag or pixel feature says, by the id it belongs to: ``owner_id``, ``least`` and, of a span, ``most``."""
    if field.table == domain.FEATURES:
        assert isinstance(field.keyword, tuple)
        feature, version, aggregate = field.keyword
        value = col("value", domain.FEATURES)
        where = [
            eq(col(name, domain.FEATURES), text(wanted))
            for name, wanted in (("level", "image"), ("feature", feature), ("version", version), ("status", "ok"))
        ]
        if unit == "image":
            return select([named(col("id", domain.FEATURES), "owner_id"), named(value, "least")], _table(domain.FEATURES), where=where)
        of = col("series_id", domain.FEATURES)
        end = (exp.Min if aggregate == "min" else exp.Max)(this=value)
        return select([named(of, "owner_id"), named(end, "least")], _table(domain.FEATURES), where=where, group=[of])
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


def _window_of(events: Events) -> tuple[Window, tuple[tuple[str, ...], tuple[str, ...]]]:
    """What decides whether nothing found means that nothing was there: window, and the kinds and record sources that must cover it."""
    return events.window, (events.kinds, events.sources)


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
