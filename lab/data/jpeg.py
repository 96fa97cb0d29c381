"""How the bytes of an image file become pixels: the fast way for plain JPEG, Pillow for all else.

Reading crops is most of what a data loader does, and decoding is most of reading. libjpeg-turbo called directly
(simplejpeg) gives the pixels that Pillow gives, in a quarter of the time.
"""

import io
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

# A crop is small. Above this number of pixels Pillow warns, above twice as many it refuses (a decompression bomb).
Image.MAX_IMAGE_PIXELS = 64_000_000

JPEG_START = b"\xff\xd8\xff"
NOTE = b"\xff\xe1"  # begins a note (EXIF, XMP) that may say which side is up; coded pixels never hold these two bytes
SIGNATURES = {JPEG_START: ".jpg", b"\x89PNG\r\n\x1a\n": ".png", b"BM": ".bmp"}


def decode(record: bytes) -> np.ndarray:
    """The pixels of an image file's bytes, (H, W, 3) uint8 RGB: those of `read_image`, sooner if it is a plain JPEG.

    Raises OSError for what `read_image` refuses. A JPEG that libjpeg complains about goes to Pillow, which refuses one
    that is cut short and mends small damage, so that both ways take and refuse the same files.
    """
    if record.startswith(JPEG_START) and NOTE not in record:
        with suppress(ValueError):  # a complaint: Pillow decides
            height, width, colours, _ = simplejpeg.decode_jpeg_header(record)
            if colours in ("YCbCr", "Gray", "RGB") and height * width <= Image.MAX_IMAGE_PIXELS:
                return simplejpeg.decode_jpeg(record)
    return np.array(read_image(record))


def read_image(source: str | Path | bytes, cut_out: bool = False) -> Image.Image:
    """Decode a picture into RGB, turned the way its EXIF note says; grey, palette and CMYK files become RGB too.

    `source` is a path or the file's bytes. A `cut_out` becomes RGBA, its alpha says where the person is. Raises
    OSError for a file that is missing, truncated, no picture, or that was to be a cut-out and has no alpha.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(stream) as image:
            if cut_out and "A" not in image.getbands():
                raise OSError("it has no alpha channel that says where the person is")
            return ImageOps.exif_transpose(image).convert("RGBA" if cut_out else "RGB")
    except OSError:
        raise
    except Exception as error:  # on broken files Pillow raises nearly anything, TypeError and struct.error among them
        raise OSError(f"not a readable picture: {error}") from error


def image_suffix(record: bytes) -> str:
    """What a file with these bytes is called by its format, such as ".jpg".

    Formats are those whose endings `list_images` knows. Any other record, a broken one too, is called .jpg, so that the
    file is not passed over: Pillow goes by the contents, and who cannot read it says so.
    """
    if record[:4] == b"RIFF" and record[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in SIGNATURES.items() if record.startswith(start)), ".jpg")


def find_unreadable(paths: Iterable[str]) -> dict[str, str]:
    """Decode every picture and return those that cannot be read, path -> reason."""
    unreadable = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                decode(file.read())
        except OSError as error:
            unreadable[str(path)] = str(error)
    return unreadable
