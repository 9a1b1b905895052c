"""One decoded frame and what several features need of it, each computed once. Pure; runs in the supervised child.

Spatial work is done by OpenCV on one thread: it is many times faster than NumPy here, and the child has it for the text detector anyway.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from pictures_spark.pixels.decode import Image
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.modality import modality_values, padding_range, require_hounsfield, slope_and_intercept
from pictures_spark.resources import load_schema

# Up to this many levels between the lowest and the highest, counting by table is faster than sorting.
_TABLE = 1 << 20
_LUMA_PER_MILLE = (299, 587, 114)


def rules() -> Mapping[str, Any]:
    """The thresholds of schemas/pixels/measures.yaml."""
    found: dict[str, Any] = load_schema("pixels/measures.yaml")
    return found


def counted(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in rising order, and how often each occurs (int64).

    Examples
    --------
    >>> counted(np.array([3, 1, 3]))
    (array([1, 3]), array([1, 2]))
    """
    if samples.dtype.kind in "iu" and samples.size:
        low, high = int(samples.min()), int(samples.max())
        if high - low < _TABLE:
            wide = samples.astype(np.int32 if samples.dtype.itemsize <= 2 else np.int64).ravel()
            table = np.bincount(wide - low, minlength=high - low + 1)
            found = np.flatnonzero(table)
            return found + low, table[found]
    values, counts = np.unique(samples, return_counts=True)
    return values, counts.astype(np.int64)


class Frame:
    """A frame of an image, and views of it.

    Parameters
    ----------
    image : the image it is of.
    index : which frame, from 0.
    samples : as decoded; palette as indices.
    """

    def __init__(self, image: Image, index: int, samples: np.ndarray) -> None:
        self.image = image
        self.index = index
        self.samples = samples

    @cached_property
    def shown(self) -> np.ndarray:
        """Samples, with a palette's colours in place of its indices."""
        return self.image.colours(self.samples)

    @cached_property
    def grey(self) -> np.ndarray:
        """(rows, columns): stored values, or of colours a thousand times their luma (0.299 R + 0.587 G + 0.114 B), which is whole."""
        if self.shown.ndim == 2:
            return self.shown
        wide: np.ndarray = self.shown.astype(np.int64 if self.shown.dtype.itemsize > 2 else np.int32)
        mixed: np.ndarray = wide[:, :, 0] * _LUMA_PER_MILLE[0] + wide[:, :, 1] * _LUMA_PER_MILLE[1] + wide[:, :, 2] * _LUMA_PER_MILLE[2]
        return mixed

    @cached_property
    def scale(self) -> float:
        """What `grey` is to be divided by."""
        return 1.0 if self.shown.ndim == 2 else 1000.0

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct values of `grey`, and how often each occurs: the one histogram from which all else comes.

        Raises
        ------
        PixelFault
            ``not_finite``: a sample is no finite number.
        """
        if self.grey.dtype.kind == "f" and not np.isfinite(self.grey).all():
            raise PixelFault("not_finite")
        return counted(self.grey)

    @cached_property
    def levels(self) -> np.ndarray:
        """The modality value of each of the distinct values; raises as `modality_values`."""
        return modality_values(self.counts[0] / self.scale, self.image, self.index)

    @cached_property
    def kept(self) -> np.ndarray:
        """Which of the distinct values are not padding."""
        padded = padding_range(self.image)
        values = self.counts[0]
        return np.ones(len(values), bool) if padded is None else (values < padded[0]) | (values > padded[1])

    @cached_property
    def padding(self) -> np.ndarray | None:
        """Mask of padding; None where there is none."""
        if self.kept.all():
            return None
        low, high = padding_range(self.image) or (0, 0)
        return (self.grey >= low) & (self.grey <= high)

    @cached_property
    def values(self) -> np.ndarray:
        """Modality value of each pixel, float32; raises as `modality_values`."""
        levels = self.levels
        if "ModalityLUTSequence" in self.image.dataset:
            return levels.astype(np.float32)[np.searchsorted(self.counts[0], self.grey)]
        values = self.grey.astype(np.float32)
        if self.scale != 1.0:
            return values / np.float32(self.scale)
        line = None if self.image.palette else slope_and_intercept(self.image.dataset, self.index)
        return values if line is None or line == (1.0, 0.0) else values * np.float32(line[0]) + np.float32(line[1])

    @cached_property
    def hounsfield(self) -> np.ndarray:
        """`values` where they are Hounsfield units; raises as `require_hounsfield`."""
        require_hounsfield(self.image, self.index)
        return self.values

    @cached_property
    def body(self) -> np.ndarray:
        """Mask (uint8, 0 or 1) of the body in a CT frame, its inside filled.

        Raises
        ------
        PixelFault
            ``no_body``: nothing of at least the declared size is denser than the threshold; and as `hounsfield`.
        """
        rule = rules()["body"]
        dense = (self.hounsfield > rule["threshold_hu"]).astype(np.uint8)
        if self.padding is not None:
            dense[self.padding] = 0
        size = rule["opening_pixels"]
        found = largest_filled(cv2.morphologyEx(dense, cv2.MORPH_OPEN, np.ones((size, size), np.uint8)))
        if found is None or int(cv2.countNonZero(found)) < rule["min_share"] * found.size:
            raise PixelFault("no_body")
        return found

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """The smallest box that holds `body`: left, top, right, bottom, the last two exclusive."""
        left, top, width, height = cv2.boundingRect(self.body)
        return left, top, left + width, top + height

    @cached_property
    def foreground(self) -> np.ndarray:
        """Mask (bool) of what is brighter than Otsu's threshold (IEEE Trans Syst Man Cybern 1979; 9: 62-66) of all but padding.

        Raises
        ------
        PixelFault
            ``blank``: there is one value only; ``only_padding``.
        """
        values, counts = self.counts[0][self.kept], self.counts[1][self.kept]
        bright = self.grey > otsu(values, counts)
        return bright if self.padding is None else bright & ~self.padding

    @cached_property
    def smooth(self) -> np.ndarray:
        """`hounsfield` averaged over the declared square."""
        side = rules()["tissue"]["smoothing_pixels"]
        return cv2.blur(self.hounsfield, (side, side))

    @cached_property
    def even(self) -> np.ndarray:
        """Mask (bool) of where `smooth` hardly changes around a pixel that lies well inside the body and is no bone."""
        rule = rules()["tissue"]
        side = rule["smoothing_pixels"]
        # Deviation from one value first: squares of large numbers would drown a small deviation in float32.
        centred = self.smooth - np.float32(rule["centre_hu"])
        mean, square = cv2.blur(centred, (side, side)), cv2.blur(centred * centred, (side, side))
        return (square - mean * mean < rule["max_deviation_hu"] ** 2) & self.inside & ~self.bone

    @cached_property
    def tissue(self) -> np.ndarray:
        """`smooth` of the pixels of `even` between the densities of tissue, as a list.

        Raises
        ------
        PixelFault
            ``no_even_tissue``: they are less than a share of the body.
        """
        rule = rules()["tissue"]
        found: np.ndarray = self.smooth[self.even & (self.smooth >= rule["from_hu"]) & (self.smooth < rule["to_hu"])]
        if len(found) < rule["min_share"] * cv2.countNonZero(self.body):
            raise PixelFault("no_even_tissue")
        return found

    @cached_property
    def bone(self) -> np.ndarray:
        """Mask (bool) of bone with its marrow: dense pieces with a core as dense as only bone is, small holes filled, a margin around."""
        rule = rules()["bone"]
        found, labels = cv2.connectedComponents((self.hounsfield > rule["from_hu"]).astype(np.uint8), connectivity=8)
        hard = np.zeros(found, bool)
        hard[labels[self.hounsfield >= rule["core_hu"]]] = True
        mask = hard[labels].astype(np.uint8)
        outlines, nesting = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        largest = rule["max_hole_share"] * cv2.countNonZero(self.body)
        # A hole's outline runs through the bone around it, and so encloses more than the hole.
        holes = [o for o, (_, _, _, parent) in zip(outlines, nesting[0] if len(outlines) else (), strict=True) if parent >= 0]
        cv2.drawContours(mask, [o for o in holes if cv2.contourArea(o) <= largest], -1, 1, cv2.FILLED)
        side = 2 * rule["margin_pixels"] + 1
        return cv2.dilate(mask, np.ones((side, side), np.uint8)).astype(bool)

    @cached_property
    def inside(self) -> np.ndarray:
        """Mask (bool) of the body without its skin; the frame's edge is no skin."""
        side = 2 * rules()["tissue"]["skin_pixels"] + 1
        return cv2.erode(self.body, np.ones((side, side), np.uint8)).astype(bool)


def otsu(values: np.ndarray, counts: np.ndarray) -> float:
    """The value that splits a distribution into two classes, ``<=`` and ``>`` it, with the largest variance between them.

    Raises
    ------
    PixelFault
        ``only_padding``: no values; ``blank``: one value.
    """
    if len(values) < 2:
        raise PixelFault("blank" if len(values) else "only_padding")
    levels = values.astype(np.float64)
    levels = levels - levels[0]
    below = np.cumsum(counts).astype(np.float64)
    sums = np.cumsum(levels * counts)
    above = below[-1] - below[:-1]
    split = (sums[-1] * below[:-1] / below[-1] - sums[:-1]) ** 2 / (below[:-1] * above)
    return float(values[int(np.argmax(split))])


def filled(mask: np.ndarray, min_pixels: float = 0) -> list[tuple[float, np.ndarray]]:
    """The pieces of a mask (8-neighbours) with their holes filled: (pixels, outline) of those of at least so many pixels."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # Pick's theorem: the pixels of a filled outline, whose corners are pixel centres; a lone pixel has no corners.
    sizes = [cv2.contourArea(outline) + len(outline) / 2 + 1 if len(outline) > 1 else 1.0 for outline in outlines]
    return [(size, outline) for size, outline in zip(sizes, outlines, strict=True) if size >= min_pixels]


def drawn(shape: tuple[int, ...], outlines: Sequence[np.ndarray]) -> np.ndarray:
    """Mask (uint8, 0 or 1) of what outlines enclose, themselves included."""
    return cv2.drawContours(np.zeros(shape, np.uint8), outlines, -1, 1, cv2.FILLED)


def largest_filled(mask: np.ndarray) -> np.ndarray | None:
    """The piece that is largest once its holes are filled, filled, as uint8 0 or 1; None where the mask is empty."""
    pieces = filled(mask)
    if not pieces:
        return None
    return drawn(mask.shape, [max(pieces, key=lambda piece: piece[0])[1]])
