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
from lab.reproduce import (
    ReproduceConfig,
    Start,
    check_dataset,
    find_start,
    finetuning_hours,
    forward_operations,
    pretraining_hours,
    pretraining_step,
    reproduction,
)
from lab.runs import Run

SHARED = Path(__file__).parents[2] / "shared" / "reference" / "paper_results.csv"
START = Start("lup-r50", 50, "LUP unsup.")


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


def commands(dataset: str, config: ReproduceConfig, start: Start = START) -> list[str]:
    return [" ".join(step.arguments) for step in reproduction(dataset, Path("d"), Path("out"), config, start).steps]


def test_the_commands_of_the_full_recipe():
    config = ReproduceConfig(crops=Path("crops"), depth=101)
    start = find_start(config, Path("out"))
    first = str(pretraining_step(config, start))
    assert first.startswith("lab pretrain --data crops --out out/pretraining --size paper --depth 101   # about ")
    run = "out/msmt17-pretraining"
    assert commands("msmt17", config, start) == [
        f"finetune --dataset msmt17 --root d --out {run} --init out/pretraining --size paper --depth 101 --amp off "
        "--pixels luperson",
        f"evaluate --run {run} --dataset msmt17 --root d",
        f"evaluate --run {run} --dataset msmt17 --root d --rerank",
    ]


def test_the_commands_with_a_released_trunk_and_of_the_released_models():
    assert commands("msmt17", ReproduceConfig(), find_start(ReproduceConfig(), Path("out")))[0] == (
        "finetune --dataset msmt17 --root d --out out/msmt17-lup-r50 --init lup-r50 --size paper --depth 50 --amp off"
    )
    first = "evaluate --weights lup-mgn-cuhk03 --out out/cuhk03-released --dataset cuhk03 --root d"
    assert commands("cuhk03", ReproduceConfig(released=True)) == [first, f"{first} --rerank"]


@pytest.mark.parametrize(
    ("dataset", "setting", "splits", "options"),
    [
        ("market1501", "small-scale", False, "--fraction 0.1 --fraction-of ids"),
        ("market1501", "few-shot", False, "--repeat 3 --seed 5 --fraction 0.1 --fraction-of images"),
        ("dukemtmc", "few-shot", True, "--subset s/duke/few_ims/used_ims_0.10.txt"),
        ("cuhk03", "small-scale", True, "--subset s/cuhk03_np/labeled/few_ids/used_ids_0.10.txt"),
    ],
)
def test_fractions_are_drawn_or_read(dataset, setting, splits, options, tmp_path):
    repeat = {"repeat": 3, "seed": 5} if "repeat" in options else {}
    config = ReproduceConfig(setting=setting, ratio=0.1, splits=tmp_path / "s" if splits else None, **repeat)
    if splits:
        file = tmp_path / options.removeprefix("--subset ")
        with pytest.raises(InputError, match=rf"there is no split file .*{file.name}"):
            commands(dataset, config)
        file.parent.mkdir(parents=True)
        file.touch()
    assert commands(dataset, config)[0].replace(f"{tmp_path}/", "").endswith(options)
    run = reproduction(dataset, Path("d"), Path("out"), config, START).run
    assert run == Path(f"out/{dataset}-lup-r50-{setting}-0.10{'-seed5' if repeat else ''}")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ratio": 0.1}, "--setting full; expected 1.0"),
        ({"setting": "few-shot"}, "expected more than 0 and less than 1"),
        ({"setting": "few-shot", "ratio": -3}, "--ratio is -3"),
        ({"released": True, "setting": "few-shot", "ratio": 0.1}, "released for the full data sets only"),
        ({"released": True, "crops": Path("c")}, "--released and --crops were given; give one"),
        ({"released": True, "init": "lup-r101"}, "--released and --init were given"),
        ({"depth": 101}, "--depth is that of a pre-training on --crops"),
        ({"tflops": 0}, "--tflops is 0"),
    ],
)
def test_what_cannot_be_reproduced(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        ReproduceConfig(**settings)


def test_which_published_figures_stand_beside_ours(tmp_path):
    """By what the weights say of themselves; a file that says nothing gets none, unless the user does."""
    trunk = resnet(18).state_dict()
    torch.save(trunk, tmp_path / "unknown.pth")
    torch.save(trunk | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "labelled.pth")
    for init, published_as, expected in (
        (None, None, ("lup-r50", 50, "LUP unsup.")),
        ("lup-r152", None, ("lup-r152", 152, "LUP unsup.")),
        ("imagenet-r101", None, ("imagenet-r101", 101, "ImageNet sup.")),
        (str(tmp_path / "labelled.pth"), None, (str(tmp_path / "labelled.pth"), 18, "ImageNet sup.")),
        (str(tmp_path / "unknown.pth"), None, (str(tmp_path / "unknown.pth"), 18, None)),
        (str(tmp_path / "unknown.pth"), "imagenet-unsup", (str(tmp_path / "unknown.pth"), 18, "ImageNet unsup.")),
    ):
        assert find_start(ReproduceConfig(init=init, published_as=published_as), tmp_path) == Start(*expected)
    with pytest.raises(InputError, match="lup-mgn-msmt17 is a fine-tuned MGN, and --init wants a trunk"):
        find_start(ReproduceConfig(init="lup-mgn-msmt17"), tmp_path)
    assert luperson_results("market1501", pretraining=None).empty


def test_a_copy_that_is_not_the_published_data_set_is_noted(market):
    assert "this is not the published market1501 (train images 48 instead of 12936" in check_dataset(
        "market1501", market
    )


def test_hours_follow_from_counted_operations():
    """ResNet-50 has 4.09 G multiply-adds at 224 x 224; hours are proportional to images and to 1 / TFLOP/s."""
    with torch.device("meta"):
        operations = forward_operations(resnet(50), torch.empty(1, 3, 224, 224))
    assert operations == pytest.approx(2 * 4.09e9, rel=0.01)
    assert pretraining_hours(50, 100) == pytest.approx(pretraining_hours(50, 50) / 2)
    market, msmt = (finetuning_hours(name, 50, ReproduceConfig()) for name in ("market1501", "msmt17"))
    assert msmt / market == pytest.approx(509 / 202, rel=0.01)  # steps of an epoch
    tenth = finetuning_hours("market1501", 50, ReproduceConfig(setting="small-scale", ratio=0.1))
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
    assert row.split()[3:] == [f"{100 * run.result('market1501').cmc[0]:.2f}", *["-"] * 4]  # ResNet-18: none published
    assert "this is not the published market1501" in table
    assert "--published-as says which figures to put beside it" in table
    lab(
        capsys,
        "evaluate",
        "--run",
        str(run.folder),
        "--dataset",
        "market1501",
        "--root",
        str(market),
        "--ap",
        "trapezoid",
    )
    assert run.evals() == ["market1501", "market1501-ap_step", "market1501-rerank"]
    table = lab(capsys, *arguments, "--dry-run")
    row = next(line for line in table.splitlines() if line.split()[:2] == ["market1501", "no"])
    assert row.split()[2:] == ["-"] * 6  # a result under another protocol is not shown beside published ones
    weights = run.checkpoint.stat().st_mtime_ns
    assert lab(capsys, *arguments)
    assert run.checkpoint.stat().st_mtime_ns == weights  # what was done is not done again


def test_released_weights_are_evaluated_as_they_are(capsys, market, tmp_path, monkeypatch):
    """A fine-tuned file under its released name; small, at the size that it is evaluated at here."""
    from lab.convert import convert
    from lab.finetune.mgn import MGN

    monkeypatch.setenv("LAB_WEIGHTS", str(tmp_path / "weights"))
    torch.manual_seed(0)
    torch.save({"model": MGN(751, 50).state_dict(), "step": 1, "config": {"last_stride": 1}}, tmp_path / "own.pt")
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
