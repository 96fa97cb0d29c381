"""Folders as `lab demo` leaves them, made in a moment: crops, and runs that rank by noisy made-up features."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from lab.data import load
from lab.data.synthetic import SyntheticConfig, write
from lab.evaluate.metrics import evaluate_ranking
from lab.runs import EvalResult, Features, Run

SMALL = SyntheticConfig(
    num_train_ids=6, num_test_ids=8, num_distractors=10, num_junk=2, num_unlabeled=12, people_unlabeled=4
)
FINETUNED = {"stage": "finetune", "settings": {"height": 128, "width": 64, "fraction": 1.0}, "init": None}
NOISE = {
    "scratch-10": 2.0,
    "short-10": 1.6,
    "shipped-10": 1.0,
    "scratch-100": 0.9,
    "short-100": 0.8,
    "shipped-100": 0.5,
}


def make_demo(out: Path, config: SyntheticConfig = SMALL, checkpoint: bool = False) -> Path:
    """Data and all runs of the demo below `out`; with `checkpoint`, shipped-100 gets an untrained MGN to look into."""
    write(out / "data", config)
    dataset = load("synthetic", out / "data")
    runs = out / "runs"
    for name, noise in {"baseline-histogram": 3.0, "baseline-untrained": 6.0}.items():
        make_run(runs / name, dataset, noise, {"stage": "baseline", "settings": {}})
    folder = runs / "pretrain-short"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"stage": "pretrain", "settings": {"queue_size": 1024}, "init": None})
    )
    pretrain_log().to_csv(folder / "log.csv", index=False)
    for name, noise in NOISE.items():
        init, share = name.split("-")
        settings = {"fraction": int(share) / 100, "depth": 18, "height": 128, "width": 64}
        weights = {"scratch": None, "short": str(runs / "pretrain-short"), "shipped": "shipped"}[init]
        make_run(
            runs / name,
            dataset,
            noise,
            {"stage": "finetune", "settings": settings, "init": weights and {"weights": weights, "sha256": "0"}},
        )
        finetune_log().to_csv(runs / name / "log.csv", index=False)
    if checkpoint:
        make_checkpoint(runs / "shipped-100")
    return out


def make_run(folder: Path, dataset, noise: float, config: dict | None = None) -> Run:
    """A run folder with an evaluation and a re-ranked one of a data set, whose features are pids in noise."""
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    run, name = Run(folder), dataset.name
    for ending, factor in (("", 1.0), ("-rerank", 0.85)):
        rng = np.random.default_rng(1)
        parts = [features(split, noise * factor, rng) for split in (dataset.query, dataset.gallery)]
        run.save_result(name + ending, evaluate_ranking(*parts))
    return run


def features(split, noise: float, rng: np.random.Generator) -> Features:
    people = np.random.default_rng(0).standard_normal((10_000, 16))
    values = people[split.pid % 10_000] + noise * rng.standard_normal((len(split), 16))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Features(values.astype(np.float32), split.pid, split.camid, split.path)


def tiny_result(**changes) -> EvalResult:
    """One query with a right, a wrong and a right entry (AP 5/6), and one without a valid match, worked by hand."""
    index = np.full((2, 50), -1, np.int32)
    distance = np.full((2, 50), np.nan, np.float32)
    match = np.zeros((2, 50), bool)
    index[0, :3], distance[0, :3], match[0, :3] = (2, 0, 1), (0.125, 0.25, 0.5), (True, False, True)
    index[1, :2], distance[1, :2] = (0, 1), (0.5, 0.75)
    values = {
        "mAP": 5 / 6, "mINP": 2 / 3, "cmc": np.ones(50), "num_query": 2, "num_valid_query": 1, "num_gallery": 3,
        "path": np.array(["query/0007_c1.jpg", "query/0009_c2.jpg"]),
        "pid": np.array([7, 9]), "camid": np.array([1, 2]),
        "ap": np.array([5 / 6, np.nan]), "inp": np.array([2 / 3, np.nan]), "first_match": np.array([1, 0]),
        "index": index, "distance": distance, "match": match,
        "gallery_path": np.array(["g/0008_c1.jpg", "g/0007_c3.jpg", "g/0007_c2.jpg"]),
        "gallery_pid": np.array([8, 7, 7]), "gallery_camid": np.array([1, 3, 2]),
    }  # fmt: skip
    return EvalResult(**(values | changes))


def pretrain_log(steps: int = 200, queue_size: int = 1024) -> pd.DataFrame:
    step = np.arange(0, steps + 1, 5)
    chance, part = math.log(queue_size + 1), step / steps
    log = pd.DataFrame({"step": step, "epoch": 1 + step // 20, "lr": 0.06 * (1 + np.cos(math.pi * part)) / 2})
    log["loss"] = chance * (1.05 - 0.6 * part)
    log["accuracy"] = 0.01 + 0.7 * part
    log["chance_loss"] = chance
    log["feature_std"] = 0.4 + 0.5 * part
    log["images_per_second"] = 250.0
    log["probe_mAP"] = np.where(step % 40 == 0, 0.1 + 0.15 * part, np.nan)
    log["probe_rank1"] = np.where(step % 40 == 0, 0.2 + 0.3 * part, np.nan)
    return log


def finetune_log(steps: int = 120) -> pd.DataFrame:
    step = np.arange(10, steps + 1, 10)
    part = step / steps
    log = pd.DataFrame({"step": step, "epoch": 1 + step // 20, "lr": 7e-4 * np.minimum(1, 6 * part)})
    log["loss_cls"], log["loss_triplet"] = 30 * np.exp(-2 * part), 3 * np.exp(-3 * part)
    log["loss"] = log["loss_cls"] + log["loss_triplet"]
    log["accuracy"], log["images_per_second"] = part, 90.0
    return log


def make_evaluated(folder: Path, dataset, height: int = 128, width: int = 32) -> Run:
    """A run of an untrained MGN that was evaluated at this size, so that it holds features of its own."""
    from lab.evaluate.evaluate import evaluate_run
    from lab.evaluate.settings import EvaluateConfig
    from lab.finetune.train import load as load_mgn

    run = make_run(folder, dataset, 1.0, FINETUNED)
    make_checkpoint(run.folder)
    config = EvaluateConfig(height=height, width=width, num_workers=0)
    evaluate_run(run, load_mgn(run.folder), dataset, config, progress=False)
    return run


def make_checkpoint(run: Path) -> None:
    import torch

    from lab.finetune.mgn import MGN
    from lab.finetune.train import FinetuneConfig

    torch.manual_seed(0)
    config = dataclasses.asdict(FinetuneConfig.tiny())
    torch.save({"model": MGN(4, depth=18, last_stride=2).state_dict(), "config": config}, run / "checkpoint.pt")
