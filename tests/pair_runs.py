"""Runs that also hold figures by pair of cameras and error rates of pairs, for the pages that show those."""

from pathlib import Path

import numpy as np
from make_demo import FINETUNED, features, make_run

from lab.data import load
from lab.evaluate.evaluate import evaluate_features
from lab.evaluate.settings import EvaluateConfig
from lab.runs import Run

BESIDE = {"cameras": True, "verification": True, "num_workers": 0, "device": "cpu"}


def make_pairs(folder: Path, market: Path, noises: dict[str, float]) -> Path:
    """Runs by name with how noisy their features are; each with a re-ranked evaluation too."""
    dataset = load("market1501", market)
    for name, noise in noises.items():
        make_run(folder / name, dataset, noise, FINETUNED)
        for more in ({}, {"rerank": True, "k1": 4, "k2": 2}):
            rng = np.random.default_rng(1)
            parts = [features(split, noise, rng) for split in (dataset.query, dataset.gallery)]
            evaluate_features(
                Run(folder / name), "market1501", *parts, EvaluateConfig(**BESIDE, **more), progress=False
            )
    return folder
