"""`lab reproduce`: the plan, its costs, the published figures beside ours, and a whole run in miniature."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from lab import cli
from lab.backbone import resnet
from lab.errors import InputError
from lab.finetune.train import FinetuneConfig
from lab.published import TABLE, luperson_results, published_results
from lab.reproduce import Recipe, _flops, finetuning_hours, plan, pretraining_hours, pretraining_step
from lab.runs import Run

SHARED = Path(__file__).parents[2] / "shared" / "reference" / "paper_results.csv"
RECIPE = Recipe("lup-r50", 50, released=False, setting="full", ratio=1.0, splits=None, size="paper", tflops=50)


@pytest.mark.skipif(not SHARED.is_file(), reason="../shared/reference/paper_results.csv is not here")
def test_the_shipped_table_is_the_collected_one():
    assert TABLE.read_text() == SHARED.read_text()


def test_published_figures_of_market1501():
    """The README of the released models says 91.12/96.26 and re-ranked 96.16/97.12; the paper says 91.0/96.4."""
    found = luperson_results("market1501")
    assert found[["rerank", "mAP", "rank1"]].values.tolist() == [
        ["no", 91.12, 96.26], ["yes", 96.16, 97.12], ["no", 91.0, 96.4]
    ]  # fmt: skip
    assert luperson_results("cuhk03", 101)["mAP"].tolist() == [75.98, 86.73]
    assert luperson_results("market1501", setting="small-scale", ratio=0.1)["mAP"].tolist() == [64.6]
    assert luperson_results("market1501", setting="few-shot", ratio=0.3)["mAP"].tolist() == [78.3]
    assert luperson_results("market1501", pretraining="ImageNet sup.")["mAP"].tolist() == [87.5]
    assert luperson_results("market1501", 152).empty
    assert set(published_results()["provenance"]) == {"repo", "2nd"}


def test_the_commands_of_the_full_recipe():
    first = pretraining_step(Path("crops"), Path("out/pretraining"), "paper", 101, 50)
    assert str(first).startswith("lab pretrain --data crops --out out/pretraining --size paper --depth 101   # about ")
    (one,) = plan({"msmt17": Path("m")}, Path("out"), RECIPE)
    assert [" ".join(step.arguments) for step in one.steps] == [
        "finetune --dataset msmt17 --root m --out out/msmt17-lup-r50 --init lup-r50 --size paper --depth 50 --amp off",
        "evaluate --run out/msmt17-lup-r50 --dataset msmt17 --root m",
        "evaluate --run out/msmt17-lup-r50 --dataset msmt17 --root m --rerank",
    ]


def test_the_commands_of_the_released_models():
    (one,) = plan({"cuhk03": Path("c")}, Path("out"), replace(RECIPE, released=True))
    first = "evaluate --weights lup-mgn-cuhk03 --out out/cuhk03-released --dataset cuhk03 --root c"
    assert [" ".join(step.arguments) for step in one.steps] == [first, f"{first} --rerank"]


@pytest.mark.parametrize(
    ("dataset", "setting", "splits", "options"),
    [
        ("market1501", "small-scale", None, "--fraction 0.1 --fraction-of ids"),
        ("market1501", "few-shot", None, "--fraction 0.1 --fraction-of images"),
        ("dukemtmc", "few-shot", Path("s"), "--subset s/duke/few_ims/used_ims_0.10.txt"),
        ("cuhk03", "small-scale", Path("s"), "--subset s/cuhk03_np/labeled/few_ids/used_ids_0.10.txt"),
    ],
)
def test_fractions_are_drawn_or_read(dataset, setting, splits, options):
    recipe = replace(RECIPE, setting=setting, ratio=0.1, splits=splits)
    (one,) = plan({dataset: Path("d")}, Path("out"), recipe)
    assert " ".join(one.steps[0].arguments).endswith(options)
    assert one.run == Path(f"out/{dataset}-lup-r50-{setting}-0.10")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ratio": 0.1}, "setting full goes with ratio 1.0"),
        ({"setting": "few-shot"}, "setting few-shot goes with a ratio below 1"),
        ({"released": True, "setting": "few-shot", "ratio": 0.1}, "released for ResNet-50 and the full data sets only"),
        ({"released": True, "depth": 101}, "released for ResNet-50"),
    ],
)
def test_what_cannot_be_reproduced(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        plan({"market1501": Path("m")}, Path("out"), replace(RECIPE, **changes))


def test_hours_follow_from_counted_operations():
    """ResNet-50 has 4.09 G multiply-adds at 224 x 224; hours are proportional to images and to 1 / TFLOP/s."""
    with torch.device("meta"):
        assert _flops(resnet(50), torch.empty(1, 3, 224, 224)) == pytest.approx(2 * 4.09e9, rel=0.01)
    assert pretraining_hours(50, 100) == pytest.approx(pretraining_hours(50, 50) / 2)
    market, msmt = (finetuning_hours(name, 50, "full", 1.0, 50) for name in ("market1501", "msmt17"))
    assert msmt / market == pytest.approx(509 / 202, rel=0.01)  # steps of an epoch
    tenth = finetuning_hours("market1501", 50, "small-scale", 0.1, 50)
    assert tenth / market == pytest.approx(20 / 202, rel=0.05)


def lab(capsys, *arguments: str) -> str:
    cli.main(list(arguments))
    return capsys.readouterr().out


def test_without_a_data_set_the_plan_is_printed_and_nothing_is_run(capsys, tmp_path):
    printed = lab(capsys, "reproduce", "--out", str(tmp_path / "out"))
    for name in ("market1501", "dukemtmc", "msmt17", "cuhk03"):
        assert f"lab finetune --dataset {name} --root DIR" in printed
    assert "GPU hours" in printed
    assert "an assumption and no measurement" in printed
    assert "66.06" in printed
    assert list(tmp_path.iterdir()) == []


def test_our_number_beside_the_published_one(capsys, market, tmp_path, monkeypatch):
    """The commands that are printed are run: here on eight coloured people in Market-1501's layout."""
    tiny = replace(
        FinetuneConfig.tiny(), height=48, width=24, last_stride=1, epochs=1, ids_per_batch=4, images_per_id=4, padding=2
    )
    monkeypatch.setattr(FinetuneConfig, "tiny", classmethod(lambda cls: tiny))
    arguments = [
        "reproduce",
        "--out",
        str(tmp_path),
        "--market1501",
        str(market),
        "--init",
        "shipped",
        "--size",
        "tiny",
    ]
    printed = lab(capsys, *arguments)
    run = Run.open(tmp_path / "market1501-shipped")
    assert run.evals() == ["market1501", "market1501-rerank"]
    table = printed[printed.index("Ours beside the published figures") :]
    mean = 100 * run.result("market1501").mAP
    row = next(line for line in table.splitlines() if line.split()[:2] == ["market1501", "no"])
    assert row.split()[2] == f"{mean:.2f}"
    assert row.split()[2:][1:] == [
        f"{100 * run.result('market1501').cmc[0]:.2f}",
        *["-"] * 4,
    ]  # ResNet-18: none published
    weights = run.checkpoint.stat().st_mtime_ns
    assert lab(capsys, *arguments)
    assert run.checkpoint.stat().st_mtime_ns == weights  # what was done is not done again


def test_released_weights_are_evaluated_as_they_are(capsys, market, tmp_path, monkeypatch):
    """A fine-tuned file under its released name; small, at the size that it is evaluated at here."""
    from lab.convert import convert
    from lab.finetune.mgn import MGN

    monkeypatch.setenv("LAB_WEIGHTS", str(tmp_path / "weights"))
    torch.manual_seed(0)
    torch.save({"model": MGN(8, 18).state_dict(), "step": 1, "config": {"last_stride": 1}}, tmp_path / "own.pt")
    (tmp_path / "weights").mkdir()
    convert(tmp_path / "own.pt", tmp_path / "weights" / "lup-mgn-market1501.pth", to="fastreid")
    size = ["--height", "48", "--width", "24"]
    command = ["evaluate", "--weights", "lup-mgn-market1501", "--dataset", "market1501", "--root", str(market), *size]
    lab(capsys, *command, "--out", str(tmp_path / "run"))
    lab(capsys, *command, "--out", str(tmp_path / "run"), "--rerank")
    run = Run.open(tmp_path / "run")
    assert run.config["stage"] == "weights"
    assert run.config["init"]["weights"] == "lup-mgn-market1501"
    assert run.evals() == ["market1501", "market1501-rerank"]
    assert isinstance(run.log(), pd.DataFrame)
