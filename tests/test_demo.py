"""The demo's own logic; the demo itself is run by CI (`make demo APP=0`)."""

import json

import pandas as pd
import pytest

from lab import demo


def row(run, rerank, value):
    metrics = dict.fromkeys(["mAP", "rank-1", "rank-5", "rank-10", "mINP"], value)
    return {"run": run, "initialisation": "", "identities": 0.1, "rerank": rerank, **metrics}


def test_the_table_has_plain_and_re_ranked_values_side_by_side_in_percent():
    table = pd.DataFrame([row("b", False, 0.25), row("b", True, 0.5), row("a", False, 0.125), row("a", True, 1.0)])
    lines = demo.render_table(table).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["b", "a"]  # in the order of the story
    assert lines[1].split()[1:] == ["25.0", "25.0", "25.0", "50.0", "50.0", "50.0"]
    assert "mAP re-ranked" in lines[0]


@pytest.mark.parametrize(
    ("moco_step", "mgn_step", "pretraining", "finetuning"),
    [
        (1.0, 1.0, 5, {"10": 2, "100": 6}),  # 90 s are 90 steps of 18 in an epoch; 45 s are 45 of 8
        (0.001, 0.001, 20, {"10": 40, "100": 40}),  # a fast machine does not train for ever
        (100.0, 100.0, 2, {"10": 2, "100": 2}),  # and a slow one does not train for nothing
    ],
)
def test_the_plan_follows_from_the_measured_speed_and_is_kept(
    monkeypatch, tmp_path, moco_step, mgn_step, pretraining, finetuning
):
    monkeypatch.setattr(demo, "time_pretraining", lambda config: moco_step)
    monkeypatch.setattr(demo, "time_finetuning", lambda config: mgn_step)
    monkeypatch.setattr(demo, "list_images", lambda folder: [""] * 2400)
    plan = demo.make_plan(tmp_path)
    assert (plan.pretrain_epochs, plan.finetune_epochs) == (pretraining, finetuning)
    monkeypatch.setattr(demo, "time_finetuning", lambda config: 7.0)
    assert demo.make_plan(tmp_path) == plan
    assert json.loads((tmp_path / "plan.json").read_text())["pretrain_epochs"] == pretraining


def test_the_speed_of_one_step_can_be_measured():
    assert 0 < demo.time_finetuning(demo.finetune_config(1.0, 1, 0)) < 60
