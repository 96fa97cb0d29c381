"""The rows of a training in log.csv and in TensorBoard, which TensorBoard itself reads back."""

import math
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lab.errors import InputError
from lab.runs import Run
from lab.training.log import TrainingLog


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


def row(step: int, loss: float = 0.5, **more) -> dict:
    return {"step": step, "epoch": 1, "loss": loss} | more


def shown(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: (step, value) by curve."""
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    return {name: [(point.step, point.value) for point in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_log_and_tensorboard_have_the_same_numbers(run):
    with TrainingLog(run, tensorboard=True) as log:
        log.write(row(0, math.nan, speed=math.inf, kind="probe"))
        log.write(row(20, 0.25, speed=3, kind="training"))
        assert shown(run)["loss"] == [(20, 0.25)]  # at once: the process may be killed
    assert run.log()["loss"].tolist()[1:] == [0.25]
    assert shown(run) == {"epoch": [(0, 1), (20, 1)], "loss": [(20, 0.25)], "speed": [(20, 3)]}


def test_a_run_that_goes_on_takes_back_what_came_after_its_checkpoint(run):
    with TrainingLog(run, tensorboard=True) as log:
        for step in (0, 10, 20, 30):
            log.write(row(step, step / 4))
    run.trim_log(20)
    with TrainingLog(run, tensorboard=True, first_step=20) as log:
        assert shown(run)["loss"] == [(0, 0), (10, 2.5), (20, 5)]
        log.write(row(30, 100.0))
    assert shown(run)["loss"] == [(0, 0), (10, 2.5), (20, 5), (30, 100)]
    assert run.log()["loss"].tolist() == [0, 2.5, 5, 100]


def test_a_run_that_begins_again_takes_everything_back(run):
    for loss in (1.0, 2.0):
        run.trim_log(-1)
        with TrainingLog(run, tensorboard=True, first_step=0) as log:
            log.write(row(0, loss))
    assert shown(run)["loss"] == [(0, 2)]


def test_only_the_first_process_writes(run, monkeypatch):
    monkeypatch.setattr("lab.training.log.is_first", lambda: False)
    with TrainingLog(run, tensorboard=True) as log:
        log.write(row(1))
    assert list(run.folder.iterdir()) == []


def test_without_the_option_tensorboard_is_not_even_imported(tmp_path):
    code = f"""
import sys
from lab.runs import Run
from lab.training.log import TrainingLog
with TrainingLog(Run({str(tmp_path)!r})) as log:
    log.write({{"step": 1, "loss": 0.5}})
sys.exit("tensorboard" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]


def test_a_missing_package_is_named_with_the_way_to_get_it(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not there
    with pytest.raises(InputError, match=r"pip install 'luperson-lab\[tensorboard\]'"):
        TrainingLog(run, tensorboard=True)
    with TrainingLog(run) as log:
        log.write(row(1))
    assert len(run.log()) == 1
