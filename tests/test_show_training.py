"""Curves of one and of several trainings, and the changes that fine-tuning makes to crops."""

import math

import numpy as np
import pandas as pd
import pytest
from make_demo import finetune_log, pretrain_log

from lab.finetune.augment import Augmentation
from lab.show.curves import epochs, loss_curves, with_chance
from lab.show.views import training_sheet

CROP = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)


def test_accuracy_has_its_chance_line():
    lines = {line.name: line for line in loss_curves(pretrain_log(queue_size=1023)).data}
    assert lines["chance"].y == pytest.approx(np.full(41, 100 / 1024))


def test_the_queue_of_the_settings_gives_what_a_log_lacks():
    log = pretrain_log().drop(columns="chance_loss")
    found = with_chance(log, 99)
    assert found["chance_loss"].tolist() == pytest.approx([math.log(100)] * len(log))
    assert found["chance_accuracy"].tolist() == pytest.approx([0.01] * len(log))
    assert list(with_chance(log).columns) == list(log.columns)
    assert with_chance(pretrain_log(queue_size=9), 99)["chance_accuracy"].iloc[0] == pytest.approx(0.1)


def test_epochs_are_steps_over_the_least_length_that_fits():
    log = pd.DataFrame({"step": [0, 5, 18, 20, 36, 54], "epoch": [0, 1, 1, 2, 2, 3]})
    assert epochs(log).tolist() == pytest.approx([0, 5 / 18, 1, 20 / 18, 2, 3])
    stopped = pd.DataFrame({"step": [10, 20, 30], "epoch": [1, 2, 2]})  # between 15 and 20 steps: 15 is the least
    assert epochs(stopped).tolist() == pytest.approx([10 / 15, 20 / 15, 2])
    assert epochs(log.drop(columns="epoch")).isna().all()
    assert epochs(log.head(1)).isna().all()


def test_one_training_over_its_epochs():
    log = pretrain_log()
    line = next(line for line in loss_curves(log, over="epoch").data if line.name == "loss")
    assert list(line.x) == pytest.approx(epochs(log).tolist())
    assert {axis.title.text for axis in loss_curves(log, over="epoch").select_xaxes()} == {"epoch"}


def test_several_trainings_have_a_line_each_and_one_legend():
    logs = {"<a>": pretrain_log(queue_size=99), "b": pretrain_log(queue_size=99), "c": finetune_log()}
    figure = loss_curves(logs, "three")
    assert [line.name for line in figure.data if line.showlegend] == ["&lt;a&gt;", "guessing", "b", "c"]
    losses = [line for line in figure.data if line.yaxis == "y" and line.name != "guessing"]
    assert [line.y[-1] for line in losses] == pytest.approx([log["loss"].iloc[-1] for log in logs.values()])
    assert len({line.line.color for line in losses}) == 3
    levels = [line.y[0] for line in figure.data if line.name == "guessing"]
    assert levels == pytest.approx([math.log(100), 1.0]), "two runs with the same queue share their chance lines"


def test_two_queues_have_two_chance_lines():
    figure = loss_curves({"a": pretrain_log(queue_size=99), "b": pretrain_log(queue_size=9)})
    assert [line.y[0] for line in figure.data if line.name == "guessing" and line.yaxis == "y"] == pytest.approx(
        [math.log(100), math.log(10)]
    )


def test_fine_tuning_s_changes_follow_from_the_seed():
    augmentation = Augmentation(padding=4)
    shown = training_sheet([CROP, CROP[:, ::-1]], augmentation, (64, 32), 3, seed=4).axes[0].images
    assert len(shown) == 2 * (1 + 3)
    assert np.array_equal(shown[0].get_array(), CROP)
    expected = augmentation(CROP[:, ::-1], np.random.default_rng((4, 1, 2)))
    assert np.array_equal(shown[7].get_array(), expected)
    calm = Augmentation(flip=0, padding=0, erase=0)
    assert np.array_equal(training_sheet([CROP], calm, (64, 32), 1).axes[0].images[1].get_array(), CROP)
