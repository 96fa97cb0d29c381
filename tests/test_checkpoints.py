"""Checkpoints: what was saved comes back to the last bit, and damage is found, named and cost one interval at most."""

import multiprocessing
import os
import random
import resource
import signal
import socket
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.distributed import processes
from lab.errors import InputError
from lab.runs import Run
from lab.training.checkpoints import Checkpoints, random_states, set_random_states

FORK = multiprocessing.get_context("fork")  # a process of its own that need not load torch again
LARGE = 200_000  # numbers: a file that takes milliseconds to write


def content(step: int, size: int = 3000) -> dict:
    """What a training would save after `step`: other numbers for every step."""
    values = torch.Generator().manual_seed(step)
    return {
        "model": {"weight": torch.randn(size, generator=values), "ptr": torch.tensor([step])},
        "optimizer": {"state": {0: {"momentum": torch.randn(size, generator=values)}}, "param_groups": [{"lr": 0.1}]},
        "scaler": None,
        "step": step,
        "epoch": step // 10,
        "config": {"lr": 0.1, "device": "cpu"},
    }


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "r", "pretrain", {"lr": 0.1})


def saved(run: Run, *steps: int, keep: int = 1) -> Checkpoints:
    checkpoints = Checkpoints(run, keep)
    assert checkpoints.load() is None
    for step in steps:
        checkpoints.save(content(step))
    return checkpoints


def names(run: Run) -> set[str]:
    return {file.name for file in run.folder.iterdir()} - {"config.json", ".lock"}


def older(*steps: int) -> set[str]:
    return {f"checkpoint-{step:09d}.pt" for step in steps}


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def test_what_was_saved_comes_back(run):
    assert saved(run, 10, 25).step == 25
    again = Checkpoints(run)
    assert equal(again.load(), content(25))
    assert again.step == 25
    assert not equal(content(25), content(26))


@pytest.mark.parametrize(("keep", "kept"), [(0, ()), (1, (30,)), (3, (10, 20, 30))])
def test_the_newest_older_ones_are_kept_whole(run, keep, kept):
    saved(run, 5, 10, 20, 30, 40, keep=keep)
    assert names(run) == {"checkpoint.pt"} | older(*kept)
    assert list(run.older_checkpoints().values()) == sorted(kept, reverse=True)
    for file, step in run.older_checkpoints().items():
        assert equal(torch.load(file, weights_only=True), content(step))


def test_the_same_step_again_and_fewer_to_keep(run):
    saved(run, 10, 20, 30, keep=2).save(content(30) | {"optimizer": None})
    assert names(run) == {"checkpoint.pt"} | older(10, 20)
    again = Checkpoints(run, keep=1)
    assert again.load()["optimizer"] is None
    again.save(content(40))
    assert names(run) == {"checkpoint.pt"} | older(30)


def test_a_process_that_never_loaded_keeps_the_one_before_too(run):
    saved(run, 10)
    Checkpoints(run).save(content(20))
    assert names(run) == {"checkpoint.pt"} | older(10)
    assert equal(torch.load(run.folder / "checkpoint-000000010.pt", weights_only=True), content(10))


def test_steps_of_an_attempt_that_was_given_up_make_room(run):
    saved(run, 10, 20, 30, keep=2)
    (run.folder / "checkpoint-000000010.pt").replace(run.checkpoint)  # back to an older state, by hand
    again = Checkpoints(run, keep=2)
    assert again.load()["step"] == 10
    again.save(content(15))
    assert names(run) == {"checkpoint.pt"} | older(10)


@pytest.mark.parametrize("keep", [0, 1])
def test_without_hard_links_the_file_is_renamed(run, keep, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    saved(run, 10, 20, 30, keep=keep)
    assert names(run) == {"checkpoint.pt"} | older(*[20] * keep)
    run.checkpoint.unlink()  # as if it was killed between two renames
    if keep:
        assert equal(Checkpoints(run).load(), content(20))
        assert equal(torch.load(run.checkpoint, weights_only=True), content(20))


def test_checkpoint_pt_is_there_at_every_moment(run, monkeypatch):
    checkpoints = saved(run, 10)
    (run.folder / "checkpoint-000000010.pt").write_text("in the way")
    seen = []

    def watched(call):
        def do(*arguments, **keywords):
            seen.append(torch.load(run.checkpoint, weights_only=True)["step"])
            return call(*arguments, **keywords)

        return do

    for name in ("link", "fsync"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    for name in ("replace", "unlink", "chmod"):
        monkeypatch.setattr(Path, name, watched(getattr(Path, name)))
    checkpoints.save(content(20))
    checkpoints.save(content(30))
    assert seen == sorted(seen)
    assert set(seen) == {10, 20, 30}


def test_torch_itself_does_not_see_a_flipped_bit(run):
    """Why checksums are looked at: the day torch does this, `_read` may stop."""
    saved(run, 10)
    flip(run.checkpoint, run.checkpoint.stat().st_size // 3)
    assert not equal(torch.load(run.checkpoint, weights_only=True), content(10))


DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-1000]),
    "no checkpoint": lambda file: file.write_text("weights\n" * 100),
    "checksum": lambda file: flip(file, file.stat().st_size // 3),
    "has no optimizer, config": lambda file: torch.save({"model": {}, "step": 20, "epoch": 2}, file),
    "no number of its step": lambda file: torch.save(content(20) | {"step": "20"}, file),
    "holds Python objects": lambda file: torch.save(content(20) | {"more": Path("x")}, file),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(run, what, capsys):
    saved(run, 10, 20)
    DAMAGES[what](run.checkpoint)
    damaged = run.checkpoint.read_bytes()
    again = Checkpoints(run)
    assert equal(again.load(), content(10))
    assert again.step == 10
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert warning.startswith(f"warning: {run.checkpoint} ")
    assert what in warning
    assert "going on from checkpoint-000000010.pt of step 10; it is kept as checkpoint.damaged.pt" in warning
    assert (run.folder / "checkpoint.damaged.pt").read_bytes() == damaged
    assert equal(torch.load(run.checkpoint, weights_only=True), content(10))
    again.save(content(20))
    assert names(run) == {"checkpoint.pt", "checkpoint.damaged.pt"} | older(10)
    assert equal(Checkpoints(run).load(), content(20))
    assert capsys.readouterr().err == ""


def test_damaged_older_ones_are_passed_over_and_do_not_count(run, capsys):
    saved(run, 10, 20, 30, keep=2)
    for file in (run.checkpoint, run.folder / "checkpoint-000000020.pt"):
        DAMAGES["cut short"](file)
    again = Checkpoints(run, keep=1)
    assert again.load()["step"] == 10
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        str(run.checkpoint),
        str(run.folder / "checkpoint-000000020.pt"),
    ]
    again.save(content(15))
    damaged = {"checkpoint.damaged.pt", "checkpoint-000000020.damaged.pt"}
    assert names(run) == {"checkpoint.pt"} | older(10) | damaged


def test_when_all_are_damaged_nothing_is_touched(run):
    saved(run, 10, 20)
    DAMAGES["cut short"](run.checkpoint)
    DAMAGES["empty"](run.folder / "checkpoint-000000010.pt")
    before = {file: file.read_bytes() for file in run.folder.iterdir()}
    with pytest.raises(
        InputError, match=r"no checkpoint of .* is good .*cut short.*-000000010.pt is damaged: it is empty"
    ):
        Checkpoints(run).load()
    assert {file: file.read_bytes() for file in run.folder.iterdir()} == before
    with pytest.raises(InputError, match="no checkpoint of .* is good"):
        Checkpoints(run).save(content(30))


def test_any_flipped_bit_and_any_cut_is_found_or_harmless(run, capsys):
    """Bits that say nothing (padding, dates in the zip's directory) may flip; the others send the run to the one before."""
    saved(run, 10, 20)
    whole, before = run.checkpoint.read_bytes(), (run.folder / "checkpoint-000000010.pt").read_bytes()
    numbers = np.random.default_rng(0)
    directory = zipfile.ZipFile(run.checkpoint).start_dir
    places = [*numbers.integers(0, len(whole), 100), *numbers.integers(directory, len(whole), 100), *range(30)]
    fallen_back = 0
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << numbers.integers(8)
        run.checkpoint.write_bytes(data)
        step = Checkpoints(run).load()["step"]
        assert step in (10, 20)
        if step == 20:
            assert equal(torch.load(run.checkpoint, weights_only=True), content(20)), f"byte {place}"
        fallen_back += step == 10
        run.checkpoint.unlink()  # it may be the same file as the older one
        (run.folder / "checkpoint-000000010.pt").write_bytes(before)
    assert fallen_back > 100
    for length in numbers.integers(0, len(whole), 30):
        run.checkpoint.unlink(missing_ok=True)
        run.checkpoint.write_bytes(whole[:length])
        assert Checkpoints(run).load()["step"] == 10
    capsys.readouterr()


def test_a_checkpoint_that_cannot_be_read_is_no_damage(run, monkeypatch):
    saved(run, 10, 20)
    opened = open

    def refuse(file, *arguments, **keywords):
        if file == run.checkpoint:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *arguments, **keywords)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match=r"Permission denied .*checkpoint.pt.*mend that"):
        Checkpoints(run).load()
    assert names(run) == {"checkpoint.pt"} | older(10)


def test_what_would_not_be_read_back_never_takes_the_place_of_a_good_one(run, monkeypatch):
    checkpoints = saved(run, 10)
    with pytest.raises(InputError, match="holds Python objects"):
        checkpoints.save(content(20) | {"more": Path("x")})
    real = torch.save

    def faulty(value, stream):
        real(value, stream)
        stream.seek(5000)
        stream.write(b"rot")

    monkeypatch.setattr(torch, "save", faulty)
    with pytest.raises(InputError, match="checksum"):
        checkpoints.save(content(20))
    assert names(run) == {"checkpoint.pt"}
    assert equal(Checkpoints(run).load(), content(10))


def saves_with_limits(folder: Path, limits: list[int], answers) -> None:
    """In a process of its own: what `save` says when a file may have no more than so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    checkpoints = Checkpoints(Run(folder))
    checkpoints.load()
    for limit in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            checkpoints.save(content(20))
            answer = "saved"
        except InputError as error:
            answer = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        answers.send(answer)


def test_a_full_disk_keeps_the_last_good_one(run):
    """Every place where the room may end: the first byte, tensors, the directory at the end of the file."""
    saved(run, 10)
    size = run.checkpoint.stat().st_size
    limits = [0, 100, 5000, size // 2, size - 600, size - 1, size * 2]
    answers, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=saves_with_limits, args=(run.folder, limits, sender))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    sentences = [answers.recv() for _ in limits]
    assert sentences == 6 * [
        f"File too large while the checkpoint of step 20 was written in {run.folder}; the last good one is "
        f"{run.checkpoint} of step 10; free space there, and run the same command to go on"
    ] + ["saved"]
    assert names(run) == {"checkpoint.pt"} | older(10)
    assert equal(Checkpoints(run).load(), content(20))


def test_a_full_disk_before_the_first_checkpoint(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device .*; no checkpoint was written before; free space"):
        Checkpoints(run).save(content(10))
    assert names(run) == set()


def test_other_errors_of_torch_stay_what_they_are(run, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        Checkpoints(run).save(content(10))


def save_without_end(folder: Path, ready) -> None:
    with Run(folder).locked():
        checkpoints = Checkpoints(Run(folder), keep=2)
        found = checkpoints.load()
        step = found["step"] if found else 0
        ready.send(step)
        while True:
            step += 1
            checkpoints.save(content(step, LARGE))


def test_killed_while_it_saves_without_end(run):
    chance, reached = random.Random(0), 0
    for _ in range(12):
        ready, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=save_without_end, args=(run.folder, sender))
        process.start()
        assert ready.recv() == reached
        time.sleep(0.02 + 0.1 * chance.random())
        process.kill()
        process.join(60)
        with run.locked():
            found = Checkpoints(run, keep=2).load()
            assert found is None or equal(found, content(found["step"], LARGE))
            assert (found["step"] if found else 0) >= reached
            reached = found["step"] if found else 0
            assert names(run) <= {"checkpoint.pt"} | older(*range(reached - 3, reached + 1))
    assert reached > 5


def test_due_after_some_minutes(run, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(run, minutes=2)
    assert not checkpoints.due()
    now[0] += 119.9
    assert not checkpoints.due()
    now[0] += 0.1
    assert checkpoints.due()
    checkpoints.save(content(1))
    assert not checkpoints.due()
    now[0] += 120
    checkpoints.load()
    assert not checkpoints.due()
    assert Checkpoints(run, minutes=0).due()


@pytest.mark.parametrize("wrong", [{"keep": -1}, {"minutes": -1.0}])
def test_impossible_settings_are_refused(run, wrong):
    with pytest.raises(InputError, match="both are 0 or more"):
        Checkpoints(run, **wrong)


def go_on_in_two(number: int, port: int, folder: Path, elsewhere: Path, answers) -> None:
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.cuda.is_available = lambda: False  # a process that was forked could not use it
    with processes(), Run(folder).locked():
        checkpoints = Checkpoints(Run(folder))
        assert equal(checkpoints.load(), content(10))
        checkpoints.save(content(20) if number == 0 else {"step": 20})
        assert equal(Checkpoints(Run(folder)).load(), content(20))
        try:
            Checkpoints(Run(elsewhere if number else folder)).load()
            answers.put((number, None))
        except InputError as error:
            answers.put((number, str(error)))


def test_two_processes_go_on_from_the_same_checkpoint_and_one_writes(run, tmp_path, capfd):
    saved(run, 10, 15)
    DAMAGES["cut short"](run.checkpoint)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    answers = FORK.SimpleQueue()
    arguments = port, run.folder, tmp_path / "elsewhere", answers
    jobs = [FORK.Process(target=go_on_in_two, args=(number, *arguments)) for number in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    said = dict(answers.get() for _ in jobs)
    assert said[0] is None
    assert said[1].startswith("process 1 finds no checkpoint of step 20 in")
    assert capfd.readouterr().err.count("warning: ") == 1
    assert names(run) == {"checkpoint.pt", "checkpoint.damaged.pt"} | older(10)


def draw() -> list:
    drawn = [
        torch.rand(3).tolist(),
        torch.randn(1).item(),
        np.random.rand(3).tolist(),
        np.random.randn(),
        random.random(),
    ]
    drawn += [random.gauss(0, 1), random.randrange(10**6)]
    if torch.cuda.is_available():
        drawn += [torch.rand(3, device=device).tolist() for device in range(torch.cuda.device_count())]
    return drawn


def test_random_states_survive_a_file(tmp_path):
    draw()  # numpy and Python keep the second of two Gaussian numbers for later
    torch.save(random_states(), tmp_path / "states.pt")
    expected = draw(), draw()
    states = torch.load(tmp_path / "states.pt", weights_only=True)
    for _ in range(2):
        set_random_states(states)
        assert (draw(), draw()) == expected
    assert draw() != expected[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_checkpoint_of_a_gpu_comes_back_on_the_cpu(run):
    values = torch.randn(100, device="cuda")
    Checkpoints(run).save(content(10) | {"model": {"weight": values}})
    loaded = Checkpoints(run).load()["model"]["weight"]
    assert loaded.device.type == "cpu"
    assert torch.equal(loaded, values.cpu())
