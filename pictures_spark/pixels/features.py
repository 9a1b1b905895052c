"""Frames -> numbers (schemas/features.yaml). Pure; runs in the supervised child.

Every feature of an image comes from one pass over its frames, each decoded once and counted once. To add one: an entry in
schemas/features.yaml, the function that it names in `pictures_spark.pixels.measures`, a row in the table test.

A feature is named ``name@version``. Versions are append-only: a definition that changes gets a new entry, and the old one stays.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from pictures_spark.cohort.faults import nearest
from pictures_spark.errors import ConfigError
from pictures_spark.pixels.decode import Image
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.frame import Frame, counted
from pictures_spark.pixels.measures.body import lung
from pictures_spark.pixels.measures.identity import Digest
from pictures_spark.pixels.measures.intensity import Distribution
from pictures_spark.resources import load_schema

# Where a feature comes from that is not computed from samples but by publish, from table pixel_text.
TEXT = "text"
# Distinct values kept apart before they are merged: bounds the memory of an image of many frames.
_PARTS = 1 << 21


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


@cache
def declared() -> dict[str, dict[str, Any]]:
    """Every declared feature by ``name@version``."""
    return {f"{entry['name']}@{entry['version']}": entry for entry in load_schema("features.yaml")["features"]}


@cache
def computed() -> dict[str, dict[str, Any]]:
    """The declared features that are computed from samples, by ``name@version``."""
    return {name: entry for name, entry in declared().items() if entry["from"] != TEXT}


def applicable(modality: str | None, names: Iterable[str] | None = None) -> list[str]:
    """Those of some features (all computed ones where None) that apply to images of a modality."""
    known = computed()
    return [name for name in (known if names is None else names) if applies(known[name], modality)]


def applies(entry: dict[str, Any], modality: str | None) -> bool:
    """Whether a feature is asked of images of a modality."""
    return "applies" not in entry or modality in entry["applies"]


def named(wanted: Sequence[str]) -> list[str]:
    """What a user calls features (``name`` for its newest version, or ``name@version``) as names of `computed`.

    Raises
    ------
    ConfigError
        One is not declared, or is not computed from samples; all that are wrong are named.
    """
    known = computed()
    newest = {entry["name"]: name for name, entry in known.items()}
    wrong = [name for name in wanted if name not in known and name not in newest]
    if wrong:
        told = "; ".join(f"{name!r}{nearest(name, [*known, *newest])}" for name in wrong)
        raise ConfigError(f"no such feature is computed from pixels: {told}; schemas/features.yaml has them all")
    return list(dict.fromkeys(newest.get(name, name) for name in wanted))


class _Source(Protocol):
    """What one kind of features comes from: takes in each frame in order, then gives what their functions take."""

    def add(self, frame: Frame) -> None:
        """Take in the next frame."""

    def result(self) -> Any:
        """What was gathered; raises PixelFault where there is nothing to tell."""


class _Pixels:
    """All samples."""

    def __init__(self, image: Image) -> None:
        self._digest = Digest(image.frame_count)

    def add(self, frame: Frame) -> None:
        self._digest.add(frame.samples)

    def result(self) -> Digest:
        return self._digest


class _Middle:
    """The frame in the middle, the later one of two."""

    def __init__(self, image: Image) -> None:
        self._at = image.frame_count // 2
        self._frame: Frame | None = None

    def add(self, frame: Frame) -> None:
        if frame.index == self._at:
            self._frame = frame

    def result(self) -> Frame:
        assert self._frame is not None
        return self._frame


class _Pool:
    """The distribution of modality values of certain pixels of all frames.

    Parameters
    ----------
    pick : distinct values of a frame and how often each occurs. Where it finds nothing to count in a frame it raises; that becomes the
        answer only where there is nothing in any frame.
    """

    def __init__(self, pick: Callable[[Frame], tuple[np.ndarray, np.ndarray]]) -> None:
        self._pick = pick
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._fault: PixelFault | None = None

    def add(self, frame: Frame) -> None:
        try:
            self._parts.append(self._pick(frame))
        except PixelFault as fault:
            self._fault = self._fault or fault
            return
        if sum(len(values) for values, _ in self._parts) > _PARTS:
            self._parts = [self._merged()]

    def result(self) -> Distribution:
        if not self._parts or (self._fault is not None and self._fault.reason in _FATAL):
            raise self._fault or PixelFault("only_padding")
        values, counts = self._merged()
        if not len(values):
            raise PixelFault("only_padding")
        return Distribution(values, counts)

    def _merged(self) -> tuple[np.ndarray, np.ndarray]:
        if len(self._parts) == 1 and (np.diff(self._parts[0][0]) > 0).all():
            return self._parts[0]
        # A falling slope turns the order round, and different stored values may mean the same.
        values, where = np.unique(np.concatenate([v for v, _ in self._parts]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, where, np.concatenate([c for _, c in self._parts]))
        return values, counts


# One frame of which this is true spoils the image's distribution: it is not known what the others would be compared with.
_FATAL = ("not_finite", "no_rescale", "not_hu")


class _Frames:
    """Each frame by itself."""

    def __init__(self, function: Callable[[Frame], float], rule: str) -> None:
        self._function = function
        self._rule = rule
        self._values: list[float] = []
        self._fault: PixelFault | None = None

    def add(self, frame: Frame) -> None:
        try:
            self._values.append(self._function(frame))
        except PixelFault as fault:
            self._fault = self._fault or fault

    def result(self) -> float:
        if not self._values:
            raise self._fault or PixelFault("only_padding")
        # All rules agree on one value, and most images have one frame.
        return self._values[0] if len(self._values) == 1 else roll_up(self._rule, self._values)


def roll_up(rule: str, values: Sequence[float]) -> float:
    """Values of the frames of an image, or of the images of a series, as one value.

    Parameters
    ----------
    rule : ``mean``, ``median``, ``min``, ``max`` or ``sum``; publish has the same rules for series.
    """
    return float(_ROLL_UPS[rule](np.asarray(values, np.float64)))


_ROLL_UPS: dict[str, Callable[[np.ndarray], float]] = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max, "sum": np.sum}


def _of_values(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    return frame.levels, frame.counts[1]


def _without_padding(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    if not frame.kept.any():
        raise PixelFault("only_padding")
    return frame.levels[frame.kept], frame.counts[1][frame.kept]


def _within(frame: Frame, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units of the pixels of a mask."""
    values, counts = counted(frame.grey[mask])
    return frame.levels[np.searchsorted(frame.counts[0], values)], counts


def _body(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    return _within(frame, frame.body > 0)


def _lung(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    return _within(frame, lung(frame))


_SOURCES: dict[str, Callable[[Image], _Source]] = {
    "pixels": _Pixels,
    "middle": _Middle,
    "values and padding": lambda image: _Pool(_of_values),
    "values": lambda image: _Pool(_without_padding),
    "body": lambda image: _Pool(_body),
    "lung": lambda image: _Pool(_lung),
}
FRAME = "frame"


@cache
def _function(name: str) -> Callable[[Any], float | str]:
    """The function that an entry names, ``module.function`` below `pictures_spark.pixels.measures`."""
    module, _, function = name.rpartition(".")
    found: Callable[[Any], float | str] = getattr(import_module(f"pictures_spark.pixels.measures.{module}"), function)
    return found


def load() -> None:
    """Import what features are computed by: now, because later it would count towards an image's limits."""
    for entry in computed().values():
        _function(entry["function"])


class Measurement:
    """What one pass over an image's frames gathers; `add` each frame in order, then ask for features.

    Parameters
    ----------
    image : the image the frames are of.
    names : features wanted, ``name@version``; only what they need is gathered.
    """

    def __init__(self, image: Image, names: Sequence[str]) -> None:
        self._image = image
        self._count = 0
        self._sources: dict[str, _Source] = {}
        self._gathered: dict[str, Any] = {}
        known = declared()
        for name in names:
            entry = known[name]
            if entry["from"] == FRAME:
                self._sources[name] = _Frames(_function(entry["function"]), entry["rollup"])  # type: ignore[arg-type]
            else:
                self._sources.setdefault(entry["from"], _SOURCES[entry["from"]](image))

    def add(self, frame: np.ndarray) -> None:
        """Take in the next frame, as decoded (palette as indices).

        Raises
        ------
        PixelFault
            ``undecodable``: it has no colours though it says so; that is the image's fault and not a feature's.
        """
        one = Frame(self._image, self._count, frame)
        if self._image.palette:
            _ = one.shown
        for source in self._sources.values():
            source.add(one)
        self._count += 1

    def value(self, name: str) -> float | str:
        """A feature of all frames taken in; no more frames may come after.

        Raises
        ------
        PixelFault
            Why there is none.
        """
        entry = declared()[name]
        source = name if entry["from"] == FRAME else entry["from"]
        if source not in self._gathered:
            self._gathered[source] = self._sources[source].result()
        gathered = self._gathered[source]
        found: float | str = gathered if entry["from"] == FRAME else _function(entry["function"])(gathered)
        if isinstance(found, float) and not math.isfinite(found):
            raise PixelFault("not_finite")
        return found


def features(image: Image, frames: Iterable[np.ndarray] | None = None, names: Sequence[str] | None = None) -> list[Feature]:
    """All wanted features of an image, from one pass over its frames; those that apply to its modality where ``names`` is None.

    Raises
    ------
    PixelFault
        The image does not decode. A feature that fails by itself is returned with its reason.
    """
    modality = image.dataset.get("Modality")
    wanted = applicable(None if modality is None else str(modality)) if names is None else list(names)
    measurement = Measurement(image, wanted)
    for frame in image.frames() if frames is None else frames:
        measurement.add(frame)
    return results(measurement, wanted)


def results(measurement: Measurement, names: Sequence[str]) -> list[Feature]:
    """Features of a finished measurement."""
    found = []
    for name in names:
        try:
            value = measurement.value(name)
        except PixelFault as fault:
            found.append(failed(name, fault.reason))
            continue
        entry = declared()[name]
        number, text = (None, value) if isinstance(value, str) else (float(value), None)
        found.append(Feature(entry["name"], entry["version"], entry.get("unit"), number, text))
    return found


def failed(name: str, reason: str) -> Feature:
    """The row of a feature that could not be had."""
    entry = declared()[name]
    return Feature(entry["name"], entry["version"], entry.get("unit"), status="failed", reason=reason)
