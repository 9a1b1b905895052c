"""How surely and how fast burned-in text is found, against plain per-frame PP-OCRv4 and Tesseract, on frames with planted text.

    python benchmarks/pixels_text.py [--frames 600] [--mix 100] [--series 100] [--only quality | frames | series | costs]

- text_recall_frame, text_false_alarm, text_line_coverage: as many planted as clean hard frames, 8-bit, from pydicom's images and drawn
  ones (pictures_spark/synthetic/frames.py): heights 8 to 40 px, contrast from 35 grey levels, a third turned by up to 6 degrees, 20 %
  through JPEG of quality 75; outline (DejaVu, pillow's), stroke and bitmap letters. In per cent, each with its Wilson 95 % bounds. The
  set is valid if plain PP-OCRv4 finds 96 to 99 % of the planted frames.
- text_recall_mix: as text_recall_frame, modalities as in the mix below.
- text_frames_per_core: the path for single frames over the mix CT 60, MR 25, CR/DX/MG 5, US 5, XA/NM/PT/SC 5 per cent; the
  frames of US and SC have text, as they have in practice.
- text_series_recall, text_series_frames, text_series_false_alarm: series of 24 to 48 frames, read as `pictures pixels` reads them; a third
  each with one line on all frames, on one to three, and another on every frame. In per cent.
- text_series_per_core: such series, clean, per second of one core.
- ``--only costs``: milliseconds of a frame by modality, for docs/burned-in-text.md.

Peers, in the same run and on the same arrays: PP-OCRv4 on each whole frame (detection at 736, the rules for shape of
schemas/pixels/text.yaml, a score of 0.5 and 3 characters), and, where it is installed, Tesseract through pytesseract (`--psm 11`, enlarged
to 1,000 pixels, words of 3 letters with confidence 60). Times are processor time, so that other load on the machine changes them little.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measure import ROUNDS, line

from pictures_spark.pixels import text
from pictures_spark.pixels.examine import Examined, Locator
from pictures_spark.pixels.groups import Instance, examine_group
from pictures_spark.pixels.pattern import Sketch, sketch
from pictures_spark.pixels.text import Box, find_text, read_places
from pictures_spark.pixels.window import to_8bit
from pictures_spark.synthetic import frames

SEEDS = {"planted": 20261, "clean": 20262, "mix": 20263, "mixed": 20264, "series": 20265, "costs": 20266}
MODALITIES = ("CT", "MR", "CR", "DX", "XA", "MG", "NM", "PT")
# Of a hundred frames.
MIX = {"CT": 60, "MR": 25, "CR": 2, "DX": 2, "MG": 1, "US": 5, "XA": 2, "NM": 1, "PT": 1, "SC": 1}
# Rows and columns of what is timed by modality.
TYPICAL = {"CT": (512, 512), "MR": (320, 320), "PT": (168, 168), "CR": (2500, 2000), "MG": (3328, 2560), "US": (768, 1024)}
SERIES_MODALITIES = ("CT", "MR", "CT", "MR", "PT", "NM", "XA")


def faces() -> list[str]:
    """Letters of the measured frames; DejaVu is not among those that the first stage was trained on."""
    import matplotlib

    folder = Path(matplotlib.__file__).parent / "mpl-data" / "fonts" / "ttf"
    outline = [str(folder / f"{name}.ttf") for name in ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")]
    return ["stroke", "bitmap", "", *outline]


def planted(number: int) -> frames.Frame:
    """A frame with text."""
    return frames.planted_frame(np.random.default_rng([SEEDS["planted"], number]), MODALITIES[number % len(MODALITIES)], faces())


def clean(number: int) -> frames.Frame:
    """A frame without."""
    return frames.clean_frame(np.random.default_rng([SEEDS["clean"], number]), MODALITIES[number % len(MODALITIES)])


def of_mix(number: int) -> str:
    """The modality of a frame of the mix: any hundred in a row have all of it, well shuffled."""
    order = [modality for modality, count in MIX.items() for _ in range(count)]
    return order[number * 37 % 100]


def mixed(number: int, with_text: bool) -> frames.Frame:
    """A frame of the mix."""
    rng = np.random.default_rng([SEEDS["mixed" if with_text else "mix"], number])
    return frames.planted_frame(rng, of_mix(number), faces()) if with_text else frames.clean_frame(rng, of_mix(number))


def ours(frame: frames.Frame) -> list[Box]:
    """As `pictures pixels` reads a single frame: screens throughout, others where the first stage points."""
    return find_text(frame.pixels, whole=frame.modality == "SC")


def plain(frame: frames.Frame) -> list[Box]:
    """PP-OCRv4 on the whole frame."""
    return read_whole(frame.pixels)


def read_whole(picture: np.ndarray) -> list[Box]:
    """PP-OCRv4 as rapidocr runs it, without its check for letters upside down, and the rules for shape and reading."""
    rule, models = text.rules(), text.engine()
    colour = np.repeat(picture[:, :, None], 3, axis=2)
    corners, _ = models.text_det(colour)
    if corners is None or not len(corners):
        return []
    corners = [box.astype(np.float32) for box in corners if text._has_shape_of_text(box, picture.shape[0], rule["box"])]
    if not corners:
        return []
    read, _ = models.text_rec(models.get_crop_img_list(colour, corners))
    found = []
    for box, (said, score) in zip(corners, read, strict=True):
        if score >= 0.5 and len(said.strip()) >= rule["reading"]["min_characters"]:
            grown = text._grown(box, *picture.shape, rule["box"])
            found.append(Box(*grown.sides, float(score), said))
    return found


def tesseract(frame: frames.Frame) -> list[Box]:
    """Tesseract on the whole frame."""
    import pytesseract

    factor = max(1.0, 1000 / min(frame.pixels.shape))
    picture = cv2.resize(frame.pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    told = pytesseract.image_to_data(picture, config="--oem 1 --psm 11", output_type=pytesseract.Output.DICT)
    found = []
    for number, word in enumerate(told["text"]):
        if float(told["conf"][number]) >= 60 and sum(letter.isalnum() for letter in word) >= 3:
            x, y, wide, tall = (int(told[side][number] / factor) for side in ("left", "top", "width", "height"))
            found.append(Box(max(0, x - 3), max(0, y - 3), x + wide + 4, y + tall + 4, told["conf"][number] / 100, word))
    return found


@cache
def readers() -> dict[str, Callable[[frames.Frame], list[Box]]]:
    """Ours and the peers that are there."""
    found: dict[str, Callable[[frames.Frame], list[Box]]] = {"ours": ours, "PP-OCRv4 per frame": plain}
    try:
        import pytesseract

        pytesseract.get_tesseract_version()
    except Exception:  # noqa: BLE001 - not installed, or the program is missing
        print("  .. no Tesseract: left out", file=sys.stderr, flush=True)
        return found
    return {**found, "Tesseract": tesseract}


def judged(kind: str, number: int) -> dict[str, tuple[bool, list[bool], float]]:
    """By reader: whether anything was found in a frame, whether each of its lines is covered to the last pixel, and processor seconds."""
    made: Callable[[], frames.Frame] = {
        "planted": partial(planted, number),
        "clean": partial(clean, number),
        "mixed": partial(mixed, number, True),
    }[kind]
    frame = made()
    found = {}
    for name, reader in readers().items():
        # It takes longer than all the others: a quarter of the frames, of all modalities, will do.
        if name == "Tesseract" and (kind == "mixed" or number // len(MODALITIES) % 4):
            continue
        start = _cpu()
        boxes = reader(frame)
        found[name] = bool(boxes), [not one.uncovered(boxes) for one in frame.lines], _cpu() - start
    return found


def _cpu() -> float:
    """Processor seconds of this process and of those it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def bounds(hits: int, of: int) -> list[float]:
    """Wilson's 95 % bounds of a rate, in per cent."""
    z = 1.96
    middle, half = (hits + z * z / 2) / (of + z * z), z * math.sqrt(hits * (of - hits) / of + z * z / 4) / (of + z * z)
    return [round(100 * max(0.0, middle - half), 2), round(100 * min(1.0, middle + half), 2)]


def rate(name: str, hits: dict[str, Iterable[bool]]) -> None:
    """Lines of one measure, ours against each peer."""
    told = {who: list(ones) for who, ones in hits.items()}
    mine = told.pop("ours")
    for who, theirs in told.items():
        found = json.loads(line(name, 100 * sum(mine) / len(mine), 100 * sum(theirs) / len(theirs) or 1e-9, who, "%", len(mine)))
        exact: dict[str, Any] = {"ours": round(100 * sum(mine) / len(mine), 2), "peer": round(100 * sum(theirs) / len(theirs), 2)}
        exact["peer_n"] = len(theirs)
        print(
            json.dumps({**found, **exact, "ours_95": bounds(sum(mine), len(mine)), "peer_95": bounds(sum(theirs), len(theirs))}), flush=True
        )


def quality(count: int, mix: int) -> None:
    """Recall, false alarms and coverage."""
    work = sorted(((kind, n) for kind, of in (("planted", count), ("clean", count), ("mixed", mix)) for n in range(of)), key=lambda w: w[1])
    by_kind: dict[str, list[dict[str, tuple[bool, list[bool], float]]]] = {}
    with get_context("spawn").Pool(os.cpu_count(), initializer=_one_thread) as pool:
        for number, (kind, found) in enumerate(pool.imap_unordered(_judged, work, chunksize=3), 1):
            by_kind.setdefault(kind, []).append(found)
            if number % 100 == 0:
                _progress(number, len(work), by_kind)
    who = list(readers())
    rate("text_recall_frame", {name: [found[name][0] for found in by_kind["planted"] if name in found] for name in who})
    rate("text_false_alarm", {name: [found[name][0] for found in by_kind["clean"] if name in found] for name in who})
    rate("text_line_coverage", {name: [one for found in by_kind["planted"] if name in found for one in found[name][1]] for name in who})
    if mix:
        rate("text_recall_mix", {name: [found[name][0] for found in by_kind["mixed"]] for name in who if name != "Tesseract"})
    share = 100 * statistics.mean(found["PP-OCRv4 per frame"][0] for found in by_kind["planted"])
    print(f"  .. the set is {'valid' if 96 <= share <= 99 else 'NOT VALID'}: plain PP-OCRv4 finds {share:.2f} %", file=sys.stderr)


def _judged(work: tuple[str, int]) -> tuple[str, dict[str, tuple[bool, list[bool], float]]]:
    return work[0], judged(*work)


def _progress(done: int, of: int, by_kind: dict[str, list[dict[str, tuple[bool, list[bool], float]]]]) -> None:
    """One line: how often anything was found so far, by kind of frame and reader."""
    told = []
    for kind, all_found in sorted(by_kind.items()):
        for name in sorted({name for found in all_found for name in found}):
            hits = [found[name][0] for found in all_found if name in found]
            told.append(f"{kind} {name} {sum(hits)}/{len(hits)}")
    print(f"  .. {done} of {of}: " + ", ".join(told), file=sys.stderr, flush=True)


def _one_thread() -> None:
    os.environ["OMP_THREAD_LIMIT"] = "1"
    text.engine()


def speed_of_frames(count: int) -> None:
    """Frames of the mix per second of one core."""
    made = [mixed(number, of_mix(number) in ("US", "SC")) for number in range(count)]
    for name, reader in readers().items():
        if name == "ours":
            mine = count / _median(reader, made)
            continue
        few = made if name != "Tesseract" else made[:: max(1, count // 25)]
        theirs = len(few) / _median(reader, few, ROUNDS if name != "Tesseract" else 1)
        print(line("text_frames_per_core", mine, theirs, name, "frames/s/core", count), flush=True)


def _median(reader: Callable[[frames.Frame], object], made: list[frames.Frame], rounds: int = ROUNDS) -> float:
    for frame in made[:5]:
        reader(frame)
    taken = []
    for _ in range(rounds):
        # What was read a round ago must be read again.
        text.forget()
        start = _cpu()
        for frame in made:
            reader(frame)
        taken.append(_cpu() - start)
    return statistics.median(taken)


class InMemory:
    """`pictures_spark.pixels.examine.Looks` over frames in memory."""

    def __init__(self, given: list[np.ndarray]) -> None:
        self._frames = given

    def examine(self, locator: Locator, names: Any, wanted: str) -> Examined:
        """See `Looks`."""
        low, high, places = None, None, []
        for frame in self._frames:
            one = sketch(to_8bit(frame))
            low, high = (one.low, one.high) if low is None else (np.minimum(low, one.low), np.maximum(high, one.high))
            places += one.places
        assert low is not None
        assert high is not None
        return Examined(len(self._frames), [], Sketch(low, high, tuple(places)))

    def read_frames(self, locator: Locator, places: Any) -> dict[int, list[Box]]:
        """See `Looks`."""
        return {number: read_places(to_8bit(self._frames[number]), of_frame) for number, of_frame in places.items()}

    def read_picture(self, picture: np.ndarray) -> list[Box]:
        """See `Looks`."""
        return find_text(picture, whole=True, unread=False)


def a_series(number: int, kind: str) -> frames.Series:
    """A series; ``number`` and ``kind`` make it."""
    rng = np.random.default_rng([SEEDS["series"], number, frames.SERIES_KINDS.index(kind)])
    modality = SERIES_MODALITIES[number % len(SERIES_MODALITIES)]
    return frames.planted_series(rng, modality, int(rng.integers(24, 49)), kind, faces())


def judged_series(number: int, kind: str) -> tuple[bool, list[bool], list[bool], float, bool, float]:
    """Whether ours found text in a series, in each frame with text, whether it covered that; seconds; and PP-OCRv4 on its projections."""
    made = a_series(number, kind)
    text.forget()
    start = _cpu()
    (result,) = examine_group([Instance(Locator("", None, None, None, ""), True, ())], InMemory(made.frames), True)
    seconds = _cpu() - start
    hit, whole = [], []
    for at, one in enumerate(made.lines):
        if one is not None:
            boxes = [found.box for found in result.texts if found.frame_from <= at <= found.frame_to]
            hit.append(bool(boxes))
            whole.append(one.uncovered(boxes) == 0)
    start = _cpu()
    projected = [box for extreme in (np.min, np.max) for box in read_whole(extreme(made.frames, axis=0))]
    return bool(result.texts), hit, whole, seconds, bool(projected), _cpu() - start


def series(count: int) -> None:
    """Recall, false alarms and speed for series."""
    work = [(number, frames.SERIES_KINDS[1 + number % 3]) for number in range(count)] + [(number, "clean") for number in range(count // 2)]
    with get_context("spawn").Pool(os.cpu_count(), initializer=_one_thread) as pool:
        done = pool.starmap(judged_series, work, chunksize=2)
    with_text = [(kind, found) for (_, kind), found in zip(work, done, strict=True) if kind != "clean" and found[1]]
    without = [found for (_, kind), found in zip(work, done, strict=True) if kind == "clean"]
    peer = "PP-OCRv4 on the projections alone"
    rate("text_series_recall", {"ours": (found[0] for _, found in with_text), peer: (found[4] for _, found in with_text)})
    for kind in frames.SERIES_KINDS[1:]:
        mine = [found[0] for which, found in with_text if which == kind]
        print(f"  .. {kind}: {sum(mine)} of {len(mine)} series", file=sys.stderr)
    rate(
        "text_series_frames",
        {"ours": (one for _, found in with_text for one in found[1]), peer: (found[4] for _, found in with_text for _ in found[1])},
    )
    covered = [one for _, found in with_text for one in found[2]]
    print(f"  .. lines covered to the last pixel on {100 * statistics.mean(covered):.2f} % of the frames with text", file=sys.stderr)
    rate("text_series_false_alarm", {"ours": (found[0] for found in without), peer: (found[4] for found in without)})
    speeds = [1 / statistics.mean(found[place] for found in without) for place in (3, 5)]
    print(line("text_series_per_core", *speeds, peer, "series/s/core", len(without)), flush=True)


def costs() -> None:
    """Milliseconds and core hours of a million frames, by modality; clean ones, but those of ultrasound."""
    for modality, shape in TYPICAL.items():
        frames.SIZES = {**frames.SIZES, modality: (shape,)}
        taken = []
        for number in range(12):
            rng = np.random.default_rng([SEEDS["costs"], number])
            frame = frames.planted_frame(rng, modality, faces()) if modality == "US" else frames.clean_frame(rng, modality)
            text.forget()
            start = time.process_time()
            ours(frame)
            taken.append(time.process_time() - start)
        seconds = statistics.mean(taken[2:])
        print(f"| {modality} | {shape[0]} x {shape[1]} | {1000 * seconds:.1f} | {seconds * 1e6 / 3600:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--mix", type=int, default=100)
    parser.add_argument("--series", type=int, default=102)
    parser.add_argument("--only", choices=("quality", "frames", "series", "costs"))
    wanted = parser.parse_args()
    print(f"  .. seeds {SEEDS}", file=sys.stderr, flush=True)
    start = time.monotonic()
    _one_thread()
    if wanted.only in (None, "quality"):
        quality(wanted.frames, 2 * wanted.mix)
    if wanted.only in (None, "frames"):
        speed_of_frames(wanted.mix)
    if wanted.only in (None, "series"):
        series(wanted.series)
    if wanted.only == "costs":
        costs()
    print(f"  .. {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
