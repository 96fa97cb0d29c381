"""A short video of a street: synthetic people walk past one camera, and what a person detector might say about it.

What `lab data build` cuts crops from is a video and boxes; here both are drawn, so that the way from frames to crops can
be shown without a real person and without a decoder. Legend: N boxes.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from lab.data.synthetic.cameras import Camera, background, camera, sense
from lab.data.synthetic.draw import Canvas, generator
from lab.data.synthetic.figure import Painter, Pose, skeleton
from lab.data.synthetic.people import Person, person
from lab.data.video.detections import Boxes
from lab.errors import InputError

PEDESTRIANS = 700_000_000  # pids of people who are in no data set
FAR, NEAR = 0.17, 0.62  # heights of people at the horizon and at the lower edge, as shares of the frame's height
HORIZON = 0.5  # where the ground ends, as a share of the frame's height from the top


@dataclass(frozen=True)
class Walker:
    """One person on their way: where in depth (0 far, 1 near), where at frame 1, and how fast."""

    who: Person
    depth: float
    start: float  # pixels from the left edge
    step: float  # pixels from frame to frame; negative walks to the left
    phase: float


def draw_street(
    frames: int = 8, people: int = 9, seed: int = 0, camid: int = 1, height: int = 432, width: int = 768
) -> tuple[list[np.ndarray], Boxes]:
    """Frames (height, width, 3) uint8 RGB of people crossing a street, and a detector's boxes: same arguments, same bytes.

    The boxes have the mistakes of real ones: they shift a little, score lower where somebody is far away or half hidden,
    reach over the frame's edge, and now and then take an upper body for a person. `track` numbers the people from 0.
    """
    if frames < 1 or people < 1 or min(height, width) < 64:
        raise InputError(
            f"cannot draw {frames} frames of {people} people with {height} x {width} pixels; expected at least one of "
            "each, and 64 pixels: change them"
        )
    view = camera(seed, camid)
    rng = generator(seed, 11, camid)
    walkers = [_walker(rng, seed, number, people, height, width) for number in range(people)]
    walkers.sort(key=lambda walker: walker.depth)  # far people first: the near ones hide them
    scene = background(view, rng.uniform(0, 1), 0.5, 256 / view.place.shape[0], height, width)
    pictures, rows = [], []
    for frame in range(1, frames + 1):
        canvas = Canvas(scene.copy(), view.light)
        poses = [_pose(walker, view, frame, height) for walker in walkers]
        covers = [_paint(canvas, walker, pose) for walker, pose in zip(walkers, poses, strict=True)]
        sharp = replace(view, blur=0.5 * 128 / height)  # the sensor blurs pixels of the frame, not of a crop
        pictures.append(sense(sharp, canvas.rgb, generator(seed, 12, camid, frame), 1.0))
        hidden = np.zeros((height, width), np.float32)
        for number in reversed(range(people)):
            seen = float((covers[number] * (1 - hidden)).sum() / max(covers[number].sum(), 1))
            hidden = np.maximum(hidden, covers[number])
            found = _detect(rng, walkers[number].who, poses[number], seen, width)
            rows += [(frame, *box, score, number) for box, score in found]
    table = np.array(sorted(rows), dtype=np.float64).reshape(-1, 7)
    frame, track = table[:, 0].astype(np.int64), table[:, 6].astype(np.int64)
    return pictures, Boxes(frame, table[:, 1:5].copy(), table[:, 5].copy(), track)


def _walker(rng: np.random.Generator, seed: int, number: int, people: int, height: int, width: int) -> Walker:
    depth = (number + rng.uniform(0.1, 0.9)) / people
    size = (FAR + (NEAR - FAR) * depth) * height
    step = float(rng.choice([-1, 1])) * size * rng.uniform(0.12, 0.2)
    return Walker(person(seed, PEDESTRIANS + number), depth, rng.uniform(0, width), step, rng.uniform(0, 2 * math.pi))


def _pose(walker: Walker, view: Camera, frame: int, height: int) -> Pose:
    size = (FAR + (NEAR - FAR) * walker.depth) * height
    feet = (HORIZON + (1.0 - HORIZON) * walker.depth) * height
    yaw = math.copysign(math.pi / 2.3, walker.step)
    x = walker.start + walker.step * (frame - 1)
    return Pose(walker.phase + 0.9 * (frame - 1), yaw, view.pitch, view.perspective, x, feet, size)


def _paint(canvas: Canvas, walker: Walker, pose: Pose) -> np.ndarray:
    """Put a person into the picture; how much of each pixel belongs to them (H, W)."""
    canvas.darken((pose.x + canvas.light[0] * 0.6 * pose.size, pose.y), 0.24 * pose.size, 0.045 * pose.size, 0.35)
    canvas.start_figure()
    Painter(canvas, walker.who, pose).paint()
    return canvas.cover


def _detect(rng: np.random.Generator, who: Person, pose: Pose, seen: float, width: int) -> list[tuple[tuple, float]]:
    """Boxes x, y, width, height of one person with their scores; `seen` is the share that nobody hides."""
    limbs = np.array([pose.project(*joint) for joint in skeleton(who, pose.phase).values()])
    left, right = limbs[:, 0].min() - 0.06 * pose.size, limbs[:, 0].max() + 0.06 * pose.size
    top, bottom = pose.project(0, 1.01, 0)[1], limbs[:, 1].max() + 0.02 * pose.size
    shift = rng.normal(0, 0.015, 4) * pose.size
    luck, half = rng.normal(0, 0.03), rng.random() < 0.08
    if right < 0.02 * pose.size or left > width - 0.02 * pose.size or seen < 0.25:
        return []  # nothing of them is in the picture
    score = 0.93 + luck - 0.6 * (1 - seen) - max(0.0, 0.4 - pose.size / 250)
    box = (left + shift[0], top + shift[1], right - left + shift[2], bottom - top + shift[3])
    found = [(box, float(np.clip(score, 0.3, 0.995)))]
    if half:  # head and shoulders as one more person
        found.append(((box[0], box[1], box[2], 0.42 * box[3]), float(np.clip(score - 0.1, 0.3, 0.9))))
    return found
