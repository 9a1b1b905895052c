"""The DICOM files that pydicom's wheel carries, and what of them must never leave the identifiable zone.

Enters: the installed pydicom (nothing is fetched) and schemas/synthetic/samples.yaml. Leaves: paths, dates and identifiers. Driver.
"""

import re
import warnings
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

from pictures_spark.resources import load_schema


@cache
def sample_files() -> dict[str, Path]:
    """Every DICOM file of the wheel, the ones that are broken on purpose too, by its path below pydicom's data folder."""
    rules = load_schema("synthetic/samples.yaml")
    root = Path(pydicom.__file__).parent / "data"
    found = [
        path for folder in rules["folders"] for path in (root / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    kept = [path for path in found if path.suffix not in rules["not_dicom"] and path.name not in rules["not_dicom_names"]]
    return {path.relative_to(root).as_posix(): path for path in sorted(kept)}


def _elements() -> Iterator[DataElement]:
    """Every element of every sample that can be read, at any depth."""
    for path in sample_files().values():
        with warnings.catch_warnings():
            # They are broken on purpose: that is their use.
            warnings.simplefilter("ignore")
            try:
                yield from pydicom.dcmread(path, force=True, stop_before_pixels=True).iterall()
            except Exception:  # noqa: BLE001
                continue


@cache
def sample_facts() -> tuple[frozenset[date], tuple[tuple[str, str], ...]]:
    """All dates in the samples, and their identifiers as (kind, value), sorted."""
    rules = load_schema("synthetic/samples.yaml")
    kinds = {keyword: kind for kind, keywords in rules["identifiers"].items() for keyword in keywords}
    dates, values = set(), set()
    for element in _elements():
        if element.VR in ("DA", "DT"):
            dates |= {day for text in _texts(element) if (day := _date(text))}
        if kind := kinds.get(element.keyword):
            for text in _texts(element):
                values |= {(kind, form) for form in _forms(kind, text)}
    generic = set(rules["generic"])
    kept = {(kind, v) for kind, v in values if len(v) >= rules["shortest"][kind] and v.lower() not in generic and re.search(r"\w", v)}
    return frozenset(dates), tuple(sorted(kept))


def _texts(element: DataElement) -> list[str]:
    values = element.value if isinstance(element.value, list | MultiValue) else [element.value]
    return [str(value).strip() for value in values if value is not None]


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text[:8])
    except ValueError:
        return None


def _forms(kind: str, text: str) -> set[str]:
    """A value as it stands, and the forms in which it could appear elsewhere: parts of a name, an ISO date."""
    if kind in ("name", "physician"):
        return {text, *(part for part in re.split(r"[\^=]", text))}
    if kind == "birth_date" and (day := _date(text)):
        return {text, day.isoformat()}
    return {text}
