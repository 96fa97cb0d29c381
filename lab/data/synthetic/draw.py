"""Draw round, shaded body parts on a canvas: capsules for limbs, lofts for torsos and skirts, ellipsoids for heads.

Every shape knows its distance to the border, so edges are antialiased without drawing anything twice, and every pixel
knows where on the round surface it lies, so a print on the chest turns away when the person turns.

Legend: a canvas is (H, W, 3) float32 RGB in 0..255; x to the right and y downwards, in pixels; `cover` (H, W) says how
much of each pixel belongs to the figure drawn since the last `start_figure`. A paint is one colour (3,) or a texture
(rows, columns, 3) wrapped once around the part: row 0 on top, the middle column in front.
"""

import math
from functools import lru_cache
from operator import add, sub

import cv2
import numpy as np


def generator(*key: int) -> np.random.Generator:
    """A random stream that belongs to one thing, such as (seed, kind, pid): the same key gives the same numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Soft random hills, about -1..1 (height, width), with bumps about `cell` pixels wide."""
    coarse = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32) * 0.6
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@lru_cache(maxsize=4)
def fold_field(tall: int) -> np.ndarray:
    """Creases of cloth as a brightness factor around 1, (2 tall, 2 tall) for canvases `tall` pixels high."""
    rng, size = generator(0, 99), 2 * tall
    field = smooth_noise(rng, size, size, tall // 11) * 0.5 + smooth_noise(rng, size, size, tall // 28) * 0.5
    return (1 + 0.13 * field).astype(np.float32)


def _clip(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """np.clip without its overhead on small arrays."""
    return np.minimum(np.maximum(values, low), high)


class Canvas:
    """A picture that figures are painted on, back to front.

    `light` is (x, z): how much light comes from the right and from the camera; `boxes` collects the extent of the parts
    that were drawn under a name.
    """

    def __init__(self, rgb: np.ndarray, light: tuple[float, float] = (0.3, 0.5), fold_at: tuple[int, int] = (0, 0)):
        self.rgb = rgb
        self.height, self.width = rgb.shape[:2]
        self.light = light
        self.xs = np.arange(self.width, dtype=np.float32) + 0.5
        self.ys = (np.arange(self.height, dtype=np.float32) + 0.5)[:, None]
        self.folds = fold_field(self.height)
        self.fold_at = fold_at
        self.start_figure()

    def start_figure(self) -> None:
        """Forget what the last figure covered; the picture stays."""
        self.cover = np.zeros((self.height, self.width), np.float32)
        self.boxes: dict[str, list[float]] = {}

    def _window(self, x0: float, y0: float, x1: float, y1: float, part: str | None):
        """The pixels that a shape with this extent can touch, or None when it lies outside."""
        if part:
            box = self.boxes.setdefault(part, [x0, y0, x1, y1])
            self.boxes[part] = [min(box[0], x0), min(box[1], y0), max(box[2], x1), max(box[3], y1)]
        left, right = max(0, int(x0) - 1), min(self.width, int(x1) + 2)
        top, bottom = max(0, int(y0) - 1), min(self.height, int(y1) + 2)
        return None if left >= right or top >= bottom else (slice(top, bottom), slice(left, right))

    def _paint(self, window, cover, across, down, normal_x, paint, turn: float, rough: float) -> None:
        """Blend one shape in: `across` in -1..1 and `down` in 0..1 say where on its surface each pixel lies."""
        facing = np.sqrt(1 - across * across)
        shade = (0.82 - 0.6 * self.light[1]) + self.light[0] * normal_x + self.light[1] * facing
        if rough:
            top, left = window[0].start + self.fold_at[0], window[1].start + self.fold_at[1]
            fold = self.folds[top : top + shade.shape[0], left : left + shade.shape[1]]
            shade *= fold if rough == 1 else 1 + rough * (fold - 1)
        if paint.ndim == 3:
            rows, columns = paint.shape[:2]
            column = (np.arcsin(across) - turn) * (columns / (2 * np.pi)) + 1.5 * columns
            place = column.astype(np.int32) % columns + np.minimum((down * rows).astype(np.int32), rows - 1) * columns
            colour = paint.reshape(-1, 3).take(place, axis=0) * shade[..., None]
        else:
            colour = shade[..., None] * paint
        region = self.rgb[window]
        colour -= region
        colour *= cover[..., None]
        region += colour
        seen = self.cover[window]
        np.maximum(seen, cover, out=seen)

    def capsule(self, a, b, ra, rb, paint, turn=0.0, rows=(0.0, 1.0), part=None, rough=1.0) -> None:
        """A limb from point a (radius ra) to point b (radius rb) with round ends; `rows` is the texture range on it."""
        ax, ay, bx, by = a[0], a[1], b[0], b[1]
        window = self._window(
            min(ax - ra, bx - rb), min(ay - ra, by - rb), max(ax + ra, bx + rb), max(ay + ra, by + rb), part
        )
        if window is None:
            return
        dx, dy = bx - ax, by - ay
        length = max(math.hypot(dx, dy), 1e-3)
        nx, ny = dx / length, dy / length
        px, py = self.xs[window[1]] - ax, self.ys[window[0]] - ay
        along = _clip(px * (nx / length) + py * (ny / length), 0.0, 1.0)
        radius = ra + (rb - ra) * along
        ex, ey = px - along * dx, py - along * dy
        cover = _clip(radius - np.sqrt(ex * ex + ey * ey) + 0.5, 0.0, 1.0)
        across = _clip((px * ny - py * nx) / radius, -1.0, 1.0)
        down = rows[0] + (rows[1] - rows[0]) * along if paint.ndim == 3 else along
        self._paint(window, cover, across, down, across * ny, paint, turn, rough)

    def loft(self, ys, xs, halves, paint, turn=0.0, rows=(0.0, 1.0), part=None, rough=1.0) -> None:
        """An upright body with a given middle line `xs` and half width `halves` at the increasing heights `ys`."""
        left, right = min(map(sub, xs, halves)), max(map(add, xs, halves))
        window = self._window(left, ys[0], right, ys[-1], part)
        if window is None:
            return
        y = self.ys[window[0], 0]
        middle = np.interp(y, ys, xs).astype(np.float32)[:, None]
        half = np.interp(y, ys, halves).astype(np.float32)[:, None]
        across = (self.xs[window[1]] - middle) / half
        ends = _clip(np.minimum(y - ys[0], ys[-1] - y) + 0.5, 0.0, 1.0)[:, None]
        cover = _clip((1 - np.abs(across)) * half + 0.5, 0.0, 1.0) * ends
        across = _clip(across, -1.0, 1.0)
        down = rows[0] + (rows[1] - rows[0]) * _clip((y - ys[0]) / (ys[-1] - ys[0]), 0.0, 1.0)[:, None]
        self._paint(window, cover, across, down, across, paint, turn, rough)

    def ellipsoid(self, centre, rx, ry, paint, turn=0.0, tilt=0.0, part=None, rough=0.5) -> None:
        """A head, a bun, a bag: an ellipse with a texture wrapped as on a globe; `tilt` > 0 shows more of its top."""
        window = self._window(centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry, part)
        if window is None:
            return
        u = (self.xs[window[1]] - centre[0]) / rx
        v = (self.ys[window[0]] - centre[1]) / ry
        cover = _clip((1 - np.sqrt(u * u + v * v)) * min(rx, ry) + 0.5, 0.0, 1.0)
        v = _clip(v, -1.0, 1.0)
        across = _clip(u / np.sqrt(1.0001 - v * v), -1.0, 1.0)
        down = _clip(0.5 + 0.5 * v - tilt * (1 - v * v), 0.0, 1.0)
        self._paint(window, cover, across, down, _clip(u, -1.0, 1.0), paint, turn, rough)

    def darken(self, centre, rx, ry, strength: float) -> None:
        """A soft shadow on the ground; it belongs to no figure."""
        window = self._window(centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry, None)
        if window is None:
            return
        u = (self.xs[window[1]] - centre[0]) / rx
        v = (self.ys[window[0]] - centre[1]) / ry
        self.rgb[window] *= (1 - strength * np.clip(1.4 * (1 - u * u - v * v), 0, 1))[..., None]
