"""Training shared by two gloo processes, and training in parts, against one process that does all at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_person
from train_here import train

from lab.runs import Run

SCRIPT = Path(__file__).parent / "train_here.py"
STAGES = ("pretrain", "finetune")
EXACT = ["step", "epoch", "lr"]  # columns of log.csv
TOLERANCE = {"pretrain": 1e-3, "finetune": 0.02}  # of the way that a weight went; Adam makes most of small gradients
CLOSE = {"pretrain": ["loss"], "finetune": ["loss", "loss_cls", "loss_triplet"]}


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> Path:
    """Three batches of 64 unlabelled crops, and one left over."""
    root = tmp_path_factory.mktemp("crops")
    for number in range(193):
        write_person(root / f"{number:03d}.jpg", number % 50, number // 50, size=(16, 32))
    return root


@pytest.fixture(scope="module")
def alone(crops, market, tmp_path_factory) -> Path:
    """One process that goes through whole batches: what all others are compared with."""
    out = tmp_path_factory.mktemp("alone")
    train(crops, market, out, {})
    return out


def torchrun(crops: Path, market: Path, out: Path, changes: dict) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    command += [*map(str, (crops, market, out)), json.dumps(changes)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def start(crops, market, tmp_path_factory) -> Path:
    """Where all of them began: the same with a learning rate of 0."""
    out = tmp_path_factory.mktemp("start")
    train(crops, market, out, {"pretrain": {"lr": 0.0, "epochs": 1}, "finetune": {"lr": 0.0, "final_lr": 0.0}})
    return out


def assert_same_training(one: Path, other: Path, stage: str, start: Path) -> None:
    """Equal curves, and weights that went the same way, up to the order in which numbers are added."""
    logs = [Run(folder / stage).log() for folder in (one, other)]
    assert len(logs[0]) >= 5
    assert logs[0][EXACT].equals(logs[1][EXACT])
    for column in CLOSE[stage]:
        np.testing.assert_allclose(logs[0][column].dropna(), logs[1][column].dropna(), rtol=2e-4)
    before, ours, theirs = (torch.load(folder / f"{stage}-0.pt", weights_only=True) for folder in (start, one, other))
    names = [name for name, value in before.items() if value.is_floating_point() and "running_" not in name]
    for name in names:
        if name == "queue":
            torch.testing.assert_close(theirs[name], ours[name], rtol=0, atol=2e-3)
        elif not torch.equal(ours[name], before[name]):
            way, gap = ours[name] - before[name], theirs[name] - ours[name]
            assert gap.norm() < TOLERANCE[stage] * way.norm(), f"{name}: {gap.norm() / way.norm():.3f} of the way"
        else:
            assert torch.equal(theirs[name], before[name]), name


@pytest.fixture(scope="module")
def together(crops, market, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("together")
    torchrun(crops, market, out, {})
    return out


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_as_one(alone, together, start, stage):
    assert_same_training(alone, together, stage, start)


def test_all_processes_hold_one_queue_and_the_same_weights(together):
    first, second = (torch.load(together / f"pretrain-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first["queue"], second["queue"])
    assert torch.equal(first["queue_ptr"], second["queue_ptr"])
    for stage in STAGES:
        first, second = (torch.load(together / f"{stage}-{rank}.pt", weights_only=True) for rank in (0, 1))
        differ = [key for key in first if not torch.equal(first[key], second[key])]
        assert all("running_" in key for key in differ)  # each has batch statistics of its own; the first's are kept


@pytest.fixture(scope="module")
def in_parts(crops, market, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("parts")
    train(crops, market, out, {stage: {"accumulate": 2} for stage in STAGES})
    return out


@pytest.mark.parametrize("stage", STAGES)
def test_a_batch_in_parts_is_the_same_training(alone, in_parts, start, stage):
    assert_same_training(alone, in_parts, stage, start)


def test_parts_of_a_share_are_the_same_training_too(crops, market, start, tmp_path):
    """Two processes with two of four groups each, in two parts."""
    four = {stage: {"bn_groups": 4} for stage in STAGES}
    train(crops, market, tmp_path / "one", four)
    torchrun(crops, market, tmp_path / "two", {stage: {"bn_groups": 4, "accumulate": 2} for stage in STAGES})
    for stage in STAGES:
        assert_same_training(tmp_path / "one", tmp_path / "two", stage, start)
