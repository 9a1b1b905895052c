"""From a question to one relational plan, built as sqlglot expressions and printed for each engine.

What every engine must agree on is written out, never left to a default:

- Three values. A comparison with a missing value is unknown (SQL's NULL); a step of several tests is their AND, where one no decides.
  ``unknown`` in a closed list, and an empty set of one, are missing values.
- Days. Dates become whole days since 1970-01-01 and are only compared as numbers: no interval arithmetic, no time zone, no clipping.
- Order. Missing values come last, and the unit's own id ends every order.
- Cover. No event found means no only where the window, as far as the person lived, lies inside the cover of every source that can hold
  such an event and inside one unbroken residence; else the answer is unknown.

The plan's rows (`Plan.flags`) are one per unit: ``unit_id``, ``patient_id``, ``index_date``, ``holds`` and ``unknowns`` (bit k is step k of
the attrition) and ``passed``, the last step a unit survived. Attrition, members and hashes are small questions about these rows, so
steps can be switched off or put in another order without asking the tables again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from sqlglot import exp

from pictures_spark.cohort import domain, sentence
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.domain import Field
from pictures_spark.cohort.model import Events, First, Has, Lacks, Question, Step, Test, Unknown, Where, event_steps
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
    day,
    eq,
    ge,
    gt,
    is_null,
    is_one_of,
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
_FLAGS = ("unit_id", "patient_id", "index_date", "holds", "unknowns", "passed")
_FIRST_STEP = 2  # after the start and the population
_LAST_DAY = 2932896  # 9999-12-31: a residence that lasts


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


class _Compiler:
    """One question on its way to a plan; collects the columns, tables and common table expressions that its steps turn out to need."""

    def __init__(self, question: Question, codes: Mapping[str, Codes]) -> None:
        self.question = question
        self.codes = codes
        self.fields = domain.fields(question.unit)
        self.used: dict[str, Field] = {}
        self.tables: set[str] = {question.unit}
        self.ctes: list[tuple[str, exp.Select]] = []
        self.event_steps = [_FIRST_STEP + i for i, _, _ in event_steps(question)]

    def plan(self) -> Plan:
        question = self.question
        answers = {1: self._population()} | {i: self._answer(i, step) for i, step in enumerate(question.steps, start=_FIRST_STEP)}
        policies: list[Unknown] = ["exclude", "exclude", *(step.unknown for step in question.steps)]
        ids = ["start", "population", *(step.id for step in question.steps)]
        if question.pick is not None:
            ids.append("pick")
            policies.append("exclude")
        answered = self._answered(answers)  # before the unit's own rows, so that every column they must have is known
        ctes = [("unit", self._unit()), *self.ctes]
        judged = [("answered", answered), ("judged", self._judged(policies, len(answers)))]
        flags = self._picked(len(answers)) if question.pick is not None else select(cols(_FLAGS), "judged")
        steps = zip(ids, sentence.lines(question, self.codes), policies, strict=True)
        return Plan(
            question.unit,
            tuple(PlannedStep(*step) for step in steps),
            with_ctes(flags, [*ctes, *judged]),
            with_ctes(self._touching(), ctes) if self.event_steps else None,
            tuple(sorted(self.tables)),
        )

    # Rows

    def _unit(self) -> exp.Select:
        """One row per unit with every value that a step, the index or the pick looks at."""
        unit = self.question.unit
        index = self._index()
        columns = [named(col(domain.key(unit), unit), "unit_id"), named(col("patient_id", unit), "patient_id")]
        columns += [named(index, "index_date"), named(day(index), "index_day")]
        if self.event_steps or self.question.population == "alive_and_resident":
            self.tables.add("patient")
            month = exp.Concat(expressions=[col("birth_month", "patient"), text("-01")])
            born = exp.TryCast(this=month, to=exp.DataType.build("date"), safe=True)
            columns += [named(day(born), "birth_day"), named(day(col("death_date", "patient")), "death_day")]
        columns += [named(_present(col(field.name, field.table), field), name) for name, field in self.used.items()]
        source, where = _table(unit), []
        if unit == "patient":
            # A pseudonym that was merged into another is not a person of its own.
            where.append(is_null(col("merged_into", "patient")))
        if unit == "image":
            # Several contents under one instance UID are one image; the first locator stands for it.
            place = over(exp.RowNumber(), [col("image_id", "image")], [exp.Ordered(this=col("locator_id", "image"))])
            source = subquery(select([exp.column(exp.Star(), "image"), named(place, "content")], _table("image")), "image")
            where.append(eq(col("content", "image"), number(1)))
        joins: list[Join] = [
            (_table(parent), eq(col(domain.key(parent), unit), col(domain.key(parent), parent)), "left")
            for parent in domain.levels(unit)[1:]
            if parent in self.tables
        ]
        return select(columns, source, joins, where)

    def _index(self) -> Node:
        index = self.question.index
        if index is None:
            return exp.cast(NULL, "date")
        if isinstance(index, date):
            return literal(index)
        field = self.fields[index]
        self.tables.add(field.table)
        return col(field.name, field.table)

    def _value(self, field: Field) -> Node:
        """A value of the unit's row, NULL in every way of being missing."""
        name = f"{field.table}_{field.name}"
        self.tables.add(field.table)
        self.used[name] = field
        return col(name, "unit")

    # Steps

    def _population(self) -> Node:
        linked = not_null(col("patient_id", "unit"))
        match self.question.population:
            case "all":
                return TRUE
            case "linked":
                return linked
        self._add_spells()
        index = col("index_day", "unit")
        inside = [
            eq(col("patient_id", "spell"), col("patient_id", "unit")),
            le(col("from_day", "spell"), index),
            ge(col("to_day", "spell"), index),
        ]
        resident = select([col("unit_id", "unit")], "unit", [(relation("spell"), all_of(*inside), "")], distinct=True)
        self.ctes.append(("resident", resident))
        return case(
            [
                (is_null(col("patient_id", "unit")), FALSE),
                (is_null(index), NULL),
                (any_of(lt(col("death_day", "unit"), index), gt(col("birth_day", "unit"), index)), FALSE),
                (is_null(col("unit_id", "resident")), FALSE),
            ],
            TRUE,
        )

    def _answer(self, index: int, step: Step) -> Node:
        match step.predicate:
            case Where(tests):
                return all_of(*(self._test(test) for test in tests))
            case Has(events):
                return self._has(index, events)
            case Lacks(events):
                return not_(self._has(index, events))
            case First(events):
                return self._first(index, events)

    def _test(self, test: Test) -> Node:
        field = self.fields[test.column]
        value = self._value(field)
        literals = [literal(v) for v in test.values]
        if test.operator == "is_missing":
            return is_null(value) if test.values[0] else not_null(value)
        if field.kind == "set":
            # A set is equal to a value that it contains; what an engine does with missing elements must not matter.
            contains = [coalesce(exp.ArrayContains(this=value, expression=v), FALSE) for v in literals]
            found = case([(is_null(value), NULL)], any_of(*contains))
            return not_(found) if test.operator == "ne" else found
        match test.operator:
            case "eq" | "in":
                return is_one_of(value, literals)
            case "ne":
                return not_(is_one_of(value, literals))
            case "between":
                return all_of(ge(value, literals[0]), le(value, literals[1]))
        return {"lt": lt, "le": le, "gt": gt, "ge": ge}[test.operator](value, literals[0])

    def _has(self, index: int, events: Events) -> Node:
        asked, event = self._add_window(index, events)
        on = [eq(col("patient_id", event), col("patient_id", asked))]
        if events.window.low is not None:
            on.append(ge(col("day", event), col("asked_from", asked)))
        if events.window.high is not None:
            on.append(le(col("day", event), col("asked_to", asked)))
        days = named(exp.Count(this=exp.Distinct(expressions=[col("day", event)])), "days")
        unit_id = col("unit_id", asked)
        self.ctes.append((f"found_{index}", select([unit_id, days], asked, [(relation(event), all_of(*on), "")], group=[unit_id])))
        enough = ge(col("days", f"found_{index}"), number(events.at_least))
        return case([(enough, TRUE), (not_null(col("unit_id", f"observed_{index}")), FALSE)], NULL)

    def _first(self, index: int, events: Events) -> Node:
        asked, event = self._add_window(index, events)
        person = col("patient_id", event)
        by_person = select([person, named(exp.Min(this=col("day", event)), "first_day")], event, group=[person])
        on = eq(col("patient_id", "person"), col("patient_id", asked))
        columns = [*cols(("unit_id", "asked_from", "asked_to"), asked), col("first_day", "person")]
        self.ctes.append((f"found_{index}", select(columns, asked, [(subquery(by_person, "person"), on, "")])))
        first, low, high = cols(("first_day", "asked_from", "asked_to"), f"found_{index}")
        inside = [not_null(first)]
        branches: list[tuple[Node, Node]] = []
        if events.window.low is not None:
            branches.append((lt(first, low), FALSE))
            inside.append(ge(first, low))
        if events.window.high is not None:
            inside.append(le(first, high))
        branches += [(all_of(*inside), TRUE), (not_null(col("unit_id", f"observed_{index}")), FALSE)]
        return case(branches, NULL)

    def _add_window(self, index: int, events: Events) -> tuple[str, str]:
        """Add the window of each unit, the units whose window is observed, and the events; names of the first and the last."""
        self._add_spells()
        self.tables |= {"event", "source_cover"}
        asked, event, cover = f"window_{index}", f"event_{index}", f"cover_{index}"
        self.ctes += [(event, self._event(events)), (cover, _cover(events))]

        def end(days: int | None, open_end: str) -> Node:
            return col(open_end, cover) if days is None else plus(col("index_day", "unit"), days)

        low, high = end(events.window.low, "from_day"), end(events.window.high, "to_day")
        # Nothing happens to a person before the month of birth or after death: that time needs no cover.
        born, died = col("birth_day", "unit"), col("death_day", "unit")
        columns = [
            *cols(("unit_id", "patient_id"), "unit"),
            named(low, "asked_from"),
            named(high, "asked_to"),
            named(case([(gt(born, low), born)], low), "lived_from"),
            named(case([(lt(died, high), died)], high), "lived_to"),
            named(col("from_day", cover), "cover_from"),
            named(col("to_day", cover), "cover_to"),
        ]
        self.ctes.append((asked, select(columns, "unit", [(relation(cover), None, "cross")])))
        asked_from, asked_to, lived_from, lived_to, cover_from, cover_to, person = cols(
            ("asked_from", "asked_to", "lived_from", "lived_to", "cover_from", "cover_to", "patient_id"), asked
        )
        spell = all_of(
            eq(col("patient_id", "spell"), person), le(col("from_day", "spell"), lived_from), ge(col("to_day", "spell"), lived_to)
        )
        covered = all_of(ge(lived_from, cover_from), le(lived_to, cover_to), not_null(col("patient_id", "spell")))
        where = [not_null(person), le(asked_from, asked_to), any_of(gt(lived_from, lived_to), covered)]
        observed = select([col("unit_id", asked)], asked, [(relation("spell"), spell, "left")], where, distinct=True)
        self.ctes.append((f"observed_{index}", observed))
        return asked, event

    def _event(self, events: Events) -> exp.Select:
        """Persons and days with an event of the step, each once."""
        where = [is_one_of(col("kind", "event"), [text(kind) for kind in events.kinds])]
        if events.codes:
            where.append(any_of(*(_in_codelist(self.codes[name]) for name in events.codes)))
        columns = [col("patient_id", "event"), named(day(col("date", "event")), "day")]
        return select(columns, _table("event"), where=where, distinct=True)

    def _add_spells(self) -> None:
        """Unbroken residence of each person: rows that touch or overlap are one spell (a move inside the area is not an absence)."""
        if "residence" in self.tables:
            return
        self.tables.add("residence")
        row = ("patient_id", "from_day", "to_day")
        until = coalesce(day(col("to_date", "residence")), number(_LAST_DAY))
        days = [col("patient_id", "residence"), named(day(col("from_date", "residence")), "from_day"), named(until, "to_day")]
        person, order = [col("patient_id")], [exp.Ordered(this=col("from_day")), exp.Ordered(this=col("to_day"))]
        so_far = over(exp.Max(this=col("to_day")), person, order, preceding=True)
        opens = case([(le(col("from_day"), plus(so_far, 1)), number(0))], number(1))
        island = over(exp.Sum(this=col("opens")), person, order, preceding=False)
        ends = [named(exp.Min(this=col("from_day")), "from_day"), named(exp.Max(this=col("to_day")), "to_day")]
        self.ctes += [
            ("residence_days", select(days, _table("residence"))),
            ("residence_opens", select([*cols(row), named(opens, "opens")], "residence_days", where=[le(col("from_day"), col("to_day"))])),
            ("residence_islands", select([*cols(row), named(island, "island")], "residence_opens")),
            ("spell", select([*person, *ends], "residence_islands", group=[*person, col("island")])),
        ]

    # Answers

    def _answered(self, answers: Mapping[int, Node]) -> exp.Select:
        """Every step's answer as a three-valued column, with what the pick sorts by."""
        columns = [*cols(_FLAGS[:3], "unit"), *(named(answer, f"step_{index}") for index, answer in answers.items())]
        pick = self.question.pick
        if pick is not None:
            columns.append(named(self._value(self.fields[domain.key(pick.one_per)]), "pick_group"))
            order = domain.pick_order(self.question.unit, pick)
            columns += [named(self._value(self.fields[o.column]), f"pick_{i}") for i, o in enumerate(order)]
        found = ["resident"] if self.question.population == "alive_and_resident" else []
        found += [f"{name}_{index}" for index in self.event_steps for name in ("found", "observed")]
        joins: list[Join] = [(relation(name), eq(col("unit_id", name), col("unit_id", "unit")), "left") for name in found]
        return select(columns, "unit", joins)

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
        return select(columns, "answered")

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
        placed = select([*cols(_FLAGS), col("pick_group"), named(place, "place")], "judged")
        first = all_of(survives, not_null(col("pick_group")), eq(col("place"), number(1)))
        lost = all_of(survives, is_null(col("pick_group")))
        index = last + 1
        columns = [
            *cols(_FLAGS[:3]),
            named(plus(col("holds"), case([(first, bit(index))], bit(None))), "holds"),
            named(plus(col("unknowns"), case([(lost, bit(index))], bit(None))), "unknowns"),
            named(case([(first, number(index))], col("passed")), "passed"),
        ]
        return select(columns, subquery(placed, "placed"))

    def _touching(self) -> exp.Select:
        counts = []
        for index in self.event_steps:
            asked_from, asked_to, cover_from, cover_to = cols(("asked_from", "asked_to", "cover_from", "cover_to"), f"window_{index}")
            touches = all_of(le(asked_from, cover_to), ge(asked_to, cover_from))
            counted = select([exp.Count(this=case([(touches, number(1))], NULL))], f"window_{index}")
            counts.append(named(subquery(counted), f"step_{index}"))
        units = select([exp.Count(this=exp.Star())], "unit")
        return exp.select(named(subquery(units), "units"), *counts, copy=False)


def _table(name: str) -> Node:
    return relation(f"{PREFIX}{name}", name)


def _present(column: Node, field: Field) -> Node:
    """A column with every way of writing "missing" turned into NULL."""
    if field.has_unknown:
        return exp.Nullif(this=column, expression=text(domain.UNKNOWN))
    if field.empty_is_missing:
        return case([(gt(exp.ArraySize(this=column), number(0)), column)], NULL)
    return column


def _cover(events: Events) -> exp.Select:
    """The days that every source which can hold such events covers; late rows may still be missing in the last ``lag_days``."""
    kinds = [exp.ArrayContains(this=col("kinds", "source_cover"), expression=text(kind)) for kind in events.kinds]
    end = exp.Sub(this=day(col("to_date", "source_cover")), expression=coalesce(col("lag_days", "source_cover"), number(0)))
    ends = [named(exp.Max(this=day(col("from_date", "source_cover"))), "from_day"), named(exp.Min(this=end), "to_day")]
    shared = select(ends, _table("source_cover"), where=[any_of(*kinds)])
    # Sources that share no day cover none together.
    some = le(col("from_day"), col("to_day"))
    return select(
        [named(case([(some, end)], NULL), name) for name in ("from_day", "to_day") for end in [col(name)]], subquery(shared, "shared")
    )


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
