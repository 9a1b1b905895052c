"""One header row in, one safe image row out: the pass in which header values cross.

Pure: a row of header_instance as a dictionary, with what the crosswalk, the inventory and the series' common elements say of it, becomes a
dictionary of pseudonyms, guarded values and facts of closed lists. Two free texts go along, because only the series as a whole tells its
region and contrast; `series_facts` turns them into facts and they end there.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import orjson

from pictures_spark.deid import derive
from pictures_spark.deid.derive_geometry import geometry, places
from pictures_spark.deid.derive_headers import Frames, functional_groups, listed_tags, most_first, parse, tag_rules, told_facts
from pictures_spark.deid.tables_guard import Border
from pictures_spark.errors import ConfigError
from pictures_spark.keys import pseudonym
from pictures_spark.resources import load_schema
from pictures_spark.schema import Column, table

Row = Mapping[str, Any]

# DICOM keyword of an identifier -> the kind of pseudonym it becomes.
KINDS = {
    "SOPInstanceUID": "image",
    "SeriesInstanceUID": "series",
    "StudyInstanceUID": "study",
    "AccessionNumber": "accession",
    "FrameOfReferenceUID": "frame_of_reference",
    "StationName": "station",
}
# Sorts after every time of day, so that an image without one does not hide the others of its date.
NO_TIME = "~"
_IMAGES = ("image", "multiframe_image")
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
    found = _promoted(keyword)
    if found is None:
        raise ConfigError(
            f"schemas/deidentified/ uses DICOM keyword {keyword}, which schemas/identifiable/header_instance.yaml does not have"
        )
    return found


@cache
def _promoted(keyword: str) -> Column | None:
    return next((column for column in table("identifiable", "header_instance").columns if column.dicom == keyword), None)


@cache
def copied_columns() -> tuple[tuple[Column, Border], ...]:
    """Columns of ``image`` that come from a header attribute as they are, with their limits."""
    found = [c for c in table("deidentified", "image").columns if c.deid in ("keep", "vocabulary") and c.dicom is not None]
    return tuple((column, Border("image", column)) for column in found)


@cache
def rolled_columns(name: str) -> tuple[tuple[Column, Border], ...]:
    """Columns of ``series`` or ``study`` that are rolled up from the images, with their limits."""
    listed = listed_columns(name)
    return tuple((c, Border(name, c)) for c in table("deidentified", name).columns if c.rollup is not None and c not in listed)


@cache
def listed_columns(name: str) -> tuple[Column, ...]:
    """Columns with a roll-up whose attribute is not promoted to header_instance but on the allow-list: they are read off table ``tag``.

    Raises
    ------
    ConfigError
        A roll-up is ``first``: the table does not know which image has a value.
    """
    listed = {rule.keyword for rule in tag_rules()}
    columns = table("deidentified", name).columns
    found = tuple(c for c in columns if c.rollup is not None and c.dicom in listed and _promoted(str(c.dicom)) is None)
    if faulty := [c.name for c in found if c.rollup == "first"]:
        raise ConfigError(f"schemas/deidentified/{name}.yaml: {', '.join(faulty)} cannot have rollup first, because table tag has no order")
    return found


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
        of the series' common elements, as JSON).
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
    own_frames = functional_groups(differences)
    frames = {**orjson.loads(row["shared_frames"] or "{}"), **own_frames}
    ids = {keyword: name(key, kind, _name_of(row, keyword)) for keyword, kind in KINDS.items() if _named(row[header(keyword).name])}
    identified = _named(row["patient_id_raw"])
    moment = derive.scan_moment({keyword: (row[day], row[time]) for keyword, (day, time) in _MOMENTS.items()})
    pixels = (row["number_of_frames"] or 1) if row["has_pixels"] else 0
    family = derive.sop_class_family(row["sop_class_uid"])
    manufacturer = derive.manufacturer_norm(row["manufacturer"])
    cosines = _in_frames(row, "ImageOrientationPatient", frames)
    grids, positions, unplaced = _places(row, pixels if family in _IMAGES else 0, frames)
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
        "family": family,
        "kinds": _kinds(row, frames),
        "planes": [plane for vectors in cosines if (plane := derive.orientation(vectors)) is not None],
        "grids": grids,
        "places": positions,
        "unplaced": unplaced,
        "regions": list(_regions(row, frames)),
        "agent": derive.agent_says(row["contrast_bolus_agent"]),
        "texts": [text for text in (row["series_description"], row["protocol_name"]) if _named(text)],
        "study_texts": [row["study_description"]] if _named(row["study_description"]) else [],
        "described": list(derive.description_words(row["series_description"] or "")),
        "protocol": list(derive.description_words(row["protocol_name"] or "")),
        "study_described": list(derive.description_words(row["study_description"] or "")),
        "said": _said(row),
        "manufacturer_norm": manufacturer,
        "model_norm": derive.model_norm(manufacturer, row["manufacturer_model_name"]),
        "portable": derive.model_is_portable(manufacturer, row["manufacturer_model_name"]),
        "field_tesla": _border("series", "field_tesla").one(derive.field_tesla(row["magnetic_field_strength"]), withheld),
        "burned": derive.header_code("burned_in_annotation", row["burned_in_annotation"]),
        "image__frames": _border("image", "frames").one(pixels, withheld),
        "tags": _listed(differences, own_frames),
        "skip": None,
    }
    for fact, told in (("image_kind", safe["kinds"]), ("orientation", safe["planes"])):
        safe[f"image__{fact}"] = next(iter(most_first([value] for value in told)), None) if told else None
    for column, border in copied_columns():
        if column.type.startswith("array"):
            found = next(iter(_in_frames(row, str(column.dicom), frames)), None)
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
    return safe | {"counted": ["images", *(["conflicts"] if row["conflict"] else []), *withheld]}


def _said(row: Row) -> list[dict[str, str]]:
    """Texts of the header that are published where they are common (`tables_texts`)."""
    keywords = load_schema("derive/common_texts.yaml")["keywords"]
    texts = {keyword: derive.normal_text(row[name]).strip() for keyword, name in keywords.items()}
    return [{"keyword": keyword, "text": text} for keyword, text in texts.items() if text]


def _listed(elements: Mapping[str, Any], frames: Mapping[str, Frames]) -> list[dict[str, Any]]:
    return [vars(found) for found in (*listed_tags(elements, frames), *told_facts(elements, frames))]


def _name_of(row: Row, keyword: str) -> str:
    """What a pseudonym is made of. Stations of two institutions are often called the same."""
    value: str = row[header(keyword).name]
    return f"{(row['institution_name'] or '').strip()}|{value.strip()}" if keyword == "StationName" else value


def _in_frames(row: Row, keyword: str, frames: Mapping[str, Frames]) -> Frames:
    """An array attribute of each frame, or a single one for all."""
    value = row[header(keyword).name]
    return [value] if value else frames.get(keyword, [])


def _places(row: Row, count: int, frames: Mapping[str, Frames]) -> tuple[list[list[float]], list[float], int]:
    """`places` of an image's frames; one that lies outside what may cross has none."""
    if not count:
        return [], [], 0

    def given(keyword: str, column: str) -> Frames:
        return [_border("image", column).whole(value, []) for value in _in_frames(row, keyword, frames)]

    return places(
        count,
        given("ImagePositionPatient", "position"),
        given("ImageOrientationPatient", "orientation_vectors"),
        given("PixelSpacing", "pixel_spacing"),
        (_border("image", "rows").one(row["rows"], []), _border("image", "columns").one(row["columns"], [])),
    )


def _kinds(row: Row, frames: Mapping[str, Frames]) -> list[str]:
    """`image_kind` of the image, or of its frames where those differ."""
    types = [row["image_type"]]
    if "FrameType" in frames and (row["image_type"] or ["MIXED"])[0] not in ("ORIGINAL", "DERIVED"):
        types = list(frames["FrameType"])
    return [kind for values in types if (kind := derive.image_kind(values, row["sop_class_uid"])) is not None]


def _regions(row: Row, frames: Mapping[str, Frames]) -> tuple[str, ...]:
    own = derive.regions_of_term(row["body_part_examined"])
    if own or "AnatomicRegion" not in frames:
        return own
    terms = [derive.regions_of_term(values[0]) for values in frames["AnatomicRegion"] if values]
    return tuple(dict.fromkeys(region for regions in terms for region in regions))


def _values(row: Row, column: Column, frames: Mapping[str, Frames]) -> list[Any]:
    """Every value that an instance has for a column; where the top level has none those of its frames, what most of them have first."""
    source = header(str(column.dicom))
    value = row[source.name]
    values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
    if not values and column.dicom in frames:
        values = most_first(frames[str(column.dicom)])
    if column.type in ("string", "array<string>"):
        values = [v for v in values if v.strip()]
    return [v.strip().upper() for v in values] if column.vocabulary else values


def common_facts(row: Row) -> dict[str, Any]:
    """What the common elements of a series (a row of header_series) say: functional groups and listed tags."""
    elements = parse(row["elements"])
    frames = functional_groups(elements)
    return {
        "template_id": row["template_id"],
        "shared_frames": orjson.dumps(frames).decode() if frames else None,
        "tags": _listed(elements, frames),
    }


def series_facts(row: Row) -> dict[str, Any]:
    """What only the images of a series together tell.

    Parameters
    ----------
    row : lists over its images: ``families``, ``planes``, ``kinds``, ``regions``, ``agents``, ``texts``, ``study_texts``, ``burned``,
        ``portables``, ``grids``; ``places`` (records with a list ``places``), ``unplaced`` (a number); ``facts``: what its headers say by
        schemas/derive/facts.yaml, what most images say first; ``laterality`` and ``scanning_sequence`` as rolled up.

    Returns
    -------
    dict
        The columns of `FACT_COLUMNS`; ``differs`` has the names of those of them that disagree.
    """
    texts, study_texts = row["texts"], row["study_texts"]
    facts: dict[str, list[str]] = dict(row["facts"] or ())

    def said(*names: str) -> list[str]:
        return [word for name in names for word in facts.get(name, ())]

    family, families = derive.plurality(row["families"])
    plane, planes = derive.plurality(row["planes"])
    kind, kinds = derive.plurality(row["kinds"])
    regions, region_evidence, regions_differ = derive.body_region(row["regions"], texts, study_texts)
    # Frames before the injection and after it stand in one enhanced image; that an agent is named says less than that it was given.
    agents = [*row["agents"], *(said("contrast_administered") or said("contrast_ingredient_given"))]
    contrast, contrast_evidence = derive.contrast(agents, texts, study_texts)
    phase, phase_evidence = derive.contrast_phase(said("contrast_phase"), texts, study_texts)
    portable, portable_evidence = derive.portable(row["portables"], texts, study_texts)
    implant, implant_evidence = derive.implant(said("implant_present"), texts, study_texts)
    verdict = geometry(row["grids"], (place["places"] for place in row["places"]), row["unplaced"] or 0)
    given = {name: None if contrast == "no" else next(iter(said(name)), None) for name in ("contrast_agent", "contrast_route")}
    burned = set(row["burned"])
    differs = {
        "sop_class_family": families,
        "orientation": planes,
        "image_kind": kinds,
        "body_region": regions_differ,
        "contrast": contrast_evidence == "conflict",
        "contrast_phase": phase_evidence == "conflict",
        "implant_present": implant_evidence == "conflict",
        "burned_in_annotation": len(burned) > 1,
        "laterality": row["laterality"] is None and len(said("image_laterality")) > 1,
        **{name: len(said(name)) > 1 for name in ("contrast_agent", "contrast_route", "convolution_kernel")},
    }
    return {
        "sop_class_family": family,
        "orientation": plane,
        "image_kind": kind,
        "body_region": list(regions),
        "body_region_evidence": region_evidence,
        "laterality": row["laterality"] or next(iter(said("image_laterality")), None),
        "contrast": contrast,
        "contrast_evidence": contrast_evidence,
        **given,
        "contrast_phase": phase,
        "contrast_phase_evidence": phase_evidence,
        "scanning_sequence": sorted({*row["scanning_sequence"], *said("scanning_sequence", "scanning_inversion", "scanning_planar")}),
        "convolution_kernel": next(iter(said("convolution_kernel")), None),
        "portable": portable,
        "portable_evidence": portable_evidence,
        "implant_present": implant,
        "implant_evidence": implant_evidence,
        "is_regular_volume": verdict.regular,
        "geometry_reason": verdict.reason,
        "spacing_positions": _border("series", "spacing_positions").one(verdict.spacing, []),
        # One image that claims text in its pixels speaks for the series.
        "burned_in_annotation": "yes" if "yes" in burned else "no" if burned else "unknown",
        "differs": sorted(name for name, disagree in differs.items() if disagree),
    }


_TAGS = "array<struct<keyword:string,vr:string,numbers:array<double>,codes:array<string>,frames:array<bigint>,withheld:boolean>>"
COMMON_COLUMNS = f"template_id string, shared_frames string, tags {_TAGS}"
FACT_COLUMNS = (
    "sop_class_family string, orientation string, image_kind string, body_region array<string>, body_region_evidence string, "
    "laterality string, contrast string, contrast_evidence string, contrast_agent string, contrast_route string, contrast_phase string, "
    "contrast_phase_evidence string, scanning_sequence array<string>, convolution_kernel string, portable string, "
    "portable_evidence string, implant_present string, implant_evidence string, is_regular_volume boolean, geometry_reason string, "
    "spacing_positions double, burned_in_annotation string, differs array<string>"
)


def image_columns() -> str:
    """Columns of `safe_image` as Spark DDL."""
    fixed = (
        "sop_uid string, content_sha256 string, template_id string, image_id string, series_id string, study_id string, locator_id string, "
        "linked string, unlinked_reason string, conflict boolean, n_objects bigint, sex string, "
        "scan struct<rank:int,date:date,time:string>, family string, kinds array<string>, planes array<string>, "
        "grids array<array<double>>, places array<double>, unplaced bigint, regions array<string>, agent string, texts array<string>, "
        "study_texts array<string>, described array<string>, protocol array<string>, study_described array<string>, "
        "said array<struct<keyword:string,text:string>>, "
        "manufacturer_norm string, model_norm string, portable boolean, field_tesla double, burned string, "
        "image__frames bigint, image__image_kind string, image__orientation string, "
        f"tags {_TAGS}, skip string, counted array<string>"
    )
    copied = [f"image__{column.name} {column.type}" for column, _ in copied_columns()]
    rolled = [
        f"{name}__{column.name} array<{column.type.removeprefix('array<').removesuffix('>')}>"
        for name in ("series", "study")
        for column, _ in rolled_columns(name)
    ]
    return ", ".join([fixed, *copied, *rolled])
