"""The child of a delivery's task that decodes: reads requests from standard input, answers on standard output, knows no Spark and no key.

Started by `pictures_spark.deid.dicom_supervised`. It may crash, hang or run out of memory on any image: it holds nothing between requests.
"""

import json
import sys
import warnings
from dataclasses import astuple
from typing import Any

import numpy as np

from pictures_spark.deid import dicom_pixels, verify
from pictures_spark.deid.dicom_identity import Box
from pictures_spark.pixels import wire
from pictures_spark.pixels.confined import answer_all, die_with, limit_memory, private_streams


def serve() -> None:
    """Answer requests until standard input ends; the settings are in the first argument (JSON)."""
    settings = json.loads(sys.argv[1])
    die_with(settings["parent"])
    requests, answers = private_streams()
    warnings.simplefilter("ignore")
    limit_memory(settings["memory_bytes"])
    answer_all(requests, answers, _answer)


def _answer(request: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    boxes = [Box(**box) for box in request["boxes"]]
    files = {name: array.tobytes() for name, array in arrays.items()}
    try:
        if request["do"] == "compare":
            found = verify.compare_pixels(files["original"], files["result"], boxes)
            return wire.pack({"findings": [astuple(finding) for finding in found]})
        made = dicom_pixels.treat_file(files["data"], boxes)
    except MemoryError:
        return wire.pack({"reason": "out_of_memory", "more": None})
    except dicom_pixels.NotCleanableError:
        return wire.pack({"refused": "not_cleanable"})
    except Exception:  # noqa: BLE001 - whatever a damaged file makes the parser raise
        return wire.pack({"refused": "damaged"})
    said = {
        "transfer_syntax": made.transfer_syntax,
        "elements": [[element.tag, element.vr, element.encapsulated] for element in made.elements],
        "header": [[element.tag, element.vr, bytes(element.value).hex()] for element in made.header.values()],  # type: ignore[arg-type]
        "blanked": made.blanked,
        "as_they_were": made.as_they_were,
    }
    values = {f"value{number}": np.frombuffer(element.value, np.uint8) for number, element in enumerate(made.elements)}  # type: ignore[arg-type]
    return wire.pack(said, values)


if __name__ == "__main__":
    serve()
