"""From tables to estimates, verdicts and a report: a study of three people that can be worked by hand."""

import pandas as pd
import pytest

from lab.errors import InputError
from lab.study.designs import Group
from lab.study.estimates import UNDECIDED
from lab.study.report import study_figure, write_report
from lab.study.results import Results, load
from lab.study.tables import claims_table, dots_table, means_table, published_dots, published_shares

SETTINGS = {
    "dataset": "market1501", "domains": ["in-domain"], "weights": ["mine"], "size": "tiny", "seeds": 2, "pretrain_steps": 9,
    "finetune_epochs": 3, "cost_seconds": {"scratch-ids10-seed0": 30, "pretrain-in-domain-seed0": 90, "other": 600},
    "test": {"queries": 6, "gallery": 20}, "machine": ["a machine"], "commit": ["0123456789"], "torch": ["9.9"],
}  # fmt: skip
# sums of AP of three people with 1, 2 and 3 queries
AP = {
    ("scratch", 0.1, 0): [0.1, 0.4, 0.7], ("scratch", 0.1, 1): [0.2, 0.4, 0.6], ("scratch", 0.1, 2): [1.0, 2.0, 3.0],
    ("mine", 0.1, 0): [0.5, 1.0, 1.5], ("mine", 0.1, 1): [0.4, 1.0, 2.2],
    ("in-domain", 0.1, 0): [0.1, 0.3, 0.5],
    ("scratch", 1.0, 0): [0.6, 1.2, 1.8], ("mine", 1.0, 0): [0.7, 1.4, 2.1],
}  # fmt: skip


@pytest.fixture
def results() -> Results:
    rows, people = [], {"pid": [5, 7, 9], "queries": [1, 2, 3]}
    for (start, share, seed), sums in AP.items():
        for rerank in (False, True):
            cell = f"{start}-{'all' if share == 1 else 'ids10'}-seed{seed}"
            column = cell + "-rerank" * rerank
            people[column] = [value + 0.06 * rerank for value in sums]
            about = {"cell": cell, "start": start, "share": share, "of": "ids", "seed": seed, "rerank": rerank}
            figures = {"mAP": sum(people[column]) / 6, "rank-1": 0.5, "mINP": 0.25, "steps": 12 if share == 1 else 3}
            rows.append(about | figures | {"column": column})
    return Results(pd.DataFrame(rows), pd.DataFrame(people), SETTINGS)


def test_a_groups_mean_goes_over_its_seeds(results):
    found = results.estimate(((1.0, Group("scratch", 0.1)),), 0.95)
    assert found.seeds == 3
    assert found.mean == pytest.approx((1.2 / 6 + 1.2 / 6 + 6 / 6) / 3)


def test_a_contrast_goes_over_the_seeds_that_all_groups_have(results):
    found = results.estimate(((1.0, Group("mine", 0.1)), (-1.0, Group("scratch", 0.1))), 0.95)
    assert found.seeds == 2  # not the third, odd one of scratch
    assert found.mean == pytest.approx(((3.0 - 1.2) / 6 + (3.6 - 1.2) / 6) / 2)
    assert results.estimate(((1.0, Group("mine", 0.1)), (-1.0, Group("nobody", 0.1))), 0.95) is None


def test_all_labels_are_the_same_group_for_identities_and_images(results):
    of_images = results.estimate(((1.0, Group("scratch", 1.0, "images")),), 0.95)
    assert of_images.mean == pytest.approx(3.6 / 6)


def test_re_ranked_cells_are_a_group_of_their_own(results):
    found = results.estimate(((1.0, Group("mine", 0.1, rerank=True)), (-1.0, Group("mine", 0.1))), 0.95)
    assert found.mean == pytest.approx(3 * 0.06 / 6)
    assert found.sd_seeds == pytest.approx(0)


def test_claims_without_cells_are_left_out_and_the_others_hold_together(results):
    study = results.studies["small-scale"]
    judged = results.judge(study)
    assert {one.claim.key for one in judged} == {  # in-domain has no cell with all labels
        "in-domain-helps-at-ids10", "mine-helps-at-ids10", "mine-gain-shrinks-ids",
    }  # fmt: skip
    assert {round(one.level, 6) for one in judged} == {1 - 0.05 / 4}
    assert results.judge(results.studies["augmentation"]) == []
    table = claims_table(judged).set_index("claim")
    row = table.loc["Starting from mine beats random weights at 10 % of the identities"]
    assert row["effect"] == pytest.approx(100 * (1.8 + 2.4) / 12)
    assert row["published"] == pytest.approx(11.5)
    shrinks = table.loc[
        "What mine gains over random weights is there at 10 % of the identities, and more than with all"
    ]
    assert (shrinks["verdict"], shrinks["note"]) == (UNDECIDED, "")  # one seed with all labels
    one_seed = table.loc["Starting from in-domain beats random weights at 10 % of the identities"]
    assert (one_seed["verdict"], one_seed["seeds needed"]) == (UNDECIDED, "two or more")


def test_the_table_of_means_is_in_the_studys_order_and_in_per_cent(results):
    table = means_table(results, results.studies["small-scale"])
    shown = list(zip(table["start"], table["labels"], strict=True))
    assert shown == [
        ("scratch", "10 % of people"), ("in-domain", "10 % of people"), ("mine", "10 % of people"),
        ("scratch", "all"), ("mine", "all"),
    ]  # fmt: skip
    assert table["mAP"].iloc[2] == pytest.approx(100 * 3.3 / 6)
    assert table["seeds"].tolist() == [3, 1, 2, 1, 1]


def test_a_study_costs_its_cells_and_their_pre_trainings(results):
    assert results.cost(results.studies["temperature"]) == pytest.approx(90 / 60)
    assert results.cost(results.studies["small-scale"]) == pytest.approx(120 / 60)
    assert results.cost() == pytest.approx(720 / 60)
    assert results.done(results.studies["small-scale"]) == 7  # a third seed is no cell of this study


def test_the_published_rows_are_those_of_the_papers_tables(results):
    table = published_shares(results.studies["small-scale"]).set_index(["start", "share"])["mAP"]
    assert (table["LUP unsup.", 0.1], table["ImageNet sup.", 0.3], table["LUP unsup.", 1.0]) == (64.6, 75.2, 91.0)
    few = published_shares(results.studies["few-shot"]).set_index(["start", "share"])["mAP"]
    assert (few["LUP unsup.", 0.1], few["ImageNet sup.", 1.0]) == (26.4, 87.5)
    dots = published_dots(results.studies["augmentation"])
    assert dots["in-domain"] == pytest.approx(1.3)  # LUPerson's list is the ordinary in-domain pre-training
    assert dots["in-domain-moco+erase"] == pytest.approx(0.8)
    assert published_dots(results.studies["temperature"]) == {}


def test_dots_are_differences_to_the_first_start(results):
    table = dots_table(results, results.studies["pretraining-effort"])
    assert table["start"].tolist() == ["scratch", "in-domain"]
    assert table["difference"].tolist() == pytest.approx([0.0, 100 * (0.9 - 1.2) / 6])


def test_a_report_names_its_figures_and_where_it_comes_from(results, tmp_path):
    lines = write_report(results, tmp_path)
    assert any(line.startswith("small-scale: Starting from mine beats random weights") for line in lines)
    report = (tmp_path / "report.md").read_text()
    for words in ("a machine", "0123456789", "6 queries of 3 people", "7 of 24 cells"):
        assert words in report, words
    settings = "--size tiny --seeds 2 --pretrain-steps 9 --finetune-epochs 3 --weights mine"
    assert f"`lab study all --out OUT --dataset market1501 --root DIR {settings}`" in report
    for figure in ("small-scale.svg", "small-scale-claims.svg"):
        assert f"({figure})" in report
        assert (tmp_path / figure).read_text().startswith("<?xml")
    again = load(tmp_path)
    pd.testing.assert_frame_equal(again.cells, results.cells, rtol=1e-5)
    assert again.settings == results.settings


def test_a_study_without_enough_for_a_figure_has_none(results):
    assert study_figure(results, results.studies["temperature"]) is None
    assert study_figure(results, results.studies["rerank"]) is None
    assert study_figure(results, results.studies["small-scale"]) is not None


@pytest.mark.parametrize("name", ["cells.csv", "study.json"])
def test_broken_tables_are_named(results, tmp_path, name):
    results.save(tmp_path)
    (tmp_path / name).write_text("{" if name.endswith("json") else "")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)
