"""Frames with and without text, for the tests of the text detector: anatomy-like, seeded, nothing fetched."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = ("outline", "bitmap", "stroke")


def anatomy(seed: int, shape: tuple[int, int] = (128, 160)) -> np.ndarray:
    """A body-like frame of about -1000 to 1400: a smooth oval with texture, two dark holes, a bright ring, noise. int16."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    texture = cv2.GaussianBlur(rng.normal(0, 400, shape), (0, 0), 5)
    radius = np.hypot(x * 1.2, y * 1.1)
    body = np.where(radius < 0.85, 40 + texture, -1000)
    body[(np.hypot((x - 0.3) * 2.2, y * 1.6) < 0.6) | (np.hypot((x + 0.3) * 2.2, y * 1.6) < 0.6)] = -850
    body[np.abs(radius - 0.82) < 0.04] = 1200
    return (cv2.GaussianBlur(body, (0, 0), 0.8) + rng.normal(0, 18, shape)).astype(np.int16)


def letters(text: str, font: str, height: int) -> np.ndarray:
    """A line of text as coverage of 0 to 1; ``height`` is about that of a capital and its descender."""
    if font == "stroke":
        scale = height / 30
        (width, tall), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        canvas = np.zeros((tall + below + 4, width + 4), np.uint8)
        cv2.putText(canvas, text, (2, tall + 1), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
        return canvas / 255
    face = ImageFont.load_default_imagefont() if font == "bitmap" else ImageFont.load_default(height)
    _, _, right, bottom = face.getbbox(text)
    image = Image.new("L", (int(right) + 4, int(bottom) + 4))
    ImageDraw.Draw(image).text((2, 2), text, fill=255, font=face)
    return np.asarray(image) / 255


def burn(frame: np.ndarray, text: str, at: tuple[int, int], font: str = "outline", height: int = 14, dark: bool = False) -> np.ndarray:
    """The frame with a line of text at (row, column): in its highest value, or in its lowest on a banner of the highest."""
    glyphs = letters(text, font, height)
    made = frame.astype(np.float64)
    part = made[at[0] : at[0] + glyphs.shape[0], at[1] : at[1] + glyphs.shape[1]]
    if part.shape != glyphs.shape:
        raise ValueError("the text does not fit into the frame")
    ground, ink = (frame.max(), frame.min()) if dark else (part.copy(), frame.max())
    part[...] = ground * (1 - glyphs) + float(ink) * glyphs
    return made.round().astype(frame.dtype)


def inked(shape: tuple[int, int], text: str, at: tuple[int, int], font: str = "outline", height: int = 14) -> np.ndarray:
    """Where `burn` puts ink that can be seen."""
    glyphs = letters(text, font, height)
    where = np.zeros(shape, bool)
    where[at[0] : at[0] + glyphs.shape[0], at[1] : at[1] + glyphs.shape[1]] = glyphs > 0.2
    return where
