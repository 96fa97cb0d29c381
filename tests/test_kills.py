"""A training that is killed again and again, or whose disk fills up, ends with the same bits as one in peace.

LAB_KILLS says how often each is killed; 6 times are enough to notice what is forgotten.
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pictures import write_person
from same_runs import assert_same_run

from lab.data.readers import list_images
from lab.data.splits import Split
from lab.errors import InputError
from lab.finetune.train import FinetuneConfig, finetune
from lab.pretrain.train import PretrainConfig, pretrain
from lab.runs import Run

KILLS = int(os.environ.get("LAB_KILLS", "6"))
PEOPLE, SHOTS = 8, 4
PRETRAIN = replace(
    PretrainConfig.tiny(), height=32, width=16, dim=8, queue_size=24, batch_size=8, bn_groups=2, epochs=3, lr=0.02,
    log_every=3, probe_every=1, num_workers=0, device="cpu", checkpoint_minutes=0.0,
)  # fmt: skip
FINETUNE = replace(
    FinetuneConfig.tiny(), height=48, width=24, last_stride=1, epochs=2, steps_per_epoch=5, ids_per_batch=2, bn_groups=2,
    images_per_id=2, log_every=3, device="cpu", padding=3, checkpoint_minutes=0.0,
)  # fmt: skip
CONTEXT = multiprocessing.get_context("forkserver")  # starts quickly what has been imported


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    for pid in range(PEOPLE):
        for camid in range(SHOTS):
            write_person(folder / f"{pid}-{camid}.png", pid, camid, size=(24, 48))
    return folder


def probe(model, epoch) -> dict[str, float]:
    """A measurement that leaves eval mode behind and uses up random numbers, which the run's checkpoint has to know."""
    return {"probe_mAP": model.embed(torch.zeros(1, 3, 32, 16)).sum().item() + random.random() + torch.rand(1).item()}


def train(stage: str, crops: Path, folder: Path) -> None:
    """What a process does until it is done, killed, or told by an InputError to end with 2."""
    torch.set_num_threads(1)
    random.seed(7)
    paths = list_images(crops)
    try:
        if stage == "pretrain":
            run = Run.create(folder, stage, PRETRAIN)
            pretrain(run, paths, PRETRAIN, after_epoch=probe, progress=False)
        else:
            run = Run.create(folder, stage, FINETUNE)
            pid = [number // SHOTS for number in range(len(paths))]
            finetune(run, Split(paths, pid, [0] * len(paths)), FINETUNE, init="shipped", progress=False)
    except InputError as error:
        crops.with_suffix(".said").write_text(str(error))
        raise SystemExit(2) from error


def start(*arguments) -> multiprocessing.Process:
    CONTEXT.set_forkserver_preload(["lab.pretrain.train", "lab.finetune.train", "test_kills"])
    process = CONTEXT.Process(target=train, args=arguments)
    process.start()
    return process


def finish(*arguments) -> int:
    process = start(*arguments)
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def peaceful(crops, tmp_path_factory) -> Iterator[dict[str, tuple[Run, float]]]:
    """Per stage a run in peace, and the seconds that it took."""
    root, runs = tmp_path_factory.mktemp("peace"), {}
    for stage in ("pretrain", "finetune"):
        began = time.monotonic()
        assert finish(stage, crops, root / stage) == 0
        runs[stage] = Run(root / stage), time.monotonic() - began
    yield runs
    shutil.rmtree(root)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_kills_at_random_moments_change_nothing(stage, crops, peaceful, tmp_path):
    whole, seconds = peaceful[stage]
    moments, killed = random.Random(stage), 0
    while killed < KILLS:
        process = start(stage, crops, tmp_path / "run")
        process.join(moments.uniform(0, seconds / 3))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was done before: once more from the start, as there are kills left
            assert_same_run(Run(tmp_path / "run"), whole)
            shutil.rmtree(tmp_path / "run")
        killed += process.exitcode == -signal.SIGKILL
    assert finish(stage, crops, tmp_path / "run") == 0
    assert_same_run(Run(tmp_path / "run"), whole)
    assert not [file.name for file in (tmp_path / "run").iterdir() if file.name.startswith(".checkpoint")]
    shutil.rmtree(tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 1.6 GB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1600M", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path, spare: int) -> Path:
    """A file that leaves `spare` bytes."""
    ballast = disk / "ballast"
    with open(ballast, "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, shutil.disk_usage(disk).free - spare))
    return ballast


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_full_disk_in_the_middle_changes_nothing(stage, crops, peaceful, small_disk):
    whole, _ = peaceful[stage]
    process = start(stage, crops, small_disk / "run")
    while not Run(small_disk / "run").older_checkpoints():  # a second one has been written
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    for spare in (30_000_000, 0):  # too little for a checkpoint, and for a row of the log
        ballast = fill(small_disk, spare)
        assert finish(stage, crops, small_disk / "run") == 2
        assert "No space left on device" in crops.with_suffix(".said").read_text()
        ballast.unlink()
    assert finish(stage, crops, small_disk / "run") == 0
    assert_same_run(Run(small_disk / "run"), whole)
