"""How good a frame is, and how much of it is picture."""

import cv2
import numpy as np

from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.frame import Frame, rules

# Immerkaer's mask: the difference of two Laplacians, blind to slopes and edges.
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_LAPLACE = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)
# The mask's own norm, and the median of the absolute value of a standard normal variable.
_NOISE_NORM, _MEDIAN_OF_NORMAL = 6.0, 0.6744897501960817


def noise_sigma(frame: Frame) -> float:
    """Standard deviation of the noise: the median absolute response to a noise mask, of all pixels whose neighbours are foreground too.

    Immerkaer, Comput Vis Image Underst 1996; 64: 300-302; the median in place of the mean, so that edges do not count.
    """
    answers = np.abs(cv2.filter2D(frame.values, cv2.CV_32F, _NOISE)[_within(frame)])
    middle = (len(answers) - 1) // 2
    return float(np.partition(answers, middle)[middle]) / (_NOISE_NORM * _MEDIAN_OF_NORMAL)


def sharpness(frame: Frame) -> float:
    """Mean squared Laplacian over the variance, both of the foreground: without a unit, the larger the sharper (and the noisier).

    Raises
    ------
    PixelFault
        ``blank``: the foreground has one value only.
    """
    within = _within(frame).view(np.uint8)
    _, spread = cv2.meanStdDev(frame.values, mask=within)
    if spread[0, 0] == 0:
        raise PixelFault("blank")
    middle, deviation = cv2.meanStdDev(cv2.filter2D(frame.values, cv2.CV_32F, _LAPLACE), mask=within)
    return float((middle[0, 0] ** 2 + deviation[0, 0] ** 2) / spread[0, 0] ** 2)


def blank(frame: Frame) -> float:
    """1 where all samples are equal, padding left out; else 0."""
    return float(frame.kept.sum() < 2)


def saturated_fraction(frame: Frame) -> float:
    """Share of samples, padding left out, at the highest value that Bits Stored can hold.

    Raises
    ------
    PixelFault
        ``no_bit_depth``: samples are no integers, or colours of a palette; ``only_padding``.
    """
    image = frame.image
    if frame.samples.dtype.kind not in "iu" or image.palette:
        raise PixelFault("no_bit_depth")
    bits = int(image.dataset.get("BitsStored") or image.dataset.BitsAllocated)
    highest = (1 << (bits - (1 if frame.samples.dtype.kind == "i" else 0))) - 1
    if frame.shown.ndim == 3:
        return float((frame.samples >= highest).mean())
    counts = frame.counts[1][frame.kept]
    if not counts.sum():
        raise PixelFault("only_padding")
    return float(counts[frame.counts[0][frame.kept] >= highest].sum() / counts.sum())


def foreground_fraction(frame: Frame) -> float:
    """Share of the frame above Otsu's threshold."""
    return float(frame.foreground.mean())


def constant_border_fraction(frame: Frame) -> float:
    """Share of the frame outside the smallest box that holds every sample different from the one at the top left; 1 where there is none."""
    other = frame.grey != frame.grey[0, 0]
    rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
    if not len(rows):
        return 1.0
    return 1.0 - float((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)) / other.size


def colour_fraction(frame: Frame) -> float:
    """Share of pixels whose red, green and blue differ by more than a share of the range; 0 of a grey image."""
    shown = frame.shown
    if shown.ndim == 2:
        return 0.0
    bits = 8 * shown.dtype.itemsize if frame.image.palette else int(frame.image.dataset.get("BitsStored") or 8 * shown.dtype.itemsize)
    red, green, blue = (np.ascontiguousarray(shown[:, :, n]) for n in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return float((spread > rules()["colour"]["min_difference"] * ((1 << bits) - 1)).mean())


def _within(frame: Frame) -> np.ndarray:
    """Mask (bool) of foreground whose eight neighbours are foreground, without the frame's edge.

    Raises
    ------
    PixelFault
        ``no_foreground``: too little of it.
    """
    within = cv2.erode(frame.foreground.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    within[[0, -1]] = False
    within[:, [0, -1]] = False
    if np.count_nonzero(within) < rules()["quality"]["min_pixels"]:
        raise PixelFault("no_foreground")
    return within
