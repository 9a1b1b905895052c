"""Text steps: the few ways in which schemas/ may say that a text is tidied before it is judged.

Each step is one entry of a list in YAML, ``{name: argument}``. Pure.

remove : characters that are taken out.
upper : capitals of the letters a to z, where true; others stay, so that no language or library decides what a code is.
strip_end : characters that are taken off the end.
pad_left : ``{to, with, when}``; filled to a length, where the whole text matches ``when``.
rewrite : ``{pattern, with}``; where the whole text matches the pattern, ``with`` takes its place ($1 is the first group).

White space around a text is always taken off first.
"""

import re
from collections.abc import Callable
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from pictures_spark.errors import ConfigError

Steps = list[dict[str, Any]]

BLANK = " \t\r\n\u00a0"
_CAPITALS = str.maketrans(ascii_lowercase, ascii_uppercase)
_NAMES = ("remove", "upper", "strip_end", "pad_left", "rewrite")


def check(steps: Steps, where: str) -> None:
    """Refuse a list with a step that is not one.

    Raises
    ------
    ConfigError
        Which step, and what there is.
    """
    for step in steps:
        if len(step) != 1 or next(iter(step)) not in _NAMES:
            raise ConfigError(f"{where}: {', '.join(step)} is not a text step; there are {', '.join(_NAMES)}")


def apply(steps: Steps, text: str) -> str:
    """The text after all steps.

    Examples
    --------
    >>> apply([{"remove": ". "}, {"upper": True}], " i63.9")
    'I639'
    """
    return compiled(steps)(text)


def compiled(steps: Steps) -> Callable[[str], str]:
    """`apply` of some steps, for many texts."""
    each = [_step(name, argument) for step in steps for name, argument in step.items()]

    def tidy(text: str) -> str:
        text = text.strip(BLANK)
        for step in each:
            text = step(text)
        return text

    return tidy


def _step(name: str, argument: Any) -> Callable[[str], str]:
    match name:
        case "remove":
            gone = dict.fromkeys(map(ord, argument))
            return lambda text: text.translate(gone)
        case "upper":
            return lambda text: text.translate(_CAPITALS) if argument else text
        case "strip_end":
            return lambda text: text.rstrip(argument)
        case "pad_left":
            when, width, filler = re.compile(argument["when"]), argument["to"], argument["with"]
            return lambda text: text.rjust(width, filler) if when.fullmatch(text) else text
        case _:
            pattern, into = re.compile(argument["pattern"]), re.sub(r"\$(\d)", r"\\g<\1>", argument["with"])
            return lambda text: found.expand(into) if (found := pattern.fullmatch(text)) else text
