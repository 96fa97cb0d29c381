"""Subsets for the small-scale and few-shot settings: our generators, and LUPerson's published split files."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared_data import needs_shared, split_file, train_names

from lab.data.splits import Split, apply_split_file, choose_subset, few_ids, few_images
from lab.errors import InputError
from lab.finetune.train import FinetuneConfig, finetune
from lab.runs import Run

NAME = re.compile(r"(\d+)_c(\d+)")
WHOLE = {  # people and images of the training halves
    "market1501": (751, 12936),
    "duke": (702, 16522),
    "msmt17": (1041, 32621),
    "cuhk03_np/labeled": (767, 7368),
    "cuhk03_np/detected": (767, 7365),
}
# data, ratio, few_ids: people and their images, few_ims: images and fewest-most per person (luperson.md, 2.5)
TABLE = [
    ("market1501", 0.1, 75, 1170, 1293, (1, 2)),
    ("market1501", 0.3, 225, 3962, 3880, (2, 6)),
    ("market1501", 0.5, 375, 6408, 6468, (2, 10)),
    ("market1501", 0.7, 525, 9120, 9055, (2, 15)),
    ("market1501", 0.9, 675, 11727, 11642, (2, 26)),
    ("duke", 0.1, 70, 1670, 1652, (2, 3)),
    ("duke", 0.3, 210, 5530, 4956, (6, 8)),
    ("duke", 0.5, 351, 8723, 8261, (6, 12)),
    ("duke", 0.7, 491, 11939, 11565, None),
    ("duke", 0.9, 631, 15111, 14869, None),
    ("msmt17", 0.1, 104, 3659, 3262, (3, 4)),
    ("msmt17", 0.3, 312, 9787, 9786, (6, 10)),
    ("msmt17", 0.5, 520, 15917, 16310, (6, 17)),
    ("msmt17", 0.7, 728, 22680, 22834, None),
    ("msmt17", 0.9, 936, 29529, 29358, None),
    ("cuhk03_np/labeled", 0.1, 76, 738, 767, (1, 1)),
    ("cuhk03_np/labeled", 0.3, 230, 2220, 2210, (2, 3)),
    ("cuhk03_np/labeled", 0.5, 383, 3690, 3684, (4, 5)),
    ("cuhk03_np/detected", 0.1, 76, 733, 767, None),
    ("cuhk03_np/detected", 0.3, 230, 2217, 2209, None),
    ("cuhk03_np/detected", 0.5, 383, 3685, 3682, None),
]


def named_split(names) -> Split:
    """A split as a Market-style reader makes it from these file names."""
    found = [NAME.match(name).groups() for name in names]
    pids, camids = zip(*found, strict=True)
    return Split(np.array([f"train/{name}" for name in names]), np.int64(pids), np.int64(camids))


@pytest.fixture(scope="module")
def whole():
    """The training halves of the real data sets, names only."""
    return {data: named_split(train_names(data)) for data in WHOLE}


def per_person(split: Split) -> list[int]:
    return sorted(np.unique(split.pid, return_counts=True)[1].tolist())


@needs_shared
@pytest.mark.parametrize(("data", "numbers"), WHOLE.items())
def test_the_training_halves_have_their_published_size(whole, data, numbers):
    assert (whole[data].num_ids, len(whole[data])) == numbers


@needs_shared
@pytest.mark.parametrize(("data", "ratio", "people", "their_images", "images", "span"), TABLE)
def test_published_split_files_and_our_generators_agree_with_the_table(
    whole, tmp_path, data, ratio, people, their_images, images, span
):
    split = whole[data]
    for kind in ("ids", "ims"):  # bytes: the line ends stay what they are in the archive
        (tmp_path / kind).write_bytes(split_file(data, kind, ratio).encode())
    by_id = apply_split_file(split, tmp_path / "ids")
    assert (by_id.num_ids, len(by_id)) == (people, their_images)
    by_image = apply_split_file(split, tmp_path / "ims")
    assert (by_image.num_ids, len(by_image)) == (split.num_ids, images)

    assert few_ids(split, ratio, seed=1).num_ids == people
    ours = few_images(split, ratio, seed=1)
    assert (ours.num_ids, len(ours)) == (split.num_ids, images)
    for levelled in (by_image, ours):
        counts = per_person(levelled)
        assert span is None or (counts[0], counts[-1]) == span
    assert per_person(ours) == per_person(by_image)  # levelling leaves only the choice of people and crops


@needs_shared
def test_the_whole_split_file_keeps_every_crop(whole, tmp_path):
    (tmp_path / "all").write_text(split_file("msmt17", "ims", 1.0))
    assert (apply_split_file(whole["msmt17"], tmp_path / "all").path == whole["msmt17"].path).all()


@needs_shared
def test_the_split_file_of_another_data_set_is_refused(whole, tmp_path):
    for kind in ("ids", "ims"):
        (tmp_path / kind).write_text(split_file("duke", kind, 0.1))
    with pytest.raises(InputError, match=r"of 70 lines in .*ids are no pid of this training split .first: '\d+'"):
        apply_split_file(whole["market1501"], tmp_path / "ids")
    with pytest.raises(
        InputError, match=r"1652 of 1652 images in .*first: 0001_c2_f0046662.jpg, here a name is 0002_c1"
    ):
        apply_split_file(whole["market1501"], tmp_path / "ims")


FEW_IDS_PEOPLE = [(0.1, 75), (0.3, 225), (0.5, 375), (0.7, 525), (0.9, 675), (1.0, 751), (0.0001, 1)]


@pytest.mark.parametrize(("fraction", "people"), FEW_IDS_PEOPLE)
def test_few_ids_takes_as_many_people_as_the_published_split_files(fraction, people):
    """Counts of Market-1501's 751 identities: those of LUPerson's few_ids files."""
    split = Split([f"{i}" for i in range(1502)], np.repeat(np.arange(751) * 2, 2), np.zeros(1502))
    kept = few_ids(split, fraction, seed=3)
    assert kept.num_ids == people
    assert len(kept) == 2 * people
    assert (few_ids(split, fraction, seed=3).path == kept.path).all()
    if fraction < 1:
        assert set(few_ids(split, fraction, seed=4).pid) != set(kept.pid)


def uneven() -> Split:
    """Five people with 1, 2, 3, 10 and 20 crops, mixed up: 36 crops."""
    pid = np.repeat([11, 22, 33, 44, 55], [1, 2, 3, 10, 20])
    pid = np.random.default_rng(0).permutation(pid)
    return Split([f"{p}_{i}" for i, p in enumerate(pid)], pid, np.ones(36))


@pytest.mark.parametrize(
    ("fraction", "counts"),
    [
        (0.01, [1, 1, 1, 1, 1]),  # 0 images are paid for, and nobody is lost
        (0.25, [1, 2, 2, 2, 2]),  # 9 = everybody's second, where there is one
        (0.30, [1, 2, 2, 2, 3]),  # 10: one of the three with a third crop gets it
        (0.34, [1, 2, 3, 3, 3]),  # 12
        (0.50, [1, 2, 3, 6, 6]),  # 18
        (0.75, [1, 2, 3, 10, 11]),  # 27: the smaller are used up, one is left to pay
        (1.00, [1, 2, 3, 10, 20]),
    ],
)
def test_few_images_levels_the_crops_over_people(fraction, counts):
    split = uneven()
    kept = few_images(split, fraction, seed=5)
    assert per_person(kept) == counts
    assert sorted(kept.path, key=list(split.path).index) == list(kept.path)  # in order, each once
    assert len(set(kept.path)) == len(kept)
    assert (few_images(split, fraction, seed=5).path == kept.path).all()


def test_few_images_draws_by_seed_among_all_crops():
    split = uneven()
    drawn = [set(few_images(split, 0.25, seed=seed).path) for seed in range(60)]
    assert drawn[0] != drawn[1]
    assert set().union(*drawn) == set(split.path)


@pytest.mark.parametrize(("draw", "what"), [(few_ids, "identities"), (few_images, "images")])
@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, 10])
def test_a_fraction_that_is_none_is_refused(draw, what, fraction):
    with pytest.raises(InputError, match=f"fraction of {what} is {fraction};"):
        draw(Split(["a"], [1], [1]), fraction)


SIX = named_split(
    ["0007_c1_1.jpg", "0007_c2_2.jpg", "0009_c12_3.jpg", "0009_c1_4.jpg", "0030_c1_5.jpg", "0030_c2_6.jpg"]
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("30 \n7 \n", [0, 1, 4, 5]),
        ("0009\r\n\r\n", [2, 3]),
        ("0030_c2_6.jpg; 2; 1 \r\n0009_c12_3.jpg; 1; 11 \r\n", [2, 5]),
        ("\ufeff0007_c1_1.jpg;0;0", [0]),
    ],
)
def test_a_split_file_names_people_or_crops(tmp_path, text, kept):
    (tmp_path / "used.txt").write_text(text, encoding="utf-8", newline="")
    assert apply_split_file(SIX, tmp_path / "used.txt").path.tolist() == SIX.path[kept].tolist()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; expected pids"),
        ("7\n8\n", r"1 of 2 lines in .*first: '8'"),
        ("7\nseven\n", r"1 of 2 lines in .*first: 'seven'"),
        ("0007_c1_1.jpg; 0; 0\n0008_c1_1.jpg; 1; 0\n", r"1 of 2 images .*first: 0008_c1_1.jpg, here a name is 0007_c1"),
        ("0009_c1_4.jpg; 9; 0\n", "here that image has label 1 and camera 0"),
        ("0009_c12_3.jpg; 1; 12\n", "here that image has label 1 and camera 11"),
        ("0009_c12_3.jpg; 1\n", "here that image has label 1 and camera 11"),
    ],
)
def test_a_split_file_that_does_not_fit_is_explained(tmp_path, text, sentence):
    (tmp_path / "used.txt").write_text(text)
    with pytest.raises(InputError, match=sentence):
        apply_split_file(SIX, tmp_path / "used.txt")


def test_a_split_file_that_is_none_is_explained(tmp_path):
    (tmp_path / "picture.txt").write_bytes(b"\xff\xd8\xff\xe0")
    for file in (tmp_path / "picture.txt", tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            apply_split_file(SIX, file)


def test_a_split_file_and_a_fraction_exclude_each_other(tmp_path):
    (tmp_path / "used.txt").write_text("7\n")
    assert choose_subset(SIX, 1.0, "ids", tmp_path / "used.txt", 0).num_ids == 1
    assert choose_subset(SIX, 0.5, "ids", None, 0).num_ids == 1
    assert per_person(choose_subset(SIX, 0.5, "images", None, 0)) == [1, 1, 1]
    with pytest.raises(InputError, match="give one of them"):
        choose_subset(SIX, 0.5, "ids", tmp_path / "used.txt", 0)


class _ReachedSamplerError(Exception):
    pass


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"fraction": 0.5}, 2),
        ({"fraction": 0.5, "fraction_of": "images"}, 3),
        ({"subset": "used.txt"}, 4),
        ({}, 6),
    ],
)
def test_fine_tuning_learns_from_the_chosen_subset(tmp_path, monkeypatch, settings, labels):
    (tmp_path / "used.txt").write_text("7\n30\n")
    monkeypatch.chdir(tmp_path)

    def sampler(given, *_):
        assert len(given) == labels
        raise _ReachedSamplerError

    monkeypatch.setattr("lab.finetune.train.IdentitySampler", sampler)
    with pytest.raises(_ReachedSamplerError):
        finetune(Run(Path("run")), SIX, replace(FinetuneConfig.tiny(), device="cpu", **settings))
