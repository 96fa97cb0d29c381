"""The grids of the studies and their claims, against the paper's tables."""

from dataclasses import replace

import pytest

from lab.pretrain.augment import COLUMNS as RECIPES
from lab.study.designs import COLUMNS, Cell, Start, make_studies
from lab.study.results import published_effect
from lab.study.work import share_out

FILES = [Start("shipped", weights="shipped")]
DOMAINS = ["in-domain", "other-domain", "cut-outs"]
STUDIES = make_studies(4, FILES, DOMAINS)


def count(cells, **wanted) -> int:
    return sum(all(getattr(cell, name) == value for name, value in wanted.items()) for cell in cells)


def test_small_scale_has_each_start_at_each_share_and_more_seeds_where_claims_are():
    cells = STUDIES["small-scale"].cells
    assert {cell.start.name for cell in cells} == {"scratch", "in-domain", "other-domain", "shipped"}
    for share, seeds in ((0.1, 4), (0.3, 2), (0.5, 2), (1.0, 4)):
        assert count(cells, share=share) == 4 * seeds
    assert {cell.of for cell in cells} == {"ids"}


def test_all_labels_are_the_same_cell_for_identities_and_for_images():
    small, few = STUDIES["small-scale"].cells, STUDIES["few-shot"].cells
    assert {cell for cell in few if cell.share == 1} <= set(small)
    assert {cell.of for cell in few if cell.share < 1} == {"images"}


def test_studies_share_the_pre_training_that_they_have_in_common():
    base = {cell for cell in STUDIES["small-scale"].cells if cell.start.name == "in-domain" and cell.share == 0.1}
    for name in ("augmentation", "temperature", "pretraining-data", "pretraining-effort"):
        assert base & set(STUDIES[name].cells), name


def test_no_two_cells_share_a_name_and_names_are_file_names():
    cells = {cell for study in STUDIES.values() for cell in study.cells}
    assert len({cell.name for cell in cells}) == len(cells)
    pretrainings = {cell.pretraining: (cell.start, cell.seed) for cell in cells if cell.pretraining}
    assert len(set(pretrainings.values())) == len(pretrainings)
    for name in {cell.name for cell in cells} | set(pretrainings):
        assert not set(name) & set('/\\:*?"<>| '), name


@pytest.mark.parametrize("name", STUDIES)
def test_every_group_of_a_claim_has_two_cells_or_more(name):
    study = STUDIES[name]
    for claim in study.claims:
        assert sum(weight for weight, _ in claim.contrast) == 0
        for group in claim.groups:
            of = "ids" if group.share == 1 else group.of
            cells = [
                cell for cell in study.cells if (cell.start.name, cell.share, cell.of) == (group.start, group.share, of)
            ]
            assert len({cell.seed for cell in cells}) >= 2, claim.sentence


@pytest.mark.parametrize(
    ("study", "key", "points"),
    [
        ("small-scale", "in-domain-helps-at-ids10", 64.6 - 53.1),
        ("small-scale", "shipped-gain-shrinks-ids", (64.6 - 53.1) - (91.0 - 87.5)),
        ("few-shot", "in-domain-helps-at-images10", 26.4 - 21.1),
        ("few-shot", "in-domain-gain-shrinks-images", (26.4 - 21.1) - (91.0 - 87.5)),
        ("augmentation", "moco+erase-over-moco", 74.2 - 73.4),
        ("augmentation", "luperson-erase-over-moco", 74.0 - 73.4),
        ("augmentation", "luperson-over-moco", 74.7 - 73.4),
        ("augmentation", "moco-over-moco-grayscale", 73.4 - 73.2),
        ("augmentation", "moco-over-moco-blur", 73.4 - 73.3),
        ("rerank", "rerank-shipped-100", 96.16 - 91.12),
    ],
)
def test_the_published_effect_is_that_of_the_papers_tables(study, key, points):
    claim = next(claim for claim in STUDIES[study].claims if claim.key == key)
    assert published_effect(claim) == pytest.approx(points)


def test_what_was_not_published_has_no_published_effect():
    assert [published_effect(claim) for claim in STUDIES["temperature"].claims] == [None, None]


def test_the_columns_are_those_of_the_recipes():
    assert list(COLUMNS) == list(RECIPES)


def test_without_other_crops_there_is_no_start_from_them():
    names = {cell.start.name for study in make_studies(2, [], ["in-domain"]).values() for cell in study.cells}
    assert "other-domain" not in names
    assert "in-other-places" not in names
    assert "in-domain" in names


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_shards_share_all_cells_and_no_pre_training(parts):
    cells = list(dict.fromkeys(cell for study in STUDIES.values() for cell in study.cells))
    shards = [share_out(cells, part, parts) for part in range(parts)]
    assert sorted(cell.name for shard in shards for cell in shard) == sorted(cell.name for cell in cells)
    made = [{cell.pretraining for cell in shard if cell.pretraining} for shard in shards]
    assert sum(map(len, made)) == len(set.union(*made))
    assert max(map(len, shards)) < 2 * len(cells) / parts


def test_a_cell_says_what_it_is():
    cell = Cell(Start("shipped", weights="x"), 0.1, "images", 3)
    assert cell.name == "shipped-images10-seed3"
    assert cell.pretraining is None
    assert replace(cell, share=1.0, of="ids").name == "shipped-all-seed3"
    assert Cell(Start("in-domain", "in-domain"), 0.3, "ids", 0).pretraining == "pretrain-in-domain-seed0"
