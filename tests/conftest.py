"""Data that several tests share: a small folder of people in Market-1501 layout, coloured by identity."""

import os
import shutil
import sys
from pathlib import Path

# threads of two processes on two cores would wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

import pytest
from make_demo import FINETUNED, finetune_log, make_run
from pair_runs import make_pairs
from pictures import write_person

from lab.data import load

MAIN = sys.modules["__main__"]


def pytest_runtest_teardown():
    """AppTest leaves the app behind as the process's main module, which worker processes of later tests would import."""
    sys.modules["__main__"] = MAIN


@pytest.fixture(scope="session")
def market(tmp_path_factory) -> Path:
    """8 training people x 6 crops, 5 other people to find under 3 cameras, 2 distractors and 1 junk crop."""
    root = tmp_path_factory.mktemp("market")
    for pid in range(2, 10):
        for number in range(6):
            camid = 1 + number % 3
            write_person(root / "bounding_box_train" / f"{pid:04d}_c{camid}s1_{number:06d}_01.jpg", pid, camid, number)
    for pid in range(20, 25):
        for camid in (1, 2, 3):
            write_person(root / "query" / f"{pid:04d}_c{camid}s1_000001_00.jpg", pid, camid)
            write_person(root / "bounding_box_test" / f"{pid:04d}_c{camid}s1_000002_01.jpg", pid, camid, 1)
    for number in range(2):
        write_person(root / "bounding_box_test" / f"0000_c1s1_{number:06d}_01.jpg", 900 + number, 1)
    write_person(root / "bounding_box_test" / "-1_c2s1_000001_01.jpg", 990, 2)
    return root


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """An empty folder of runs that the explorer looks at."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("LAB_RUNS", str(folder))
    monkeypatch.delenv("LAB_DATA", raising=False)
    return folder


@pytest.fixture
def three(runs, market) -> Path:
    """Three evaluated runs, from nearly right to nearly random; the first has a log."""
    dataset = load("market1501", market)
    for name, noise in {"good": 0.6, "middle": 1.2, "bad": 5.0}.items():
        make_run(runs / name, dataset, noise, FINETUNED)
    finetune_log().to_csv(runs / "good" / "log.csv", index=False)
    return runs


@pytest.fixture(scope="session")
def _two(market, tmp_path_factory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("two"), market, {"good": 0.5, "bad": 3.0})


@pytest.fixture
def two(runs, _two) -> Path:
    """Two runs with cameras.npz and verification.npz, plain and re-ranked."""
    shutil.copytree(_two, runs, dirs_exist_ok=True)
    return runs
