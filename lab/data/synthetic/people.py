"""What makes a person a person: body, hair, clothes and bag, all drawn from (seed, pid).

Colours follow the street: most garments are black, grey, white or blue, so many people share a colour and are told
apart by a pattern, the combination, a bag, hair or build. Lengths are fractions of the body height.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lab.data.synthetic.draw import generator, smooth_noise

ROWS, COLUMNS = 64, 128  # a garment texture: once around the body

# name -> (weight above the waist, weight below, RGB)
CLOTH = {
    "black": (17, 24, (30, 30, 34)),
    "charcoal": (9, 10, (66, 67, 72)),
    "grey": (9, 9, (128, 129, 132)),
    "white": (16, 5, (226, 226, 224)),
    "navy": (8, 10, (34, 42, 78)),
    "denim": (4, 18, (62, 82, 122)),
    "blue": (6, 4, (44, 84, 168)),
    "sky": (5, 4, (142, 178, 214)),
    "red": (6, 1, (186, 36, 40)),
    "burgundy": (3, 1, (104, 30, 44)),
    "green": (4, 1, (40, 118, 76)),
    "olive": (3, 3, (92, 94, 58)),
    "beige": (4, 8, (198, 180, 146)),
    "brown": (3, 4, (104, 76, 54)),
    "pink": (3, 1, (222, 150, 168)),
    "yellow": (2, 0.5, (222, 188, 62)),
    "purple": (2, 0.5, (108, 66, 138)),
    "orange": (1.5, 0.3, (216, 112, 44)),
    "teal": (2, 0.5, (36, 128, 140)),
}
SKIN = [(236, 198, 172), (224, 180, 150), (206, 158, 124), (176, 126, 92), (128, 88, 62), (88, 60, 44)]
HAIR = [(24, 22, 22), (40, 30, 26), (74, 50, 34), (112, 78, 46), (176, 140, 86), (150, 148, 146), (120, 52, 30)]


@dataclass(frozen=True)
class Person:
    """One identity, everything a camera could see of it; textures are (64, 128, 3) uint8 as in `draw`."""

    build: float  # 0.85 thin .. 1.35 heavy
    shoulder: float  # middle of the body to the shoulder joint
    hip: float  # middle of the body to the hip joint
    leg: float  # height of the hip joint
    head: float  # size of the head, 1 = average
    stride: float  # largest angle of the thigh, radians
    arm_swing: float
    elbow: float  # bend of the elbow, radians
    lean: float
    skin: np.ndarray
    hair: np.ndarray
    hair_style: str  # short, bald, long, bob, bun, ponytail, cap, sunhat
    hat: np.ndarray
    face: np.ndarray  # head texture
    upper_kind: str  # tshirt, longsleeve, jacket, hoodie, dress, coat
    upper: np.ndarray
    sleeve: np.ndarray
    sleeve_length: float  # fraction of the arm that is covered, 0.3 .. 1
    hem: float  # height of the lower edge of the upper garment
    flare: float
    lower_kind: str  # trousers, shorts, skirt
    lower: np.ndarray
    lower_length: float  # height where the lower garment ends
    lower_width: float
    shin: np.ndarray  # skin or stockings
    shoe: np.ndarray
    bag_kind: str  # none, backpack, crossbody, handbag, shopping
    bag: np.ndarray
    bag_size: float
    bag_side: int  # +1 left hand, -1 right hand


def _choice(rng: np.random.Generator, table: dict[str, float]) -> str:
    weights = np.array(list(table.values()), float)
    return list(table)[rng.choice(len(table), p=weights / weights.sum())]


def cloth_colour(rng: np.random.Generator, below: bool = False) -> np.ndarray:
    """A garment colour as often as one meets it in the street, with a dye of its own."""
    name = _choice(rng, {n: row[1 if below else 0] for n, row in CLOTH.items()})
    colour = np.array(CLOTH[name][2], np.float32)
    return np.clip(colour * rng.uniform(0.85, 1.15) + rng.normal(0, 7, 3), 8, 245).astype(np.float32)


def contrast_colour(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """A second colour that can be seen on the first one."""
    for _ in range(8):
        colour = cloth_colour(rng)
        if np.abs(colour - base).sum() > 170:
            return colour
    return np.array((230, 230, 228) if base.sum() < 380 else (30, 30, 34), np.float32)


def _angles() -> tuple[np.ndarray, np.ndarray]:
    """Height 0..1 (64, 1) and angle around the body -pi..pi (1, 128), 0 in front, of every texture pixel."""
    down = (np.arange(ROWS, dtype=np.float32)[:, None] + 0.5) / ROWS
    return down, ((np.arange(COLUMNS, dtype=np.float32)[None] + 0.5) / COLUMNS * 2 - 1) * np.pi


def pattern(rng: np.random.Generator, kind: str, base: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Cloth of two colours: the share of `accent` per texture pixel, (64, 128)."""
    down, angle = _angles()
    count, share = rng.integers(5, 11), rng.uniform(0.3, 0.55)
    rings = (down * count) % 1 < share
    bars = (angle / (2 * np.pi) * rng.integers(14, 26)) % 1 < share
    blank = np.zeros((ROWS, COLUMNS), bool)
    if kind == "stripes":
        return (rings | blank).astype(np.float32)
    if kind == "bars":
        return (bars | blank).astype(np.float32)
    if kind == "checks":
        return 0.5 * rings + 0.5 * bars + np.zeros((ROWS, COLUMNS), np.float32)
    if kind == "dots":
        rows = (down * 9) % 1 - 0.5
        columns = (angle / (2 * np.pi) * 16 + 0.5 * (np.floor(down * 9) % 2)) % 1 - 0.5
        return ((rows**2 + columns**2) < rng.uniform(0.06, 0.12)).astype(np.float32)
    if kind == "block":
        edge, style = rng.uniform(0.3, 0.55), rng.integers(3)
        area = (down < edge) if style == 0 else (down > edge) if style == 1 else (np.abs(down - edge) < 0.1)
        return (area | blank).astype(np.float32)
    if kind == "camouflage":
        return (smooth_noise(rng, ROWS, COLUMNS, 14) > 0.1).astype(np.float32)
    return blank.astype(np.float32)


def chest_print(rng: np.random.Generator) -> np.ndarray:
    """A logo in front, (64, 128) in 0..1: disc, box, ring, bars like lines of text, or a diamond."""
    down, angle = _angles()
    y, x = (down - rng.uniform(0.27, 0.4)) / rng.uniform(0.1, 0.2), angle / rng.uniform(0.4, 0.7)
    radius, shape = np.sqrt(x * x + y * y), rng.integers(6)
    inside = [
        radius < 1,
        (np.abs(x) < 0.9) & (np.abs(y) < 0.8),
        (radius < 1) & (radius > 0.55),
        (np.abs(x) < 1) & (np.abs(y) < 0.9) & ((y * 2.5) % 1 < 0.5),
        np.abs(x) + np.abs(y) < 1,
        (np.abs(x) < 1) & (np.abs(y) < 0.35),
    ][shape]
    return inside.astype(np.float32)


def _mix(base: np.ndarray, accent: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (base + share[..., None] * (accent - base)).astype(np.uint8)


def upper_textures(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The garment of the torso (64, 128, 3) and its sleeves, the same or one colour (3,)."""
    base = cloth_colour(rng)
    accent = contrast_colour(rng, base)
    weights = {"plain": 34, "print": 24, "stripes": 11, "bars": 3, "checks": 8, "block": 12, "dots": 5, "camouflage": 3}
    if kind in ("jacket", "coat"):
        weights = {"plain": 60, "block": 16, "checks": 8, "camouflage": 3, "print": 6}
    style = _choice(rng, weights)
    share = pattern(rng, style, base, accent)
    body = _mix(base, accent, share)
    sleeve = body if style in ("stripes", "checks", "dots", "camouflage", "bars") else base
    if style == "block" and rng.random() < 0.5:
        sleeve = accent
    if style == "print":
        body = _mix(base, accent, chest_print(rng))
        if rng.random() < 0.35:
            body = _mix(body, contrast_colour(rng, base), np.roll(chest_print(rng), COLUMNS // 2, axis=1))
    down, angle = _angles()
    body = body.astype(np.float32)
    if kind in ("jacket", "coat"):
        opening = rng.uniform(0.2, 0.5) if rng.random() < 0.7 else 0.0
        inner = contrast_colour(rng, base)
        front = (np.abs(angle) < opening * (0.5 + down)) + np.zeros_like(down) > 0
        body[front] = inner
        seam = (np.abs(np.abs(angle) - opening * (0.5 + down)) < 0.05) + np.zeros_like(down) > 0
        body[seam] *= 0.6
    if kind == "hoodie":
        body[(np.abs(angle) < 0.5) & (down > 0.66) & (down < 0.88)] *= 0.8
    body *= 1 - 0.25 * (down > 0.965)[..., None]
    return body.astype(np.uint8), sleeve


def lower_texture(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Trousers, shorts or a skirt, one colour (3,) or (64, 128, 3): washed denim, a side stripe, seldom checks."""
    base = cloth_colour(rng, below=True)
    down, angle = _angles()
    weights = {"plain": 60, "washed": 20, "side": 12, "checks": 3, "camouflage": 3}
    if kind == "skirt":
        weights = {"plain": 50, "checks": 12, "stripes": 10, "dots": 12, "camouflage": 8}
    style = _choice(rng, weights)
    accent = contrast_colour(rng, base)
    if style == "plain":
        return base
    if style == "washed":
        worn = np.broadcast_to(1 - 1.6 * np.abs(down - 0.35), (ROWS, COLUMNS))
        return _mix(base * 0.9, np.minimum(base * 1.35, 250), worn)
    if style == "side":
        share = (np.abs(np.abs(angle) - np.pi / 2) < 0.3) + np.zeros_like(down)
        return _mix(base, accent, share)
    return _mix(base, accent, pattern(rng, style, base, accent))


def head_texture(skin: np.ndarray, hair: np.ndarray, style: str, hat: np.ndarray, beard: bool) -> np.ndarray:
    """Skin, hair, eyes and mouth wrapped around the head, (64, 128, 3); row 0 is the crown."""
    down, angle = _angles()
    texture = np.broadcast_to(skin, (ROWS, COLUMNS, 3)).copy()
    side = np.abs(angle)
    for centre in (-0.42, 0.42):
        eye = (np.abs(angle - centre) < 0.17) & (np.abs(down - 0.52) < 0.035)
        texture[eye] = (40, 30, 28)
        texture[(np.abs(angle - centre) < 0.26) & (np.abs(down - 0.445) < 0.02)] = 0.5 * skin + 0.5 * hair
    texture[(side < 0.12) & (down > 0.5) & (down < 0.68)] *= 1.07
    texture[(side < 0.25) & (np.abs(down - 0.76) < 0.022)] = skin * (0.75, 0.5, 0.5)
    texture[(side < 0.7) & (down > 0.9)] *= 0.8
    if beard:
        texture[(side < 1.1) & (down > 0.8)] = hair * 0.6 + skin * 0.4
    if style != "bald":
        line = [0.28, 0.3, 0.36, 0.52, 0.7, 0.8]
        if style in ("long", "bob", "ponytail", "bun"):
            line = [0.26, 0.29, 0.42, 0.72, 0.95, 0.95]
        line = np.interp(side[0], [0, 0.8, 1.1, 1.5, 1.9, np.pi], line)[None]
        texture[down < line] = hair
    else:
        texture[(side > 1.3) & (down > 0.45) & (down < 0.75)] = 0.2 * hair + 0.8 * skin
    if style in ("cap", "sunhat"):
        texture[(down < 0.4) | ((side > 1.5) & (down < 0.5))] = hat
    return texture.astype(np.uint8)


@lru_cache(maxsize=384)
def person(seed: int, pid: int) -> Person:
    """Meet person `pid` of the world `seed`."""
    rng = generator(seed, 1, pid)
    feminine = rng.random() < 0.5
    skin = np.array(SKIN[rng.choice(6, p=[0.22, 0.26, 0.24, 0.14, 0.08, 0.06])], np.float32) * rng.uniform(0.94, 1.05)
    hair = np.float32(HAIR[rng.choice(7, p=[0.4, 0.2, 0.14, 0.08, 0.08, 0.07, 0.03])]) * rng.uniform(0.85, 1.2)
    styles = {"short": 20, "long": 40, "bob": 16, "bun": 10, "ponytail": 16, "cap": 5, "sunhat": 6}
    if not feminine:
        styles = {"short": 72, "bald": 8, "long": 3, "cap": 15, "sunhat": 2}
    hair_style = _choice(rng, styles)
    hat = cloth_colour(rng)
    uppers = {"tshirt": 46, "longsleeve": 18, "jacket": 14, "hoodie": 10, "coat": 4}
    upper_kind = _choice(rng, uppers | ({"dress": 16} if feminine else {}))
    upper, sleeve = upper_textures(rng, upper_kind)
    lowers = {"trousers": 62, "shorts": 16, "skirt": 20 if feminine else 0}
    lower_kind = _choice(rng, lowers)
    long_garment = upper_kind in ("dress", "coat")
    hem = rng.uniform(0.27, 0.4) if long_garment else rng.uniform(0.46, 0.51)
    legs = {"trousers": rng.uniform(0.05, 0.09), "shorts": rng.uniform(0.27, 0.4), "skirt": rng.uniform(0.2, 0.4)}
    stockings = np.array((34, 32, 36), np.float32) if feminine and rng.random() < 0.25 else skin
    if upper_kind == "dress":
        lower_kind, legs["skirt"] = "skirt", hem
    sleeves = {"tshirt": rng.uniform(0.22, 0.45), "dress": float(rng.choice([0.12, 0.3, 1.0]))}
    return Person(
        build=float(np.clip(rng.normal(1.0 if feminine else 1.06, 0.11), 0.84, 1.36)),
        shoulder=(0.094 if feminine else 0.104) * rng.uniform(0.94, 1.07),
        hip=(0.052 if feminine else 0.047) * rng.uniform(0.95, 1.08),
        leg=rng.uniform(0.49, 0.52),
        head=rng.uniform(0.95, 1.1),
        stride=rng.uniform(0.2, 0.4),
        arm_swing=rng.uniform(0.25, 0.6),
        elbow=rng.uniform(0.15, 0.7),
        lean=rng.uniform(0.0, 0.1),
        skin=skin,
        hair=hair,
        hair_style=hair_style,
        hat=hat,
        face=head_texture(skin, hair, hair_style, hat, not feminine and rng.random() < 0.25),
        upper_kind=upper_kind,
        upper=upper,
        sleeve=sleeve,
        sleeve_length=float(sleeves.get(upper_kind, 1.0)),
        hem=hem,
        flare=rng.uniform(1.0, 1.35) if long_garment else rng.uniform(0.98, 1.1),
        lower_kind=lower_kind,
        lower=lower_texture(rng, lower_kind),
        lower_length=legs[lower_kind],
        lower_width=rng.uniform(0.92, 1.28),
        shin=stockings if lower_kind != "trousers" else skin,
        shoe=np.array(
            [(28, 28, 30), (225, 224, 220), (92, 64, 46), (120, 122, 128), (176, 40, 44), (52, 74, 140)][
                rng.choice(6, p=[0.42, 0.24, 0.14, 0.1, 0.05, 0.05])
            ],
            np.float32,
        ),
        bag_kind=_choice(rng, {"none": 42, "backpack": 22, "crossbody": 14, "handbag": 13, "shopping": 9}),
        bag=contrast_colour(rng, cloth_colour(rng)) if rng.random() < 0.5 else cloth_colour(rng),
        bag_size=rng.uniform(0.8, 1.2),
        bag_side=int(rng.choice([-1, 1])),
    )
