"""What publish would tell of a series whose images all have one header: the columns of ``series`` and its rows of ``tag``.

Enters: a header as DICOM keyword -> value, and how many images there are. Leaves: a dictionary in the words of the de-identified zone.
Pure: the rules are publish's own (pictures_spark/deid), so that tables made without an archive say what an archive would have led to.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pictures_spark.deid import derive
from pictures_spark.deid.derive_geometry import places
from pictures_spark.deid.derive_headers import Listed, listed_tags, number, tag_hex, told_facts
from pictures_spark.deid.derive_images import listed_columns, rolled_columns, series_facts
from pictures_spark.deid.tables_guard import Border
from pictures_spark.schema import Column, table

Header = Mapping[str, Any]


def told(header: Header, images: int = 1, step: float | None = None, first: Header | None = None) -> dict[str, Any]:
    """Columns of ``series`` that a header tells; what it does not tell is None, an empty list, or ``unknown``.

    Parameters
    ----------
    header : DICOM keyword -> value; several values are a list, nothing of it need be there.
    images : images in the series.
    step : distance in mm between neighbouring slices; None where they have no place in space.
    first : what the first image of more than two has otherwise: numbers whose least and greatest are columns.

    Examples
    --------
    >>> found = told({"Modality": "CT", "SeriesDescription": "Head non contrast", "Manufacturer": "SIEMENS"})
    >>> found["body_region"], found["contrast"], found["manufacturer_norm"], found["orientation"]
    (['HEAD'], 'no', 'SIEMENS', None)
    """
    elements = {tag_hex(keyword): {"Value": _listed(value)} for keyword, value in header.items() if value is not None}
    texts = [text for text in (header.get("SeriesDescription"), header.get("ProtocolName")) if text]
    study_texts = [text for text in (header.get("StudyDescription"),) if text]
    manufacturer = derive.manufacturer_norm(header.get("Manufacturer"))
    cosines = header.get("ImageOrientationPatient")
    facts: dict[str, list[str]] = {fact.keyword: fact.codes for fact in told_facts(elements, {})}
    columns: dict[str, Any] = {column.name: _rolled(column, header) for column, _ in rolled_columns("series") if column.deid != "pseudonym"}
    columns |= {column.name: _rolled(column, header) for column in listed_columns("series")}
    ends, differ = _ends(columns, header, first or {})
    columns |= ends
    grids, at, unplaced = _geometry(header, images, step)
    said = series_facts(
        {
            "families": [derive.sop_class_family(header.get("SOPClassUID"))],
            "planes": [derive.orientation(cosines)],
            "kinds": [derive.image_kind(header.get("ImageType"), header.get("SOPClassUID"))],
            "regions": derive.regions_of_term(header.get("BodyPartExamined")),
            "agents": [derive.agent_says(header.get("ContrastBolusAgent"))],
            "texts": texts,
            "study_texts": study_texts,
            "burned": [word for word in (derive.header_code("burned_in_annotation", header.get("BurnedInAnnotation")),) if word],
            "portables": [derive.model_is_portable(manufacturer, header.get("ManufacturerModelName"))],
            "grids": grids,
            "places": [{"places": at}],
            "unplaced": unplaced,
            "facts": facts,
            "laterality": columns["laterality"],
            "scanning_sequence": columns["scanning_sequence"] or [],
        }
    )
    columns |= {name: value for name, value in said.items() if name != "differs"}
    strength = header.get("MagneticFieldStrength")
    return columns | {
        "manufacturer_norm": manufacturer,
        "model_norm": derive.model_norm(manufacturer, header.get("ManufacturerModelName")),
        "field_tesla": _safe(table("deidentified", "series").by_name["field_tesla"], derive.field_tesla(number(strength))),
        "description_norm": sorted(derive.description_words(header.get("SeriesDescription") or "")),
        "protocol_norm": sorted(derive.description_words(header.get("ProtocolName") or "")),
        "conflict_flags": sorted({*said["differs"], *differ}),
        "tag_conflicts": [],
    }


def tags(header: Header) -> list[Listed]:
    """The rows of table ``tag`` of such a series, but for their counts."""
    return listed_tags({tag_hex(keyword): {"Value": _listed(value)} for keyword, value in header.items() if value is not None}, {})


@cache
def _border(name: str) -> Border:
    return Border("series", table("deidentified", "series").by_name[name])


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _rolled(column: Column, header: Header) -> Any:
    """A column copied from the header, inside its limits."""
    value = header.get(str(column.dicom))
    values = _listed(value) if value is not None else []
    if column.type.endswith("double>") or column.type == "double":
        values = [found for v in values if (found := number(v)) is not None]
    else:
        values = [str(v).strip().upper() for v in values if str(v).strip()]
    kept = [v for v in values if _border(column.name).accepts(v)]
    if column.type.startswith("array"):
        return sorted(set(kept))
    return kept[0] if kept else None


def _ends(columns: Mapping[str, Any], header: Header, first: Header) -> tuple[dict[str, float], list[str]]:
    """Least and greatest where the first image differs, and the columns that say so."""
    found, differ = {}, []
    for column, _ in rolled_columns("series"):
        if column.dicom in first:
            both = [value for value in (columns[column.name], _rolled(column, {**header, **first})) if value is not None]
            found[column.name] = (min if column.rollup == "min" else max)(both)
            differ += [column.name] * (len(set(both)) > 1)
    return found, differ


def _safe(column: Column, value: Any) -> Any:
    return value if value is not None and _border(column.name).accepts(value) else None


def _geometry(header: Header, images: int, step: float | None) -> tuple[list[list[float]], list[float], int]:
    cosines, spacing = header.get("ImageOrientationPatient"), header.get("PixelSpacing")
    if step is None or cosines is None or spacing is None:
        return [], [], images
    normal = (
        cosines[1] * cosines[5] - cosines[2] * cosines[4],
        cosines[2] * cosines[3] - cosines[0] * cosines[5],
        cosines[0] * cosines[4] - cosines[1] * cosines[3],
    )
    at = [[part * step * n for part in normal] for n in range(images)]
    matrix = (header.get("Rows"), header.get("Columns"))
    return places(images, at, [cosines], [spacing], matrix)
