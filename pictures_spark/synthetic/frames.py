"""Hard frames for the detector of burned-in text: images like those of the modalities, with and without lines of text. Pure, seeded.

What is hard about them: rulers, grids, wires, screws, calcifications, vessels, ribs and speckle look like letters to a detector; text is
small, faint, turned, boxed, on top of anatomy, or spoiled by JPEG. Frames come as 8-bit brightness. The benchmark, the training of the
detector's first stage and the tests draw from here, each with seeds of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray
Rng = np.random.Generator

# Sizes that occur, rows x columns.
SIZES: dict[str, tuple[tuple[int, int], ...]] = {
    "CT": ((512, 512),),
    "MR": ((256, 256), (320, 320), (512, 512), (384, 288)),
    "CR": ((1760, 1430), (1200, 1000), (1024, 1024)),
    "DX": ((1500, 1200), (1300, 1600), (1024, 840)),
    "MG": ((1600, 1200), (1280, 1024)),
    "US": ((480, 640), (600, 800), (768, 1024)),
    "XA": ((512, 512), (1024, 1024)),
    "NM": ((256, 256), (1024, 256), (128, 128)),
    "PT": ((168, 168), (200, 200), (400, 400)),
    "SC": ((512, 512), (768, 1024)),
}
# Images in pydicom's wheel without text, with the part that is used: (file, rows, columns).
_SAMPLES: dict[str, tuple[str, ...]] = {
    "CT": ("693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "CT_small.dcm"),
    "MR": ("MR_small.dcm", "examples_overlay.dcm"),
    "NM": ("JPEG2000.dcm", "JPGExtended.dcm"),
    "PT": ("JPEG2000.dcm",),
    "US": ("examples_palette.dcm", "examples_ybr_color.dcm"),
}
_PARTS = {"examples_palette.dcm": (slice(60, 350), slice(200, 700)), "examples_ybr_color.dcm": (slice(10, 200), slice(60, 300))}
_HERSHEY = (0, 1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Style:
    """How lines are drawn: heights in pixels of the ink's own rows, contrast in grey levels to what is around, degrees of rotation."""

    heights: tuple[int, int] = (8, 40)
    contrast: tuple[int, int] = (35, 160)
    rotation: float = 6.0
    turned_share: float = 0.35
    boxed_share: float = 0.2
    jpeg_share: float = 0.2
    jpeg_quality: int = 75
    lines: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Line:
    """A planted line: what it says, how it was drawn, where its ink is."""

    text: str
    font: str
    height: int
    contrast: int
    degrees: float
    ink: Array
    top: int
    left: int

    def uncovered(self, boxes: Sequence[Any]) -> float:
        """Share of the ink that lies in no box (objects with x0, y0, x1, y1)."""
        left = self.ink.copy()
        for box in boxes:
            left[max(0, box.y0 - self.top) : max(0, box.y1 - self.top), max(0, box.x0 - self.left) : max(0, box.x1 - self.left)] = False
        return float(left.sum() / self.ink.sum())


@dataclass(frozen=True)
class Frame:
    """An 8-bit frame (rows, columns) and the lines in it."""

    modality: str
    source: str
    pixels: Array
    lines: list[Line] = field(default_factory=list)


def clean_frame(rng: Rng, modality: str, style: Style = Style(), real_share: float = 0.4) -> Frame:
    """A frame without text; ``real_share`` of those of modalities that pydicom has images of are made from them."""
    pixels, source = _background(rng, modality, real_share)
    return Frame(modality, source, _stored(rng, pixels, style))


def planted_frame(rng: Rng, modality: str, faces: Sequence[str], style: Style = Style(), real_share: float = 0.4) -> Frame:
    """A frame with lines of text.

    Parameters
    ----------
    faces : fonts to choose from: ``stroke``, ``bitmap``, or the path of an outline font (the empty path: the one in pillow).
    """
    pixels, source = _background(rng, modality, real_share)
    lines: list[Line] = []
    taken = np.zeros(pixels.shape, bool)
    wanted = int(rng.integers(style.lines[0], style.lines[1] + 1))
    for _ in range(40):
        line = _plant(rng, pixels, taken, str(rng.choice(list(faces))), style)
        if line is not None:
            lines.append(line)
        if len(lines) == wanted:
            break
    return Frame(modality, source, _stored(rng, pixels, style), lines)


@dataclass(frozen=True)
class Series:
    """8-bit frames of one shape, in order, and for each the line that is in it, or None."""

    modality: str
    kind: str
    frames: list[Array]
    lines: list[Line | None]


# What a series may show: nothing, one line on all frames, a line on one to three frames, another line on every frame.
SERIES_KINDS = ("clean", "constant", "few", "changing")


def planted_series(rng: Rng, modality: str, count: int, kind: str, faces: Sequence[str], style: Style = Style()) -> Series:
    """Frames that lie one after the other in a body or in time: two images that go over into one another, moved and turned, with noise.

    Parameters
    ----------
    kind : one of `SERIES_KINDS`.
    """
    first, _ = _background(rng, modality, 0.3)
    second = cv2.resize(_background(rng, modality, 0.3)[0], first.shape[::-1], interpolation=cv2.INTER_AREA)
    sweep, turn, noise = rng.uniform(0.1, 0.9), rng.uniform(0.1, 1.0), rng.uniform(1, 6)
    where = set(range(count)) if kind in ("constant", "changing") else set()
    if kind == "few":
        start = int(rng.integers(0, count))
        where = set(range(start, min(count, start + int(rng.integers(1, 4)))))
    made: list[Array] = []
    lines: list[Line | None] = []
    face, place = str(rng.choice(list(faces))), int(rng.integers(1 << 30))
    for number in range(count):
        share = float(sweep * number / count)
        move = cv2.getRotationMatrix2D((first.shape[1] / 2, first.shape[0] / 2), turn * number, 1 - 0.006 * number)
        pixels = cv2.warpAffine(first * (1 - share) + second * share, move, first.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        pixels += np.asarray(rng.normal(0, noise, pixels.shape), np.float32)
        line = None
        if number in where:
            # The same numbers drawn again for every frame: the same place, and the same words unless these change.
            for tries in range(40):
                again = np.random.default_rng([place, tries])
                said = words(rng if kind == "changing" else again)
                line = _plant(again, pixels, np.zeros(pixels.shape, bool), face, style, said)
                if line is not None:
                    break
        made.append(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        lines.append(line)
    return Series(modality, kind, made, lines)


def words(rng: Rng) -> str:
    """Something that devices write: a name, a number, a date, a time, or several."""
    letter = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    name = "".join(rng.choice(letter, int(rng.integers(3, 9))))
    first = str(rng.choice(["Morag", "Ewan", "Isla", "Hamish", "Fiona", "Callum", "Eilidh", "J", "M"]))
    surname = str(rng.choice(["MacTavish", "Gyllenspey", "Strang", "Ogilvie", "Begbie", "Quillfeather", "Innes", "McAra"]))
    year, month, day = int(rng.integers(1925, 2025)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    number = "".join(map(str, rng.integers(0, 10, int(rng.integers(5, 11)))))
    kinds = [
        f"{surname}, {first}",
        f"{surname.upper()}^{first.upper()}",
        name,
        f"{first} {surname}",
        f"{day:02d}/{month:02d}/{year}",
        f"{year}-{month:02d}-{day:02d}",
        f"DOB {day:02d}.{month:02d}.{year % 100:02d}",
        f"{day:02d}-{rng.choice(['Jan', 'Mar', 'Jun', 'Sep', 'Dec'])!s}-{year}",
        number,
        f"ID: {number}",
        f"Acc {number}",
        f"{int(rng.integers(0, 24)):02d}:{int(rng.integers(0, 60)):02d}:{int(rng.integers(0, 60)):02d}",
        f"{rng.choice(['Ward', 'Hosp', 'Dr', 'Pt'])!s} {surname}",
    ]
    return str(rng.choice(kinds))


def rendered(text: str, face: str, height: int, rng: Rng) -> Array:
    """Coverage (0 to 1) of a line whose ink is ``height`` rows high, cropped to its ink."""
    if face == "stroke":
        which = int(rng.choice(_HERSHEY))
        scale = height / (cv2.getTextSize(text, which, 1.0, 1)[0][1] + 7)
        thick = max(1, round(height / 14 + rng.uniform(-0.4, 0.4)))
        (width, tall), below = cv2.getTextSize(text, which, scale, thick)
        canvas = np.zeros((tall + below + 2 * height, width + 2 * height), np.uint8)
        cv2.putText(canvas, text, (height, tall + height), which, scale, 255, thick, cv2.LINE_AA)
        made = canvas
    elif face == "bitmap":
        font = ImageFont.load_default_imagefont()
        box = font.getbbox(text)
        image = Image.new("L", (int(box[2]) + 4, int(box[3]) + 4))
        ImageDraw.Draw(image).text((2, 2), text, fill=255, font=font)
        made = np.asarray(image)
        # Whole multiples, as devices enlarge a bitmap.
        times = max(1, round(height / max(1, int(np.ptp(np.flatnonzero(made.any(axis=1)))) + 1)))
        made = np.kron(made, np.ones((times, times), np.uint8))
    else:
        made = _outline(text, face, height)
    # Small letters of a thin face are faint all over.
    ink = min(50, int(made.max()) // 2)
    rows, columns = np.flatnonzero(made.max(axis=1) > ink), np.flatnonzero(made.max(axis=0) > ink)
    cropped: Array = made[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255
    return cropped


def _outline(text: str, face: str, height: int) -> Array:
    size = float(height)
    for _ in range(3):
        font: Any = ImageFont.truetype(face, size) if face else ImageFont.load_default(size)
        left, top, right, bottom = font.getbbox(text)
        size *= height / max(1.0, bottom - top)
    font = ImageFont.truetype(face, size) if face else ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(image).text((4 - left, 4 - top), text, fill=255, font=font)
    return np.asarray(image)


def _plant(rng: Rng, pixels: Array, taken: Array, face: str, style: Style, said: str | None = None) -> Line | None:
    """Draw one line into ``pixels`` where there is place for it; None where this try finds none."""
    rows, columns = pixels.shape
    highest = min(style.heights[1], rows // 8)
    # Small text is as likely as large, and faint as strong: even in the logarithm.
    height = round(float(np.exp(rng.uniform(np.log(style.heights[0]), np.log(highest + 0.99)))))
    degrees = float(rng.uniform(-style.rotation, style.rotation)) if rng.random() < style.turned_share else 0.0
    text = said or words(rng)
    glyphs = rendered(text, face, height, rng)
    height = len(glyphs)
    if not style.heights[0] <= height <= style.heights[1]:
        return None
    if degrees:
        glyphs = _turned(glyphs, degrees)
    tall, wide = glyphs.shape
    margin = max(2, height // 3)
    if tall + 2 * margin > rows or wide + 2 * margin > columns:
        return None
    corner = rng.random() < 0.5
    top = _place(rng, rows - tall, margin, corner)
    left = _place(rng, columns - wide, margin, corner)
    around = (slice(top - margin, top + tall + margin), slice(left - margin, left + wide + margin))
    if taken[around].any():
        return None
    contrast = round(float(np.exp(rng.uniform(np.log(style.contrast[0]), np.log(style.contrast[1])))))
    part = pixels[top : top + tall, left : left + wide]
    if rng.random() < style.boxed_share:
        pixels[around] = rng.uniform(0, 255)
    low, high = np.percentile(part, [10, 90])
    up = high + contrast <= 255 and (rng.random() < 0.75 or low - contrast < 0)
    if not up and low - contrast < 0:
        return None
    ink = high + contrast if up else low - contrast
    part[...] = part * (1 - glyphs) + np.float32(ink) * glyphs
    taken[around] = True
    return Line(text, face, height, contrast, degrees, glyphs > 0.3, top, left)


def _place(rng: Rng, room: int, margin: int, corner: bool) -> int:
    """Where a line starts in one direction; near an edge if ``corner``."""
    if not corner:
        return int(rng.integers(margin, room - margin + 1)) if room > 2 * margin else margin
    offset = margin + int(rng.integers(0, max(1, min(24, room - 2 * margin))))
    return offset if rng.random() < 0.5 else max(margin, room - offset)


def _turned(glyphs: Array, degrees: float) -> Array:
    wide = glyphs.shape[1]
    pad = int(np.ceil(wide * abs(np.sin(np.radians(degrees))))) + 4
    canvas = np.pad(glyphs, ((pad, pad), (4, 4)))
    turn = cv2.getRotationMatrix2D((canvas.shape[1] / 2, canvas.shape[0] / 2), degrees, 1)
    canvas = cv2.warpAffine(canvas, turn, canvas.shape[::-1], flags=cv2.INTER_LINEAR)
    rows, columns = np.flatnonzero(canvas.max(axis=1) > 0.2), np.flatnonzero(canvas.max(axis=0) > 0.2)
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _stored(rng: Rng, pixels: Array, style: Style) -> Array:
    """8 bit, some of it through JPEG."""
    made = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if rng.random() < style.jpeg_share:
        _, coded = cv2.imencode(".jpg", made, [cv2.IMWRITE_JPEG_QUALITY, style.jpeg_quality])
        made = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    return made


@cache
def _sample(name: str) -> Array:
    """First frame of an image in pydicom's wheel as brightness 0 to 255."""
    dataset = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / name)
    values = np.asarray(dataset.pixel_array)
    values = values[0] if values.ndim == 4 or (values.ndim == 3 and values.shape[-1] > 4) else values
    grey = values.astype(np.float32) if values.ndim == 2 else values[..., :3].astype(np.float32).mean(axis=2)
    grey = grey[_PARTS[name]] if name in _PARTS else grey
    low, high = np.percentile(grey, [0.5, 99.5])
    return np.clip((grey - low) / max(float(high - low), 1.0), 0, 1) * 235


def _background(rng: Rng, modality: str, real_share: float) -> tuple[Array, str]:
    shape = SIZES[modality][int(rng.integers(len(SIZES[modality])))]
    if modality in _SAMPLES and rng.random() < real_share:
        source = str(rng.choice(list(_SAMPLES[modality])))
        pixels = _varied(rng, _sample(source), shape)
    else:
        source = "drawn"
        pixels = _DRAWN[modality](rng, shape)
    pixels = pixels.astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        HARD[int(rng.integers(len(HARD)))](rng, pixels)
    return np.clip(pixels, 0, 255), source


def _varied(rng: Rng, sample: Array, shape: tuple[int, int]) -> Array:
    """A part of an image, turned, mirrored, in another size and brightness, with noise."""
    if rng.random() < 0.5:
        sample = sample[:, ::-1]
    share = rng.uniform(0.6, 1.0, 2)
    tall, wide = (max(8, int(size * part)) for size, part in zip(sample.shape, share, strict=True))
    top, left = int(rng.integers(0, sample.shape[0] - tall + 1)), int(rng.integers(0, sample.shape[1] - wide + 1))
    made = cv2.resize(np.ascontiguousarray(sample[top : top + tall, left : left + wide]), shape[::-1], interpolation=cv2.INTER_CUBIC)
    turn = cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), float(rng.uniform(-12, 12)), float(rng.uniform(0.9, 1.2)))
    made = cv2.warpAffine(made, turn, shape[::-1], borderMode=cv2.BORDER_REFLECT)
    made = 255 * np.clip(made / 255, 0, 1) ** rng.uniform(0.6, 1.5) * rng.uniform(0.6, 1.0)
    return made + rng.normal(0, rng.uniform(0.5, 6), shape)


def _texture(rng: Rng, shape: tuple[int, int], scale: float, size: float) -> Array:
    """Smooth noise with structures of about ``scale`` pixels and standard deviation ``size``."""
    small = (max(3, int(shape[0] / scale) + 2), max(3, int(shape[1] / scale) + 2))
    made = cv2.resize(rng.normal(0, 1, small).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return made * np.float32(size)


def _grid(shape: tuple[int, int]) -> tuple[Array, Array]:
    return np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None], np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]


def _inside(rng: Rng, shape: tuple[int, int], cy: float, cx: float, ry: float, rx: float) -> Array:
    """Soft mask of an uneven ellipse, 0 to 1."""
    y, x = _grid(shape)
    radius = np.hypot((y - cy) / ry, (x - cx) / rx) + _texture(rng, shape, max(shape) / 6, 0.04)
    return np.clip((1 - radius) * min(shape) * min(ry, rx) / 4 + 0.5, 0, 1)


def _ct(rng: Rng, shape: tuple[int, int]) -> Array:
    made = np.full(shape, rng.uniform(0, 12), np.float32)
    ry, rx = rng.uniform(0.5, 0.85), rng.uniform(0.6, 0.95)
    body = _inside(rng, shape, 0, 0, ry, rx)
    made += body * (rng.uniform(70, 130) + _texture(rng, shape, 30, 8) + _texture(rng, shape, 9, 5))
    for _ in range(int(rng.integers(3, 10))):
        cy, cx = rng.uniform(-0.5, 0.5, 2)
        organ = _inside(rng, shape, cy, cx, rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.3)) * body
        made += organ * rng.uniform(-70, 60)
    for _ in range(int(rng.integers(2, 14))):
        angle, size = rng.uniform(0, 6.3), rng.uniform(0.02, 0.08)
        bone = _inside(rng, shape, 0.8 * ry * np.sin(angle), 0.8 * rx * np.cos(angle), size, size * rng.uniform(0.6, 2))
        made = made * (1 - bone) + bone * rng.uniform(200, 255)
    if rng.random() < 0.6:
        y, x = _grid(shape)
        made += rng.uniform(30, 90) * (np.abs(y - rng.uniform(0.75, 0.95) + 0.15 * x**2) < 0.006)
    if rng.random() < 0.2:
        _streaks(rng, made)
    return made + rng.normal(0, rng.uniform(1, 9), shape)


def _streaks(rng: Rng, made: Array) -> None:
    """Metal and the streaks from it."""
    y, x = _grid((made.shape[0], made.shape[1]))
    cy, cx = rng.uniform(-0.4, 0.4, 2)
    angle = np.arctan2(y - cy, x - cx)
    far = np.hypot(y - cy, x - cx)
    made += 50 * np.sin(angle * int(rng.integers(8, 40))) * np.exp(-far * 3)
    made[far < 0.02] = 255


def _mr(rng: Rng, shape: tuple[int, int]) -> Array:
    made = np.zeros(shape, np.float32)
    body = _inside(rng, shape, 0, 0, rng.uniform(0.6, 0.9), rng.uniform(0.55, 0.9))
    made += body * (rng.uniform(50, 140) + _texture(rng, shape, 24, 14) + _texture(rng, shape, 7, 8))
    # Folds: bands of smooth noise, as grey and white matter or bowel.
    folds = np.sin(_texture(rng, shape, shape[0] / rng.uniform(8, 24), rng.uniform(2, 5)))
    made += body * folds * rng.uniform(8, 40)
    for level in range(int(rng.integers(0, 9))):
        disc = _inside(rng, shape, -0.8 + 0.2 * level, rng.uniform(-0.05, 0.05), 0.07, rng.uniform(0.08, 0.16))
        made = made * (1 - disc) + disc * rng.uniform(40, 230)
    shading = np.exp(_texture(rng, shape, max(shape) / 2, 0.3))
    return np.hypot(made * shading, rng.normal(0, rng.uniform(2, 9), shape))


def _cr(rng: Rng, shape: tuple[int, int]) -> Array:
    y, x = _grid(shape)
    made = rng.uniform(90, 170) + _texture(rng, shape, max(shape) / 4, 25) + _texture(rng, shape, 40, 6)
    for side in (-1, 1):
        lung = _inside(rng, shape, -0.05, 0.42 * side, rng.uniform(0.6, 0.75), rng.uniform(0.26, 0.36))
        made -= lung * rng.uniform(50, 90)
        for rib in range(int(rng.integers(6, 11))):
            line = y + 0.8 - 0.17 * rib - rng.uniform(0.2, 0.5) * (x - 0.4 * side) ** 2 - 0.1 * side * x
            made += np.exp(-((line / 0.025) ** 2)) * lung * rng.uniform(12, 35)
    vessels = np.abs(_texture(rng, shape, 50, 1.0))
    made += np.exp(-((vessels / 0.06) ** 2)) * rng.uniform(2, 12)
    edge = rng.uniform(0.86, 1.02, 4)
    made[np.broadcast_to((y < -edge[0]) | (y > edge[1]) | (x < -edge[2]) | (x > edge[3]), shape)] = rng.uniform(0, 255)
    return made + rng.normal(0, rng.uniform(1, 7), shape)


def _dx(rng: Rng, shape: tuple[int, int]) -> Array:
    y, x = _grid(shape)
    made = np.full(shape, rng.uniform(5, 60), np.float32) + _texture(rng, shape, 80, 3)
    limb = np.exp(-((np.abs(x + 0.2 * y * rng.uniform(-1, 1)) / rng.uniform(0.4, 0.7)) ** 4))
    made += limb * rng.uniform(50, 90)
    trabecular = _texture(rng, shape, 6, 8) + _texture(rng, shape, 12, 8)
    for _ in range(int(rng.integers(1, 7))):
        wide, lean, at = rng.uniform(0.04, 0.16), rng.uniform(-0.3, 0.3), rng.uniform(-0.5, 0.5)
        place = (x - at - lean * y) / wide
        inside = np.clip((1 - np.abs(place)) * 20, 0, 1) * (np.abs(y - rng.uniform(-0.6, 0.6)) < rng.uniform(0.3, 1.2))
        made += inside * (rng.uniform(20, 60) + trabecular + 40 * np.abs(place).clip(0, 1) ** 6)
    return made + rng.normal(0, rng.uniform(1, 6), shape)


def _mg(rng: Rng, shape: tuple[int, int]) -> Array:
    y, x = _grid(shape)
    breast = np.clip((1 - np.hypot((x + 1) / rng.uniform(1.1, 1.7), y / rng.uniform(0.7, 0.95))) * 12, 0, 1)
    tissue = rng.uniform(60, 120) + _texture(rng, shape, 160, 25) + _texture(rng, shape, 50, 14) + _texture(rng, shape, 14, 7)
    made = breast * tissue + rng.uniform(0, 8)
    for _ in range(int(rng.integers(0, 60))):
        cy, cx = int(rng.integers(0, shape[0])), int(rng.integers(0, shape[1] // 2))
        cv2.circle(made, (cx, cy), int(rng.integers(1, 4)), float(rng.uniform(180, 250)), -1, cv2.LINE_AA)
    return made + rng.normal(0, rng.uniform(1, 5), shape)


def _us(rng: Rng, shape: tuple[int, int]) -> Array:
    y, x = _grid(shape)
    far = np.hypot(y + 1.05, x)
    fan = ((np.abs(x) < (y + 1.05) * rng.uniform(0.5, 0.9)) & (far < rng.uniform(1.6, 1.95)) & (far > rng.uniform(0.1, 0.3))).astype(
        np.float32
    )
    real, imaginary = _texture(rng, shape, rng.uniform(2, 5), 1), _texture(rng, shape, rng.uniform(2, 5), 1)
    echo = np.exp(_texture(rng, shape, max(shape) / 10, 0.5)) * np.hypot(real, imaginary) * rng.uniform(25, 55)
    made = np.clip(echo * fan, 0, 235)
    if rng.random() < 0.7:
        at = int(shape[1] * rng.uniform(0.02, 0.95))
        bar = np.linspace(255, 0, shape[0] // 3)[:, None]
        made[shape[0] // 4 : shape[0] // 4 + len(bar), at : at + 12] = bar
    return made + np.abs(rng.normal(0, 1, shape))


def _xa(rng: Rng, shape: tuple[int, int]) -> Array:
    made = rng.uniform(90, 190) + _texture(rng, shape, max(shape) / 4, 20) + _texture(rng, shape, 20, 5)
    for _ in range(int(rng.integers(4, 16))):
        steps = 60
        turns = np.cumsum(rng.normal(0, 0.16, steps)) + rng.uniform(0, 6.3)
        points = np.stack([np.cos(turns), np.sin(turns)], axis=1).cumsum(axis=0) * shape[0] / rng.uniform(50, 110)
        points += rng.uniform(0.1, 0.9, 2) * shape[0]
        thick = int(rng.integers(1, max(2, shape[0] // 60)))
        cv2.polylines(made, [points.astype(np.int32)], False, float(rng.uniform(10, 70)), thick, cv2.LINE_AA)
    made = cv2.GaussianBlur(made.astype(np.float32), (0, 0), rng.uniform(0.6, 1.4))
    return made + rng.normal(0, rng.uniform(3, 10), shape)


def _nm(rng: Rng, shape: tuple[int, int]) -> Array:
    made = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(4, 16))):
        cy, cx = rng.uniform(-0.7, 0.7, 2)
        made += _inside(rng, shape, cy, cx, rng.uniform(0.03, 0.3), rng.uniform(0.03, 0.3)) * rng.uniform(1, 20)
    counts = rng.poisson(cv2.GaussianBlur(made, (0, 0), rng.uniform(1, 3)) + 0.2).astype(np.float32)
    return counts / max(1.0, float(counts.max())) * 245


def _sc(rng: Rng, shape: tuple[int, int]) -> Array:
    """A screen: flat colours, frames and small pictures."""
    made = np.full(shape, rng.choice([0, 20, 60, 128, 235, 255]), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        top, left = int(rng.integers(0, shape[0] * 2 // 3)), int(rng.integers(0, shape[1] * 2 // 3))
        tall, wide = int(rng.integers(40, shape[0] // 2)), int(rng.integers(40, shape[1] // 2))
        part = made[top : top + tall, left : left + wide]
        part[...] = _DRAWN[str(rng.choice(["CT", "MR", "XA"]))](rng, (part.shape[0], part.shape[1]))
        cv2.rectangle(made, (left, top), (left + wide, top + tall), float(rng.uniform(0, 255)), 1)
    return made


_DRAWN: dict[str, Callable[[Rng, tuple[int, int]], Array]] = {
    "CT": _ct, "MR": _mr, "CR": _cr, "DX": _dx, "MG": _mg, "US": _us, "XA": _xa, "NM": _nm, "PT": _nm, "SC": _sc,
}  # fmt: skip


def _ruler(rng: Rng, made: Array) -> None:
    rows, columns = made.shape
    bright, step, x = float(rng.uniform(120, 255)), int(rng.integers(4, 20)), int(rng.integers(4, columns - 12))
    first = int(rng.integers(0, rows // 3))
    last = int(rng.integers(rows // 2, rows))
    for number, y in enumerate(range(first, last, step)):
        cv2.line(made, (x, y), (x + (9 if number % 5 == 0 else 4), y), bright, 1)
    if rng.random() < 0.5:
        cv2.line(made, (x, first), (x, last), bright, 1)
    if rng.random() < 0.5:
        # Across as well, at the lower edge.
        y = int(rows * rng.uniform(0.85, 0.97))
        for x in range(columns // 5, columns * 4 // 5, step):
            cv2.line(made, (x, y), (x, y - int(rng.choice([4, 8]))), bright, 1)


def _lattice(rng: Rng, made: Array) -> None:
    step = int(rng.integers(6, 40))
    top, left = int(rng.integers(0, made.shape[0] // 2)), int(rng.integers(0, made.shape[1] // 2))
    part = made[top : top + step * 6, left : left + step * 6]
    part[::step] = rng.uniform(100, 255)
    part[:, ::step] = rng.uniform(100, 255)


def _dots(rng: Rng, made: Array) -> None:
    """Staples, seeds or calcifications: a cluster of small bright things, sometimes in a row."""
    rows, columns = made.shape
    cy, cx = rng.uniform(0.1, 0.9) * rows, rng.uniform(0.1, 0.9) * columns
    size = int(rng.integers(1, max(2, rows // 120) + 2))
    in_a_row = rng.random() < 0.5
    for number in range(int(rng.integers(4, 25))):
        x = cx + number * size * 3.5 if in_a_row else cx + rng.normal(0, rows / 25)
        y = cy + (rng.normal(0, 0.6) if in_a_row else rng.normal(0, rows / 25))
        if rng.random() < 0.5:
            cv2.circle(made, (int(x), int(y)), size, float(rng.uniform(180, 255)), -1, cv2.LINE_AA)
        else:
            cv2.line(
                made, (int(x), int(y)), (int(x) + size * 2, int(y) + int(rng.integers(-size, size + 1))), float(rng.uniform(180, 255)), size
            )


def _wire(rng: Rng, made: Array) -> None:
    rows, columns = made.shape
    steps = 80
    turns = np.cumsum(rng.normal(0, 0.25, steps)) + rng.uniform(0, 6.3)
    points = np.stack([np.cos(turns), np.sin(turns)], axis=1).cumsum(axis=0) * min(rows, columns) / 60
    points += rng.uniform(0.2, 0.8, 2) * (columns, rows)
    cv2.polylines(made, [points.astype(np.int32)], False, float(rng.uniform(0, 255)), int(rng.integers(1, 4)), cv2.LINE_AA)


def _implant(rng: Rng, made: Array) -> None:
    """A screw or a stent: zigzag between two lines."""
    rows, columns = made.shape
    length, wide = int(min(rows, columns) * rng.uniform(0.1, 0.3)), int(rng.integers(4, max(5, rows // 40) + 4))
    y, x = int(rng.integers(0, rows - wide)), int(rng.integers(0, max(1, columns - length)))
    step = max(2, wide // 2)
    points = np.array([(x + n, y + (wide if (n // step) % 2 else 0)) for n in range(0, length, step)], np.int32)
    turn = cv2.getRotationMatrix2D((x + length / 2, y + wide / 2), float(rng.uniform(-90, 90)), 1)
    points = (points @ turn[:, :2].T + turn[:, 2]).astype(np.int32)
    cv2.polylines(made, [points], False, float(rng.uniform(180, 255)), int(rng.integers(1, 4)), cv2.LINE_AA)


def _calliper(rng: Rng, made: Array) -> None:
    """Crosses joined by a dotted line, an arrow, or an ellipse, as measurements leave."""
    rows, columns = made.shape
    bright = float(rng.uniform(150, 255))
    first, second = (rng.uniform(0.1, 0.9, 2) * (columns, rows) for _ in range(2))
    if rng.random() < 0.4:
        cv2.arrowedLine(
            made, (int(first[0]), int(first[1])), (int(second[0]), int(second[1])), bright, int(rng.integers(1, 3)), cv2.LINE_AA
        )
        return
    for share in np.linspace(0, 1, int(rng.integers(8, 40))):
        x, y = (first + share * (second - first)).astype(int)
        cv2.circle(made, (int(x), int(y)), 1, bright, -1)
    for x, y in (first.astype(int), second.astype(int)):
        cv2.line(made, (x - 5, y), (x + 5, y), bright, 1)
        cv2.line(made, (x, y - 5), (x, y + 5), bright, 1)


def _bars(rng: Rng, made: Array) -> None:
    """A step wedge or a grey scale at an edge."""
    rows, columns = made.shape
    wide, tall = max(8, columns // 30), max(6, rows // 40)
    x, y = int(rng.integers(0, columns - wide)), int(rng.integers(0, rows // 2))
    for number in range(int(rng.integers(6, 16))):
        made[y + number * tall : y + number * tall + tall, x : x + wide] = 255 - number * 16


def side_letter(rng: Rng, made: Array) -> None:
    """The lead letter of a side, or one letter at an edge: of no more than two letters, and so no text by our rules."""
    rows, columns = made.shape
    height = int(rng.integers(10, max(12, min(60, rows // 10))))
    glyphs = rendered(str(rng.choice(["R", "L", "A", "P", "H", "F"])), "stroke" if rng.random() < 0.5 else "", height, rng)
    y, x = _place(rng, rows - glyphs.shape[0], 3, True), _place(rng, columns - glyphs.shape[1], 3, True)
    part = made[y : y + glyphs.shape[0], x : x + glyphs.shape[1]]
    part[...] = part * (1 - glyphs) + np.float32(rng.uniform(200, 255)) * glyphs


HARD: tuple[Callable[[Rng, Array], None], ...] = (_ruler, _lattice, _dots, _wire, _implant, _calliper, _bars, side_letter)
