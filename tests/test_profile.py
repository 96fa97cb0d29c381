"""Where a step's time goes: known sleeps, traces written by hand, and runs that end early."""

import json
import time

import pytest
import torch

from lab.runs import Run
from lab.training.profile import (
    SECTIONS,
    Cost,
    Profiler,
    as_table,
    data_section,
    section,
    time_by_operator,
    time_by_section,
)

CPU = torch.device("cpu")
SLEEPS = {
    "data": 0.012,
    "views": 0.008,
    "keys": 0.004,
    "forward": 0.024,
    "backward": 0.016,
    "optimizer": 0.004,
    "other": 0.016,
}


class Sleeper:
    """Sleeps as SLEEPS says and keeps how long it really took, in milliseconds: `took[name]` has one value per step."""

    def __init__(self, longer_before_step: int = 0):
        self.longer_before_step, self.took = longer_before_step, {name: [] for name in SLEEPS}

    def sleep(self, name: str) -> None:
        started = time.perf_counter()
        time.sleep(SLEEPS[name] + (0.05 if len(self.took[name]) + 1 < self.longer_before_step else 0))
        self.took[name].append(1000 * (time.perf_counter() - started))

    def batches(self, count: int):
        for number in range(count):
            self.sleep("data")
            yield number

    def mean(self, name: str, first: int, last: int) -> float:
        """Over steps first..last, which count from 1."""
        return sum(self.took[name][first - 1 : last]) / (last - first + 1)


def train(run: Run, steps: int, enabled: bool = True, fails_in: int | None = None, slow_before: int = 0) -> Sleeper:
    sleeper = Sleeper(slow_before)
    with Profiler(run, enabled, CPU) as profiler:
        for number in data_section(sleeper.batches(steps)):
            for name in SECTIONS[1:]:
                with section(name):
                    sleeper.sleep(name)
                    torch.ones(8).add(1)
            if number + 1 == fails_in:
                raise KeyboardInterrupt
            sleeper.sleep("other")
            profiler.step()
    return sleeper


def events(run: Run) -> list[dict]:
    (file,) = (run.folder / "profile").iterdir()
    assert file.name.endswith(".pt.trace.json")
    return json.loads(file.read_text())["traceEvents"]


def steps_in(found: list[dict]) -> list[int]:
    names = [event["name"] for event in found if event.get("cat") == "user_annotation"]
    return [int(name.removeprefix("ProfilerStep#")) for name in names if name.startswith("ProfilerStep#")]


@pytest.fixture
def run(tmp_path) -> Run:
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run")


def test_sections_get_the_time_that_they_took(run, capsys):
    sleeper = train(run, 14, slow_before=5)  # the first four steps are left out
    found = events(run)
    assert sorted(steps_in(found)) == list(range(5, 13))
    costs = time_by_section(found, 8)
    assert list(costs) == [*SECTIONS, "other", "step"]
    for name in SLEEPS:
        took = sleeper.mean(name, 5, 12)
        assert took - 0.1 < costs[name].program < took + 8, name
    assert costs["step"].program == pytest.approx(sum(costs[name].program for name in SLEEPS))
    printed = capsys.readouterr().out
    assert "steps 5 to 12" in printed
    assert "aten::add" in printed
    assert "GPU" not in printed
    assert "trace.pt.trace.json" in printed
    forward = next(line for line in printed.splitlines() if line.startswith("forward"))
    assert float(forward.split()[1]) == pytest.approx(costs["forward"].program, abs=0.01)
    assert float(forward.split()[2].rstrip("%")) == pytest.approx(
        100 * costs["forward"].program / costs["step"].program, abs=0.1
    )


@pytest.mark.parametrize(("steps", "shown"), [(1, [1]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (6, [5, 6])])
def test_a_short_run_is_shown_from_what_it_did(run, capsys, steps, shown):
    sleeper = train(run, steps)
    found = events(run)
    assert sorted(steps_in(found))[: len(shown)] == shown
    assert f"steps {shown[0]} to {shown[-1]} of" in capsys.readouterr().out
    took = sum(sleeper.mean(name, shown[0], shown[-1]) for name in SLEEPS)
    assert took - 0.5 < time_by_section(found, len(shown))["step"].program < took + 50


def test_a_run_that_is_stopped_shows_its_whole_steps_and_one_without_says_so(run, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(run, 9, fails_in=8)
    assert "steps 5 to 7 of" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        train(Run(tmp_path), 9, fails_in=1)
    assert "before its first step was done" in capsys.readouterr().out
    assert not (tmp_path / "profile").exists()
    assert not Profiler.recording


def test_nothing_is_written_unless_asked_for_or_by_another_process(run, monkeypatch, capsys):
    train(run, 2, enabled=False)
    assert section("forward") is section("backward")  # nothing is made for nobody
    monkeypatch.setattr("lab.training.profile.is_first", lambda: False)
    train(run, 2)
    assert list(run.folder.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_batches_pass_unchanged():
    assert list(data_section(range(3))) == [0, 1, 2]


def event(cat: str, name: str, ts: float, dur: float, tid: int = 1, **args) -> dict:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


BY_HAND = [
    {"ph": "M", "name": "process_name", "args": {"name": "python"}},
    event("user_annotation", "ProfilerStep#5", 500, 4500),  # before its first section the run was set up
    event("cpu_op", "set-up", 600, 100, **{"External id": 9}),
    event("user_annotation", "forward", 1000, 1000),
    event("user_annotation", "backward", 2500, 2000),
    event("user_annotation", "ProfilerStep#6", 5000, 4000),
    event("user_annotation", "forward", 5000, 1000),
    event("user_annotation", "backward", 6500, 2000),
    event("user_annotation", "ProfilerStep#7", 9000, 100),  # was not finished
    event("user_annotation", "forward", 9000, 100),
    event("gpu_user_annotation", "forward", 1500, 9999),
    event("cpu_op", "outer", 1000, 900, **{"External id": 1}),
    event("cpu_op", "inner", 1100, 300, **{"External id": 2}),
    event("cpu_op", "inner", 1400, 200, **{"External id": 3}),  # begins where the one before ends
    event("cpu_op", "inner", 1500, 800, tid=2, **{"External id": 4}),  # another thread, not within outer
    event("cuda_runtime", "cudaLaunchKernel", 1200, 5, correlation=71),
    event("cuda_runtime", "cudaLaunchKernel", 3000, 5, tid=2, correlation=72),  # backward has a thread of its own
    event("cuda_driver", "cuLaunchKernel", 4700, 5, correlation=73),  # after backward
    event("cuda_runtime", "cudaLaunchKernel", 9050, 5, correlation=74),  # in the step that was not finished
    event("kernel", "k1", 2600, 600, tid=7, **{"External id": 2, "correlation": 71}),  # runs while backward launches
    event("kernel", "k2", 3300, 1400, tid=7, **{"External id": 4, "correlation": 72}),
    event("gpu_memcpy", "copy", 4800, 200, tid=8, correlation=73),
    event("kernel", "k3", 9100, 5000, tid=7, correlation=74),
    event("cuda_runtime", "cudaLaunchKernel", 8400, 5, tid=2, correlation=75),
    event("kernel", "late", 9500, 200, tid=7, correlation=75),  # launched by backward, done after the last step
]


def test_gpu_time_belongs_to_the_section_that_launched_it():
    costs = time_by_section(BY_HAND, 2)
    nothing = Cost(0, 0)
    assert costs == {
        "data": nothing, "views": nothing, "keys": nothing, "forward": Cost(1.0, 0.3), "backward": Cost(2.0, 0.8),
        "optimizer": nothing, "other": Cost(1.0, 0.1), "step": Cost(4.0, 1.2),
    }  # fmt: skip


def test_an_operator_costs_what_those_it_calls_do_not():
    costs = time_by_operator(BY_HAND, 2)
    assert list(costs) == [
        "inner",
        "copy",
        "late",
        "outer",
    ]  # by GPU time; without an operator kernels go by their names
    assert costs["outer"].program == pytest.approx((900 - 300 - 200) / 2000)
    assert costs["inner"] == Cost(pytest.approx((300 + 200 + 800) / 2000), pytest.approx((600 + 1400) / 2000))


def test_a_table_has_gpu_columns_and_ten_operators_at_most():
    operators = {f"operator {number}": Cost(1.0, 2.0) for number in range(12)}
    lines = as_table(time_by_section(BY_HAND, 2), operators).splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["section", "forward", "backward", "other", "step"]
    assert lines[2].split() == ["backward", "2.00", "50.0%", "0.80", "20.0%"]
    assert len(lines) == 5 + 1 + 10
