"""What "the same training" means: every bit of what a run leaves behind, but for how fast and how it was computed."""

import pandas as pd
import torch

from lab.runs import Run


def assert_same_run(one: Run, other: Run) -> None:
    """Checkpoints and logs that are equal to the last bit."""
    ours, theirs = (torch.load(run.checkpoint, weights_only=True) for run in (one, other))
    del ours["config"], theirs["config"]  # it has settings that say how the work is done
    assert_equal(ours, theirs, "checkpoint")
    assert steady(one.log()).equals(steady(other.log()))


def assert_equal(ours, theirs, where: str) -> None:
    """Nested dicts and lists of tensors and plain values."""
    assert type(ours) is type(theirs), where
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs), where
        for key, value in theirs.items():
            assert_equal(ours[key], value, f"{where} {key}")
    else:
        assert ours == theirs, where


def steady(log: pd.DataFrame) -> pd.DataFrame:
    """A log without what depends on the machine's speed."""
    return log.drop(columns="images_per_second")
