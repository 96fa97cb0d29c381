"""The stage: what it writes, when it reuses features, what it says about junk and lonely queries, bad input."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from lab.data.splits import ReidDataset, Split
from lab.errors import InputError
from lab.evaluate.evaluate import evaluate_baseline, evaluate_features, evaluate_run
from lab.evaluate.expansion import query_expansion
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.settings import EvaluateConfig
from lab.evaluate.stored import MORE
from lab.runs import Features, Run
from lab.verbs import report

CONFIG = EvaluateConfig(num_workers=0, device="cpu", height=16, width=8)
PEOPLE = {1: (200, 30, 30), 2: (30, 200, 30), 3: (30, 30, 200), 0: (120, 120, 120), -1: (5, 5, 5)}


def write_split(folder, people: list[tuple[int, int]], seed: int) -> Split:
    """One plain crop per (pid, camid), its colour near the person's."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    paths = []
    for i, (pid, camid) in enumerate(people):
        colour = tuple(int(value) for value in np.clip(np.array(PEOPLE[pid]) + rng.integers(-15, 16, 3), 0, 255))
        paths.append(str(folder / f"{pid:04d}_c{camid}_{i}.png"))
        Image.new("RGB", (10, 20), colour).save(paths[-1])
    return Split(paths, *np.array(people).T)


@pytest.fixture
def dataset(tmp_path) -> ReidDataset:
    root = tmp_path / "data"
    root.mkdir()
    query = write_split(root / "query", [(1, 1), (2, 1), (3, 1)], 0)  # 3 has no match under another camera
    gallery = write_split(root / "gallery", [(1, 2), (1, 3), (2, 2), (3, 1), (0, 2), (-1, 2)], 1)
    return ReidDataset("people", gallery, query, gallery)


class Model:
    """Mean colours, and how often they were asked for."""

    def __init__(self):
        self.calls = 0

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.nn.functional.normalize(images.float().mean(dim=(2, 3)))


def start_run(tmp_path, checkpoint: bytes | None = b"weights") -> Run:
    run = Run.create(tmp_path / "run", "finetune", {"height": 16, "width": 8})
    if checkpoint is not None:
        run.checkpoint.write_bytes(checkpoint)
    return run


def random_features(seed=0, count=30, size=8, people=5) -> tuple[Features, Features]:
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(2):
        pid, camid = rng.integers(0, people, count), rng.integers(0, 3, count)
        values = rng.standard_normal((count, size)).astype(np.float32)
        parts.append(Features(values, pid, camid, np.array([f"{i}.jpg" for i in range(count)])))
    return tuple(parts)


def files_below(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_run_gets_features_and_a_result(tmp_path, dataset):
    run = start_run(tmp_path)
    result = evaluate_run(run, Model(), dataset, EvaluateConfig(num_workers=0, device="cpu"), progress=False)
    assert result.mAP == 1.0  # colours tell these people apart
    assert files_below(run.folder) == {
        "config.json",
        "checkpoint.pt",
        *(f"features/people-{part}.{kind}" for part in ("query", "gallery") for kind in ("npz", "json")),
        *(f"eval/people/{name}" for name in ("result.json", "queries.csv", "ranks.npz", "gallery.csv")),
    }
    stored = run.result("people")
    np.testing.assert_array_equal(stored.index, result.index)
    np.testing.assert_array_equal(stored.ap, result.ap)
    assert stored.settings == json.loads(json.dumps(result.settings))


def test_settings_say_what_was_done_and_left_out(tmp_path, dataset):
    settings = evaluate_run(start_run(tmp_path), Model(), dataset, CONFIG, progress=False).settings
    assert settings["dataset"] == "people"
    assert settings["root"] == str(tmp_path / "data")
    assert settings["junk_dropped"] == {"query": 0, "gallery": 1}
    assert settings["queries_without_match"] == 1
    assert settings["queries_without_match_named"] == [dataset.query.path[2]]
    assert (settings["distance"], settings["ap"], settings["rerank"]) == ("cosine", "step", None)
    assert (settings["height"], settings["width"]) == (16, 8)
    assert len(settings["checkpoint"]) == 64


def test_re_ranking_is_a_second_result_beside_the_first(tmp_path, dataset):
    run = start_run(tmp_path)
    evaluate_run(run, Model(), dataset, CONFIG, progress=False)
    reranked = evaluate_run(run, Model(), dataset, dataclasses.replace(CONFIG, rerank=True, k1=3), progress=False)
    assert run.evals() == ["people", "people-rerank"]
    assert reranked.settings["rerank"] == {"variant": "luperson", "k1": 3, "k2": 6, "lambda": 0.3}


def test_expanded_features_are_a_result_of_their_own(tmp_path):
    run, (query, gallery) = Run(tmp_path / "run"), random_features()
    evaluate_features(run, "set", query, gallery, CONFIG, progress=False)
    expand = dataclasses.replace(CONFIG, expand=True, expand_k=3, expand_alpha=2.0, expand_times=2)
    result = evaluate_features(run, "set", query, gallery, expand, progress=False)
    evaluate_features(run, "set", query, gallery, dataclasses.replace(expand, rerank=True), progress=False)
    assert run.evals() == ["set", "set-aqe", "set-aqe-rerank"]
    values = query_expansion(query.values, gallery.values, 3, 2.0, 2)
    expected = evaluate_ranking(
        *(dataclasses.replace(f, values=v) for f, v in zip((query, gallery), values, strict=True))
    )
    np.testing.assert_array_equal(result.ap, expected.ap)
    assert result.settings["expand"] == {"k": 3, "alpha": 2.0, "times": 2}
    both = run.result("set-aqe-rerank").settings
    assert both["expand"] == result.settings["expand"]
    assert both["rerank"]["variant"] == "luperson"
    assert run.result("set").settings["expand"] is None


def test_an_expanded_result_without_its_gallery_finds_it_beside_the_features(tmp_path):
    run, (query, gallery) = Run(tmp_path / "run"), random_features()
    names = ["set", "set-rerank", "set-aqe", "set-aqe-rerank", "other-aqe"]
    for name in names:
        run.save_result(name, dataclasses.replace(evaluate_ranking(query, gallery), gallery_path=None))
    run.save_features("set", "gallery", gallery)
    assert [run.result(name).gallery_path is not None for name in names] == [True, True, True, True, False]
    run.save_features("other-aqe", "gallery", gallery)  # a data set of that name
    assert run.result("other-aqe").gallery_path is not None


def test_protocols_are_recorded_and_said(tmp_path, capsys):
    run, (query, gallery) = Run(tmp_path / "run"), random_features(people=40)
    plain = evaluate_features(run, "set", query, gallery, CONFIG, progress=False)
    report(run, plain)
    lonely = f"{plain.num_query - plain.num_valid_query} of 30 queries have no match under another camera and "
    assert lonely + "are not counted" in capsys.readouterr().out
    names = ("denominator", "gallery_shot", "repeats", "seed")
    assert [plain.settings[name] for name in names] == ["valid", "all", None, None]
    config = dataclasses.replace(CONFIG, denominator="all", gallery_shot="single", repeats=4, seed=7)
    result = evaluate_features(run, "set", query, gallery, config, progress=False)
    report(run, result)
    said = capsys.readouterr().out
    assert lonely + "count as 0" in said
    assert "one random crop per person, the mean of 4 draws" in said
    assert [run.result("set").settings[name] for name in names] == ["all", "single", 4, 7]
    expected = evaluate_ranking(query, gallery, denominator="all", gallery_shot="single", repeats=4, seed=7)
    assert (result.mAP, result.mINP) == (expected.mAP, expected.mINP)
    np.testing.assert_array_equal(result.cmc, expected.cmc)
    assert result.mAP < plain.mAP


def test_features_are_reused_while_crops_weights_and_size_are_the_same(tmp_path, dataset):
    run, model = start_run(tmp_path), Model()

    def calls(config=CONFIG) -> int:
        model.calls = 0
        evaluate_run(run, model, dataset, config, progress=False)
        return model.calls

    assert calls() == 2
    assert calls() == 0
    run.checkpoint.write_bytes(b"trained on")
    assert calls() == 2
    assert calls(dataclasses.replace(CONFIG, height=24)) == 2
    assert calls(dataclasses.replace(CONFIG, height=24)) == 0
    os.utime(dataset.query.path[0], (1, 1))
    assert calls(dataclasses.replace(CONFIG, height=24)) == 1  # the query's, not the gallery's
    (run.folder / "features" / "people-gallery.json").write_text("{")
    assert calls(dataclasses.replace(CONFIG, height=24)) == 1


def test_without_a_checkpoint_features_are_always_new(tmp_path, dataset):
    run, model = start_run(tmp_path, checkpoint=None), Model()
    for _ in range(2):
        evaluate_run(run, model, dataset, CONFIG, progress=False)
    assert model.calls == 4


def test_evaluating_again_replaces_the_result(tmp_path):
    run = Run(tmp_path / "run")
    evaluate_features(run, "set", *random_features(0), CONFIG, progress=False)
    (run.folder / "eval" / "set" / "stale.txt").write_text("")
    second = evaluate_features(run, "set", *random_features(1), CONFIG, progress=False)
    assert Run(run.folder).result("set").mAP == second.mAP
    assert "eval/set/stale.txt" not in files_below(run.folder)


def test_feature_files_make_a_run_with_nothing_but_config_and_eval(tmp_path):
    query, gallery = random_features()
    for part, features in (("query", query), ("gallery", gallery)):
        features.save(tmp_path / f"{part}.npz")
    loaded = [Features.load(tmp_path / f"{part}.npz") for part in ("query", "gallery")]
    run = Run(tmp_path / "run")
    result = evaluate_features(run, "mine", *loaded, CONFIG, facts={"files": ["query.npz"]}, progress=False)
    assert {name.split("/")[0] for name in files_below(run.folder)} == {"config.json", "eval"}
    assert Run.open(run.folder).config["stage"] == "features"
    assert result.settings["files"] == ["query.npz"]
    expected = evaluate_ranking(query, gallery)
    np.testing.assert_array_equal(result.ap, expected.ap)
    trapezoid = evaluate_features(run, "mine", *loaded, dataclasses.replace(CONFIG, ap="trapezoid"), progress=False)
    assert trapezoid.mAP < result.mAP


def test_junk_is_dropped_from_features_and_counted(tmp_path):
    query, gallery = random_features()
    gallery.pid[[4, 9]] = -1
    result = evaluate_features(Run(tmp_path / "run"), "set", query, gallery, CONFIG, progress=False)
    assert result.num_gallery == 28
    assert result.settings["junk_dropped"] == {"query": 0, "gallery": 2}
    assert result.gallery_path[4] == "5.jpg"


@pytest.mark.parametrize("baseline", ["histogram", "untrained"])
def test_baselines_are_runs_of_their_own(tmp_path, dataset, baseline):
    run = Run(tmp_path / baseline)
    first = evaluate_baseline(run, baseline, dataset, CONFIG, progress=False)
    again = evaluate_baseline(Run(tmp_path / baseline), baseline, dataset, CONFIG, progress=False)
    assert Run.open(tmp_path / baseline).config["stage"] == "baseline"
    np.testing.assert_array_equal(first.index, again.index)


def test_bad_input_is_explained_and_leaves_the_run_as_it_was(tmp_path, dataset):
    run = start_run(tmp_path)
    before = files_below(run.folder)
    query, gallery = random_features()
    nan = dataclasses.replace(gallery, values=np.full_like(gallery.values, np.nan))
    narrow = dataclasses.replace(gallery, values=gallery.values[:, :3])
    lonely = dataclasses.replace(gallery, pid=gallery.pid + 100)
    junk = dataclasses.replace(gallery, pid=np.full_like(gallery.pid, -1))
    none = Features(gallery.values[:0], gallery.pid[:0], gallery.camid[:0], gallery.path[:0])
    cases = [
        (nan, "30 of 30 gallery"),
        (narrow, "same model"),
        (lonely, "same camera is removed"),
        (junk, "all of them"),
    ]
    for bad, words in [*cases, (none, "gallery holds no features")]:
        for target in (run, Run(tmp_path / "new")):
            with pytest.raises(InputError, match=words):
                evaluate_features(target, "set", query, bad, CONFIG, progress=False)
    with pytest.raises(InputError, match="no baseline 'luck'"):
        evaluate_baseline(Run(tmp_path / "new"), "luck", dataset, CONFIG, progress=False)
    assert files_below(run.folder) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"distance": "city"},
        {"ap": "smooth"},
        {"variant": "mine"},
        {"k1": 0},
        {"denominator": "some"},
        {"gallery_shot": "double"},
        {"repeats": 0},
        {"expand_k": 0},
        {"memory_gb": 0},
        {"memory_gb": float("inf")},
        {"height": -5},
        {"batch_size": 0},
        {"num_workers": -1},
        {"precision": "float8"},
        {"approximate": "ivf", "nprobe": 0},
        {"approximate": "ivf", "rerank": True},
    ],
)
def test_settings_are_checked_before_anything_is_done(wrong):
    words = r"choose one of|expected (k1 and k2|repeats|k and times|gigabytes|a whole number|nlist)|finds neighbours by"
    with pytest.raises(InputError, match=words):
        EvaluateConfig(**wrong)


def test_a_run_that_does_not_know_its_image_size_asks_for_it(tmp_path, dataset):
    run = Run.create(tmp_path / "run", "finetune", {})
    with pytest.raises(InputError, match="--height and --width"):
        evaluate_run(run, Model(), dataset, EvaluateConfig(device="cpu"), progress=False)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="not a run"):
        evaluate_features(Run(tmp_path / "run"), "set", *random_features(), CONFIG, progress=False)
    assert files_below(tmp_path / "run") == {"letter.txt"}


def test_feature_file_without_an_array_is_explained(tmp_path):
    np.savez(tmp_path / "q.npz", values=np.zeros((3, 2)), pid=np.zeros(3))
    with pytest.raises(InputError, match="has no camid"):
        Features.load(tmp_path / "q.npz")


def test_other_features_do_not_replace_a_result_and_every_one_is_kept(tmp_path):
    run = Run(tmp_path / "run")
    means = []
    for seed in (0, 1, 2, 1):
        evaluate_features(run, "set", *random_features(seed), CONFIG, progress=False)
        means.append(run.result("set").mAP)
    kept = [name for name in run.evals() if name != "set"]
    assert len(kept) == 3
    assert all(name.startswith("set-features_") for name in kept)
    assert sorted([*(run.result(name).mAP for name in kept), run.result("set").mAP]) == sorted(means)
    for distance in ("euclidean", "cosine", "euclidean", "cosine"):
        config = dataclasses.replace(CONFIG, distance=distance)
        evaluate_features(run, "set", *random_features(1), config, progress=False)
    assert {"set-distance_cosine", "set-distance_euclidean", "set-distance_cosine-2"} <= set(run.evals())


def test_repeating_an_evaluation_keeps_what_was_asked_for_before(tmp_path):
    run, (query, gallery) = Run(tmp_path / "run"), random_features()
    more = dataclasses.replace(CONFIG, cameras=True, verification=True)
    first = evaluate_features(run, "set", query, gallery, more, progress=False)
    files = {name: (run.folder / "eval/set" / name).read_bytes() for name in MORE}
    assert {"eer", "tpr_at_fpr"} <= set(first.settings["verification"])
    evaluate_features(run, "set", query, gallery, CONFIG, progress=False)
    assert {name: (run.folder / "eval/set" / name).read_bytes() for name in MORE} == files
    assert run.evals() == ["set"]
    evaluate_features(run, "set", *random_features(1), CONFIG, progress=False)  # of other features: not carried over
    assert not any((run.folder / "eval/set" / name).exists() for name in MORE)


@pytest.mark.parametrize("name", ["", "../other", "a/b", ".", "mine-rerank", "mine-aqe"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(tmp_path, name):
    run = Run(tmp_path / "run")
    evaluate_features(run, "set", *random_features(), CONFIG, progress=False)
    before = files_below(tmp_path)
    with pytest.raises(InputError, match="evaluation's name is"):
        evaluate_features(run, name, *random_features(), CONFIG, progress=False)
    assert files_below(tmp_path) == before


def test_a_folder_that_holds_something_else_is_not_replaced_by_a_result(tmp_path):
    run = Run(tmp_path / "run")
    evaluate_features(run, "set", *random_features(), CONFIG, progress=False)
    other = run.folder / "eval/notes/notes.txt"
    other.parent.mkdir()
    other.write_text("mine")
    with pytest.raises(InputError, match="holds no evaluation"):
        evaluate_features(Run.open(run.folder), "notes", *random_features(), CONFIG, progress=False)
    assert other.read_text() == "mine"


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"pid": np.array(["p1", "p2"])}, "pid of .* is of type <U2; expected whole numbers"),
        ({"pid": np.array([1, 2.5])}, "pid of .* is 2.5 in row 1"),
        ({"camid": np.array([np.nan, 1])}, "camid of .* is nan in row 0"),
        ({"pid": np.array([True, False])}, "pid of .* is of type bool"),
        ({"pid": np.array([1, 2**63], np.uint64)}, "pid of .* is 9223372036854775808 in row 1"),
        ({"values": np.ones((2, 3), complex)}, "values of type complex128; expected real numbers"),
    ],
)
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, labels, sentence):
    arrays = {"values": np.ones((2, 3)), "pid": np.array([1.0, 2.0]), "camid": np.array([1, 2], np.uint8)}
    np.savez(tmp_path / "good.npz", **arrays)
    assert Features.load(tmp_path / "good.npz").pid.tolist() == [1, 2]
    np.savez(tmp_path / "bad.npz", **arrays | labels)
    with pytest.raises(InputError, match=sentence):
        Features.load(tmp_path / "bad.npz")
