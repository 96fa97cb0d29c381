"""Six places where a camera hangs: wide pictures without people that the crops' backgrounds are cut from.

A place is (400, 1400, 3) uint8 RGB at 256 pixels per crop height; the ground fills the lower part, as a camera that
looks down sees it.
"""

import cv2
import numpy as np

from lab.data.synthetic.draw import smooth_noise

HEIGHT, WIDTH = 400, 1400


def _paint(colour) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), colour, np.float32)


def _grain(rng: np.random.Generator, picture: np.ndarray, strength: float) -> np.ndarray:
    """Stains and fine grain, so that no surface is one flat colour."""
    height, width = picture.shape[:2]
    noise = 1.1 * smooth_noise(rng, height, width, 90) + 0.7 * smooth_noise(rng, height, width, 12)
    noise += 0.4 * rng.standard_normal((height, width)).astype(np.float32)
    return np.clip(picture * (1 + strength * noise[..., None]), 0, 255)


def _ground(rng, colour, tile: tuple[int, int] | None, joint: float, top: int, strength=0.12) -> np.ndarray:
    """A floor in perspective from row `top` downwards: (HEIGHT - top, WIDTH, 3), with joints between tiles if any."""
    flat = _grain(rng, np.full((900, WIDTH, 3), colour, np.float32), strength)
    if tile:
        wide, tall = tile
        shade = rng.uniform(0.88, 1.1, (900 // tall + 1, WIDTH // wide + 1)).astype(np.float32)
        flat *= np.kron(shade, np.ones((tall, wide), np.float32))[:900, :WIDTH, None]
        flat[::tall] *= joint
        flat[1::tall] *= joint
        for row in range(0, 900, tall):
            shift = wide // 2 * (row // tall % 2)
            flat[row : row + tall, shift::wide] *= joint
            flat[row : row + tall, shift + 1 :: wide] *= joint
    height = HEIGHT - top
    source = np.float32([[WIDTH * 0.06, 0], [WIDTH * 0.94, 0], [WIDTH * 0.62, 900], [WIDTH * 0.38, 900]])
    target = np.float32([[0, 0], [WIDTH, 0], [WIDTH * 1.0, height], [0, height]])
    source[2:, 0] = [WIDTH * 0.75, WIDTH * 0.25]
    warp = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(flat, warp, (WIDTH, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _box(picture, x0, y0, x1, y1, colour, thick=-1) -> None:
    cv2.rectangle(picture, (int(x0), int(y0)), (int(x1), int(y1)), tuple(float(c) for c in colour), thick)


def _pole(picture, x, bottom, width, colour) -> None:
    _box(picture, x, 0, x + width, bottom, colour)
    _box(picture, x, 0, x + width // 4, bottom, np.array(colour) * 1.25)
    _box(picture, x - width, bottom - 12, x + 2 * width, bottom, np.array(colour) * 0.8)


def _car(rng, picture, x, bottom, length, colour) -> None:
    """A parked car from the side: body, windows, wheels."""
    tall = length * 0.3
    body = np.array(
        [[0, 0.84], [0.02, 0.45], [0.2, 0.4], [0.32, 0.05], [0.72, 0.03], [0.86, 0.4], [0.99, 0.5], [1, 0.84]]
    )
    glass = np.array([[0.25, 0.4], [0.35, 0.12], [0.69, 0.1], [0.8, 0.4]])
    place = np.array([x, bottom - tall])
    cv2.fillPoly(picture, [np.int32(place + body * [length, tall * 1.15])], tuple(map(float, colour)), cv2.LINE_AA)
    cv2.fillPoly(picture, [np.int32(place + glass * [length, tall * 1.15])], (38.0, 44.0, 52.0), cv2.LINE_AA)
    for wheel in (0.2, 0.8):
        centre = (int(x + wheel * length), int(bottom - 0.03 * length))
        cv2.circle(picture, centre, int(length * 0.065), (22.0, 22.0, 24.0), -1, cv2.LINE_AA)
        cv2.circle(picture, centre, int(length * 0.035), (120.0, 122.0, 126.0), -1, cv2.LINE_AA)


def draw_bicycle(picture: np.ndarray, x: float, bottom: float, size: float, colour, thick: int = 3) -> None:
    """A bicycle seen from the side, `size` pixels long."""

    def point(u: float, v: float) -> tuple[int, int]:
        return int(x + u * size), int(bottom - v * size)

    dark = tuple(float(c) * 0.3 for c in colour)
    for u in (0.2, 0.8):
        cv2.circle(picture, point(u, 0.2), int(0.19 * size), dark, thick, cv2.LINE_AA)
    frame = [(0.2, 0.2), (0.36, 0.52), (0.7, 0.52), (0.47, 0.2), (0.2, 0.2), (0.47, 0.2), (0.34, 0.6)]
    cv2.polylines(picture, [np.int32([point(*p) for p in frame])], False, tuple(map(float, colour)), thick, cv2.LINE_AA)
    fork = np.int32([point(0.8, 0.2), point(0.69, 0.62), point(0.78, 0.66)])
    cv2.polylines(picture, [fork], False, tuple(map(float, colour)), thick, cv2.LINE_AA)
    cv2.line(picture, point(0.28, 0.61), point(0.41, 0.61), (20.0, 20.0, 20.0), thick + 2, cv2.LINE_AA)


def street(rng: np.random.Generator) -> np.ndarray:
    """A road with parked cars in front of a row of houses."""
    picture, kerb = _paint((150, 140, 128)), int(rng.integers(150, 180))
    for x in range(0, WIDTH, 130):
        _box(picture, x, 0, x + 128, kerb, rng.uniform(100, 180) * rng.uniform(0.94, 1.06, 3))
        for window in (18, 72):
            _box(picture, x + window, 14, x + window + 36, 84, (46, 54, 64))
    picture = _grain(rng, picture, 0.1)
    picture[kerb - 34 :] = _ground(rng, (126, 124, 122), None, 1.0, kerb - 34)
    for x in range(30, WIDTH, 240):
        _car(
            rng,
            picture,
            x + rng.integers(0, 60),
            kerb + 12,
            rng.integers(150, 190),
            rng.uniform(30, 220) * rng.uniform(0.7, 1.2, 3),
        )
    picture[kerb + 30 : kerb + 40] = (196, 194, 188)
    picture[kerb + 40 : kerb + 46] *= 0.6
    for x in range(0, WIDTH, 170):
        cv2.fillPoly(picture, [np.int32([[x, 330], [x + 90, 330], [x + 84, 342], [x - 8, 342]])], (206.0, 204.0, 196.0))
    for x in (260, 900):
        _pole(picture, x, kerb + 34, 12, (70, 76, 74))
    return picture


def wall(rng: np.random.Generator) -> np.ndarray:
    """A brick wall with posters, a pipe and a doorway over a narrow pavement."""
    base = int(rng.integers(225, 255))
    bricks = _grain(rng, _paint((132, 116, 106)), 0.12)
    tone = rng.uniform(0.75, 1.2, (HEIGHT // 12 + 1, WIDTH // 34 + 1)).astype(np.float32)
    bricks *= np.kron(tone, np.ones((12, 34), np.float32))[:HEIGHT, :WIDTH, None]
    for row in range(0, HEIGHT, 12):
        bricks[row : row + 2] = (158, 150, 142)
        for x in range(17 * (row // 12 % 2), WIDTH, 34):
            bricks[row : row + 12, x : x + 2] = (154, 147, 139)
    for x in range(120, WIDTH, 420):
        _box(bricks, x, 40, x + 70, 130, rng.uniform(60, 200) * rng.uniform(0.75, 1.2, 3))
        _box(bricks, x + 10, 52, x + 60, 84, rng.uniform(60, 200) * rng.uniform(0.75, 1.2, 3))
        _box(bricks, x + 230, 20, x + 330, base, (64, 72, 66))
        _box(bricks, x + 238, 30, x + 322, base, (86, 96, 88))
        _pole(bricks, x + 150, base, 9, (90, 88, 86))
    bricks[base:] = _ground(rng, (150, 146, 140), (70, 70), 0.72, base)
    bricks[base : base + 6] *= 0.55
    return bricks


def park(rng: np.random.Generator) -> np.ndarray:
    """Grass and bushes with trees beside a sandy path."""
    picture, path = _grain(rng, _paint((116, 122, 100)), 0.28), int(rng.integers(215, 245))
    leaves = smooth_noise(rng, HEIGHT, WIDTH, 16) + 0.7 * smooth_noise(rng, HEIGHT, WIDTH, 5)
    picture[:120] = np.clip((80, 86, 70) + 26 * leaves[:120, :, None] * np.array((0.9, 1.1, 0.6)), 5, 230)
    for x in range(40, WIDTH, 210):
        x = int(x + rng.integers(0, 110))
        trunk = np.int32([[x, 0], [x + 28, 0], [x + 34, 190], [x - 8, 190]])
        cv2.fillPoly(picture, [trunk], (74.0, 60.0, 46.0), cv2.LINE_AA)
        cv2.ellipse(picture, (x + 90, 150), (60, 44), 0, 0, 360, (70.0, 84.0, 58.0), -1, cv2.LINE_AA)
    picture[:190] = np.clip(picture[:190] * (1 + 0.25 * leaves[:190, :, None]), 0, 255)
    picture[path:] = _ground(rng, (150, 146, 136), None, 1.0, path, 0.16)
    for x in range(300, WIDTH, 560):
        for y in (168, 184, 204):
            _box(picture, x, y, x + 150, y + 9, (120, 84, 52))
        for leg in (12, 132):
            _box(picture, x + leg, 168, x + leg + 7, path + 4, (50, 46, 42))
    return picture


def shop(rng: np.random.Generator) -> np.ndarray:
    """Dark shop windows with lit goods behind them."""
    base = int(rng.integers(200, 235))
    picture = _paint((52, 54, 58))
    for x in range(0, WIDTH, 230):
        for _ in range(14):
            cx, cy = x + rng.integers(15, 200), rng.integers(10, base - 30)
            _box(
                picture,
                cx,
                cy,
                cx + rng.integers(10, 40),
                cy + rng.integers(8, 44),
                rng.uniform(50, 190) * rng.uniform(0.75, 1.2, 3),
            )
        _box(picture, x + 150, base - 160, x + 166, base - 30, rng.uniform(60, 200, 3))
    picture = cv2.GaussianBlur(picture, (0, 0), 3)
    for x in range(0, WIDTH, 230):
        _box(picture, x, 0, x + 14, base, (168, 170, 172))
        cv2.line(picture, (x + 40, base), (x + 150, 0), (96.0, 104.0, 112.0), 5, cv2.LINE_AA)
    picture[base - 24 : base] = (104, 98, 94)
    picture = _grain(rng, picture, 0.08)
    picture[base:] = _ground(rng, (160, 156, 150), (100, 100), 0.8, base, 0.07)
    return picture


def plaza(rng: np.random.Generator) -> np.ndarray:
    """Paving stones seen from high above, with bicycles and planters."""
    picture = _ground(rng, (156, 146, 138), (46, 30), 0.78, 0)
    for x in range(0, WIDTH, 350):
        _box(picture, x + 20, 40, x + 140, 90, (112, 108, 104))
        cv2.ellipse(picture, (x + 80, 36), (66, 26), 0, 0, 360, (62.0, 96.0, 58.0), -1, cv2.LINE_AA)
    for x in range(150, WIDTH, 90):
        draw_bicycle(picture, x + rng.integers(-20, 20), 120 + rng.integers(-8, 40), 90, rng.uniform(30, 200, 3), 2)
    for x in range(0, WIDTH, 260):
        band = np.int32([[x, 0], [x + 34, 0], [x - 20, HEIGHT], [x - 80, HEIGHT]])
        cv2.fillPoly(picture, [band], (120.0, 96.0, 88.0), cv2.LINE_AA)
    return _grain(rng, picture, 0.06)


def crossing(rng: np.random.Generator) -> np.ndarray:
    """A zebra crossing under a bus and traffic posts."""
    picture = _ground(rng, (112, 113, 116), None, 1.0, 0, 0.14)
    for x in range(-200, WIDTH, 120):
        stripe = np.int32([[x, 150], [x + 56, 150], [x + 130, HEIGHT], [x + 54, HEIGHT]])
        cv2.fillPoly(picture, [stripe], (196.0, 196.0, 190.0), cv2.LINE_AA)
    for x in range(60, WIDTH, 620):
        _box(picture, x, 0, x + 330, 110, rng.choice([(150, 96, 88), (92, 112, 136), (176, 164, 130)]))
        _box(picture, x + 8, 4, x + 322, 52, (40, 46, 54))
        for wheel in (60, 260):
            cv2.circle(picture, (x + wheel, 112), 15, (40.0, 40.0, 42.0), -1, cv2.LINE_AA)
            cv2.circle(picture, (x + wheel, 112), 8, (120.0, 122.0, 126.0), -1, cv2.LINE_AA)
    for x in (30, 480, 1080):
        _pole(picture, x, 200, 10, (196, 188, 60))
    picture = _grain(rng, picture, 0.09)
    return picture


PLACES = (street, wall, park, shop, plaza, crossing)
