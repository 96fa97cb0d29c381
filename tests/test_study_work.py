"""Doing a study: every cell once over processes, going on, and reports that follow from the tables."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from lab.cli import main
from lab.data.synthetic import SyntheticConfig, write
from lab.errors import InputError
from lab.runs import Run
from lab.study.designs import IN_DOMAIN, SCRATCH, Cell, Start
from lab.study.report import describe_seeds
from lab.study.results import COST, load
from lab.study.work import _attempt, begin, do_study, update, work
from lab.study.world import StudyConfig, World

CELLS = {"scratch-ids10-seed0", "scratch-all-seed0", "in-domain-ids10-seed0", "in-domain-all-seed0"}


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Path:
    """80 people to learn from, so that a tenth of them makes a batch, and a few to find."""
    folder = tmp_path_factory.mktemp("study") / "people"
    small = {"num_distractors": 4, "num_junk": 0, "num_unlabeled": 0, "people_unlabeled": 1, "height": 64, "width": 32}
    write(folder, SyntheticConfig(num_train_ids=80, num_test_ids=5, min_cameras=2, max_cameras=2, max_crops=2, **small))
    return folder


@pytest.fixture(scope="session")
def config(people) -> StudyConfig:
    """One step of pre-training and a pass of fine-tuning; re-ranking is the study with the fewest cells."""
    steps = {"pretrain_steps": 1, "finetune_epochs": 1}
    return StudyConfig(dataset="market1501", root=people, weights=(), seeds=1, workers=2, **steps)


@pytest.fixture(scope="session")
def done(config, tmp_path_factory) -> Path:
    """The folder of a finished study."""
    folder = tmp_path_factory.mktemp("study") / "done"
    do_study("rerank", folder, config)
    return folder


def test_two_processes_make_every_run_once(done):
    runs = {folder.name for folder in (done / "runs").iterdir()}
    assert runs == CELLS | {"pretrain-in-domain-seed0"}
    for name in runs:
        run = Run.open(done / "runs" / name)
        assert run.log()["step"].is_monotonic_increasing
        assert run.log()["step"].is_unique
        assert json.loads((run.folder / COST).read_text())["cpu_seconds"] > 0


def test_a_cell_is_an_ordinary_run_that_says_where_it_comes_from(done):
    run = Run.open(done / "runs" / "in-domain-ids10-seed0")
    assert run.evals() == ["market1501", "market1501-rerank"]
    assert run.config["init"]["weights"] == "pretrain-in-domain-seed0"
    assert run.config["settings"]["fraction"] == 0.1
    assert not run.checkpoint.exists()
    assert Run.open(done / "runs" / "scratch-all-seed0").config["init"] is None
    assert Run.open(done / "runs" / "pretrain-in-domain-seed0").checkpoint.exists()


def test_a_study_that_is_done_is_not_done_again(done, config, capsys):
    before = {file: file.stat().st_mtime_ns for file in (done / "runs").rglob("*")}
    do_study("rerank", done, replace(config, workers=1))
    assert "4 cells, 4 of them are done" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in (done / "runs").rglob("*")}


def test_the_tables_hold_what_the_runs_found(done):
    results = load(done)
    assert set(results.cells["cell"]) == CELLS
    for row in results.cells.itertuples():
        stored = json.loads(
            (done / "runs" / row.cell / "eval" / f"market1501{'-rerank' * row.rerank}" / "result.json").read_text()
        )
        assert row.mAP == pytest.approx(stored["mAP"], rel=1e-5)
        from_people = results.people[row.column].sum() / results.people["queries"].sum()
        assert from_people == pytest.approx(stored["mAP"], rel=1e-4)
    assert results.people["queries"].sum() == stored["num_valid_query"]


def test_no_path_of_this_machine_is_in_the_tables(done, people):
    for name in ("study.json", "cells.csv", "people.csv"):
        text = (done / name).read_text()
        assert str(people.parent) not in text
        assert str(done.parent) not in text


def test_a_report_follows_from_its_own_tables(done, tmp_path, capsys):
    main(["study", "report", "--out", str(done), "--to", str(tmp_path / "one")])
    main(["study", "report", "--out", str(tmp_path / "one"), "--to", str(tmp_path / "two")])
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert {"report.md", "rerank-claims.svg", "rerank-claims.csv", "rerank-means.csv", "cells.csv"} <= set(files)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    report = (tmp_path / "two" / "report.md").read_text()
    assert "Re-ranking improves the lists of scratch with all labels | " in report
    assert "not decided" in capsys.readouterr().out  # one seed decides nothing


def test_a_run_that_another_process_makes_is_left_to_it(config, tmp_path):
    (tmp_path / "locks").mkdir()
    world, cell = World(config, tmp_path), Cell(IN_DOMAIN, 0.1, "ids", 0)
    for name in (cell.name, cell.pretraining):
        with FileLock(tmp_path / "locks" / f"{name}.lock"):
            assert not _attempt(world, cell)
    assert not (tmp_path / "runs").exists()


def test_a_killed_cell_is_gone_on_with(done, config, tmp_path, monkeypatch):
    """Evaluated once, without re-ranking yet, its checkpoint still there: what is missing is made, what is there stays."""
    shutil.copytree(done, tmp_path / "study")
    cell = Cell(SCRATCH, 0.1, "ids", 0)
    folder = tmp_path / "study" / "runs" / cell.name
    shutil.rmtree(folder)
    monkeypatch.setattr("lab.study.work.evaluate_run", _killed)
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "study", config, [cell])
    assert Run.open(folder).checkpoint.exists()
    trained = Run.open(folder).log()
    monkeypatch.undo()
    work(tmp_path / "study", config, [cell])
    pd.testing.assert_frame_equal(Run.open(folder).log(), trained)
    assert Run.open(folder).evals() == ["market1501", "market1501-rerank"]


def _killed(*_, **__):
    raise KeyboardInterrupt


def test_sigterm_saves_what_the_processes_have(people, tmp_path):
    command = ["study", "rerank", "--out", str(tmp_path / "s"), "--dataset", "market1501", "--root", str(people)]
    command += ["--weights", "--seeds", "1", "--workers", "2", "--pretrain-steps", "5000", "--finetune-epochs", "500"]
    job = subprocess.Popen(
        [sys.executable, "-m", "lab", *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + 120
    while not list(tmp_path.glob("s/runs/*/log.csv")) and time.monotonic() < limit:
        time.sleep(0.2)
    time.sleep(1)
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
    assert "stopped by SIGTERM" in said
    assert len(said.strip().splitlines()) == 1, said
    assert list(tmp_path.glob("s/runs/*/checkpoint.pt"))


def test_another_study_in_the_folder_is_refused(done, config):
    with pytest.raises(InputError, match="holds a study with finetune_epochs 1, and now it is 2"):
        do_study("rerank", done, replace(config, finetune_epochs=2))


def test_seeds_can_be_added_which_is_kept_and_said_and_not_taken_away(config, tmp_path):
    for seeds in (2, 3, 3, 5):
        begin(tmp_path / "s", replace(config, seeds=seeds))
    facts = json.loads((tmp_path / "s" / "study.json").read_text())
    assert (facts["seeds"], facts["seeds_before"]) == (5, [2, 3])
    assert "5 seeds (2, then 3 at first: added after a look" in describe_seeds(facts)
    with pytest.raises(InputError, match="holds a study with seeds 5, and now it is 4"):
        begin(tmp_path / "s", replace(config, seeds=4))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], "there is no study 'nothing' of these data; choose all, small-scale"),
        (["all", "--shard", "3/2"], "--shard is 3/2; expected i/n"),
        (["all", "--seeds", "0"], "--seeds is 0; expected 1 or more"),
        (["all", "--dataset", "market1501"], "--dataset is market1501 and --root is missing"),
        (["all", "--dataset", "cuhk03-classic-labeled", "--root", "x"], "20 splits; a study takes one"),
        (["all", "--root", "x"], "the synthetic study draws its own people"),
        (["all", "--weights", "a=shipped", "a=shipped"], "give each a name of its own"),
        (["all", "--weights", "scratch=shipped"], "give each a name of its own"),
        (["all", "--weights", "none.pth"], "no weights at none.pth"),
        (["all", "--weights", "a/b=shipped"], "give each a name of its own"),
        (["all", "--weights", "in-domain-longer=shipped"], "give each a name of its own"),
        (["all", "--dataset", "market1501", "--root", "nowhere"], "nowhere"),
        (["report"], "holds no study"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main(["study", *arguments, "--out", str(tmp_path / "new")])
    assert error.value.code == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_other_crops_are_opened_before_anything_is_trained(config, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        do_study("rerank", tmp_path / "new", replace(config, other=(tmp_path / "none",)))
    assert not (tmp_path / "new").exists()


def test_a_folder_of_runs_or_a_broken_study_or_a_file_is_no_study(config, tmp_path):
    (tmp_path / "demo" / "runs").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no study"):
        update(tmp_path / "demo")
    (tmp_path / "demo" / "study.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        begin(tmp_path / "demo", config)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        begin(tmp_path / "file", config)


def test_a_folder_of_something_else_is_left_as_it_is(config, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds something that is not a study"):
        do_study("rerank", tmp_path, config)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_pre_training_settings_follow_from_the_start(config, people, tmp_path):
    world = World(config, tmp_path)

    def settings(images=4000, **changes):
        start = Start("x", "in-domain", changes=tuple(changes.items()))
        return world.pretraining(Cell(start, 0.1, "ids", 7), images)

    base = World(replace(config, pretrain_steps=124), tmp_path).pretraining(Cell(IN_DOMAIN, 0.1, "ids", 7), 4000)
    assert (base.seed, base.epochs, base.queue_size, base.augmentation) == (7, 2, 1024, "whole")
    assert settings(augmentation="moco-blur").augmentation == "whole-moco-blur"
    assert settings(temperature=0.2).temperature == 0.2
    assert settings(times_lr=0.5).lr == pytest.approx(base.lr / 2)
    assert settings(times_queue=0.25).queue_size == 256
    assert settings(images=400).queue_size == 200  # half the images
    long = World(replace(config, pretrain_steps=124), tmp_path).pretraining(
        Cell(Start("x", "in-domain", changes=(("times_steps", 3.0),)), 0.1, "ids", 7), 4000
    )
    assert long.epochs == 6


def test_as_many_steps_for_a_share_of_the_crops_and_as_many_passes_over_any_share_of_labels(config, tmp_path):
    world = World(replace(config, pretrain_steps=124, finetune_epochs=6), tmp_path)
    tenth = world.pretraining(Cell(IN_DOMAIN, 0.1, "ids", 0), 400)
    assert tenth.epochs * (400 // tenth.batch_size) == pytest.approx(124, abs=6)
    found = [world.finetuning(Cell(SCRATCH, share, "ids", 0)) for share in (0.1, 1.0)]
    assert [(one.epochs, one.steps_per_epoch) for one in found] == [(6, None), (6, None)]


def test_a_share_of_the_crops_is_a_random_part_that_the_seed_decides(config, tmp_path):
    world = World(config, tmp_path)
    every, some = world.crops(IN_DOMAIN, 0), [world.crops(Start("s", "in-domain", 0.25), seed) for seed in (0, 0, 1)]
    names = [[source.name(i) for i in range(len(source))] for source in some]
    assert len(names[0]) == round(len(every) / 4)
    assert names[0] == names[1] != names[2]
    assert set(names[0]) <= {every.name(i) for i in range(len(every))}
    assert some[0].read(3) == Path(names[0][3]).read_bytes()


def test_size_paper_is_the_published_recipe(config, tmp_path):
    world, cell = World(replace(config, size="paper"), tmp_path), Cell(SCRATCH, 0.3, "images", 2)
    found = world.finetuning(cell)
    assert (found.depth, found.height, found.epochs, found.steps_per_epoch) == (50, 384, 60, None)
    assert (found.fraction, found.fraction_of, found.seed) == (0.3, "images", 2)
    trained = world.pretraining(Cell(IN_DOMAIN, 0.3, "images", 2), 4_180_243)
    assert (trained.epochs, trained.batch_size, trained.queue_size, trained.augmentation) == (
        200,
        2560,
        65536,
        "luperson",
    )


def test_a_report_needs_whole_tables(done, tmp_path):
    results = load(done)
    results.save(tmp_path)
    people = pd.read_csv(tmp_path / "people.csv").drop(columns="scratch-all-seed0")
    people.to_csv(tmp_path / "people.csv", index=False)
    with pytest.raises(InputError, match="lacks scratch-all-seed0"):
        load(tmp_path)


def test_other_queries_are_not_mixed_in(done, tmp_path):
    shutil.copytree(done, tmp_path / "study")
    folder = tmp_path / "study" / "runs" / "in-domain-all-seed0"
    file = folder / "eval" / "market1501" / "queries.csv"
    table = pd.read_csv(file)
    table.assign(pid=np.roll(table["pid"], 3)).to_csv(file, index=False)
    with pytest.raises(InputError, match="evaluated on other queries"):
        update(tmp_path / "study")
