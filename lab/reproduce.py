"""`lab reproduce`: LUPerson's table, our number beside the published one, for the data sets that are here.

The plan is a list of `lab` commands. They are printed with what they cost, and the very same commands are then run.
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from lab.cli import call
from lab.data import load
from lab.data.images import open_images
from lab.data.readers import PUBLISHED_COUNTS, count_differences
from lab.errors import InputError
from lab.evaluate.settings import EvaluateConfig, protocol
from lab.finetune.mgn import MGN
from lab.finetune.train import FinetuneConfig
from lab.pretrain.moco import MoCo
from lab.pretrain.train import PretrainConfig
from lab.published import luperson_results
from lab.released import RELEASED
from lab.runs import Run
from lab.weights import IMAGENET, identify, read_weights, resolve_weights

EDITIONS = {"market1501": "market1501", "dukemtmc": "dukemtmc", "msmt17": "msmt17-v1", "cuhk03": "cuhk03-labeled"}
LUPERSON_IMAGES = 4_180_243
SPLIT_FOLDERS = {"cuhk03": "cuhk03_np/labeled", "dukemtmc": "duke"}  # as LUPerson ships its split files
STARTS = {
    "lup": "LUP unsup.",
    "imagenet": "ImageNet sup.",
    "imagenet-unsup": "ImageNet unsup.",
}  # in the published table


@dataclass(frozen=True)
class ReproduceConfig:
    """Where the weights come from, and which setting of the paper is reproduced."""

    released: bool = False  # evaluate the released fine-tuned models (ResNet-50) instead of fine-tuning
    init: str | None = None  # trunk to fine-tune: lup-r50 (as with none), lup-r101, imagenet-r50, a file or a run
    crops: Path | None = None  # LUPerson's crops: pre-train on them first, the whole recipe, in place of --init
    depth: int | None = None  # ResNet depth of that pre-training; none is 50
    setting: Literal["full", "small-scale", "few-shot"] = "full"  # all labels, or a fraction of identities or images
    ratio: float = 1.0  # that fraction, 0.1 to 0.9
    splits: Path | None = None  # folder with LUPerson's split files; without it the fraction is drawn by the same rule
    repeat: int = 1  # few-shot: counts the training set this many times in a pass (published: 2 or 3)
    seed: int = 0  # of the fine-tuning
    published_as: Literal["lup", "imagenet", "imagenet-unsup"] | None = None  # start to compare with; none: as known
    size: Literal["tiny", "paper"] = "paper"  # tiny: to try the commands on two CPU cores
    tflops: float = 50.0  # that your GPU sustains in training, for the hours

    def __post_init__(self):
        given = [name for name in ("released", "init", "crops") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"--{' and --'.join(given)} were given; give one of them")
        if self.depth is not None and self.crops is None:
            raise InputError("--depth is that of a pre-training on --crops; for other weights it comes from their file")
        if not 0 < self.ratio <= 1 or (self.setting == "full") != (self.ratio == 1):
            wanted = "1.0" if self.setting == "full" else "more than 0 and less than 1"
            raise InputError(
                f"--ratio is {self.ratio} with --setting {self.setting}; expected {wanted}: --setting small-scale or few-shot "
                "goes with --ratio 0.1 to 0.9"
            )
        if self.released and self.setting != "full":
            raise InputError("fine-tuned models were released for the full data sets only; leave --released out")
        if not 0 < self.tflops < math.inf:
            raise InputError(f"--tflops is {self.tflops}; expected what a GPU sustains, more than 0")


@dataclass(frozen=True)
class Start:
    """The weights that a plan starts from: how commands call them, their depth, and the published table's word."""

    name: str
    depth: int
    published: str | None


@dataclass(frozen=True)
class Step:
    """One `lab` command of the plan, and what it costs in GPU hours (None: minutes, or another size)."""

    arguments: list[str]
    gpu_hours: float | None = None

    def __str__(self) -> str:
        cost = "" if self.gpu_hours is None else f"   # about {shown_hours(self.gpu_hours)} GPU hours"
        return f"lab {shlex.join(self.arguments)}{cost}"


@dataclass(frozen=True)
class Reproduction:
    """What is reproduced on one data set: the run that will hold our number, and the commands that make it."""

    dataset: str
    run: Path
    steps: list[Step]
    note: str = ""  # how this copy differs from the published data set


def reproduce(out: Path, roots: dict[str, Path], config: ReproduceConfig, dry_run: bool) -> None:
    """Print the plan, run its commands one after the other unless `dry_run`, and print the table.

    `roots`: name of the data set -> its folder; without any, the commands for all four are printed. Everything that
    can be looked at beforehand is, so that no hours are spent before a typing error. Raises InputError.
    """
    dry_run, here = dry_run or not roots, bool(roots)
    roots = roots or dict.fromkeys(EDITIONS, Path("DIR"))
    start = find_start(config, out)
    notes = {name: check_dataset(name, root) for name, root in roots.items()} if here else {}
    first = [] if config.crops is None else [pretraining_step(config, start)]
    if config.crops is not None and here:
        open_images(config.crops)
    plan = [reproduction(name, root, out, config, start, notes.get(name, "")) for name, root in roots.items()]
    steps = [*first, *(step for one in plan for step in one.steps)]
    print("The commands:\n" + "\n".join(f"  {step}" for step in steps))
    if hours := sum(step.gpu_hours or 0 for step in steps):
        print(
            f"In all about {shown_hours(hours)} GPU hours: operations counted, at {config.tflops:g} TFLOP/s sustained, which "
            "is an assumption and no measurement (--tflops)"
        )
    for step in steps if not dry_run else ():
        print(f"\n$ lab {shlex.join(step.arguments)}", flush=True)
        call(step.arguments[0], step.arguments[1:])
    print("\nOurs beside the published figures, in per cent (- : not run, or not published):")
    print(compare(plan, config, start).to_string(index=False, na_rep="-", float_format="{:.2f}".format))
    for one in plan:
        if one.note:
            print(f"{one.dataset}: {one.note}")
    if start.published is None:
        print(f"what {start.name} was pre-trained on is not known; --published-as says which figures to put beside it")


def find_start(config: ReproduceConfig, out: Path) -> Start:
    """Name, depth and kind of the initial weights; a released file is not downloaded for that. Raises InputError."""
    published = STARTS.get(config.published_as)
    if config.released:
        return Start("released", 50, published or STARTS["lup"])
    if config.crops is not None:
        return Start(str(out / "pretraining"), config.depth or 50, published or STARTS["lup"])
    name = config.init or "lup-r50"
    if name in RELEASED:
        if RELEASED[name].kind != "trunk":
            raise InputError(f"{name} is a fine-tuned MGN, and --init wants a trunk; give --released to evaluate it")
        return Start(name, RELEASED[name].depth, published or STARTS["lup"])
    if name in IMAGENET:
        return Start(name, IMAGENET[name], published or STARTS["imagenet"])
    given = identify(read_weights(resolve_weights(name)))
    if given.depth is None or not given.trunk:
        raise InputError(f"{name} holds {given.words}; give --init the weights of a ResNet trunk")
    return Start(name, given.depth, published or (STARTS["imagenet"] if given.labelled else None))


def check_dataset(name: str, root: Path) -> str:
    """Read the data set's lists, and say how this copy differs from the published one; raises InputError."""
    return count_differences(load(name, root))


def reproduction(
    dataset: str, root: Path, out: Path, config: ReproduceConfig, start: Start, note: str = ""
) -> Reproduction:
    """The commands for one data set. Raises InputError for a split file that is not there."""
    where = ["--dataset", dataset, "--root", str(root)]
    if config.released:
        run = out / f"{dataset}-released"
        evaluate = ["evaluate", "--weights", f"lup-mgn-{dataset}", "--out", str(run), *where]
        return Reproduction(dataset, run, [Step(evaluate), Step([*evaluate, "--rerank"])], note)
    part = "" if config.setting == "full" else f"-{config.setting}-{config.ratio:.2f}"
    run = out / f"{dataset}-{Path(start.name).stem}{part}{f'-seed{config.seed}' if config.seed else ''}"
    finetune = ["finetune", *where, "--out", str(run), "--init", start.name, "--size", config.size]
    finetune += ["--depth", str(start.depth)]
    hours = None
    if config.size == "paper":
        finetune += ["--amp", "off"]  # mixed precision was off in the published runs
        hours = finetuning_hours(dataset, start.depth, config)
    if config.crops is not None:  # whose trunk carries pre-training's statistics, and published fine-tuning had its own
        finetune += ["--pixels", "luperson"]
    for name, published in (("repeat", 1), ("seed", 0)):
        if (value := getattr(config, name)) != published:
            finetune += [f"--{name}", str(value)]
    evaluate = ["evaluate", "--run", str(run), *where]
    steps = [Step(finetune + subset(dataset, config), hours), Step(evaluate), Step([*evaluate, "--rerank"])]
    return Reproduction(dataset, run, steps, note)


def subset(dataset: str, config: ReproduceConfig) -> list[str]:
    """The options of `lab finetune` for the small-scale and few-shot settings: LUPerson's own file, or a draw."""
    if config.setting == "full":
        return []
    of = "ids" if config.setting == "small-scale" else "images"
    if config.splits is None:
        return ["--fraction", str(config.ratio), "--fraction-of", of]
    short = "ids" if of == "ids" else "ims"
    name = f"few_{short}/used_{short}_{config.ratio:.2f}.txt"
    file = config.splits / SPLIT_FOLDERS.get(dataset, dataset) / name
    if not file.is_file():
        raise InputError(
            f"there is no split file {file}; give --splits LUPerson's folder of data sets, or leave it out"
        )
    return ["--subset", str(file)]


def pretraining_step(config: ReproduceConfig, start: Start) -> Step:
    """The command that pre-trains on LUPerson's crops, with the hours that the published 200 epochs take."""
    arguments = ["pretrain", "--data", str(config.crops), "--out", start.name, "--size", config.size]
    arguments += ["--depth", str(start.depth)]
    return Step(arguments, pretraining_hours(start.depth, config.tflops) if config.size == "paper" else None)


def pretraining_hours(depth: int, tflops: float) -> float:
    """GPU hours of the published pre-training: 326,400 steps of 2,560 images, each seen by both encoders.

    The query encoder learns (three forward passes' worth of work), the key encoder only looks (one).
    """
    config = PretrainConfig(depth=depth)
    steps = config.epochs * (LUPERSON_IMAGES // config.batch_size)
    with torch.device("meta"):
        encoder = MoCo(depth, queue_size=8).encoder_q
        work = forward_operations(encoder, torch.empty(1, 3, config.height, config.width))
    return steps * config.batch_size * 4 * work / (tflops * 1e12) / 3600


def finetuning_hours(dataset: str, depth: int, config: ReproduceConfig) -> float:
    """GPU hours of the published fine-tuning: 60 epochs; in the frozen sixth the trunk only looks."""
    recipe, (images, identities, _) = FinetuneConfig(depth=depth), PUBLISHED_COUNTS[EDITIONS[dataset]]["train"]
    batch = recipe.ids_per_batch * recipe.images_per_id
    steps = recipe.epochs * max(1, round(images * config.ratio) * config.repeat // batch)
    with torch.device("meta"):
        work = forward_operations(MGN(identities, depth), torch.empty(1, 3, recipe.height, recipe.width))
    passes = 3 - 2 * recipe.freeze
    return steps * batch * passes * work / (config.tflops * 1e12) / 3600


def forward_operations(model: torch.nn.Module, images: torch.Tensor) -> int:
    """Operations of one forward pass, two for each multiply-add."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(images)
    return counter.get_total_flops()


def shown_hours(hours: float) -> str:
    return f"{hours:.2f}" if hours < 10 else f"{hours:.0f}"


def compare(plan: Sequence[Reproduction], config: ReproduceConfig, start: Start) -> pd.DataFrame:
    """Our figures beside the published ones, in per cent; one row per data set and ranking.

    NaN where a run has no result under the published protocol yet and where nothing was published.
    """
    rows = []
    for one in plan:
        for rerank in (False, True):
            ours = our_figures(one, rerank)
            row = {"dataset": one.dataset, "re-ranked": "yes" if rerank else "no", "mAP": ours[0], "rank-1": ours[1]}
            for source in ("released", "paper"):
                theirs = luperson_results(one.dataset, start.depth, config.setting, config.ratio, start.published)
                theirs = theirs[(theirs["kind"] == source) & (theirs["rerank"] == row["re-ranked"])]
                for name, column in (("mAP", "mAP"), ("rank-1", "rank1")):
                    row[f"{source} {name}"] = theirs[column].iloc[0] if len(theirs) else math.nan
            rows.append(row)
    return pd.DataFrame(rows)


def our_figures(one: Reproduction, rerank: bool) -> tuple[float, float]:
    """mAP and rank-1 of a run's result; NaN if there is none, or one that was ranked or averaged in another way."""
    name = one.dataset + ("-rerank" if rerank else "")
    run = Run(one.run)
    if name not in run.evals():
        return math.nan, math.nan
    result = run.result(name)
    trained = run.config.get("settings", {})
    wanted = protocol(EvaluateConfig(rerank=rerank)) | {key: trained.get(key) for key in ("height", "width")}
    if any(result.settings.get(key) != value for key, value in wanted.items()):
        return math.nan, math.nan
    return 100 * result.mAP, 100 * float(result.cmc[0])
