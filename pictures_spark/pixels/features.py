"""Frames -> numbers (schemas/features.yaml). Pure; runs in the supervised child.

Every feature of an image comes from one pass over its frames and one exact histogram. To add one: an entry in schemas/features.yaml, a
function in `FEATURES`, a row in the table test.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from pictures_spark.pixels.decode import Image
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.resources import load_schema

_LUMA_PER_MILLE = np.array([299, 587, 114], np.int64)


@dataclass(frozen=True)
class Feature:
    """One value of one feature; ``value`` or ``value_text`` where status is ok, ``reason`` where it failed."""

    feature: str
    version: str
    unit: str | None
    value: float | None = None
    value_text: str | None = None
    status: str = "ok"
    reason: str | None = None


@dataclass(frozen=True)
class Distribution:
    """Distinct values in rising order, and how often each occurs."""

    values: np.ndarray
    counts: np.ndarray

    def mean(self) -> float:
        """Arithmetic mean."""
        return float(np.dot(self.values, self.counts) / self.counts.sum())

    def percentile(self, q: float) -> float:
        """Percentile, linearly interpolated between the two nearest ranks, as NumPy's default.

        Examples
        --------
        >>> Distribution(np.array([0.0, 10.0]), np.array([1, 1])).percentile(25)
        2.5
        """
        ends = np.cumsum(self.counts)
        rank = (ends[-1] - 1) * q / 100
        lower = int(np.floor(rank))
        below, above = (float(self.values[np.searchsorted(ends, r, side="right")]) for r in (lower, min(lower + 1, ends[-1] - 1)))
        return below + (above - below) * (rank - lower)


class Measurement:
    """What one pass over an image's frames gathers; `add` each frame in order, then ask for features.

    Parameters
    ----------
    image : the image the frames are of.
    names : features wanted; only what they need is gathered.
    """

    def __init__(self, image: Image, names: Sequence[str]) -> None:
        self._image = image
        self._names = names
        self._frame = 0
        self._digest: Any = None
        self._histograms: dict[int, _Histogram] = {}

    def add(self, frame: np.ndarray) -> None:
        """Take in the next frame, as decoded (palette as indices)."""
        if "pixel_sha256" in self._names:
            canonical = frame.astype(frame.dtype.newbyteorder("<"), copy=False)
            if self._digest is None:
                shape = "x".join(map(str, (self._image.frame_count, *frame.shape)))
                self._digest = hashlib.sha256(f"{canonical.dtype.str}|{shape}|".encode())
            self._digest.update(np.ascontiguousarray(canonical).data)
        if any(name.startswith("intensity_") for name in self._names):
            # One histogram per modality transformation: functional groups may give each frame its own.
            group = self._frame if _per_frame_transformation(self._image.dataset) else -1
            self._histograms.setdefault(group, _Histogram()).add(self._image.colours(frame))
        self._frame += 1

    def sha256(self) -> str:
        """Digest of all samples."""
        return str(self._digest.hexdigest())

    def intensity(self) -> Distribution:
        """Distribution of the modality values of all frames.

        Raises
        ------
        PixelFault
            ``no_rescale``, ``not_finite``.
        """
        parts = []
        for group, histogram in self._histograms.items():
            values, counts = histogram.distinct()
            if not np.isfinite(values).all():
                raise PixelFault("not_finite")
            parts.append((_modality_values(values, self._image, group), counts))
        values, where = np.unique(np.concatenate([v for v, _ in parts]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, where, np.concatenate([c for _, c in parts]))
        if not np.isfinite(values).all():
            raise PixelFault("no_rescale")
        return Distribution(values, counts)


FEATURES: dict[str, Callable[[Measurement], float | str]] = {
    "intensity_mean": lambda m: m.intensity().mean(),
    "intensity_p05": lambda m: m.intensity().percentile(5),
    "intensity_p50": lambda m: m.intensity().percentile(50),
    "intensity_p95": lambda m: m.intensity().percentile(95),
    "pixel_sha256": lambda m: m.sha256(),
}


def declared() -> dict[str, dict[str, Any]]:
    """Every declared feature by name."""
    return {entry["name"]: entry for entry in load_schema("features.yaml")["features"]}


def features(image: Image, frames: Iterable[np.ndarray] | None = None, names: Sequence[str] | None = None) -> list[Feature]:
    """All wanted features of an image, from one pass over its frames.

    Raises
    ------
    PixelFault
        The image does not decode. A feature that fails by itself is returned with its reason.
    """
    wanted = list(declared()) if names is None else list(names)
    measurement = Measurement(image, wanted)
    for frame in image.frames() if frames is None else frames:
        measurement.add(frame)
    return results(measurement, wanted)


def results(measurement: Measurement, names: Sequence[str]) -> list[Feature]:
    """Features of a finished measurement."""
    found = []
    for name in names:
        try:
            value = FEATURES[name](measurement)
        except PixelFault as fault:
            found.append(failed(name, fault.reason))
            continue
        entry = declared()[name]
        number, text = (None, value) if isinstance(value, str) else (float(value), None)
        found.append(Feature(name, entry["version"], entry.get("unit"), number, text))
    return found


def failed(name: str, reason: str) -> Feature:
    """The row of a feature that could not be had."""
    entry = declared()[name]
    return Feature(name, entry["version"], entry.get("unit"), status="failed", reason=reason)


class _Histogram:
    """Exact counts of distinct samples: a table for up to 16 bits and luma of 8-bit colour, sorted values else."""

    def __init__(self) -> None:
        self._table: np.ndarray | None = None
        self._low = 0
        self._scale = 1
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, frame: np.ndarray) -> None:
        if frame.ndim == 3:
            self._scale = 1000
            frame = frame.astype(np.int64) @ _LUMA_PER_MILLE
            low, size = 0, 255_001
        elif frame.dtype.kind in "iu" and frame.dtype.itemsize <= 2:
            low = int(np.iinfo(frame.dtype).min)
            size = 1 << (8 * frame.dtype.itemsize)
        else:
            low, size = 0, 0
        if size and int(frame.max()) - low < size:
            if self._table is None:
                self._table, self._low = np.zeros(size, np.int64), low
            self._table += np.bincount((frame.astype(np.int32) - low).ravel(), minlength=size)
        else:
            values, counts = np.unique(frame, return_counts=True)
            self._parts.append((values.astype(np.float64), counts))

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        parts = list(self._parts)
        if self._table is not None:
            found = np.flatnonzero(self._table)
            parts.append(((found + self._low).astype(np.float64), self._table[found]))
        return np.concatenate([v for v, _ in parts]) / self._scale, np.concatenate([c for _, c in parts])


def _functional_groups(dataset: Dataset, frame: int) -> Dataset | None:
    """The item with Rescale Slope and Intercept of an enhanced image's frame (PS3.3 C.7.6.16.2.9), if there is one."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in ([per_frame[frame]] if 0 <= frame < len(per_frame) else []) + list(shared[:1]):
        item = groups.get("PixelValueTransformationSequence")
        if item:
            found: Dataset = item[0]
            return found
    return None


def _per_frame_transformation(dataset: Dataset) -> bool:
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    return bool(groups) and "PixelValueTransformationSequence" in groups[0]


def _modality_values(values: np.ndarray, image: Image, frame: int) -> np.ndarray:
    """Modality values of stored values (PS3.3 C.11.1); colours and images without a transformation stay as they are."""
    dataset = image.dataset
    if image.samples > 1 or image.palette:
        return values
    try:
        if "ModalityLUTSequence" in dataset:
            return np.asarray(apply_modality_lut(values.astype(np.int64), dataset), np.float64)
        source = _functional_groups(dataset, frame) or dataset
        slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
        if slope is None and intercept is None:
            return values
        factor = 1.0 if slope is None else float(slope)
        if factor == 0:
            raise ValueError
        return values * factor + (0.0 if intercept is None else float(intercept))
    except (AttributeError, IndexError, KeyError, NotImplementedError, OverflowError, TypeError, ValueError):
        raise PixelFault("no_rescale") from None
