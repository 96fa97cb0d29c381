"""What a run says about itself, and how long it took, worked by hand."""

import numpy as np
import pandas as pd
import pytest
from make_demo import finetune_log

from lab.runs import Run
from lab.show.run_facts import batch_size, facts_table, labels_used, run_facts, spoken_time, training_seconds

SETTINGS = {"depth": 18, "height": 64, "width": 32, "ids_per_batch": 8, "images_per_id": 4, "epochs": 2, "lr": 0.0007}
CONFIG = {
    "stage": "finetune",
    "settings": SETTINGS | {"fraction": 0.1},
    "seed": 3,
    "init": {"weights": "shipped", "sha256": "0"},
    "data": {"dataset": "synthetic", "images": 1442},
    "versions": {"python": "3.11", "torch": "2.14"},
    "commit": "5a7257030e5c64ccca71bad56bbb22b183ed7497",
    "started": "2026-11-26T09:28:54+00:00",
}


def test_seconds_are_steps_times_batch_over_speed():
    log = pd.DataFrame({"step": [0, 10, 30], "images_per_second": [np.nan, 32.0, 64.0]})
    assert training_seconds(log, 32) == pytest.approx(10 * 32 / 32 + 20 * 32 / 64)


def test_a_row_without_a_speed_gets_the_median():
    log = pd.DataFrame({"step": [10, 20, 30], "images_per_second": [50.0, 0.0, 50.0]})
    assert training_seconds(log, 10) == pytest.approx(6)


def test_no_time_where_something_is_not_known():
    assert training_seconds(pd.DataFrame(), 32) is None
    assert training_seconds(finetune_log(), None) is None
    assert training_seconds(pd.DataFrame({"step": [1], "images_per_second": [np.nan]}), 32) is None


def test_facts_of_a_fine_tuning():
    facts = run_facts(CONFIG, finetune_log())
    assert facts["network"] == "ResNet-18"
    assert facts["image size (height × width)"] == "64 × 32 pixels"
    assert facts["labels used"] == "10 % of people"
    assert facts["initialised from"] == "shipped"
    assert facts["images per step"] == "32"
    assert facts["steps done"] == "120"
    assert facts["time in training"] == "43 s"  # 120 steps x 32 images / 90 per second
    assert facts["images per second (median)"] == "90"
    assert (facts["images in the training set"], facts["commit"], facts["started"]) == (
        "1,442",
        "5a725703",
        "2026-11-26 09:28",
    )
    assert facts["versions"] == "torch 2.14"


@pytest.mark.parametrize("config", [{}, {"settings": "none", "data": 3, "versions": [1], "init": 5, "seed": "x"}])
def test_a_run_that_says_little_or_nonsense_has_empty_facts(config):
    assert run_facts(config, pd.DataFrame())["network"] == ""


def test_nothing_that_nobody_says_is_in_the_table(tmp_path):
    assert not len(facts_table({"a": (Run(tmp_path), pd.DataFrame())}))
    table = facts_table({"a": (Run(tmp_path), pd.DataFrame()), "b": (Run(tmp_path), finetune_log())})
    assert table.loc["steps done"].tolist() == ["", "120"]
    assert "seed" not in table.index


def test_labels_used():
    assert labels_used({"settings": {"fraction": 1.0}}) == "all"
    assert labels_used({"settings": {"fraction": 0.3, "fraction_of": "images"}}) == "30 % of images"
    assert labels_used({"settings": {"fraction": 1.0, "subset": "/x/used_ids_0.10.txt"}}) == "used_ids_0.10.txt"
    assert labels_used({"settings": {"fraction": True}}) == labels_used({}) == ""


def test_batch_size_of_both_stages():
    assert batch_size({"batch_size": 128}) == 128
    assert batch_size(SETTINGS) == 32
    assert batch_size({"batch_size": "many"}) is batch_size({}) is None


def test_times_in_words():
    said = [spoken_time(seconds) for seconds in (48, 192, 18_360, 1_062_720)]
    assert said == ["48 s", "3.2 min", "5.1 h", "12.3 days"]
