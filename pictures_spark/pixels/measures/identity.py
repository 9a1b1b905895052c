"""Names of pixel content: equal where pixels are equal, or nearly equal where they look alike."""

import hashlib

import cv2
import numpy as np

from pictures_spark.pixels.frame import Frame

_SIDE, _WAVES = 32, 8


class Digest:
    """SHA-256 of all samples of an image, whatever their encoding.

    Parameters
    ----------
    frames : how many there are.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._hash = hashlib.sha256()
        self._started = False

    def add(self, samples: np.ndarray) -> None:
        """Take in the next frame: type, number of frames, shape, then the samples in C order, little endian."""
        canonical = np.ascontiguousarray(samples, samples.dtype.newbyteorder("<"))
        if not self._started:
            shape = "x".join(map(str, (self._frames, *samples.shape)))
            self._hash.update(f"{canonical.dtype.str}|{shape}|".encode())
            self._started = True
        self._hash.update(canonical.data)

    def hexdigest(self) -> str:
        """The digest."""
        return self._hash.hexdigest()


def sha256(digest: Digest) -> str:
    """SHA-256 as 64 hex digits."""
    return digest.hexdigest()


def phash(frame: Frame) -> str:
    """64 bits in 16 hex digits: which of the 8 x 8 lowest cosine waves of a frame of 32 x 32 pixels are stronger than their median.

    Images that look alike differ in few bits (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010). Contrast
    and brightness do not matter, so no window is needed; MONOCHROME1 is inverted, as it is shown.
    """
    # Averaged over blocks by cv2 in the order that the frame has: rows, then columns.
    small = cv2.resize(frame.grey.astype(np.float32) / np.float32(frame.scale), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if frame.image.inverted:
        small = -small
    waves = cv2.dct((small - small.mean()).astype(np.float32))[:_WAVES, :_WAVES].ravel()
    # The first is the mean, and is left out of the median.
    bits = waves > np.median(waves[1:])
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"
