"""Published figures, one row per model."""

import numpy as np
import pytest

from lab.published import PUBLISHED, published_beside, published_datasets, published_results


def test_both_rankings_of_a_released_model_share_a_row():
    table = published_beside("market1501")
    row = table[(table["published by"] == "LUPerson (CVPR 2021), released model") & (table["network"] == "resnet50")]
    assert len(row) == 1
    assert row.iloc[0][["mAP", "rank-1", "mAP re-ranked", "rank-1 re-ranked"]].tolist() == [91.12, 96.26, 96.16, 97.12]
    assert row.iloc[0]["read in"] == "a released repository"
    assert row.iloc[0]["labels used"] == "all"


def test_shares_of_people_and_of_images_are_told_apart():
    table = published_beside("market1501").set_index(["labels used", "pre-training"])
    assert table.loc[("10 % of people", "LUP unsup."), "mAP"].item() == 64.6
    assert table.loc[("10 % of images", "LUP unsup."), "mAP"].item() == 26.4
    assert np.isnan(table.loc[("30 % of images", "LUP unsup."), "rank-1"].item())


def test_all_labels_come_first_and_no_figure_is_lost():
    for name in published_datasets():
        table = published_beside(name)
        assert list(table.columns) == PUBLISHED
        full = (table["labels used"] == "all").tolist()
        assert full == sorted(full, reverse=True)
    everywhere = sum(
        published_beside(name)[["mAP", "mAP re-ranked"]].notna().sum().sum() for name in published_datasets()
    )
    known = published_results()
    assert everywhere == (~known["setting"].str.startswith("augmentation")).sum()


def test_the_labs_names_of_data_sets():
    assert published_datasets() == ["cuhk03", "dukemtmc", "market1501", "msmt17"]
    assert published_beside("cuhk03")["mAP"].max() == pytest.approx(80.4)
    assert not len(published_beside("synthetic"))
