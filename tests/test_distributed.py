"""`torchrun -m lab evaluate`: two processes leave the same run folder as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_person

from lab.cli import main
from lab.distributed import first_process_first, gather, is_first, largest, rank, share, total, world_size

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lab"]


@pytest.fixture
def market(tmp_path) -> Path:
    """Market-1501's layout with 6 people, of whom each is seen by 3 cameras."""
    folder = tmp_path / "market"
    for pid in range(1, 7):
        for camid in (1, 2, 3):
            name = f"{pid:04d}_c{camid}s1_000001_00.jpg"
            for part in ("bounding_box_train", "query", "bounding_box_test"):
                if part != "query" or camid == 1:
                    write_person(folder / part / name, pid, camid)
    return folder


def torchrun(*arguments) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_one_process_is_the_first_and_has_everything():
    values = torch.arange(6).view(2, 3)
    with first_process_first():
        assert (world_size(), rank(), is_first(), share(7)) == (1, 0, True, (0, 7))
    assert total(values) is values
    assert gather(values) == [values]
    assert largest(2.5, values.device) == 2.5


def test_two_processes_extract_and_rank_as_one(market, tmp_path):
    options = ["--weights", "shipped", "--dataset", "market1501", "--root", market, "--height", 32, "--width", 16]
    options += ["--batch-size", 4, "--num-workers", 0, "--rerank", "--k1", 4, "--k2", 2, "--cameras", "--verification"]
    done = torchrun("evaluate", *options, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("mAP") == 1  # only the first process prints
    main(["evaluate", *map(str, options), "--out", str(tmp_path / "one")])
    for part in ("query", "gallery"):
        one, two = (np.load(tmp_path / name / f"features/market1501-{part}.npz") for name in ("one", "two"))
        for key in one.files:
            np.testing.assert_array_equal(one[key], two[key])
    results = [
        json.loads((tmp_path / name / "eval/market1501-rerank/result.json").read_text()) for name in ("one", "two")
    ]
    assert results[0] == results[1]
    for file in ("queries.csv", "cameras.csv", "gallery.csv"):
        texts = [(tmp_path / name / "eval/market1501-rerank" / file).read_text() for name in ("one", "two")]
        assert texts[0] == texts[1]
    assert not list((tmp_path / "two" / "features").glob("*partial*"))


def test_verbs_that_run_in_one_process_refuse_more(tmp_path):
    done = torchrun("data", "synth", "--out", tmp_path / "people")
    assert done.returncode != 0
    assert "data synth runs in one process and torchrun started 2; start it alone" in done.stderr
    assert not (tmp_path / "people").exists()
