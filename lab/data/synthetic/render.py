"""One crop of one person by one camera, with the truth about where the person is."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lab.data.synthetic.cameras import Camera, background, camera, sense
from lab.data.synthetic.draw import Canvas, generator
from lab.data.synthetic.figure import Painter, Pose, skeleton
from lab.data.synthetic.people import Person, person
from lab.data.synthetic.scenes import draw_bicycle
from lab.errors import InputError

PARTS = ("head", "torso", "legs")
SHARPER = 192  # canvas rows for every 128 rows of the crop
PASSERS_BY, NUM_PASSERS_BY = 900_000_000, 150  # pids of people who only walk through other people's crops


@dataclass(frozen=True)
class SyntheticCrop:
    """image (H, W, 3) uint8 RGB; mask (H, W) bool, the visible pixels of the person; parts name -> (x0, y0, x1, y1).

    Part boxes are pixels, clipped to the crop; a part that the crop cuts off has a box without area at the border.
    """

    image: np.ndarray
    mask: np.ndarray
    parts: dict[str, tuple[float, float, float, float]]


@dataclass(frozen=True)
class Walk:
    """How a person crosses the view of one camera: shared by their crops there."""

    yaw: float
    phase: float
    step: float
    x: float
    y: float
    zoom: float
    drift: float
    exposure: float


def walk(view: Camera, seed: int, pid: int, camid: int) -> Walk:
    """The one time that this person passes this camera."""
    rng = generator(seed, 3, pid, camid)
    return Walk(
        yaw=view.path + math.pi * float(rng.choice([0, 1])) + rng.normal(0, 0.5),
        phase=rng.uniform(0, 2 * np.pi),
        step=rng.uniform(0.5, 1.9),
        x=rng.uniform(0, 1),
        y=rng.uniform(0, 1),
        zoom=rng.uniform(0.8, 1.2),
        drift=rng.uniform(0.01, 0.05),
        exposure=rng.uniform(0.85, 1.12),
    )


def _place(rng: np.random.Generator, height: int, badly: bool) -> tuple[float, float, float]:
    """Where an imperfect detector leaves the person in the box: size, shift sideways (fraction of the box), feet."""
    size, x, feet = rng.normal(0.93, 0.025), rng.normal(0, 0.03), rng.normal(0.965, 0.012)
    slip = rng.random()
    if badly:
        size, x, feet = rng.uniform(1.3, 2.0), rng.uniform(-0.3, 0.3), rng.uniform(0.5, 1.9)
    elif slip < 0.08:
        size, feet = rng.uniform(0.98, 1.15), feet + rng.uniform(0.06, 0.18)
    elif slip < 0.11:
        feet -= rng.uniform(0.04, 0.09)
    elif slip < 0.18:
        size, feet = rng.uniform(0.7, 0.8), feet - rng.uniform(0.02, 0.1)
    return size * height, x, feet * height


def _occlude(canvas: Canvas, rng: np.random.Generator, seed: int, pose: Pose) -> None:
    """Put something in front: another person, a pole, a bush, a bench or a bicycle."""
    kind, height, width = rng.integers(5), canvas.height, canvas.width
    if kind <= 1:
        side = float(rng.choice([-1, 1]))
        other = Pose(
            rng.uniform(0, 6.28),
            rng.uniform(-3.14, 3.14),
            pose.pitch,
            pose.perspective,
            pose.x + side * rng.uniform(0.36, 0.5) * width,
            pose.y + rng.uniform(0, 0.05) * height,
            pose.size,
        )
        Painter(canvas, person(seed, PASSERS_BY + int(rng.integers(NUM_PASSERS_BY))), other).paint()
    elif kind == 2:
        x = pose.x + rng.uniform(-0.28, 0.28) * width
        colour, half = np.float32(rng.uniform(50, 150) * rng.uniform(0.9, 1.1, 3)), rng.uniform(0.03, 0.07) * width
        canvas.capsule((x, -20), (x + 2, height + 20), half, half, colour)
    elif kind == 3:
        for _ in range(9):
            at = (rng.uniform(0, width), height * rng.uniform(0.86, 1.0))
            leaf = np.float32((60, 92, 46)) * np.float32(rng.uniform(0.7, 1.3))
            canvas.ellipsoid(at, rng.uniform(0.1, 0.2) * width, rng.uniform(0.05, 0.1) * height, leaf)
    else:
        layer = np.zeros((height, width, 3), np.float32)
        place = rng.uniform(-0.3, 0.2) * width, height * rng.uniform(0.97, 1.05)
        draw_bicycle(layer, *place, width * 1.1, (255, 255, 255), max(2, height // 64))
        cover = layer[..., 0] > 60
        canvas.rgb[cover] = rng.uniform(25, 170, 3)
        np.maximum(canvas.cover, cover, out=canvas.cover)


def _boxes(canvas_boxes: dict, factor: tuple[float, float], height: int, width: int) -> dict[str, tuple]:
    """Part boxes in pixels of the crop, clipped to it."""
    found = {}
    for part in PARTS:
        x0, y0, x1, y1 = canvas_boxes[part]
        xs = np.clip(np.array((x0, x1)) * factor[1], 0, width)
        ys = np.clip(np.array((y0, y1)) * factor[0], 0, height)
        found[part] = (float(xs[0]), float(ys[0]), float(xs[1]), float(ys[1]))
    return found


def _behind(canvas: Canvas, rng: np.random.Generator, seed: int, pose: Pose) -> None:
    """Let somebody else walk further back."""
    far = rng.uniform(0.7, 0.95)
    other = Pose(
        rng.uniform(0, 6.28),
        rng.uniform(-3.14, 3.14),
        pose.pitch,
        pose.perspective,
        pose.x + float(rng.choice([-1, 1])) * rng.uniform(0.25, 0.55) * canvas.width,
        pose.y - rng.uniform(0.04, 0.16) * canvas.height,
        pose.size * far,
    )
    Painter(canvas, person(seed, PASSERS_BY + int(rng.integers(NUM_PASSERS_BY))), other).paint()


def _frame(rng: np.random.Generator, who: Person, path: Walk, view: Camera, index: int, tall: int, badly: bool):
    """The pose of this crop and the width of its box, which a detector fits to the limbs; 2:1 storage stretches it."""
    size, sideways, feet = _place(rng, tall, badly)
    yaw = path.yaw + rng.normal(0, 0.12)
    pose = Pose(path.phase + path.step * index, yaw, view.pitch, view.perspective, 0.0, feet, size)
    limbs = [pose.project(*joint)[0] for joint in skeleton(who, pose.phase).values()]
    left, right = min(limbs) - 0.06 * size, max(limbs) + 0.06 * size
    wide = round(min(max((right - left) * rng.normal(1.05, 0.05), tall / 2.7), tall / 1.9))
    return replace(pose, x=wide * (0.5 + sideways) - (left + right) / 2), wide


def render(
    pid: int,
    camid: int,
    index: int,
    seed: int = 0,
    height: int = 128,
    width: int = 64,
    num_cameras: int = 6,
    badly: bool = False,
    empty: bool = False,
) -> SyntheticCrop:
    """See person `pid` walk past camera `camid` (1..num_cameras) for the `index`-th time: same arguments, same bytes.

    `badly` cuts the box at a wrong place, as a failing detector does; `empty` leaves the person out of
    the otherwise same picture.
    """
    if min(pid, index, seed) < 0 or not 1 <= camid <= num_cameras or min(height, width) < 16:
        raise InputError(
            f"cannot render pid {pid}, camid {camid}, index {index}, seed {seed} at {height} x {width}; pid, index and "
            f"seed start at 0, camid is 1..{num_cameras}, a side has at least 16 pixels; change them"
        )
    view, who = camera(seed, camid), person(seed, pid)
    path = walk(view, seed, pid, camid)
    rng = generator(seed, 4, pid, camid, index, int(badly))
    tall = SHARPER * -(-height // 128)
    pose, wide = _frame(rng, who, path, view, index, tall, badly)
    away = path.x + path.drift * index * math.sin(path.yaw) + rng.normal(0, 0.002)
    low = min(max(path.y + rng.normal(0, 0.03), 0.0), 1.0)
    scene = background(view, abs((away + 1) % 2 - 1), low, path.zoom, tall, wide)
    canvas = Canvas(scene, view.light, tuple(rng.integers(0, tall, 2)))
    if rng.random() < 0.12:
        _behind(canvas, rng, seed, pose)
    mask, boxes = np.zeros((tall, wide), np.float32), {part: [0.0] * 4 for part in PARTS}
    if not empty:
        canvas.darken((pose.x + view.light[0] * 0.6 * pose.size, pose.y), 0.24 * pose.size, 0.045 * pose.size, 0.35)
        canvas.start_figure()
        Painter(canvas, who, pose).paint()
        mask, boxes = canvas.cover, canvas.boxes
    if rng.random() < 0.15:
        canvas.start_figure()
        _occlude(canvas, rng, seed, pose)
        mask = mask * (1 - canvas.cover)
    small = cv2.resize(canvas.rgb, (width, height), interpolation=cv2.INTER_AREA)
    image = sense(view, small, rng, path.exposure * rng.uniform(0.95, 1.05))
    visible = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) > 0.5
    return SyntheticCrop(image, visible, _boxes(boxes, (height / tall, width / wide), height, width))
