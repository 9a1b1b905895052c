"""The supervised child of a Spark task: reads requests from standard input, answers on standard output, knows no Spark.

Started by `pictures_spark.pixels.supervise`. It may crash, hang or run out of memory on any object: it holds nothing that is not asked for
again. It dies with its parent, and says nothing of its own: native libraries print parts of headers, so its standard error and what they
print on standard output go nowhere.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, astuple
from functools import partial
from typing import Any, BinaryIO

import cv2
import numpy as np

from pictures_spark.pixels import features, text, wire
from pictures_spark.pixels.confined import answer_all, die_with, limit_memory, private_streams
from pictures_spark.pixels.examine import Examined, Examiner, Locator, Looks
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.heat import Suspect
from pictures_spark.roots import Root

_TELL_SECONDS = 0.1


def fetch_from(root: Root) -> Callable[[Locator], bytes]:
    """Reads objects of the archive at ``root``."""
    from pictures_spark.dicom.containers import ObjectChangedError, read_object
    from pictures_spark.remote import store

    if root.scheme != "file":
        # Now, because what it loads does not count towards the memory limit.
        store(root)

    def fetch(at: Locator) -> bytes:
        try:
            return read_object(root, at.path, at.offset, at.length, at.compression)
        except ObjectChangedError:
            raise PixelFault("changed") from None
        except (OSError, ValueError):
            raise PixelFault("unreadable") from None

    return fetch


def serve(make: Callable[[dict[str, Any], Callable[[], None]], Looks]) -> None:
    """Answer requests until standard input ends.

    Parameters
    ----------
    make : gives the one who does the work, from the settings in the first argument (JSON) and a function to call after each frame, which
        tells the parent that there is progress.
    """
    settings = json.loads(sys.argv[1])
    die_with(settings["parent"])
    requests, answers = private_streams()
    worker = make(settings, _telling(answers))
    # Parallelism is Spark's.
    cv2.setNumThreads(1)
    features.load()
    if settings["text"]:
        text.engine()
        text.find_text(np.zeros((64, 64), np.uint8), whole=True)
    limit_memory(settings["memory_bytes"])
    answer_all(requests, answers, partial(_answer, worker))


def _telling(answers: BinaryIO) -> Callable[[], None]:
    """A function that tells the parent of progress, now and then."""
    told = time.monotonic()

    def tell() -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TELL_SECONDS:
            told = now
            answers.write(wire.pack({"progress": True}))

    return tell


def _answer(worker: Looks, request: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    try:
        if request["do"] == "examine":
            return _packed(worker.examine(Locator(**request["locator"]), request["names"], request["text"]))
        if request["do"] == "read_frames":
            asked = request["places"]
            places = {frame: None if of_frame is None else [Suspect(*place) for place in of_frame] for frame, of_frame in asked}
            found = worker.read_frames(Locator(**request["locator"]), places)
            return wire.pack({"boxes": [[frame, [asdict(box) for box in boxes]] for frame, boxes in found.items()]})
        return wire.pack({"boxes": [asdict(box) for box in worker.read_picture(arrays["picture"])]})
    except PixelFault as fault:
        return wire.pack({"reason": fault.reason, "more": fault.more})
    except MemoryError:
        return wire.pack({"reason": "out_of_memory", "more": None})


def _packed(found: Examined) -> bytes:
    message: dict[str, Any] = {
        "frame_count": found.frame_count,
        "features": [asdict(feature) for feature in found.features],
        "boxes": [[asdict(box) for box in boxes] for boxes in found.boxes],
        "beside": [asdict(one) for one in found.beside],
    }
    arrays = {}
    if found.sketch is not None:
        message["places"] = [[astuple(place) for place in places] for places in found.sketch.places]
        arrays = {"low": found.sketch.low}
        if found.frame_count > 1:
            arrays["high"] = found.sketch.high
    return wire.pack(message, arrays)


if __name__ == "__main__":
    serve(lambda settings, done: Examiner(fetch_from(Root(**settings["root"])), settings["max_samples"], done))
