"""The Python face of a question: short words that build the graph, and the graph written down in them again.

Comfort alone: nothing is decided here. A `Cohort` is a question in the making, never changed but given back with more in it; `question`
checks it as every face is checked. `to_python` writes a question as the call that makes it, without loss.

The words can be imported from `pictures_spark.cohort` as well.

Examples
--------
>>> asked = (
...     Cohort("ct-head-stroke", "series")
...     .codes("stroke", "icd10", ["I61", "I63"])
...     .step("ct_head", where(modality="CT", body_region="HEAD"))
...     .step("thin", where(slice_thickness_max=le(1.5)), unknown="include")
...     .step("stroke_after", first("diagnosis", codes="stroke", window=(0, 30)))
...     .pick("patient", "scan_date", "-image_count")
... )
>>> asked.question().population
'alive_and_resident'
>>> print(asked.to_yaml().splitlines()[0])
cohort: 1
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import date
from typing import Any, Literal, cast

from pictures_spark.cohort import check, domain, shape, yaml_face
from pictures_spark.cohort.domain import Field
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.model import (
    EVER,
    AllOf,
    Anchor,
    AnyOf,
    Breakdown,
    Chain,
    Change,
    CodeList,
    Cover,
    Events,
    Expand,
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
    Operator,
    Order,
    Output,
    Pick,
    Population,
    Predicate,
    Question,
    Related,
    Sample,
    Split,
    Stay,
    Step,
    Take,
    Test,
    Unit,
    Unknown,
    Value,
    Where,
    Window,
)

__all__ = [
    "Cohort",
    "all_of",
    "any_of",
    "between",
    "chain",
    "change",
    "cover",
    "day_of",
    "eq",
    "events",
    "ever",
    "first",
    "follow_up",
    "gap",
    "ge",
    "gt",
    "has",
    "hours",
    "lacks",
    "last",
    "le",
    "lt",
    "matches",
    "member",
    "missing",
    "ne",
    "nearest",
    "none_of",
    "one_of",
    "related",
    "report",
    "stay",
    "to_python",
    "where",
]

Names = str | Sequence[str]
Days = tuple[int | None, int | None]  # and hours, as `hours` makes them, where a window has these
# The window without ends: whenever the record source can tell.
ever: Days = (None, None)


@dataclass(frozen=True)
class Is:
    """A comparison whose column is not known yet."""

    operator: Operator
    values: tuple[Value, ...]


def eq(value: Value) -> Is:
    """Equal to; a set must contain it. A plain value means the same."""
    return Is("eq", (value,))


def one_of(*values: Value) -> Is:
    """One of these; a list means the same."""
    return Is("in", values)


def ne(*values: Value) -> Is:
    """None of these; unknown where there is no value."""
    return Is("ne", values)


def lt(value: Value) -> Is:
    """Less than."""
    return Is("lt", (value,))


def le(value: Value) -> Is:
    """At most."""
    return Is("le", (value,))


def gt(value: Value) -> Is:
    """More than."""
    return Is("gt", (value,))


def ge(value: Value) -> Is:
    """At least."""
    return Is("ge", (value,))


def between(low: Value, high: Value) -> Is:
    """From the first to the second, both included."""
    return Is("between", (low, high))


def matches(pattern: str) -> Is:
    """A regular expression found anywhere in the text, in the words that all engines share."""
    return Is("matches", (pattern,))


def missing(there_is_none: bool = True) -> Is:
    """Whether there is no value; never unknown."""
    return Is("is_missing", (there_is_none,))


Condition = Value | Is | list[Value] | list[Is]


def where(columns: Mapping[str, Condition] | None = None, /, **more: Condition) -> Where:
    """Conditions on columns, all of which must hold; a column whose name has a dot stands in a dictionary.

    Examples
    --------
    >>> where({"tag.SliceThickness": le(1.5)}, modality=["CT", "MR"]).tests[1]
    Test(column='modality', operator='in', values=('CT', 'MR'))
    """
    return Where(tuple(test for column, said in {**(columns or {}), **more}.items() for test in _tests(column, said)))


def _tests(column: str, said: Condition) -> Iterable[Test]:
    match said:
        case Is(operator, values):
            yield Test(column, operator, values)
        case list() if said and all(isinstance(one, Is) for one in said):
            yield from (test for one in said for test in _tests(column, one))
        case list():
            yield Test(column, "in", tuple(cast(list[Value], said)))
        case _:
            yield Test(column, "eq", (said,))


def events(
    kinds: Names,
    *,
    window: Days | Window = ever,
    codes: Names = (),
    at_least: int = 1,
    main: bool = False,
    source: Names = (),
    since: Anchor = "index",
    where: Where | None = None,
    apart: int | None = None,
) -> Events:
    """Events of the person; ``since`` is what the window counts from: ``index``, ``start_of_stay`` or ``end_of_stay``."""
    return Events(_names(kinds), _names(codes), _window(window), at_least, main, _names(source), since, where, apart)


def hours(low: int | None, high: int | None) -> Window:
    """A window of hours by the clock instead of days; both sides must have a time of day."""
    return Window(low, high, "hour")


def has(kinds: Names, *, window: Days | Window, **more: Any) -> Has:
    """The person has such an event; ``more`` is what `events` takes."""
    return Has(events(kinds, window=window, **more))


def lacks(kinds: Names, *, window: Days | Window, **more: Any) -> Lacks:
    """The person has no such event."""
    return Lacks(events(kinds, window=window, **more))


def first(kinds: Names, *, window: Days | Window, **more: Any) -> First:
    """The person's first such event ever lies in the window."""
    return First(events(kinds, window=window, **more))


def last(kinds: Names, *, window: Days | Window, **more: Any) -> Last:
    """The person's last such event ever lies in the window."""
    return Last(events(kinds, window=window, **more))


def chain(kinds: Names, *, window: Days | Window, gap: Days | Window = ever, within: int | None = None, **more: Any) -> Chain:
    """At least so many event days follow one another."""
    return Chain(events(kinds, window=window, **more), _window(gap), within)


def cover(kinds: Names, *, window: Days | Window, source: Names = ()) -> Cover:
    """An event of these kinds in the window would be known of."""
    return Cover(events(kinds, window=window, source=source))


def stay(*holds: Events, begins: Days | Window = ever, ends: Days | Window = ever, days: Days | Window = ever, at_least: int = 1) -> Stay:
    """So many hospital stays, each of which holds each of these events and lasts so many ``days``."""
    return Stay(holds, _window(begins), _window(ends), _window(days), at_least)


def related(
    unit: Any,
    of: Any,
    *,
    where: Where | None = None,
    window: Days | Window = ever,
    same: Names = (),
    at_least: int = 1,
    count: Any = None,
    within: int | None = None,
    apart: int | None = None,
    related: Related | None = None,
    among: Member | None = None,
    differ: Names = (),
    ratio: Where | None = None,
) -> Related:
    """Other series or studies of the same study or patient."""
    more = (within, apart, related, among, _names(differ), ratio)
    return Related(unit, of, where, _window(window), _names(same), at_least, count or unit, *more)


def nearest(among: Events | Related, *, take: Take = "nearest", then: Where | None = None) -> Nearest:
    """The nearest, earliest or latest of some events (`events`) or other scans (`related`)."""
    return Nearest(among, take, then)


def change(
    kinds: Names, *, window: Days | Window, then: Where, gap: Days | Window = ever, take: Literal["any", "ends"] = "any", **more: Any
) -> Change:
    """Of two measurements the later is so much more, or so many times, the earlier: ``then=where(change=ge(26))``."""
    return Change(events(kinds, window=window, **more), then, _window(gap), take)


def gap(start: str, end: str, days: Days | Window = ever) -> Gap:
    """Days from one date column to another."""
    return Gap(start, end, _window(days))


def report(
    finding: str,
    *,
    of: Any = "study",
    polarity: str = "affirmed",
    certainty: str | None = None,
    subject: str = "patient",
    window: Days | Window = ever,
) -> Finding:
    """A report says so."""
    return Finding(finding, of, polarity, certainty, subject, _window(window))


def member(cohort: str, level: Unit) -> Member:
    """The unit's patient, study, series or image is that of a member of a frozen cohort."""
    return Member(cohort, level)


def all_of(*parts: Predicate) -> AllOf:
    """Every part holds."""
    return AllOf(parts)


def any_of(*parts: Predicate) -> AnyOf:
    """At least one part holds."""
    return AnyOf(parts)


def none_of(*parts: Predicate) -> NoneOf:
    """No part holds."""
    return NoneOf(parts)


def follow_up(kinds: Names, *, window: Days | Window, until: date | str | None = None, **more: Any) -> FollowUp:
    """Days from the index date to the outcome, or to where follow-up ends."""
    return FollowUp(events(kinds, window=window, **more), _day(until))


def day_of(which: Any, kinds: Names, **more: Any) -> IndexEvent:
    """The day of the person's ``first`` or ``last`` such event, as an index date."""
    return IndexEvent(which, events(kinds, **more))


class Cohort:
    """A question in the making. Every method gives back another one.

    Parameters
    ----------
    id : its name.
    unit : ``patient``, ``study``, ``series`` or ``image``.
    index : a date column, a date, or `day_of` an event; ``scan_date`` where it is left out, but for patients.
    population : ``all``, ``linked`` or ``alive_and_resident``; by the steps where it is left out.
    """

    def __init__(self, id: str, unit: Unit, *, index: str | date | IndexEvent | None = None, population: Population | None = None) -> None:
        if index is None and unit != "patient":
            index = "scan_date"
        self._population = population
        self._graph = Question(
            id, unit, _day(index) if isinstance(index, str) and index[:1].isdigit() else _typed(index, {}), "all", (), ()
        )

    def _with(self, **more: Any) -> "Cohort":
        found = Cohort.__new__(Cohort)
        found._population, found._graph = self._population, replace(self._graph, **more)
        return found

    def codes(
        self, name: str, system: str, codes: Sequence[str] | None = None, *, file: str | None = None, expand: Expand = "prefix"
    ) -> "Cohort":
        """A list of codes, given here or in a CSV file."""
        given = cast(Any, codes) if codes is None or isinstance(codes, str) else tuple(codes)
        return self._with(codelists=(*self._graph.codelists, CodeList(name, system, given, file, expand)))

    def step(self, id: str, predicate: Predicate, *, unknown: Unknown = "exclude") -> "Cohort":
        """A predicate that all members must meet."""
        typed = _typed(predicate, domain.fields(self._graph.unit) if self._graph.unit in domain.UNITS else {})
        return self._with(steps=(*self._graph.steps, Step(id, typed, unknown)))

    def pick(self, one_per: Any, *order: str) -> "Cohort":
        """Keep the first survivor of each patient or study; ``-`` before a column is the largest first."""
        orders = tuple(Order(name.removeprefix("-"), name.startswith("-")) if isinstance(name, str) else Order(name) for name in order)
        return self._with(pick=Pick(one_per, orders))

    def match(
        self,
        cases: str,
        level: Unit,
        ratio: int,
        seed: str,
        *,
        exact: Names = (),
        caliper: Mapping[str, float] | None = None,
        replacement: bool = False,
        at_least: int = 1,
        risk_set: Events | None = None,
    ) -> "Cohort":
        """Give each case, a member of a frozen cohort, its controls out of the other survivors."""
        within = tuple((name, float(most) if isinstance(most, int) else most) for name, most in (caliper or {}).items())
        return self._with(match=Match(cases, level, ratio, seed, _names(exact), within, replacement, at_least, _typed(risk_set, {})))

    def sample(self, size: int, seed: str, *strata: str) -> "Cohort":
        """Keep so many of each stratum at random."""
        return self._with(sample=Sample(size, seed, strata))

    def split(self, parts: Mapping[str, int] | Sequence[str], *, seed: str | None = None, at: date | str | None = None) -> "Cohort":
        """Parts with percentages at random, or two names at a date; no patient is in both."""
        percent = tuple(parts.values()) if isinstance(parts, Mapping) else ()
        return self._with(split=Split(tuple(parts), percent, seed, _day(at)))

    def show(self, id: str, of: str | Gap | Nearest | FollowUp, *give: str) -> "Cohort":
        """An output column; ``give`` is what is shown of a nearest."""
        given = give or (("gap",) if isinstance(of, Nearest) else ())
        typed = _typed(of, domain.fields(self._graph.unit) if self._graph.unit in domain.UNITS else {})
        return self._with(outputs=(*self._graph.outputs, Output(id, typed, given)))

    def count(self, *by: str) -> "Cohort":
        """A table of counts of the members by the values of columns."""
        return self._with(breakdowns=(*self._graph.breakdowns, Breakdown(by)))

    def question(self) -> Question:
        """The checked graph.

        Raises
        ------
        QuestionError
            With every fault of it.
        """
        graph = replace(self._graph, population=self._population or "all")
        faults = shape.faults(graph)
        if not faults:
            graph = replace(graph, population=self._population or check.default_population(graph))
            faults = check.faults(graph)
        # What no file could say is none either: an empty list of codes, no parts.
        faults = faults or yaml_face.read(yaml_face.to_yaml(graph))[1]
        if faults:
            raise QuestionError(str(graph.id), faults)
        return graph

    def to_yaml(self) -> str:
        """The question as a file of ``pictures cohort``.

        Raises
        ------
        QuestionError
            With every fault of it.
        """
        return yaml_face.to_yaml(self.question())


def _window(ends: Any) -> Window:
    """What is no window becomes one whose ends are none, which is told when the question is asked for."""
    if isinstance(ends, Window):
        return ends
    return Window(*ends) if isinstance(ends, tuple | list) and len(ends) == 2 else Window(ends, ends)


def _names(names: Any) -> tuple[str, ...]:
    return tuple(names) if isinstance(names, list | tuple) else (names,)


def _day(text: Any) -> Any:
    """A day as text is a day; what is none is told when the question is asked for."""
    try:
        return date.fromisoformat(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _typed(node: Any, columns: Mapping[str, Field]) -> Any:
    """A node with its values as their columns have them: 1 as 1.0 of a number, ``2016-01-31`` as a day."""
    match node:
        case Where(tests):
            return Where(tuple(replace(test, values=tuple(_value(value, test, columns) for value in test.values)) for test in tests))
        case Events():
            return replace(node, where=_typed(node.where, domain.event_fields()))
        case Related():
            others = domain.fields(node.unit) if node.unit in domain.UNITS else {}
            ratio = None if node.ratio is None else _typed(node.ratio, {test.column: domain.ratio() for test in node.ratio.tests})
            return replace(node, where=_typed(node.where, others), related=_typed(node.related, columns), ratio=ratio)
        case Nearest(among, _, then):
            unit = among.unit if isinstance(among, Related) else ""
            others = domain.event_fields() if isinstance(among, Events) else domain.fields(unit) if unit in domain.UNITS else {}
            return replace(node, among=_typed(among, columns), then=_typed(then, others))
        case Change():
            return replace(node, events=_typed(node.events, columns), then=_typed(node.then, domain.changes()))
        case AllOf(parts) | AnyOf(parts) | NoneOf(parts):
            return replace(node, parts=tuple(_typed(part, columns) for part in parts))
        case Has() | Lacks() | First() | Last() | Chain() | IndexEvent():
            return replace(node, events=_typed(node.events, columns))
        case Stay():
            return replace(node, holds=tuple(_typed(events, columns) for events in node.holds))
        case FollowUp():
            return replace(node, outcome=_typed(node.outcome, columns))
        case _:
            return node


def _value(value: Value, test: Test, columns: Mapping[str, Field]) -> Value:
    kind = columns[test.column].kind if test.column in columns and test.operator not in ("matches", "is_missing") else None
    if kind in ("number", "span") and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _day(value) if kind == "date" else value


# The graph in words of Python.

_WORDS: dict[type, str] = {Has: "has", Lacks: "lacks", First: "first", Last: "last", Chain: "chain", Cover: "cover"}
_NESTS: dict[type, str] = {AllOf: "all_of", AnyOf: "any_of", NoneOf: "none_of"}
_COMPARED = {"in": "one_of", "is_missing": "missing"}


def to_python(question: Question) -> str:
    """A question as the call that makes it; evaluated with the words of this module and ``date``, its `Cohort.question` is the question.

    Examples
    --------
    >>> print(to_python(Cohort("ct", "series").step("ct", where(modality="CT")).question()))
    Cohort('ct', 'series', index='scan_date', population='all')
    .step('ct', where({'modality': eq('CT')}))
    """
    head = f"Cohort({question.id!r}, {question.unit!r}, index={_written(question.index)}, population={question.population!r})"
    calls = [
        _call("codes", c.name, c.system, c.codes and list(c.codes), file=c.file, expand=None if c.expand == "prefix" else c.expand)
        for c in question.codelists
    ]
    calls += [_call("step", s.id, s.predicate, unknown=None if s.unknown == "exclude" else s.unknown) for s in question.steps]
    if question.pick is not None:
        calls.append(_call("pick", question.pick.one_per, *(f"-{o.column}" if o.descending else o.column for o in question.pick.order)))
    if question.match is not None:
        match = question.match
        more: dict[str, Any] = {"exact": match.exact, "caliper": dict(match.caliper) or None, "replacement": match.replacement or None}
        more |= {"at_least": None if match.at_least == 1 else match.at_least, "risk_set": match.risk_set}
        calls.append(_call("match", match.cases, match.level, match.ratio, match.seed, **more))
    if question.sample is not None:
        calls.append(_call("sample", question.sample.size, question.sample.seed, *question.sample.strata))
    if question.split is not None:
        split = question.split
        parts: Any = dict(zip(split.parts, split.percent, strict=True)) if split.percent else list(split.parts)
        calls.append(_call("split", parts, seed=split.seed, at=split.at))
    calls += [_call("show", output.id, output.of, *output.give) for output in question.outputs]
    calls += [_call("count", *breakdown.by) for breakdown in question.breakdowns]
    return "\n".join([head, *(f".{call}" for call in calls)])


def _call(word: str, *given: Any, **named: Any) -> str:
    """A call; what is named None or empty is left out."""
    parts = [_written(value) for value in given]
    parts += [f"{name}={_written(value)}" for name, value in named.items() if value is not None and value != ()]
    return f"{word}({', '.join(parts)})"


def _written(node: Any) -> str:
    match node:
        case Window(low, high):
            return _call("hours", low, high)
        case Where(tests):
            columns: dict[str, list[str]] = {}
            for test in tests:
                word = _COMPARED.get(test.operator, test.operator)
                columns.setdefault(test.column, []).append(_call(word, *test.values))
            said = {column: one[0] if len(one) == 1 else f"[{', '.join(one)}]" for column, one in columns.items()}
            return f"where({{{', '.join(f'{column!r}: {text}' for column, text in said.items())}}})"
        case Has() | Lacks() | First() | Last() | Cover():
            return _written_events(_WORDS[type(node)], node.events)
        case Chain():
            return _written_events("chain", node.events, gap=_ends(node.gap), within=node.within)
        case Events():
            return _written_events("events", node)
        case AllOf(parts) | AnyOf(parts) | NoneOf(parts):
            return _call(_NESTS[type(node)], *parts)
        case Stay():
            least = None if node.at_least == 1 else node.at_least
            return _call("stay", *node.holds, begins=_ends(node.begins), ends=_ends(node.ends), days=_ends(node.days), at_least=least)
        case Change():
            take = None if node.take == "any" else node.take
            return _written_events("change", node.events, then=node.then, gap=_ends(node.gap), take=take)
        case Nearest():
            return _call("nearest", node.among, take=None if node.take == "nearest" else node.take, then=node.then)
        case Related():
            names = ("within", "apart", "related", "where", "among", "differ", "ratio")
            more = {name: value for name in names if (value := getattr(node, name)) is not None}
            count = None if node.count == node.unit else node.count
            at_least = None if node.at_least == 1 else node.at_least
            return _call("related", node.unit, node.of, window=_ends(node.window), same=node.same, at_least=at_least, count=count, **more)
        case Gap():
            return _call("gap", node.start, node.end, *([] if node.window == EVER else [_written_window(node.window)]))
        case Finding():
            more = {name: getattr(node, name) for name in ("of", "polarity", "certainty", "subject")}
            return _call("report", node.finding, **more, window=_ends(node.window))
        case Member():
            return _call("member", node.cohort, node.level)
        case FollowUp():
            return _written_events("follow_up", node.outcome, until=node.until)
        case IndexEvent():
            named = node.events
            return _call(
                "day_of", node.which, named.kinds, codes=named.codes, main=named.main or None, source=named.sources, where=named.where
            )
        case date():
            return f"date({node.year}, {node.month}, {node.day})"
        case list() | tuple() if any(is_dataclass(part) or isinstance(part, date) for part in node):
            return f"[{', '.join(map(_written, node))}]"
        case _:
            return repr(node)


def _written_events(word: str, asked: Events, **more: Any) -> str:
    defaults = {field.name: field.default for field in fields(Events)}
    since = None if asked.anchor == defaults["anchor"] else asked.anchor
    at_least = None if asked.at_least == defaults["at_least"] else asked.at_least
    window = _written_window(asked.window)
    return _call(
        word,
        asked.kinds,
        window=window,
        codes=asked.codes,
        at_least=at_least,
        main=asked.main or None,
        source=asked.sources,
        since=since,
        where=asked.where,
        apart=asked.apart,
        **more,
    )


def _ends(window: Window) -> Days | Window | None:
    return None if window == EVER else _written_window(window)


def _written_window(window: Window) -> Days | Window:
    return (window.low, window.high) if window.unit == "day" else window
