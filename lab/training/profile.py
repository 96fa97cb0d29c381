"""Where the time of a training step goes: a trace to look at, and a table of its sections and operators.

The trace is Chrome's format, a list of events with start and duration in microseconds (https://ui.perfetto.dev opens
it, and TensorBoard with its profiler plugin). The table is made from the same events.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

from lab.distributed import is_first
from lab.errors import InputError
from lab.files import replacing
from lab.runs import Run

WARM_UP = 4  # steps that are left out: they compile, look for the fastest kernels and fill caches
TRACED = 8  # steps after them; enough for a mean, and a trace that a browser can still open
SECTIONS = ("data", "views", "keys", "forward", "backward", "optimizer")  # of a training loop, one after the other
OPERATORS = 10  # the costliest are shown
STEP = "ProfilerStep#"  # the name by which TensorBoard finds a step
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")

_NOTHING = nullcontext()


def section(name: str) -> AbstractContextManager:
    """A part of a training step, by its name in SECTIONS; costs nothing to speak of while no `Profiler` records."""
    return record_function(name) if Profiler.recording else _NOTHING


def data_section(batches: Iterable) -> Iterator:
    """The same batches; the wait for each is the section "data"."""
    iterator, end = iter(batches), object()
    while True:
        with section("data"):
            batch = next(iterator, end)
        if batch is end:
            return
        yield batch


class Profiler:
    """Records steps WARM_UP + 1 to WARM_UP + TRACED of a training: a trace in RUN/profile/, a table on the screen.

    A context manager around the loop, which calls `step()` at the end of each. A run that ends before is shown from
    what it did, its first steps if there are no others. Does nothing unless `enabled`, and only in the first process.
    """

    recording = False  # in this process, by any Profiler

    def __init__(self, run: Run, enabled: bool, device: torch.device):
        self.file = run.folder / "profile" / "trace.pt.trace.json"
        self.enabled, self.device = enabled and is_first(), device
        self.now: _Recording | None = None
        self.warm_up: _Recording | None = None  # shown if nothing better comes

    def __enter__(self) -> "Profiler":
        if self.enabled:
            Profiler.recording = True
            self.now = _Recording(self.device, first=1)
        return self

    def step(self) -> None:
        """A step of the training is done."""
        if self.now is None:
            return
        last = WARM_UP if self.now.first == 1 else WARM_UP + TRACED
        if self.now.end_step(last):
            return
        if self.now.first == 1:
            self.warm_up, self.now = self.now, _Recording(self.device, first=last + 1)
        else:
            self._show()

    def __exit__(self, *error) -> None:
        if self.now is not None:
            self.now.stop()
            self._show()

    def _show(self) -> None:
        shown = self.now if self.now.done or self.warm_up is None else self.warm_up
        Profiler.recording, self.now, self.warm_up = False, None, None
        if not shown.done:
            tqdm.write("--profile: the run ended before its first step was done, so there is no profile")
            return
        try:
            self.file.parent.mkdir(exist_ok=True)
            with replacing(self.file) as temporary:
                shown.profile.export_chrome_trace(str(temporary))
            events = json.loads(self.file.read_text())["traceEvents"]
        except (OSError, ValueError) as error:
            raise InputError(f"the profile {self.file} cannot be written ({error}); free space on the disk") from error
        tqdm.write(f"steps {shown.first} to {shown.first + shown.done - 1} of this run")
        tqdm.write(as_table(time_by_section(events, shown.done), time_by_operator(events, shown.done)))
        tqdm.write(f"trace: {self.file} (https://ui.perfetto.dev or TensorBoard opens it)")


class _Recording:
    """Steps `first`, `first` + 1, … while torch's profiler looks on; `done` of them are whole."""

    def __init__(self, device: torch.device, first: int):
        self.device, self.first, self.done = device, first, 0
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self.profile = profile(activities=activities)
        self._wait()
        self.profile.start()
        self._begin()

    def end_step(self, last: int) -> bool:
        """Whether the recording goes on: it is stopped after step `last`."""
        self.done += 1
        if self.first + self.done > last:
            self._wait()  # work that is still on its way belongs to the steps that sent it
            self.stop()
            return False
        self.mark.__exit__(None, None, None)
        self._begin()
        return True

    def stop(self) -> None:
        self.mark.__exit__(None, None, None)
        self.profile.stop()

    def _begin(self) -> None:
        self.mark = record_function(f"{STEP}{self.first + self.done}")
        self.mark.__enter__()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass
class Cost:
    """Milliseconds per step in the program and on the GPU; the two work at the same time."""

    program: float = 0.0
    gpu: float = 0.0


def time_by_section(events: list[dict], steps: int) -> dict[str, Cost]:
    """What each section costs in the first `steps` steps of a trace; "other" is the rest of "step", the whole.

    GPU time belongs to the section that launched it, in whichever thread: backward launches from one of its own.
    """
    start, end = _window(events, steps)
    costs = {name: Cost() for name in (*SECTIONS, "other", "step")}
    parts = [event for event in _named(events) if event["name"] in SECTIONS and start <= event["ts"] < end]
    for part in parts:
        costs[part["name"]].program += part["dur"]
    costs["step"].program = end - start
    costs["other"].program = end - start - sum(part["dur"] for part in parts)
    begins = [part["ts"] for part in parts]
    for launched, work in _on_gpu(events):
        if not start <= launched < end:
            continue
        before = bisect_right(begins, launched) - 1
        inside = before >= 0 and launched < begins[before] + parts[before]["dur"]
        costs[parts[before]["name"] if inside else "other"].gpu += work["dur"]
        costs["step"].gpu += work["dur"]
    return _per_step(costs, steps)


def time_by_operator(events: list[dict], steps: int) -> dict[str, Cost]:
    """What each operator costs by itself, without the operators that it calls; the costliest first."""
    start, end = _window(events, steps)
    costs: dict[str, Cost] = defaultdict(Cost)
    operators = [event for event in events if event.get("cat") == "cpu_op" and start <= event["ts"] < end]
    running: dict[object, list[dict]] = defaultdict(list)  # in each thread: an operator, one that it calls, …
    for event in sorted(operators, key=lambda event: (event["ts"], -event["dur"])):
        callers = running[event["tid"]]
        while callers and event["ts"] >= callers[-1]["ts"] + callers[-1]["dur"]:
            callers.pop()
        if callers:
            costs[callers[-1]["name"]].program -= event["dur"]
        costs[event["name"]].program += event["dur"]
        callers.append(event)
    names = {event["args"].get("External id"): event["name"] for event in operators}
    for launched, work in _on_gpu(events):
        if start <= launched < end:
            costs[names.get(work["args"].get("External id"), work["name"])].gpu += work["dur"]
    ranked = sorted(costs.items(), key=lambda item: (item[1].gpu, item[1].program), reverse=True)
    return _per_step(dict(ranked), steps)


def as_table(sections: dict[str, Cost], operators: dict[str, Cost]) -> str:
    """The sections that there are, with their share of a step, then the costliest operators; GPU columns if it has one."""
    step = sections["step"]
    present = {name: cost for name, cost in sections.items() if cost.program}
    lines = []
    for title, costs in (("section", present), ("operator", dict(list(operators.items())[:OPERATORS]))):
        lines.append(f"{title:<44}{'ms/step':>10}{'share':>8}" + (f"{'GPU ms':>10}{'share':>8}" if step.gpu else ""))
        for name, cost in costs.items():
            line = f"{name[:43]:<44}{cost.program:>10.2f}{cost.program / step.program:>8.1%}"
            lines.append(line + (f"{cost.gpu:>10.2f}{cost.gpu / step.program:>8.1%}" if step.gpu else ""))
    return "\n".join(lines)


def _named(events: list[dict]) -> list[dict]:
    """Steps and sections, as they began."""
    return sorted((event for event in events if event.get("cat") == "user_annotation"), key=lambda event: event["ts"])


def _window(events: list[dict], steps: int) -> tuple[float, float]:
    """Start and end of the first `steps` steps; what comes before the first section is the run's set-up."""
    named = _named(events)
    marks = [event for event in named if event["name"].startswith(STEP)][:steps]
    first = next((event for event in named if event["name"] in SECTIONS), marks[0])
    return first["ts"], marks[-1]["ts"] + marks[-1]["dur"]


def _on_gpu(events: list[dict]) -> Iterator[tuple[float, dict]]:
    """What a GPU did, each with the time at which the program launched it."""
    launched = {event["args"].get("correlation"): event["ts"] for event in events if event.get("cat") in LAUNCHES}
    for event in events:
        if event.get("cat") in ON_GPU and event["args"].get("correlation") in launched:
            yield launched[event["args"]["correlation"]], event


def _per_step(costs: dict[str, Cost], steps: int) -> dict[str, Cost]:
    """From the trace's microseconds in all steps to milliseconds in one."""
    return {name: Cost(cost.program / 1000 / steps, cost.gpu / 1000 / steps) for name, cost in costs.items()}
