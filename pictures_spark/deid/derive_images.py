"""One header row in, one safe image row out: the pass in which header values cross.

Pure: a row of header_instance as a dictionary, with what the crosswalk, the inventory and the series' common elements say of it, becomes a
dictionary of pseudonyms, guarded values and facts of closed lists. Two free texts go along, because only the series as a whole tells its
region and contrast; `series_facts` turns them into facts and they end there.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pictures_spark.deid import derive
from pictures_spark.deid.derive_headers import functional_groups, listed_tags, parse
from pictures_spark.deid.tables_guard import Border
from pictures_spark.errors import ConfigError
from pictures_spark.keys import pseudonym
from pictures_spark.schema import Column, table

Row = Mapping[str, Any]

# DICOM keyword of an identifier -> the kind of pseudonym it becomes.
KINDS = {
    "SOPInstanceUID": "image",
    "SeriesInstanceUID": "series",
    "StudyInstanceUID": "study",
    "AccessionNumber": "accession",
    "FrameOfReferenceUID": "frame_of_reference",
}
# Sorts after every time of day, so that an image without one does not hide the others of its date.
NO_TIME = "~"
_MOMENTS = {
    "AcquisitionDate": ("acquisition_date", "acquisition_time"),
    "ContentDate": ("content_date", "content_time"),
    "SeriesDate": ("series_date", "series_time"),
    "StudyDate": ("study_date", "study_time"),
}


@cache
def header(keyword: str) -> Column:
    """Column of header_instance that holds a DICOM attribute.

    Raises
    ------
    ConfigError
        There is none: a de-identified column names an attribute that the catalogue does not promote.
    """
    for column in table("identifiable", "header_instance").columns:
        if column.dicom == keyword:
            return column
    raise ConfigError(f"schemas/deidentified/ uses DICOM keyword {keyword}, which schemas/identifiable/header_instance.yaml does not have")


@cache
def copied_columns() -> tuple[tuple[Column, Border], ...]:
    """Columns of ``image`` that come from a header attribute as they are, with their limits."""
    found = [c for c in table("deidentified", "image").columns if c.deid in ("keep", "vocabulary") and c.dicom is not None]
    return tuple((column, Border("image", column)) for column in found)


@cache
def rolled_columns(name: str) -> tuple[tuple[Column, Border], ...]:
    """Columns of ``series`` or ``study`` with a roll-up, with their limits."""
    return tuple((c, Border(name, c)) for c in table("deidentified", name).columns if c.rollup is not None)


@cache
def _border(name: str, column: str) -> Border:
    return Border(name, table("deidentified", name).by_name[column])


def skip_reason(row: Row) -> str | None:
    """Why an image cannot be published; None where it can. ``not_linked_yet`` means that the link job has not seen its PatientID."""
    if not _named(row["series_uid"]) or not _named(row["study_uid"]):
        return "skipped_no_series"
    if not row["n_objects"]:
        return "skipped_vanished"
    return "not_linked_yet" if _named(row["patient_id_raw"]) and not row["in_crosswalk"] else None


def _named(text: str | None) -> bool:
    return bool((text or "").strip())


def safe_image(row: Row, key: bytes, name: Callable[[bytes, str, str], str] = pseudonym) -> dict[str, Any]:
    """A header row without its identifiers.

    Parameters
    ----------
    row : the columns of header_instance, and ``n_objects``, ``in_crosswalk``, ``linked``, ``why_not``, ``shared_frames`` (functional groups
        of the series' common elements).
    key : the zone-wide key.
    name : how to make a pseudonym; a caller that meets the same UID often passes one that remembers.

    Returns
    -------
    dict
        The columns of `image_columns`.
    """
    skip = skip_reason(row)
    if skip is not None:
        return {"counted": ["images", skip], "skip": skip}
    withheld: list[str] = []
    differences = parse(row["differences"])
    frames = dict(row["shared_frames"] or ()) | functional_groups(differences)
    ids = {keyword: name(key, kind, value) for keyword, kind in KINDS.items() if _named(value := row[header(keyword).name])}
    identified = _named(row["patient_id_raw"])
    moment = derive.scan_moment({keyword: (row[day], row[time]) for keyword, (day, time) in _MOMENTS.items()})
    pixels = (row["number_of_frames"] or 1) if row["has_pixels"] else 0
    cosines = [row["image_orientation_patient"]] if row["image_orientation_patient"] else frames.get("image_orientation_patient", [])
    safe = {
        "sop_uid": row["sop_uid"],
        "content_sha256": row["content_sha256"],
        "template_id": row["template_id"],
        "image_id": ids["SOPInstanceUID"],
        "series_id": ids["SeriesInstanceUID"],
        "study_id": ids["StudyInstanceUID"],
        "locator_id": name(key, "locator", f"{row['sop_uid']}|{row['content_sha256']}"),
        "linked": row["linked"] if identified else None,
        "unlinked_reason": row["why_not"] if identified else "no_identifier",
        "conflict": row["conflict"],
        "n_objects": row["n_objects"],
        "sex": derive.header_code("patient_sex", row["patient_sex"]),
        "scan": None if moment is None else {"rank": moment[0], "date": moment[1], "time": moment[2] or NO_TIME},
        "family": derive.sop_class_family(row["sop_class_uid"]),
        "kind": derive.image_kind(row["image_type"], row["sop_class_uid"]),
        "planes": [plane for vectors in cosines if (plane := derive.orientation(vectors)) is not None],
        "regions": list(derive.regions_of_term(row["body_part_examined"])),
        "agent": derive.agent_says(row["contrast_bolus_agent"]),
        "texts": [text for text in (row["series_description"], row["protocol_name"]) if _named(text)],
        "study_texts": [row["study_description"]] if _named(row["study_description"]) else [],
        "manufacturer_norm": derive.manufacturer_norm(row["manufacturer"]),
        "field_tesla": _border("series", "field_tesla").one(derive.field_tesla(row["magnetic_field_strength"]), withheld),
        "burned": derive.header_code("burned_in_annotation", row["burned_in_annotation"]),
        "image__frames": _border("image", "frames").one(pixels, withheld),
        "tags": [vars(tag) for tag in listed_tags(differences)],
        "skip": None,
    }
    for column, border in copied_columns():
        if column.type.startswith("array"):
            found = row[header(str(column.dicom)).name] or next(iter(frames.get(header(str(column.dicom)).name, ())), None)
            safe[f"image__{column.name}"] = border.whole(found, withheld)
        else:
            safe[f"image__{column.name}"] = border.one(next(iter(_values(row, column, frames)), None), withheld)
    for table_name in ("series", "study"):
        for column, border in rolled_columns(table_name):
            if column.deid == "pseudonym":
                values = [ids[str(column.dicom)]] if column.dicom in ids else []
            else:
                values = border.each(_values(row, column, frames), withheld)
            safe[f"{table_name}__{column.name}"] = values
    return safe | {"counted": ["images", *withheld]}


def _values(row: Row, column: Column, frames: Mapping[str, list[list[float]]]) -> list[Any]:
    """Every value that an instance has for a column; those of its frames where the top level has none."""
    source = header(str(column.dicom))
    value = row[source.name]
    values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
    if not values:
        values = [v for frame in frames.get(source.name, ()) for v in frame]
    if column.type in ("string", "array<string>"):
        values = [v for v in values if v.strip()]
    return [v.strip().upper() for v in values] if column.vocabulary else values


def common_facts(row: Row) -> dict[str, Any]:
    """What the common elements of a series (a row of header_series) say: functional groups and listed tags."""
    elements = parse(row["elements"])
    return {
        "template_id": row["template_id"],
        "shared_frames": functional_groups(elements),
        "tags": [vars(tag) for tag in listed_tags(elements)],
    }


def series_facts(row: Row) -> dict[str, Any]:
    """What only the images of a series together tell.

    Parameters
    ----------
    row : lists over its images: ``families``, ``planes``, ``kinds``, ``regions``, ``agents``, ``texts``, ``study_texts``, ``burned``.

    Returns
    -------
    dict
        sop_class_family, orientation, image_kind, body_region, contrast, burned_in_annotation, with evidence, and ``differs`` (names of
        those of them that disagree).
    """
    family, families = derive.plurality(row["families"])
    plane, planes = derive.plurality(row["planes"])
    kind, kinds = derive.plurality(row["kinds"])
    regions, region_evidence, regions_differ = derive.body_region(row["regions"], row["texts"], row["study_texts"])
    contrast, contrast_evidence = derive.contrast(row["agents"], row["texts"], row["study_texts"])
    burned = set(row["burned"])
    differs = {
        "sop_class_family": families,
        "orientation": planes,
        "image_kind": kinds,
        "body_region": regions_differ,
        "contrast": contrast_evidence == "conflict",
        "burned_in_annotation": len(burned) > 1,
    }
    return {
        "sop_class_family": family,
        "orientation": plane,
        "image_kind": kind,
        "body_region": list(regions),
        "body_region_evidence": region_evidence,
        "contrast": contrast,
        "contrast_evidence": contrast_evidence,
        # One image that claims text in its pixels speaks for the series.
        "burned_in_annotation": "yes" if "yes" in burned else "no" if burned else "unknown",
        "differs": sorted(name for name, disagree in differs.items() if disagree),
    }


_TAGS = "array<struct<keyword:string,vr:string,numbers:array<double>,codes:array<string>,withheld:boolean>>"
COMMON_COLUMNS = f"template_id string, shared_frames map<string,array<array<double>>>, tags {_TAGS}"
FACT_COLUMNS = (
    "sop_class_family string, orientation string, image_kind string, body_region array<string>, body_region_evidence string, "
    "contrast string, contrast_evidence string, burned_in_annotation string, differs array<string>"
)


def image_columns() -> str:
    """Columns of `safe_image` as Spark DDL."""
    fixed = (
        "sop_uid string, content_sha256 string, template_id string, image_id string, series_id string, study_id string, locator_id string, "
        "linked string, unlinked_reason string, conflict boolean, n_objects bigint, sex string, "
        "scan struct<rank:int,date:date,time:string>, family string, kind string, planes array<string>, regions array<string>, "
        "agent string, texts array<string>, study_texts array<string>, manufacturer_norm string, field_tesla double, burned string, "
        f"image__frames bigint, tags {_TAGS}, skip string, counted array<string>"
    )
    copied = [f"image__{column.name} {column.type}" for column, _ in copied_columns()]
    rolled = [
        f"{name}__{column.name} array<{column.type.removeprefix('array<').removesuffix('>')}>"
        for name in ("series", "study")
        for column, _ in rolled_columns(name)
    ]
    return ", ".join([fixed, *copied, *rolled])
