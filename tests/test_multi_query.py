"""Multi-query: pooled features against slow loops, a rank that it changes, and Market-1501's boxes in an evaluation."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from pictures import write_person

from lab.data import load
from lab.data.readers.market import multi_query_crops
from lab.errors import InputError
from lab.evaluate.evaluate import evaluate_features, evaluate_run
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.multi_query import count_crops, multi_query
from lab.evaluate.settings import EvaluateConfig
from lab.runs import Features, Run

CONFIG = EvaluateConfig(num_workers=0, device="cpu", height=32, width=16)


def random_features(seed: int, count: int, people: int = 6, cameras: int = 3, size: int = 5) -> Features:
    rng = np.random.default_rng(seed)
    pid, camid = rng.integers(0, people, count), rng.integers(0, cameras, count)
    return Features(rng.standard_normal((count, size)).astype(np.float32), pid, camid, np.full(count, "x.jpg"))


def pooled_slowly(query: Features, pools: list[Features], pooling: str) -> tuple[np.ndarray, list[int]]:
    """One query after the other, one crop after the other, in float64."""
    rows, counts = [], []
    for own, pid, camid in zip(query.values, query.pid, query.camid, strict=True):
        crops = []
        for pool in pools:
            for value, its_pid, its_camid in zip(pool.values, pool.pid, pool.camid, strict=True):
                if its_pid == pid and its_camid == camid:
                    crops.append(value.astype(np.float64))
        counts.append(len(crops))
        crops = crops or [own.astype(np.float64)]
        row = crops[0]
        for crop in crops[1:]:
            row = np.maximum(row, crop) if pooling == "max" else row + crop
        row = row if pooling == "max" else row / len(crops)
        rows.append(row / np.sqrt((row**2).sum()))
    return np.array(rows), counts


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("with_extra", [False, True])
def test_pooled_features_equal_slow_loops(pooling, with_extra):
    query, gallery = random_features(0, 20), random_features(1, 40)
    extra = random_features(2, 12, people=8) if with_extra else None
    expected, counts = pooled_slowly(query, [extra] if with_extra else [query, gallery], pooling)
    assert (min(counts) == 0) == with_extra  # some are not in `extra`, all are in the sets themselves
    found = multi_query(query, extra, gallery, pooling)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.values.dtype == np.float32
    assert count_crops(query, extra, gallery).tolist() == counts
    for name in ("pid", "camid", "path"):
        assert getattr(found, name) is getattr(query, name)


def hand_worked() -> tuple[Features, Features]:
    """A query nearer to a stranger than to its match; with its second crop under the camera it is the other way round."""
    query = Features(np.float32([[1, 0]]), np.array([1]), np.array([1]), np.array(["q"]))
    values = np.float32([[0, 1], [0.6, 0.8], [0.9, -np.sqrt(0.19)]])
    gallery = Features(values, np.array([1, 1, 2]), np.array([1, 2, 2]), np.array(["same camera", "match", "stranger"]))
    return query, gallery


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_second_crop_of_the_query_finds_the_match_first(pooling):
    query, gallery = hand_worked()
    single = evaluate_ranking(query, gallery)
    assert (single.first_match[0], single.mAP) == (2, 0.5)  # cosines 0.6 and 0.9
    pooled = multi_query(query, None, gallery, pooling)
    np.testing.assert_allclose(pooled.values, [[0.5**0.5, 0.5**0.5]], atol=1e-7)
    multi = evaluate_ranking(pooled, gallery)
    assert (multi.first_match[0], multi.mAP) == (1, 1.0)  # cosines 0.99 and 0.33
    assert multi.index[0, :2].tolist() == [1, 2]  # the crop that was pooled is removed for this query


def test_evaluated_features_are_pooled_and_the_result_says_so(tmp_path):
    run, (query, gallery) = Run(tmp_path / "run"), hand_worked()
    evaluate_features(run, "set", query, gallery, CONFIG, progress=False)
    config = dataclasses.replace(CONFIG, multi_query="max")
    result = evaluate_features(run, "set", query, gallery, config, progress=False)
    assert result.mAP == 1.0
    assert result.settings["multi_query"] == "max"
    pooled = {"from": "query and gallery", "mean": 2.0, "queries_of_one_crop": 0}
    assert result.settings["multi_query_crops"] == pooled
    assert run.evals() == ["set", "set-multi_query_None"]
    before = run.result("set-multi_query_None")
    assert (before.mAP, before.settings["multi_query"]) == (0.5, None)


def test_lengths_have_to_fit_where_they_matter(tmp_path):
    query, gallery = hand_worked()
    longer = dataclasses.replace(gallery, values=gallery.values * 3)
    config = dataclasses.replace(CONFIG, multi_query="mean")
    assert evaluate_features(Run(tmp_path / "a"), "set", query, longer, config, progress=False).mAP == 1.0
    for other in ({"distance": "euclidean"}, {"rerank": True, "k1": 2}):
        with pytest.raises(InputError, match="lengths from 3 to 3; use the cosine"):
            evaluate_features(
                Run(tmp_path / "b"), "set", query, longer, dataclasses.replace(config, **other), progress=False
            )


def test_bad_input_is_explained():
    query, gallery = hand_worked()
    with pytest.raises(InputError, match="'median'; choose one of mean, max"):
        multi_query(query, None, gallery, "median")
    with pytest.raises(InputError, match="'median'; choose one of mean, max"):
        EvaluateConfig(multi_query="median")
    with pytest.raises(InputError, match="have 2 and 5 values"):
        multi_query(query, random_features(0, 4), gallery)


@pytest.fixture
def with_boxes(market, tmp_path):
    """The small Market-style folder again, with hand-drawn boxes of two people, of a training person and junk."""
    root = tmp_path / "market"
    root.mkdir()
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        (root / part).symlink_to(market / part)
    for pid, camid, number in [(20, 1, 3), (20, 1, 4), (21, 2, 3), (3, 1, 3), (-1, 1, 3)]:
        name = f"{pid:04d}" if pid >= 0 else "-1"
        write_person(root / "gt_bbox" / f"{name}_c{camid}s1_{number:06d}_00.jpg", pid, camid, number)
    return root


class Pixels:
    """The crop's own pixels at unit length; counts its calls."""

    def __init__(self):
        self.calls = 0

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.nn.functional.normalize(images.flatten(1).float() - 127.5)


def start_run(folder) -> Run:
    run = Run.create(folder, "finetune", {"height": 32, "width": 16})
    run.checkpoint.write_bytes(b"weights")
    return run


def test_boxes_of_market1501_are_used_where_they_are(with_boxes, market, tmp_path):
    run, model, dataset = start_run(tmp_path / "run"), Pixels(), load("market1501", with_boxes)
    assert multi_query_crops(market) is None
    assert multi_query_crops(with_boxes).pid.tolist() == [3, 20, 20, 21]
    config = dataclasses.replace(CONFIG, multi_query="mean")
    result = evaluate_run(run, model, dataset, config, progress=False)
    boxes = run.features("market1501", "multi")
    assert boxes.pid.tolist() == [20, 20, 21]  # only those of a query's person under its camera are embedded
    query, gallery = (run.features("market1501", part) for part in ("query", "gallery"))
    values = pooled_slowly(query, [boxes], "mean")[0].astype(np.float32)
    expected = evaluate_ranking(dataclasses.replace(query, values=values), gallery)
    np.testing.assert_array_equal(result.index, expected.index)
    np.testing.assert_allclose(result.distance, expected.distance, atol=1e-6)
    crops = {"from": "gt_bbox", "mean": 16 / 15, "queries_of_one_crop": 14}
    assert result.settings["multi_query_crops"] == crops
    assert set(result.settings["crops"]) == {"query", "gallery", "multi"}
    model.calls = 0
    evaluate_run(run, model, dataset, config, progress=False)
    assert model.calls == 0
    plain = evaluate_run(run, model, dataset, CONFIG, progress=False)
    assert "multi_query_crops" not in plain.settings
    assert run.evals() == ["market1501", "market1501-multi_query_mean"]


def test_without_boxes_query_and_gallery_are_pooled(market, tmp_path):
    run, dataset = start_run(tmp_path / "run"), load("market1501", market)
    config = dataclasses.replace(CONFIG, multi_query="max")
    result = evaluate_run(run, Pixels(), dataset, config, progress=False)
    assert result.settings["multi_query_crops"]["mean"] == 2
    assert sorted(file.name for file in (run.folder / "features").iterdir()) == [
        f"market1501-{part}.{kind}" for part in ("gallery", "query") for kind in ("json", "npz")
    ]


def test_boxes_of_nobody_who_is_asked_for_are_refused(with_boxes, tmp_path):
    for file in (with_boxes / "gt_bbox").glob("002*"):
        file.unlink()
    run, model = start_run(tmp_path / "run"), Pixels()
    config = dataclasses.replace(CONFIG, multi_query="mean")
    with pytest.raises(InputError, match="gt_bbox holds 1 crops and none shows"):
        evaluate_run(run, model, load("market1501", with_boxes), config, progress=False)
    assert model.calls == 0
    assert not (run.folder / "eval").exists()


def test_results_from_before_multi_query_are_kept_beside_it(tmp_path):
    run, (query, gallery) = Run(tmp_path / "run"), hand_worked()
    evaluate_features(run, "set", query, gallery, CONFIG, progress=False)
    file = run.folder / "eval" / "set" / "result.json"
    old = json.loads(file.read_text())
    del old["settings"]["multi_query"], old["settings"]["flip"]
    file.write_text(json.dumps(old))
    evaluate_features(run, "set", query, gallery, dataclasses.replace(CONFIG, multi_query="mean"), progress=False)
    assert run.evals() == ["set", "set-multi_query_None"]
    assert run.result("set-multi_query_None").mAP == 0.5
