"""Headers as they are stored: what a series shares once, and what each instance differs in; with the typed columns.

Pure: headers in, columns out. Runs on executors, over a chunk of headers at a time. Headers of one structure are split by their slots
alone: no JSON is parsed, and a value that an earlier instance had costs one comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pictures_spark.dicom.scan import promoted
from pictures_spark.dicom.structures import SERIES, Header, Structure, joined
from pictures_spark.dicom.templates import split, template_id


@dataclass
class Stored:
    """Columns of equal length, one row for each header, series by series.

    Attributes
    ----------
    order : which of the given headers a row is.
    columns : the promoted columns of ``header_instance``, and ``has_pixels``, ``template_id``, ``differences``; and of ``header_series``,
        on the first row of each template and None on the others, ``elements`` and ``instance_count``.
    """

    order: list[int]
    columns: dict[str, list[Any]]


def stored(headers: Sequence[Header]) -> Stored:
    """Split headers into templates and differences; each series' template is what its headers among these share."""
    groups: dict[Any, list[int]] = {}
    rest: dict[Any, list[int]] = {}
    for index, header in enumerate(headers):
        if header.structure is None:
            columns = header.columns
            rest.setdefault(tuple(columns[name] for name in SERIES), []).append(index)
        else:
            groups.setdefault((header.structure, header.structure.key(header.values)), []).append(index)
    names = [column.name for column in promoted()]
    found = Stored([], {name: [] for name in (*names, "has_pixels", "template_id", "differences", "elements", "instance_count")})
    for (structure, _), indices in groups.items():
        _add_alike(found, structure, [headers[i] for i in indices], names)
        found.order += indices
    for indices in rest.values():
        members = [headers[i] for i in indices]
        typed = [header.columns for header in members]
        for name in names:
            found.columns[name] += [columns[name] for columns in typed]
        _add(found, typed[0]["series_uid"], *split([header.text for header in members]), [header.has_pixels for header in members])
        found.order += indices
    return found


def _add_alike(found: Stored, structure: Structure, headers: list[Header], names: list[str]) -> None:
    """Rows of one series whose headers have one structure."""
    count = len(headers)
    slots = list(zip(*(header.values for header in headers), strict=True))
    # Equal values of a slot are mostly the same object: short ones come from one dictionary.
    same = [count == 1 or all(value is slot[0] or value.member == slot[0].member for value in slot) for slot in slots]
    members = structure.members.copy()
    members[1::2] = [slot[0].member if alike else b"" for slot, alike in zip(slots, same, strict=True)]
    elements = joined(members)
    varying = [slot for slot, alike in zip(slots, same, strict=True) if not alike]
    differences = [joined(value.member for value in values) for values in zip(*varying, strict=True)] if varying else ["{}"] * count
    columns = {name: [value] * count for name, value in structure.columns.items()}
    for slot, alike in zip(slots, same, strict=True):
        for name in slot[0].columns:
            columns[name] = [slot[0].columns[name]] * count if alike else [value.columns[name] for value in slot]
    for name in structure.paired:
        columns[name] = [structure.pair(name, header.values) for header in headers]
    for name in names:
        found.columns[name] += columns[name]
    _add(found, columns["series_uid"][0], elements, differences, [True] * count)


def _add(found: Stored, series_uid: str, elements: str, differences: list[str], has_pixels: list[bool]) -> None:
    count = len(differences)
    found.columns["has_pixels"] += has_pixels
    found.columns["template_id"] += [template_id(series_uid, elements)] * count
    found.columns["differences"] += differences
    found.columns["elements"] += [elements, *[None] * (count - 1)]
    found.columns["instance_count"] += [count, *[None] * (count - 1)]
