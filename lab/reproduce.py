"""`lab reproduce`: LUPerson's table, our number beside the published one, for the data sets that are here.

The plan is a list of `lab` commands. They are printed with what they cost, and the very same commands are then run.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from lab.cli import call
from lab.errors import InputError
from lab.finetune.mgn import MGN
from lab.finetune.train import FinetuneConfig
from lab.pretrain.moco import MoCo
from lab.pretrain.train import PretrainConfig
from lab.published import luperson_results
from lab.released import RELEASED
from lab.runs import Run
from lab.weights import IMAGENET, read_weights, resolve_weights, trunk_depth

DATASETS = ("market1501", "dukemtmc", "msmt17", "cuhk03")
TRAIN_IMAGES = {"market1501": 12936, "dukemtmc": 16522, "msmt17": 32621, "cuhk03": 7368}
TRAIN_IDS = {"market1501": 751, "dukemtmc": 702, "msmt17": 1041, "cuhk03": 767}
LUPERSON_IMAGES = 4_180_243
SPLIT_FOLDERS = {"cuhk03": "cuhk03_np/labeled", "dukemtmc": "duke"}  # as LUPerson ships its split files


@dataclass(frozen=True)
class Step:
    """One `lab` command of the plan, and what it costs in GPU hours (None: minutes)."""

    arguments: list[str]
    gpu_hours: float | None = None

    def __str__(self) -> str:
        cost = "" if self.gpu_hours is None else f"   # about {self.gpu_hours:.2g} GPU hours"
        return f"lab {shlex.join(self.arguments)}{cost}"


@dataclass(frozen=True)
class Reproduction:
    """What is reproduced on one data set: the run that will hold our number, and the commands that make it."""

    dataset: str
    run: Path
    depth: int
    steps: list[Step]


@dataclass(frozen=True)
class Recipe:
    """Where the weights come from and which setting of the paper is reproduced."""

    init: str  # trunk to fine-tune: a word, a file, or the run folder of a pre-training
    depth: int
    released: bool  # evaluate the released fine-tuned models instead of fine-tuning
    setting: str  # "full", "small-scale" or "few-shot"
    ratio: float
    splits: Path | None  # folder with LUPerson's split files
    size: str
    tflops: float  # that the GPU sustains

    @property
    def pretraining(self) -> str:
        """What the published table calls this start."""
        return "ImageNet sup." if self.init in IMAGENET else "LUP unsup."


def plan(roots: dict[str, Path], out: Path, recipe: Recipe) -> list[Reproduction]:
    """The commands for every data set in `roots` (name -> folder). Raises InputError for what cannot be reproduced."""
    if (recipe.setting == "full") != (recipe.ratio == 1.0):
        raise InputError(
            f"setting {recipe.setting} goes with {'ratio 1.0' if recipe.setting == 'full' else 'a ratio below 1'}, and "
            f"--ratio is {recipe.ratio}; give --setting small-scale or few-shot with --ratio 0.1 to 0.9"
        )
    if recipe.released and (recipe.setting != "full" or recipe.depth != 50):
        raise InputError(
            "fine-tuned models were released for ResNet-50 and the full data sets only; leave --released out"
        )
    return [_one(dataset, root, Path(out), recipe) for dataset, root in roots.items()]


def _one(dataset: str, root: Path, out: Path, recipe: Recipe) -> Reproduction:
    where = ["--dataset", dataset, "--root", str(root)]
    if recipe.released:
        run = out / f"{dataset}-released"
        evaluate = ["evaluate", "--weights", f"lup-mgn-{dataset}", "--out", str(run), *where]
        return Reproduction(dataset, run, 50, [Step(evaluate), Step([*evaluate, "--rerank"])])
    part = "" if recipe.setting == "full" else f"-{recipe.setting}-{recipe.ratio:.2f}"
    run = out / f"{dataset}-{Path(recipe.init).stem}{part}"
    finetune = ["finetune", *where, "--out", str(run), "--init", recipe.init, "--size", recipe.size]
    if recipe.size == "paper":
        finetune += ["--depth", str(recipe.depth), "--amp", "off"]  # mixed precision was off in the published runs
    hours = finetuning_hours(dataset, recipe.depth, recipe.setting, recipe.ratio, recipe.tflops)
    evaluate = ["evaluate", "--run", str(run), *where]
    steps = [Step(finetune + subset(dataset, recipe), hours), Step(evaluate), Step([*evaluate, "--rerank"])]
    return Reproduction(dataset, run, recipe.depth, steps)


def subset(dataset: str, recipe: Recipe) -> list[str]:
    """The options of `lab finetune` for the small-scale and few-shot settings: LUPerson's own file, or a draw."""
    if recipe.setting == "full":
        return []
    of = "ids" if recipe.setting == "small-scale" else "images"
    if recipe.splits is None:
        return ["--fraction", str(recipe.ratio), "--fraction-of", of]
    short = "ids" if of == "ids" else "ims"
    name = f"few_{short}/used_{short}_{recipe.ratio:.2f}.txt"
    return ["--subset", str(recipe.splits / SPLIT_FOLDERS.get(dataset, dataset) / name)]


def pretraining_step(crops: Path, run: Path, size: str, depth: int, tflops: float) -> Step:
    """The command that pre-trains on LUPerson's crops, with the hours that the published 200 epochs take."""
    arguments = ["pretrain", "--data", str(crops), "--out", str(run), "--size", size]
    if size == "paper":
        arguments += ["--depth", str(depth)]
    return Step(arguments, pretraining_hours(depth, tflops))


def pretraining_hours(depth: int, tflops: float) -> float:
    """GPU hours of the published pre-training: 326,400 steps of 2,560 images, each seen by both encoders.

    The query encoder learns (three forward passes' worth of work), the key encoder only looks (one).
    """
    config = PretrainConfig(depth=depth)
    steps = config.epochs * (LUPERSON_IMAGES // config.batch_size)
    with torch.device("meta"):
        encoder = MoCo(depth, queue_size=8).encoder_q
        work = _flops(encoder, torch.empty(1, 3, config.height, config.width))
    return steps * config.batch_size * 4 * work / (tflops * 1e12) / 3600


def finetuning_hours(dataset: str, depth: int, setting: str, ratio: float, tflops: float) -> float:
    """GPU hours of the published fine-tuning: 60 epochs; in the frozen sixth the trunk only looks."""
    config = FinetuneConfig(depth=depth)
    images = round(TRAIN_IMAGES[dataset] * ratio)
    batch = config.ids_per_batch * config.images_per_id
    steps = config.epochs * max(1, images // batch)
    with torch.device("meta"):
        model = MGN(TRAIN_IDS[dataset], depth)
        work = _flops(model, torch.empty(1, 3, config.height, config.width))
    passes = 3 - 2 * config.freeze
    return steps * batch * passes * work / (tflops * 1e12) / 3600


def _flops(model: torch.nn.Module, image: torch.Tensor) -> int:
    """Operations of one forward pass, two for each multiply-add."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    return counter.get_total_flops()


def compare(reproductions: Sequence[Reproduction], recipe: Recipe) -> pd.DataFrame:
    """Our figures beside the published ones, in per cent; one row per data set and ranking.

    NaN where a run has no result yet and where nothing was published.
    """
    rows = []
    for one in reproductions:
        reports = luperson_results(one.dataset, one.depth, recipe.setting, recipe.ratio, recipe.pretraining)
        for rerank in ("no", "yes"):
            ours = _ours(one, "-rerank" if rerank == "yes" else "")
            row = {"dataset": one.dataset, "re-ranked": rerank, "mAP": ours[0], "rank-1": ours[1]}
            for kind, words in (("released", "released"), ("paper", ", paper")):
                found = reports[reports["source"].str.contains(words) & (reports["rerank"] == rerank)]
                row |= {f"{kind} {name}": found[column].iloc[0] if len(found) else float("nan")
                        for name, column in (("mAP", "mAP"), ("rank-1", "rank1"))}  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows)


def _ours(one: Reproduction, ending: str) -> tuple[float, float]:
    name = f"{one.dataset}{ending}"
    if name not in Run(one.run).evals():
        return float("nan"), float("nan")
    result = Run(one.run).result(name)
    return 100 * result.mAP, 100 * float(result.cmc[0])


def depth_of_init(init: str) -> int:
    """Depth of the ResNet in some initial weights; a released name is not downloaded for that. Raises InputError."""
    if init in RELEASED and RELEASED[init].kind == "trunk":
        return RELEASED[init].depth
    return IMAGENET.get(init) or trunk_depth(read_weights(resolve_weights(init)), init)


def reproduce(reproductions: Sequence[Reproduction], first: list[Step], recipe: Recipe, dry_run: bool) -> None:
    """Print the plan, run its commands one after the other unless `dry_run`, and print the table."""
    steps = [*first, *(step for one in reproductions for step in one.steps)]
    print("The commands:\n" + "\n".join(f"  {step}" for step in steps))
    if hours := sum(step.gpu_hours or 0 for step in steps):
        print(
            f"In all about {hours:.2g} GPU hours in the published sizes: operations counted, at {recipe.tflops:g} TFLOP/s "
            "sustained, which is an assumption and no measurement (--tflops)"
        )
    for step in steps if not dry_run else ():
        print(f"\n$ lab {shlex.join(step.arguments)}", flush=True)
        call(step.arguments[0], step.arguments[1:])
    print("\nOurs beside the published figures, in per cent (- : not run, or not published):")
    table = compare(reproductions, recipe)
    print(table.to_string(index=False, na_rep="-", float_format="{:.2f}".format))
