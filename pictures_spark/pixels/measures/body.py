"""CT: where the body is in a frame, and what it is made of by Hounsfield units."""

import cv2
import numpy as np

from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.frame import Frame, drawn, filled, rules
from pictures_spark.pixels.measures.intensity import Distribution
from pictures_spark.pixels.modality import pixel_spacing


def lung(frame: Frame) -> np.ndarray:
    """Mask (bool) of what is as thin as lung: pixels below a threshold in the body, in pieces whose outline encloses a share of it.

    Crude: the air of large airways is in it, and so is that of a large bowel loop.

    Raises
    ------
    PixelFault
        ``no_lung``: together they are less than a share of the body.
    """
    rule = rules()["lung"]
    body = frame.body
    size = int(cv2.countNonZero(body))
    thin = ((frame.hounsfield < rule["below_hu"]) & (body > 0)).astype(np.uint8)
    if cv2.countNonZero(thin) >= rule["min_share"] * size:
        pieces = [outline for _, outline in filled(thin, rule["min_piece_share"] * size)]
        found = thin & drawn(thin.shape, pieces)
        if cv2.countNonZero(found) >= rule["min_share"] * size:
            return found.astype(bool)
    raise PixelFault("no_lung")


def air_fraction(d: Distribution) -> float:
    """Share of the body that is air."""
    return _share(d, "air")


def lung_fraction(d: Distribution) -> float:
    """Share of the body that is as dense as lung."""
    return _share(d, "lung")


def fat_fraction(d: Distribution) -> float:
    """Share of the body that is as dense as fat."""
    return _share(d, "fat")


def soft_fraction(d: Distribution) -> float:
    """Share of the body that is as dense as soft tissue."""
    return _share(d, "soft")


def bone_fraction(d: Distribution) -> float:
    """Share of the body that is as dense as bone, or as a vessel full of contrast medium."""
    return _share(d, "bone")


def metal_fraction(d: Distribution) -> float:
    """Share of the body that is as dense as metal."""
    return _share(d, "metal")


def laa950_fraction(d: Distribution) -> float:
    """Share of the lung below -950 HU (low attenuation area; Gevenois et al., Am J Respir Crit Care Med 1996; 154: 187-192)."""
    return d.share(-np.inf, rules()["lung"]["low_attenuation_hu"])


def _share(d: Distribution, tissue: str) -> float:
    low, high = (float(end) for end in rules()["hounsfield"][tissue])
    return d.share(low, high)


def area(frame: Frame) -> float:
    """Area of the body in square centimetres."""
    rows, columns = pixel_spacing(frame.image, frame.index)
    return float(cv2.countNonZero(frame.body)) * rows * columns / 100


def box_left(frame: Frame) -> float:
    """First column of the body."""
    return float(frame.box[0])


def box_top(frame: Frame) -> float:
    """First row of the body."""
    return float(frame.box[1])


def box_right(frame: Frame) -> float:
    """Column after the last one of the body."""
    return float(frame.box[2])


def box_bottom(frame: Frame) -> float:
    """Row after the last one of the body."""
    return float(frame.box[3])


def truncation(frame: Frame) -> float:
    """Share of the body's outline that lies where the field of view ends: at the frame's edge, or beside padding.

    The outline is every pixel of the body with a neighbour above, below, left or right that is none, or that is outside the frame.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    # Beyond the frame there is no body.
    inner = cv2.erode(frame.body, cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outline = (frame.body > 0) & (inner == 0)
    end = np.zeros(outline.shape, np.uint8) if frame.padding is None else frame.padding.astype(np.uint8)
    end = cv2.dilate(end, cross)
    end[[0, -1]] = 1
    end[:, [0, -1]] = 1
    return float(np.count_nonzero(outline & (end > 0)) / np.count_nonzero(outline))
