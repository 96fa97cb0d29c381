"""Means that survive a stop, a loss that is lost, and the encoders that fool themselves (benchmarks/results)."""

import math
import re
from functools import cache

import pytest
import torch
from torch.nn import functional as F

from lab.errors import InputError
from lab.pretrain.moco import Contrast
from lab.runs import Run
from lab.training.health import (
    GRACE,
    WINDOW,
    Health,
    Meter,
    alignment,
    diagnose,
    explained,
    not_finite,
    uniformity,
)

NAMES = ("loss", "accuracy")


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when it is told to: `clock(seconds)`."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def values(steps: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(steps, len(NAMES), generator=torch.Generator().manual_seed(seed)) * 10


def fill(meter: Meter, rows: torch.Tensor) -> None:
    for row in rows:
        meter.add(*row)


def test_a_row_has_the_means_since_the_row_before(run):
    meter = Meter(run, NAMES, 4)
    for seed, steps in enumerate((7, 3)):
        rows = values(steps, seed)
        fill(meter, rows)
        found = meter.read(step=steps)
        for column, name in enumerate(NAMES):
            assert found[name] == pytest.approx(math.fsum(rows[:, column].tolist()) / steps, rel=1e-14)


def test_a_half_full_row_survives_a_checkpoint_to_the_last_bit(run, tmp_path):
    rows = values(1001)
    rows[500] *= 1e6  # in float32 the small ones would be lost beside it
    unbroken = Meter(run, NAMES, 4)
    fill(unbroken, rows)
    expected = unbroken.read(1001)
    for stops in ((1,), (400, 700), (1001,)):
        meter, done = Meter(run, NAMES, 4), 0
        for stop in stops:
            fill(meter, rows[done:stop])
            torch.save(meter.state_dict(), tmp_path / "state.pt")
            meter, done = Meter(run, NAMES, 4), stop
            meter.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        fill(meter, rows[done:])
        found = meter.read(1001)
        assert [found[name] for name in NAMES] == [expected[name] for name in NAMES]


def test_saving_changes_nothing_and_a_full_row_leaves_nothing_behind(run, clock):
    meter = Meter(run, NAMES, 4)
    fill(meter, values(3))
    clock(1)
    first, second = meter.state_dict(), meter.state_dict()
    assert torch.equal(first["values"], values(3).double())
    assert torch.equal(first["values"], second["values"])
    meter.read(3)
    clock(1)
    assert meter.state_dict() == {"values": pytest.approx(torch.empty(0, 2)), "seconds": 0.0}


def test_speed_counts_training_and_neither_pauses_nor_the_time_between_two_processes(run, clock):
    meter = Meter(run, NAMES, 64)
    clock(2)
    fill(meter, values(3))
    with meter.pause():
        clock(100)
        state = meter.state_dict()
    clock(1)
    assert meter.read(3)["images_per_second"] == 3 * 64 / 3
    clock(1000)
    continued = Meter(run, NAMES, 64)
    clock(10)
    continued.load_state_dict(state)
    clock(4)
    fill(continued, values(1))
    assert continued.read(4)["images_per_second"] == 4 * 64 / 6


def test_adding_a_step_does_not_look_at_it(run):
    Meter(run, NAMES, 4).add(*torch.empty(2, device="meta"))  # such a tensor has no values to look at


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_the_first_step_that_is_not_finite_is_named(run, kept):
    rows = values(8)
    rows[3, 1], rows[5, 0] = math.inf, math.nan
    meter = Meter(run, NAMES, 4)
    fill(meter, rows[:kept])
    state = meter.state_dict()
    meter = Meter(run, NAMES, 4)
    meter.load_state_dict(state)
    fill(meter, rows[kept:])
    with pytest.raises(InputError, match=r"the accuracy is inf at step 104, .*no checkpoint was written yet.*--lr"):
        meter.read(step=108)


def test_a_row_is_the_mean_over_processes_and_each_step_is_averaged_once(run, monkeypatch):
    here, there = values(5, seed=1), values(5, seed=2)
    others = iter([there[:2], there[2:]])  # what the other process has when the two average
    monkeypatch.setattr("lab.training.health.mean", lambda found: (found + next(others)) / 2)
    meter = Meter(run, NAMES, 4)
    fill(meter, here[:2])
    state = meter.state_dict()
    meter = Meter(run, NAMES, 4)
    meter.load_state_dict(state)
    fill(meter, here[2:])
    found = meter.read(5)
    expected = torch.cat([here, there]).double().mean(0).tolist()
    assert [found[name] for name in NAMES] == pytest.approx(expected, rel=1e-14)


def test_a_loss_that_explodes_is_stopped_and_the_way_out_is_named(run):
    health = Health(run)
    health.check({"step": 10, "loss": 60.0})
    health.check({"step": 20, "loss": 239.0})
    (run.folder / "checkpoint.pt").touch()
    for step in (900, 1000):
        (run.folder / f"checkpoint-{step:09d}.pt").touch()
    with pytest.raises(InputError) as error:
        health.check({"step": 30, "loss": 241.0})
    sentence = str(error.value)
    assert "241 at step 30 and at most 240 was expected" in sentence
    assert f"last good checkpoint is {run.checkpoint}, and an older one checkpoint-000001000.pt" in sentence
    assert f"smaller --lr in a new --out, with --init {run.folder / 'checkpoint-000001000.pt'}" in sentence
    with pytest.raises(InputError, match=r"the loss is nan at step 40, and training cannot go on"):
        health.check({"step": 40, "loss": math.nan})


def test_after_a_resume_the_loss_is_compared_with_the_first_row_of_the_run(run):
    for step, loss in ((0, math.nan), (5, 10.0), (10, 1.0)):  # a measurement before training has no loss
        run.append_log({"step": step, "loss": loss})
    health = Health(run)
    health.check({"step": 15, "loss": 39.0})
    with pytest.raises(InputError, match="exploded"):
        health.check({"step": 20, "loss": 41.0})


def test_the_easy_first_steps_of_pretraining_do_not_make_the_others_an_explosion(run):
    health = Health(run, keys_in_batch=64)
    before = {"step": 0, "loss": math.nan, "chance_loss": math.nan}  # only a retrieval probe was made
    health.check(before)
    assert health.report(before) == []
    health.check({"step": 1, "loss": 0.49, "chance_loss": math.log(513)})  # measured with an untrained ResNet-18
    health.check({"step": 9, "loss": 6.09, "chance_loss": math.log(513)})
    with pytest.raises(InputError, match="exploded"):
        health.check({"step": 10, "loss": 4 * math.log(513) + 0.1, "chance_loss": math.log(513)})


def test_what_is_left_is_said_without_older_checkpoints_too(run):
    run.checkpoint.touch()
    sentence = str(not_finite(run, "a weight is no longer finite", 7))
    assert sentence.startswith("a weight is no longer finite at step 7, and training cannot go on;")
    assert "older" not in sentence
    assert sentence.endswith(f"--init {run.checkpoint}")


# benchmarks/results/pretraining-recipe.md, first table: K + 1, loss, accuracy, batch_accuracy, feature_std; batch 64
MEASURED = [
    (513, 5.25, 0.95, 0.00, 0.09, "the network tells the age of keys, not people"),
    (513, 4.64, 0.17, 0.09, 0.29, None),
    (513, 4.77, 0.22, 0.08, 0.30, None),
    (513, 5.71, 0.06, 0.13, 0.40, None),
    (1025, 5.80, 0.08, 0.19, 0.52, None),
]


@pytest.mark.parametrize(("keys", "loss", "accuracy", "batch_accuracy", "feature_std", "expected"), MEASURED)
def test_the_measured_runs_are_told_apart(keys, loss, accuracy, batch_accuracy, feature_std, expected):
    row = dict(loss=loss, accuracy=accuracy, batch_accuracy=batch_accuracy, feature_std=feature_std)
    row |= {"chance_loss": math.log(keys), "uniformity": -4 * feature_std**2}  # what it is for a small spread
    for images in (64, 64 * 100):
        found = diagnose(row, 64, images)
        assert (found and found[0]) == expected


@pytest.mark.parametrize(
    ("times_chance", "lost", "images", "blind"),
    [(2, 0.0, 10_000, True), (4, 0.0, 10_000, False), (2, 0.1, 10_000, False), (4, 0.0, 200, True)],
)
def test_an_encoder_at_chance_is_told_from_one_that_begins_to_learn(times_chance, lost, images, blind):
    """`lost` is by how much the loss is below that of guessing; of 200 images 0.4 would be guessed, and 2 are no news."""
    row = {"accuracy": times_chance / 513, "batch_accuracy": 1 / 64, "loss": math.log(513) - lost}
    row |= {"chance_loss": math.log(513), "feature_std": 0.5, "uniformity": -1.0}
    assert (diagnose(row, 64, images) is not None) == blind


@cache
def encoder(kind: str, seed: int, batch: int = 64, queue: int = 512, temperature: float = 0.1) -> dict:
    """The row of an encoder of a known kind, by what its projections are; computed as MoCo does."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, 32, generator=generator)

    new, old = torch.eye(2, 32) * 20  # two directions, far apart
    q, k, keys = {
        "same": lambda: (1e-3 * noise(batch) + 1, 1e-3 * noise(batch) + 1, 1e-3 * noise(queue) + 1),
        "blind": lambda: (noise(batch), noise(batch), noise(queue)),
        "age": lambda: (noise(batch) + new, noise(batch) + new, noise(queue) + old),
        "people": lambda: ((q := noise(batch)), q + 1.5 * noise(batch), noise(queue)),
    }[kind]()
    q, k, keys = F.normalize(q), F.normalize(k), F.normalize(keys)
    contrast = Contrast(torch.cat([(q * k).sum(1, keepdim=True), q @ keys.T], dim=1) / temperature, q, k)
    return {
        "loss": contrast.loss.item(),
        "accuracy": contrast.accuracy.item(),
        "batch_accuracy": contrast.batch_accuracy.item(),
        "chance_loss": math.log(queue + 1),
        "feature_std": (q.std(0).mean() * math.sqrt(32)).item(),
        "uniformity": uniformity(q).item(),
    }


SAID = {
    "same": "projections of all crops are the same.*feature_std is .*healthy.*--lr",
    "blind": "does not tell its own key from others.*guessing.*healthy",
    "age": "age of keys, not people.*healthy.*--key-momentum",
}


def report(health: Health, kind: str, steps: range) -> list[str]:
    return [sentence for step in steps for sentence in health.report(encoder(kind, step % 10) | {"step": step})]


@pytest.mark.parametrize("kind", SAID)
def test_each_kind_of_collapse_is_said_once_until_it_recovers(run, kind):
    health = Health(run, keys_in_batch=64)
    assert report(health, kind, range(GRACE - 20, GRACE + 1)) == []  # many a good run looks like that at first
    said = report(health, kind, range(GRACE + 1, GRACE + 60))
    assert len(said) == 1
    assert f"steps {GRACE + 1} to {GRACE + WINDOW}: " in said[0]
    assert re.search(SAID[kind], said[0])
    assert report(health, "people", range(1000, 1002)) == []
    assert report(health, kind, range(1002, 1020)) == []  # two rows were no recovery
    assert report(health, "people", range(1020, 1040)) == []
    assert len(report(health, kind, range(1040, 1060))) == 1


def test_one_collapse_after_another_is_said_too(run):
    health = Health(run, keys_in_batch=64)
    assert "crops are the same" in report(health, "same", range(1000, 1020))[0]
    assert "does not tell" in report(health, "blind", range(1020, 1060))[-1]


def test_a_healthy_encoder_and_a_stage_without_keys_are_left_alone(run):
    assert report(Health(run, keys_in_batch=64), "people", range(150, 300)) == []
    health = Health(run)
    for step in range(300, 320):
        assert health.report({"step": step, "loss": 1.0, "accuracy": 0.0}) == []


def test_the_grace_is_longer_where_the_queue_takes_longer_to_fill(run):
    health = Health(run, keys_in_batch=64)
    rows = [encoder("age", 0, queue=64 * 300) | {"step": step} for step in range(500, 800, 20)]
    said = [health.report(row) for row in rows]
    first = next(row["step"] for row, sentences in zip(rows, said, strict=True) if sentences)
    assert first == 620 + 20 * (WINDOW - 1)  # the first window after twice 300 steps


def test_alignment_and_uniformity_are_those_of_plain_loops():
    q, k = (F.normalize(torch.randn(9, 5, generator=torch.Generator().manual_seed(seed))) for seed in (1, 2))
    apart = [sum((a - b) ** 2 for a, b in zip(q[i].tolist(), k[i].tolist(), strict=True)) for i in range(9)]
    assert alignment(q, k).item() == pytest.approx(sum(apart) / 9, rel=1e-5)
    pairs = [
        math.exp(-2 * sum((a - b) ** 2 for a, b in zip(q[i].tolist(), q[j].tolist(), strict=True)))
        for i in range(9) for j in range(i + 1, 9)
    ]  # fmt: skip
    assert uniformity(q).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)
    assert uniformity(q[:1].expand(6, 5)).item() == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.tensor([[1.0, 0], [-1, 0]])).item() == pytest.approx(-8)


def fail(error: Exception) -> None:
    with explained("raise --accumulate or lower --batch-size"):
        raise error


def test_a_full_gpu_is_a_sentence_with_what_is_in_use(monkeypatch):
    expected = r"^the GPU's memory is full, and a step .*raise --accumulate or lower --batch-size; checkpoints are kept"
    with pytest.raises(InputError, match=expected):
        fail(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    with pytest.raises(InputError, match=expected):
        fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2**29, 80 * 2**30))
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda: 70 * 2**30)
    with pytest.raises(InputError, match=r"full \(79.5 of 80.0 GiB in use, 70.0 by tensors of this run\), and"):
        fail(torch.OutOfMemoryError("CUDA out of memory."))


def test_a_full_machine_is_a_sentence_and_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55)  # torch itself says that this is too much
    for full in (error.value, MemoryError()):
        with pytest.raises(InputError, match=r"^this machine's memory is full, .*lower --batch-size"):
            fail(full)
    with pytest.raises(InputError, match=r"^--compile needs a C\+\+ compiler"):
        fail(RuntimeError("InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx"))
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), InputError("no such file"), OSError()):
        with pytest.raises(type(other)) as error:
            fail(other)
        assert error.value is other
