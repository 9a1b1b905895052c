"""Rectangles that are blanked whatever text recognition says: where a device writes text, and around the regions of ultrasound images.

What enters: the policy's section ``pixels`` and a parsed file. What leaves: boxes. Pure; executors.
"""

import re
from collections.abc import Iterator
from typing import Any

from pydicom.datadict import tag_for_keyword

from pictures_spark.deid.dicom_identity import Box
from pictures_spark.deid.dicom_read import Source

_ROWS, _COLUMNS, _FRAMES, _MODALITY, _REGIONS = 0x00280010, 0x00280011, 0x00280008, 0x00080060, 0x00186011
# RegionLocationMinX0, MinY0, MaxX1, MaxY1 (PS3.3 C.8.5.5): the last pixel belongs to the region.
_EDGES = (0x00186018, 0x0018601A, 0x0018601C, 0x0018601E)


def deciding_tags(pixels: dict[str, Any]) -> frozenset[int]:
    """Attributes that decide which rectangles a file has."""
    named = {int(tag_for_keyword(keyword) or 0) for rule in pixels["rectangles"] for keyword in rule["match"]}
    return frozenset(named | ({_MODALITY, _REGIONS} if pixels["outside_ultrasound_regions"] == "blank" else set()))


def rectangles(pixels: dict[str, Any], source: Source) -> tuple[Box, ...]:
    """The boxes of a file; none where no rule matches it."""
    if not pixels["rectangles"] and pixels["outside_ultrasound_regions"] == "keep":
        return ()
    last = (source.number(_FRAMES, 1) or 1) - 1
    found = [
        Box(0, last, *rule["box"])
        for rule in pixels["rectangles"]
        if all(re.fullmatch(pattern, _value(source, keyword)) for keyword, pattern in rule["match"].items())
    ]
    if pixels["outside_ultrasound_regions"] == "blank" and source.text(_MODALITY) == "US":
        found += [Box(0, last, *box) for box in _outside(source)]
    return tuple(found)


def _value(source: Source, keyword: str) -> str:
    tag = int(tag_for_keyword(keyword) or 0)
    return str(source.number(tag)) if tag in (_ROWS, _COLUMNS) else source.text(tag)


def _outside(source: Source) -> Iterator[tuple[int, int, int, int]]:
    """The bands around the rectangle that holds all regions; none where there are no regions."""
    tags = source.places if source.nodes is None else source.nodes
    items = source.node(_REGIONS).value if _REGIONS in tags else []
    edges = []
    for item in items if isinstance(items, list) else []:
        values = [item[tag].value for tag in _EDGES if tag in item]
        if len(values) == len(_EDGES):
            edges.append([int.from_bytes(value[:4], "little") for value in values if isinstance(value, bytes)])
    if not edges:
        return
    rows, columns = source.number(_ROWS), source.number(_COLUMNS)
    x0, y0 = min(e[0] for e in edges), min(e[1] for e in edges)
    x1, y1 = max(e[2] for e in edges) + 1, max(e[3] for e in edges) + 1
    for box in ((0, 0, columns, y0), (0, y1, columns, rows), (0, y0, x0, y1), (x1, y0, columns, y1)):
        if box[0] < box[2] <= columns and box[1] < box[3] <= rows:
            yield box
