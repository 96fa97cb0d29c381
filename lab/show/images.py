"""Find and read the picture behind a path in a result, with Pillow alone so that showing results needs no torch."""

import io
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image, ImageDraw, ImageOps

MAX_PIXELS = 64_000_000  # a crop is small; what claims to be larger is not decoded
MAX_HEIGHT = 512  # pixels that a figure can make use of

ImageLoader = Callable[[str], np.ndarray | None]


def find_image(path: str, root: str | Path | None = None) -> Path | None:
    """The file that `path` names: where it says, or else below `root` under the longest ending of it that exists.

    A result carries the paths of the machine that made it: `/their/disk/data/query/0002_c1.jpg` is found as
    `query/0002_c1.jpg` in the root of the same data set here. None when there is no such file.
    """
    if not path:
        return None
    if os.path.isfile(path):
        return Path(path)
    if root is None:
        return None
    pure = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    parts = [part for part in pure.parts if part not in (pure.anchor, "..")]
    endings = (Path(root).joinpath(*parts[start:]) for start in range(len(parts)))
    return next((ending for ending in endings if ending.is_file()), None)


def read_picture(path: str, root: str | Path | None = None) -> np.ndarray | None:
    """RGB (H, W, 3) uint8, turned as its EXIF note says and at most 512 pixels high; None if it cannot be shown."""
    file = find_image(path, root)
    if file is None:
        return None
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image.thumbnail((2 * MAX_HEIGHT, MAX_HEIGHT))
    return np.array(image)


def to_thumbnail(picture: np.ndarray | None, width: int = 96) -> bytes:
    """A picture (H, W, 3) uint8 as a JPEG file of `width` x 2 `width` pixels, whole and on grey; None is a grey tile."""
    tile = Image.new("RGB", (width, 2 * width), "#E6E6E6")
    if picture is not None:
        image = ImageOps.contain(Image.fromarray(picture), tile.size)
        tile.paste(image, ((width - image.width) // 2, (2 * width - image.height) // 2))
    else:
        ImageDraw.Draw(tile).text((width / 2, width), "no image", fill="#555555", anchor="mm")
    stream = io.BytesIO()
    tile.save(stream, format="JPEG", quality=85)
    return stream.getvalue()


def file_name(path: str) -> str:
    """The last part of a path, whichever system wrote it."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]
