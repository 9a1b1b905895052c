"""Frames -> 8 bit, for finding text. Pure."""

import numpy as np

from pictures_spark.resources import load_schema


def to_8bit(frame: np.ndarray, inverted: bool = False) -> np.ndarray:
    """A frame as 8-bit grey or RGB in which text stays visible, whatever the range of its values.

    Grey values map in three straight pieces (thresholds ``window`` in schemas/pixels/text.yaml): the middle percentiles take most levels,
    and some levels at either end stay for what lies beyond, because text is often the brightest or darkest thing in a frame. 8-bit
    colours stay as they are; deeper ones are scaled by their own range.

    Parameters
    ----------
    frame : (rows, columns) or (rows, columns, 3), any integer or float type; values that are not finite count as the lowest.
    inverted : True for MONOCHROME1, where low is bright.
    """
    if frame.dtype == np.uint8 and frame.ndim == 3:
        return frame
    if frame.dtype.kind == "f":
        finite = np.isfinite(frame)
        frame = np.where(finite, frame, frame[finite].min() if finite.any() else 0)
    grey = _stretched(frame)
    return 255 - grey if inverted else grey


def whole_range(frame: np.ndarray, inverted: bool = False) -> np.ndarray | None:
    """The same frame with its whole range mapped evenly, where `to_8bit` leaves too few levels for what lies beyond the percentiles.

    Text that stands on something nearly as bright, such as metal or a burned-in banner, is seen only there. None where it would add
    nothing: 8-bit frames of colour, and frames of which no great part of the range lies beyond the percentiles.
    """
    if frame.ndim == 3 or frame.dtype.kind == "f" or frame.dtype.itemsize == 1:
        return None
    rule = load_schema("pixels/text.yaml")["window"]
    low, high = float(frame.min()), float(frame.max())
    percentiles = np.percentile(frame, [rule["low_percentile"], rule["high_percentile"]], method="nearest")
    beyond = max(float(percentiles[0]) - low, high - float(percentiles[1]))
    if beyond <= rule["beyond_share"] * (high - low):
        return None
    grey = ((frame.astype(np.float32) - low) * np.float32(255 / (high - low))).round().astype(np.uint8)
    return 255 - grey if inverted else grey


def _stretched(frame: np.ndarray) -> np.ndarray:
    rule = load_schema("pixels/text.yaml")["window"]
    low, high = float(frame.min()), float(frame.max())
    if low == high:
        return np.zeros(frame.shape, np.uint8)
    if frame.ndim == 3:
        knots, levels = [low, high], [0, 255]
    else:
        # Nearest rank: interpolating between two ranks overflows in the frame's own type.
        percentiles = np.percentile(frame, [rule["low_percentile"], rule["high_percentile"]], method="nearest")
        p_low, p_high = float(percentiles[0]), float(percentiles[1])
        knots, levels = [p_low, p_high], [rule["reserve"], 255 - rule["reserve"]]
        if p_low == p_high:
            knots, levels = [low, high], [0, 255]
        else:
            knots, levels = _ends(knots, levels, low, high)
    if frame.dtype.kind in "iu" and high - low < 65536:
        # A table of at most 2^16 entries is several times cheaper than interpolating every sample.
        table = np.interp(np.arange(int(low), int(high) + 1), knots, levels).round().astype(np.uint8)
        return table[(frame.astype(np.int64) if frame.dtype.itemsize > 2 else frame.astype(np.int32)) - int(low)]
    return np.interp(frame, knots, levels).round().astype(np.uint8)


def _ends(knots: list[float], levels: list[int], low: float, high: float) -> tuple[list[float], list[int]]:
    """Add the outer pieces; where nothing lies beyond a percentile, the middle piece takes their levels too."""
    (p_low, p_high), (below, above) = knots, levels
    start = [(low, 0), (p_low, below)] if low < p_low else [(p_low, 0)]
    end = [(p_high, above), (high, 255)] if high > p_high else [(p_high, 255)]
    points = start + end
    return [value for value, _ in points], [level for _, level in points]
