"""A picture that somebody brings along: decoded from memory with care, a box drawn on it, and the crop in the box.

Nothing here touches a disk. A box is left, top, width, height in whole pixels. Legend: H, W size of a picture.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lab.errors import InputError
from lab.show.figures import QUERY
from lab.show.images import MAX_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_MEGABYTES = 10
LEAST = 8  # pixels of a side that still show something
Box = tuple[int, int, int, int]


def decode_upload(record: bytes) -> np.ndarray:
    """The bytes of a picture file as RGB (H, W, 3) uint8, turned as its EXIF note says.

    Raises InputError, in a sentence that can be shown, for what is too large, is no JPEG, PNG or WebP, is cut off, or
    has several frames.
    """
    if len(record) > MAX_MEGABYTES * 1_000_000:
        raise InputError(f"The file has {len(record) / 1e6:.1f} MB; expected at most {MAX_MEGABYTES}: save it smaller.")
    try:
        with Image.open(io.BytesIO(record), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"The picture claims {image.width:,} x {image.height:,} pixels; expected at most {MAX_PIXELS:,} in "
                    "all: save it smaller."
                )
            # a phone's JPEG may hold a second picture beside the one that is shown, which does no harm
            if image.format != "MPO" and getattr(image, "is_animated", False):
                raise InputError(f"The picture has {image.n_frames} frames; expected one: save one of them alone.")
            picture = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"The picture claims far too many pixels; expected at most {MAX_PIXELS:,}.") from error
    except Exception as error:  # on broken files Pillow raises nearly anything
        raise InputError(
            "The file cannot be read as a picture; expected a whole JPEG, PNG or WebP file: open it in another program "
            "and save it again."
        ) from error
    if min(picture.shape[:2]) < LEAST:
        raise InputError(f"The picture has {_size(picture)} pixels; expected at least {LEAST} on each side.")
    return picture


def clip_box(box: tuple[float, float, float, float], picture: np.ndarray) -> Box:
    """The part of a box that lies in the picture, in whole pixels. Raises InputError if next to nothing does."""
    x, y, width, height = box
    left, top = max(0, round(x)), max(0, round(y))
    right, bottom = min(picture.shape[1], round(x + width)), min(picture.shape[0], round(y + height))
    if min(right - left, bottom - top) < LEAST:
        raise InputError(
            f"The box has {max(0, right - left)} x {max(0, bottom - top)} pixels; expected at least {LEAST} on each side."
        )
    return left, top, right - left, bottom - top


def cut_box(picture: np.ndarray, box: Box) -> np.ndarray:
    """The crop (height, width, 3) in a box that lies in the picture."""
    left, top, width, height = box
    return picture[top : top + height, left : left + width].copy()


def draw_boxes(
    picture: np.ndarray, chosen: Box, others: Mapping[str, Box] | None = None, most: int = 960
) -> np.ndarray:
    """A picture, at most `most` pixels wide and high, with the chosen box in thick blue and the others thin, by name."""
    scale = min(1.0, most / max(picture.shape[:2]))
    image = Image.fromarray(picture)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    draw = ImageDraw.Draw(image)
    others = others or {}
    for corners in (_corners(box, scale) for box in others.values()):
        draw.rectangle(corners, outline="black", width=3)
        draw.rectangle([corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1], outline="white", width=1)
    corners = _corners(chosen, scale)
    draw.rectangle([corners[0] - 2, corners[1] - 2, corners[2] + 2, corners[3] + 2], outline="white", width=8)
    draw.rectangle(corners, outline=QUERY, width=4)
    for name, box in others.items():
        _draw_name(draw, _corners(box, scale), name)
    return np.array(image)


def _draw_name(draw: ImageDraw.ImageDraw, corners: list[int], name: str) -> None:
    """A name on white above a box."""
    place, font = (corners[0] + 3, max(corners[1] - 21, 1)), _font(16)
    left, top, right, bottom = draw.textbbox(place, name, font=font)
    draw.rectangle((left - 3, top - 3, right + 3, bottom + 3), fill="white", outline="black")
    draw.text(place, name, fill="black", font=font)


def _corners(box: Box, scale: float) -> list[int]:
    left, top, width, height = box
    right, bottom = left + width - 1, top + height - 1
    return [round(scale * value) for value in (left, top, right, bottom)]


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The bold font of the figures, which comes with matplotlib."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf", size)


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
