"""Which boxes of a video deserve to become crops: what is known from the box alone, and what its pixels say.

All boxes are in pixels of the frame that they are cut from (`scaled` brings them there), and a frame's size is (height,
width) as for arrays. Legend: N boxes.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from lab.data.hashes import bits_apart, perceptual_hash
from lab.data.video.detections import Boxes
from lab.data.video.settings import BuildConfig

# A frame (H, W, 3) and boxes (N, 4) -> of which persons enough is seen, (N,) bool
KeypointRule = Callable[[np.ndarray, np.ndarray], np.ndarray]

HEAD = 1 / 6  # of a person's height, from the top
MAX_OUTSIDE = 0.05  # of a detection file's boxes, mostly outside the frame: more are a file of another video
MAX_LATE = 0.01  # of a video's frames by which detections may be late: containers miscount
FEW = 2  # so many boxes or frames are never a reason to doubt a file


def scaled(boxes: Boxes, size: tuple[int, int], config: BuildConfig) -> Boxes:
    """Boxes in pixels of this video, when they were found in a copy of `config.frame_height` pixels height."""
    if config.frame_height is None:
        return boxes
    return replace(boxes, box=boxes.box * (size[0] / config.frame_height))


def select(boxes: Boxes, size: tuple[int, int], config: BuildConfig, dropped: Counter[str]) -> Boxes:
    """The boxes that pass every filter which needs no pixels, so that frames without any are never decoded.

    A box counts as large as what the frame shows of it, before rounding: score and width have to be above their
    limits, height / width within them (paper, section 3). Each box left out is counted in `dropped` once, under the
    first reason that applies.
    """
    x0, y0, x1, y1 = pixel_corners(boxes, size).T
    width, height = visible_sides(boxes, size).T
    reasons = {
        "outside the frame": (width <= 0) | (height <= 0),
        "low score": boxes.score <= config.min_score,  # no score, NaN, is not low
        "too narrow": width <= config.min_width,
        "too flat": height < config.min_aspect * width,
        "too tall": height > config.max_aspect * width,
        "less than a pixel": (x1 <= x0) | (y1 <= y0),
    }
    passed = np.ones(len(boxes), dtype=bool)
    for reason, applies in reasons.items():
        dropped += Counter({reason: int((passed & applies).sum())})
        passed &= ~applies
    return boxes[passed]


def visible_sides(boxes: Boxes, size: tuple[int, int]) -> np.ndarray:
    """Width and height (N, 2) of the part of each box that lies in the frame; not positive where none does."""
    start, sides = boxes.box[:, :2], boxes.box[:, 2:]
    before, after = np.maximum(-start, 0), np.maximum(start + sides - size[::-1], 0)
    return sides - before - after  # and not end - start, which rounds: 64.4 - 16.4 is not 48


def pixel_corners(boxes: Boxes, size: tuple[int, int]) -> np.ndarray:
    """Corners x0, y0, x1, y1 (N, 4) int64 for frame[y0:y1, x0:x1]: numpy's rounding, half to even, kept in the frame."""
    start, sides = boxes.box[:, :2], boxes.box[:, 2:]
    return np.clip(np.round(np.hstack([start, start + sides])), 0, size[::-1] * 2).astype(np.int64)


def mismatch(boxes: Boxes, frames_in_video: int, size: tuple[int, int]) -> str | None:
    """What shows that these detections belong to another video or another copy of it, as a part of a sentence.

    `frames_in_video` is how many frames of an undamaged video could be read when these boxes' frames were wanted, 0
    where that is not known (yet): then only the frame's size is looked at. Boxes found in a *smaller* copy all lie
    inside, so nothing can tell.
    """
    area, seen = np.prod(boxes.box[:, 2:], axis=1), np.prod(np.maximum(visible_sides(boxes, size), 0), axis=1)
    outside = int((seen < area / 2).sum())
    if outside > max(FEW, MAX_OUTSIDE * len(boxes)):
        return (
            f"{outside} of {len(boxes)} boxes lie mostly outside its frame of {size[1]} x {size[0]} pixels; if they were "
            "found in a copy of another size, give its height in pixels with --frame-height"
        )
    last = int(boxes.frame.max(initial=0))
    if frames_in_video and last - frames_in_video > max(FEW, MAX_LATE * frames_in_video):
        return f"its detections go on to frame {last} and it ends at frame {frames_in_video}"
    return None


def sharpness(rgb: np.ndarray) -> float:
    """Variance of the Laplacian of the grey picture (H, W, 3) uint8: near 0 when it is blurred, hundreds when sharp."""
    return float(cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


class PixelFilters:
    """The filters that look at pixels, the cheapest first; remembers each tracklet's last kept crop."""

    def __init__(self, config: BuildConfig, keypoints: KeypointRule | None, dropped: Counter[str]):
        self.config, self.keypoints, self.dropped = config, keypoints, dropped
        self.last: dict[int, np.uint64] = {}  # tracklet -> perceptual hash

    def keep(self, rgb: np.ndarray, crops: list[np.ndarray], box: np.ndarray, track: np.ndarray) -> list[int]:
        """Which crops of this frame are kept, by their position; the others are counted, each under one reason.

        `rgb` is the frame, `box` (N, 4) and `track` (N,) are those of the N `crops`. The key points come last, since
        their network costs more than all the rest, and once for a frame.
        """
        least, change = self.config.min_sharpness, self.config.min_change
        sharp = [i for i, crop in enumerate(crops) if not least or sharpness(crop) >= least]
        hashes = {i: perceptual_hash(crops[i]) for i in sharp if change and track[i] >= 0}
        fresh = [
            i
            for i in sharp
            if i not in hashes or track[i] not in self.last or bits_apart(hashes[i], self.last[track[i]]) >= change
        ]
        shown = fresh
        if fresh and self.keypoints is not None:
            shown = list(np.array(fresh)[self.keypoints(rgb, box[fresh])])
        self.dropped += Counter(
            {
                "blurred": len(crops) - len(sharp),
                "near-duplicate": len(sharp) - len(fresh),
                "key points": len(fresh) - len(shown),
            }
        )
        self.last.update({track[i]: hashes[i] for i in shown if i in hashes})
        return shown


def blur_heads(rgb: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A copy of the frame (H, W, 3) uint8 in which the upper sixth of every box (N, 4) is blurred beyond recognition.

    The blur is Gaussian, its sigma a sixth of the box's width, about a third of a head.
    """
    blurred = rgb.copy()
    height, width = rgb.shape[:2]
    for x, y, w, h in box:
        x0, x1 = np.clip([np.floor(x), np.ceil(x + w)], 0, width).astype(int)
        y0, y1 = np.clip([np.floor(y), np.ceil(y + HEAD * h)], 0, height).astype(int)
        if x0 < x1 and y0 < y1:
            sigma = max(min(w, width) / 6, 3)
            blurred[y0:y1, x0:x1] = cv2.GaussianBlur(blurred[y0:y1, x0:x1], (0, 0), sigma)
    return blurred
