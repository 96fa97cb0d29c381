"""Is a test image among the pre-training crops? Exact search against slow loops, and copies made in many ways."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image
from shared_data import SHARED

from lab.data.hashes import HashIndex, _ones, bits_apart, perceptual_hash
from lab.data.images import Files
from lab.data.jpeg import decode
from lab.data.overlap import describe_overlap, find_overlap
from lab.data.readers import load
from lab.data.splits import ReidDataset, Split
from lab.errors import InputError

MIRROR = Image.Transpose.FLIP_LEFT_RIGHT
MARKET = SHARED / "market1501-dev"


def picture(seed: int, size: tuple[int, int] = (64, 128)) -> Image.Image:
    """Patches of random colours that flow into one another: every seed is clearly another picture."""
    patches = np.random.default_rng([seed, 11]).integers(0, 256, (10, 5, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **how) -> bytes:
    stream = io.BytesIO()
    image.save(stream, **({"format": "JPEG", "quality": 90} | how))
    return stream.getvalue()


class Records:
    """An image source in memory, with keys like a store's."""

    def __init__(self, *records: bytes):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def name(self, number: int) -> str:
        return f"00_00_0000_{number:08d}"

    def read(self, number: int) -> bytes:
        return self.records[number]


class Deadly(Records):
    def read(self, number: int) -> bytes:
        os._exit(1)


def dataset(query: list[Path], gallery: list[Path]) -> ReidDataset:
    splits = [Split(paths, [1] * len(paths), [1] * len(paths)) for paths in ([], query, gallery)]
    return ReidDataset("own", *splits)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> ReidDataset:
    """Query images of the seeds 0 to 4, gallery images of 5 to 14; one image is in both."""
    folder = tmp_path_factory.mktemp("people")
    paths = [folder / f"{seed:04d}.png" for seed in range(15)]
    for seed, path in enumerate(paths):
        picture(seed).save(path)
    return dataset(paths[:5], paths[4:])


def found(result) -> set[tuple]:
    rows = zip(*(result.matches[name] for name in ("stored", "test", "split", "mirrored")), strict=True)
    return {(int(key[-8:]), int(Path(test).stem), split, bool(mirrored)) for key, test, split, mirrored in rows}


def test_the_hash_is_that_of_the_imagehash_library():
    for seed in range(20):
        image = picture(seed, (40 + seed, 90))
        assert int(perceptual_hash(np.asarray(image))) == int(str(imagehash.phash(image)), 16)


def test_a_picture_of_one_colour_has_only_the_slowest_wave():
    assert perceptual_hash(np.full((50, 20, 3), 90, dtype=np.uint8)) == 1 << 63


def test_bits_apart_counts_the_bits_that_differ_with_any_numpy():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 2**64, (2, 200), dtype=np.uint64)
    counts = [(int(x) ^ int(y)).bit_count() for x, y in zip(a, b, strict=True)]
    assert bits_apart(a, b).tolist() == counts
    assert _ones(a ^ b).tolist() == counts
    assert bits_apart(2**64 - 1, 0) == 64
    assert bits_apart(0b1011, 0b0110) == 3
    assert bits_apart(a[:, None], b[None, :7]).shape == (200, 7)


@pytest.mark.parametrize("max_bits", range(16))
def test_the_index_finds_exactly_what_comparing_every_pair_finds(max_bits):
    random = np.random.default_rng(max_bits)
    known = random.integers(0, 2**64, 60, dtype=np.uint64)
    known[50:] = known[:10]  # some hashes occur twice
    asked = list(random.integers(0, 2**64, 20, dtype=np.uint64))
    for flips in range(20):  # relatives of known hashes, 0 to 19 bits away, the bits anywhere or side by side
        for bits in (random.choice(64, flips, replace=False), np.arange(flips) + 13):
            asked.append(known[flips] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=0))
    asked = np.array(asked, dtype=np.uint64)

    slow = []
    for (row, a), (position, b) in itertools.product(enumerate(asked.tolist()), enumerate(known.tolist())):
        if (bits := (a ^ b).bit_count()) <= max_bits:
            slow.append((row, position, bits))
    fast = HashIndex(known, max_bits).near(asked)
    assert list(zip(*(column.tolist() for column in fast), strict=True)) == slow
    assert len(slow) >= 2 * (max_bits + 1)


def test_the_index_answers_nothing_with_nothing():
    empty = np.empty(0, dtype=np.uint64)
    for known, asked in ((empty, empty), (empty, np.ones(3, np.uint64)), (np.ones(3, np.uint64), empty)):
        assert [len(column) for column in HashIndex(known, 10).near(asked)] == [0, 0, 0]


def test_copies_are_found_however_they_were_saved_and_others_are_not(people):
    copies = [
        encoded(picture(0)),
        encoded(picture(1), quality=50),
        encoded(picture(2).resize((32, 64))),
        encoded(picture(3).resize((128, 256)), format="PNG"),
        encoded(picture(4).transpose(MIRROR)),
        encoded(picture(9).point(lambda value: value * 0.9)),
        encoded(picture(10).crop((1, 2, 63, 126))),
        encoded(picture(10).transpose(MIRROR), quality=70),
    ]
    others = [encoded(picture(seed)) for seed in range(100, 160)]
    done = []
    result = find_overlap(Records(*others[:30], *copies, *others[30:]), people, progress=done.append)
    assert found(result) == {
        (30, 0, "query", False),
        (31, 1, "query", False),
        (32, 2, "query", False),
        (33, 3, "query", False),
        (34, 4, "query", True),
        (35, 9, "gallery", False),
        (36, 10, "gallery", False),
        (37, 10, "gallery", True),
    }
    assert (result.stored, result.tested, sum(done)) == (68, 15, 68)
    assert result.matches["similarity"].is_monotonic_decreasing
    assert result.matches["bits"].max() <= 10
    text = describe_overlap(result)
    assert "68 stored crops and 15 test images" in text
    assert "7 of the test images (5 query, 2 gallery) are among the crops, in 8 of them (2 of 8 pairs mirrored)" in text


def test_a_clean_source_is_said_to_be_clean(people):
    result = find_overlap(Records(*(encoded(picture(seed)) for seed in range(200, 230))), people)
    assert result.matches.empty
    assert list(result.matches.columns) == ["stored", "test", "split", "bits", "similarity", "mirrored"]
    assert "none of the test images was found" in describe_overlap(result)


def test_pictures_with_one_hash_and_other_pixels_are_no_match(people):
    rows = np.arange(128)[:, None, None]
    stripes = 0.5 + 0.5 * np.cos(np.pi * 12 * (rows + 0.5) / 128)  # too fast a wave for the hash
    striped = Image.fromarray((np.asarray(picture(2)) * 0.3 + 150 * stripes).astype(np.uint8))
    assert bits_apart(perceptual_hash(np.asarray(striped)), perceptual_hash(np.asarray(picture(2)))) <= 10
    result = find_overlap(Records(encoded(striped)), people)
    assert found(result) == set()
    assert result.alike == 1
    assert "1 further pair" in describe_overlap(result)
    assert found(find_overlap(Records(encoded(striped)), people, min_similarity=0.0)) == {(0, 2, "query", False)}


def test_an_image_that_is_its_own_mirror_image_is_one_match(tmp_path):
    half = np.asarray(picture(1))[:, :32]
    Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1)).save(tmp_path / "0.png")
    result = find_overlap(Files([tmp_path / "0.png"]), dataset([tmp_path / "0.png"], []))
    assert len(result.matches) == 1


def test_what_cannot_be_compared_is_counted_and_named(people, tmp_path):
    broken, grey = tmp_path / "broken.jpg", tmp_path / "grey.png"
    broken.write_bytes(encoded(picture(0))[:200])
    Image.new("RGB", (64, 128), (90, 90, 90)).save(grey)
    tests = dataset([*people.query.path, str(broken), str(tmp_path / "missing.jpg")], [*people.gallery.path, str(grey)])
    records = Records(b"", encoded(Image.new("RGB", (64, 128))), encoded(picture(3)), encoded(picture(3))[:-300])
    result = find_overlap(records, tests)
    assert found(result) == {(2, 3, "query", False)}
    assert result.flat == 2
    assert result.unreadable == ("00_00_0000_00000000", "00_00_0000_00000003")
    assert {Path(path).name for path in result.unreadable_tests} == {"broken.jpg", "missing.jpg"}
    assert "2 crops could not be read" in describe_overlap(result)


def test_processes_find_what_one_process_finds(people, monkeypatch):
    monkeypatch.setattr("lab.data.overlap.BLOCK", 8)
    records = Records(*(encoded(picture(seed)) for seed in range(10, 20)), b"no picture")
    alone, helped = find_overlap(records, people), find_overlap(records, people, workers=1)
    assert len(alone.matches) == 5
    assert alone.matches.equals(helped.matches)
    assert alone.unreadable == helped.unreadable == ("00_00_0000_00000010",)


def test_crops_of_later_blocks_keep_their_keys(people, monkeypatch):
    monkeypatch.setattr("lab.data.overlap.BLOCK", 3)
    records = Records(*(encoded(picture(seed)) for seed in (*range(300, 307), 8, 301, 12)))
    result = find_overlap(records, people)
    assert found(result) == {(7, 8, "gallery", False), (9, 12, "gallery", False)}


def test_a_process_that_dies_is_said_in_a_sentence(people, monkeypatch):
    monkeypatch.setattr("lab.data.overlap.BLOCK", 15)  # the test images are one block, the records two
    with pytest.raises(InputError, match="fewer workers"):
        find_overlap(Deadly(*16 * [b""]), people, workers=1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_bits": 16}, "0 to 15"),
        ({"max_bits": -1}, "0 to 15"),
        ({"workers": -1}, "workers"),
        ({"min_similarity": 2}, "1"),
    ],
)
def test_settings_out_of_range_are_refused(people, setting, message):
    with pytest.raises(InputError, match=message):
        find_overlap(Records(encoded(picture(0))), people, **setting)


def test_the_check_needs_no_torch():
    code = "import sys, lab.data.overlap, lab.data.video.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


@pytest.mark.skipif(not MARKET.is_dir(), reason=f"no real people at {MARKET}")
def test_copies_of_real_people_are_found_among_others_of_the_same_cameras():
    market = load("market1501", MARKET)
    tests = ReidDataset("part", market.train, market.query.take(range(0, 700, 14)), market.gallery.take(range(300)))
    images = [Image.fromarray(decode(Path(path).read_bytes())) for path in tests.query.path]
    copies = [encoded(image.resize((128, 256)), quality=50) for image in images]
    others = [Path(path).read_bytes() for path in market.train.path[::20]]
    matches = find_overlap(Records(*copies, *others), tests).matches
    pairs = {(int(key[-8:]), test) for key, test in zip(matches["stored"], matches["test"], strict=True)}
    assert pairs >= set(enumerate(tests.query.path.tolist()))
    assert all(number < len(copies) for number, _ in pairs)
