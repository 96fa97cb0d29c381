"""What makes a camera a camera: the place it watches, how it looks at people and what its sensor does to colours."""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from lab.data.synthetic.draw import generator, smooth_noise
from lab.data.synthetic.scenes import PLACES

# Place, pitch in degrees, RGB gains, exposure, gamma, contrast, saturation, blur in pixels of a 128-row crop, noise in
# grey levels and JPEG quality; the seed varies each a little. A seventh camera looks like the first at another spot.
CHARACTERS = (
    (0, 8, (1.02, 1.00, 0.97), 1.00, 1.00, 1.00, 0.95, 0.35, 3, 85),
    (1, 14, (1.06, 0.99, 0.92), 0.97, 1.02, 1.03, 1.00, 0.60, 3, 70),
    (2, 6, (0.97, 1.03, 0.97), 1.03, 0.98, 0.97, 0.92, 0.45, 3, 75),
    (3, 4, (0.95, 0.99, 1.06), 0.92, 1.03, 1.00, 0.90, 0.70, 5, 60),
    (4, 24, (1.03, 0.99, 0.99), 1.05, 0.96, 0.96, 0.90, 0.50, 3, 70),
    (5, 17, (0.98, 1.00, 1.04), 0.98, 1.00, 1.03, 0.87, 0.75, 4, 55),
)


@dataclass(frozen=True)
class Camera:
    """One camera; angles in radians, `levels` (1, 256, 3) is the answer of the sensor to each grey level."""

    place: np.ndarray
    pitch: float
    perspective: float
    path: float  # direction in which most people walk here, radians
    light: tuple[float, float]
    levels: np.ndarray
    saturation: float
    blur: float
    noise: float
    quality: int


def _expose(picture: np.ndarray) -> np.ndarray:
    """Set brightness, spread and tint of a place as an automatic exposure would, so that no place is one colour."""
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + 0.75 * (picture - picture.mean(axis=(0, 1)) - grey + grey.mean())
    rows = cv2.blur(picture.mean(axis=(1, 2))[:, None], (1, 81)).reshape(-1, 1, 1)
    picture = picture - 0.65 * rows
    return np.clip((picture - picture.mean()) * (46 / picture.std()) + 116, 0, 255)


@lru_cache(maxsize=16)
def camera(seed: int, camid: int) -> Camera:
    """Put up camera `camid` of the world `seed`; camids start at 1."""
    rng = generator(seed, 2, camid)
    character = CHARACTERS[(camid - 1) % len(CHARACTERS)]
    place, pitch, gains, exposure, gamma, contrast, saturation, blur, noise, quality = character
    picture = _expose(PLACES[place](rng))
    sun, tint = (smooth_noise(rng, *picture.shape[:2], 45)[..., None] for _ in range(2))
    picture = picture * (1 + sun * (0.22, 0.2, 0.17) + tint * (0.07, -0.01, -0.07))
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    gains = np.array(gains) * rng.uniform(0.98, 1.02, 3)
    grey = np.linspace(0, 1, 256)[:, None] * gains * exposure * rng.uniform(0.95, 1.05)
    grey = (np.clip(grey, 0, 2) ** (gamma * rng.uniform(0.95, 1.05)) - 0.45) * contrast + 0.45
    side = float(rng.choice([-1, 1])) * rng.uniform(0.08, 0.26)
    return Camera(
        place=picture,
        pitch=math.radians(pitch + rng.uniform(-2, 2)),
        perspective=0.01 * pitch * rng.uniform(0.6, 1.0),
        path=rng.uniform(-np.pi, np.pi),
        light=(side, rng.uniform(0.25, 0.5)),
        levels=(np.clip(grey, 0.02, 1) * 255).astype(np.float32)[None],
        saturation=saturation * rng.uniform(0.92, 1.08),
        blur=blur,
        noise=noise * rng.uniform(0.8, 1.2),
        quality=int(quality + rng.integers(-4, 5)),
    )


def background(view: Camera, x: float, y: float, zoom: float, height: int, width: int) -> np.ndarray:
    """Cut the place at (x, y) in 0..1, with `zoom` > 1 for closer: (height, width, 3) float32."""
    tall = int(256 / zoom)
    wide = tall * width // height
    rows, columns = view.place.shape[:2]
    top, left = int(y * (rows - tall)), int(x * (columns - wide))
    return cv2.resize(view.place[top : top + tall, left : left + wide], (width, height)).astype(np.float32)


@lru_cache(maxsize=4)
def noise_field(height: int, width: int) -> np.ndarray:
    """Grain of a sensor, (2 height, 2 width, 3), spread 1: every crop reads it at another place."""
    return generator(0, 98).standard_normal((2 * height, 2 * width, 3), dtype=np.float32)


def sense(view: Camera, rgb: np.ndarray, rng: np.random.Generator, exposure: float) -> np.ndarray:
    """What the camera stores of a sharp picture (H, W, 3) in 0..255: colours, blur, noise, JPEG; uint8."""
    rgb = np.clip(rgb * exposure, 0, 255).astype(np.uint8)
    sigma = view.blur * rgb.shape[0] / 128 * rng.uniform(0.7, 1.4)
    rgb = cv2.LUT(cv2.GaussianBlur(rgb, (0, 0), sigma), view.levels)
    grey = np.float32([[0.299, 0.587, 0.114]]).repeat(3, axis=0)
    rgb = cv2.transform(rgb, grey + view.saturation * (np.eye(3, dtype=np.float32) - grey))
    top, left = rng.integers(0, rgb.shape[0]), rng.integers(0, rgb.shape[1])
    rgb += view.noise * noise_field(*rgb.shape[:2])[top : top + rgb.shape[0], left : left + rgb.shape[1]]
    rgb = np.clip(rgb[..., ::-1], 0, 255).astype(np.uint8)
    stored = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, view.quality])[1]
    return cv2.cvtColor(cv2.imdecode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
