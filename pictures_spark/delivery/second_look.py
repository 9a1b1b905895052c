"""A second look for text in the pixels of what is about to be delivered: every redacted image, and a sample of the others.

What enters: the bytes of a result. What leaves: where text was found, by the supervised child that does the same for the archive
(`pictures_spark.pixels`), on the redacted pixels as they would be delivered. Executors; the child starts with the first look.
"""

import hashlib
import uuid
from pathlib import Path
from typing import Any

from pictures_spark.pixels.examine import Locator, Looks
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.supervise import Limits, Supervised
from pictures_spark.pixels.text import Box

# Frames of a sampled image that are looked at, at most, spread over all of them; of a redacted one those with boxes come first.
_FRAMES = 8


class SecondLook:
    """Looks at results in a folder of the staging area, where the child can read them.

    Parameters
    ----------
    folder : where a result is put while it is looked at.
    limits : what one image may cost (settings ``pixels``).
    share : of the results without boxes, how many are looked at, 0 to 1.
    """

    def __init__(self, folder: Path, limits: Limits, share: float, looks: Looks | None = None) -> None:
        self.folder = folder
        self.share = share
        self._limits = limits
        self._looks: Any = looks

    def wanted(self, image_uid: str, redacted: bool) -> bool:
        """Whether a result is looked at; of the same images always the same ones."""
        if redacted:
            return True
        number = int.from_bytes(hashlib.sha256(image_uid.encode()).digest()[:4], "big")
        return number < self.share * (1 << 32)

    def boxes(self, data: bytes, frames: int, first: tuple[int, ...] = ()) -> list[Box] | None:
        """Where text is, in any of the frames that are looked at; None where the child could not tell.

        ``first`` are frames that are looked at whatever else is.
        """
        spread = range(0, frames, max(1, -(-frames // _FRAMES)))
        wanted = sorted({*[frame for frame in first if frame < frames][:_FRAMES], *spread})
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".{uuid.uuid4().hex}"
        try:
            scratch.write_bytes(data)
            place = Locator(scratch.name, None, None, None, hashlib.sha256(data).hexdigest())
            # Throughout, so that what the first stage of the first look passed over may be found here.
            found = self._child().read_frames(place, dict.fromkeys(wanted))
        except PixelFault:
            return None
        finally:
            scratch.unlink(missing_ok=True)
        return [box for frame in sorted(found) for box in found[frame]]

    def close(self) -> None:
        """End the child."""
        if isinstance(self._looks, Supervised):
            self._looks.close()

    def _child(self) -> Looks:
        if self._looks is None:
            self._looks = Supervised(str(self.folder), self._limits)
        looks: Looks = self._looks
        return looks
