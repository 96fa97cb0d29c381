"""What surrounds the loop of a training, the same for every stage: going on, the log, checkpoints, and being stopped.

    with Session(run, config, device, meter, health, advice) as session:
        first = session.restore(model, optimizer, precision)
        for step, batch in enumerate(session.each(batches), first):
            ...
            meter.add(...)
            session.write(row | meter.read(step + 1))      # when a row is due
            session.end_step(step + 1, state, last)

A step is the unit of everything: a run can stop and go on after any of them.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Protocol

import torch
from torch import nn
from tqdm import tqdm

from lab.distributed import any_of, first_process_first, is_first
from lab.errors import InputError
from lab.runs import Run
from lab.training.checkpoints import Checkpoints, random_states, set_random_states
from lab.training.health import Health, Meter, explained, not_finite
from lab.training.interrupts import Interrupts
from lab.training.log import TrainingLog
from lab.training.precision import Precision, settled
from lab.training.profile import Profiler, data_section

# Settings that say how the work is done and not what comes out: a run may go on with others.
HOW = frozenset(
    "num_workers device accumulate compile deterministic keep checkpoint_minutes tensorboard profile".split()
)


class Settings(Protocol):
    """What every stage's settings have."""

    amp: str
    deterministic: bool
    seed: int
    epochs: int
    accumulate: int
    num_workers: int
    log_every: int
    keep: int
    checkpoint_minutes: float
    tensorboard: bool
    profile: bool


def check_settings(config: Settings, *at_least_one: str) -> None:
    """Raise InputError for numbers that no training can be done with: those named, and what every stage has."""
    least = dict.fromkeys(("epochs", "log_every", "accumulate", *at_least_one), 1) | {"seed": 0, "num_workers": 0}
    for name, lowest in least.items():
        if getattr(config, name) < lowest:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is {getattr(config, name)}; expected {lowest} or more")


class Session:
    """One training while it runs. `advice` says which setting to lower when memory runs out.

    `found` is the last good checkpoint that it goes on from, or None. Raises InputError when another process trains
    the run, and when its checkpoints are all damaged.
    """

    def __init__(self, run: Run, config: Settings, device: torch.device, meter: Meter, health: Health, advice: str):
        self.run, self.config, self.device, self.advice = run, config, device, advice
        self.meter, self.health = meter, health

    def __enter__(self) -> "Session":
        with ExitStack() as stack:
            stack.enter_context(self.run.locked())
            stack.enter_context(settled(self.device, self.config.deterministic))
            stack.enter_context(explained(self.advice))
            self.interrupts = stack.enter_context(Interrupts())
            self.profiler = stack.enter_context(Profiler(self.run, self.config.profile, self.device))
            self.checkpoints = Checkpoints(self.run, self.config.keep, self.config.checkpoint_minutes)
            self.found = self.checkpoints.load()
            first = self.found["step"] if self.found else 0
            self.log = stack.enter_context(TrainingLog(self.run, self.config.tensorboard, first))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> bool | None:
        return self.stack.__exit__(*error)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision, steps: int) -> int:
        """Everything as the last good checkpoint says, if there is one; returns how many of `steps` are done.

        Raises InputError for an unfinished run of an earlier lab, which cannot be gone on from exactly.
        """
        if self.found is None:
            self._trim_log(-1)
            return 0
        model.load_state_dict(self.found["model"])
        if self.found["step"] == steps:
            return steps
        if "meter" not in self.found:
            raise InputError(
                f"{self.run.checkpoint} was written by an earlier lab, whose random numbers were others, and cannot be gone "
                "on from exactly; give --out a new folder (and --init this one to start from its weights)"
            )
        optimizer.load_state_dict(self.found["optimizer"])
        precision.load_state_dict(self.found["scaler"])
        self.meter.load_state_dict(self.found["meter"])
        set_random_states(self.found["rng"])
        step, self.found = self.found["step"], None  # what is not in use now has been copied
        self._trim_log(step)
        return step

    def _trim_log(self, step: int) -> None:
        with first_process_first():
            if is_first():
                self.run.trim_log(step)

    def state(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        precision: Precision,
        step: int,
        epoch: int,
        more: dict,
    ) -> dict:
        """What a checkpoint holds after `step` steps and `epoch` whole epochs: all that is needed to go on exactly.

        All processes call it. Raises InputError for weights that are not finite.
        """
        numbers = [value for value in model.state_dict().values() if value.is_floating_point()]
        if not all(torch.isfinite(value).all() for value in numbers):
            raise not_finite(self.run, "a weight or a running mean is no longer finite", step)
        return {
            "model": model.state_dict(),
            "optimizer": optimizer and optimizer.state_dict(),
            "scaler": precision.state_dict(),
            "step": step,
            "epoch": epoch,
            "meter": self.meter.state_dict(),
            # training itself draws by seed and step; a measurement between two steps may use these
            "rng": random_states(),
            **more,
        }

    def each(self, batches: Iterable) -> Iterator:
        """The batches; waiting for one is what a profile calls data, and what came before was no training."""
        self.meter.start()
        return data_section(batches)

    def write(self, row: dict, bar: tqdm | None = None) -> None:
        """Put a row into the log, and say above `bar` what is wrong. Raises InputError for a loss that explodes."""
        self.health.check(row)
        self.log.write(row)
        for warning in self.health.report(row):
            if is_first() and bar is not None:
                bar.write(warning)

    def end_step(self, step: int, state: Callable[[], dict], last: bool) -> None:
        """Save after so many steps if it is time, and stop if that was asked for; `state` makes what is saved."""
        stop = self.interrupts.asked()
        if last or stop or any_of(is_first() and self.checkpoints.due()):
            with self.meter.pause():
                self.checkpoints.save(state())
        self.profiler.step()
        if stop:  # after the last step too: another training may be next
            raise self.interrupts.stopped(step)
