"""The classic CUHK03: what a small cuhk-03.mat says against what is read, its single-shot CMC, and wrong files."""

import itertools
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from make_demo import tiny_result
from shared_data import in_memory, name_list, needs_shared, touch
from test_readers import Mat

from lab.cli import main
from lab.data import load
from lab.data.crops import read_image
from lab.data.readers import CLASSIC, SPLITS, count_differences
from lab.errors import InputError
from lab.evaluate.classic import evaluate_classic, spread
from lab.evaluate.domains import HOME, SEEN, acquaintance, trained_on
from lab.evaluate.evaluate import evaluate_run
from lab.evaluate.settings import EvaluateConfig
from lab.runs import Run

PEOPLE = (3, 2, 1, 1, 2)  # of each pair of cameras
# who has which images: (pair, person) -> image numbers; 1-5 are the first view, 6-10 the second
NUMBERS = {
    (1, 1): [1, 2, 6], (1, 2): [1, 6, 7, 10], (1, 3): [5, 6], (2, 1): [1, 8], (2, 2): [1, 2, 6, 7], (3, 1): [6],
    (4, 1): [1, 6], (5, 1): [3, 9], (5, 2): [1, 7],
}  # fmt: skip
PIDS = {who: pid for pid, who in enumerate(NUMBERS, 1)}  # counted over all pairs
TESTING = [(1, 2), (2, 2), (3, 1)]  # in split 0; the next split takes the next three people of the list, and so on


def who_tests(split: int) -> list[tuple[int, int]]:
    people = list(NUMBERS)
    return TESTING if split == 0 else [people[(split + i) % len(people)] for i in range(3)]


def write_mat(root: Path, kind: str = "labeled", sets: list | None = None) -> dict[tuple[int, int, int], np.ndarray]:
    """A small cuhk-03.mat; returns the pixels by pair, person and number."""
    root.mkdir(exist_ok=True)
    mat, random, pictures = Mat(root / "cuhk-03.mat"), np.random.default_rng(0), {}
    pairs = [mat.cells(people) for people in PEOPLE]
    for (pair, person), numbers in NUMBERS.items():
        colour = random.integers(40, 216, 3)
        for number in numbers:
            shade = random.integers(-60, 61, 3)  # so that one image of a person is not as good as another
            pixels = np.clip(colour + shade + random.integers(-9, 10, (10 + number, 6, 3)), 0, 255).astype(np.uint8)
            pictures[pair, person, number] = pixels
            pairs[pair - 1][number - 1, person - 1] = mat.image(pixels)
    mat.boxes(kind, pairs)
    sets = [who_tests(split) for split in range(SPLITS)] if sets is None else sets
    lists = [mat.store(np.array(people, dtype=np.float64).T) for people in sets]  # MATLAB: 100 x 2
    mat.file.create_dataset("testsets", data=np.array([lists], dtype=object), dtype=h5py.ref_dtype)
    mat.file.close()
    return pictures


def expected(people, views) -> list[str]:
    """Names of all crops of these people in these views."""
    names = []
    for who in people:
        for number in NUMBERS[who]:
            view = 1 if number <= 5 else 2
            if view in views:
                names.append(f"{PIDS[who]:04d}_c{view}_{number:02d}.png")
    return sorted(names)


def names(split) -> list[str]:
    return sorted(os.path.basename(path) for path in split.path)


WEIGHTS = torch.randn(12 * 6 * 3, 3, generator=torch.Generator().manual_seed(8))  # for which the draw matters


def model(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize((images.float() - 128).flatten(1) @ WEIGHTS)


def test_who_trains_who_is_searched_and_in_which_view(tmp_path):
    write_mat(tmp_path)
    for split in (0, 1, 19):
        dataset = load("cuhk03-classic-labeled", tmp_path, split=split)
        others = [who for who in NUMBERS if who not in who_tests(split)]
        assert names(dataset.train) == expected(others, (1, 2))
        assert names(dataset.query) == expected(who_tests(split), (1,))
        assert names(dataset.gallery) == expected(who_tests(split), (2,))
        assert dataset.name == f"cuhk03-classic-labeled-split{split:02d}"
    assert dataset.edition == "cuhk03-classic-labeled"
    assert set(dataset.query.camid) == {1}
    assert set(dataset.gallery.camid) == {2}
    first = load("cuhk03-classic-labeled", tmp_path)
    assert first.query.pid.tolist() == [2, 5, 5]
    assert first.gallery.pid.tolist() == [2, 2, 2, 5, 5, 6]  # person 6 was seen in the second view alone: a negative
    assert (first.single_shot, load("cuhk03-classic-labeled", tmp_path, split=0).name) == (True, first.name)


def test_crops_are_unpacked_once_as_they_are(tmp_path):
    pictures = write_mat(tmp_path / "cuhk03_release")
    (tmp_path / "cuhk03_release").rename(tmp_path / "set")
    root = tmp_path / "set"
    dataset = load("cuhk03-classic-labeled", root)
    assert any("was unpacked into" in note for note in dataset.notes)
    for (pair, person, number), pixels in pictures.items():
        name = f"{PIDS[pair, person]:04d}_c{1 if number <= 5 else 2}_{number:02d}.png"
        assert (np.asarray(read_image(root / "classic-labeled" / "images" / name)) == pixels).all()
    table = pd.read_csv(root / "classic-labeled" / "testsets.csv")
    assert len(table) == 3 * SPLITS
    assert list(table.iloc[0]) == [0, 1, 2, 2]
    assert sorted(os.listdir(root)) == ["classic-labeled", "cuhk-03.mat"]
    (root / "cuhk-03.mat").unlink()  # the second time it is not needed
    for place in (root, root / "classic-labeled"):
        again = load("cuhk03-classic-labeled", place)
        assert (again.query.path == dataset.query.path).all()
        assert not any("unpacked" in note for note in again.notes)
    with pytest.raises(InputError, match="is not called classic-detected"):
        load("cuhk03-classic-detected", root / "classic-labeled")


def test_the_released_archive_s_folder_is_looked_into(tmp_path):
    write_mat(tmp_path / "cuhk03_release")
    assert len(load("cuhk03-classic-labeled", tmp_path).query) == 3
    assert sorted(os.listdir(tmp_path)) == ["classic-labeled", "cuhk03_release"]


def test_both_kinds_of_boxes_live_side_by_side(tmp_path):
    write_mat(tmp_path, "detected")
    dataset = load("cuhk03-classic-detected", tmp_path, split=3)
    assert (dataset.name, dataset.edition) == ("cuhk03-classic-detected-split03", "cuhk03-classic-detected")
    with pytest.raises(InputError, match="holds #refs#, detected, testsets and no 'labeled'"):
        load("cuhk03-classic-labeled", tmp_path)


def test_notes_say_what_a_reader_of_the_figure_must_know(tmp_path):
    write_mat(tmp_path)
    (tmp_path / "classic-labeled.txt").write_text("")
    notes = load("cuhk03-classic-labeled", tmp_path, split=2).notes
    assert any("split 2 of 0 to 19" in note and "mean over all 20" in note for note in notes)
    assert any("22 crops in all instead of the published 14096" in note for note in notes)
    (tmp_path / "classic-labeled" / "images" / "mine.png").write_bytes(b"")
    assert any("1 image(s) with other names skipped (mine.png)" in n for n in load(CLASSIC[0], tmp_path).notes)
    assert "train identities 6 instead of 1367" in count_differences(load(CLASSIC[0], tmp_path))


@needs_shared
def test_the_whole_data_set_has_its_published_counts():
    """All 14,096 places of the labelled boxes as empty files, and a test set of 100 people from three camera pairs."""
    listed = [tuple(map(int, name[:-4].split("_"))) for name in name_list("cuhk03_All_128x48_labeled")]
    before = np.cumsum([0, 843, 440, 77, 58, 49])
    one_view = (3, 68)  # the only labelled person without a first view
    drawn = [(1, person) for person in range(1, 60)] + [(2, person) for person in range(1, 41)] + [one_view]
    rows = [(0, pair, person, before[pair - 1] + person) for pair, person in drawn]
    with in_memory() as folder:
        place = Path(folder) / "classic-labeled"
        touch(place / "images", [f"{before[pair - 1] + person:04d}_c{v}_{n:02d}.png" for pair, person, v, n in listed])
        pd.DataFrame(rows, columns=["split", "pair", "person", "pid"]).to_csv(place / "testsets.csv", index=False)
        dataset = load("cuhk03-classic-labeled", folder)
    assert not any("instead of the published" in note for note in dataset.notes)
    assert count_differences(dataset) == ""
    assert (dataset.train.num_ids, dataset.query.num_ids, dataset.gallery.num_ids) == (1367, 99, 100)
    of_test = [(pair, person, view) for pair, person, view, _ in listed if (pair, person) in drawn]
    assert len(dataset.query) == sum(view == 1 for *_, view in of_test)
    assert len(dataset.gallery) == sum(view == 2 for *_, view in of_test)
    assert len(dataset.train) == len(listed) - len(of_test)
    assert before[2] + 68 in dataset.gallery.pid


def single_shot_cmc(dataset) -> float:
    """Rank-1 in the mean over every equally likely gallery of one crop per person, the slow way."""
    features = {}
    for part in ("query", "gallery"):
        images = [np.asarray(read_image(path).resize((6, 12), 3)) for path in getattr(dataset, part).path]
        features[part] = model(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)).numpy()
    pid = dataset.gallery.pid
    shares = []
    for query, owner in zip(features["query"], dataset.query.pid, strict=True):
        distance = 1 - features["gallery"] @ query
        draws = itertools.product(*(np.flatnonzero(pid == person) for person in np.unique(pid)))
        shares.append(np.mean([pid[min(draw, key=lambda i: (distance[i], i))] == owner for draw in draws]))
    return float(np.mean(shares))


def test_the_cmc_is_single_shot_unless_said_otherwise(tmp_path):
    write_mat(tmp_path / "set")
    dataset = load("cuhk03-classic-labeled", tmp_path / "set")
    config = EvaluateConfig(num_workers=0, device="cpu", height=12, width=6, repeats=3000)
    run = Run.create(tmp_path / "run", "finetune", {})
    result = evaluate_run(run, model, dataset, config, progress=False)
    assert (result.settings["gallery_shot"], result.settings["repeats"]) == ("single", 3000)
    assert result.cmc[0] == pytest.approx(single_shot_cmc(dataset), abs=0.03)
    whole = evaluate_run(run, model, dataset, replace(config, gallery_shot="all"), progress=False)
    assert whole.settings["gallery_shot"] == "all"
    assert abs(whole.cmc[0] - result.cmc[0]) > 0.1  # so that the two cannot be mistaken for one another
    ordinary = evaluate_run(run, model, replace(dataset, single_shot=False), config, progress=False)
    assert (ordinary.settings["gallery_shot"], ordinary.cmc[0]) == ("all", whole.cmc[0])


def test_all_splits_have_a_mean_and_a_spread(tmp_path):
    write_mat(tmp_path / "set")
    run = Run.create(tmp_path / "run", "pretrain", {"height": 12, "width": 6})
    config = EvaluateConfig(num_workers=0, device="cpu", repeats=5)
    sets = [load(CLASSIC[0], tmp_path / "set", split=split) for split in range(SPLITS)]
    evaluate = partial(evaluate_run, run, model, config=config, progress=False)
    results = evaluate_classic(run, evaluate, CLASSIC[0], tmp_path / "set")
    assert run.evals() == [dataset.name for dataset in sets]
    assert [result.num_query for result in results] == [len(dataset.query) for dataset in sets]
    with pytest.raises(InputError, match="market1501 has one split"):
        evaluate_classic(run, evaluate, "market1501", tmp_path)


def test_the_spread_by_hand():
    results = [tiny_result(mAP=value, cmc=np.full(50, cmc)) for value, cmc in ((0.2, 0.5), (0.4, 0.5), (0.9, 0.8))]
    table = spread(results)
    assert table.loc["mean", "mAP"] == pytest.approx(0.5)
    assert table.loc["std", "mAP"] == pytest.approx(np.sqrt((0.09 + 0.01 + 0.16) / 2))
    assert table.loc["mean", "rank-10"] == pytest.approx(0.6)
    assert table.loc["std", "mINP"] == pytest.approx(0)
    assert np.isnan(spread(results[:1]).loc["std", "mAP"])
    with pytest.raises(InputError, match="no result"):
        spread([])


def run_of(tmp_path, stage="finetune", **config) -> Run:
    run = Run(tmp_path / "run")
    run.config = {"stage": stage, **config}
    return run


@pytest.mark.parametrize(
    ("dataset", "split", "asked", "known"),
    [
        ("market1501", None, "market1501", HOME),
        ("market1501", None, "market1501-500k", HOME),
        ("market1501", None, "msmt17", ""),
        ("cuhk03", None, "cuhk03-detected", HOME),
        ("cuhk03", None, "cuhk03-classic-labeled-split03", SEEN),
        ("cuhk03-classic-labeled", 3, "cuhk03-classic-detected-split03", HOME),
        ("cuhk03-classic-labeled", 3, "cuhk03-classic-labeled-split04", SEEN),
        ("cuhk03-classic-labeled", 0, "cuhk03", SEEN),
        ("folder", None, "folder", HOME),
    ],
)
def test_whom_a_model_knows(tmp_path, dataset, split, asked, known):
    data = {"dataset": dataset, "root": str(tmp_path)} | ({} if split is None else {"split": split})
    assert acquaintance(run_of(tmp_path, data=data), asked, tmp_path) == known


def test_whom_a_model_knows_from_elsewhere(tmp_path):
    own = run_of(tmp_path, data={"dataset": "folder", "root": str(tmp_path / "a")})
    assert acquaintance(own, "folder", tmp_path / "b") == ""
    released = run_of(tmp_path, "weights", init={"weights": "lup-mgn-cuhk03", "sha256": "0"})
    assert (trained_on(released), acquaintance(released, "cuhk03", tmp_path)) == ("cuhk03", HOME)
    assert acquaintance(released, "cuhk03-classic-detected-split00", tmp_path) == SEEN
    for config in ({"stage": "weights", "init": {"weights": "lup-r50"}}, {"stage": "pretrain", "init": "x"}, {}):
        assert trained_on(run_of(tmp_path, **({"stage": None} | config))) == ""


def test_a_model_of_cuhk03_is_not_averaged_over_its_own_people(tmp_path):
    run = run_of(tmp_path, data={"dataset": "cuhk03-classic-labeled", "split": 2})
    with pytest.raises(InputError, match="trained on cuhk03-classic-labeled-split02, where most people train"):
        evaluate_classic(run, lambda dataset: tiny_result(), CLASSIC[0], tmp_path)


def test_the_command_takes_a_split_or_all_of_them(tmp_path, capsys):
    write_mat(tmp_path / "set")
    where = ["--dataset", CLASSIC[0], "--root", str(tmp_path / "set")]
    main(["data", "check", *where, "--split", "4"])
    assert "split 4 of 0 to 19" in capsys.readouterr().out
    evaluate = ["evaluate", "--baseline", "histogram", "--out", str(tmp_path / "run"), *where, "--num-workers", "0"]
    evaluate += ["--height", "16", "--width", "8"]
    main([*evaluate, "--split", "4"])
    assert Run.open(tmp_path / "run").evals() == [f"{CLASSIC[0]}-split04"]
    assert "rank-k is single-gallery-shot: one random crop per person, the mean of 10 draws" in capsys.readouterr().out
    main([*evaluate, "--split", "all"])
    results = [Run.open(tmp_path / "run").result(name) for name in Run.open(tmp_path / "run").evals()]
    assert len(results) == SPLITS
    said = capsys.readouterr().out.split("over all 20 splits, in %:")[1].split()
    assert float(said[said.index("mean") + 1]) == pytest.approx(100 * np.mean([r.mAP for r in results]), abs=0.006)
    for command in ("evaluate --baseline histogram --split all", "evaluate --baseline histogram --split 2"):
        with pytest.raises(SystemExit):
            main([*command.split(), "--out", str(tmp_path / "x"), "--dataset", "market1501", "--root", str(tmp_path)])
        assert "market1501 has one split" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_split_of_a_training_is_remembered_and_another_one_is_said(tmp_path, capsys, monkeypatch):
    write_mat(tmp_path / "set")
    monkeypatch.setattr("lab.verbs.train_mgn", lambda run, *_: run.checkpoint.write_bytes(b"weights"))
    monkeypatch.setattr("lab.verbs.load_model", lambda run: model)
    where = ["--dataset", CLASSIC[0], "--root", str(tmp_path / "set")]
    main(["finetune", *where, "--split", "7", "--out", str(tmp_path / "run")])
    assert f"--root {tmp_path / 'set'} --split 7" in capsys.readouterr().out
    run = Run.open(tmp_path / "run")
    assert (run.config["data"]["split"], trained_on(run)) == (7, f"{CLASSIC[0]}-split07")
    size = ["--height", "12", "--width", "6", "--num-workers", "0"]
    note = f"note: it was trained on {CLASSIC[0]}-split07, and some of the people who are searched here were there"
    for split, said in (("7", False), ("8", True)):
        main(["evaluate", "--run", str(run.folder), *where, "--split", split, *size])
        assert (note in capsys.readouterr().out) is said
    with pytest.raises(SystemExit):
        main(["evaluate", "--run", str(run.folder), *where, "--split", "all", *size])
    assert "expected a model that never saw CUHK03" in capsys.readouterr().err


def rewrite(key: str, change) -> None:
    def apply(root: Path) -> None:
        with h5py.File(root / "cuhk-03.mat", "a") as file:
            change(file, key)

    return apply


def replace_data(value):
    def change(file, key):
        del file[key]
        if value is not None:
            file[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "cuhk-03.mat").unlink(), "holds nothing; expected a folder with cuhk-03.mat, or with classic-"),
        (lambda root: (root / "cuhk-03.mat").write_bytes(b"MATLAB 5.0"), "cannot be read as a MATLAB 7.3"),
        (rewrite("testsets", replace_data(None)), "has no 'testsets' that can be read"),
        (rewrite("testsets", replace_data(np.zeros((1, 20)))), "has no 'testsets' that can be read"),
        (lambda root: write_mat(root, sets=[TESTING] * 3), "has 3 test sets, 3 of them lists"),
        (lambda root: write_mat(root, sets=[[[1, 2, 3]]] * 20), "has 20 test sets, 0 of them lists"),
        (lambda root: write_mat(root, sets=[TESTING] * 19 + [[(2, 3)]]), "person 3 of camera pair 2 test in split 19"),
        (lambda root: write_mat(root, sets=[TESTING] * 19 + [[(6, 1)]]), "person 1 of camera pair 6 test in split 19"),
        (lambda root: write_mat(root, sets=[[(3, 1)]] * 20), "has no crop for the query of split 0"),
        (rewrite("labeled", replace_data(np.zeros((1, 5)))), "'labeled' in .* cannot be followed"),
        (rewrite("labeled", lambda file, key: file[key].__setitem__((0, 1), file["testsets"][0, 0])), r"a table \(2, 3\)"),
        (
            rewrite("labeled", lambda file, key: file[file[key][0, 0]].__setitem__((0, 0), h5py.Reference())),
            "is damaged: 0001_c1_01.png cannot be read",
        ),
    ],
)  # fmt: skip
def test_wrong_files_are_explained_and_leave_nothing_half_done(tmp_path, change, sentence):
    write_mat(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=sentence) as error:
        load("cuhk03-classic-labeled", tmp_path)
    assert "\n" not in str(error.value)
    if "no crop for" not in sentence:
        assert [name for name in os.listdir(tmp_path) if name != "cuhk-03.mat"] == []


def test_wrong_splits_and_broken_unpacked_folders_are_explained(tmp_path):
    write_mat(tmp_path)
    for split in (-1, 20):
        with pytest.raises(InputError, match=f"has no split {split}; expected .*--split 0 to 19"):
            load("cuhk03-classic-labeled", tmp_path, split=split)
    with pytest.raises(InputError, match="cuhk03 has one split .* and split 1 was asked for"):
        load("cuhk03", tmp_path, split=1)
    with pytest.raises(InputError, match="is a file; expected a folder with cuhk-03.mat"):
        load("cuhk03-classic-labeled", tmp_path / "cuhk-03.mat")
    load("cuhk03-classic-labeled", tmp_path)
    table = tmp_path / "classic-labeled" / "testsets.csv"
    table.write_text("split,person\n0,1\n")
    with pytest.raises(InputError, match="expected columns split,pair,person,pid"):
        load("cuhk03-classic-labeled", tmp_path)
    (tmp_path / "classic-labeled" / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="has no images/"):
        load("cuhk03-classic-labeled", tmp_path)
