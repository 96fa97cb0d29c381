"""The page that searches a picture of one's own: it finds what an evaluation finds, refuses bad files, and keeps nothing."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from app_pages import open_page, pictures, words, write_csv
from make_demo import FINETUNED, make_checkpoint, make_evaluated, make_run
from PIL import Image
from test_show_uploads import BAD

from lab.data import load
from lab.data.crops import resize, to_tensor
from lab.evaluate.search import search
from lab.finetune.train import load as load_mgn
from lab.runs import Run
from lab.show.uploads import cut_box

SIZE = (128, 32)


@pytest.fixture(scope="session")
def embedded(market, tmp_path_factory) -> Path:
    """A run of an untrained MGN that was evaluated, so that it holds its own gallery features."""
    return make_evaluated(tmp_path_factory.mktemp("embedded") / "run", load("market1501", market), *SIZE).folder


@pytest.fixture
def own(runs, embedded) -> Run:
    shutil.copytree(embedded, runs / "own")
    return Run(runs / "own")


def upload(app, record: bytes, name: str = "me.png"):
    app.file_uploader(key="upload").upload(name, record, "image/png").run()
    assert not app.exception
    return app


def png(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def found_of(app) -> str:
    """What the page says of its result, for those who cannot see it."""
    return next(image.proto.imgs[0].alt for image in pictures(app) if "First distances" in image.proto.imgs[0].alt)


def expected(run: Run, picture: np.ndarray):
    feature = load_mgn(run.folder).embed(to_tensor(resize(Image.fromarray(picture), *SIZE))[None])[0].numpy()
    return search(feature, run.features("market1501", "gallery"), top_k=10)


def spoken(found) -> str:
    return "First distances: " + ", ".join(f"{distance:.3f}" for distance in found.distance[:5])


def test_an_uploaded_query_finds_what_the_evaluation_found(own):
    result = own.result("market1501")
    app = open_page("search")
    assert not pictures(app)
    upload(app, Path(result.path[4]).read_bytes(), "query.jpg")
    gallery = own.features("market1501", "gallery")
    found = expected(own, np.array(Image.open(result.path[4])))
    assert spoken(found) in found_of(app)
    same = (gallery.pid[found.index] == result.pid[4]) & (gallery.camid[found.index] == result.camid[4])
    kept = found.index[~same]
    assert kept.tolist() == result.index[4][: len(kept)].tolist()
    assert f"{len(gallery.pid)} gallery crops" in found_of(app)
    assert "no right or wrong" in words(app)
    assert not app.error


def test_the_box_is_what_is_searched(own):
    picture = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    app = upload(open_page("search"), png(picture))
    assert "upright people" in words(app)  # the whole picture is wide
    across, down = (app.slider[place] for place in (0, 1))
    across.set_value((40, 100))
    down.set_value((20, 170)).run()
    assert spoken(expected(own, cut_box(picture, (40, 20, 60, 150)))) in found_of(app)
    assert "upright people" not in words(app)
    app.slider[0].set_value((40, 42)).run()
    assert "at least 8" in words(app)
    assert not app.exception


def test_another_picture_starts_with_its_own_box(own):
    app = upload(open_page("search"), png(np.zeros((90, 40, 3), np.uint8)))
    app.slider[0].set_value((10, 30)).run()
    upload(app, png(np.zeros((60, 30, 3), np.uint8)), "second.png")
    assert app.slider[0].value == (0, 30)
    assert app.slider[1].value == (0, 60)


def test_the_example_street_works_without_a_file(own):
    app = open_page("search", source="an example street", person="2")
    assert "in no data set" in words(app)
    first = found_of(app)
    assert len(pictures(app)) == 3  # the street, the crop and the result
    app.button_group(key="person").set_value("4").run()
    assert found_of(app) != first
    assert not app.exception


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("what", ["text", "nothing", "cut JPEG", "animated PNG", "large", "bomb", "tiny"])
def test_a_file_that_is_no_good_gives_a_sentence(own, what):
    record, _ = BAD[what]
    app = upload(open_page("search"), record)
    assert len(app.error) == 1
    assert not pictures(app)


def test_nothing_is_written_or_cached(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    app = upload(open_page("search"), png(np.full((60, 30, 3), 77, np.uint8)))
    assert sorted(tmp_path.rglob("*")) == before
    assert app.session_state["brought"].picture.shape == (60, 30, 3)
    app.file_uploader(key="upload").clear().run()
    assert "brought" not in app.session_state
    assert not pictures(app)


def test_features_of_another_checkpoint_are_refused(own):
    note = own.folder / "features" / "market1501-gallery.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"checkpoint": "0" * 64}))
    app = open_page("search")
    assert "another checkpoint" in words(app)
    assert f"lab evaluate --run {own.folder} --dataset market1501 --root DIR" in words(app)
    assert not app.get("file_uploader")


def test_features_without_a_note_are_searched_and_said_to_be_unproven(own):
    (own.folder / "features" / "market1501-gallery.json").unlink()
    app = upload(open_page("search"), png(np.zeros((60, 30, 3), np.uint8)))
    assert "No note says" in words(app)
    assert found_of(app)


def test_features_of_another_size_are_refused(own):
    (own.folder / "features" / "market1501-gallery.json").unlink()
    file = own.folder / "features" / "market1501-gallery.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | {"values": content["values"][:, :100]})
    app = upload(open_page("search"), png(np.zeros((60, 30, 3), np.uint8)))
    assert any("100 numbers" in error.value for error in app.error)


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_features_that_are_missing_or_broken_name_the_command(own, content):
    file = own.folder / "features" / "market1501-gallery.npz"
    file.unlink() if content is None else file.write_bytes(content)
    app = open_page("search")
    assert "lab evaluate --run" in words(app)
    assert not app.get("file_uploader")


def test_images_that_are_gone_leave_grey_tiles(own, market):
    file = own.folder / "features" / "market1501-gallery.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | {"path": np.char.replace(content["path"], str(market), "/gone")})
    app = upload(open_page("search"), png(np.zeros((60, 30, 3), np.uint8)))
    assert found_of(app)
    assert not app.error


def test_a_broken_checkpoint_is_named(own):
    (own.folder / "features" / "market1501-gallery.json").unlink()
    own.checkpoint.write_bytes(b"no checkpoint")
    app = upload(open_page("search"), png(np.zeros((60, 30, 3), np.uint8)))
    assert any("own" in error.value for error in app.error)


def test_three_runs_without_a_model_name_the_commands(three):
    assert "lab finetune --dataset NAME --root DIR --out RUN" in words(open_page("search"))


def test_the_run_and_the_ranks_come_from_the_url(three, embedded):
    for name in ("one", "two"):
        shutil.copytree(embedded, three / name)
    app = open_page("search", run=["good", "one", "two"], search_run="two", top_k="20")
    assert app.selectbox(key="search_run").options == ["one", "two"]
    assert app.selectbox(key="search_run").value == "two"
    assert app.selectbox(key="top_k").value == 20


def test_a_run_of_another_data_set_without_features(three, market):
    make_run(three / "other", load("folder", write_csv(market, three)), 0.5, FINETUNED)
    make_checkpoint(three / "other")
    assert "--dataset folder" in words(open_page("search", dataset="folder"))


def test_html_in_names_is_shown_as_it_is(runs, embedded):
    shutil.copytree(embedded, runs / "<b>$x$ [y](z)")
    app = upload(open_page("search"), png(np.zeros((60, 30, 3), np.uint8)), "<b>$me$.png")
    assert found_of(app)
    for kind in ("markdown", "caption", "info", "error", "subheader"):
        assert not any("<b>" in element.value for element in app.get(kind))
