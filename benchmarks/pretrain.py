"""Images per second of pre-training: the model alone, the lab's pipeline from the store, and a plain reference.

    python benchmarks/pretrain.py --preset tiny --out benchmarks/results/pretrain-tiny

(a) forward, backward and optimizer step of the lab's own model on views that lie on the device already; (b) the lab's
training loop itself, `lab.pretrain.train.pretrain`, from a store of JPEG crops; (c) plain_training.py, from the same store.
Jobs take turns, round by round, each in a process of its own, because machines are shared and their speed drifts: what is
compared is measured within one round. Reported are medians over the rounds and medians of ratios within a round.
"""

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
import plain_training
import torch
import tyro
from processes import fresh
from report import as_markdown, commit, short
from torch.utils.flop_counter import FlopCounterMode

from lab.backbone import autocast, pick_device
from lab.data.importing import import_images
from lab.data.store import Store
from lab.data.synthetic import SyntheticConfig, write
from lab.errors import InputError
from lab.machine import cpu_name
from lab.pretrain.moco import MoCo
from lab.pretrain.train import PretrainConfig, make_optimizer, pretrain
from lab.runs import Run
from lab.training.precision import Precision

PAPER_IMAGES = 326_400 * 2_560  # steps x batch of the published run
PEAKS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12, "NVIDIA A100*": 312e12}  # dense bfloat16, FLOP/s
BATCHES = (2560, 2048, 1536, 1024, 768, 512, 384, 256, 128, 64)  # that are tried where the largest that fits is wanted
MODEL, PIPELINE, PLAIN = "(a) model alone", "(b) lab, whole pipeline", "(c) plain reference"
Job = tuple[Callable[..., dict], tuple]  # what measures, and its arguments


@dataclass(frozen=True)
class Options:
    """What is measured; None is the preset's value."""

    preset: Literal["tiny", "r50", "gpu"] = "tiny"
    depth: int | None = None  # of the ResNet
    height: int | None = None  # pixels of a view
    width: int | None = None  # pixels of a view
    batch_size: int | None = None  # 0: the largest that fits on the GPU
    bn_groups: int | None = None  # of (a) and (b); (c) normalises with the whole batch
    queue_size: int | None = None
    workers: tuple[int, ...] | None = None  # processes that read for (b); those after the first are rows beside it
    plain_workers: int | None = None  # processes that read for (c)
    warm_up: int | None = None  # steps that are not counted; more than are made ahead, two per worker
    steps: int | None = None  # that are counted
    log_every: int | None = None  # steps between rows of log.csv, where the speed of (b) is read
    rounds: int = 3
    amp: str = "auto"  # auto, bfloat16, float16 or off; of (a), (b) and (c)
    compile: bool = False  # torch.compile the encoders of (a) and (b)
    variant_rounds: int = 1  # in which (a) and (b) are measured with other settings too (`other_jobs`)
    device: str = "auto"
    store: Path | None = None  # to read; None makes one of synthetic people
    out: Path | None = None  # write OUT.md and OUT.csv


PRESETS = {
    "tiny": {"depth": 18, "height": 128, "width": 64, "batch_size": 128, "bn_groups": 2, "queue_size": 1024,
             "workers": (0, 2), "plain_workers": 2, "warm_up": 2, "steps": 6, "log_every": 1},
    "r50": {"depth": 50, "height": 256, "width": 128, "batch_size": 16, "bn_groups": 2, "queue_size": 65536,
            "workers": (0,), "plain_workers": 2, "warm_up": 1, "steps": 2, "log_every": 1},
    "gpu": {"depth": 50, "height": 256, "width": 128, "batch_size": 0, "bn_groups": 8, "queue_size": 65536,
            "workers": (16, 8), "plain_workers": 16, "warm_up": 40, "steps": 60, "log_every": 20},
}  # fmt: skip


def main(options: Options) -> None:
    options, load = filled(options, PRESETS), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or make_store(Path(folder), options)
        if not options.batch_size:
            options = replace(options, batch_size=largest_batch(partial(basic_jobs, store=store), options))
        turns = take_turns(basic_jobs(options, store), other_jobs(options, store), options)
    config = settings(options)
    notes = [
        f"ResNet-{config.depth}, {config.height} x {config.width}, batch {config.batch_size}, queue {config.queue_size}, "
        f"batch-norm groups {config.bn_groups} in (a) and (b), 1 in (c); recipe {config.augmentation}",
        f"(a) and (c): steps {options.warm_up + 1} to {options.warm_up + options.steps}; (b): the rows of log.csv for these. "
        "Checkpoints, which are written every few minutes, are not in it",
        *verdicts(turns, options, {"the paper's 840 M images": PAPER_IMAGES}),
    ]
    report(f"Pre-training: images per second ({options.preset})", turns, notes, load, options)


def settings(options: Options) -> PretrainConfig:
    """The published recipe at the size that is measured."""
    names = "depth height width batch_size bn_groups queue_size log_every amp compile device".split()
    values = {name: getattr(options, name) for name in names}
    return PretrainConfig(**values, epochs=1, lr=0.03, num_workers=options.workers[0])


def basic_jobs(options: Options, store: Path) -> dict[str, Job]:
    return {
        MODEL: (model_speed, (options, settings(options))),
        PIPELINE: (pipeline_speed, (options, settings(options), store)),
        PLAIN: (plain_speed, (options, replace(settings(options), num_workers=options.plain_workers), store)),
    }


def other_jobs(options: Options, store: Path) -> dict[str, Job]:
    """Settings of the lab that are measured beside the ones that are used."""
    config = settings(options)
    jobs = {
        f"{MODEL}, contiguous": (model_speed, (options, config, torch.contiguous_format)),
        f"{MODEL}, one batch-norm group": (model_speed, (options, replace(config, bn_groups=1))),
    }
    if has_compiler():
        name = "not compiled" if config.compile else "compiled"
        jobs[f"{MODEL}, {name}"] = (model_speed, (options, replace(config, compile=not config.compile)))
    for amp in other_precisions(options):
        jobs[f"{MODEL}, {amp}"] = (model_speed, (options, replace(config, amp=amp)))
    for workers in options.workers[1:]:
        other = replace(config, num_workers=workers)
        jobs[f"{PIPELINE}, {workers} workers"] = (pipeline_speed, (options, other, store))
    return jobs


def model_speed(options: Options, config: PretrainConfig, layout=torch.channels_last) -> dict:
    """(a): the lab's model and optimizer on random views."""
    device = pick_device(config.device)
    torch.backends.cudnn.benchmark = True
    model = MoCo(config.depth, config.dim, config.queue_size, config.key_momentum, config.temperature, config.bn_groups)
    model = model.to(device, memory_format=layout).train()
    optimizer, precision = make_optimizer(model, config), Precision(device, config.amp)
    shape = (config.batch_size, 3, config.height, config.width)
    view_q, view_k = ((255 * torch.rand(shape, device=device)).to(memory_format=layout) for _ in range(2))

    def step(count: int = config.batch_size) -> None:
        with precision.autocast():
            loss = model(view_q[:count], view_k[:count]).loss
        precision.scale(loss).backward()
        precision.step(optimizer)

    flop = flop_per_image(step, 2 * config.bn_groups)
    for encoder in (model.encoder_q, model.encoder_k) if config.compile else ():
        encoder.compile()
    return speed_of(step, config.batch_size, options, device) | {"GFLOP/image": flop / 1e9}


def pipeline_speed(options: Options, config: PretrainConfig, store: Path) -> dict:
    """(b): the lab's own loop; its speed is what it logs."""
    images = Repeated(Store(store), config.batch_size * (options.warm_up + options.steps))
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", "pretrain", config)
        pretrain(run, images, config, progress=False)
        return {"images/s": logged_speed(run.log(), options.warm_up)} | gpu_memory()


def plain_speed(options: Options, config: PretrainConfig, store: Path) -> dict:
    """(c): plain_training.py on the same store."""
    device, images = pick_device(config.device), Store(store)
    needed = config.batch_size * (options.warm_up + options.steps)
    keys = [bytes(images.keys[number % len(images)]) for number in range(needed)]
    steps = plain_training.pretraining(images.lmdb, keys, config, device)
    return speed_of(lambda: next(steps), config.batch_size, options, device)


class Repeated:
    """The images of a source again and again, `length` of them: as many as are measured, in one epoch."""

    def __init__(self, source: Store, length: int):
        self.source, self.length = source, length

    def __len__(self) -> int:
        return self.length

    def name(self, number: int) -> str:
        return self.source.name(number % len(self.source))

    def read(self, number: int) -> bytes:
        return self.source.read(number % len(self.source))


def make_store(folder: Path, options: Options) -> Path:
    """A store of 512 synthetic crops of the size of a view."""
    nobody = {"num_train_ids": 1, "num_test_ids": 1, "num_distractors": 0, "num_junk": 0}
    people = SyntheticConfig(
        **nobody, num_unlabeled=512, people_unlabeled=64, height=options.height, width=options.width
    )
    write(folder / "people", people, workers=os.cpu_count() or 1)
    import_images(folder / "people" / "unlabeled", folder / "store")
    return folder / "store"


# What fine-tuning's benchmark uses as well.


def filled(options, presets: dict[str, dict]):
    """The options, with the preset's values where none were given."""
    values = {name: value for name, value in presets[options.preset].items() if getattr(options, name) is None}
    return replace(options, **values)


def other_precisions(options) -> Sequence[str]:
    """What (a) is also measured in: where "auto" means bfloat16 the hardware has it, and a GPU has float16 too."""
    device = pick_device(options.device)
    if isinstance(autocast(device, "auto"), nullcontext):
        return ()
    return [amp for amp in ("off", "float16") if amp != options.amp and (amp == "off" or device.type == "cuda")]


def has_compiler() -> bool:
    return any(map(shutil.which, ("g++", "clang++")))


def speed_of(step: Callable[[], object], batch_size: int, options, device: torch.device) -> dict:
    """Images per second of `steps` calls, after `warm_up` that do not count."""
    for _ in range(options.warm_up):
        step()
    _finish(device)
    start = time.perf_counter()
    for _ in range(options.steps):
        step()
    _finish(device)
    return {"images/s": options.steps * batch_size / (time.perf_counter() - start)} | gpu_memory()


def logged_speed(log: pd.DataFrame, warm_up: int) -> float:
    """All images over all seconds of the rows that begin after the warm-up; a row tells the speed since the one before.

    Not the median row: batches that wait ready would be taken for the speed, and the wait for the next ones left out.
    """
    begin = log["step"].shift(fill_value=0)
    steps = (log["step"] - begin)[begin >= warm_up]
    return float(steps.sum() / (steps / log["images_per_second"]).sum())


def flop_per_image(step: Callable[[int], None], count: int) -> float:
    """Floating-point operations of a step on `count` images, for each; a product and a sum are two."""
    with FlopCounterMode(display=False) as counter:
        step(count)
    return counter.get_total_flops() / count


def gpu_memory() -> dict:
    return {"GPU GB": torch.cuda.max_memory_allocated() / 1e9} if torch.cuda.is_available() else {}


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def largest_batch(jobs: Callable[[object], dict[str, Job]], options) -> int:
    """The first of BATCHES with which the jobs do a step; InputError if the GPU is too small for all."""
    for size in BATCHES:
        tried = replace(options, batch_size=size, warm_up=0, steps=1, log_every=1)
        if all(fresh(_fits, *job) for job in jobs(tried).values()):
            return size
        print(f"a batch of {size} does not fit", file=sys.stderr)
    raise InputError(f"not even a batch of {BATCHES[-1]} fits on the GPU; give a smaller --batch-size")


def _fits(work: Callable, arguments: tuple) -> bool:
    try:
        work(*arguments)
    except (torch.OutOfMemoryError, InputError) as error:  # training's own loop says it in an InputError
        if "memory" not in str(error):
            raise
        return False
    return True


def take_turns(jobs: dict[str, Job], variants: dict[str, Job], options) -> pd.DataFrame:
    """One row per round and job: what the job returns. The variants take part in the first rounds only."""
    turns = []
    for number in range(options.rounds):
        for name, (work, arguments) in (jobs | (variants if number < options.variant_rounds else {})).items():
            turns.append({"round": number, "job": name} | fresh(work, *arguments))
            print(f"round {number + 1}: {name} {turns[-1]['images/s']:.1f} images/s", file=sys.stderr)
    return pd.DataFrame(turns)


def summary(turns: pd.DataFrame) -> pd.DataFrame:
    """One row per job: medians over the rounds, and how many times as fast it is as (a) and (c) in the same round."""
    speed = turns.pivot(index="round", columns="job", values="images/s")
    rows = []
    for name, own in turns.groupby("job", sort=False):
        row = {"job": name, "images/s": own["images/s"].median()}
        row |= {"slowest": own["images/s"].min(), "fastest": own["images/s"].max()}
        row |= {f"x {other[:3]}": (speed[name] / speed[other]).median() for other in (MODEL, PLAIN)}
        rows.append(row | ({"GPU GB": own["GPU GB"].max()} if "GPU GB" in own else {}))
    return pd.DataFrame(rows)


def verdicts(turns: pd.DataFrame, options, goals: dict[str, int]) -> list[str]:
    """What the table says about the targets, how long the paper's runs would take, and how busy the card was."""
    table, device = summary(turns).set_index("job"), pick_device(options.device)
    pipeline, wanted = table.loc[PIPELINE], 3 if device.type == "cuda" else 2
    sentences = [
        f"(b) reaches {100 * pipeline['x (a)']:.0f} % of (a) (target: 90 %) and {pipeline['x (c)']:.2f} times (c) "
        f"(target: {wanted})"
    ]
    for goal, images in goals.items():
        hours = images / pipeline["images/s"] / 3600
        shown = f"{hours / 24:,.0f} days" if hours > 72 else f"{hours:,.1f} hours"
        sentences.append(f"{goal} take {shown} at the speed of (b) on this one device")
    flop, name = turns["GFLOP/image"].dropna().iloc[0], device_name(device)
    sentences.append(
        f"a step is {flop:.2f} GFLOP per image: (b) computes {flop * pipeline['images/s'] / 1e3:.3g} TFLOP/s"
    )
    peak = next((peak for pattern, peak in PEAKS.items() if fnmatch(name, pattern)), None)
    if peak:
        shares = [f"{job[:3]} {flop * 1e9 * table.loc[job, 'images/s'] / peak:.1%}" for job in (MODEL, PIPELINE, PLAIN)]
        sentences.append(f"of the card's {peak / 1e12:.0f} TFLOP/s (dense bfloat16): {', '.join(shares)}")
    if options.variant_rounds and not has_compiler():
        sentences.append("torch.compile was not measured: there is no C++ compiler here")
    return sentences


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def report(title: str, turns: pd.DataFrame, notes: list[str], load: float, options) -> None:
    """Print the table and write OUT.md and, with every round, OUT.csv."""
    device = pick_device(options.device)
    half = isinstance(autocast(device, options.amp), nullcontext)
    gpu = f", {device_name(device)}" if device.type == "cuda" else ""
    lines = [
        f"# {title}",
        "",
        as_markdown(summary(turns).map(short)),
        "",
        *(f"- {note}" for note in notes),
        f"- {options.rounds} rounds, rows below (c) in {min(options.rounds, options.variant_rounds)} of them; images/s are "
        "medians, ratios (x) medians of the ratios within a round; slowest and fastest are of the rounds",
        f"- amp {options.amp}: {'float32' if half else 'mixed precision'}; (c) is contiguous, the lab channels_last",
        f"- machine: {cpu_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}{gpu}; load before and "
        f"after: {load:.1f}, {os.getloadavg()[0]:.1f} (processes that want to run, the benchmark's own included)",
        f"- torch {torch.__version__}, {time.strftime('%Y-%m-%d')}",
        f"- commit {commit()}, command: `python {shlex.join(sys.argv)}`",
    ]
    text = "\n".join(lines) + "\n"
    print(f"\n{text}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        turns.to_csv(f"{options.out}.csv", index=False, float_format="%.4g")
        Path(f"{options.out}.md").write_text(text)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
