"""The run folder: what is written comes back, what was there stays."""

import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from lab.errors import InputError
from lab.files import replacing
from lab.runs import EvalResult, Features, Run, find_runs

FORK = multiprocessing.get_context("fork")
HEADER = b"step,epoch,loss\n"


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


@dataclass(frozen=True)
class HowSettings:
    HOW: ClassVar[frozenset[str]] = frozenset({"num_workers", "keep"})
    lr: float = 0.1
    num_workers: int = 8
    keep: int = 1


def test_settings_that_say_how_the_work_is_done_may_change(tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", HowSettings())
    run.checkpoint.write_text("weights")
    config = (run.folder / "config.json").read_text()
    assert json.loads(config)["settings"] == {"lr": 0.1, "num_workers": 8, "keep": 1}
    again = Run.create(run.folder, "pretrain", HowSettings(num_workers=2, keep=5))
    assert again.config["settings"]["num_workers"] == 8  # as the run was begun
    assert (run.folder / "config.json").read_text() == config
    with pytest.raises(InputError, match="lr was 0.1, now 0.2"):
        Run.create(run.folder, "pretrain", HowSettings(lr=0.2, num_workers=2))
    older = json.loads(config)
    del older["settings"]["keep"]  # made before the setting existed
    (run.folder / "config.json").write_text(json.dumps(older))
    Run.create(run.folder, "pretrain", HowSettings(keep=7))
    older["settings"]["gone"] = 1  # made by other code: what it meant is not known
    (run.folder / "config.json").write_text(json.dumps(older))
    with pytest.raises(InputError, match="gone was 1, now None"):
        Run.create(run.folder, "pretrain", HowSettings())


def test_an_older_checkpoint_alone_is_something_to_lose(tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", {"lr": 0.1})
    for name in ("checkpoint-000000010.pt", "checkpoint-000000200.pt", "checkpoint-best.pt", "checkpoint-1.damaged.pt"):
        (run.folder / name).write_text("weights")
    older = run.older_checkpoints()
    assert [(file.name, step) for file, step in older.items()] == [
        ("checkpoint-000000200.pt", 200),
        ("checkpoint-000000010.pt", 10),
    ]
    with pytest.raises(InputError, match="lr was 0.1, now 0.2"):
        Run.create(run.folder, "pretrain", {"lr": 0.2})


HOLD = """
import sys
from lab.runs import Run
with Run(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A run that another process writes."""
    run = Run.create(tmp_path / "r", "pretrain", {"lr": 0.1})
    command = [sys.executable, "-c", HOLD, str(run.folder)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"locked\n"
    yield run, other
    other.kill()
    other.communicate()


def enter(run: Run) -> None:
    with run.locked():
        pass


def test_a_second_process_is_refused_until_the_first_has_ended_or_was_killed(held):
    run, other = held
    before = (run.folder / "config.json").read_bytes()
    with pytest.raises(InputError, match=f"another process is writing {run.folder}; wait for it or stop it"):
        enter(run)
    for settings in ({"lr": 0.1}, {"lr": 0.2}):  # it has no checkpoint yet, and still is not to be overwritten
        with pytest.raises(InputError, match="another process is writing"):
            Run.create(run.folder, "pretrain", settings)
    assert (run.folder / "config.json").read_bytes() == before
    run.checkpoint.write_text("weights")
    assert Run.create(run.folder, "pretrain", {"lr": 0.1}).config == run.config  # nothing is written
    other.send_signal(signal.SIGKILL)
    other.wait()
    enter(run)


def test_the_lock_may_be_nested_and_is_held_to_the_end(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "r", "pretrain", {})
    monkeypatch.chdir(tmp_path)
    with run.locked():
        with Run("r").locked(), Run(tmp_path / "r" / ".." / "r").locked():
            assert in_another_process(enter, run) == "refused"
        assert in_another_process(enter, run) == "refused"
        refused = []
        thread = threading.Thread(target=lambda: refused.append(_refusal(enter, run)))
        thread.start()
        thread.join()
        assert refused == ["refused"]  # another thread that trains the same run is no nesting
    assert in_another_process(enter, run) == "done"
    with pytest.raises(ZeroDivisionError), run.locked():
        raise ZeroDivisionError
    assert in_another_process(enter, run) == "done"


def _refusal(function, *arguments) -> str:
    try:
        function(*arguments)
    except InputError:
        return "refused"
    return "done"


def _report(answer, function, *arguments) -> None:
    answer.put(_refusal(function, *arguments))


def in_another_process(function, *arguments) -> str:
    """ "done", or "refused" when it raised InputError; the process is a copy of this one."""
    answer = FORK.SimpleQueue()
    process = FORK.Process(target=_report, args=(answer, function, *arguments))
    process.start()
    process.join(60)
    return answer.get() if process.exitcode == 0 else f"died with {process.exitcode}"


def create_and_hold(folder, settings, gate, answer) -> None:
    gate.wait(60)
    try:
        run = Run.create(folder, "pretrain", settings)
        with run.locked():
            same = json.loads((folder / "config.json").read_text())["settings"] == settings
            answer.put("trains" if same else "trains with the settings of another")
            gate.wait(60)
            run.checkpoint.write_text("weights")
    except InputError as error:
        answer.put(str(error))
        gate.wait(60)


@pytest.mark.parametrize("attempt", range(5))
def test_of_processes_that_race_for_a_run_one_trains_with_its_own_settings(tmp_path, attempt):
    gate, answer = FORK.Barrier(4), FORK.SimpleQueue()
    jobs = [FORK.Process(target=create_and_hold, args=(tmp_path / "r", {"lr": lr}, gate, answer)) for lr in range(4)]
    for job in jobs:
        job.start()
    answers = [answer.get() for _ in jobs]
    for job in jobs:
        job.join(60)
    assert answers.count("trains") <= 1
    assert all("another process" in said for said in answers if said != "trains")


def test_a_run_that_was_begun_anew_by_others_is_not_trained(tmp_path):
    mine = Run.create(tmp_path / "r", "pretrain", {"lr": 0.1})
    Run.create(tmp_path / "r", "pretrain", {"lr": 0.2})
    with pytest.raises(InputError, match="another process has begun .* anew with other settings"):
        enter(mine)
    enter(Run(tmp_path / "r"))


def test_a_run_that_another_process_begins_anew_right_after_its_creation_is_not_trained(tmp_path, monkeypatch):
    locked = Run.locked

    @contextmanager
    def overtaken(run):
        with locked(run):
            yield
        monkeypatch.undo()
        assert in_another_process(Run.create, run.folder, "pretrain", {"lr": 0.2}) == "done"

    monkeypatch.setattr(Run, "locked", overtaken)
    mine = Run.create(tmp_path / "r", "pretrain", {"lr": 0.1})
    with pytest.raises(InputError, match="another process has begun .* anew with other settings"):
        enter(mine)


def test_the_first_process_of_a_job_creates_and_locks_and_the_others_open(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "r", "pretrain", {"lr": 0.1})
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match="no run at"):
        Run.create(tmp_path / "new", "pretrain", {"lr": 0.1})
    before = (run.folder / "config.json").read_bytes()
    assert Run.create(run.folder, "pretrain", {"lr": 0.1}).config == run.config
    assert (run.folder / "config.json").read_bytes() == before
    with run.locked():  # it does not hold the lock
        monkeypatch.setenv("RANK", "0")
        assert in_another_process(enter, run) == "done"
    with run.locked():
        assert in_another_process(enter, run) == "refused"


def test_what_killed_processes_left_half_written_goes_and_nothing_else(tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", {})
    mine = [".checkpoint.pt.a1b2", ".log.csv.x", ".config.json.y_z"]
    others = [".checkpoint.pt", ".notes", "checkpoint.pt", ".result.json.x", "log.csv.old"]
    for name in mine + others:
        (run.folder / name).write_text("")
    with run.locked():
        (run.folder / ".checkpoint.pt.now").write_text("")  # being written by this process
        enter(run)
        assert (run.folder / ".checkpoint.pt.now").exists()
    left = {file.name for file in run.folder.iterdir()}
    assert left == {"config.json", ".lock", ".checkpoint.pt.now", *others}


def test_a_folder_with_a_lock_and_leftovers_alone_is_empty(tmp_path):
    (tmp_path / "r").mkdir()
    for name in (".lock", ".config.json.killed"):
        (tmp_path / "r" / name).write_text("")
    assert Run.create(tmp_path / "r", "pretrain", {"lr": 0.1}).config["settings"] == {"lr": 0.1}
    assert {file.name for file in (tmp_path / "r").iterdir()} == {".lock", "config.json"}


def test_locking_a_new_folder_makes_it_and_an_unwritable_place_is_explained(tmp_path):
    with Run(tmp_path / "a" / "b").locked():
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the run folder .*file/r \(Not a directory\)"):
        enter(Run(tmp_path / "file" / "r"))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOTSUP, "Operation not supported"), OSError(errno.EROFS, "Read-only")]
)
def test_file_systems_without_locks_or_without_writing(tmp_path, monkeypatch, capsys, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("lab.runs.FileLock.acquire", refuse)
    if error.errno == errno.ENOTSUP:
        enter(Run(tmp_path / "r"))
        assert "has no locks: start no second process there" in capsys.readouterr().err
    else:
        with pytest.raises(InputError, match="cannot write the run folder"):
            enter(Run(tmp_path / "r"))


def logged(tmp_path, *lines: bytes) -> Run:
    run = Run.create(tmp_path / "r", "pretrain", {})
    run.log_file.write_bytes(b"".join(lines))
    return run


def test_the_text_of_a_logged_number_says_its_last_bit(tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", {})
    numbers = np.random.default_rng(0).standard_normal(50) * 10.0 ** np.arange(-25, 25)
    for step, number in enumerate(numbers):
        run.append_log({"step": step, "python": float(number), "numpy": number, "none": float("nan")})
    header, *lines = run.log_file.read_text().splitlines()
    assert header == "step,python,numpy,none"
    for step, (line, number) in enumerate(zip(lines, numbers, strict=True)):
        fields = line.split(",")
        assert int(fields[0]) == step
        assert float(fields[1]) == float(fields[2]) == number
    assert run.log()["none"].isna().all()


def test_a_torn_last_line_is_never_taken_for_a_row(tmp_path):
    """Cut at every byte: "120,3,0.0" becomes "12" on the way, which is a step too."""
    text = HEADER + b"100,3,0.25\n120,3,0.0625\n"
    for length in range(len(text) + 1):
        run = logged(tmp_path, text[:length])
        whole = text[:length].count(b"\n") - 1
        assert len(run.log()) == max(0, whole), length
        assert list(run.log()["step"] if whole > 0 else []) == [100, 120][: max(0, whole)]
        run.append_log({"step": 140, "epoch": 3, "loss": 0.5})
        kept = text[:length].rpartition(b"\n")[0]
        assert run.log_file.read_bytes() == (kept + b"\n" if kept else HEADER) + b"140,3,0.5\n"


@pytest.mark.parametrize(
    ("before", "step", "after"),
    [
        (HEADER + b"10,1,0.50\n20,1,1e-1\n30,2,.3\n", 20, HEADER + b"10,1,0.50\n20,1,1e-1\n"),
        (HEADER + b"10,1,0.50\n20,1,1e-1\n", 20, HEADER + b"10,1,0.50\n20,1,1e-1\n"),
        (HEADER + b"100,1,0.50\n120,1,0.1\n12", 120, HEADER + b"100,1,0.50\n120,1,0.1\n"),
        (b"step,epoch,loss\r\n10,1,0.50\r\n20,1,nan\r\n30,2,\r", 20, b"step,epoch,loss\r\n10,1,0.50\r\n20,1,nan\r\n"),
        (HEADER + b"9,1,nan\n10,1,\n\0\0\0\0\n", 10, HEADER + b"9,1,nan\n10,1,\n"),
        (b"loss,step\n1,10\n2,20\n30,3", 15, b"loss,step\n1,10\n"),
    ],
)
def test_trimming_keeps_the_other_lines_byte_for_byte(tmp_path, before, step, after):
    run = logged(tmp_path, before)
    run.trim_log(step)
    assert run.log_file.read_bytes() == after


@pytest.mark.parametrize("text", [b"", b"step,ep", HEADER, HEADER + b"5,1,0.5\n", HEADER + b"5,1"])
def test_a_log_of_which_no_row_is_left_is_deleted(tmp_path, text):
    run = logged(tmp_path, text)
    run.trim_log(-1)
    assert not run.log_file.exists()
    run.trim_log(-1)
    run.append_log({"step": 1, "other": 2})
    assert run.log()["other"].tolist() == [2]


def test_a_log_without_steps_is_named(tmp_path):
    with pytest.raises(InputError, match="log.csv has no column 'step'"):
        logged(tmp_path, b"5,1,0.5\n").trim_log(3)


def test_trimming_a_log_that_is_all_right_does_not_write_it(tmp_path):
    run = logged(tmp_path, HEADER, b"5,1,0.5\n")
    before = run.log_file.stat()
    run.trim_log(5)
    assert (run.log_file.stat().st_ino, run.log_file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def append_with_limit(run: Run, limit: int, row: dict) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    run.append_log(row)


@pytest.mark.parametrize("room", [0, 1, 5, 10, 11])
def test_a_full_disk_leaves_no_half_line(tmp_path, room):
    text = HEADER + b"10,1,0.5\n"
    run = logged(tmp_path, text)
    row = {"step": 20, "epoch": 1, "loss": 0.125}  # 11 bytes
    said = in_another_process(append_with_limit, run, len(text) + room, row)
    assert said == ("done" if room == 11 else "refused")
    assert run.log_file.read_bytes() == text + b"20,1,0.125\n" * (room == 11)


def test_a_disk_that_fails_to_sync_a_row_is_explained(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    run = Run.create(tmp_path / "r", "pretrain", {})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=r"log.csv \(No space left on device\); free space there .* same command to go on"
    ):
        run.append_log({"step": 1})
    assert run.log_file.read_bytes() == b""
