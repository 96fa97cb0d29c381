"""Boxes to crops: filters at their very limits, counts that add up, and the crops of a plain loop over everything."""

from collections import Counter
from dataclasses import replace

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image
from shared_data import SHARED

from lab.data.video.cut import cut, prepare
from lab.data.video.detections import Boxes
from lab.data.video.filters import blur_heads, mismatch, pixel_corners, scaled, select, sharpness
from lab.data.video.settings import BuildConfig

SIZE = (240, 320)  # height, width
ALL = BuildConfig(min_score=0, min_width=0, min_aspect=0, max_aspect=100)


def boxes_of(*rows: tuple) -> Boxes:
    """Boxes from rows (frame, x, y, width, height[, score[, track]])."""
    table = np.array([(*row, *(1, -1)[len(row) - 5 :]) for row in rows], dtype=float).reshape(-1, 7)
    frame, track = table[:, 0].astype(np.int64), table[:, 6].astype(np.int64)
    return Boxes(frame, table[:, 1:5], table[:, 5], track, {})


def noise(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def many_boxes(count: int, frames: int, seed: int = 0) -> Boxes:
    """Random boxes of all kinds: half outside, far outside, tiny, flat, tall, with and without score."""
    draw = np.random.default_rng(seed)
    frame = np.sort(draw.integers(1, frames + 1, count))
    width = draw.uniform(0.2, 80, count)
    box = np.stack(
        [draw.uniform(-60, 380, count), draw.uniform(-60, 300, count), width, width * draw.uniform(1, 6, count)]
    )
    score = np.where(draw.random(count) < 0.1, np.nan, draw.random(count))
    return Boxes(frame, box.T, score, np.full(count, -1), {})


def plain_loop(frames: dict[int, np.ndarray], boxes: Boxes, config: BuildConfig) -> tuple[list, Counter]:
    """The published extraction with the paper's filters, one box at a time: rows (frame, box, JPEG), reasons."""
    rows, dropped = [], Counter()
    for frame, (x, y, w, h), score in zip(boxes.frame.tolist(), boxes.box.tolist(), boxes.score.tolist(), strict=True):
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, SIZE[1]), min(y + h, SIZE[0])
        x0, y0, x1, y1 = (int(np.round(corner)) for corner in (left, top, right, bottom))
        if right <= left or bottom <= top:
            dropped["outside the frame"] += 1
        elif score <= config.min_score:
            dropped["low score"] += 1
        elif right - left <= config.min_width:
            dropped["too narrow"] += 1
        elif (bottom - top) / (right - left) < config.min_aspect:
            dropped["too flat"] += 1
        elif (bottom - top) / (right - left) > config.max_aspect:
            dropped["too tall"] += 1
        elif x0 == x1 or y0 == y1:
            dropped["less than a pixel"] += 1
        elif frame not in frames:
            dropped["frame not decoded"] += 1
        else:
            image = frames[frame][:, :, ::-1].copy()  # OpenCV's order
            jpeg = cv2.imencode(".jpg", image[y0:y1, x0:x1], [cv2.IMWRITE_JPEG_QUALITY, config.quality])[1].tobytes()
            rows.append((frame, (x, y, w, h), jpeg))
    return rows, dropped


@pytest.mark.parametrize("config", [BuildConfig(), ALL, BuildConfig(min_score=0.2, min_width=10, quality=60)])
def test_crops_and_counts_are_those_of_a_plain_loop(config):
    frames = {number: noise(number) for number in range(1, 9)}  # boxes go on to frame 10
    boxes, dropped = many_boxes(400, 10), Counter()
    chosen = select(boxes, SIZE, config, dropped)
    crops = list(cut(frames.items(), chosen, SIZE, config, dropped))
    rows, reasons = plain_loop(frames, boxes, config)
    assert [(crop.frame, crop.box, crop.jpeg) for crop in crops] == rows
    assert dropped == reasons
    assert len(crops) + dropped.total() == 400
    assert all(type(count) is int for count in dropped.values())
    assert len(reasons) >= 3


def test_a_crop_says_where_it_comes_from():
    boxes = boxes_of((3, -10, 20, 50, 100, 0.9, 7), (3, 10, 20, 60, 120, np.nan))
    first, second = cut([(3, noise(0))], boxes, SIZE, ALL, Counter())
    assert (first.frame, first.box, first.score, first.track) == (3, (-10, 20, 50, 100), 0.9, 7)
    assert (first.height, first.width, first.clipped) == (100, 40, True)
    assert (second.track, second.clipped) == (-1, False)
    assert np.isnan(second.score)
    assert cv2.imdecode(np.frombuffer(first.jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (100, 40, 3)


def test_colours_are_not_swapped():
    red = np.zeros((*SIZE, 3), np.uint8)
    red[:, :, 0] = 200
    (crop,) = cut([(1, red)], boxes_of((1, 0, 0, 20, 40)), SIZE, ALL, Counter())
    b, g, r = cv2.imdecode(np.frombuffer(crop.jpeg, np.uint8), cv2.IMREAD_COLOR)[5, 5].tolist()
    assert r > 190
    assert max(b, g) < 10


@pytest.mark.parametrize(
    ("box", "score", "reason"),
    [
        ((10, 10, 50, 75), 0.73, None),
        ((10, 10, 50, 75), 0.72, "low score"),
        ((10, 10, 50, 75), np.nan, None),
        ((16.4, 10, 48, 100), 0.9, "too narrow"),  # 64.4 - 16.4 is more than 48 in floating point
        ((16.4, 10, 48.01, 100), 0.9, None),
        ((-3, 10, 51, 100), 0.9, "too narrow"),  # 48 of it are in the frame
        ((-3, 10, 51.5, 100), 0.9, None),
        ((10, 10, 50, 74.9), 0.9, "too flat"),
        ((250, 10, 49, 230), 0.9, None),
        ((10, 10, 50, 250.0), 0.9, None),  # clipped to 230
        ((-1, -100, 51, 350), 0.9, None),  # 50 x 240
        ((-1, -10, 49.5, 350), 0.9, None),
        ((320, 10, 50, 100), 0.9, "outside the frame"),
        ((-50, 10, 50, 100), 0.1, "outside the frame"),
        ((10, 240, 50, 100), 0.9, "outside the frame"),
        ((319.9, 10, 50, 100), 0.1, "low score"),
        ((319.9, 10, 50, 100), 0.9, "too narrow"),
    ],
)
def test_a_box_at_a_limit(box, score, reason):
    dropped = Counter()
    chosen = select(boxes_of((1, *box, score)), SIZE, BuildConfig(), dropped)
    assert dropped == ({reason: 1} if reason else {})
    assert len(chosen) == (reason is None)


def test_the_highest_box_still_passes():
    config, dropped = BuildConfig(min_width=0), Counter()
    assert len(select(boxes_of((1, 5, 5, 40, 200), (1, 5, 5, 40, 200.1)), SIZE, config, dropped)) == 1
    assert dropped == {"too tall": 1}


def test_a_box_that_rounds_to_nothing_is_dropped():
    dropped = Counter()
    chosen = select(boxes_of((1, 10.6, 10, 0.8, 9), (1, 10.4, 10, 0.8, 9), (1, 5, 7.6, 4, 0.8)), SIZE, ALL, dropped)
    assert chosen.box[:, 0].tolist() == [10.4]
    assert dropped == {"less than a pixel": 2}


def test_corners_round_half_to_even_and_stay_in_the_frame():
    corners = pixel_corners(boxes_of((1, 0.5, 1.5, 2, 3), (1, -5.2, 200, 400, 400)), SIZE)
    assert corners.tolist() == [[0, 2, 2, 4], [0, 200, 320, 240]]


def test_boxes_found_in_a_smaller_copy_are_scaled():
    config = replace(ALL, frame_height=120)
    found = prepare(boxes_of((1, 10, 20, 30, 45)), SIZE, config)
    assert found.box.tolist() == [[20, 40, 60, 90]]
    (crop,) = cut([(1, noise(0))], found, SIZE, config, Counter())
    assert (crop.box, crop.height, crop.width) == ((20, 40, 60, 90), 90, 60)
    assert scaled(found, SIZE, ALL) is found


def test_boxes_of_frames_that_never_come_are_counted():
    boxes, dropped = boxes_of(*((f, 10, 10, 20, 40) for f in (1, 2, 2, 3, 4, 4))), Counter()
    frames = [(1, noise(1)), (3, noise(3)), (7, noise(7))]  # the reader was asked for frame 7, too
    assert [crop.frame for crop in cut(frames, boxes, SIZE, ALL, dropped)] == [1, 3]
    assert dropped == {"frame not decoded": 4}


def test_no_boxes_no_crops():
    dropped = Counter()
    assert len(select(boxes_of(), SIZE, ALL, dropped)) == 0
    assert list(cut([(1, noise(0))], boxes_of(), SIZE, ALL, dropped)) == []
    assert dropped == {}
    assert mismatch(boxes_of(), 100, SIZE) is None


def test_detections_of_another_video_are_noticed():
    inside = [(f, 10, 10, 20, 40) for f in range(1, 101)]
    beyond = [(50, 300, 200, 42, 45)] * 6  # 20 of 42 pixels and 40 of 45 are in the frame: 42 %
    half = [(60, 300, 200, 35, 45)] * 20  # 20 of 35 pixels and 40 of 45: 51 %
    assert mismatch(boxes_of(*inside), 0, SIZE) is None
    assert mismatch(boxes_of(*inside, *beyond[:5]), 0, SIZE) is None
    assert mismatch(boxes_of(*inside, *half), 0, SIZE) is None
    assert "6 of 106 boxes lie mostly outside its frame of 320 x 240" in mismatch(boxes_of(*inside, *beyond), 0, SIZE)
    assert mismatch(boxes_of(*inside[:4], *beyond[:2]), 0, SIZE) is None  # two boxes are no proof
    assert mismatch(boxes_of(*inside), 98, SIZE) is None
    assert "go on to frame 100 and it ends at frame 97" in mismatch(boxes_of(*inside), 97, SIZE)
    long = boxes_of((1010, 10, 10, 20, 40))
    assert mismatch(long, 1000, SIZE) is None
    assert mismatch(long, 999, SIZE) is not None


def test_sharpness_is_the_variance_of_the_neighbours_difference():
    grey = np.random.default_rng(0).integers(0, 256, (12, 9))
    around = np.pad(grey, 1, mode="reflect")
    slow = [
        around[y, x + 1] + around[y + 2, x + 1] + around[y + 1, x] + around[y + 1, x + 2] - 4 * grey[y, x]
        for y in range(12)
        for x in range(9)
    ]
    assert sharpness(np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)) == pytest.approx(np.var(slow))


def test_blurred_crops_are_dropped():
    frame = noise(0)
    frame[:, 160:] = cv2.GaussianBlur(frame, (0, 0), 3)[:, 160:]
    config, dropped = replace(ALL, min_sharpness=200), Counter()
    boxes = boxes_of((1, 10, 10, 50, 100), (1, 200, 10, 50, 100))
    assert [crop.box[0] for crop in cut([(1, frame)], boxes, SIZE, config, dropped)] == [10]
    assert dropped == {"blurred": 1}


def scenes() -> tuple[dict[int, np.ndarray], Boxes]:
    """Two tracklets of which each crop is a mixture of two pictures: 0 slowly becomes another, 1 now and then jumps."""
    smooth = [cv2.GaussianBlur(noise(seed, (80, 40)), (0, 0), 6) for seed in range(4)]
    smooth = [cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(float) for picture in smooth]
    frames, rows = {}, []
    for number in range(1, 31):
        frame = np.zeros((*SIZE, 3), np.uint8)
        share = number / 30
        frame[10:90, 10:50] = smooth[0] * (1 - share) + smooth[1] * share
        frame[10:90, 100:140] = smooth[2 + number // 7 % 2]
        frames[number] = frame
        rows += [(number, 10, 10, 40, 80, 1, 5), (number, 100, 10, 40, 80, 1, 9)]
    return frames, boxes_of(*rows)


def slowly_thinned(frames, boxes, min_change, allowed=lambda frame, x: True) -> list[tuple[int, float]]:
    """(frame, x) of what stays when each crop is compared with its tracklet's last kept one."""
    last, kept = {}, []
    for frame, (x, y, w, h), track in zip(
        boxes.frame.tolist(), boxes.box.astype(int).tolist(), boxes.track, strict=True
    ):
        found = imagehash.phash(Image.fromarray(frames[frame][y : y + h, x : x + w]))
        if (track not in last or found - last[track] >= min_change) and allowed(frame, x):
            last[track] = found
            kept.append((frame, x))
    return kept


@pytest.mark.parametrize("min_change", [1, 6, 20, 64])
def test_near_duplicates_of_the_last_kept_crop_are_dropped(min_change):
    frames, boxes = scenes()
    config, dropped = replace(ALL, min_change=min_change), Counter()
    kept = [(crop.frame, crop.box[0]) for crop in cut(frames.items(), boxes, SIZE, config, dropped)]
    assert kept == slowly_thinned(frames, boxes, min_change)
    assert dropped == {"near-duplicate": 60 - len(kept)}
    assert 2 <= len(kept) < 60


def test_thinning_makes_tracklets_where_there_are_none():
    frames, boxes = scenes()
    unknown, config = replace(boxes, track=np.full(60, -1)), replace(ALL, min_change=6)
    assert prepare(unknown, SIZE, ALL).track.tolist() == [-1] * 60
    assert prepare(boxes, SIZE, config).track.tolist() == [5, 9] * 30
    assert prepare(boxes, SIZE, replace(ALL, track="iou")).track.tolist() == [0, 1] * 30
    crops = [
        [(crop.frame, crop.box) for crop in cut(frames.items(), prepare(each, SIZE, config), SIZE, config, Counter())]
        for each in (unknown, boxes)
    ]
    assert crops[0] == crops[1]


def test_a_crop_without_enough_key_points_is_dropped_and_nobody_is_compared_with_it():
    frames, boxes = scenes()
    asked = []

    def left_in_even_frames(rgb, box):
        asked.append(len(box))
        (number,) = [number for number, frame in frames.items() if np.array_equal(frame, rgb)]
        return (box[:, 0] < 50) | (number % 2 == 0)

    config, dropped = replace(ALL, min_change=6), Counter()
    crops = cut(frames.items(), boxes, SIZE, config, dropped, heads=boxes, keypoints=left_in_even_frames)
    kept = [(crop.frame, crop.box[0]) for crop in crops]
    assert kept == slowly_thinned(frames, boxes, 6, lambda frame, x: x < 50 or frame % 2 == 0)
    assert dropped["key points"] > 0
    assert len(kept) + dropped.total() == 60
    assert sum(asked) == len(kept) + dropped["key points"]  # near-duplicates cost no network
    assert min(asked) > 0


def high_frequencies(rgb: np.ndarray) -> float:
    """Standard deviation between neighbours, 0..255."""
    return float(np.diff(rgb.astype(float), axis=1).std())


def test_heads_are_blurred_and_nothing_else_is():
    frame = noise(0)
    box = boxes_of((1, 20, 30, 40, 120), (1, 200.4, -12, 60.2, 120), (1, 300, 230, 60, 120), (1, 400, 0, 20, 90)).box
    before = frame.copy()
    blurred = blur_heads(frame, box)
    assert np.array_equal(frame, before)
    head = np.zeros(SIZE, bool)
    for rows, columns in (((30, 50), (20, 60)), ((0, 8), (200, 261)), ((230, 240), (300, 320))):
        head[slice(*rows), slice(*columns)] = True
        patch = blurred[slice(*rows), slice(*columns)]
        assert high_frequencies(patch) < 0.02 * high_frequencies(frame[slice(*rows), slice(*columns)])
        assert abs(patch.mean() - 127) < 20  # blurred, not blackened
    assert np.array_equal(blurred[~head], frame[~head])


def test_heads_of_all_boxes_are_blurred_in_a_crop_and_the_same_crops_are_kept():
    frame = noise(0)
    found = boxes_of((1, 20, 30, 60, 120, 0.9), (1, 40, 90, 30, 60, 0.1), (2, 20, 30, 60, 120))
    config = replace(BuildConfig(), min_sharpness=44_000, quality=100)
    assert (
        sharpness(blur_heads(frame, found.box[:2])[30:150, 20:80])
        < config.min_sharpness
        <= sharpness(frame[30:150, 20:80])
    )
    chosen = select(found[found.frame == 1], SIZE, config, Counter())
    (plain,) = cut([(1, frame)], chosen, SIZE, config, Counter())
    (crop,) = cut([(1, frame)], chosen, SIZE, config, Counter(), heads=found)
    image, sharp = (cv2.imdecode(np.frombuffer(each.jpeg, np.uint8), cv2.IMREAD_COLOR) for each in (crop, plain))
    assert high_frequencies(image[:19]) < 0.1 * high_frequencies(sharp[:19])
    assert high_frequencies(image[60:70, 21:49]) < 0.1 * high_frequencies(sharp[60:70, 21:49])  # of the low score
    assert high_frequencies(image[80:]) == pytest.approx(high_frequencies(sharp[80:]), rel=0.02)


@pytest.mark.skipif(not (SHARED / "pets09-s2l1").is_dir(), reason=f"no PETS video at {SHARED}")
def test_the_pets_boxes_that_pass_are_those_of_a_plain_count():
    table = np.loadtxt(SHARED / "pets09-s2l1" / "det.txt", delimiter=",")
    boxes = Boxes(table[:, 0].astype(np.int64), table[:, 2:6], table[:, 6], np.full(len(table), -1), {})
    config, dropped = BuildConfig(min_width=20), Counter()
    chosen = select(boxes, (576, 768), config, dropped)
    expected = sum(score > 0.72 and w > 20 and 1.5 <= h / w <= 5 for *_, w, h, score in table[:, 4:7].tolist())
    assert len(chosen) == expected > 3000
    assert len(chosen) + dropped.total() == len(boxes) == 4359
    assert mismatch(boxes, 795, (576, 768)) is None
    assert "--frame-height" in mismatch(boxes, 795, (288, 384))
