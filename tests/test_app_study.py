"""The page Study: what it says is what the tables of a study say, and what it needs is the three tables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from app_pages import EXPLORER, downloads, open_page, pictures, words
from make_demo import make_run

from lab.data import load as load_data
from lab.study.designs import make_studies
from lab.study.results import Results, column_name
from lab.study.tables import claims_table, means_table

PAGE = "study"
PEOPLE = 6
AP = {"scratch": 0.40, "in-domain": 0.70, "file": 0.10}  # at 10 % of the labels, of everybody
AP_ALL = {"scratch": 0.80, "in-domain": 0.82, "file": 0.60}
SETTINGS = {
    "size": "tiny",
    "cost_seconds": {},
    "machine": ["a laptop, 1 thread"],
    "commit": ["0123456789abcdef" * 2],
    "torch": ["2.9"],
    "test": {"queries": 2 * PEOPLE, "gallery": 40},
}


def make_study(folder: Path, dataset: str = "synthetic", weights: str = "file", seeds: int = 2, **settings) -> Results:
    """A study with the cells of small-scale at 10 % and all labels, all seeds alike, and nobody harder than others."""
    settings = (
        SETTINGS | {"dataset": dataset, "seeds": seeds, "weights": [weights], "domains": ["in-domain"]} | settings
    )
    file = next(start for start in _starts(settings) if start.name == weights)
    rows, columns = [], {"pid": np.arange(PEOPLE), "queries": np.full(PEOPLE, 2)}
    for cell in make_studies(seeds, [file], settings["domains"])["small-scale"].cells:
        if cell.share not in (0.1, 1.0):
            continue
        ap = (AP_ALL if cell.share == 1 else AP)["file" if cell.start.name == weights else cell.start.name]
        for rerank in (False, True):
            name = column_name(cell.name, rerank)
            about = {"start": cell.start.name, "share": cell.share, "of": cell.of, "seed": cell.seed, "rerank": rerank}
            figures = {"mAP": ap, "rank-1": ap, "mINP": ap / 2, "steps": 100}
            rows.append({"cell": cell.name, **about, **figures, "column": name})
            columns[name] = np.full(PEOPLE, 2 * ap)
        settings["cost_seconds"] = (
            settings["cost_seconds"] | {cell.name: 30.0} | ({cell.pretraining: 60.0} if cell.pretraining else {})
        )
    results = Results(pd.DataFrame(rows), pd.DataFrame(columns), settings)
    results.save(folder)
    return results


def _starts(settings: dict) -> list:
    return [cell.start for cell in Results(pd.DataFrame(), pd.DataFrame(), settings).studies["small-scale"].cells]


def label(results: Results) -> str:
    """What the page calls it: how many cells it has follows from the designs."""
    cells = {cell.name for study in results.studies.values() for cell in study.cells}
    return f"{results.settings['dataset']}, {len(cells)} cells"


@pytest.fixture(autouse=True)
def committed(tmp_path, monkeypatch) -> Path:
    """The source tree's own results are others from month to month: an empty folder stands for them."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.syspath_prepend(EXPLORER.parent)
    import study_parts

    monkeypatch.setattr(study_parts, "COMMITTED", folder)
    return folder


def metrics(app) -> dict[str, str]:
    return {element.label: element.value for element in app.metric}


def test_without_a_study_the_command_is_named(three):
    app = open_page(PAGE)
    assert "lab study small-scale --out" in words(app)
    assert not app.error
    assert not app.metric


def test_no_run_is_needed(runs, committed):
    assert "lab study small-scale --out" in words(open_page(PAGE))
    make_study(committed / "study-synthetic")
    app = open_page(PAGE)
    assert "lab demo" not in words(app)
    assert len(pictures(app)) == 2
    assert "lab demo" in words(open_page("overview"))


@pytest.mark.parametrize("where", ["out", "runs/inside", "runs"])
def test_studies_are_found_around_the_runs(runs, where):
    if where == "out":  # as lab study makes it: the runs are in the study's folder
        results = make_study(runs.parent)
    elif where == "runs/inside":
        results = make_study(runs / "inside")
    else:
        results = make_study(runs)
        make_study(runs / "report")  # its own report is not another study
    assert open_page(PAGE).selectbox(key="study").options == [label(results)]


def test_counts_of_verdicts_follow_from_the_figures(runs):
    """By hand: in-domain gains 30 points at 10 % of the labels and 2 with all; file loses 30 and 20."""
    results = make_study(runs.parent)
    study = results.studies["small-scale"]
    app = open_page(PAGE)
    said = {"in-domain": (30, 28), "file": (-30, -10)}
    table = app.dataframe[1].value
    assert table["effect"].tolist() == pytest.approx([*said["in-domain"], *said["file"]])
    assert table["verdict"].tolist() == ["supported", "supported", "not supported", "not supported"]
    assert metrics(app) == {"supported": "2", "not supported": "2", "not decided": "0"}
    pd.testing.assert_frame_equal(table, claims_table(results.judge(study)))
    pd.testing.assert_frame_equal(app.dataframe[0].value, means_table(results, study).drop(columns="share"))
    assert app.dataframe[0].value["mAP"].tolist() == pytest.approx([40, 70, 10, 80, 82, 60])
    assert len(app.dataframe[2].value) == 24
    assert len(pictures(app)) == 2


def test_facts_of_the_study(runs):
    results = make_study(runs.parent)
    said = words(open_page(PAGE)).replace("\\", "")
    assert results.studies["small-scale"].question in said
    # 12 cells of half a minute, and two pre-trainings of a minute
    assert (
        f"12 of {len(results.studies['small-scale'].cells)} cells are done: 8 CPU minutes with the pre-trainings"
        in said
    )
    assert "a laptop, 1 thread" in said
    assert "Commit 0123456789ab." in said
    assert "6 people of synthetic with 12 queries" in said
    assert "Not begun" not in said  # in-domain at 10 % of the labels is a cell of each
    assert "Bonferroni" in said


def test_studies_without_a_cell_are_no_choice(runs):
    results = make_study(runs.parent)
    Results(results.cells[results.cells["start"] == "scratch"], results.people, results.settings).save(runs.parent)
    app = open_page(PAGE)
    assert {"small-scale", "pretraining-effort"} <= set(app.selectbox(key="question").options)
    assert "temperature" not in app.selectbox(key="question").options
    assert "temperature" in words(app).replace("\\", "").split("Not begun: ")[1]
    assert "not done yet" in words(app)
    assert metrics(app)["without a result"] == "4"


def test_one_seed_decides_nothing(runs):
    make_study(runs.parent, seeds=1)
    app = open_page(PAGE)
    assert metrics(app) == {"supported": "0", "not supported": "0", "not decided": "4"}
    assert set(app.dataframe[1].value["seeds needed"]) == {"two or more"}
    assert len(pictures(app)) == 2


def test_claims_whose_cells_are_not_done_are_counted_apart(runs):
    results = make_study(runs.parent)
    kept = results.cells[(results.cells["start"] != "file") | (results.cells["share"] != 0.1)]
    Results(kept, results.people, results.settings).save(runs.parent)
    assert metrics(open_page(PAGE)) == {
        "supported": "2", "not supported": "0", "not decided": "0", "without a result": "2",
    }  # fmt: skip


def test_the_address_restores_the_choice(runs):
    first, second = label(make_study(runs / "one")), label(make_study(runs / "two", "market1501"))
    app = open_page(PAGE)
    assert app.selectbox(key="study").options == [first, second]
    assert "people of synthetic" in words(app)
    app = open_page(PAGE, study=second, question="rerank")
    assert app.selectbox(key="study").value == second
    assert app.selectbox(key="question").value == "rerank"
    assert "people of market1501" in words(app)
    assert len(pictures(app)) == 1  # re-ranking has claims alone


def test_two_of_one_kind_say_where_they_lie(runs):
    make_study(runs / "one")
    name = label(make_study(runs / "two"))
    options = open_page(PAGE).selectbox(key="study").options
    assert options == [f"{name} (runs/one)", f"{name} (runs/two)"]


def test_every_study_that_was_begun_has_a_page(runs):
    results = make_study(runs.parent)
    for name, study in results.studies.items():
        if results.done(study):
            app = open_page(PAGE, question=name)
            assert app.selectbox(key="question").value == name
            assert not app.error


def test_names_of_downloads(runs):
    make_study(runs.parent, "market1501")
    found = downloads(open_page(PAGE, question="small-scale"))
    ends = ["means", "means", "claims", "claims", "cells"]
    assert found == [f"study-market1501-small-scale-{end}" for end in ends]


def cut_people(folder: Path) -> None:
    (folder / "people.csv").write_text("pid,queries\n1,2\n")


def empty_cells(folder: Path) -> None:
    (folder / "cells.csv").write_text("")


def no_json(folder: Path) -> None:
    (folder / "study.json").write_text("{")


def strange_json(folder: Path) -> None:
    (folder / "study.json").write_text("[1]")


def no_settings(folder: Path) -> None:
    (folder / "study.json").write_text('{"dataset": "synthetic"}')


def endless_seeds(folder: Path) -> None:
    settings = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(settings | {"seeds": 10**12}))


def words_for_numbers(folder: Path) -> None:
    file = folder / "people.csv"
    table = pd.read_csv(file)
    file.write_text(table.astype(str).replace("0.8", "much").to_csv(index=False))


def link_outside(folder: Path) -> None:
    secret = folder.parent.parent / "secret.csv"
    secret.write_text("hunter2\n")
    (folder / "cells.csv").unlink()
    (folder / "cells.csv").symlink_to(secret)


BREAKS = (
    cut_people,
    empty_cells,
    no_json,
    strange_json,
    no_settings,
    endless_seeds,
    words_for_numbers,
    link_outside,
)


@pytest.mark.parametrize("damage", BREAKS, ids=[damage.__name__ for damage in BREAKS])
def test_broken_study_is_one_sentence_and_the_page_stands(runs, damage):
    make_study(runs / "bad")
    good = label(make_study(runs / "good", "market1501"))
    damage(runs / "bad")
    app = open_page(PAGE)
    assert len(app.error) == 1
    assert "hunter2" not in words(app)
    app = open_page(PAGE, study=good)
    assert app.selectbox(key="study").value == good
    assert metrics(app)["supported"] == "2"


def test_a_study_that_grows_is_read_anew(runs):
    results = make_study(runs.parent)
    cells = len(results.studies["small-scale"].cells)
    few = Results(results.cells[results.cells["share"] == 0.1], results.people, results.settings)
    few.save(runs.parent)
    assert f"6 of {cells} cells" in words(open_page(PAGE))
    results.save(runs.parent)
    app = open_page(PAGE)
    assert f"12 of {cells} cells" in words(app)
    assert metrics(app)["supported"] == "2"


@pytest.mark.parametrize("name", ["<b>$x$ [y](z)", r"a$\frac$ *b*"])
def test_names_from_files_are_shown_as_they_are(runs, name):
    make_study(runs.parent, weights=name)
    app = open_page(PAGE)
    assert not app.error
    assert len(pictures(app)) == 2
    assert name in set(app.dataframe[0].value["start"])
    for kind in ("markdown", "caption", "info", "error", "subheader"):
        assert not any("<b>" in element.value or "[y](z)" in element.value for element in app.get(kind))


def test_cells_lead_to_the_rank_lists_of_their_runs(runs, market):
    make_study(runs.parent, "market1501")
    cell = "in-domain-ids10-seed0"
    make_run(runs / cell, load_data("market1501", market), 0.8)
    table = open_page(PAGE).dataframe[2].value
    links = table.dropna(subset="look").set_index("re-ranked")["look"]
    assert table.loc[table["cell"] == cell, "look"].notna().all()
    assert links.index.tolist() == ["no", "yes"]
    target = urlsplit(links["yes"])
    assert target.path == "./rank_lists"
    assert parse_qs(target.query) == {"run": [cell], "dataset": ["market1501"], "rerank": ["true"]}


def test_the_page_does_without_torch(runs):
    make_study(runs.parent)
    script = (
        "import sys; from app_pages import open_page; app = open_page('study'); "
        "assert len(app.metric) == 3; assert 'torch' not in sys.modules"
    )
    paths = os.pathsep.join([str(EXPLORER.parents[1] / "tests"), str(EXPLORER.parents[1])])
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": paths})
