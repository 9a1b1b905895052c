"""Stored values -> modality values, and what the header says of space. Pure; runs in the supervised child.

Enhanced images keep these attributes in functional groups, per frame or shared (PS3.3 C.7.6.16); `attribute` looks there first.
"""

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from pictures_spark.pixels.decode import Image
from pictures_spark.pixels.faults import PixelFault

_TRANSFORMATION = "PixelValueTransformationSequence"


def group(dataset: Dataset, sequence: str, frame: int) -> Dataset | None:
    """The item of a functional group of one frame, the frame's own before the shared one; None where there is none."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in ([per_frame[frame]] if frame < len(per_frame) else []) + list(shared[:1]):
        item = groups.get(sequence)
        if item:
            found: Dataset = item[0]
            return found
    return None


def numbers(dataset: Dataset, keyword: str, sequence: str, frame: int, count: int) -> tuple[float, ...] | None:
    """``count`` finite numbers of an attribute, from the functional group if it is there; None where they are missing or faulty."""
    try:
        value = (group(dataset, sequence, frame) or dataset).get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def modality_values(values: np.ndarray, image: Image, frame: int) -> np.ndarray:
    """Modality values (PS3.3 C.11.1) of stored values, float64; colours and images without a transformation stay as they are.

    Raises
    ------
    PixelFault
        ``no_rescale``: the transformation cannot be applied; ``not_finite``: what is stored, or comes out, is no finite number.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise PixelFault("not_finite")
    if image.samples > 1 or image.palette:
        return values
    dataset = image.dataset
    try:
        if "ModalityLUTSequence" in dataset:
            return np.asarray(apply_modality_lut(values.astype(np.int64), dataset), np.float64)
        line = slope_and_intercept(dataset, frame)
        return values if line is None else _finite(values * line[0] + line[1])
    except (AttributeError, IndexError, KeyError, NotImplementedError, OverflowError, TypeError, ValueError):
        raise PixelFault("no_rescale") from None


def slope_and_intercept(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Rescale Slope and Intercept of a frame, the one that is missing as 1 or 0; None where both are.

    Raises
    ------
    ValueError
        The slope is 0, or one of them is no number.
    """
    source = group(dataset, _TRANSFORMATION, frame) or dataset
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    if slope is None and intercept is None:
        return None
    line = (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))
    if line[0] == 0:
        raise ValueError
    return line


def require_hounsfield(image: Image, frame: int) -> None:
    """Make sure that modality values are Hounsfield units (PS3.3 C.8.2.1.1.2).

    Raises
    ------
    PixelFault
        ``not_hu``: no CT image, a localizer, or a Rescale Type that says something else; ``no_rescale``: no rescale at all.
    """
    dataset = image.dataset
    kinds = dataset.get("ImageType") or []
    said = (group(dataset, _TRANSFORMATION, frame) or dataset).get("RescaleType")
    if dataset.get("Modality") != "CT" or "LOCALIZER" in list(kinds) or image.samples > 1 or image.palette:
        raise PixelFault("not_hu")
    if said is not None and str(said).strip() not in ("", "HU"):
        raise PixelFault("not_hu")
    try:
        line = slope_and_intercept(dataset, frame)
    except (TypeError, ValueError):
        line = None
    if line is None and "ModalityLUTSequence" not in dataset:
        raise PixelFault("no_rescale")


def pixel_spacing(image: Image, frame: int) -> tuple[float, float]:
    """Row and column spacing in mm.

    Raises
    ------
    PixelFault
        ``no_spacing``: it is missing or not positive.
    """
    found = numbers(image.dataset, "PixelSpacing", "PixelMeasuresSequence", frame, 2)
    if found is None or min(found) <= 0:
        raise PixelFault("no_spacing")
    return found[0], found[1]


def slice_thickness(image: Image, frame: int) -> float:
    """Slice thickness in mm.

    Raises
    ------
    PixelFault
        ``no_spacing``: it is missing or not positive.
    """
    found = numbers(image.dataset, "SliceThickness", "PixelMeasuresSequence", frame, 1)
    if found is None or found[0] <= 0:
        raise PixelFault("no_spacing")
    return found[0]


def orientation(image: Image, frame: int) -> np.ndarray:
    """Directions in which columns and rows grow, in the patient's coordinates (left, posterior, head): a (2, 3) array.

    Raises
    ------
    PixelFault
        ``no_geometry``: Image Orientation (Patient) is missing or faulty.
    """
    found = numbers(image.dataset, "ImageOrientationPatient", "PlaneOrientationSequence", frame, 6)
    if found is None or not np.any(found):
        raise PixelFault("no_geometry")
    return np.array(found).reshape(2, 3)


def padding_range(image: Image) -> tuple[int, int] | None:
    """Lowest and highest stored value that is padding (PS3.3 C.7.5.1.1.2); None where none is declared."""
    if image.samples > 1:
        return None
    ends: list[int] = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = image.dataset.get(keyword)
        if value is None and ends:
            value = ends[0]
        try:
            number = int(value)
        except (TypeError, ValueError):
            return None
        bits = int(image.dataset.get("BitsAllocated", 16))
        # Some devices write the bits of a negative number as an unsigned one.
        if image.dataset.get("PixelRepresentation") == 1 and number >= 1 << (bits - 1):
            number -= 1 << bits
        ends.append(number)
    return min(ends), max(ends)


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError
    return values
