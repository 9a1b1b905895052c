"""Pixels that look like images: real content from pydicom's sample files, anatomy-like shapes, seeded noise, and burned-in text.

Enters: how a picture is made, its size, a seed and lines of text. Leaves: arrays of display brightness (0 dark to 255 bright) or
modality units. Pure; driver. Integer arithmetic only: floating-point functions may differ in their last bit between processors, and the
same seed must give the same bytes everywhere.
"""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray
# Height of the letters in pixels; PP-OCR reads capitals of 12 pixels and more.
FONT_SIZE = 18


@cache
def _sample(name: str) -> Array:
    """Pixels of a DICOM file in pydicom's wheel; never fetched from anywhere."""
    dataset = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / name)
    return np.asarray(dataset.pixel_array).astype(np.int64)


def _resize(source: Array, rows: int, columns: int) -> Array:
    """Nearest neighbours after averaging whole blocks."""
    factor = max(1, min(source.shape[0] // rows, source.shape[1] // columns))
    height, width = source.shape[0] // factor * factor, source.shape[1] // factor * factor
    blocks = source[:height, :width].reshape(height // factor, factor, width // factor, factor).sum(axis=(1, 3)) // factor**2
    down = np.arange(rows) * blocks.shape[0] // rows
    across = np.arange(columns) * blocks.shape[1] // columns
    return blocks[down][:, across]


def _smooth(values: Array, times: int = 1) -> Array:
    """Mean of each pixel's 3 x 3 neighbourhood."""
    for _ in range(times):
        padded = np.pad(values, 1, mode="edge")
        shifted = [padded[i : i + values.shape[0], j : j + values.shape[1]] for i in range(3) for j in range(3)]
        values = np.sum(shifted, axis=0) // 9
    return values


def _ellipse(shape: tuple[int, int], cy: int, cx: int, ry: int, rx: int) -> Array:
    """Mask of an ellipse; centre and radii in per mille of the picture's sides."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    dy, dx = y * 1000 // shape[0] - cy, x * 1000 // shape[1] - cx
    return np.asarray((dy * rx) ** 2 + (dx * ry) ** 2 <= (rx * ry) ** 2)


def noise(seed: str, shape: tuple[int, ...], size: int) -> Array:
    """Noise of three even draws, within ``size`` of 0; the same for a seed on every machine."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    draws = np.random.Generator(np.random.PCG64(number)).integers(-size, size + 1, size=(3, *shape))
    return np.asarray(draws.sum(axis=0) // 3)


def ct_head(seed: str, shape: tuple[int, int], part: int) -> Array:
    """A slice of a head in Hounsfield units; ``part`` (0 to 1000) says where in the head."""
    head = np.maximum(_resize(_sample("J2K_pixelrep_mismatch.dcm"), *shape), -1024)
    brain = _ellipse(shape, 560, 500, 330, 280)
    ventricle = _ellipse(shape, 540, 470, 40 + part // 12, 22) | _ellipse(shape, 540, 530, 40 + part // 12, 22)
    head = np.where(brain & (head > -200) & (head < 300), 34 + head // 40, head)
    head = np.where(ventricle, 8, head)
    return _smooth(head) + noise(seed, shape, 24)


def ct_head_enhanced(seed: str, shape: tuple[int, int], part: int) -> Array:
    """The same after contrast medium: veins behind, and a mass that takes it up."""
    head = ct_head(seed, shape, part)
    bright = _ellipse(shape, 680, 500, 60, 90) | _ellipse(shape, 400 + part // 50, 590, 70, 70)
    return np.where(bright, 190 + noise(f"{seed}/medium", shape, 12), head)


def ct_chest(seed: str, shape: tuple[int, int], part: int) -> Array:
    """A slice of a chest in Hounsfield units."""
    tissue = _resize(_sample("CT_small.dcm"), *shape) // 40
    body = np.where(_ellipse(shape, 500, 500, 360, 460), 20 + tissue, -1000)
    lungs = _ellipse(shape, 470, 290, 230 - part // 10, 150) | _ellipse(shape, 470, 710, 230 - part // 10, 150)
    body = np.where(lungs, -820 + tissue, body)
    body = np.where(_ellipse(shape, 480, 545, 120, 90 + part // 20), 45, body)
    # A vertebra: spongy inside, its shell as dense as only bone is.
    body = np.where(_ellipse(shape, 730, 500, 70, 60), 1300, body)
    body = np.where(_ellipse(shape, 730, 500, 52, 44), 180, body)
    return _smooth(body) + noise(seed, shape, 26)


def ct_chest_enhanced(seed: str, shape: tuple[int, int], part: int) -> Array:
    """The same after contrast medium: heart and aorta full of it."""
    chest = ct_chest(seed, shape, part)
    bright = _ellipse(shape, 480, 545, 110, 80 + part // 20) | _ellipse(shape, 590, 600, 38, 40)
    return np.where(bright, 320 + noise(f"{seed}/medium", shape, 12), chest)


def mr_head(seed: str, shape: tuple[int, int], part: int) -> Array:
    """A slice of a head, arbitrary units of 0 to about 1000."""
    texture = _resize(_sample("MR_small.dcm"), *shape) // 8
    head = np.where(_ellipse(shape, 500, 500, 430, 350), 780, 6)
    head = np.where(_ellipse(shape, 500, 500, 400, 320), 60, head)
    head = np.where(_ellipse(shape, 500, 500, 370, 295), 330 + texture, head)
    head = np.where(_ellipse(shape, 500, 455, 60 + part // 10, 30) | _ellipse(shape, 500, 545, 60 + part // 10, 30), 860, head)
    return np.maximum(_smooth(head, 2) + noise(seed, shape, 30), 0)


def mr_spine(seed: str, shape: tuple[int, int], part: int) -> Array:
    """A sagittal slice of a lumbar spine, arbitrary units."""
    picture = 120 + _resize(_sample("MR_small.dcm"), *shape) // 10
    for level in range(6):
        picture = np.where(_ellipse(shape, 110 + 160 * level, 430 + 12 * level, 62, 90), 420 - part // 10, picture)
        picture = np.where(_ellipse(shape, 190 + 160 * level, 435 + 12 * level, 14, 80), 620, picture)
    picture = np.where(_ellipse(shape, 500, 600, 560, 40), 760, picture)
    return np.maximum(_smooth(picture, 2) + noise(seed, shape, 28), 0)


def cr_chest(seed: str, shape: tuple[int, int], part: int) -> Array:
    """A chest radiograph as brightness of 0 to 255."""
    texture = _smooth(_resize(_sample("CT_small.dcm"), *shape), 3) // 60
    picture = np.where(_ellipse(shape, 560, 500, 520, 470), 150 + texture, 24)
    lungs = _ellipse(shape, 470, 290, 300, 160) | _ellipse(shape, 470, 710, 300, 160)
    picture = np.where(lungs, 62 + texture, picture)
    for rib in range(7):
        ring = _ellipse(shape, 240 + 80 * rib, 500, 170, 400) & ~_ellipse(shape, 256 + 80 * rib, 500, 170, 400)
        picture = np.where(ring & lungs, 96 + texture, picture)
    picture = np.where(_ellipse(shape, 620, 545, 170, 140), 170 + texture // 2, picture)
    return np.clip(_smooth(picture, 3) + noise(seed, shape, 9), 0, 255)


def us(seed: str, shape: tuple[int, int], part: int) -> Array:
    """A sector of ultrasound as brightness of 0 to 255: speckle of a real image inside a fan, nothing outside."""
    # The part of that image below its own letters and boxes.
    tissue = np.repeat(_sample("examples_rgb_color.dcm").min(axis=2)[150:166, 8:300], 5, axis=0)
    strip = np.concatenate([tissue, tissue[:, ::-1]], axis=1)
    speckle = np.tile(np.concatenate([strip, strip[::-1]]), (2, 1))
    rows, columns = shape
    speckle = np.roll(speckle, part // 20, axis=0)[:rows, :columns]
    y, x = np.ogrid[:rows, :columns]
    fan = np.abs(x - columns // 2) * 10 <= (y - rows // 12) * 8
    depth = (y - rows // 12) ** 2 + (x - columns // 2) ** 2
    fan = fan & (depth <= (rows * 5 // 6) ** 2)
    picture = np.where(fan, speckle * 3 // 2 + noise(seed, shape, 30), 0)
    return np.clip(_smooth(picture), 0, 255)


PICTURES = {
    "ct_head": ct_head,
    "ct_head_enhanced": ct_head_enhanced,
    "ct_chest": ct_chest,
    "ct_chest_enhanced": ct_chest_enhanced,
    "mr_head": mr_head,
    "mr_spine": mr_spine,
    "cr_chest": cr_chest,
    "us": us,
}


def text_mask(shape: tuple[int, int], lines: tuple[str, ...]) -> tuple[Array, Array]:
    """Where the letters are (0 to 255) and the box around them, both of the picture's shape; letters start near the upper left corner.

    A line that would be wider than the picture goes on below.
    """
    font = ImageFont.load_default(FONT_SIZE)
    canvas = Image.new("L", (shape[1], shape[0]), 0)
    draw = ImageDraw.Draw(canvas)
    words = [word for line in lines for word in (line.split(" ", 1) if draw.textlength(line, font=font) > shape[1] - 12 else [line])]
    for number, word in enumerate(words):
        draw.text((5, 4 + number * (FONT_SIZE + 4)), word, fill=255, font=font)
    letters = np.asarray(canvas).astype(np.int64)
    box = np.zeros(shape, dtype=bool)
    box[2 : 8 + len(words) * (FONT_SIZE + 4), 2 : shape[1] - 2] = True
    return letters, box


def burn(picture: Array, lines: tuple[str, ...], bright: int, dark: int, banner: bool) -> Array:
    """Draw lines into a picture: bright letters on it, or dark letters on a bright banner."""
    letters, box = text_mask((picture.shape[0], picture.shape[1]), lines)
    ground = np.where(box, bright, picture) if banner else picture
    ink = dark if banner else bright
    return np.asarray((ground * (255 - letters) + ink * letters) // 255)
