"""Small videos for tests: every frame says its number in black and white squares, and rectangles walk across it."""

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

BITS, SQUARE = 12, 16  # the number of a frame is 12 squares of 16 x 16 pixels along the top, the lowest bit first
SIZE = (128, 256)  # height, width of a frame; the squares take 192 pixels


def numbered(count: int, size: tuple[int, int] = SIZE, first: int = 1) -> list[np.ndarray]:
    """Frames (height, width, 3) uint8 that show the numbers `first`, …, and two walking rectangles."""
    frames = []
    for number in range(first, first + count):
        frame = np.full((*size, 3), (90, 120, 100), dtype=np.uint8)
        for bit in range(BITS):
            frame[:SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = 255 * (number >> bit & 1)
        x = 3 * number % (size[1] - 24)
        frame[40:96, x : x + 24] = (200, 40, 30)
        frame[56:112, size[1] - 24 - x : size[1] - x] = (30, 60, 210)
        frames.append(frame)
    return frames


def number_of(rgb: np.ndarray) -> int:
    """The number that a decoded frame shows: robust to compression, as only the middle of each square is looked at."""
    middles = rgb[SQUARE // 2, SQUARE // 2 : BITS * SQUARE : SQUARE].mean(axis=1)
    return sum(1 << bit for bit, value in enumerate(middles) if value > 127)


def write_video(
    file: Path,
    frames: Iterable[np.ndarray] | int,
    fps: int = 10,
    codec: str = "mpeg4",
    gop: int = 12,
    bframes: int = 0,
    times: Iterable[int] | None = None,
    pixels: str = "yuv420p",
) -> Path:
    """Write frames (H, W, 3) uint8, or that many numbered ones; the container follows from the suffix. Returns `file`.

    `gop`: frames from a key frame to the next; `bframes`: frames in a row that are stored after later ones; `times`: when
    each frame is shown, in hundredths of a second, for a rate that varies.
    """
    frames = numbered(frames) if isinstance(frames, int) else list(frames)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=100 if times else fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size, stream.max_b_frames = pixels, gop, bframes
        stream.bit_rate = 2_000_000
        times = list(times) if times else range(len(frames))
        for time, frame in zip(times, frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = time
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file


def write_sound(file: Path) -> Path:
    """A file with half a second of silence and no video."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4000), dtype=np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return file


def cut_off(file: Path, share: float) -> Path:
    """Keep the first `share` of a file's bytes. An mp4 keeps its table at the end and cannot be opened any more."""
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    return file


def damage(file: Path, at: float, length: int = 400, seed: int = 0) -> Path:
    """Overwrite `length` bytes of a file, from the share `at` of it on, with random ones."""
    content = bytearray(file.read_bytes())
    start = int(len(content) * at)
    content[start : start + length] = np.random.default_rng(seed).bytes(length)[: len(content) - start]
    file.write_bytes(content)
    return file
