"""Pixels that need a decoder, treated and compared in a supervised child: a decoder that crashes, hangs or eats all memory costs one image.

What enters: the bytes of files and boxes; no key, nothing of what the zone knows of the person. What leaves: what `dicom_pixels.treat_file`
and `verify.compare_pixels` give. Executors; the child (`deid.pixels_child`) starts with the first image that needs a decoder.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from pictures_spark.deid.dicom_identity import Box
from pictures_spark.deid.dicom_pixels import NotCleanableError, Pixels
from pictures_spark.deid.dicom_write import Element
from pictures_spark.deid.verify import Finding
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.supervise import Limits, Supervised

COMMAND = ("-m", "pictures_spark.deid.pixels_child")


class SupervisedPixels(Supervised):
    """Treats and compares pixels in a child under ``limits`` (settings ``pixels``). Use as a context manager, or close it."""

    def __init__(self, limits: Limits, command: Sequence[str] = COMMAND) -> None:
        super().__init__("/", limits, command, text=False)

    def treat(self, data: bytes, boxes: Sequence[Box], frames: int = 1) -> Pixels:
        """See `pictures_spark.deid.dicom_pixels.treat_file`.

        Raises
        ------
        NotCleanableError
            The pixels cannot be decoded, or the child ended or took too long.
        ValueError
            The file is damaged.
        """
        try:
            said, arrays = self._ask({"do": "treat", "boxes": [asdict(box) for box in boxes]}, {"data": _bytes(data)}, frames)
        except PixelFault as fault:
            raise NotCleanableError(fault.reason) from None
        if "refused" in said:
            raise NotCleanableError("by the child") if said["refused"] == "not_cleanable" else ValueError("a damaged file")
        values = [arrays[f"value{number}"].tobytes() for number in range(len(said["elements"]))]
        elements = [Element(tag, vr, value, whole) for (tag, vr, whole), value in zip(said["elements"], values, strict=True)]
        header = {tag: Element(tag, vr, bytes.fromhex(value)) for tag, vr, value in said["header"]}
        return Pixels(said["transfer_syntax"], elements, header, said["blanked"], said["as_they_were"])

    def compare(self, original: bytes, result: bytes, boxes: Sequence[Box], frames: int = 1) -> list[Finding]:
        """See `pictures_spark.deid.verify.compare_pixels`; ``undecodable`` where the child ended or took too long."""
        given = {"original": _bytes(original), "result": _bytes(result)}
        try:
            said, _ = self._ask({"do": "compare", "boxes": [asdict(box) for box in boxes]}, given, 2 * frames)
        except PixelFault:
            return [Finding("undecodable")]
        return [Finding(*finding) for finding in said["findings"]]


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
