"""What the supervised child does with one object: read, decode, measure, look for text. No Spark, no state between calls but the models.

`Examiner` is what `pictures_spark.pixels.groups` works with; in production it lives in the child and is reached through
`pictures_spark.pixels.supervise.Supervised`, which has the same methods.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from pictures_spark.pixels import features as measures
from pictures_spark.pixels.decode import Image, decode
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.features import Feature, Measurement
from pictures_spark.pixels.heat import Suspect, suspects
from pictures_spark.pixels.pattern import Sketch, sketch
from pictures_spark.pixels.planes import pictures, written
from pictures_spark.pixels.text import Box, find_text, read_places
from pictures_spark.pixels.window import to_8bit, whole_range

T = TypeVar("T")
# Of many overlays, one a frame, the first are read throughout and the others where the first stage points.
_PLANES_READ_WHOLE = 4
READ, WHOLE, SKETCH, NOTHING = "read", "whole", "sketch", "nothing"


@dataclass(frozen=True)
class Locator:
    """Where an object's bytes are, and which content they must be; columns of tables object and header_instance."""

    path: str
    offset: int | None
    length: int | None
    compression: str | None
    content_sha256: str


@dataclass(frozen=True)
class Beside:
    """A text in a plane of its own (`pictures_spark.pixels.planes`), and the frames that it covers, last one included."""

    plane: str
    frame_from: int
    frame_to: int
    box: Box


@dataclass(frozen=True)
class Examined:
    """What was found in one instance."""

    frame_count: int
    features: list[Feature] = field(default_factory=list)
    sketch: Sketch | None = None
    boxes: list[list[Box]] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)


class Looks(Protocol):
    """The three things that can be asked about pixels. Each raises PixelFault where it cannot be answered."""

    def examine(self, locator: Locator, names: Sequence[str], text: str) -> Examined:
        """Features of an instance, and for its text the boxes of each frame (``read``; ``whole``: read throughout, not only
        where the first stage points), a ``sketch``, or ``nothing``."""

    def read_frames(self, locator: Locator, places: Mapping[int, Sequence[Suspect] | None]) -> dict[int, list[Box]]:
        """Boxes of text at certain places of certain frames of an instance; a frame whose places are None is read throughout."""

    def read_picture(self, picture: np.ndarray) -> list[Box]:
        """Boxes of text of an 8-bit picture, such as a projection."""


class Examiner:
    """Does the work in this process.

    Parameters
    ----------
    fetch : gives an object's bytes.
    max_samples : samples an image may claim.
    done : called whenever a frame is done with.
    """

    def __init__(self, fetch: Callable[[Locator], bytes], max_samples: int, done: Callable[[], None] = lambda: None) -> None:
        self._fetch = fetch
        self._max_samples = max_samples
        self._done = done

    def examine(self, locator: Locator, names: Sequence[str], text: str) -> Examined:
        """See `Looks`."""
        image = self._open(locator)
        measurement = Measurement(image, names)
        whole: Sketch | None = None
        boxes: list[list[Box]] = []
        places: list[tuple[Suspect, ...]] = []
        for frame in image.frames():
            measurement.add(frame)
            if text == NOTHING:
                continue
            frame8, more = _visible(image, frame)
            if text in (READ, WHOLE):
                found = _guarded(partial(find_text, frame8, whole=text == WHOLE))
                boxes.append(found + [box for view in more for box in _guarded(partial(find_text, view))])
                continue
            one = _guarded(partial(sketch, frame8))
            places.append(one.places[0] + tuple(place for view in more for place in _guarded(partial(suspects, view))))
            # Joined without the places, which would be copied again for every frame.
            whole = one if whole is None else Sketch(np.minimum(whole.low, one.low), np.maximum(whole.high, one.high), ())
        if whole is not None:
            whole = Sketch(whole.low, whole.high, tuple(places))
        beside = [] if text == NOTHING else _beside(image, self._done)
        return Examined(image.frame_count, measures.results(measurement, names), whole, boxes, beside)

    def read_frames(self, locator: Locator, places: Mapping[int, Sequence[Suspect] | None]) -> dict[int, list[Box]]:
        """See `Looks`."""
        image = self._open(locator)
        found = {}
        for (number, of_frame), frame in zip(places.items(), image.frames(list(places)), strict=True):
            frame8, more = _visible(image, frame)
            read = partial(find_text, whole=True) if of_frame is None else partial(read_places, places=of_frame)
            found[number] = [box for view in (frame8, *more) for box in _guarded(partial(read, view))]
        return found

    def read_picture(self, picture: np.ndarray) -> list[Box]:
        """See `Looks`."""
        return _guarded(partial(find_text, picture, whole=True, unread=False))

    def _open(self, locator: Locator) -> Image:
        data = self._fetch(locator)
        if hashlib.sha256(data).hexdigest() != locator.content_sha256:
            raise PixelFault("changed")
        return decode(data, self._max_samples, self._done)


def _beside(image: Image, done: Callable[[], None]) -> list[Beside]:
    """Text in the planes beside the image; ``done`` is called after each."""
    last = image.frame_count - 1
    found = []
    for number, picture in enumerate(pictures(image)):
        done()
        if picture.pixels is None:
            found.append(Beside(picture.plane, picture.frame_from, picture.frame_to, Box(0, 0, image.columns, image.rows)))
            continue
        boxes = _guarded(partial(find_text, picture.pixels, whole=number < _PLANES_READ_WHOLE))
        found += [Beside(picture.plane, picture.frame_from, picture.frame_to, box.moved(picture.left, picture.top)) for box in boxes]
    together: dict[tuple[str, tuple[int, int, int, int]], list[str]] = {}
    for one in written(image.dataset):
        together.setdefault((one.plane, one.sides), []).append(one.text)
    return found + [Beside(plane, 0, last, Box(*sides, 1.0, " | ".join(texts))) for (plane, sides), texts in together.items()]


def _visible(image: Image, frame: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """A frame as 8 bit, and other views of it where some text would not be seen in that one."""
    coloured = image.colours(frame)
    other = whole_range(coloured, image.inverted)
    return to_8bit(coloured, image.inverted), [] if other is None else [other]


def _guarded(look: Callable[[], T]) -> T:
    """What the detector says; its own exceptions as a fault of the image."""
    try:
        return look()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - cv2 and onnxruntime raise classes of their own
        raise PixelFault("out_of_memory" if _says_no_memory(error) else "text_detector_failed") from None


def _says_no_memory(error: Exception) -> bool:
    """Whether a native library's exception is its way of saying that memory ran out."""
    words: Any = str(error).lower()
    return any(sign in words for sign in ("bad_alloc", "allocate", "insufficient memory", "out of memory"))
