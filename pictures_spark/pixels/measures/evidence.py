"""What a frame gives evidence of, crudely and by stated rules: contrast medium, the density of the liver, a face.

Thresholds, with their reasons and with what was measured of them, are in schemas/pixels/measures.yaml (``tissue``, ``contrast``, ``liver``,
``face``). Nothing here is a diagnosis, and nothing was tried on labelled images of patients.
"""

import cv2
import numpy as np
from pydicom.dataset import Dataset

from pictures_spark.deid.derive import agent_says, description_says, regions_in_texts, regions_of_term
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.frame import Frame, largest_filled, rules
from pictures_spark.pixels.modality import orientation, pixel_spacing, slice_thickness


def soft_tissue_p99(frame: Frame) -> float:
    """99th percentile of the smoothed Hounsfield units of even tissue inside the body.

    Raises
    ------
    PixelFault
        ``no_even_tissue``: too little of the body is even.
    """
    found = frame.tissue
    place = int(np.ceil(0.99 * len(found))) - 1
    return float(np.partition(found, place)[place])


def vessel_fraction(frame: Frame) -> float:
    """Share of even tissue that is as bright as a vessel with contrast medium."""
    rule = rules()["contrast"]
    found = frame.tissue
    return float(np.count_nonzero(found >= rule["vessel_from_hu"]) / len(found))


def contrast_evidence(frame: Frame) -> float:
    """0 to 3: one each for a header that says so, a high `soft_tissue_p99`, a high `vessel_fraction`."""
    rule = rules()["contrast"]
    points = [
        contrast_said(frame.image.dataset),
        soft_tissue_p99(frame) >= rule["p99_from_hu"],
        vessel_fraction(frame) >= rule["vessel_from_share"],
    ]
    return float(sum(points))


def contrast_said(dataset: Dataset) -> bool:
    """Whether the header says that contrast medium was given, by the rules of schemas/derive/contrast.yaml, and nothing in it says no."""
    agent = agent_says(_text(dataset, "ContrastBolusAgent"))
    own = [_text(dataset, keyword) for keyword in ("SeriesDescription", "ProtocolName")]
    said = {agent, description_says(own) or description_says([_text(dataset, "StudyDescription")])} - {None}
    return said == {"yes"}


def liver_mean(frame: Frame) -> float:
    """Median Hounsfield units of what is like liver: the largest piece of even soft tissue in the right half of an axial abdominal CT.

    Called a mean because it stands for the mean of a region that a radiologist would draw.

    Raises
    ------
    PixelFault
        ``not_abdomen``: the header names other regions, or none; ``no_geometry``, ``not_axial``, ``no_spacing``, and as `Frame.body`;
        ``no_liver``: no piece is large enough.
    """
    rule = rules()["liver"]
    if not {"ABDOMEN"} & set(regions(frame.image.dataset)):
        raise PixelFault("not_abdomen")
    across, down = orientation(frame.image, frame.index)
    if min(abs(across[0]), abs(down[1])) < rule["min_axial_cosine"]:
        raise PixelFault("not_axial")
    rows, columns = pixel_spacing(frame.image, frame.index)
    soft = frame.even & (frame.smooth >= rule["from_hu"]) & (frame.smooth < rule["to_hu"])
    middle = (frame.box[0] + frame.box[2]) // 2
    # Where columns grow towards the patient's left, the right half of the body is the left half of the picture.
    soft[:, slice(middle, None) if across[0] > 0 else slice(0, middle)] = False
    side = rule["opening_pixels"]
    opened = cv2.morphologyEx(soft.astype(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    piece = largest_filled(opened)
    if piece is None or cv2.countNonZero(piece) * rows * columns / 100 < rule["min_area_cm2"]:
        raise PixelFault("no_liver")
    return float(np.median(frame.hounsfield[piece > 0]))


def face_risk(frame: Frame) -> float:
    """0 to 3: how much speaks for a face that could be made recognisable from this image and its neighbours.

    One each for a header that says head, neck or whole body; voxels fine enough; skin with air in front of it on the patient's anterior
    side. 0 where the header names other regions only.

    Raises
    ------
    PixelFault
        ``no_geometry``, ``no_spacing``: the header does not say; ``blank``, ``only_padding``: there is nothing to see.
    """
    rule = rules()["face"]
    named = set(regions(frame.image.dataset))
    if named and not named & set(rule["regions"]):
        return 0.0
    spacing = max(pixel_spacing(frame.image, frame.index))
    fine = spacing <= rule["max_pixel_mm"] and slice_thickness(frame.image, frame.index) <= rule["max_slice_mm"]
    return float(bool(named)) + float(fine) + float(_skin_in_front(frame))


def _skin_in_front(frame: Frame) -> bool:
    """Whether hardly any foreground touches the anterior edge of the frame; True where no edge is anterior (coronal planes)."""
    rule = rules()["face"]
    across, down = orientation(frame.image, frame.index)
    seen = frame.foreground
    # Anterior is where the second coordinate falls.
    if max(abs(across[1]), abs(down[1])) < rule["min_anterior_cosine"]:
        return True
    first, last = (seen[0], seen[-1]) if abs(down[1]) >= abs(across[1]) else (seen[:, 0], seen[:, -1])
    edge = first if max(down[1], across[1], key=abs) > 0 else last
    return bool(edge.mean() <= rule["max_edge_share"])


def regions(dataset: Dataset) -> tuple[str, ...]:
    """Regions that the header names, by the rules and in the order of evidence of schemas/derive/body_region.yaml."""
    for found in (
        regions_of_term(_text(dataset, "BodyPartExamined")),
        regions_in_texts([_text(dataset, "SeriesDescription"), _text(dataset, "ProtocolName")]),
        regions_in_texts([_text(dataset, "StudyDescription")]),
    ):
        if found:
            return found
    return ()


def _text(dataset: Dataset, keyword: str) -> str | None:
    value = dataset.get(keyword)
    return None if value is None else str(value)
