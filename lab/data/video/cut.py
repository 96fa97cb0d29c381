"""From the frames of a video and the boxes of its people to JPEG crops, as the published extraction cuts them.

    found = prepare(boxes, size, config)                 boxes in pixels of this video, tracklets
    chosen = select(found, size, config, dropped)        the filters that need no pixels (filters.py)
    frames = FrameReader(file, np.unique(chosen.frame))  only frames with boxes are decoded to RGB
    for crop in cut(frames, chosen, size, config, dropped): ...

`size` is (height, width) of the video's frames; `dropped` counts, by reason, the boxes that became no crop.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lab.data.video.detections import Boxes
from lab.data.video.filters import KeypointRule, PixelFilters, blur_heads, pixel_corners, scaled, visible_sides
from lab.data.video.settings import BuildConfig
from lab.data.video.tracks import iou_tracks


@dataclass(frozen=True)
class Crop:
    """One person of one frame as a JPEG file, and where it comes from."""

    jpeg: bytes
    frame: int  # 1-based
    box: tuple[float, float, float, float]  # x, y, width, height in the video's pixels, as detected
    score: float  # NaN unknown
    track: int  # -1 unknown
    height: int  # pixels of the crop
    width: int
    clipped: bool  # the box reached over the frame's edge


def prepare(boxes: Boxes, size: tuple[int, int], config: BuildConfig) -> Boxes:
    """All boxes of a video in its own pixels, with tracklets by overlap if they are asked for or thinning needs them.

    Tracklets come before any filter: who is too small in one frame is still the same person in the next.
    """
    boxes = scaled(boxes, size, config)
    if config.track == "iou" or (config.min_change and (boxes.track < 0).all()):
        boxes = replace(boxes, track=iou_tracks(boxes))
    return boxes


def cut(
    frames: Iterable[tuple[int, np.ndarray]],
    boxes: Boxes,
    size: tuple[int, int],
    config: BuildConfig,
    dropped: Counter[str],
    heads: Boxes | None = None,
    keypoints: KeypointRule | None = None,
) -> Iterator[Crop]:
    """Yield the crops of the selected `boxes`, by frame and within a frame in the detection file's order.

    `frames` yields (number, RGB (H, W, 3) uint8), numbers ascending. With `heads`, the upper sixth of all those boxes
    of the frame is blurred in the crops; the filters see the frame as it was, so the same crops are kept. `keypoints`
    is the loaded rule that says whether enough of a person is seen. Boxes of frames that never come are counted as
    "frame not decoded" when `frames` ends. The same frames give the same bytes.
    """
    corners = pixel_corners(boxes, size)
    clipped = (visible_sides(boxes, size) < boxes.box[:, 2:]).any(axis=1)
    filters = PixelFilters(config, keypoints, dropped)
    waiting = len(boxes)
    for number, rgb in frames:
        first, end = np.searchsorted(boxes.frame, [number, number + 1])
        waiting -= end - first
        pictures = [rgb[y0:y1, x0:x1] for x0, y0, x1, y1 in corners[first:end]]
        kept = filters.keep(rgb, pictures, boxes.box[first:end], boxes.track[first:end])
        if kept and heads is not None:
            rgb = blur_heads(rgb, heads.box[slice(*np.searchsorted(heads.frame, [number, number + 1]))])
        for i in first + np.array(kept, dtype=int):
            x0, y0, x1, y1 = corners[i]
            yield Crop(
                encode(rgb[y0:y1, x0:x1], config.quality),
                number,
                tuple(boxes.box[i].tolist()),
                float(boxes.score[i]),
                int(boxes.track[i]),
                int(y1 - y0),
                int(x1 - x0),
                bool(clipped[i]),
            )
    dropped += Counter({"frame not decoded": int(waiting)})


def encode(rgb: np.ndarray, quality: int) -> bytes:
    """A picture (H, W, 3) uint8 as a JPEG file, by OpenCV as for the released crops."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
