"""Detection files: what stands in them comes out as boxes, what cannot be used is counted, and each finds its video."""

import math
import pickle
import random
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from shared_data import SHARED

from lab.data.video.detections import Boxes, match_detections, read_detections
from lab.errors import InputError

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def write(folder: Path, content: str | bytes, name: str = "v.txt") -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def pickled(folder: Path, content, protocol: int = 4) -> Path:
    return write(folder, pickle.dumps(content, protocol=protocol), "v.pkl")


def rows(boxes: Boxes) -> list[tuple]:
    """Boxes as rows of plain numbers; an unknown score is None."""
    scores = [None if math.isnan(score) else score for score in boxes.score.tolist()]
    return list(zip(boxes.frame.tolist(), boxes.track.tolist(), boxes.box.tolist(), scores, strict=True))


def slowly(content: str) -> tuple[list[tuple], Counter]:
    """An oracle for lines with commas: one line after the other, without numpy."""
    found, skipped = [], Counter()
    for line in content.split("\n"):
        line = line.split("#")[0]
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split(",")[:7]] + [""] * 7
        if not cells[5]:
            skipped["fewer than six values"] += 1
            continue
        needed, optional = [cells[0], *cells[2:6]], [cell for cell in (cells[1], cells[6]) if cell]
        if not all(NUMBER.fullmatch(cell) and math.isfinite(float(cell)) for cell in needed + optional):
            skipped["not a number"] += 1
            continue
        frame, *box = map(float, needed)
        track = float(cells[1] or -1)
        score = float(cells[6]) if cells[6] else None
        if frame < 1 or frame % 1:
            skipped["frame is not a whole number from 1"] += 1
        elif track % 1:
            skipped["id is not a whole number"] += 1
        elif box[2] <= 0 or box[3] <= 0:
            skipped["width or height is not positive"] += 1
        elif max(map(abs, box)) > 1e6 or frame >= 2**31 or abs(track) >= 2**31:
            skipped["beyond any video"] += 1
        else:
            found.append((int(frame), max(int(track), -1), box, score))
    return sorted(found, key=lambda row: row[0]), skipped


def test_the_lines_of_motchallenge(tmp_path):
    content = """# frame,id,x,y,w,h,score
3,7,1,2,30,40,0.5,-1,-1,-1
1,-1,649.441,231.502,44.417,86.13,0.995474,-1,-1,-1

1,0,5,6,7,8
2,4, 10.5, -3, 20, 60, ,-1
"""
    expected = [
        (1, -1, [649.441, 231.502, 44.417, 86.13], 0.995474),
        (1, 0, [5, 6, 7, 8], None),
        (2, 4, [10.5, -3, 20, 60], None),
        (3, 7, [1, 2, 30, 40], 0.5),
    ]
    boxes = read_detections(write(tmp_path, content))
    assert rows(boxes) == expected
    assert boxes.skipped == {}
    assert (boxes.frame.dtype, boxes.track.dtype, boxes.box.dtype, boxes.score.dtype) == ("i8", "i8", "f8", "f8")
    assert rows(read_detections(write(tmp_path, content.replace("\n", "\r\n"), "v.csv"))) == expected
    assert rows(read_detections(write(tmp_path, b"\xef\xbb\xbf" + content.encode()))) == expected


@pytest.mark.parametrize("blank", [" ", "\t", "   "])
def test_blanks_may_stand_between_the_numbers(tmp_path, blank):
    lines = ["# a, comment", "2 -1 1 2 30 40 0.5 -1", "1 3 5.5 6 7 8"]
    boxes = read_detections(write(tmp_path, "\n".join(lines).replace(" ", blank)))
    assert rows(boxes) == [(1, 3, [5.5, 6, 7, 8], None), (2, -1, [1, 2, 30, 40], 0.5)]


def test_six_numbers_a_line_are_enough_and_longer_lines_may_follow(tmp_path):
    assert rows(read_detections(write(tmp_path, "1,2,3,4,5,6"))) == [(1, 2, [3, 4, 5, 6], None)]
    mixed = read_detections(write(tmp_path, "1,2,3,4,5,6\n2,2,3,4,5,6,0.5,1,1,1,1,1,1\n3,1,1,1,1,1,1"))
    assert rows(mixed) == [(1, 2, [3, 4, 5, 6], None), (2, 2, [3, 4, 5, 6], 0.5), (3, 1, [1, 1, 1, 1], 1)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("frame,id,x,y,w,h,score", "not a number"),
        ("1,-1,nan,2,3,4,0.5", "not a number"),
        ("1,-1,inf,2,3,4,0.5", "not a number"),
        ("1,-1,1,2,3,4,high", "not a number"),
        ("1,-1,1,2,3,4,inf", "not a number"),
        ("1,who,1,2,3,4,0.5", "not a number"),
        ("1,-1,1,2,1e400,4,0.5", "not a number"),
        ("1,-1,1,2,3", "fewer than six values"),
        ("1", "fewer than six values"),
        (",,,,,,", "fewer than six values"),
        ("0,-1,1,2,3,4,0.5", "frame is not a whole number from 1"),
        ("-3,-1,1,2,3,4,0.5", "frame is not a whole number from 1"),
        ("1.5,-1,1,2,3,4,0.5", "frame is not a whole number from 1"),
        ("1,2.5,1,2,3,4,0.5", "id is not a whole number"),
        ("1,-1,1,2,0,4,0.5", "width or height is not positive"),
        ("1,-1,1,2,3,-4,0.5", "width or height is not positive"),
        ("1,-1,1e7,2,3,4,0.5", "beyond any video"),
        ("1,-1,1,2,3,4e6,0.5", "beyond any video"),
        ("3e9,-1,1,2,3,4,0.5", "beyond any video"),
        ("1,99999999999999999999,1,2,3,4,0.5", "beyond any video"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted_by_its_reason(tmp_path, line, reason):
    boxes = read_detections(write(tmp_path, f"1,5,1,2,3,4,0.5\n{line}\n2,5,1,2,3,4,0.5"))
    assert rows(boxes) == [(1, 5, [1, 2, 3, 4], 0.5), (2, 5, [1, 2, 3, 4], 0.5)]
    assert boxes.skipped == {reason: 1}
    with pytest.raises(InputError, match=rf"v\.txt has no line .* \(1 x {reason}\); expected lines such as"):
        read_detections(write(tmp_path, line))


def test_mutated_lines_are_read_as_a_plain_loop_reads_them(tmp_path):
    generator = random.Random(0)
    used = Counter()
    for _ in range(600):
        lines = [
            f"{generator.randint(1, 9)},{generator.randint(-1, 3)},{generator.uniform(0, 700):.3f},"
            f"{generator.uniform(0, 500):.2f},{generator.uniform(1, 90):.1f},{generator.randint(1, 200)},"
            f"{generator.random():.6f},-1,-1,-1"
            for _ in range(6)
        ]
        content = list("\n".join(lines))
        for _ in range(generator.choice((1, 4, 30))):
            at = generator.randrange(len(content))
            content[at] = generator.choice([*"0123456789.,-+ x#\n", "", ",,", "nine", "1e5"])
        content = "".join(content)
        expected, skipped = slowly(content)
        try:
            boxes = read_detections(write(tmp_path, content))
        except InputError:
            assert not expected
            continue
        assert len(boxes) == len(expected), content
        for (frame, track, box, score), row in zip(rows(boxes), expected, strict=True):
            assert (frame, track) == row[:2], content
            assert box == pytest.approx(row[2], rel=1e-12), content
            assert (score or 0) == pytest.approx(row[3] or 0, rel=1e-12), content
            assert (score is None) == (row[3] is None), content
        assert boxes.skipped == skipped, content
        used += Counter(boxes.skipped)
    assert len(used) == 6  # every reason is tried
    assert min(used.values()) > 3


def test_bytes_of_anything_are_one_sentence_or_counted(tmp_path):
    generator = random.Random(1)
    whole = "\n".join(f"{frame},-1,1,2,3,4,0.5" for frame in range(1, 40)).encode()
    said = []
    for number in range(300):
        content = bytearray(whole if number % 2 else generator.randbytes(generator.randrange(1, 4000)))
        for _ in range(30):
            at = generator.randrange(len(content))
            content[at : at + 1] = generator.randbytes(generator.randrange(3)) or b'"'
        try:
            boxes = read_detections(write(tmp_path, bytes(content)))
            assert len(boxes) or not boxes.skipped
        except InputError as error:
            said.append(str(error))
    assert len(said) > 100
    assert [
        sentence for sentence in said if "expected lines such as" not in sentence or not sentence.isprintable()
    ] == []
    for content in (b"\xff\xfe1\x00,\x002\x00", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0" * 1000, b'"' * 1000):
        with pytest.raises(InputError, match="has no line that can be used"):
            read_detections(write(tmp_path, content))


@pytest.mark.parametrize("content", ["", "\n\n", "# nobody was seen\n", "  \n# x\n\n"])
def test_a_video_without_people_has_no_boxes(tmp_path, content):
    boxes = read_detections(write(tmp_path, content))
    assert (len(boxes), boxes.box.shape, boxes.skipped) == (0, (0, 4), {})


def test_a_quarter_of_a_million_lines_take_a_few_seconds(tmp_path):
    line = "%d,-1,649.441,231.502,44.417,86.13,0.995474,-1,-1,-1\n"
    file = write(tmp_path, "".join(line % (number // 5 + 1) for number in range(250_000)))
    start = time.perf_counter()
    boxes = read_detections(file)
    assert len(boxes) == 250_000
    assert time.perf_counter() - start < 5


@pytest.mark.skipif(not (SHARED / "pets09-s2l1" / "det.txt").is_file(), reason="no PETS detections in shared/data")
def test_the_boxes_of_a_real_video():
    file = SHARED / "pets09-s2l1" / "det.txt"
    expected, _ = slowly(file.read_text())
    boxes = read_detections(file)
    assert len(boxes) == len(expected) == 4359
    assert rows(boxes) == expected
    assert boxes.skipped == {}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_released_pickles(tmp_path, protocol):
    content = {
        5: [(1, {"bbox": np.array([10.5, 20, 40, 90], dtype=np.float32), "score": 0.9, "kpts": np.zeros((17, 3))})],
        2: [
            (7, {"bbox": np.array([1, 2, 11, 32]), "conf": np.float32(0.5), "track": np.int64(4)}),
            (0, {"bbox": [0, 0, 5.5, 6], "id": 3, "score": np.array([0.25])}),
            [3, {"bbox": (1, 1, 2, 3)}],
        ],
        np.int64(3): [],
    }
    boxes = read_detections(pickled(tmp_path, content, protocol))
    assert rows(boxes) == [
        (2, 3, [0, 0, 5.5, 6], 0.25),
        (2, -1, [1, 1, 1, 2], None),
        (2, 4, [1, 2, 10, 30], 0.5),
        (5, -1, [10.5, 20, 29.5, 70], 0.9),
    ]
    assert boxes.skipped == {}
    assert len(read_detections(pickled(tmp_path, {}, protocol))) == 0


GOOD = (0, {"bbox": np.array([1.0, 2, 11, 32]), "score": 0.9})


@pytest.mark.parametrize(
    ("frame", "entries", "reason"),
    [
        (1, [(0, {"score": 1})], "no frame number or no box of four numbers"),
        (1, [(0, {"bbox": [1, 2, 3]})], "no frame number or no box of four numbers"),
        (1, [(0, {"bbox": np.zeros((4, 4))})], "no frame number or no box of four numbers"),
        (1, [(0, {"bbox": ["1", 2, 3, 4]})], "no frame number or no box of four numbers"),
        (1, [(0, {"bbox": None})], "no frame number or no box of four numbers"),
        (1, [(0, {"bbox": [1, 2, 3, 10**400]})], "no frame number or no box of four numbers"),
        (1, [(0, {"bbox": [1, 2, 3, 4], "score": "high"})], "no frame number or no box of four numbers"),
        (1, [("a", {"bbox": [1, 2, 3, 4]})], "no frame number or no box of four numbers"),
        (1, [(0, [1, 2, 3, 4])], "no frame number or no box of four numbers"),
        (1, [{"bbox": [1, 2, 3, 4]}], "no frame number or no box of four numbers"),
        (1, [None], "no frame number or no box of four numbers"),
        (1, 7, "no frame number or no box of four numbers"),
        ("first", [GOOD], "no frame number or no box of four numbers"),
        (None, [GOOD], "no frame number or no box of four numbers"),
        (True, [GOOD], "no frame number or no box of four numbers"),
        (0, [GOOD], "frame is not a whole number from 1"),
        (1.5, [GOOD], "frame is not a whole number from 1"),
        (1, [(0, {"bbox": [3, 2, 1, 4]})], "width or height is not positive"),
        (1, [(0, {"bbox": [1, 2, np.nan, 4]})], "not a number"),
        (1, [(0, {"bbox": [1, 2, np.inf, 4]})], "not a number"),
        (1, [(0, {"bbox": [1, 2, 3e6, 4]})], "beyond any video"),
        (1, [(0, {"bbox": [1, 2, 3, 4], "id": 0.5})], "id is not a whole number"),
        (10**12, [GOOD], "beyond any video"),
    ],
)
def test_an_entry_that_cannot_be_used_is_counted_by_its_reason(tmp_path, frame, entries, reason):
    boxes = read_detections(pickled(tmp_path, {9: [GOOD], frame: entries}))
    assert rows(boxes) == [(9, -1, [1, 2, 10, 30], 0.9)]
    assert boxes.skipped == {reason: 1}
    with pytest.raises(InputError, match=rf"v\.pkl has no box .* \(1 x {reason}\); expected frame number from 1"):
        read_detections(pickled(tmp_path, {frame: entries}))


@pytest.mark.parametrize("content", [[GOOD], "text", 3, None, np.zeros((3, 4))])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"v\.pkl holds a \w+; expected a dict"):
        read_detections(pickled(tmp_path, content))


def test_mutated_detection_pickles_are_one_sentence_or_counted(tmp_path):
    generator = random.Random(2)
    content = {
        frame: [(i, {"bbox": np.array([i, 2.0, 30, 40]), "score": 0.8}) for i in range(3)] for frame in range(1, 9)
    }
    refused = 0
    for number in range(300):
        data = bytearray(pickle.dumps(content, protocol=(2, 4)[number % 2]))
        for _ in range(generator.choice((1, 3))):
            data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            boxes = read_detections(write(tmp_path, bytes(data), "v.pkl"))
            assert (boxes.box[:, 2:] > 0).all()
            assert np.isfinite(boxes.box).all()
        except InputError:
            refused += 1
    assert 50 < refused < 300


def test_boxes_are_chosen_by_mask_and_by_position(tmp_path):
    boxes = read_detections(write(tmp_path, "1,1,1,2,3,4,0.5\n2,2,1,2,3,4,0.9\nx\n3,3,1,2,3,4,0.7"))
    assert boxes[boxes.score > 0.6].frame.tolist() == [2, 3]
    assert boxes[np.array([2, 0])].track.tolist() == [3, 1]
    assert boxes[:2].box.shape == (2, 4)
    assert boxes[:0].skipped == boxes.skipped == {"fewer than six values": 1}


def test_other_files_are_refused(tmp_path):
    for file, said in (
        (write(tmp_path, "{}", "v.json"), "has the suffix '.json'"),
        (tmp_path / "none.txt", "cannot be read"),
        (tmp_path / "none.pkl", "cannot be read"),
    ):
        with pytest.raises(InputError, match=said):
            read_detections(file)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_detections(tmp_path / "folder.txt")


def laid_out(folder: Path, *files: str) -> list[Path]:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return [folder / file for file in files]


@pytest.mark.parametrize(
    ("videos", "files", "pairs"),
    [
        (["fr/paris/a.mp4", "fr/paris/b.mp4"], ["fr/paris/a.pkl", "fr/paris/b.txt"], [0, 1]),  # the same relative place
        (["fr/paris/fr+paris+a.mp4", "b.avi"], ["fr+paris+a.pkl", "b.csv"], [0, 1]),  # by name alone
        (["fr/paris/a.mp4", "it/rome/a.mp4"], ["fr+paris+a.pkl", "it+rome+a.pkl"], [0, 1]),  # the place in the name
        (["S1.mp4", "S2.mp4"], ["S1/det/det.txt", "S2/gt/gt.txt"], [0, 1]),  # MOTChallenge
        (["train/S1.mp4"], ["S1/det/det.txt"], [0]),
        (["train/S1.mp4"], ["train/S1/det/det.txt", "notes.txt"], [0, None]),
        (["a.mp4", "fr/a.mp4"], ["a.pkl", "fr/a.pkl"], [0, 1]),  # the same place goes before the name alone
        (["a.mp4"], ["b.pkl", "fr/a.pkl", ".a.pkl", "a.json"], [None, None, "hidden", "hidden"]),
        (["v.1.mp4", "v.2.mp4"], ["v.1.txt", "v.2.txt"], [0, 1]),  # points in names
    ],
)
def test_detection_files_find_their_videos(tmp_path, videos, files, pairs):
    videos = laid_out(tmp_path / "videos", *videos)
    files = laid_out(tmp_path / "detections", *files)
    expected = {videos[at]: file for at, file in zip(pairs, files, strict=True) if isinstance(at, int)}
    unmatched = sorted(file for at, file in zip(pairs, files, strict=True) if at is None)
    found, left = match_detections(videos[::-1], tmp_path / "videos", tmp_path / "detections")
    assert found == expected
    assert list(found) == sorted(found)
    assert left == unmatched


def test_detection_files_may_lie_beside_the_videos(tmp_path):
    video, file = laid_out(tmp_path, "fr/paris/a.mp4", "fr/paris/a.pkl")
    assert match_detections([video], tmp_path, tmp_path) == ({video: file}, [])
    assert match_detections([video], video, tmp_path / "fr" / "paris") == ({video: file}, [])


def test_motchallenge_detections_go_before_its_annotations(tmp_path):
    (video,) = laid_out(tmp_path / "videos", "S1.mp4")
    gt, det = laid_out(tmp_path / "mot", "S1/gt/gt.txt", "S1/det/det.txt")
    assert match_detections([video], tmp_path / "videos", tmp_path / "mot") == ({video: det}, [])
    det.unlink()
    assert match_detections([video], tmp_path / "videos", tmp_path / "mot") == ({video: gt}, [])


def test_one_file_belongs_to_the_only_video_or_to_the_one_of_its_name(tmp_path):
    a, b = laid_out(tmp_path / "videos", "fr/a.mp4", "fr/b.mp4")
    file, other = laid_out(tmp_path, "a.txt", "other.txt")
    assert match_detections([a], tmp_path / "videos", other) == ({a: other}, [])
    assert match_detections([a], a, other) == ({a: other}, [])
    assert match_detections([a, b], tmp_path / "videos", file) == ({a: file}, [])
    with pytest.raises(InputError, match=r"other\.txt is one file and there are 2 videos, none of them called other"):
        match_detections([a, b], tmp_path / "videos", other)


@pytest.mark.parametrize(
    ("videos", "files", "said"),
    [
        (["a.mp4"], ["a.pkl", "a.txt"], r"a\.pkl and .*a\.txt both claim the video .*a\.mp4"),
        (["fr/a.mp4"], ["a.pkl", "fr/a.pkl"], r"a\.pkl and .*fr/a\.pkl both claim"),
        (["a.mp4"], ["a.pkl", "a/det/det.txt"], r"det\.txt and .*a\.pkl both claim"),
        (["a.mp4"], ["a.txt", "a/gt/gt.txt"], r"both claim"),
        (["fr/a.mp4", "it/a.mp4"], ["a.pkl"], r"a\.pkl fits .*fr/a\.mp4 and .*it/a\.mp4"),
        (["a.mp4", "a.avi"], ["a.pkl"], r"a\.pkl fits .*a\.avi and .*a\.mp4"),
        (["a.mp4"], ["a.json"], "holds no detection file"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path, videos, files, said):
    videos = laid_out(tmp_path / "videos", *videos)
    laid_out(tmp_path / "detections", *files)
    with pytest.raises(InputError, match=said):
        match_detections(videos, tmp_path / "videos", tmp_path / "detections")
    with pytest.raises(InputError, match="there are no detections"):
        match_detections(videos, tmp_path / "videos", tmp_path / "nowhere")
