"""Pictures that tests make for themselves."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_person(file: Path, pid: int, camid: int, variant: int = 0, size: tuple[int, int] = (32, 64)) -> None:
    """A picture whose two colours belong to the person; the camera changes the brightness a little."""
    random = np.random.default_rng([max(pid, 0), 7])
    top, bottom = random.integers(30, 225, (2, 3))
    noise = np.random.default_rng([max(pid, 0), camid, variant]).integers(-12, 13, (size[1], size[0], 3))
    picture = np.empty((size[1], size[0], 3), dtype=np.int64)
    picture[: size[1] // 2], picture[size[1] // 2 :] = top, bottom
    pixels = np.clip(picture + noise + 6 * camid, 0, 255).astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=95)
