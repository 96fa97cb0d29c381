"""Pose a person in mid-step and paint them, far parts first.

The body is a small 3-D skeleton (x to the person's left, y up, z forward, in body heights, the ground at y = 0), turned
by the walking direction and seen by a camera that looks down a little. Yaw 0 faces the camera, pi shows the
back, pi / 2 walks to the right of the picture.
"""

import math
from dataclasses import dataclass

from lab.data.synthetic.draw import Canvas
from lab.data.synthetic.people import Person

HEAD = 0.925  # height of the middle of the head
Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """Where and how a person is seen: step phase, yaw and pitch in radians, the feet at (x, y), `size` in pixels."""

    phase: float
    yaw: float
    pitch: float
    perspective: float  # how much larger the head is drawn than the feet, because a high camera is closer to it
    x: float
    y: float
    size: float

    def project(self, left: float, up: float, forward: float) -> Point:
        """A point of the body in pixels of the canvas."""
        across = left * math.cos(self.yaw) + forward * math.sin(self.yaw)
        depth = forward * math.cos(self.yaw) - left * math.sin(self.yaw)
        rise = up + self.perspective * (up * up - up) / 2
        y = self.y - self.size * (rise * math.cos(self.pitch) - depth * math.sin(self.pitch))
        return self.x + self.scale(up) * across, y

    def scale(self, up: float) -> float:
        """Pixels per body height at this height of the body."""
        return self.size * (1 + self.perspective * (up - 0.5))

    def half(self, side: float, front: float) -> float:
        """Half width in body heights of an oval that is `side` wide and `front` deep, seen from this direction."""
        return math.hypot(side * math.cos(self.yaw), front * math.sin(self.yaw))


def between(a: Point, b: Point, share: float) -> Point:
    """The point that lies this share of the way from a to b."""
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def skeleton(person: Person, phase: float) -> dict[str, tuple[float, float, float]]:
    """Joints of a walking body at this phase of the step: name -> (left, up, forward), the lower foot on the ground."""
    joints = {}

    def limb(start: str, end: str, length: float, angle: float, out: float = 0.0, drop: float = 0.0) -> None:
        """Hang a bone on a joint; the angle is 0 downwards and grows forwards."""
        left, up, forward = joints[start]
        joints[end] = left + out, up - length * math.cos(angle) - drop, forward + length * math.sin(angle)

    for side, n in ((1, "l"), (-1, "r")):
        swing = phase + (0 if side == 1 else math.pi)
        thigh = person.stride * math.sin(swing) + 0.05
        shin = thigh - 0.08 - 0.8 * max(0.0, math.cos(swing + 0.35)) ** 1.5 * (person.stride / 0.4)
        joints[f"hip_{n}"] = side * person.hip, person.leg, 0.0
        limb(f"hip_{n}", f"knee_{n}", person.leg - 0.275, thigh)
        limb(f"knee_{n}", f"ankle_{n}", 0.235, shin)
        tip = -0.55 * max(0.0, -math.sin(swing)) - 0.3 * max(0.0, math.cos(swing))  # toes point down behind the body
        limb(f"ankle_{n}", f"toe_{n}", 0.078, math.pi / 2 + tip, side * 0.008, 0.018)
        limb(f"ankle_{n}", f"heel_{n}", 0.024, -math.pi / 2 + tip, 0.0, 0.018)
        arm = -person.arm_swing * math.sin(swing) + 0.05
        joints[f"shoulder_{n}"] = side * person.shoulder * 0.93, 0.792, person.lean * 0.3
        limb(f"shoulder_{n}", f"elbow_{n}", 0.16, arm, side * 0.026)
        fore_arm = arm + person.elbow * (0.7 - 0.3 * math.sin(swing))
        limb(f"elbow_{n}", f"wrist_{n}", 0.14, fore_arm)
        limb(f"wrist_{n}", f"hand_{n}", 0.035, fore_arm)
    ground = min(joints[f"{joint}_{n}"][1] for joint in ("toe", "heel", "ankle") for n in "lr") - 0.018
    return {name: (left, up - ground, forward) for name, (left, up, forward) in joints.items()}


class Painter:
    """Paints one person in one pose; every method adds one part of the body to the canvas."""

    def __init__(self, canvas: Canvas, person: Person, pose: Pose):
        self.canvas, self.person, self.pose = canvas, person, pose
        self.body = skeleton(person, pose.phase)
        self.at = {name: pose.project(*joint) for name, joint in self.body.items()}
        self.drop = self.body["hip_l"][1] - person.leg  # the body sinks a little in a long step

    def middle(self, up: float, forward: float = 0.0, left: float = 0.0) -> Point:
        """Where a point of the trunk is seen; the trunk leans forward with height."""
        lean = self.person.lean * (up - self.person.leg)
        return self.pose.project(left, up + self.drop, forward + lean)

    def paint(self) -> None:
        """Paint everything in the order of depth."""
        facing, near = math.cos(self.pose.yaw), "l" if math.sin(self.pose.yaw) < 0 else "r"
        far = "r" if near == "l" else "l"
        steps = [(-0.30, lambda: self.arm(far)), (-0.2, lambda: self.leg(far)), (-0.1, lambda: self.leg(near))]
        if self.body[f"ankle_{near}"][2] * facing < self.body[f"ankle_{far}"][2] * facing and abs(facing) > 0.8:
            steps[1:] = [(-0.2, lambda: self.leg(near)), (-0.1, lambda: self.leg(far))]
        steps += [(0.0, self.trunk), (0.1, self.head), (0.3, lambda: self.arm(near))]
        if abs(facing) > 0.75:
            steps[0] = (0.29, steps[0][1])
        steps.append((0.2 if facing < 0 else -0.05, self.long_hair))
        steps.append((0.15 if facing < 0.1 else -0.4, self.backpack))
        steps.append((0.05, self.straps))
        steps.append((0.32 if (self.person.bag_side > 0) == (near == "l") else -0.32, self.carried_bag))
        for _, step in sorted(steps, key=lambda pair: pair[0]):
            step()

    def arm(self, side: str) -> None:
        """Sleeve, bare arm and hand."""
        person, at, size = self.person, self.at, self.pose.scale(0.7)
        thick = size * person.build**0.5
        turn, cover = self.pose.yaw, person.sleeve_length
        shoulder, elbow, wrist, hand = (at[f"{key}_{side}"] for key in ("shoulder", "elbow", "wrist", "hand"))
        draw = self.canvas.capsule
        draw(wrist, hand, 0.02 * size, 0.018 * size, person.skin, rough=0)
        if cover < 1:
            draw(elbow, wrist, 0.026 * thick, 0.019 * thick, person.skin, rough=0)
            draw(shoulder, elbow, 0.031 * thick, 0.026 * thick, person.skin, rough=0)
            end = between(shoulder, elbow, min(1.0, cover / 0.54))
            draw(shoulder, end, 0.033 * thick, 0.036 * thick, person.sleeve, turn, (0.02, 0.5), "torso")
        else:
            loose = thick * (1.15 if person.upper_kind in ("jacket", "hoodie", "coat") else 1.0)
            draw(elbow, wrist, 0.033 * loose, 0.025 * loose, person.sleeve, turn, (0.5, 1.0))
            draw(shoulder, elbow, 0.034 * loose, 0.032 * loose, person.sleeve, turn, (0.02, 0.5), "torso")

    def leg(self, side: str) -> None:
        """Shoe, shin and thigh with what covers them."""
        person, at, size = self.person, self.at, self.pose.scale(0.25)
        thick, turn, draw = size * person.build**0.6, self.pose.yaw, self.canvas.capsule
        hip, knee, ankle, toe, heel = (at[f"{key}_{side}"] for key in ("hip", "knee", "ankle", "toe", "heel"))
        draw(ankle, knee, 0.024 * thick, 0.038 * thick, person.shin, part="legs", rough=0.3)
        draw(heel, toe, 0.023 * size, 0.019 * size, person.shoe, part="legs", rough=0)
        loose = thick * person.lower_width
        if person.lower_kind == "trousers":
            end = between(ankle, knee, (person.lower_length - 0.05) / 0.22)
            draw(knee, end, 0.044 * loose, 0.036 * loose, person.lower, turn, (0.55, 1.0), "legs")
            draw(hip, knee, 0.066 * thick, 0.046 * loose, person.lower, turn, (0.0, 0.57), "legs")
        elif person.lower_kind == "shorts":
            draw(hip, knee, 0.056 * thick, 0.04 * thick, person.shin, turn, rough=0.3)
            end = between(hip, knee, min(1.05, (person.leg - person.lower_length) / (person.leg - 0.275)))
            draw(hip, end, 0.067 * thick, 0.058 * loose, person.lower, turn, (0.0, 0.9), "legs")
        else:
            draw(hip, knee, 0.054 * thick, 0.04 * thick, person.shin, turn, part="legs", rough=0.3)

    def _loft(self, sections, paint, part: str | None, rows=(0.0, 1.0)) -> None:
        """A body through sections (height, half width seen from the front, half depth, shift forward)."""
        points = [self.middle(up, forward) for up, _, _, forward in sections]
        halves = [self.pose.half(a, b) * self.pose.scale(up) for up, a, b, _ in sections]
        ys = [max(p[1] for p in points[: n + 1]) + n * 1e-3 for n in range(len(points))]
        self.canvas.loft(ys, [p[0] for p in points], halves, paint, self.pose.yaw, rows, part)

    def trunk(self) -> None:
        """Hips in the lower garment, then the upper garment from the neck to its hem; a skirt hangs over the legs."""
        person, wide = self.person, self.person.build
        hips = (person.hip + 0.05) * (0.5 + 0.5 * wide)
        self._loft(
            [(0.6, hips * 0.86, 0.06 * wide, 0), (0.53, hips, 0.068 * wide, 0), (0.46, hips * 0.92, 0.062 * wide, 0)],
            person.lower,
            "legs",
            (0.0, 0.2),
        )
        if person.lower_kind == "skirt" and person.upper_kind != "dress":
            end = person.lower_length
            width = hips * (1.0 + 0.9 * (person.lower_width - 0.92))
            sections = [(0.58, hips * 0.9, 0.06, 0), (0.5, hips * 1.03, 0.07, 0), (end, width, width * 0.9, 0.01)]
            self._loft(sections, person.lower, "legs")
        loose = 1.1 if person.upper_kind in ("jacket", "hoodie", "coat") else 1.0
        shoulder, waist = person.shoulder, (0.07 + 0.15 * person.shoulder) * wide * loose
        self.canvas.capsule(
            self.middle(0.82),
            self.middle(0.875, 0.01),
            0.03 * self.pose.scale(0.8),
            0.027 * self.pose.scale(0.85),
            person.skin * 0.9,
            rough=0,
        )
        sections = [
            (0.853, 0.034, 0.034, 0.0),
            (0.838, 0.052, 0.045, 0.0),
            (0.822, shoulder * 0.97, 0.054, 0.0),
            (0.79, shoulder * 1.13, 0.066 * wide * loose, 0.0),
            (0.73, shoulder * 1.08 * (0.6 + 0.4 * wide), 0.08 * wide * loose, 0.004),
            (0.62, waist, 0.07 * wide * loose, 0.006 * wide),
            (0.53, max(hips * 1.02, waist) * loose, 0.078 * wide * loose, 0.0),
        ]
        end = hips * 1.04 * loose * person.flare
        sections.append((person.hem, end, end * 0.8, 0.0))
        self._loft(sections, person.upper, "torso")
        if person.upper_kind == "hoodie":
            hood = self.middle(0.835, -0.045)
            self.canvas.ellipsoid(
                hood, 0.06 * self.pose.scale(0.8), 0.03 * self.pose.scale(0.8), person.sleeve * 0.85, self.pose.yaw
            )

    def head(self) -> None:
        """Head with face and hair by direction, then bun, ponytail or hat."""
        person, pose = self.person, self.pose
        size = pose.scale(0.93) * person.head
        centre = self.middle(HEAD, 0.012)
        rx = pose.half(0.048, 0.057) * size
        tall, lift = (0.073, 0.004) if person.hair_style in ("long", "bob", "bun", "ponytail") else (0.07, 0.0)
        centre = centre[0], centre[1] - lift * size
        if person.hair_style == "bob":
            back = self.middle(HEAD - 0.02, -0.012)
            self.canvas.ellipsoid(back, pose.half(0.06, 0.05) * size, 0.07 * size, person.hair)
        tilt = 0.25 * math.sin(pose.pitch)
        self.canvas.ellipsoid(centre, rx, tall * size, person.face, pose.yaw, tilt, "head", 0.4)
        if person.hair_style == "bun":
            self.canvas.ellipsoid(self.middle(HEAD + 0.045, -0.045), 0.026 * size, 0.024 * size, person.hair)
        if person.hair_style == "ponytail":
            top, tip = self.middle(HEAD + 0.02, -0.05), self.middle(HEAD - 0.11, -0.075)
            if math.cos(pose.yaw) < 0.7:
                self.canvas.capsule(top, tip, 0.02 * size, 0.012 * size, person.hair, rough=0.6)
        if person.hair_style == "cap" and math.cos(pose.yaw) > -0.3:
            front, brim = self.middle(HEAD + 0.022, 0.05), self.middle(HEAD + 0.014, 0.095)
            wide = pose.half(0.034, 0.012) * size
            self.canvas.capsule(
                (front[0] - wide, front[1]), (front[0] + wide, front[1]), 0.01 * size, 0.01 * size, person.hat * 0.8
            )
            self.canvas.capsule(front, brim, 0.012 * size, 0.008 * size, person.hat * 0.8)
        if person.hair_style == "sunhat":
            brim = self.middle(HEAD + 0.02, 0.01)
            self.canvas.ellipsoid(brim, 0.088 * size, (0.014 + 0.05 * math.sin(pose.pitch)) * size, person.hat)
            self.canvas.ellipsoid(self.middle(HEAD + 0.045, 0.01), 0.048 * size, 0.035 * size, person.hat * 0.95)

    def long_hair(self) -> None:
        """Hair that falls to the shoulder blades: over the back, or behind the neck when seen from the front."""
        if self.person.hair_style != "long":
            return
        sections = [
            (0.95, 0.04, 0.03, -0.02),
            (0.9, 0.05, 0.034, -0.025),
            (0.84, 0.054, 0.03, -0.035),
            (0.76, 0.046, 0.022, -0.05),
        ]
        self._loft(sections, self.person.hair * 0.95, None)

    def backpack(self) -> None:
        """A bag on the back: hides the back from behind and sticks out from the side."""
        if self.person.bag_kind != "backpack":
            return
        person, size = self.person, self.pose.scale(0.7) * self.person.bag_size
        a, b = self.middle(0.785, -0.1), self.middle(0.645, -0.11)
        half = self.pose.half(0.07, 0.048) * size
        down = 1.0 if b[1] > a[1] else -1.0
        self.canvas.loft(
            [a[1] - 0.035 * size, a[1] - 0.01 * size, b[1] - 0.02 * size * down, b[1] + 0.035 * size],
            [a[0], a[0], b[0], b[0]],
            [half * 0.6, half * 0.92, half, half * 0.9],
            person.bag,
            self.pose.yaw,
        )
        if math.cos(self.pose.yaw) < 0.1:
            low = between(a, b, 0.7)
            self.canvas.loft(
                [low[1], b[1] + 0.02 * size], [low[0], low[0]], [half * 0.72, half * 0.72], person.bag * 0.75
            )

    def straps(self) -> None:
        """The straps of a backpack in front, or of a bag across the chest."""
        person, size = self.person, self.pose.scale(0.75)
        facing = math.cos(self.pose.yaw)
        if person.bag_kind == "backpack" and facing > -0.5:
            for left in (-0.062, 0.062):
                front = 0.065 if facing > 0.25 else 0.03
                a, b = self.middle(0.828, 0.03, left), self.middle(0.67, front, left * 1.15)
                self.canvas.capsule(a, b, 0.012 * size, 0.011 * size, person.bag * 0.9, rough=0)
        if person.bag_kind == "crossbody":
            depth = 0.06 if facing > 0 else -0.06
            a = self.middle(0.825, depth * 0.4, -0.07 * person.bag_side)
            b = self.middle(0.56, depth, 0.085 * person.bag_side)
            self.canvas.capsule(a, b, 0.008 * size, 0.008 * size, person.bag * 0.8, rough=0)

    def carried_bag(self) -> None:
        """A shoulder bag at the hip, or a bag hanging from the hand."""
        person, size = self.person, self.pose.scale(0.5)
        if person.bag_kind == "crossbody":
            centre, wide, tall = self.middle(0.53, 0.0, 0.115 * person.bag_side), 0.03, 0.05
            wide = self.pose.half(0.028, 0.062)
        elif person.bag_kind in ("handbag", "shopping"):
            hand = self.at["hand_l" if person.bag_side > 0 else "hand_r"]
            tall = 0.052 if person.bag_kind == "handbag" else 0.075
            wide = self.pose.half(0.022, 0.066)
            centre = hand[0], hand[1] + (tall + 0.05) * size
            self.canvas.capsule(hand, centre, 0.006 * size, 0.008 * size, person.bag * 0.8, rough=0)
        else:
            return
        wide, tall = wide * size * person.bag_size, tall * size * person.bag_size
        ys = [centre[1] - tall, centre[1] - tall * 0.6, centre[1] + tall]
        self.canvas.loft(ys, [centre[0]] * 3, [wide * 0.75, wide * 0.9, wide], person.bag, rough=0.7)
