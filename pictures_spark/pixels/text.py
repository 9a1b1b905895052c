"""Where text is in an 8-bit frame: PP-OCRv4 through rapidocr-onnxruntime, one thread, with the rules of schemas/pixels/text.yaml.

A frame is read where `pictures_spark.pixels.heat` points, each place at the size at which the reader is best: both faster and surer than
reading whole frames, in which small letters stay small.

Pure but for the models, which are loaded once per process; runs in the supervised child.
"""

import ctypes
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pictures_spark.pixels.heat import Look, Suspect, clear, overlap, second_look, suspects
from pictures_spark.pixels.words import is_marker
from pictures_spark.resources import load_schema

if TYPE_CHECKING:
    from rapidocr_onnxruntime.main import RapidOCR


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# What was read lately, by the hash of its pixels.
_lately: "dict[tuple[Any, ...], tuple[Box, ...]]" = {}
_REMEMBERED = 2000


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle with text, in pixels of the frame; right and bottom edges exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int
    score: float = 0.0
    text: str = ""

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge."""
        return self.x0, self.y0, self.x1, self.y1

    def moved(self, x: int, y: int) -> "Box":
        """So many columns and rows further."""
        return replace(self, x0=self.x0 + x, y0=self.y0 + y, x1=self.x1 + x, y1=self.y1 + y)

    def touches(self, other: "Box | Suspect") -> bool:
        """Whether they have a pixel in common."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def covers(self, other: "Box") -> bool:
        """Whether another box lies inside this one."""
        return self.x0 <= other.x0 and self.y0 <= other.y0 and self.x1 >= other.x1 and self.y1 >= other.y1


def rules() -> dict[str, Any]:
    """The thresholds of the detector."""
    loaded: dict[str, Any] = load_schema("pixels/text.yaml")
    return loaded


def engine_version() -> str:
    """Names the detector, its version and that of its thresholds; another value means that images are examined again."""
    return f"rapidocr-onnxruntime {version('rapidocr-onnxruntime')} + text rules {rules()['version']}"


@cache
def engine() -> "RapidOCR":
    """The models, loaded on first use (0.4 s)."""
    import cv2
    from rapidocr_onnxruntime.main import RapidOCR

    # One core per child: parallelism is Spark's.
    cv2.setNumThreads(1)
    _keep_freed_memory()
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)


def _keep_freed_memory() -> None:
    """Tell glibc to keep large blocks that are freed: giving them back to the kernel for every layer costs a third of the time."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    # The first is the highest that glibc takes.
    mallopt(_M_MMAP_THRESHOLD, 1 << 25)
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def find_text(frame8: np.ndarray, whole: bool = False, unread: bool = True) -> list[Box]:
    """Boxes of text in an 8-bit frame, sorted; blanking a box removes its text.

    Parameters
    ----------
    frame8 : (rows, columns) grey or (rows, columns, 3) RGB, uint8; see `pictures_spark.pixels.window.to_8bit`.
    whole : read the whole frame too, as if the first stage had seen nothing: some 20 times as slow, and independent of it.
    unread : whether what is surely text counts where it cannot be read. Over many frames, things that move leave traces like text.
    """
    return _judged(frame8, suspects(frame8), _read(frame8) if whole else [], rules()["heat"]["unread_short"] if unread else None)


def read_places(frame8: np.ndarray, places: Sequence[Suspect]) -> list[Box]:
    """Boxes of text at certain places of a frame of many; where one is read, what looks much like text elsewhere counts as text too.

    What cannot be read has to be surer than in a frame by itself: of a place on many frames one is sooner like text by chance.

    Parameters
    ----------
    places : from `pictures_spark.pixels.heat.suspects`.
    """
    return _judged(frame8, places, [], rules()["heat"]["unread_track"])


def _judged(frame8: np.ndarray, places: Sequence[Suspect], found: list[Box], unread: float | None) -> list[Box]:
    """Boxes, sorted; none where all that was seen are markers, such as of a side, and single letters.

    Parameters
    ----------
    found : what is known already; places that it covers are not read once more.
    unread : how sure the second look has to be of what cannot be read; None where that never counts.
    """
    rule = rules()["places"]
    left = [place for place in places if _share_in(place, found) < rule["known"]] if found else places
    found = found + [box for region in _regions(left, frame8.shape[:2], rule) for box in _read_region(frame8, region, rule, unread)]
    if not any(map(_says_something, found)):
        return []
    heights, highest = [box.y1 - box.y0 for box in found], _highest(frame8.shape[0], rules()["box"])
    for place in places:
        longer = _longer(place, frame8.shape, rule)
        if not _widened(found, heights, longer, rule, highest) and _is_text_unread(frame8, place, rule):
            found.append(Box(*longer.sides, place.heat))
            heights.append(longer.height)
    return sorted(set(found))


def _is_text_unread(frame8: np.ndarray, place: Suspect, rule: dict[str, Any]) -> bool:
    """Whether a place beside text is text, too, though nothing was read in it: as sure as one alone, and no higher than a line can be."""
    if place.heat < rule["sure_heat"] or min(place.width, place.height) > _highest(frame8.shape[0], rules()["box"]):
        return False
    (region,) = _regions([place], frame8.shape[:2], rule)
    part = clear(frame8[region.y0 : region.y1, region.x0 : region.x1])
    heat = rules()["heat"]
    return any(_surely_text(second_look(part, line), heat, heat["unread_short"]) for line in {place.line, place.core})


def _share_in(place: Suspect, boxes: Sequence[Box]) -> float:
    """Share of a place that lies in boxes."""
    free = np.ones((place.height, place.width), bool)
    for box in boxes:
        if box.touches(place):
            free[max(0, box.y0 - place.y0) : box.y1 - place.y0, max(0, box.x0 - place.x0) : box.x1 - place.x0] = False
    return 1 - float(free.mean())


def _says_something(box: Box) -> bool:
    """Whether a box is more than a marker or a letter or two: what cannot be read but is surely text is."""
    if not box.text:
        return box.score >= rules()["heat"]["unread_short"]
    return len(box.text.strip()) >= rules()["reading"]["min_characters"] and not is_marker(box.text)


def _longer(place: Suspect, shape: tuple[int, ...], rule: dict[str, Any]) -> Suspect:
    """A place with something added at both ends of its line, inside the frame."""
    more = max(rule["reach"], place.core // 2)
    if place.width >= place.height:
        return replace(place, x0=max(0, place.x0 - more), x1=min(shape[1], place.x1 + more))
    return replace(place, y0=max(0, place.y0 - more), y1=min(shape[0], place.y1 + more))


def _widened(found: list[Box], heights: Sequence[int], place: Suspect, rule: dict[str, Any], highest: float) -> bool:
    """Whether a box is about where a place is; it then has the place in it. ``heights`` are those of the boxes before any was widened.

    A place that is much higher than the line, or than any, has run together with something else: with anatomy, which would be blanked, or
    with other lines, which are places of their own.
    """
    for number, box in enumerate(found):
        if (
            min(place.width, place.height) <= min(rule["cover_line"] * heights[number], max(highest, heights[number]))
            and overlap(place, box) >= rule["same"]
        ):
            sides = min(place.x0, box.x0), min(place.y0, box.y0), max(place.x1, box.x1), max(place.y1, box.y1)
            found[number] = replace(box, x0=sides[0], y0=sides[1], x1=sides[2], y1=sides[3])
            return True
    return False


@dataclass(frozen=True)
class _Region:
    """A part of a frame to be read on its own.

    ``heat``, ``line`` and ``core`` are those of the place (`Suspect`), and ``upright`` False where lines may run up or down.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    heat: float
    line: int
    core: int
    upright: bool


def _regions(places: Sequence[Suspect], shape: tuple[int, ...], rule: dict[str, Any]) -> list[_Region]:
    """Places with a margin, hottest first; one that overlaps a hotter one, as the same text seen at another scale, is joined to it."""
    joined: list[Suspect] = []
    for place in sorted(places, key=lambda p: (-p.heat, p)):
        for number, other in enumerate(joined):
            lines = sorted((place.line, other.line))
            if lines[1] <= rule["same_line"] * lines[0] and overlap(place, other) >= rule["same"]:
                sides = min(place.x0, other.x0), min(place.y0, other.y0), max(place.x1, other.x1), max(place.y1, other.y1)
                joined[number] = replace(other, x0=sides[0], y0=sides[1], x1=sides[2], y1=sides[3])
                break
        else:
            joined.append(place)
    made = []
    for place in joined:
        margin = _margin(place.line, rule)
        sides = max(0, place.x0 - margin), max(0, place.y0 - margin), min(shape[1], place.x1 + margin), min(shape[0], place.y1 + margin)
        upright = place.height <= rule["upright_aspect"] * max(place.width, place.line)
        made.append(_Region(*sides, place.heat, place.line, place.core, upright))
    return made


def _margin(line: int, rule: dict[str, Any]) -> int:
    """Pixels that a region has around its place."""
    return max(int(rule["margin"]), int(rule["margin_share"] * line))


def _read_region(frame8: np.ndarray, region: _Region, rule: dict[str, Any], unread: float | None) -> list[Box]:
    """Boxes of text in a region; one without words where it surely is text that cannot be read, and that counts."""
    part = clear(frame8[region.y0 : region.y1, region.x0 : region.x1])
    lines = [region.line, region.core] if region.line >= 1.5 * region.core else [region.line]
    look = max(second_look(part, line) for line in lines)
    heat = rules()["heat"]
    if look.chance < heat["second"] and region.heat >= heat["small_heat"] and region.core > heat["small_line"]:
        # A small line beside something larger: it was seen in its own size only.
        region = replace(region, line=heat["small_line"], core=heat["small_line"])
        look = second_look(part, region.line)
    if look.chance < heat["second"]:
        return []
    found = _read_part(part, region, look.chance, frame8.shape[0], rule)
    if found and look.chance + max(box.score for box in found) < rules()["reading"]["together"]:
        found = []
    if unread is not None and not found and _surely_text(look, heat, unread):
        inner = _margin(region.line, rule) // 2
        found = [Box(inner, inner, part.shape[1] - inner, part.shape[0] - inner, look.chance)]
    return [box.moved(region.x0, region.y0) for box in found]


def _surely_text(look: Look, heat: dict[str, Any], short: float) -> bool:
    """Whether a place counts as text though it cannot be read; long ones have to be surer, for rulers are long."""
    least, most = heat["unread_length"]
    return look.length >= least and look.chance >= (heat["unread"] if look.length > most else short)


def _read_part(part: np.ndarray, region: _Region, certainty: float, frame_rows: int, rule: dict[str, Any]) -> list[Box]:
    """Boxes in a region's own pixels, read at the size at which the detector is best, and in doubt at another."""
    # A large part costs no more than a whole frame, and half of that if it is read again.
    most, most_again = (
        min(rule["max_upscale"], rule["max_side"] / max(part.shape[:2]), (area / (part.shape[0] * part.shape[1])) ** 0.5)
        for area in (rule["max_area"], rule["max_area_again"])
    )
    factor = min(rule["line"] / region.line, most)
    found = _read(part, factor, frame_rows)
    if found:
        return found
    larger = min(max(factor * rule["again_factor"], rule["line"] / region.core), most_again)
    if larger > factor:
        found = _read(part, larger, frame_rows)
    if not found and not region.upright and certainty >= rule["turned"]:
        for quarter in (1, 3):
            turned = np.rot90(part, quarter)
            found = [_turned_back(box, quarter, part.shape) for box in _read(turned, factor, frame_rows)]
            if found:
                break
    return found


def _turned_back(box: Box, quarters: int, shape: tuple[int, ...]) -> Box:
    """A box found in ``np.rot90(part, quarters)``, in the pixels of the part of this shape."""
    rows, columns = shape[:2]
    if quarters == 1:
        return replace(box, x0=columns - box.y1, x1=columns - box.y0, y0=box.x0, y1=box.x1)
    return replace(box, x0=box.y0, x1=box.y1, y0=rows - box.x1, y1=rows - box.x0)


def forget() -> None:
    """Forget what was read lately."""
    _lately.clear()


def _read(part: np.ndarray, factor: float | None = None, frame_rows: int | None = None) -> list[Box]:
    """As `_read_anew`; the frames of a cine and the images of a device repeat the same banner, which is then read once."""
    seen = hashlib.blake2b(np.ascontiguousarray(part).data, digest_size=16).digest(), part.shape, factor, frame_rows
    if seen not in _lately:
        if len(_lately) >= _REMEMBERED:
            _lately.clear()
        _lately[seen] = tuple(_read_anew(part, factor, frame_rows))
    return list(_lately[seen])


def _read_anew(part: np.ndarray, factor: float | None, frame_rows: int | None) -> list[Box]:
    """Boxes of text in a picture, with detection and recognition.

    Parameters
    ----------
    factor : by how much the picture is enlarged for the detector; None: as the rules ``detector`` say for a whole frame.
    frame_rows : rows of the frame that the picture is a part of.
    """
    rule = rules()
    rows, columns = part.shape[:2]
    # The models were trained on BGR.
    colour = np.ascontiguousarray(np.repeat(part[:, :, None], 3, axis=2) if part.ndim == 2 else part[:, :, ::-1])
    models = engine()
    proposed = _detected(models, colour, rule["detector"], factor)
    if not any(_has_shape_of_text(box, frame_rows or rows, rule["box"]) for box in proposed):
        return []
    read, _ = models.text_rec(models.get_crop_img_list(colour, proposed))
    lines: list[tuple[np.ndarray, str, float]] = []
    others: list[tuple[np.ndarray, str, float]] = []
    for box, (text, score) in zip(proposed, read, strict=True):
        sure = score >= rule["reading"]["min_score"] and len(text.strip()) >= rule["reading"]["min_characters"]
        # A row of one letter is a zigzag or a ruler.
        sure = sure and len(set(text.strip())) > 1
        (lines if sure and _has_shape_of_text(box, frame_rows or rows, rule["box"]) else others).append((box, text, score))
    most = _highest(frame_rows or rows, rule["box"])
    others = [
        other for other in others if _height(other[0]) <= most and any(_belongs_to(other[0], line[0], rule["companion"]) for line in lines)
    ]
    return sorted(
        replace(_grown(box, rows, columns, rule["box"]), score=round(float(score), 4), text=text) for box, text, score in lines + others
    )


def _detected(models: "RapidOCR", colour: np.ndarray, rule: dict[str, Any], factor: float | None) -> list[np.ndarray]:
    """Corner points (4, 2) of every line of text that the detector proposes, clockwise from the top left."""
    import cv2

    rows, columns = colour.shape[:2]
    # Larger frames are reduced; and bringing the short side of a strip to min_side would let its long side grow without bound.
    most = rule["max_side"] / max(rows, columns)
    if factor is None:
        factor = max(min(1.0, most), min(rule["min_side"] / min(rows, columns), rule["max_upscale"], most))
    # What is thinner than the network's stride cannot be scaled; what is that small cannot hold text either.
    if min(rows, columns) * min(1.0, most) < rules()["box"]["min_height"]:
        return []
    # Sides are multiples of the network's stride.
    wide, tall = (max(32, round(size * factor / 32) * 32) for size in (columns, rows))
    scaled = cv2.resize(colour, (wide, tall), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    # From -1 to 1, in single precision: the library's own way goes by double precision and takes a tenth of the time.
    ready = np.multiply(scaled.transpose(2, 0, 1)[None], np.float32(1 / 127.5), dtype=np.float32)
    ready -= 1
    output = models.text_det.infer(ready)[0]
    boxes, _ = models.text_det.postprocess_op(output, (rows, columns))
    return [models.text_det.order_points_clockwise(box).astype(np.float32) for box in boxes]


def _has_shape_of_text(box: np.ndarray, rows: int, rule: dict[str, Any]) -> bool:
    """Whether the sides are those of a horizontal line of text of at least a few letters."""
    width = float(np.linalg.norm(box[0] - box[1]))
    height = _height(box)
    return rule["min_height"] <= height <= _highest(rows, rule) and width >= rule["min_aspect"] * height and width >= rule["min_width"]


def _height(box: np.ndarray) -> float:
    """Pixels across a line whose corners these are."""
    return float(np.linalg.norm(box[0] - box[3]))


def _highest(rows: int, rule: dict[str, Any]) -> float:
    """How high a line of text is, at most, in a frame of so many rows."""
    highest: float = max(rule["max_height"], rule["max_height_share"] * rows)
    return highest


def _belongs_to(box: np.ndarray, line: np.ndarray, rule: dict[str, float]) -> bool:
    """Whether a box is part of the text around a line that was read."""
    height, other = _height(line), _height(box)
    if not height / rule["height_factor"] <= other <= height * rule["height_factor"]:
        return False
    gaps = np.maximum(0, np.maximum(line.min(axis=0) - box.max(axis=0), box.min(axis=0) - line.max(axis=0)))
    return bool(gaps.max() <= rule["gap_heights"] * height)


def _grown(box: np.ndarray, rows: int, columns: int, rule: dict[str, Any]) -> Box:
    """The upright rectangle around a detected one, with the margin of the rules, inside the frame."""
    height = _height(box)
    margin = np.array([max(rule["pad"], rule["pad_share_along"] * height), max(rule["pad"], rule["pad_share_across"] * height)])
    x0, y0 = np.floor(box.min(axis=0) - margin).astype(int)
    x1, y1 = np.ceil(box.max(axis=0) + 1 + margin).astype(int)
    return Box(max(0, int(x0)), max(0, int(y0)), min(columns, int(x1)), min(rows, int(y1)))
