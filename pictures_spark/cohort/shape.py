"""Whether a graph is made of what its nodes are declared to hold, asked of questions that are made in Python before anything looks at them.

The nodes of `pictures_spark.cohort.model` are not checked when they are made. What YAML cannot get wrong, a caller in Python can:
a text for a number, a step without a predicate. The type annotations of the nodes say what may stand where.
"""

import math
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pictures_spark.cohort.model import Output, Question, Step

_LONGEST = 40
_CALLED: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    date: "a date",
    type(None): "None",
}


def faults(question: Question) -> list[str]:
    """What is not of the kind that stands there, one sentence each."""
    return list(_of(question, ""))


def _of(node: Any, where: str) -> Iterator[str]:
    match node:
        case Step(str(name)):
            where = f"step {name}: "
        case Output(str(name)):
            where = f"output {name}: "
    kind: Any = type(node)
    for one in fields(node):
        value, wanted = getattr(node, one.name), _hints(kind)[one.name]
        if not _fits(value, wanted):
            shown = repr(value)
            shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
            yield f"{where}{one.name} must be {_called(wanted)}, not {shown}"
            continue
        for part in value if isinstance(value, tuple) else (value,):
            if is_dataclass(part):
                yield from _of(part, where)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, wanted: Any) -> bool:
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str)  # which of them is told by the check, with the nearest
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(parts) == 2 and parts[1] is Ellipsis:
            return all(_fits(one, parts[0]) for one in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is date:
        return isinstance(value, date) and not isinstance(value, datetime)
    return isinstance(value, wanted)


def _called(wanted: Any) -> str:
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_called(part) for part in parts))
    if origin is Literal:
        return "a text"
    if origin is tuple:
        return f"several, each {_called(parts[0])}" if parts[-1] is Ellipsis else f"a pair of {' and '.join(map(_called, parts))}"
    return _CALLED.get(wanted) or wanted.__name__
