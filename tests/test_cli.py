"""The command: what it promises in its help, exit code 2 with one sentence, and files that stay as they were."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from pictures import write_person

from lab.backbone import Embedder
from lab.cli import VERBS, main
from lab.errors import Stopped
from lab.export import run_onnx
from lab.finetune.mgn import MGN
from lab.finetune.train import FinetuneConfig
from lab.models import image_size, load_descriptor, load_model
from lab.pretrain.moco import MoCo
from lab.pretrain.train import PretrainConfig
from lab.runs import Run

TINY_PRETRAIN = (
    "--size tiny --height 32 --width 16 --dim 8 --queue-size 16 --batch-size 8 --bn-groups 2 --epochs 1 --num-workers 0 "
    "--lr 0.01"
).split()  # fmt: skip
TINY_FINETUNE = (
    "--size tiny --height 48 --width 24 --last-stride 1 --ids-per-batch 2 --images-per-id 3 --epochs 1".split()
)


def lab(capsys, *arguments) -> tuple[int, str, str]:
    """Run the command in this process: exit code, standard output, standard error."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def snapshot(folder) -> dict:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def refused(capsys, *arguments) -> str:
    """The one sentence of a refusal: exit code 2, one line on standard error, no traceback."""
    code, _, error = lab(capsys, *arguments)
    sentences = [line for line in error.splitlines() if line.startswith("lab: ")]
    assert code == 2, error
    assert len(sentences) == 1
    assert "Traceback" not in error
    return sentences[0]


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], *([*verb.split(), "--help"] for verb in VERBS)])
def test_every_verb_has_help(arguments, capsys):
    code, out, _ = lab(capsys, *arguments)
    assert code == 0
    assert "usage: lab" in out


def test_help_shows_each_setting_with_meaning_and_the_default_of_the_size(capsys):
    paper, tiny = (lab(capsys, "pretrain", "--help", *size)[1] for size in ([], ["--size", "tiny"]))
    paper, tiny = (" ".join(text.replace("│", " ").split()) for text in (paper, tiny))
    assert "keys of earlier batches to tell the own key from (default: 65536)" in paper
    assert "keys of earlier batches to tell the own key from (default: 1024)" in tiny


def test_python_m_lab_is_lab():
    done = subprocess.run([sys.executable, "-m", "lab", "fly"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("lab: there is no verb 'fly'; choose among demo, data check")


def test_wrong_usage_ends_with_2(capsys):
    for arguments in (["pretrain"], ["finetune", "--dataset", "market1501"], ["pretrain", "--lr", "x"], ["data"], []):
        assert lab(capsys, *arguments)[0] == 2


def stopping(error):
    def call(*_):
        raise error

    return call


def test_a_training_that_was_asked_to_stop_and_has_saved_ends_with_0_and_a_sentence(capsys, monkeypatch):
    monkeypatch.setattr("lab.cli.call", stopping(Stopped("stopped by SIGTERM after step 7", 15)))
    assert lab(capsys, "pretrain") == (0, "", "\nlab: stopped by SIGTERM after step 7\n")
    monkeypatch.setenv("RANK", "1")  # the first process says it for all
    assert lab(capsys, "pretrain") == (0, "", "")


def test_ctrl_c_ends_with_130_and_says_what_is_kept(capsys, monkeypatch):
    for error, sentence in (
        (KeyboardInterrupt(), "stopped; what was written so far is kept"),
        (KeyboardInterrupt("stopped by SIGINT after step 7"), "stopped by SIGINT after step 7"),
    ):
        monkeypatch.setattr("lab.cli.call", stopping(error))
        assert lab(capsys, "pretrain") == (130, "", f"\nlab: {sentence}\n")


def test_from_crops_to_a_rank_list(capsys, market, tmp_path):
    """The whole path on a tiny Market-style folder: pre-train, fine-tune, evaluate twice, evaluate the feature files."""
    root = ["--dataset", "market1501", "--root", market]
    moco, mgn, files = tmp_path / "moco", tmp_path / "mgn", tmp_path / "files"
    probe = ["--probe-root", market]
    assert (
        lab(capsys, "pretrain", "--data", market / "bounding_box_train", "--out", moco, *TINY_PRETRAIN, *probe)[0] == 0
    )
    assert Run.open(moco).log()["probe_mAP"].notna().sum() == 2
    code, out, _ = lab(capsys, "finetune", *root, "--out", mgn, "--init", moco, *TINY_FINETUNE)
    assert (code, "tensors loaded" in out) == (0, True)
    assert json.loads((mgn / "config.json").read_text())["init"]["weights"] == str(moco)
    assert lab(capsys, "evaluate", "--run", mgn, *root)[0] == 0
    assert lab(capsys, "evaluate", "--run", mgn, *root, "--rerank", "--k1", "4", "--k2", "2")[0] == 0
    run = Run.open(mgn)
    assert run.evals() == ["market1501", "market1501-rerank"]
    result = run.result("market1501")
    assert (result.num_query, result.num_valid_query, result.num_gallery) == (15, 15, 17)
    assert result.index.shape == (15, 50)
    assert (result.index[:, 16:] == -1).all()  # 17 gallery crops, of which the query's own camera is removed
    stored = ["--query-features", mgn / "features" / "market1501-query.npz"]
    stored += ["--gallery-features", mgn / "features" / "market1501-gallery.npz"]
    assert lab(capsys, "evaluate", *stored, "--out", files, "--name", "market1501")[0] == 0
    again = Run.open(files).result("market1501")
    assert again.mAP == result.mAP
    np.testing.assert_array_equal(again.index, result.index)


def test_export_of_a_run_writes_what_its_model_says(capsys, tmp_path):
    pytest.importorskip("onnxruntime")
    config = replace(FinetuneConfig.tiny(), height=48, width=24, last_stride=1)
    run = Run.create(tmp_path / "mgn", "finetune", config)
    model = MGN(5, config.depth, extra_bn=False, last_stride=1)
    torch.save({"model": model.state_dict(), "config": asdict(config)}, run.checkpoint)
    before = snapshot(tmp_path)
    code, out, _ = lab(capsys, "export", run.folder, "--out", tmp_path / "model.onnx")
    assert (code, "images of 48 x 24 pixels" in out, "smallest cosine 1.0" in out) == (0, True, True)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 48, 24), dtype=np.uint8)
    expected = load_model(run).embed(torch.from_numpy(images))
    np.testing.assert_allclose(run_onnx(tmp_path / "model.onnx", images), expected, atol=1e-5)
    assert snapshot(tmp_path) == before | {"model.onnx": (tmp_path / "model.onnx").read_bytes()}


def test_export_takes_files_and_knows_the_size_that_their_recipe_has(tmp_path, capsys):
    model, config = MoCo(18, 8, 16), replace(PretrainConfig.tiny(), dim=8, queue_size=16)
    torch.save({"model": model.state_dict(), "config": asdict(config)}, tmp_path / "moco.pt")
    torch.save({"model": MGN(3, 18).state_dict()}, tmp_path / "mgn.pth")
    images = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    pretrained, settings = load_descriptor(str(tmp_path / "moco.pt"))
    torch.testing.assert_close(pretrained.embed(images), model.embed(images))
    assert image_size("moco.pt", pretrained, settings) == (128, 64)
    finetuned, settings = load_descriptor(str(tmp_path / "mgn.pth"))
    assert (type(finetuned), settings) == (MGN, {})
    assert "give --height and --width" in refused(capsys, "export", tmp_path / "mgn.pth", "--out", tmp_path / "m.onnx")
    with torch.device("meta"):
        assert image_size("lup-mgn-msmt17", MGN(3, 50), {}) == (384, 128)
        assert image_size("lup-r50", Embedder(50), {}) == (256, 128)


def test_baselines_need_no_training(capsys, market, tmp_path):
    root = ["--dataset", "market1501", "--root", market]
    for name in ("histogram", "untrained"):
        assert lab(capsys, "evaluate", "--baseline", name, "--out", tmp_path / name, *root)[0] == 0
    assert Run.open(tmp_path / "histogram").result("market1501").mAP > 0.5  # people are two plain colours here


def test_data_check_reports_counts_and_broken_pictures(capsys, market, tmp_path):
    code, out, _ = lab(capsys, "data", "check", "--dataset", "market1501", "--root", market)
    assert code == 0
    assert "1 junk" in out
    assert "12936" in out  # the published count beside ours
    assert "all 80 images can be read" in out
    shutil.copytree(market, tmp_path / "m")
    victim = next((tmp_path / "m" / "query").iterdir())
    victim.write_bytes(victim.read_bytes()[:150])
    sentence = refused(capsys, "data", "check", "--dataset", "market1501", "--root", tmp_path / "m")
    assert "1 image(s) cannot be read" in sentence
    assert victim.name in sentence


def test_data_synth_writes_a_folder_that_reads_as_market(capsys, tmp_path):
    small = "--num-train-ids 2 --num-test-ids 2 --num-unlabeled 3 --people-unlabeled 2 --num-distractors 1 --num-junk 1"
    for _ in range(2):  # the second time it is there already
        assert lab(capsys, "data", "synth", "--out", tmp_path / "s", *small.split(), "--workers", "1")[0] == 0
    for dataset in ("synthetic", "market1501"):
        assert lab(capsys, "data", "check", "--dataset", dataset, "--root", tmp_path / "s")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("finetune --dataset market1501 --root {nowhere} --out {out}", "there is no folder"),
        ("finetune --dataset market1501 --root {empty} --out {out}", "has no bounding_box_train"),
        ("finetune --dataset market1501 --root {market} --out {out} --init {nowhere}", "no weights at"),
        ("finetune --dataset market1501 --root {market} --out {out} --init {text}", "cannot be read as a checkpoint"),
        ("finetune --dataset market1501 --root {market} --out {photos}", "not a run"),
        ("finetune --dataset market1501 --root {market} --out {pretrained}", "stage 'pretrain', and 'finetune'"),
        ("pretrain --data {nowhere} --out {out}", "there is no folder"),
        ("pretrain --data {empty} --out {out}", "holds no image"),
        ("pretrain --data {photos} --out {out} --size tiny", "fewer than one batch of"),
        ("pretrain --data {market} --out {text}/run --size tiny", "cannot write|not a run|a file"),
        ("evaluate --run {nowhere} --dataset market1501 --root {market}", "no run at"),
        ("evaluate --run {photos} --dataset market1501 --root {market}", "is not a run"),
        ("evaluate --run {pretrained} --dataset market1501 --root {market}", "no weights at"),
        ("evaluate --dataset market1501 --root {market}", "give one of --run"),
        ("evaluate --run {pretrained}", "--dataset and --root are missing"),
        ("evaluate --query-features {nowhere} --out {out}", "without --gallery-features"),
        ("evaluate --query-features {nowhere} --gallery-features {nowhere} --out {out}", "no feature file"),
        ("evaluate --baseline histogram --dataset market1501 --root {market}", "need --out"),
        ("data check --dataset folder --root {empty}", "0 CSV files"),
        ("data synth --out {photos}", "photos"),
        ("export {nowhere} --out {out}.onnx", "no weights at"),
        ("export {text} --out {out}.onnx", "cannot be read as a checkpoint"),
        ("export {photos} --out {out}.onnx", "is not a run"),
        ("export shipped --out {out} --height 64 --width 32", "ends in .onnx"),
        (
            "evaluate --weights {text} --dataset market1501 --root {market} --out {out}",
            "cannot be read as a checkpoint",
        ),
        ("evaluate --weights lup-r18 --dataset market1501 --root {market} --out {out}", "no weights at lup-r18"),
        ("evaluate --run {out} --k1 0", "k1 0"),
        ("convert {text} --out {out}.safetensors", "cannot be read as a checkpoint"),
        ("convert shipped --out {out}.safetensors --to lup_moco", "ends in .pth or .pt"),
        ("convert shipped --out {out}.pth --to lup_moco", "expected the state_dict entry of a raw MoCo checkpoint"),
        ("download lup-r18", "there is no released file 'lup-r18'"),
        ("reproduce --out {out} --ratio 0.5", "--setting full; expected 1.0"),
        ("reproduce --out {out} --market1501 {nowhere}", "there is no folder"),
        ("reproduce --out {out} --init {text} --market1501 {market}", "cannot be read as a checkpoint"),
        ("app {nowhere}", "there is no folder"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(arguments, sentence, capsys, market, tmp_path):
    places = {name: tmp_path / name for name in ("nowhere", "out", "empty", "photos", "text", "pretrained")}
    places["empty"].mkdir()
    for number in range(3):
        write_person(places["photos"] / f"{number}.jpg", number, 1)
    places["text"].write_text("no weights here")
    Run.create(places["pretrained"], "pretrain", {"lr": 1})
    before = snapshot(tmp_path)
    words = [word.format(**places, market=market) for word in arguments.split()]
    assert re.search(sentence, refused(capsys, *words))
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.endswith((".pt", "result.json"))]


def test_a_truncated_jpeg_stops_an_evaluation_and_leaves_the_earlier_result(capsys, market, tmp_path):
    shutil.copytree(market, tmp_path / "m")
    root = ["--dataset", "market1501", "--root", tmp_path / "m"]
    baseline = ["evaluate", "--baseline", "untrained", "--out", tmp_path / "run"]
    assert lab(capsys, *baseline, *root)[0] == 0
    before = snapshot(tmp_path / "run")
    victim = next((tmp_path / "m" / "query").iterdir())
    victim.write_bytes(victim.read_bytes()[:150])
    assert victim.name in refused(capsys, *baseline, *root)
    assert snapshot(tmp_path / "run") == before


def test_other_settings_in_an_old_run_folder_are_refused(capsys, market, tmp_path):
    command = ["pretrain", "--data", market, "--out", tmp_path / "r", *TINY_PRETRAIN]
    assert lab(capsys, *command)[0] == 0
    before = snapshot(tmp_path)
    assert "lr was 0.01, now 0.5" in refused(capsys, *command, "--lr", "0.5")
    assert snapshot(tmp_path) == before
    assert lab(capsys, *command)[0] == 0  # the same settings: nothing is left to do


def test_too_few_identities_a_poisoned_start_and_too_large_a_step(capsys, market, tmp_path):
    root = ["--dataset", "market1501", "--root", market]
    few = ["--size", "tiny", "--fraction", "0.13", "--ids-per-batch", "4"]
    assert "1 identities, and a batch needs 4" in refused(capsys, "finetune", *root, "--out", tmp_path / "a", *few)
    pretrain = ["pretrain", "--data", market, "--out", tmp_path / "b", *TINY_PRETRAIN, "--lr", "1e30", "--epochs", "4"]
    assert "training cannot go on" in refused(capsys, *pretrain, "--warmup-epochs", "0")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "tiny.pth")
    out = ["--out", tmp_path / "c", "--init", tmp_path / "tiny.pth", *TINY_FINETUNE]
    assert "do not fit the trunk" in refused(capsys, "finetune", *root, *out)
