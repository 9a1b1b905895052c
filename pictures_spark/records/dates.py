"""Dates as text in the form that a source declares, as Spark dates. Fixed-width forms only, which is what extracts have.

A form is written with %Y %m %d %H %M %S and the characters between them. Pure; expressions run on executors.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from pictures_spark.errors import ConfigError
from pictures_spark.records import steps

if TYPE_CHECKING:
    from pyspark.sql import Column

_PARTS = {
    "%Y": (4, "[0-9]{4}"),
    "%m": (2, "(?:0[1-9]|1[0-2])"),
    "%d": (2, "(?:0[1-9]|[12][0-9]|3[01])"),
    "%H": (2, "(?:[01][0-9]|2[0-3])"),
    "%M": (2, "[0-5][0-9]"),
    "%S": (2, "[0-5][0-9]"),
}


class Layout(NamedTuple):
    """A form: the shape of the whole text, and where each part begins, from 1."""

    shape: str
    places: dict[str, int]


def layout(form: str) -> Layout:
    """The layout of a declared form.

    Raises
    ------
    ConfigError
        It has a directive that is not known, or lacks year, month or day.

    Examples
    --------
    >>> layout("%d/%m/%Y").places
    {'%d': 1, '%m': 4, '%Y': 7}
    """
    places: dict[str, int] = {}
    shape, at = "", 1
    for part in re.findall(r"%.|.", form):
        width, pattern = _PARTS.get(part, (1, re.escape(part)))
        if part.startswith("%") and part not in _PARTS:
            raise ConfigError(f"date format {form!r}: {part} is not one of {', '.join(_PARTS)}")
        if part in _PARTS:
            places[part] = at
        shape += pattern
        at += width
    if not {"%Y", "%m", "%d"} <= set(places):
        raise ConfigError(f"date format {form!r} needs %Y, %m and %d")
    return Layout(shape, places)


def tidied(text: "Column", forms: tuple[str, ...]) -> tuple["Column", "Column"]:
    """(YYYY-MM-DD, HH:MM:SS) as text, of a text in one of the forms; to be columns of their own first.

    Both null where it has none of the forms; the time is null where the form has none. Whether it is a day of the calendar is for the cast
    of the first to tell.
    """
    from pyspark.sql import functions as F

    dates, times = [], []
    for form in forms:
        shape, places = layout(form)
        fits = steps.matches(text, shape)

        def part(directive: str, places: dict[str, int] = places) -> "Column":
            return F.substring(text, places[directive], _PARTS[directive][0])

        dates.append(F.when(fits, F.concat_ws("-", part("%Y"), part("%m"), part("%d"))))
        if "%H" in places:
            clock = [part(d) if d in places else F.lit("00") for d in ("%H", "%M", "%S")]
            times.append(F.when(fits, F.concat_ws(":", *clock)))
    return F.coalesce(*dates), F.coalesce(*times) if times else F.lit(None).cast("string")
