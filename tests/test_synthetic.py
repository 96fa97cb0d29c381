"""Synthetic people: the same bytes every time, honest ground truth, and a folder that is Market-1501 in layout."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lab.data.synthetic import SyntheticConfig, load_ground_truth, render, write
from lab.data.synthetic.dataset import _labelled, _unnamed
from lab.errors import InputError

SMALL = SyntheticConfig(
    num_train_ids=4, num_test_ids=4, min_cameras=2, max_cameras=3, max_crops=3, num_distractors=5, num_junk=4,
    num_unlabeled=14, people_unlabeled=3,
)  # fmt: skip
NAME = re.compile(r"(-1|\d{4})_c(\d+)s(\d+)_(\d{6})_(\d{2})\.jpg")


def digest(folder: Path) -> dict[str, str]:
    """Relative file name -> hash of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def parsed(folder: Path) -> list[tuple[int, int]]:
    """(pid, camid) of every image of a sub-folder; the name must be a Market-1501 name."""
    found = [NAME.fullmatch(path.name) for path in sorted(folder.iterdir())]
    assert all(found), [path.name for path in folder.iterdir()]
    return [(int(match[1]), int(match[2])) for match in found]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "people"
    write(out, SMALL)
    return out


def test_same_arguments_give_same_bytes():
    """Also when other crops were rendered in between; other processes: test_worker_processes_write_the_same_bytes."""
    for camid in range(1, 7):
        first = render(7, camid, 1)
        render(8, camid, 0)
        second = render(7, camid, 1)
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.mask, second.mask)
        assert first.parts == second.parts


def test_global_random_state_is_neither_read_nor_moved():
    np.random.seed(1)
    first = render(3, 1, 0).image
    after = np.random.random()
    np.random.seed(1)
    assert np.random.random() == after
    np.random.seed(2)
    assert np.array_equal(render(3, 1, 0).image, first)


@pytest.mark.parametrize(("height", "width"), [(128, 64), (256, 128), (160, 64)])
def test_shapes_and_types(height, width):
    crop = render(5, 2, 0, height=height, width=width)
    assert crop.image.shape == (height, width, 3)
    assert crop.image.dtype == np.uint8
    assert crop.mask.shape == (height, width)
    assert crop.mask.dtype == bool
    assert list(crop.parts) == ["head", "torso", "legs"]


def test_masks_and_part_boxes_describe_a_standing_person():
    """Bounds from the body: head over torso over legs, a head an eighth of the body, a person a third of the box."""
    shares, heads = [], []
    for pid in range(2, 14):
        for camid in range(1, 7):
            crop = render(pid, camid, 0)
            shares.append(crop.mask.mean())
            for x0, y0, x1, y1 in crop.parts.values():
                assert 0 <= x0 <= x1 <= 64
                assert 0 <= y0 <= y1 <= 128
            centre = {part: (y0 + y1) / 2 for part, (_, y0, _, y1) in crop.parts.items()}
            assert centre["head"] < centre["torso"] < centre["legs"]
            heads.append(crop.parts["head"][3] - crop.parts["head"][1])
    assert 0.25 < np.median(shares) < 0.5
    assert np.mean((np.array(shares) > 0.1) & (np.array(shares) < 0.7)) > 0.95
    assert 12 < np.median(heads) < 22


def test_mask_is_inside_the_part_boxes_and_arms_reach():
    """Almost all visible pixels of a person lie within the union of the boxes widened by an arm and a bag."""
    for pid in range(30, 40):
        crop = render(pid, 1, 0)
        boxes = np.array(list(crop.parts.values()))
        x0, y0, x1, y1 = boxes[:, 0].min() - 16, boxes[:, 1].min() - 5, boxes[:, 2].max() + 16, boxes[:, 3].max() + 3
        ys, xs = np.nonzero(crop.mask)
        assert np.mean((xs >= x0) & (xs <= x1) & (ys >= y0) & (ys <= y1)) > 0.98


def test_mask_separates_the_person_from_the_place():
    """The same picture without the person differs inside the mask, and well outside of it only by JPEG artefacts."""
    for pid in range(2, 12):
        crop, empty = render(pid, 1, 0), render(pid, 1, 0, empty=True)
        assert not empty.mask.any()
        change = cv2.absdiff(crop.image, empty.image).mean(axis=2)
        outside = ~cv2.dilate(crop.mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
        outside[90:] = False  # the shadow on the ground
        assert change[crop.mask].mean() > 15
        assert change[outside].mean() < 4


def test_people_cameras_crops_and_seeds_differ():
    images = [
        render(*key, seed=seed).image.astype(int)
        for key, seed in [((2, 1, 0), 0), ((3, 1, 0), 0), ((2, 2, 0), 0), ((2, 1, 1), 0), ((2, 1, 0), 1)]
    ]
    for a in range(len(images)):
        for b in range(a):
            assert np.abs(images[a] - images[b]).mean() > 4


def test_cameras_look_at_different_places():
    """The mean colour of the borders differs more between cameras than between two halves of one camera's crops."""
    means = []
    for camid in range(1, 7):
        crops = [render(pid, camid, 0).image.astype(float) for pid in range(2, 18)]
        borders = np.array([np.concatenate([c[:, :8], c[:, -8:]], axis=1).mean(axis=(0, 1)) for c in crops])
        means.append((borders[::2].mean(axis=0), borders[1::2].mean(axis=0)))
    within = np.mean([np.abs(a - b).mean() for a, b in means])
    between = np.mean([np.abs(means[i][0] - means[j][1]).mean() for i in range(6) for j in range(6) if i != j])
    assert between > within


@pytest.mark.parametrize("bad", [{"camid": 0}, {"camid": 7}, {"pid": -1}, {"index": -1}, {"seed": -1}, {"height": 4}])
def test_render_refuses_impossible_arguments(bad):
    with pytest.raises(InputError, match="cannot render"):
        render(**{"pid": 2, "camid": 1, "index": 0} | bad)


def test_layout_is_market1501(written):
    folders = ("bounding_box_train", "query", "bounding_box_test")
    train, query, gallery = (parsed(written / folder) for folder in folders)
    train_ids, query_ids = {pid for pid, _ in train}, {pid for pid, _ in query}
    assert len(train_ids) == SMALL.num_train_ids
    assert len(query_ids) == SMALL.num_test_ids
    assert not train_ids & query_ids
    assert {pid for pid, _ in gallery} == query_ids | {0, -1}
    assert len(query) == len(set(query))  # one query per identity and camera
    assert all(any(pid == p and camid != c for p, c in gallery) for pid, camid in query)
    assert sum(pid == 0 for pid, _ in gallery) == SMALL.num_distractors
    assert sum(pid == -1 for pid, _ in gallery) == SMALL.num_junk
    names = sorted(path.name for path in (written / "unlabeled").iterdir())
    assert names == [f"{n:06d}.jpg" for n in range(SMALL.num_unlabeled)]
    assert sorted(path.name for path in written.iterdir()) == [
        "bounding_box_test", "bounding_box_train", "ground_truth.npz", "query", "synthetic.json", "unlabeled",
    ]  # fmt: skip


def test_unlabelled_people_are_others():
    """The renderer's own numbers of the people: training, test, distractors, junk and unlabelled never overlap."""
    config = SyntheticConfig()
    groups: dict[str, set[int]] = {name: set() for name in ("train", "test", "unlabeled", "distractor", "junk")}
    for job in [*_labelled(config), *_unnamed(config)]:
        folder, name = job.file.split("/")
        group = {"0000": "distractor", "-1_c": "junk"}.get(name[:4] if folder != "unlabeled" else "")
        group = group or {"bounding_box_train": "train", "unlabeled": "unlabeled"}.get(folder, "test")
        groups[group].add(job.pid)
    assert [len(groups[group]) for group in ("train", "test", "unlabeled")] == [120, 60, 240]
    everybody = [pid for group in groups.values() for pid in group]
    assert len(everybody) == len(set(everybody))
    files = [job.file for job in [*_labelled(config), *_unnamed(config)]]
    assert len(files) == len(set(files))


def test_ground_truth_is_what_render_says(written):
    truth = load_ground_truth(written)
    names = [path.name for folder in ("query", "bounding_box_test") for path in (written / folder).iterdir()]
    assert sorted(truth) == sorted(names)
    with np.load(written / "ground_truth.npz", allow_pickle=False) as data:
        assert all(data[key].dtype != object for key in data.files)
    for path in sorted((written / "query").iterdir())[:4]:
        match = NAME.fullmatch(path.name)
        crop = render(int(match[1]), int(match[2]), 0)
        mask, parts = truth[path.name]
        assert np.array_equal(mask, crop.mask)
        assert {part: pytest.approx(box, abs=1e-3) for part, box in crop.parts.items()} == parts
        stored = cv2.imread(str(path))[..., ::-1].astype(int)
        assert np.abs(stored - crop.image).mean() < 6  # JPEG costs a little
    junk_without_person = [mask for name, (mask, _) in truth.items() if name.startswith("-1") and not mask.any()]
    assert junk_without_person


def test_cut_outs_carry_the_person_in_their_alpha_and_places_are_empty(written, tmp_path):
    config, out = replace(SMALL, num_places=5), tmp_path / "people"
    counts = write(out, config)["counts"]
    assert (counts["unlabeled"], counts["places"]) == (SMALL.num_unlabeled, 5)
    jobs = {job.file: job for job in _unnamed(config)}
    for number in range(4):
        job = jobs[f"unlabeled/{number:06d}.png"]
        crop = render(job.pid, job.camid, job.index)
        stored = cv2.imread(str(out / job.file), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(stored[..., 2::-1], crop.image)
        assert np.array_equal(stored[..., 3], 255 * crop.mask)
    assert [path.name for path in sorted((out / "places").iterdir())] == [f"{number:06d}.jpg" for number in range(5)]
    job = jobs["places/000003.jpg"]
    assert not render(job.pid, job.camid, job.index, empty=job.empty).mask.any()
    named = [name for name in digest(written) if name.startswith(("query", "bounding_box"))]
    assert [digest(out)[name] for name in named] == [digest(written)[name] for name in named]


def test_worker_processes_write_the_same_bytes(written, tmp_path):
    seen = []
    write(tmp_path / "again", SMALL, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert digest(tmp_path / "again") == digest(written)
    assert seen[-1][0] == seen[-1][1] == sum(done.endswith(".jpg") for done in digest(written))


def test_writing_twice_keeps_the_folder(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    assert write(written, SMALL)["counts"]["unlabeled"] == SMALL.num_unlabeled
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_a_folder_from_before_a_setting_existed_is_still_the_same_one(tmp_path):
    out = tmp_path / "people"
    write(out, SMALL)
    marker = json.loads((out / "synthetic.json").read_text())
    del marker["config"]["num_places"]
    (out / "synthetic.json").write_text(json.dumps(marker))
    assert write(out, SMALL)["counts"]["unlabeled"] == SMALL.num_unlabeled
    with pytest.raises(InputError, match="other settings"):
        write(out, replace(SMALL, num_places=2))


def test_refuses_a_folder_with_other_things(written, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        write(tmp_path, SMALL)
    assert digest(tmp_path) == {"notes.txt": hashlib.sha256(b"mine").hexdigest()}
    before = digest(written)
    with pytest.raises(InputError, match="other settings"):
        write(written, SyntheticConfig(num_train_ids=3))
    assert digest(written) == before


def test_refuses_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="name another one"):
            write(out, SMALL)
    assert digest(tmp_path) == {"file": hashlib.sha256(b"mine").hexdigest()}


def test_interrupted_writing_leaves_nothing(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "people", SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [{"num_test_ids": 0}, {"min_cameras": 1}, {"max_cameras": 9}, {"min_crops": 1}, {"num_junk": -1}, {"seed": -1}],
)
def test_refuses_settings_that_make_no_data_set(bad, tmp_path):
    with pytest.raises(InputError, match="make no data set"):
        write(tmp_path / "people", SyntheticConfig(**bad))
    assert not (tmp_path / "people").exists()


def test_ground_truth_needs_its_file(tmp_path):
    with pytest.raises(InputError, match=r"ground_truth\.npz"):
        load_ground_truth(tmp_path)
