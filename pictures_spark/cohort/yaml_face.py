"""The YAML face of a question: text to graph and back, without loss.

Every scalar is loaded as text and then typed by the column it is compared with, because YAML would read the BNF code ``0206010`` as a
number and the contrast ``no`` as false (DESIGN section 7). Key words come from schemas/cohort.yaml. All faults are found at once.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any, cast

import yaml

from pictures_spark.cohort import check, domain
from pictures_spark.cohort.domain import Field
from pictures_spark.cohort.faults import QuestionError, nearest
from pictures_spark.cohort.model import (
    EVER,
    AllOf,
    AnyOf,
    Breakdown,
    Chain,
    Change,
    CodeList,
    Cover,
    EventPredicate,
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
    Nest,
    NoneOf,
    Operator,
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
    Value,
    Where,
    Window,
)
from pictures_spark.resources import load_schema

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAYS = re.compile(r"([+-]?[0-9]{1,6})d")
_HOURS = re.compile(r"([+-]?[0-9]{1,6})h")
# Stands for a window that could not be read, so that nothing else seems wrong because of it.
_UNREAD = Window(-99999, 99999)
_EVENT_STEPS: dict[str, type[Has | Lacks | First | Last | Chain | Cover]] = {
    "has": Has,
    "lacks": Lacks,
    "first": First,
    "last": Last,
    "chain": Chain,
    "cover": Cover,
}
# What says which events, apart from when and how many.
_NAMED = ("event", "codes", "position", "source", "where")
_NESTS: dict[str, type[Nest]] = {"all": AllOf, "any": AnyOf, "none": NoneOf}
_PREDICATES = ("where", *_EVENT_STEPS, "stay", "change", "nearest", "related", "gap", "report", "in", *_NESTS)
_WORDS = {kind: word for word, kind in (_EVENT_STEPS | _NESTS).items()}
# A megabyte of codes has not so many; aliases of aliases soon do.
_MOST_NODES = 500_000
# Deep enough for every real question; deeper ones are mistakes.
_DEEPEST = 5
_LOOKS_LIKE = {
    "number": "a number such as 1.5",
    "span": "a number such as 1.5",
    "whole": "a whole number such as 65",
    "date": "a date such as 2016-01-31",
    "flag": "true or false",
}
_SIGNS = {"<=": "le", ">=": "ge", "<": "lt", ">": "gt", "=": "eq"}
# Words and day counts that no reader of YAML takes for anything but text; everything else is written in quotes.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*|-?[a-z][a-z0-9_]*|[+-]?[0-9]+d")
_NOT_PLAIN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def from_yaml(text: str, source: str = "file") -> Question:
    """Read and check a question. ``source`` names it in messages.

    Raises
    ------
    QuestionError
        With every fault of the question but those of its code lists' files and of the published tables.

    Examples
    --------
    >>> from_yaml("{cohort: 1, id: ct, unit: series, steps: [{id: ct, where: {modality: CT}}]}").population
    'all'
    """
    question, faults = read(text)
    if question is None or faults:
        raise QuestionError(source, faults)
    return question


def read(text: str) -> tuple[Question | None, list[str]]:
    """The question as far as it can be read, and every fault; None where it is no question at all."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None and _written_out(node, {}) > _MOST_NODES:
            return None, ["its anchors (&) and aliases (*) stand for too much; write out what is meant"]
        tree = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        problem = getattr(error, "problem", None) or "it holds a character that YAML does not allow"
        return None, [f"it is not valid YAML{where}: {problem}{_mended(problem, text)}"]
    except RecursionError:
        return None, ["it is nested too deeply"]
    if not isinstance(tree, dict):
        return None, ["it must be a mapping that starts with cohort: 1"]
    reader = _Reader(tree)
    question = reader.question()
    if question is None:
        return None, reader.faults
    return question, reader.faults + check.faults(question, whole=not reader.faults)


def _mended(problem: str, text: str) -> str:
    """What to do about text that is no YAML."""
    if "\t" in problem or "'\\t'" in problem:
        return "; indent with spaces, not with tabs"
    if "another document" in problem:
        return "; a file holds one question, without ---"
    if "\u00a0" in text:
        return "; there are no-break spaces in it, as word processors write them: type plain ones"
    if problem.startswith("expected ',' or"):
        return "; a bracket is not closed, or a text that holds a colon or comma is not in quotes"
    return ""


def to_yaml(question: Question) -> str:
    """A question in its canonical form; ``from_yaml`` gives the same graph back.

    Every default is written out but ``expand: prefix``, ``unknown: exclude`` and ``at_least: 1``.
    """
    tree: dict[str, Any] = {"cohort": 1, "id": question.id, "unit": question.unit}
    if isinstance(question.index, IndexEvent):
        tree["index"] = {question.index.which: _named_events_tree(question.index.events)}
    elif question.index is not None:
        tree["index"] = question.index
    tree["population"] = question.population
    if question.codelists:
        tree["codelists"] = {codelist.name: _codelist_tree(codelist) for codelist in question.codelists}
    tree["steps"] = [_step_tree(step) for step in question.steps]
    if question.pick is not None:
        order = [f"-{o.column}" if o.descending else o.column for o in question.pick.order]
        tree["pick"] = {"one_per": question.pick.one_per, "order": order}
    if question.match is not None:
        tree["match"] = _match_tree(question.match)
    if question.sample is not None:
        tree["sample"] = {"size": question.sample.size, "seed": question.sample.seed}
        if question.sample.strata:
            tree["sample"]["strata"] = list(question.sample.strata)
    if question.split is not None:
        tree["split"] = _split_tree(question.split)
    if question.outputs:
        tree["output"] = [_output_tree(output) for output in question.outputs]
    if question.breakdowns:
        tree["count"] = [{"by": _one_or_many(breakdown.by)} for breakdown in question.breakdowns]
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=140)


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are with every alias written out."""
    if id(node) not in known:
        known[id(node)] = 0  # one that holds itself is refused when it is made
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inside = () if isinstance(node, yaml.ScalarNode) else parts
        known[id(node)] = 1 + sum(_written_out(part, known) for part in inside)
    return known[id(node)]


class _Loader(yaml.BaseLoader):
    """Every scalar as text; the same key twice is a fault, not the second value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return mapping


class _Dumper(yaml.SafeDumper):
    """Text in quotes wherever some reader of YAML would take it for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _NOT_PLAIN
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)


def _codelist_tree(codelist: CodeList) -> dict[str, Any]:
    tree: dict[str, Any] = {"system": codelist.system}
    if codelist.file is not None:
        tree["file"] = codelist.file
    if codelist.codes is not None:
        tree["codes"] = list(codelist.codes)
    if codelist.expand != "prefix":
        tree["expand"] = codelist.expand
    return tree


def _step_tree(step: Step) -> dict[str, Any]:
    tree: dict[str, Any] = {"id": step.id} | _predicate_tree(step.predicate)
    if step.unknown != "exclude":
        tree["unknown"] = step.unknown
    return tree


def _predicate_tree(predicate: Predicate) -> dict[str, Any]:
    match predicate:
        case Where(tests):
            return {"where": _where_tree(tests)}
        case Related():
            return {"related": _related_tree(predicate)}
        case Stay():
            return {"stay": _stay_tree(predicate)}
        case Change():
            return {"change": _change_tree(predicate)}
        case Nearest():
            return {"nearest": _nearest_tree(predicate)}
        case Gap():
            return {"gap": _gap_tree(predicate)}
        case Finding():
            return {"report": _finding_tree(predicate)}
        case Member():
            return {"in": {"cohort": predicate.cohort, "level": predicate.level}}
        case AllOf(parts) | AnyOf(parts) | NoneOf(parts):
            return {_WORDS[type(predicate)]: [_predicate_tree(part) for part in parts]}
        case Has() | Lacks() | First() | Last() | Chain() | Cover():
            tree = _events_tree(predicate.events, isinstance(predicate, First | Last))
            if isinstance(predicate, Chain):
                if predicate.gap != EVER:
                    tree["gap"] = _window_tree(predicate.gap)
                if predicate.within is not None:
                    tree["within"] = f"{predicate.within}d"
            return {_WORDS[type(predicate)]: tree}


def _related_tree(related: Related) -> dict[str, Any]:
    tree: dict[str, Any] = {"unit": related.unit, "of": related.of}
    if related.where is not None:
        tree["where"] = _where_tree(related.where.tests)
    if related.window != EVER:
        tree["window"] = _window_tree(related.window)
    if related.same:
        tree["same"] = list(related.same)
    if related.differ:
        tree["differ"] = list(related.differ)
    if related.ratio is not None:
        tree["ratio"] = _where_tree(related.ratio.tests)
    if related.at_least != 1:
        tree["at_least"] = related.at_least
    if related.count != related.unit:
        tree["count"] = related.count
    if related.within is not None:
        tree["within"] = f"{related.within}d"
    if related.apart is not None:
        tree["apart"] = f"{related.apart}d"
    if related.related is not None:
        tree["related"] = _related_tree(related.related)
    if related.among is not None:
        tree["among"] = {"cohort": related.among.cohort, "level": related.among.level}
    return tree


def _stay_tree(stay: Stay) -> dict[str, Any]:
    tree: dict[str, Any] = {"has": [_named_events_tree(events) for events in stay.holds]}
    if stay.begins == EVER and stay.ends == EVER:
        tree["ever"] = True
    if stay.begins != EVER:
        tree["begins"] = _window_tree(stay.begins)
    if stay.ends != EVER:
        tree["ends"] = _window_tree(stay.ends)
    if stay.days != EVER:
        tree["days"] = _window_tree(stay.days)
    if stay.at_least != 1:
        tree["at_least"] = stay.at_least
    return tree


def _nearest_tree(nearest: Nearest) -> dict[str, Any]:
    among = nearest.among
    tree = _events_tree(among, False) if isinstance(among, Events) else _related_tree(among)
    if nearest.take != "nearest":
        tree["take"] = nearest.take
    if nearest.then is not None:
        tree["then"] = _where_tree(nearest.then.tests)
    return tree


def _change_tree(change: Change) -> dict[str, Any]:
    tree = _events_tree(change.events, False)
    if change.gap != EVER:
        tree["gap"] = _window_tree(change.gap)
    if change.take != "any":
        tree["take"] = change.take
    return tree | {"then": _where_tree(change.then.tests)}


def _gap_tree(gap: Gap) -> dict[str, Any]:
    days = {} if gap.window == EVER else {"days": _window_tree(gap.window)}
    return {"from": gap.start, "to": gap.end} | days


def _finding_tree(asked: Finding) -> dict[str, Any]:
    tree: dict[str, Any] = {"finding": asked.finding, "of": asked.of, "polarity": asked.polarity, "subject": asked.subject}
    if asked.certainty is not None:
        tree["certainty"] = asked.certainty
    if asked.window != EVER:
        tree["window"] = _window_tree(asked.window)
    return tree


def _match_tree(match: Match) -> dict[str, Any]:
    tree: dict[str, Any] = {"cases": match.cases, "level": match.level, "ratio": match.ratio, "seed": match.seed}
    if match.exact:
        tree["exact"] = list(match.exact)
    if match.caliper:
        tree["caliper"] = dict(match.caliper)
    if match.replacement:
        tree["replacement"] = True
    if match.at_least != 1:
        tree["at_least"] = match.at_least
    if match.risk_set is not None:
        tree["risk_set"] = _named_events_tree(match.risk_set)
    return tree


def _split_tree(split: Split) -> dict[str, Any]:
    parts: Any = dict(zip(split.parts, split.percent, strict=True)) if split.percent else list(split.parts)
    return {"parts": parts} | ({"seed": split.seed} if split.at is None else {"at": split.at})


def _output_tree(output: Output) -> dict[str, Any]:
    match output.of:
        case str(name):
            return {"id": output.id, "column": name}
        case Gap() as gap:
            return {"id": output.id, "gap": _gap_tree(gap)}
        case Nearest() as nearest:
            return {"id": output.id, "nearest": _nearest_tree(nearest), "give": _one_or_many(output.give)}
        case FollowUp(outcome, until):
            tree = _named_events_tree(outcome) | {"window": _window_tree(outcome.window)}
            return {"id": output.id, "follow_up": tree | ({"until": until} if until is not None else {})}


def _window_tree(window: Window) -> list[str]:
    return ["ever" if end is None else f"{end}{window.unit[0]}" for end in (window.low, window.high)]


def _where_tree(tests: tuple[Test, ...]) -> dict[str, Any]:
    columns: dict[str, dict[str, Any]] = {}
    for test in tests:
        many = test.operator in ("in", "between") or len(test.values) > 1
        columns.setdefault(test.column, {})[test.operator] = list(test.values) if many else test.values[0]
    return {column: found.get("eq", found.get("in", found)) if len(found) == 1 else found for column, found in columns.items()}


def _named_events_tree(events: Events) -> dict[str, Any]:
    """Which events, without when and how many."""
    tree: dict[str, Any] = {"event": _one_or_many(events.kinds)}
    if events.codes:
        tree["codes"] = _one_or_many(events.codes)
    if events.main:
        tree["position"] = "main"
    if events.sources:
        tree["source"] = _one_or_many(events.sources)
    if events.where is not None:
        tree["where"] = _where_tree(events.where.tests)
    return tree


def _events_tree(events: Events, ever: bool) -> dict[str, Any]:
    tree = _named_events_tree(events)
    if ever or events.window == EVER:
        tree["ever"] = True
    if events.window != EVER:
        tree["window"] = _window_tree(events.window)
    if events.at_least != 1:
        tree["at_least"] = events.at_least
    if events.apart is not None:
        tree["apart"] = f"{events.apart}d"
    if events.anchor != "index":
        tree["from"] = events.anchor
    return tree


def _one_or_many(names: tuple[str, ...]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


class _Reader:
    """One pass over the loaded tree; what cannot be read is left out and becomes a fault."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self.tree = tree
        self.faults: list[str] = []
        self.schema: dict[str, Any] = load_schema("cohort.yaml")

    def question(self) -> Question | None:
        tree = self._mapping(self.tree, self.schema, "")
        version = tree.get("cohort")
        if version is not None and version != "1":
            return self._fault("", f"cohort: {_shown(version)} is no version of the language; this one reads cohort: 1")
        name = self._text(tree.get("id"), "id") or ""
        unit = self._text(tree.get("unit"), "unit") or ""
        # Without the unit no name in the question means anything: only what stands apart from it can be read.
        known = unit in domain.UNITS
        codelists = tuple(self._codelists(tree.get("codelists")))
        steps = tuple(self._steps(tree.get("steps"), domain.fields(unit) if known else {}))
        pick = self._pick(tree["pick"]) if "pick" in tree else None
        sample = self._sample(tree["sample"]) if "sample" in tree else None
        match = self._match(tree["match"]) if "match" in tree else None
        split = self._split(tree["split"]) if "split" in tree else None
        outputs = tuple(self._outputs(tree["output"], unit)) if "output" in tree else ()
        breakdowns = tuple(self._breakdowns(tree["count"])) if "count" in tree else ()
        index: str | date | IndexEvent | None = "scan_date" if known and unit != "patient" else None
        if "index" in tree:
            index = self._index(tree["index"]) or index
        population = self._text(tree["population"], "population") if "population" in tree else None
        question = Question(name, cast(Any, unit), index, "all", codelists, steps, pick, sample, split, outputs, breakdowns, match)
        population = population or check.default_population(question)
        return replace(question, population=cast(Any, population))

    def _index(self, value: Any) -> str | date | IndexEvent | None:
        if isinstance(value, dict):
            words = [word for word in ("first", "last") if word in value]
            if len(value) != 1 or not words:
                return self._fault("index", "must be a date column, a date, or one of first and last with an event")
            found = self._mapping(value[words[0]], self.schema["$defs"]["event"], f"index: {words[0]}")
            events = self._event(found, f"index: {words[0]}")
            return IndexEvent(cast(Any, words[0]), events) if events is not None else None
        index = self._text(value, "index")
        return cast(date | None, self._typed(index, "date", "index")) if index is not None and _DATE.fullmatch(index) else index

    def _fault(self, where: str, text: str) -> Any:
        """Note a fault; what could not be read is None."""
        self.faults.append(f"{where}: {text}" if where else text)

    def _mapping(self, tree: Any, schema: dict[str, Any], where: str) -> dict[str, Any]:
        """The entries of a mapping that the language knows; the others, and those that must be there, become faults."""
        if not isinstance(tree, dict):
            self._fault(where, f"must be a mapping with {', '.join(schema['properties'])}, not {_shown(tree)}")
            return {}
        known = schema["properties"]
        for name in tree:
            if name not in known:
                self._fault(where, f"unknown key {_shown(name)}{nearest(name, known)}")
        for name in schema.get("required", []):
            if name not in tree:
                self._fault(where, f"needs {name}")
        return {name: value for name, value in tree.items() if name in known}

    def _text(self, value: Any, where: str) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            return self._fault(where, f"must be one value, not {_shown(value)}")
        return value

    def _texts(self, value: Any, where: str, single: bool = True) -> tuple[str, ...]:
        """A list of texts; a single text counts as a list of one where ``single`` says so."""
        items = [value] if single and isinstance(value, str) else value
        if not isinstance(items, list) or not items or not all(isinstance(item, str) and item for item in items):
            self._fault(where, f"must be a list of values, not {_shown(value)}")
            return ()
        return tuple(items)

    def _codelists(self, tree: Any) -> Iterator[CodeList]:
        if tree is None:
            return
        if not isinstance(tree, dict) or not tree:
            return self._fault("codelists", f"must be a mapping from names to lists, not {_shown(tree)}")
        for name, entry in tree.items():
            where = f"code list {name}"
            found = self._mapping(entry, self.schema["$defs"]["codelist"], where)
            if len({"codes", "file"} & set(found)) != 1:
                self._fault(where, "needs either codes or file")
            codes = self._texts(found["codes"], f"{where}: codes", single=False) if found.get("codes") else None
            file = self._text(found.get("file"), f"{where}: file")
            if found.get("codes") == [] or found.get("codes") == "":
                self._fault(where, "is empty: it would find nobody")
            system = self._text(found.get("system"), f"{where}: system")
            expand = self._text(found.get("expand", "prefix"), f"{where}: expand")
            yield CodeList(name, system or "", codes or None, file, cast(Any, expand or "prefix"))

    def _steps(self, tree: Any, fields: dict[str, Field]) -> Iterator[Step]:
        if tree is None:
            return
        if not isinstance(tree, list):
            return self._fault("steps", f"must be a list, each step beginning with -, not {_shown(tree)}")
        for number, entry in enumerate(tree, start=1):
            name = entry.get("id") if isinstance(entry, dict) else None
            where = f"step {name}" if isinstance(name, str) and name else f"step {number}"
            found = self._mapping(entry, self.schema["$defs"]["step"], where)
            if not found:
                continue
            predicate = self._predicate(found, where, fields, len(found) == len(entry))
            step_id = self._text(found.get("id"), f"{where}: id")
            unknown = self._text(found.get("unknown", "exclude"), f"{where}: unknown")
            if predicate is not None:
                yield Step(step_id or "", predicate, cast(Any, unknown or "exclude"))

    def _predicate(self, found: dict[str, Any], where: str, fields: dict[str, Field], whole: bool, depth: int = 0) -> Predicate | None:
        """The one predicate among the entries. ``whole`` is False where some were not known: then one may only seem to be missing."""
        predicates = [word for word in _PREDICATES if word in found]
        if len(predicates) != 1:
            # A word that is not known, or not yet, is what the step was meant to have.
            if len(predicates) > 1:
                self._fault(
                    where, f"has {' and '.join(predicates)}, and needs exactly one: make each a step of its own, or put them under all"
                )
            elif whole:
                self._fault(where, f"needs exactly one of {', '.join(_PREDICATES)}")
            return None
        (word,) = predicates
        if word == "where":
            return self._where(found[word], where, fields)
        match word:
            case "related":
                return self._related(found[word], f"{where}: related")
            case "stay":
                return self._stay(found[word], f"{where}: stay")
            case "change":
                return self._change(found[word], f"{where}: change")
            case "nearest":
                return self._nearest(found[word], f"{where}: nearest")
            case "gap":
                return self._gap(found[word], f"{where}: gap")
            case "report":
                return self._finding(found[word], f"{where}: report")
            case "in":
                return self._member(found[word], f"{where}: in")
        if word in _NESTS:
            return self._nest(found[word], f"{where}: {word}", word, fields, depth)
        return self._events(found[word], f"{where}: {word}", word)

    def _nest(self, tree: Any, where: str, word: str, fields: dict[str, Field], depth: int) -> Predicate | None:
        if not isinstance(tree, list) or not tree:
            return self._fault(where, f"must be a list of conditions such as {{where: ...}}, not {_shown(tree)}")
        if depth >= _DEEPEST:
            return self._fault(where, f"conditions are nested more than {_DEEPEST} deep: make some of them steps of their own")
        parts: list[Predicate] = []
        for number, entry in enumerate(tree, start=1):
            place = f"{where} {number}"
            found = self._mapping(entry, self.schema["$defs"]["condition"], place)
            part = self._predicate(found, place, fields, len(found) == len(entry), depth + 1) if found else None
            if part is not None:
                parts.append(part)
        return _NESTS[word](tuple(parts)) if parts else None

    def _stay(self, tree: Any, where: str) -> Predicate | None:
        found = self._mapping(tree, self.schema["$defs"]["stay"], where)
        entries = found.get("has")
        if "has" in found and (not isinstance(entries, list) or not entries):
            self._fault(where, f"has must be a list of events such as {{event: diagnosis, codes: stroke}}, not {_shown(entries)}")
        holds = []
        for number, entry in enumerate(entries if isinstance(entries, list) else [], start=1):
            place = f"{where}: has {number}"
            events = self._event(self._mapping(entry, self.schema["$defs"]["event"], place), place)
            holds += [events] if events is not None else []
        windows = {name: self._window(found[name], f"{where}: {name}") or _UNREAD for name in ("begins", "ends") if name in found}
        if found.get("ever", "true") != "true":
            self._fault(where, "ever can only be true; leave it out otherwise")
        if found and bool(windows) == ("ever" in found):
            self._fault(where, "needs begins or ends, such as begins: [-1d, 1d], or ever: true")
        days = self._window(found["days"], where, "days") or _UNREAD if "days" in found else EVER
        at_least = self._whole(found, "at_least", where, 1)
        if not holds:
            return None
        return Stay(tuple(holds), windows.get("begins", EVER), windows.get("ends", EVER), days, 1 if at_least is None else at_least)

    def _nearest(self, tree: Any, where: str) -> Nearest | None:
        found = self._mapping(tree, self.schema["$defs"]["nearest"], where)
        if not found:
            return None
        scans = [name for name in ("unit", "of", "same", "differ", "ratio", "among") if name in found]
        if ("event" in found) == bool(scans):
            return self._fault(where, "needs either event, or unit and of for another scan")
        take = self._text(found.get("take", "nearest"), f"{where}: take") or "nearest"
        rest = {name: value for name, value in found.items() if name not in ("take", "then")}
        if scans:
            among: Any = self._related(rest, where)
            unit = among.unit if among is not None else ""
            fields = domain.fields(unit) if unit in domain.UNITS else {}
        else:
            among, fields = self._dated_events(rest, where, "nearest"), domain.event_fields()
        then = self._where(found["then"], f"{where}: then", fields) if "then" in found else None
        return Nearest(among, cast(Any, take), cast(Where | None, then)) if among is not None else None

    def _change(self, tree: Any, where: str) -> Change | None:
        found = self._mapping(tree, self.schema["$defs"]["change"], where)
        if not found:
            return None
        rest = {name: value for name, value in found.items() if name not in ("gap", "take", "then")}
        events = self._dated_events(rest, where, "change")
        gap = self._window(found["gap"], f"{where}: gap", "gap") or _UNREAD if "gap" in found else EVER
        take = self._text(found.get("take", "any"), f"{where}: take") or "any"
        then = self._where(found["then"], f"{where}: then", domain.changes()) if "then" in found else None
        return Change(events, cast(Where, then), gap, cast(Any, take)) if events is not None and then is not None else None

    def _gap(self, tree: Any, where: str) -> Gap | None:
        found = self._mapping(tree, self.schema["$defs"]["gap"], where)
        start, end = self._text(found.get("from"), f"{where}: from"), self._text(found.get("to"), f"{where}: to")
        window = self._window(found["days"], where, "days") if "days" in found else EVER
        return Gap(start, end, window or _UNREAD) if start is not None and end is not None else None

    def _finding(self, tree: Any, where: str) -> Predicate | None:
        found = self._mapping(tree, self.schema["$defs"]["report"], where)
        unit = self.tree.get("unit")
        defaults = {"finding": None, "of": "patient" if unit == "patient" else "study", "polarity": "affirmed", "subject": "patient"}
        said = {name: self._text(found.get(name, default), f"{where}: {name}") for name, default in defaults.items()}
        certainty = self._text(found.get("certainty"), f"{where}: certainty")
        window = self._window(found["window"], where) if "window" in found else EVER
        if said["finding"] is None:
            return None
        of, polarity, subject = (said[name] or str(defaults[name]) for name in ("of", "polarity", "subject"))
        return Finding(said["finding"], cast(Any, of), polarity, certainty, subject, window or _UNREAD)

    def _member(self, tree: Any, where: str) -> Member | None:
        found = self._mapping(tree, self.schema["$defs"]["member"], where)
        cohort, level = self._text(found.get("cohort"), f"{where}: cohort"), self._text(found.get("level"), f"{where}: level")
        return Member(cohort, cast(Any, level)) if cohort is not None and level is not None else None

    def _related(self, tree: Any, where: str) -> Related | None:
        found = self._mapping(tree, self.schema["$defs"]["related"], where)
        unit, of = self._text(found.get("unit"), f"{where}: unit"), self._text(found.get("of"), f"{where}: of")
        if unit is None or of is None:
            return None
        fields = domain.fields(unit) if unit in domain.UNITS else {}
        conditions = self._where(found["where"], where, fields) if "where" in found else None
        window = self._window(found["window"], where) if "window" in found else EVER
        same = self._texts(found["same"], f"{where}: same") if "same" in found else ()
        differ = self._texts(found["differ"], f"{where}: differ") if "differ" in found else ()
        ratio = None
        if "ratio" in found:
            columns = found["ratio"] if isinstance(found["ratio"], dict) else {}
            ratio = self._where(found["ratio"], f"{where}: ratio", dict.fromkeys(columns, domain.ratio()))
        at_least = self._whole(found, "at_least", where, 1)
        count = self._text(found.get("count", unit), f"{where}: count")
        within, apart = self._days(found, "within", where), self._days(found, "apart", where)
        nested = self._related(found["related"], f"{where}: related") if "related" in found else None
        among = None if found.get("among", "all") == "all" else self._member(found["among"], f"{where}: among")
        return Related(
            cast(Any, unit),
            cast(Any, of),
            cast(Where | None, conditions),
            window or _UNREAD,
            same,
            1 if at_least is None else at_least,
            cast(Any, count or unit),
            within,
            apart,
            nested,
            among,
            differ,
            cast(Where | None, ratio),
        )

    def _whole(self, found: dict[str, Any], name: str, where: str, default: int | None) -> int | None:
        if name not in found:
            return default
        number = self._text(found[name], f"{where}: {name}")
        return cast(int | None, self._typed(number, "whole", f"{where}: {name}") if number is not None else None)

    def _days(self, found: dict[str, Any], name: str, where: str) -> int | None:
        if name not in found:
            return None
        value = found[name]
        days = _DAYS.fullmatch(value) if isinstance(value, str) else None
        return int(days[1]) if days else self._fault(where, f"{name} {_shown(value)} must be a whole number of days such as 365d")

    def _where(self, tree: Any, where: str, fields: dict[str, Field]) -> Predicate | None:
        if not isinstance(tree, dict) or not tree:
            what = "must be conditions" if where.endswith(": then") else "where must be a mapping from columns to values"
            such = f" such as {{{next(iter(fields))}: {{ge: 1}}}}" if where.endswith(": then") and fields else ""
            return self._fault(where, f"{what}{such}, not {_shown(tree)}")
        tests: list[Test] = []
        for column, value in tree.items():
            place = f"{where}: {column}"
            field = fields.get(column)
            if isinstance(value, dict):
                tests += self._tests(column, value, place, field)
            elif isinstance(value, list):
                tests += self._test(column, "in", self._texts(value, place, single=False), place, field)
            else:
                tests += self._test(column, "eq", self._texts(value, place), place, field)
        return Where(tuple(tests))

    def _tests(self, column: str, tree: dict[str, Any], place: str, field: Field | None) -> list[Test]:
        found = self._mapping(tree, self.schema["$defs"]["test"], place)
        if not tree:
            self._fault(place, "says nothing about the column: give a value or an operator such as {le: 1.5}")
        tests: list[Test] = []
        for operator, value in found.items():
            many = operator in ("in", "between")
            values = self._texts(value, f"{place}: {operator}", single=not many)
            if values:
                tests += self._test(column, cast(Operator, operator), values, place, field)
        return tests

    def _test(self, column: str, operator: Operator, texts: tuple[str, ...], place: str, field: Field | None) -> list[Test]:
        if not texts:
            return []
        kind = "flag" if operator == "is_missing" else field.kind if field is not None and operator != "matches" else "text"
        values = tuple(self._typed(text, kind, place) for text in texts)
        return [] if None in values else [Test(column, operator, cast(tuple[Value, ...], values))]

    def _typed(self, text: str, kind: str, place: str) -> Value | None:
        """A text as a value of a column's kind; None and a fault where it does not look like one."""
        value: Value | None = None
        if kind in ("number", "span") and _NUMBER.fullmatch(text):
            value = float(text) if math.isfinite(float(text)) else None
        elif kind == "whole" and _WHOLE.fullmatch(text):
            value = int(text)
        elif kind == "flag" and text in ("true", "false"):
            value = text == "true"
        elif kind == "date" and _DATE.fullmatch(text):
            try:
                value = date.fromisoformat(text)
            except ValueError:
                value = None
        elif kind not in _LOOKS_LIKE:
            value = text
        if value is None:
            self._fault(place, f"{_shown(text)} is not {_LOOKS_LIKE[kind]}{_meant(text)}")
        return value

    def _event(self, found: dict[str, Any], where: str) -> Events | None:
        """Which events, without when: of the index, of a stay. What else is there becomes a part of them that the check refuses."""
        if "event" not in found:
            return None
        kinds = self._texts(found["event"], f"{where}: event")
        codes = self._texts(found["codes"], f"{where}: codes") if "codes" in found else ()
        position = self._text(found.get("position", "main"), f"{where}: position")
        if position != "main":
            self._fault(where, f"position: {_shown(position)} is not main; leave it out where any position counts")
        sources = self._texts(found["source"], f"{where}: source") if "source" in found else ()
        conditions = self._where(found["where"], where, domain.event_fields()) if "where" in found else None
        for name in (n for n in found if n not in _NAMED):
            self._fault(where, f"{name} does not go with it; leave out all but event, codes, position, source and where")
        return Events(kinds, codes, EVER, 1, "position" in found, sources, where=cast(Where | None, conditions))

    def _dated_events(self, found: dict[str, Any], where: str, word: str) -> Events | None:
        """Events with their window."""
        named = {name: value for name, value in found.items() if name in _NAMED}
        events = self._event(named, where)
        if events is None:
            return None
        if found.get("ever", "true") != "true":
            self._fault(where, "ever can only be true; leave it out otherwise")
        ever, bounded = "ever" in found, "window" in found
        window = self._window(found["window"], where) if bounded else None
        ends = word in ("first", "last")
        if ends and not (ever and bounded):
            self._fault(where, f"needs ever: true and a window: it asks whether the {word} event ever lies in the window")
        elif not ends and ever and bounded:
            self._fault(where, "has both a window and ever; use one of them, or `ever` as an end of the window, such as [ever, -1d]")
        elif not ever and not bounded:
            self._fault(where, "needs a window such as [-90d, -1d], or ever: true")
        at_least = self._whole(found, "at_least", where, 1)
        if "at_least" in found and ends:
            self._fault(where, f"the {word} event is one event: at_least does not go with {word}")
        default = EVER if ever and not bounded and not ends else _UNREAD
        anchor = self._text(found.get("from", "index"), f"{where}: from") or "index"
        if anchor == "index" and "from" in found:
            self._fault(where, "from: the index date is what a window counts from anyway; leave it out")
        return replace(
            events,
            window=window or default,
            at_least=1 if at_least is None else at_least,
            anchor=cast(Any, anchor),
            apart=self._days(found, "apart", where),
        )

    def _events(self, tree: Any, where: str, word: str) -> Predicate | None:
        found = self._mapping(tree, self.schema["$defs"]["event"], where)
        events = self._dated_events(found, where, word)
        if events is None:
            return None
        chained = {"gap": "gap" in found, "within": "within" in found}
        if word == "chain":
            gap = self._window(found["gap"], f"{where}: gap") if chained["gap"] else EVER
            return Chain(events, gap or _UNREAD, self._days(found, "within", where))
        for name in (n for n, there in chained.items() if there):
            self._fault(where, f"{name} goes with chain only")
        if word == "cover":
            for name in (n for n in ("codes", "at_least", "position") if n in found):
                self._fault(where, f"{name} does not go with cover, which asks for observed time alone")
            events = replace(events, codes=(), at_least=1, main=False)
        kind = cast(type[EventPredicate], _EVENT_STEPS[word])
        return cast(Predicate, kind(events))  # type: ignore[call-arg]  # all but Chain take the events alone

    def _window(self, value: Any, where: str, what: str = "window") -> Window | None:
        ends = value if isinstance(value, list) and len(value) == 2 else []
        hours = [_HOURS.fullmatch(end) if isinstance(end, str) else None for end in ends]
        days = [_DAYS.fullmatch(end) if isinstance(end, str) else None for end in ends]
        if any(hours) and any(days):
            return self._fault(where, f"{what} {_shown(value)}: both ends are in days, or both in hours")
        given = hours if any(hours) else days
        if len(ends) != 2 or any(one is None and end != "ever" for one, end in zip(given, ends, strict=True)):
            shown = _shown(value) if not isinstance(value, list) else f"[{', '.join(_shown(end) for end in value[:3])}]"
            return self._fault(where, f"{what} {shown} must be two whole numbers of days such as [-90d, -1d]; `ever` may be an end")
        low, high = (int(one[1]) if one else None for one in given)
        if low is None and high is None:
            return self._fault(where, "window [ever, ever] is written ever: true")
        return Window(low, high, "hour" if any(hours) else "day")

    def _pick(self, tree: Any) -> Pick | None:
        found = self._mapping(tree, self.schema["$defs"]["pick"], "pick")
        order = self._texts(found["order"], "pick: order") if "order" in found else ()
        one_per = self._text(found.get("one_per"), "pick: one_per")
        if not order or one_per is None:
            return None
        return Pick(cast(Any, one_per), tuple(Order(name.removeprefix("-"), name.startswith("-")) for name in order))

    def _sample(self, tree: Any) -> Sample | None:
        found = self._mapping(tree, self.schema["$defs"]["sample"], "sample")
        size, seed = self._whole(found, "size", "sample", None), self._text(found.get("seed"), "sample: seed")
        strata = self._texts(found["strata"], "sample: strata") if "strata" in found else ()
        return Sample(size, seed, strata) if size is not None and seed is not None else None

    def _match(self, tree: Any) -> Match | None:
        found = self._mapping(tree, self.schema["$defs"]["match"], "match")
        cases, level, seed = (self._text(found.get(name), f"match: {name}") for name in ("cases", "level", "seed"))
        ratio, at_least = self._whole(found, "ratio", "match", None), self._whole(found, "at_least", "match", 1)
        exact = self._texts(found["exact"], "match: exact") if "exact" in found else ()
        replacement = self._text(found.get("replacement", "false"), "match: replacement")
        if replacement not in ("true", "false"):
            self._fault("match: replacement", f"{_shown(replacement)} is not true or false")
        risk_set = None
        if "risk_set" in found:
            where = "match: risk_set"
            risk_set = self._event(self._mapping(found["risk_set"], self.schema["$defs"]["event"], where), where)
        caliper = tuple(self._caliper(found["caliper"])) if "caliper" in found else ()
        if cases is None or level is None or ratio is None or seed is None:
            return None
        most = 1 if at_least is None else at_least
        return Match(cases, cast(Any, level), ratio, seed, exact, caliper, replacement == "true", most, risk_set)

    def _caliper(self, tree: Any) -> Iterator[tuple[str, float]]:
        if not isinstance(tree, dict) or not tree:
            return self._fault("match: caliper", f"must be a mapping such as {{age_at: 2}}, not {_shown(tree)}")
        for name, value in tree.items():
            text = value.removesuffix("d") if isinstance(value, str) and _DAYS.fullmatch(value) else value
            number = self._typed(text, "number", f"match: caliper: {name}") if isinstance(text, str) else None
            if number is not None:
                yield name, cast(float, number)
            elif not isinstance(text, str):
                self._fault(f"match: caliper: {name}", f"must be one number, not {_shown(value)}")

    def _split(self, tree: Any) -> Split | None:
        found = self._mapping(tree, self.schema["$defs"]["split"], "split")
        parts, percent = found.get("parts"), ()
        if isinstance(parts, dict):
            numbers = {name: self._whole(parts, name, "split: parts", None) for name in parts}
            if None in numbers.values():
                return None
            names, percent = tuple(numbers), cast(Any, tuple(numbers.values()))
        else:
            names = self._texts(parts, "split: parts", single=False) if "parts" in found else ()
        seed, at = self._text(found.get("seed"), "split: seed"), self._text(found.get("at"), "split: at")
        day = self._typed(at, "date", "split: at") if at is not None else None
        return Split(names, percent, seed, cast(date | None, day)) if names and (at is None or day is not None) else None

    def _outputs(self, tree: Any, unit: str) -> Iterator[Output]:
        if not isinstance(tree, list) or not tree:
            return self._fault("output", f"must be a list, not {_shown(tree)}")
        for number, entry in enumerate(tree, start=1):
            name = entry.get("id") if isinstance(entry, dict) else None
            where = f"output {name}" if isinstance(name, str) and name else f"output {number}"
            found = self._mapping(entry, self.schema["$defs"]["output"], where)
            words = [word for word in ("column", "gap", "nearest", "follow_up") if word in found]
            if len(words) != 1 and found and len(found) == len(entry):
                self._fault(where, "needs exactly one of column, gap, nearest, follow_up")
            if len(words) != 1:
                continue
            of: Any
            match words[0]:
                case "column":
                    of = self._text(found["column"], f"{where}: column")
                case "gap":
                    of = self._gap(found["gap"], f"{where}: gap")
                    if of is not None and of.window != EVER:
                        self._fault(where, "days is a condition; leave it out")
                case "nearest":
                    of = self._nearest(found["nearest"], f"{where}: nearest")
                case _:
                    of = self._follow_up(found["follow_up"], f"{where}: follow_up")
            give = self._texts(found["give"], f"{where}: give") if "give" in found else ("gap",) if words == ["nearest"] else ()
            identity = self._text(found.get("id"), f"{where}: id")
            if of is not None:
                yield Output(identity or "", of, give)

    def _follow_up(self, tree: Any, where: str) -> FollowUp | None:
        found = self._mapping(tree, self.schema["$defs"]["follow_up"], where)
        until = self._text(found.get("until"), f"{where}: until")
        events = self._dated_events({name: value for name, value in found.items() if name != "until"}, where, "follow_up")
        day = self._typed(until, "date", f"{where}: until") if until is not None else None
        return FollowUp(events, cast(date | None, day)) if events is not None else None

    def _breakdowns(self, tree: Any) -> Iterator[Breakdown]:
        if not isinstance(tree, list) or not tree:
            return self._fault("count", f"must be a list such as [{{by: [modality]}}], not {_shown(tree)}")
        for entry in tree:
            found = self._mapping(entry, self.schema["properties"]["count"]["items"], "count")
            if "by" in found:
                yield Breakdown(self._texts(found["by"], "count: by"))


def _meant(text: str) -> str:
    """How a value that cannot be read may have been meant."""
    compared = re.fullmatch(r"(<=|>=|<|>|=)\s*([^<>=]+)", text)
    if compared is not None:
        return f"; write {{{_SIGNS[compared[1]]}: {compared[2]}}}"
    if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text):
        return f"; write {text.replace(',', '.')}"
    between = re.fullmatch(r"([0-9.]+)\s*(?:-|to)\s*([0-9.]+)", text)
    return f"; write {{between: [{between[1]}, {between[2]}]}}" if between is not None else ""


def _shown(value: Any) -> str:
    """A value of a question as a message shows it, never long."""
    if value == "":
        return "nothing"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "…")
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    return repr(value)
