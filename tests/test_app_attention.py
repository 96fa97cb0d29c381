"""The page on attention: the maps and numbers shown are those of lab.evaluate, and nothing in a run can break it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from app_pages import open_page, pictures, words, write_csv
from make_demo import FINETUNED, make_checkpoint, make_evaluated, make_run

from lab.data import load
from lab.data.crops import read_image, resize, to_tensor
from lab.data.synthetic import SyntheticConfig, load_ground_truth, write
from lab.evaluate.attention import activation_map, enlarge, grad_cam, score_map
from lab.evaluate.parts import part_table
from lab.finetune.mgn import HEADS
from lab.finetune.train import load as load_mgn
from lab.runs import Run

SMALL = SyntheticConfig(
    num_train_ids=2, num_test_ids=3, num_distractors=1, num_junk=1, num_unlabeled=2, people_unlabeled=2
)
SIZE = (128, 32)  # another one than in config.json: it is the evaluation's that counts


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A run of an untrained MGN, evaluated with its own features on a few drawn people."""
    root = tmp_path_factory.mktemp("drawn")
    write(root / "data", SMALL)
    return make_evaluated(root / "run", load("synthetic", root / "data"), *SIZE).folder


@pytest.fixture
def own(runs, drawn) -> Run:
    shutil.copytree(drawn, runs / "own")
    return Run(runs / "own")


def crops_of(result, query: int, rank: int) -> torch.Tensor:
    paths = [result.path[query], result.gallery_path[result.index[query][rank - 1]]]
    return torch.stack([to_tensor(resize(read_image(str(path)), *SIZE)) for path in paths])


def test_parts_are_those_of_the_pair_and_sum_to_the_distance_of_the_rank_list(own):
    result = own.result("synthetic")
    app = open_page("attention", explain="a pair", rank="4")
    features = load_mgn(own.folder).embed(crops_of(result, 0, 4)).numpy()
    expected = part_table(*features, list(HEADS))
    assert expected["adds"].sum() == pytest.approx(float(result.distance[0][3]), abs=1e-4)
    picture = pictures(app)[-1].proto.imgs[0].alt
    for part, adds in zip(expected["part"], expected["adds"], strict=True):
        assert f"{part} {adds:.3f}" in picture
    said = words(app)
    assert f"**{expected['adds'].sum():.3f}**" in said
    assert "has another distance" not in said


def test_choosing_a_pair_asks_why_the_two_match(own):
    app = open_page("attention")
    assert app.selectbox(key="maps").value == "activation"
    app.selectbox(key="explain").set_value("a pair").run()
    assert app.selectbox(key="maps").value == "Grad-CAM of the cosine"
    app.selectbox(key="explain").set_value("the query alone").run()
    assert app.selectbox(key="maps").value == "activation"
    assert not app.exception


def test_scores_are_those_of_grad_cam_on_the_true_person(own):
    result, model = own.result("synthetic"), load_mgn(own.folder)
    table = open_page("attention", explain="a pair", rank="2", maps="Grad-CAM of the cosine").dataframe[0].value
    images = crops_of(result, 0, 2)
    other = model.embed(images).clone().flip(0)
    cams = grad_cam(model, images, lambda images: F.cosine_similarity(model(images), other))
    truth = load_ground_truth(Path(result.path[0]).parent.parent)
    for place, (name, path) in enumerate(
        {"query": result.path[0], "rank 2": result.gallery_path[result.index[0][1]]}.items()
    ):
        mask = truth[Path(path).name][0]
        for branch, cam in cams.items():
            row = table[(table["crop"] == name) & (table["map"] == branch)]
            if not cam[place].any():
                assert not len(row)
                continue
            expected = score_map(enlarge(cam[place], mask.shape), mask)
            for key in expected:
                assert row[key].item() == pytest.approx(100 * expected[key], abs=0.05)
            assert row["chance"].item() == pytest.approx(100 * mask.mean())


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("activation", "all parts"),
        ("Grad-CAM of the class", "branches"),
        ("Grad-CAM of the class", "all parts"),
        ("Grad-CAM of the cosine", "b3 and thirds"),
        ("similarity map", "b2 and halves"),
    ],
)
def test_every_kind_of_map_of_every_part(own, kind, level):
    app = open_page("attention", explain="a pair", maps=kind, map_parts=level)
    assert not app.error
    assert app.selectbox(key="maps").value == kind
    assert app.selectbox(key="map_parts").value == level
    assert len(pictures(app)) == 2
    if "class" in kind:
        assert "TRAINING" in words(app).upper()
        assert "4 classes" in words(app)


def test_a_stripe_is_drawn_in_and_scored_against_its_own_rows(own):
    table = open_page("attention", maps="activation", map_parts="b2 and halves").dataframe[0].value
    whole, upper, lower = table["chance"]
    assert upper != pytest.approx(lower)
    assert min(upper, lower) < whole < max(upper, lower)
    path = own.result("synthetic").path[0]
    mask = load_ground_truth(Path(path).parent.parent)[Path(path).name][0]
    images = to_tensor(resize(read_image(str(path)), *SIZE))[None]
    with torch.no_grad():
        cam = activation_map(load_mgn(own.folder).maps(images)["b2"])[0]
    cam[2:] = 0  # of four rows, the upper half
    assert table["energy"][1] == pytest.approx(100 * score_map(enlarge(cam, mask.shape), mask)["energy"], abs=0.01)


def test_rank_is_chosen_by_number_by_thumbnail_and_by_the_first_right_one(own):
    result = own.result("synthetic")
    query = int(np.argmax(result.first_match))
    first = int(result.first_match[query])
    label = f"{query} · pid {result.pid[query]} · cam {result.camid[query]}"
    app = open_page("attention", explain="a pair", query=label, rank="3")
    assert app.selectbox(key="rank").value == 3
    app.button(key="rank 2").click().run()
    assert app.selectbox(key="rank").value == 2
    assert "rank 2" in words(app)
    if first != 2:
        app.button(key="first right").click().run()
        assert app.selectbox(key="rank").value == first
    assert "the same person" in words(app)


def test_strength_and_maps_come_back_from_the_url(own):
    app = open_page("attention", strength="0.2", maps="Grad-CAM of the class", map_parts="all parts")
    assert app.slider(key="strength").value == 0.2
    assert app.selectbox(key="explain").value == "the query alone"
    assert app.selectbox(key="maps").value == "Grad-CAM of the class"
    other = open_page("attention", maps="similarity map")  # makes no sense for the query alone
    assert other.selectbox(key="maps").value == "activation"


def test_a_distance_that_is_not_the_features_own_is_said(three):
    make_checkpoint(three / "good")
    said = words(open_page("attention", explain="a pair"))  # made-up features rank, an untrained model explains
    assert "has another distance" in said
    assert "have changed since" in said


def test_reranked_distances_are_explained(own):
    file = own.folder / "eval" / "synthetic" / "result.json"
    shutil.copytree(file.parent, own.folder / "eval" / "synthetic-rerank", dirs_exist_ok=True)
    file = own.folder / "eval" / "synthetic-rerank" / "result.json"
    file.write_text(file.read_text().replace('"rerank": null', '"rerank": {"k1": 20}'))
    ranks = file.with_name("ranks.npz")
    with np.load(ranks) as arrays:
        content = dict(arrays)
    np.savez(ranks, **content | {"distance": content["distance"] + 0.1})
    assert "distances are re-ranked" in words(open_page("attention", explain="a pair", rerank="true"))
    assert "another distance" not in words(open_page("attention", explain="a pair"))


def test_real_crops_have_maps_and_no_scores(three):
    make_checkpoint(three / "good")
    app = open_page("attention", explain="a pair")
    assert len(pictures(app)) == 2
    assert not app.dataframe


def test_without_a_model_the_commands_are_said(three):
    said = words(open_page("attention"))
    assert "lab finetune --dataset NAME --root DIR --out RUN" in said


def test_only_runs_with_a_model_are_offered(three, market):
    make_checkpoint(three / "middle")
    make_run(three / "pre", load("market1501", market), 1.0, {"stage": "pretrain", "settings": {}})
    make_checkpoint(three / "pre")
    app = open_page("attention", run=["good", "middle", "pre"])
    assert app.selectbox(key="attention_run").options == ["middle"]


def test_a_run_of_another_data_set(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5, FINETUNED)
    make_checkpoint(three / "other")
    app = open_page("attention", dataset="folder", explain="a pair")
    assert app.selectbox(key="attention_run").value == "other"
    assert len(pictures(app)) == 2


def test_a_result_without_its_gallery_has_no_pair(own):
    for name in ("synthetic", "synthetic-rerank"):
        (own.folder / "eval" / name / "gallery.csv").unlink(missing_ok=True)
    shutil.rmtree(own.folder / "features")
    app = open_page("attention", explain="a pair")
    assert "no pair to explain" in words(app)
    assert len(pictures(app)) == 1


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"no picture"])
def test_a_crop_that_is_no_picture_is_named(own, tmp_path, content):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(content)
    table = own.folder / "eval" / "synthetic" / "queries.csv"
    table.write_text(table.read_text().replace(own.result("synthetic").path[0], str(bad)))
    app = open_page("attention")
    assert any("bad\\.jpg" in error.value for error in app.error)
    assert not pictures(app)


def test_a_checkpoint_of_something_else_is_named(own):
    torch.save({"model": {"weight": torch.zeros(3)}}, own.checkpoint)
    app = open_page("attention")
    assert any("own" in error.value for error in app.error)


def test_html_in_names_is_shown_as_it_is(runs, drawn):
    shutil.copytree(drawn, runs / "<b>$x$ [y](z)")
    app = open_page("attention", explain="a pair")
    assert len(pictures(app)) == 2
    for kind in ("markdown", "caption", "info", "error", "subheader"):
        assert not any("<b>" in element.value for element in app.get(kind))
