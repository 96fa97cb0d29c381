"""The cross-domain matrix: its cells against single evaluations, what is made again and what not, marks, failures."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lab.backbone import Embedder
from lab.cli import main
from lab.data.synthetic import SyntheticConfig, write
from lab.errors import InputError
from lab.evaluate.evaluate import evaluate_run
from lab.evaluate.settings import EvaluateConfig
from lab.matrix import FIELDS, fill_matrix, read_column, read_columns, row_names
from lab.runs import Run
from lab.show.matrix import matrix_figure, matrix_table

CONFIG = EvaluateConfig(num_workers=0, device="cpu", height=16, width=8)
PEOPLE = SyntheticConfig(
    num_train_ids=2, num_test_ids=4, num_distractors=2, num_junk=1, num_unlabeled=1, people_unlabeled=1
)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "people"
    write(root, PEOPLE)
    return root


@pytest.fixture
def columns(market, synthetic):
    return read_columns([f"market1501={market}", f"synthetic={synthetic}"])


class Models:
    """Opens a model for each run, and counts openings and calls of embed."""

    def __init__(self, broken: str = ""):
        self.opened, self.calls, self.broken = [], 0, broken

    def __call__(self, run: Run):
        if run.name == self.broken:
            raise RuntimeError("size mismatch\nof many lines")
        self.opened.append(run.name)
        weights = torch.randn(3, 2, generator=torch.Generator().manual_seed(len(run.name)))

        def embed(images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return torch.nn.functional.normalize(images.float().mean(dim=(2, 3)) @ weights)

        return embed


@pytest.fixture
def runs(tmp_path, market, synthetic) -> list[Run]:
    made = []
    for name, dataset, root in (("one", "market1501", market), ("another", "synthetic", synthetic)):
        data = {"dataset": dataset, "root": str(root), "images": 1}
        run = Run.create(tmp_path / name, "finetune", {"height": 16, "width": 8}, data=data)
        run.checkpoint.write_bytes(name.encode())
        made.append(run)
    return made


def fill(runs, columns, models, config=CONFIG) -> pd.DataFrame:
    models.calls, models.opened[:] = 0, []
    return fill_matrix(runs, columns, config, models, progress=False)


def test_cells_are_ordinary_evaluations(tmp_path, runs, columns):
    table = fill(runs, columns, Models())
    assert list(table.columns) == list(FIELDS)
    assert list(zip(table["run"], table["dataset"], strict=True)) == [
        ("one", "market1501"), ("one", "synthetic"), ("another", "market1501"), ("another", "synthetic"),
    ]  # fmt: skip
    for row, (run, column) in zip(table.itertuples(), [(r, c) for r in runs for c in columns], strict=True):
        alone = Run.create(tmp_path / "alone" / run.name / column.dataset.name, "finetune", {})
        expected = evaluate_run(alone, Models()(run), column.dataset, CONFIG, progress=False)
        stored = run.result(row.dataset)
        assert (row.mAP, row.mINP, row.num_query) == (expected.mAP, expected.mINP, expected.num_query)
        assert (stored.mAP, stored.cmc[0]) == (expected.mAP, expected.cmc[0])
        assert table.loc[row.Index, "rank-1"] == expected.cmc[0]
        assert row.result == str(run.folder / "eval" / row.dataset)
    assert table["mAP"].nunique() == 4


def test_the_diagonal_is_marked(runs, columns):
    table = fill(runs, columns, Models())
    assert table["known"].tolist() == ["home", "", "", "home"]
    assert table["trained_on"].tolist() == ["market1501"] * 2 + ["synthetic"] * 2
    shown = matrix_table(table, "rank-1")
    assert list(shown.columns) == ["trained on", "market1501", "synthetic"]
    for run, dataset, mark in (("one", "market1501", "*"), ("one", "synthetic", ""), ("another", "synthetic", "*")):
        value = table.query("run == @run and dataset == @dataset")["rank-1"].item()
        assert shown.loc[run, dataset] == f"{100 * value:.1f}{mark}"


def test_what_is_there_is_not_made_again(runs, columns):
    models = Models()
    first = fill(runs, columns, models)
    assert (models.opened, models.calls) == (["one", "another"], 8)  # query and gallery of each cell
    results = {path: path.stat().st_mtime_ns for run in runs for path in run.folder.glob("eval/*/result.json")}
    again = fill(runs, columns, models)
    assert (models.opened, models.calls) == ([], 0)
    assert {path: path.stat().st_mtime_ns for path in results} == results
    pd.testing.assert_frame_equal(again, first)


def test_what_depends_on_something_new_is_made_again(runs, columns):
    models = Models()
    fill(runs, columns, models)
    runs[0].checkpoint.write_bytes(b"trained on")
    fill(runs, columns, models)
    assert (models.opened, models.calls) == (["one"], 4)
    os.utime(columns[0].dataset.query.path[0], (1, 1))
    fill(runs, columns, models)
    assert models.calls == 2  # of both runs, the query of one data set
    ranked = fill(runs, columns, models, replace(CONFIG, ap="trapezoid"))
    assert (models.opened, models.calls) == (["one", "another"], 0)  # other ranking, same features
    assert ranked["mAP"].iloc[0] == runs[0].result("market1501").mAP
    assert "market1501-ap_step" in runs[0].evals()
    fill(runs, columns, models, replace(CONFIG, ap="trapezoid"))
    assert models.opened == []
    fill(runs, columns, models, replace(CONFIG, ap="trapezoid", height=24))
    assert models.calls == 8
    shutil.rmtree(runs[1].folder / "eval" / "synthetic")
    (runs[1].folder / "eval" / "market1501" / "queries.csv").unlink()
    fill(runs, columns, models, replace(CONFIG, ap="trapezoid", height=24))
    assert models.opened == ["another"]


def test_a_stored_result_of_before_crops_were_noted_is_ranked_once_more(runs, columns):
    models = Models()
    fill(runs, columns, models)
    file = runs[0].folder / "eval" / "market1501" / "result.json"
    summary = json.loads(file.read_text())
    del summary["settings"]["crops"]
    file.write_text(json.dumps(summary))
    fill(runs, columns, models)
    assert (models.opened, models.calls) == (["one"], 0)
    fill(runs, columns, models)
    assert models.opened == []


@pytest.mark.parametrize(
    ("change", "ending"),
    [
        ({"rerank": True, "k1": 3, "k2": 2}, "-rerank"),
        ({"expand": True, "expand_k": 2}, "-aqe"),
        ({"gallery_shot": "single", "repeats": 3}, ""),
        ({"flip": True}, ""),
        ({"multi_query": "mean"}, ""),
    ],
)
def test_another_way_of_ranking_is_another_cell_and_is_stored_too(runs, columns, change, ending):
    models, config = Models(), replace(CONFIG, **change)
    fill(runs[:1], columns, models)
    for opened in (["one"], []):
        table = fill(runs[:1], columns, models, config)
        assert models.opened == opened
        assert [path.rsplit("/", 1)[1] for path in table["result"]] == [f"{c.dataset.name}{ending}" for c in columns]
    fill(runs[:1], columns, models)
    assert models.opened == ([] if ending else ["one"])  # the plain result was set aside, and is made anew


def test_a_cell_that_fails_does_not_stop_the_others(runs, columns, capsys):
    models = Models(broken="one")
    table = fill_matrix(runs, columns, CONFIG, models, progress=True)
    assert table["error"].tolist() == ["size mismatch"] * 2 + [""] * 2
    assert "one on synthetic: size mismatch\n" in capsys.readouterr().out
    assert table["mAP"].isna().tolist() == [True, True, False, False]
    assert matrix_table(table).loc["one"].tolist() == ["market1501", "failed", "failed"]
    mended = fill(runs, columns, Models())
    assert (mended["error"] == "").all()
    pd.testing.assert_frame_equal(mended.iloc[2:], table.iloc[2:], check_dtype=False)


def test_two_sets_of_one_layout_get_names_of_their_own(market, synthetic, runs):
    with pytest.raises(InputError, match="2 data sets are called 'market1501'.*give NAME:LABEL=ROOT"):
        read_columns([f"market1501={market}", f"market1501={synthetic}"])
    columns = read_columns([f"market1501={market}", f"market1501:people={synthetic}"])
    table = fill(runs[:1], columns, Models())
    assert table["dataset"].tolist() == ["market1501", "people"]
    assert runs[0].evals() == ["market1501", "people"]
    assert table["known"].tolist() == ["home", "home"]  # it is what it is, whatever it is called


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("market1501", "names no data set; expected NAME=ROOT"),
        ("market1501:a/b={market}", "names no data set"),
        ("market1501:x-rerank={market}", "ends its label as an improved ranking"),
        ("market={market}", "there is no data set 'market'"),
        ("market1501/3={market}", "market1501 has one split"),
        ("market1501={market}/nowhere", "there is no folder"),
    ],
)
def test_other_words_for_data_sets_are_explained(words, sentence, market):
    with pytest.raises(InputError, match=sentence):
        read_column(words.format(market=market))


def test_an_equals_sign_in_a_path_is_no_trouble(market, tmp_path):
    shutil.copytree(market, tmp_path / "a=b:c")
    column = read_column(f"market1501:mine={tmp_path}/a=b:c")
    assert (column.name, column.dataset.name, str(column.root)) == ("market1501", "mine", f"{tmp_path}/a=b:c")


def test_rows_are_told_apart_by_as_much_of_the_path_as_it_takes(tmp_path):
    def named(*paths):
        return row_names([Run(tmp_path / path) for path in paths])

    assert named("a/best", "a/last") == ["best", "last"]
    assert named("a/best", "b/best", "b/last") == ["a/best", "b/best", "b/last"]
    with pytest.raises(InputError, match="given twice"):
        named("a/best", "a/best")


def test_the_figure_has_every_cell_and_what_was_trained_on(runs, columns):
    table = fill(runs, columns, Models(broken="another"))
    figure = matrix_figure(table, "mAP", "<models>")
    (heat,) = figure.data
    np.testing.assert_allclose(heat.z, 100 * table["mAP"].to_numpy(float).reshape(2, 2))
    assert heat.text.tolist() == matrix_table(table)[["market1501", "synthetic"]].to_numpy().tolist()
    assert list(heat.y) == ["one<br>trained on market1501", "another<br>trained on synthetic"]
    assert (heat.zmin, heat.zmax, list(heat.x)) == (0, 100, ["market1501", "synthetic"])
    assert "<models>" not in figure.layout.title.text
    assert figure.layout.yaxis.autorange == "reversed"
    assert all(axis.title.text for axis in (figure.layout.xaxis, figure.layout.yaxis))


def lab(capsys, *arguments) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


def test_the_command(capsys, monkeypatch, market, synthetic, runs, tmp_path):
    out, file = tmp_path / "out" / "m", tmp_path / "out" / "m" / "matrix.csv"
    command = ["matrix", "--runs", *(run.folder for run in runs), "--datasets", f"market1501={market}"]
    command += [f"synthetic={synthetic}", "--out", out, "--num-workers", "0"]
    monkeypatch.setattr("lab.matrix.load_model", Models(broken="another"))
    code, _, error = lab(capsys, *command)
    assert code == 2
    (sentence,) = [line for line in error.splitlines() if line.startswith("lab: ")]
    assert "2 of 4 cells failed (another on market1501: size mismatch; another on synthetic: size mismatch)" in sentence
    assert pd.read_csv(file)["mAP"].isna().tolist() == [False, False, True, True]
    monkeypatch.setattr("lab.matrix.load_model", Models())
    code, said, _ = lab(capsys, *command)
    assert (code, said.count("which was stored")) == (0, 2)
    table = pd.read_csv(file)
    assert list(table.columns) == list(FIELDS)
    assert table["mAP"].notna().all()
    assert os.listdir(out) == ["matrix.csv"]
    printed = [line.split() for line in said.split("rank-1 in %")[1].splitlines()]
    assert ["trained", "on", "market1501", "synthetic"] in printed
    away, home = (100 * runs[1].result(name).cmc[0] for name in ("market1501", "synthetic"))
    assert ["another", "synthetic", f"{away:.1f}", f"{home:.1f}*"] in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--runs --datasets market1501={market} --out {out}", "got no run or no data set"),
        ("--runs {nowhere} --datasets market1501={market} --out {out}", "no run at"),
        ("--runs {run} {run} --datasets market1501={market} --out {out}", "given twice"),
        ("--runs {run} --datasets market1501={nowhere} --out {out}", "there is no folder"),
        ("--runs {run} --datasets market1501={market} --out {file}", "cannot make the folder"),
    ],
)
def test_wrong_usage_stops_before_anything_is_made(arguments, sentence, capsys, market, tmp_path):
    run = Run.create(tmp_path / "run", "finetune", {"height": 16, "width": 8})
    (tmp_path / "file").write_text("")
    places = {name: tmp_path / name for name in ("run", "nowhere", "out", "file")}
    words = [word.format(**places, market=market) for word in arguments.split()]
    code, _, error = lab(capsys, "matrix", *words)
    assert (code, bool(re.search(f"lab: .*{sentence}", error))) == (2, True)
    assert not (tmp_path / "out").exists()
    assert not run.evals()


def test_weights_from_elsewhere_are_a_row_while_their_file_is_the_same(capsys, market, tmp_path):
    file, out = tmp_path / "file.pt", tmp_path / "w"
    torch.save({"model": Embedder(18).state_dict()}, file)
    given = ["--dataset", "market1501", "--root", market, "--height", "32", "--width", "16", "--num-workers", "0"]
    assert lab(capsys, "evaluate", "--weights", file, "--out", out, *given)[0] == 0
    columns, config = read_columns([f"market1501={market}"]), replace(CONFIG, height=None, width=None)
    table = fill_matrix([Run.open(out)], columns, config)
    assert re.search("w on market1501: mAP .*, which was stored", capsys.readouterr().out)
    shutil.rmtree(out / "eval")
    shutil.rmtree(out / "features")
    pd.testing.assert_frame_equal(fill_matrix([Run.open(out)], columns, config, progress=False), table)
    with open(file, "ab") as stream:
        stream.write(b"x")
    error = fill_matrix([Run.open(out)], columns, config, progress=False)["error"].item()
    assert re.search("file.pt has changed since .*; evaluate it in a new folder: lab evaluate --weights", error)


def test_runs_without_a_model_are_cells_that_fail(columns, tmp_path):
    baseline = Run.create(tmp_path / "b", "baseline", {"height": 16, "width": 8})
    error = fill_matrix([baseline], columns, CONFIG, progress=False)["error"]
    assert error.str.contains("holds stage 'baseline' and no model").all()
