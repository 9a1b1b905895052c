"""What the supervised child does with one object: read, decode, measure, look for text. No Spark, no state between calls but the models.

`Examiner` is what `pictures_spark.pixels.groups` works with; in production it lives in the child and is reached through
`pictures_spark.pixels.supervise.Supervised`, which has the same methods.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pictures_spark.pixels import features as measures
from pictures_spark.pixels.decode import Image, decode
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.features import Feature, Measurement
from pictures_spark.pixels.pattern import Sketch, sketch
from pictures_spark.pixels.text import Box, find_text
from pictures_spark.pixels.window import to_8bit

READ, SKETCH, NOTHING = "read", "sketch", "nothing"


@dataclass(frozen=True)
class Locator:
    """Where an object's bytes are, and which content they must be; columns of tables object and header_instance."""

    path: str
    offset: int | None
    length: int | None
    compression: str | None
    content_sha256: str


@dataclass(frozen=True)
class Examined:
    """What was found in one instance."""

    frame_count: int
    features: list[Feature] = field(default_factory=list)
    sketch: Sketch | None = None
    boxes: list[list[Box]] = field(default_factory=list)


class Looks(Protocol):
    """The three things that can be asked about pixels. Each raises PixelFault where it cannot be answered."""

    def examine(self, locator: Locator, names: Sequence[str], text: str) -> Examined:
        """Features of an instance, and for its text (``read``) the boxes of each frame, (``sketch``) a sketch, or ``nothing``."""

    def read_frames(self, locator: Locator, frames: Sequence[int]) -> list[list[Box]]:
        """Boxes of text of certain frames of an instance."""

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
        energies, boxes = [], []
        for frame in image.frames():
            measurement.add(frame)
            if text == NOTHING:
                continue
            frame8 = _visible(image, frame)
            if text == READ:
                boxes.append(_read(frame8))
                continue
            one = sketch(frame8)
            energies.append(one.energy)
            # Joined without the energies, which would be copied again for every frame.
            whole = one if whole is None else Sketch(np.minimum(whole.low, one.low), np.maximum(whole.high, one.high), one.energy)
        if whole is not None:
            whole = Sketch(whole.low, whole.high, np.concatenate(energies))
        return Examined(image.frame_count, measures.results(measurement, names), whole, boxes)

    def read_frames(self, locator: Locator, frames: Sequence[int]) -> list[list[Box]]:
        """See `Looks`."""
        image = self._open(locator)
        return [_read(_visible(image, frame)) for frame in image.frames(frames)]

    def read_picture(self, picture: np.ndarray) -> list[Box]:
        """See `Looks`."""
        return _read(picture)

    def _open(self, locator: Locator) -> Image:
        data = self._fetch(locator)
        if hashlib.sha256(data).hexdigest() != locator.content_sha256:
            raise PixelFault("changed")
        return decode(data, self._max_samples, self._done)


def _visible(image: Image, frame: np.ndarray) -> np.ndarray:
    return to_8bit(image.colours(frame), image.inverted)


def _read(frame8: np.ndarray) -> list[Box]:
    try:
        return find_text(frame8)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - cv2 and onnxruntime raise classes of their own
        raise PixelFault("out_of_memory" if _says_no_memory(error) else "text_detector_failed") from None


def _says_no_memory(error: Exception) -> bool:
    """Whether a native library's exception is its way of saying that memory ran out."""
    words: Any = str(error).lower()
    return any(sign in words for sign in ("bad_alloc", "allocate", "insufficient memory", "out of memory"))
