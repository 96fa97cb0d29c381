"""Tracklets: boxes of consecutive frames that overlap are probably the same person (LUPerson-NL's noisy identity).

Legend: M boxes of tracklets that may go on, N boxes of the present frame.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from lab.data.video.detections import Boxes

LONGEST_STEP = (
    30  # frames from one look of a detector to the next, about a second: where people are rare it looks longer
)


def iou_tracks(boxes: Boxes, min_iou: float = 0.3, max_gap: int = 10) -> np.ndarray:
    """Follow people from frame to frame by the overlap of their boxes; no look at the pixels, so people are mixed up.

    Boxes of one frame go to the tracklets' last boxes so that the sum of intersection over union is largest; a pair
    below `min_iou` is none. A tracklet ends when its person was not found `max_gap` times in a row; frames are counted
    in steps of the detector, which may have seen only every tenth frame. Returns the tracklet of each box (N,) int64,
    numbered from 0 in order of appearance. The boxes' own `track` is not looked at.
    """
    track = np.full(len(boxes), -1, dtype=np.int64)
    frames, first, count = np.unique(boxes.frame, return_index=True, return_counts=True)
    step = min(np.diff(frames).min(), LONGEST_STEP) if len(frames) > 1 else 1
    longest = max_gap * step  # frames between two boxes of a person
    last = np.empty(0, dtype=np.int64)  # (M,) index of each open tracklet's last box
    started = 0
    for frame, start, end in zip(frames, first, first + count, strict=True):
        last = last[boxes.frame[last] >= frame - longest]
        old, new = assign(iou(boxes.box[last], boxes.box[start:end]), min_iou)
        track[start + new] = track[last[old]]
        begins = start + np.flatnonzero(track[start:end] < 0)
        track[begins] = started + np.arange(len(begins))
        started += len(begins)
        last = np.concatenate([np.delete(last, old), np.arange(start, end)])
    return track


def assign(overlap: np.ndarray, min_iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, column) of an (M, N) table, each used once, whose summed overlap is largest; two (P,) index arrays."""
    allowed = np.where(overlap >= min_iou, overlap, 0)  # before: else a pair that is none pushes a good one aside
    row, column = linear_sum_assignment(allowed, maximize=True)
    paired = allowed[row, column] > 0
    return row[paired], column[paired]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of (M, 4) with (N, 4) boxes x, y, width, height, as (M, N) from 0 to 1."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:]) - corner
    shared = np.prod(np.maximum(sides, 0), axis=2)
    union = np.prod(a[:, 2:], axis=1)[:, None] + np.prod(b[:, 2:], axis=1)[None] - shared
    return shared / np.maximum(union, np.finfo(float).tiny)  # two boxes without area have no union
