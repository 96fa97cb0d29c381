"""Images per second of fine-tuning: the model alone, the lab's pipeline from image files, and a plain reference.

    python benchmarks/finetune.py --preset tiny --out benchmarks/results/finetune-tiny

(a) forward, losses, backward and optimizer step of the lab's own MGN on images that lie on the device already; (b) the
lab's training loop itself, `lab.finetune.train.finetune`, from a folder in Market-1501 layout, whose resized crops it keeps
in memory as it does for a real data set; (c) plain_training.py, from the same folder. Nothing is frozen. How it is measured
is in pretrain.py.
"""

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import plain_training
import torch
import tyro
from pretrain import (
    MODEL,
    PIPELINE,
    PLAIN,
    Job,
    filled,
    flop_per_image,
    gpu_memory,
    has_compiler,
    logged_speed,
    other_precisions,
    report,
    speed_of,
    take_turns,
    verdicts,
)

from lab.backbone import pick_device
from lab.data import load
from lab.data.splits import Split
from lab.data.synthetic import SyntheticConfig, write
from lab.finetune.losses import mgn_losses
from lab.finetune.mgn import MGN
from lab.finetune.train import FinetuneConfig, finetune, grouped_features, loss_settings, make_optimizer
from lab.runs import Run
from lab.training.precision import Precision

# Steps x batch of the published runs, all identities.
PAPER_RUNS = {"60 epochs of Market-1501 (775,680 images)": 12_120 * 64, "60 of MSMT17 (1,954,560)": 30_540 * 64}


@dataclass(frozen=True)
class Options:
    """What is measured; None is the preset's value."""

    preset: Literal["tiny", "r50", "gpu"] = "tiny"
    depth: int | None = None  # of the ResNet
    height: int | None = None  # pixels
    width: int | None = None  # pixels
    last_stride: int | None = None  # of layer4
    batch_size: int | None = None  # a multiple of images_per_id
    images_per_id: int | None = None  # in a batch
    bn_groups: int | None = None  # of (a) and (b); (c) normalises with the whole batch
    workers: tuple[int, ...] | None = None  # processes that read for (b); those after the first are rows beside it
    plain_workers: int | None = None  # processes that read for (c)
    warm_up: int | None = None  # steps that are not counted; more than are made ahead, two per worker
    steps: int | None = None  # that are counted
    log_every: int | None = None  # steps between rows of log.csv, where the speed of (b) is read
    rounds: int = 3
    amp: str = "auto"  # auto, bfloat16, float16 or off; of (a), (b) and (c)
    compile: bool = False  # torch.compile trunk and branches of (a) and (b)
    variant_rounds: int = 1  # in which (a) and (b) are measured with other settings too (`other_jobs`)
    device: str = "auto"
    root: Path | None = None  # a folder in Market-1501 layout to train on; None makes one of synthetic people
    out: Path | None = None  # write OUT.md and OUT.csv


PRESETS = {
    "tiny": {"depth": 18, "height": 128, "width": 64, "last_stride": 2, "batch_size": 64, "images_per_id": 8,
             "bn_groups": 1, "workers": (0, 2), "plain_workers": 2, "warm_up": 5, "steps": 12, "log_every": 1},
    "r50": {"depth": 50, "height": 384, "width": 128, "last_stride": 1, "batch_size": 16, "images_per_id": 4,
            "bn_groups": 4, "workers": (0,), "plain_workers": 2, "warm_up": 1, "steps": 1, "log_every": 1},
    "gpu": {"depth": 50, "height": 384, "width": 128, "last_stride": 1, "batch_size": 64, "images_per_id": 16,
            "bn_groups": 4, "workers": (0, 8), "plain_workers": 16, "warm_up": 40, "steps": 100, "log_every": 20},
}  # fmt: skip


def main(options: Options) -> None:
    options, before = filled(options, PRESETS), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or make_people(Path(folder))
        train = load("market1501", root).train
        turns = take_turns(basic_jobs(options, train), other_jobs(options, train), options)
    config = settings(options)
    notes = [
        f"MGN-R{config.depth}, {config.height} x {config.width}, last stride {config.last_stride}, batch "
        f"{config.ids_per_batch} x {config.images_per_id} of {len(train)} crops, batch-norm groups {config.bn_groups} in (a) "
        "and (b), 1 in (c)",
        f"(a) and (c): steps {options.warm_up + 1} to {options.warm_up + options.steps}; (b): the rows of log.csv for these. "
        "Decoding and resizing the data set once, before the first step, and checkpoints are not in it",
        *verdicts(turns, options, PAPER_RUNS),
    ]
    report(f"Fine-tuning: images per second ({options.preset})", turns, notes, before, options)


def settings(options: Options) -> FinetuneConfig:
    """The published recipe at the size that is measured."""
    names = "depth height width last_stride images_per_id bn_groups log_every amp compile device".split()
    values = {name: getattr(options, name) for name in names}
    values |= {"ids_per_batch": options.batch_size // options.images_per_id, "num_workers": options.workers[0]}
    return FinetuneConfig(**values, epochs=1, steps_per_epoch=options.warm_up + options.steps)


def basic_jobs(options: Options, train: Split) -> dict[str, Job]:
    return {
        MODEL: (model_speed, (options, settings(options), train.num_ids)),
        PIPELINE: (pipeline_speed, (options, settings(options), train)),
        PLAIN: (plain_speed, (options, replace(settings(options), num_workers=options.plain_workers), train)),
    }


def other_jobs(options: Options, train: Split) -> dict[str, Job]:
    """Settings of the lab that are measured beside the ones that are used."""
    config, people = settings(options), train.num_ids
    jobs = {f"{MODEL}, contiguous": (model_speed, (options, config, people, torch.contiguous_format))}
    if config.bn_groups > 1:
        one = replace(config, bn_groups=1)
        jobs[f"{MODEL}, one batch-norm group"] = (model_speed, (options, one, people))
    if has_compiler():
        name, other = "not compiled" if config.compile else "compiled", replace(config, compile=not config.compile)
        jobs[f"{MODEL}, {name}"] = (model_speed, (options, other, people))
    for amp in other_precisions(options):
        jobs[f"{MODEL}, {amp}"] = (model_speed, (options, replace(config, amp=amp), people))
    for workers in options.workers[1:]:
        other = replace(config, num_workers=workers)
        jobs[f"{PIPELINE}, {workers} workers"] = (pipeline_speed, (options, other, train))
    return jobs


def model_speed(options: Options, config: FinetuneConfig, people: int, layout=torch.channels_last) -> dict:
    """(a): the lab's model, losses and optimizer on random images."""
    device = pick_device(config.device)
    torch.backends.cudnn.benchmark = True
    model = MGN(people, config.depth, last_stride=config.last_stride).to(device, memory_format=layout).train()
    optimizer, precision = make_optimizer(model, config), Precision(device, config.amp)
    shape = (options.batch_size, 3, config.height, config.width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device).to(memory_format=layout)
    labels = torch.arange(config.ids_per_batch, device=device).repeat_interleave(config.images_per_id)

    def step(count: int = options.batch_size) -> None:
        with precision.autocast():
            features = grouped_features(model, images[:count], config.bn_groups)
        terms, _ = mgn_losses(features, model.class_weights(), labels[:count], **loss_settings(config))
        precision.scale(sum(terms.values())).backward()
        precision.step(optimizer)

    flop = flop_per_image(step, options.batch_size)
    for part in model.trunk_parts() if config.compile else ():
        part.compile()
    return speed_of(step, options.batch_size, options, device) | {"GFLOP/image": flop / 1e9}


def pipeline_speed(options: Options, config: FinetuneConfig, train: Split) -> dict:
    """(b): the lab's own loop; its speed is what it logs."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", "finetune", config)
        finetune(run, train, config, progress=False)
        return {"images/s": logged_speed(run.log(), options.warm_up)} | gpu_memory()


def plain_speed(options: Options, config: FinetuneConfig, train: Split) -> dict:
    """(c): plain_training.py on the same crops."""
    device = pick_device(config.device)
    steps = plain_training.finetuning(train, config, options.warm_up + options.steps, device)
    return speed_of(lambda: next(steps), options.batch_size, options, device)


def make_people(folder: Path) -> Path:
    """120 synthetic identities with 6 to 20 crops of 128 x 64 pixels each, the size that Market-1501's have."""
    people = SyntheticConfig(num_test_ids=1, num_distractors=0, num_junk=0, num_unlabeled=0)
    write(folder / "people", people, workers=os.cpu_count() or 1)
    return folder / "people"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
