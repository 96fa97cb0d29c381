"""The run folder: what is written comes back, what was there stays."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from lab.errors import InputError
from lab.files import replacing
from lab.runs import EvalResult, Features, Run, find_runs


def result(queries=3, gallery=4) -> EvalResult:
    random = np.random.default_rng(0)
    index = np.full((queries, 50), -1, dtype=np.int32)
    index[:, :gallery] = random.permuted(np.tile(np.arange(gallery), (queries, 1)), axis=1)
    return EvalResult(
        mAP=0.5, mINP=0.25, cmc=np.linspace(0.5, 1, 50), num_query=queries, num_valid_query=2, num_gallery=gallery,
        path=np.array([f"q{i}, odd \"name\".jpg" for i in range(queries)]), pid=np.array([1, 2, 2**40]),
        camid=np.array([1, 2, 12]), ap=np.array([1 / 3, 0.1, np.nan]), inp=np.array([0.25, 1 / 7, np.nan]),
        first_match=np.array([1, 7, 0]), index=index, distance=random.random((queries, 50), dtype=np.float32),
        match=index == 1, gallery_path=np.array([f"g{i}.jpg" for i in range(gallery)]),
        gallery_pid=np.arange(gallery), gallery_camid=np.ones(gallery, dtype=int), settings={"dataset": "d"},
    )  # fmt: skip


def same(a: EvalResult, b: EvalResult) -> bool:
    return all(np.array_equal(value, getattr(b, name), equal_nan=np.asarray(value).dtype.kind == "f")
               for name, value in vars(a).items())  # fmt: skip


def test_a_result_comes_back_to_the_last_digit(tmp_path):
    run = Run(tmp_path / "theirs")
    run.save_result("d-rerank", result())
    assert Run.open(tmp_path / "theirs").evals() == ["d-rerank"]
    assert same(result(), run.result("d-rerank"))
    folder = tmp_path / "theirs" / "eval" / "d-rerank"
    summary = json.loads((folder / "result.json").read_text())
    assert set(summary) == {"mAP", "mINP", "cmc", "num_query", "num_valid_query", "num_gallery", "settings"}
    assert (folder / "queries.csv").read_text().splitlines()[0] == "path,pid,camid,ap,inp,first_match"
    ranks = np.load(folder / "ranks.npz", allow_pickle=False)
    assert {name: (ranks[name].shape, ranks[name].dtype.name) for name in ranks.files} == {
        "index": ((3, 50), "int32"), "distance": ((3, 50), "float32"), "match": ((3, 50), "bool"),
    }  # fmt: skip


def test_the_gallery_is_found_beside_results_made_elsewhere(tmp_path):
    run = Run(tmp_path / "r")
    run.save_result("d", result())
    (run.folder / "eval" / "d" / "gallery.csv").unlink()
    assert run.result("d").gallery_path is None
    pid = np.array([5, 6, 7, 8])
    run.save_features("d", "gallery", Features(np.eye(4, dtype=np.float32), pid, pid, np.array(list("abcd"))))
    assert run.result("d").gallery_path.tolist() == list("abcd")
    assert run.result("d").gallery_pid.tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("missing", ["queries.csv", "ranks.npz"])
def test_a_broken_result_is_named(tmp_path, missing):
    run = Run(tmp_path / "r")
    run.save_result("d", result())
    (run.folder / "eval" / "d" / missing).unlink()
    with pytest.raises(InputError, match=f"not a complete evaluation.*{missing}"):
        run.result("d")


def test_a_cut_off_rank_list_is_named(tmp_path):
    run = Run(tmp_path / "r")
    run.save_result("d", result())
    ranks = run.folder / "eval" / "d" / "ranks.npz"
    ranks.write_bytes(ranks.read_bytes()[:100])
    with pytest.raises(InputError, match="not a complete evaluation"):
        run.result("d")


def test_a_run_goes_on_with_the_same_settings_and_no_others(tmp_path):
    Run.create(tmp_path / "r", "pretrain", {"lr": 0.1, "size": (1, 2)}, init=None)
    before = (tmp_path / "r" / "config.json").read_bytes()
    (tmp_path / "r" / "checkpoint.pt").write_text("weights")
    again = Run.create(tmp_path / "r", "pretrain", {"lr": 0.1, "size": (1, 2)}, init=None)
    assert again.config["stage"] == "pretrain"
    assert again.config["versions"]["torch"]
    with pytest.raises(InputError, match=r"lr was 0.1, now 0.2"):
        Run.create(tmp_path / "r", "pretrain", {"lr": 0.2, "size": (1, 2)})
    with pytest.raises(InputError, match="already holds a run of stage 'pretrain', and 'finetune'"):
        Run.create(tmp_path / "r", "finetune", {"lr": 0.1})
    assert (tmp_path / "r" / "config.json").read_bytes() == before


def test_an_attempt_that_left_nothing_may_be_repeated_with_other_settings(tmp_path):
    Run.create(tmp_path / "r", "pretrain", {"lr": 0.1})
    assert Run.create(tmp_path / "r", "pretrain", {"lr": 0.2}).config["settings"] == {"lr": 0.2}
    with pytest.raises(InputError, match="stage 'pretrain', and 'finetune'"):
        Run.create(tmp_path / "r", "finetune", {"lr": 0.2})


def test_a_folder_that_is_no_run_is_refused_and_kept(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(InputError, match="not a run"):
        Run.create(tmp_path / "photos", "pretrain", {})
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    with pytest.raises(InputError, match="neither config.json nor eval"):
        Run.open(tmp_path / "photos")
    with pytest.raises(InputError, match="the folder is not there"):
        Run.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/r"):
        Run.create(tmp_path / "file" / "r", "pretrain", {})


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json cannot be read"):
        Run(tmp_path)


def test_the_log_is_appended_to_and_trimmed_to_a_step(tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", {})
    assert run.log().empty
    for step in range(1, 5):
        run.append_log({"step": step, "epoch": 1, "loss": step / 3})
    run.trim_log(2)
    run.append_log({"step": 3, "epoch": 1, "loss": 9.0})
    assert run.log()["step"].tolist() == [1, 2, 3]
    assert run.log()["loss"].tolist() == [1 / 3, 2 / 3, 9.0]
    with pytest.raises(ValueError, match="columns"):
        run.append_log({"step": 4})


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "checkpoint.pt"
    file.write_text("old")

    def write_half():
        with replacing(file) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def features(**changes):
    return dict(values=np.ones((3, 2)), pid=np.arange(3), camid=np.arange(3), path=np.array(list("abc"))) | changes


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({name: value for name, value in features().items() if name != "camid"}, "has no camid"),
        (features(pid=np.arange(2)), r"pid \(2,\)"),
        (features(values=np.ones(3)), r"values \(3,\)"),
        (features(path=np.array([{}, {}, {}], dtype=object)), "cannot be read"),
    ],
)
def test_feature_files_that_do_not_fit_are_explained(tmp_path, content, sentence):
    np.savez(tmp_path / "f.npz", **content)
    with pytest.raises(InputError, match=sentence):
        Features.load(tmp_path / "f.npz")


def test_feature_files_may_lack_paths_and_have_half_precision(tmp_path):
    content = features(values=np.ones((3, 2), dtype=np.float16))
    del content["path"]
    np.savez(tmp_path / "f.npz", **content)
    loaded = Features.load(tmp_path / "f.npz")
    assert loaded.path.tolist() == ["", "", ""]
    assert loaded.values.dtype == np.float32
    with pytest.raises(InputError, match="no feature file"):
        Features.load(tmp_path / "absent.npz")


def test_runs_are_found_by_config_or_eval(tmp_path):
    Run.create(tmp_path / "b", "pretrain", {})
    Run(tmp_path / "a").save_result("d", result())
    (tmp_path / "notes").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert [run.name for run in find_runs(tmp_path)] == ["a", "b"]
    assert find_runs(tmp_path / "nowhere") == []


def test_a_run_from_before_a_setting_existed_goes_on_with_that_setting_s_default(tmp_path):
    @dataclass(frozen=True)
    class Settings:
        lr: float = 0.1
        newer: str | None = None

        @classmethod
        def tiny(cls):
            return cls(newer="tiny")

    run = Run.create(tmp_path / "r", "finetune", Settings())
    run.save_result("d", result())
    config = json.loads((run.folder / "config.json").read_text())
    del config["settings"]["newer"]
    (run.folder / "config.json").write_text(json.dumps(config))
    for usual in (Settings(), Settings.tiny()):
        assert Run.create(run.folder, "finetune", usual).evals() == ["d"]
    with pytest.raises(InputError, match="newer was None, now 'x'"):
        Run.create(run.folder, "finetune", Settings(newer="x"))
