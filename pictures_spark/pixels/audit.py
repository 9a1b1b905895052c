"""`pictures pixels --audit N` and `--audited`: how much text may have been missed, by people who look.

The first draws N images of every modality and maker whose verdict is clean, and writes contact sheets and a list into the identifiable
zone. People write into the list what they saw; the second reads it and tells for each stratum how many of a hundred may have been missed.
Spark draws; pixels are decoded in the supervised child; the driver writes. What is written never leaves the zone.
"""

import csv
import os
from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pictures_spark.errors import InputError
from pictures_spark.job import Job
from pictures_spark.pixels import plan
from pictures_spark.pixels.examine import SKETCH, Locator
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.groups import CLEAN
from pictures_spark.pixels.supervise import Limits, Supervised

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ZONE, FOLDER, FILE = "identifiable", "audit", "audit.csv"
COLUMNS = ("sheet", "tile", "object_id", "modality", "manufacturer", "text_seen")
# Sides of a tile in pixels, and tiles of a sheet across and down.
_TILE, _ACROSS, _DOWN = 320, 5, 4


def draw(job: Job, size: int) -> None:
    """Write ``audit/audit.csv`` and ``audit/sheet-<n>.png``: ``size`` clean images of every modality and maker, in a meaningless order.

    Of an image with several frames a tile shows the darkest and the brightest value of every pixel.

    Raises
    ------
    InputError
        No image has the verdict clean.
    """
    wanted = drawn(job.read(ZONE, "pixel_text"), job.read(ZONE, "header_instance"), size)
    rows = plan.located(wanted, job.read(ZONE, "object")).where("path IS NOT NULL").orderBy("place").collect()
    if not rows:
        raise InputError("pixels: no image has the verdict clean; run `pictures pixels` first")
    folder = job.zones.path(ZONE, FOLDER, mode="write")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    limits = Limits(job.config["pixels"]["timeout_seconds"], job.config["pixels"]["memory_bytes"], job.config["pixels"]["max_pixels"])
    listed: list[tuple[object, ...]] = []
    tiles: list[np.ndarray] = []
    failed = 0
    with Supervised(job.zones.archive(), limits) as looks:
        for row in rows:
            at = Locator(*(row[name] for name in ("path", "offset", "length", "compression", "content_sha256")))
            try:
                seen = looks.examine(at, [], SKETCH).sketch
            except PixelFault:
                failed += 1
                continue
            assert seen is not None
            number = len(tiles)
            tiles.append(tile(seen.low, seen.high, number % (_ACROSS * _DOWN) + 1))
            place = number // (_ACROSS * _DOWN) + 1, number % (_ACROSS * _DOWN) + 1
            listed.append((*place, row.object_id, row.modality, row.manufacturer, ""))
    for start in range(0, len(tiles), _ACROSS * _DOWN):
        _write(folder / f"sheet-{start // (_ACROSS * _DOWN) + 1}.png", _png(sheet(tiles[start : start + _ACROSS * _DOWN])))
    with os.fdopen(os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(listed)
    job.report.counts = {"seen": len(rows), "written": len(listed), "quarantined": failed}


def drawn(texts: "DataFrame", headers: "DataFrame", size: int) -> "DataFrame":
    """Header rows of at most ``size`` clean images per modality and maker, with ``place``, a hash that orders them."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    clean = texts.where(F.col("verdict") == CLEAN).select(*plan.INSTANCE).distinct()
    placed = headers.join(clean, plan.INSTANCE, "left_semi").withColumn("place", F.sha2(F.concat_ws("|", *plan.INSTANCE), 256))
    stratum = Window.partitionBy(F.coalesce("modality", F.lit("")), F.coalesce("manufacturer", F.lit(""))).orderBy("place")
    return placed.withColumn("nth", F.row_number().over(stratum)).where(F.col("nth") <= size).drop("nth")


def read(job: Job) -> None:
    """Print, for every modality and maker of the list that people filled in, how many images had text and the upper bound of that rate.

    Raises
    ------
    InputError
        There is no list, or some images have neither yes nor no in ``text_seen``.
    """
    path = job.zones.path(ZONE, FOLDER, FILE)
    if not path.is_file():
        raise InputError("pixels: no list of audited images; run `pictures pixels --audit N` first")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    open_ones = sum(row["text_seen"].strip().lower() not in ("yes", "no") for row in rows)
    if open_ones:
        raise InputError(f"pixels: {open_ones} images of {FOLDER}/{FILE} have neither yes nor no in text_seen; look at their sheets")
    for modality, maker, missed, count in strata(rows):
        job.say(f"{modality or '-'}, {maker or '-'}: text on {missed} of {count}, at most {100 * upper_bound(missed, count):.1f} % (95 %)")
    missed = sum(row["text_seen"].strip().lower() == "yes" for row in rows)
    job.say(f"all: text on {missed} of {len(rows)}, at most {100 * upper_bound(missed, len(rows)):.1f} % (95 %)")
    job.report.counts = {"seen": len(rows), "written": len(rows), "quarantined": 0}
    job.report.details["text_seen"] = missed


def strata(rows: Sequence[dict[str, str]]) -> list[tuple[str, str, int, int]]:
    """Modality, maker, images with text and images, of a filled list."""
    found: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        found.setdefault((row["modality"], row["manufacturer"]), []).append(row["text_seen"].strip().lower() == "yes")
    return [(*stratum, sum(seen), len(seen)) for stratum, seen in sorted(found.items())]


def upper_bound(hits: int, of: int) -> float:
    """One-sided 95 % upper bound of a rate (Clopper and Pearson 1934); for no hits about 3 / n.

    >>> round(upper_bound(0, 300), 4), upper_bound(5, 5)
    (0.0099, 1.0)
    """
    if hits >= of:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        at_most = sum(comb(of, n) * rate**n * (1 - rate) ** (of - n) for n in range(hits + 1))
        low, high = (rate, high) if at_most > 0.05 else (low, rate)
    return high


def tile(low: np.ndarray, high: np.ndarray, number: int) -> np.ndarray:
    """One image of a sheet with its number below, grey; two halves where there are two pictures."""
    parts = [low] if np.array_equal(low, high) else [low, high]
    made = np.zeros((_TILE + 20, _TILE), np.uint8)
    wide = _TILE // len(parts)
    for place, part in enumerate(parts):
        grey = part.max(axis=2) if part.ndim == 3 else part
        factor = min(wide / grey.shape[1], _TILE / grey.shape[0])
        sides = max(1, int(grey.shape[1] * factor)), max(1, int(grey.shape[0] * factor))
        shown = cv2.resize(grey, sides, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
        made[: shown.shape[0], place * wide : place * wide + shown.shape[1]] = shown
    cv2.putText(made, str(number), (4, _TILE + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    return made


def sheet(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Tiles in rows."""
    blank = np.zeros_like(tiles[0])
    filled = [*tiles, *[blank] * (-len(tiles) % _ACROSS)]
    return np.vstack([np.hstack(filled[start : start + _ACROSS]) for start in range(0, len(filled), _ACROSS)])


def _png(picture: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", picture)[1])


def _write(path: os.PathLike[str], data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
