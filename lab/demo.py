"""The whole story at size tiny on the synthetic people: `lab demo`.

Renders a data set, pre-trains for about two minutes so that one sees it work, fine-tunes at 10 % and at 100 % of the
identities from three starting points, evaluates everything with and without re-ranking beside two baselines, and
prints one table. Whatever is already there is reused.

So that it ends within minutes on any machine, crops have a quarter of tiny's pixels, and the number of epochs follows
from a short measurement of this machine's speed (`Plan`, kept in plan.json): the table shows what the same few minutes
buy from each starting point, and a faster machine prints better numbers. `benchmarks/small_scale.py` compares starting
points at a fixed number of steps and for several seeds.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from lab.backbone import autocast, pick_device
from lab.data import ReidDataset, load
from lab.data.readers import list_images
from lab.data.synthetic import SyntheticConfig
from lab.data_verbs import render_people
from lab.evaluate.evaluate import evaluate_baseline, evaluate_run
from lab.evaluate.probe import retrieval_probe
from lab.evaluate.settings import EvaluateConfig
from lab.files import write_json
from lab.finetune.mgn import MGN
from lab.finetune.train import FinetuneConfig, make_optimizer
from lab.finetune.train import finetune as train_mgn
from lab.finetune.train import load as load_mgn
from lab.pretrain.moco import MoCo
from lab.pretrain.train import PretrainConfig
from lab.pretrain.train import pretrain as train_moco
from lab.runs import Run
from lab.weights import SHIPPED, describe_init

FRACTIONS = {"10": 0.1, "100": 1.0}  # of the training identities, as in the paper's small-scale setting
PRETRAIN_SECONDS = 90  # what the plan aims at, all else is rendering, reading and evaluation
FINETUNE_SECONDS = {"10": 20, "100": 45}  # of each run
STEPS_PER_EPOCH = 8  # of fine-tuning
SMALL = {"height": 64, "width": 32}
STARTS = {  # name in the run folder -> where the trunk comes from
    "scratch": None,
    "short": "pretrain-short",
    "shipped": SHIPPED,
}
LABELS = {
    "scratch": "random weights",
    "short": "pre-trained here, two minutes",
    "shipped": "shipped trunk, pre-trained for long",
    "baseline-histogram": "colour histogram",
    "baseline-untrained": "untrained network",
}


@dataclass(frozen=True)
class Plan:
    """How many epochs fit into the demo's minutes on this machine."""

    pretrain_step_seconds: float  # measured
    finetune_step_seconds: float  # measured
    pretrain_epochs: int
    finetune_epochs: dict[str, int]  # percent of the identities -> epochs


def run_demo(out: Path, seed: int = 0) -> pd.DataFrame:
    """Do what is not done yet under `out` (data/, runs/, results.csv) and return the table. Raises InputError."""
    out = Path(out)
    print("1. Synthetic people")
    render_people(out / "data", SyntheticConfig(seed=seed), workers=os.cpu_count() or 1)
    dataset = load("synthetic", out / "data")
    print(dataset.summary().to_string(), "\n")

    plan = make_plan(out)
    print("2. Two minutes of pre-training without labels")
    pretrain_short(out, dataset, plan, seed)

    print("\n3. Baselines that learned nothing")
    rows = []
    for baseline in ("histogram", "untrained"):
        rows += evaluate_both(Run(out / "runs" / f"baseline-{baseline}"), dataset, baseline)

    print("\n4. Fine-tuning on 10 % and on 100 % of the identities")
    for percent, fraction in FRACTIONS.items():
        for start, init in STARTS.items():
            config = finetune_config(fraction, plan.finetune_epochs[percent], seed)
            run = finetune_from(out, dataset, f"{start}-{percent}", init, config)
            rows += evaluate_both(run, dataset, None, fraction)

    table = pd.DataFrame(rows)
    table.to_csv(out / "results.csv", index=False)
    print(f"\n5. Results on {len(dataset.query)} queries, in % ({out / 'results.csv'})\n{render_table(table)}")
    return table


def make_plan(out: Path) -> Plan:
    """The plan in plan.json, or a new one from the time of a few training steps on random pixels."""
    file = out / "plan.json"
    if file.is_file():
        return Plan(**json.loads(file.read_text()))
    moco_step, mgn_step = time_pretraining(pretrain_config(1, 0)), time_finetuning(finetune_config(1.0, 1, 0))
    steps = len(list_images(out / "data" / "unlabeled")) // pretrain_config(1, 0).batch_size
    epochs = {
        percent: _within(seconds / mgn_step / STEPS_PER_EPOCH, 2, 40) for percent, seconds in FINETUNE_SECONDS.items()
    }
    plan = Plan(moco_step, mgn_step, _within(PRETRAIN_SECONDS / moco_step / steps, 2, 20), epochs)
    write_json(file, asdict(plan))
    return plan


def pretrain_config(epochs: int, seed: int) -> PretrainConfig:
    return replace(PretrainConfig.tiny(), **SMALL, epochs=epochs, probe_every=1, seed=seed)


def finetune_config(fraction: float, epochs: int, seed: int) -> FinetuneConfig:
    """Tiny on small crops, with half the published batch so that few minutes hold more steps."""
    small = replace(FinetuneConfig.tiny(), **SMALL, last_stride=1, padding=3, ids_per_batch=8, images_per_id=4)
    schedule = {"epochs": epochs, "steps_per_epoch": STEPS_PER_EPOCH}
    return replace(small, **schedule, fraction=fraction, seed=seed)


def time_pretraining(config: PretrainConfig) -> float:
    """Seconds of one MoCo step, without reading."""
    device = pick_device(config.device)
    model = MoCo(config.depth, config.dim, config.queue_size, bn_groups=config.bn_groups)
    model.to(device, memory_format=torch.channels_last)
    views = torch.rand(2, config.batch_size, 3, config.height, config.width, device=device) * 255

    def step() -> float:
        with autocast(device, config.amp):
            loss = model(*views).loss
        loss.backward()
        return loss.item()

    return _seconds(step)


def time_finetuning(config: FinetuneConfig) -> float:
    """Seconds of one MGN step, without reading."""
    device = pick_device(config.device)
    model = MGN(100, config.depth, last_stride=config.last_stride).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config)
    images = (
        torch.rand(config.ids_per_batch * config.images_per_id, 3, config.height, config.width, device=device) * 255
    )

    def step() -> float:
        with autocast(device, config.amp):
            loss = sum(feature.square().mean() for feature in model.features(images).values())
        loss.backward()
        optimizer.step()
        return loss.item()

    return _seconds(step)


def pretrain_short(out: Path, dataset: ReidDataset, plan: Plan, seed: int) -> Run:
    """MoCo on the unlabelled synthetic crops, with a retrieval probe on the test split."""
    config = pretrain_config(plan.pretrain_epochs, seed)
    paths = list_images(out / "data" / "unlabeled")
    run = Run.create(out / "runs" / STARTS["short"], "pretrain", config, data={"images": len(paths)})
    train_moco(run, paths, config, after_epoch=retrieval_probe(dataset, config.height, config.width))
    log = run.log()
    print(f"loss {log['loss'].iloc[-1]:.2f} (chance {log['chance_loss'].iloc[-1]:.2f}); retrieval without labels, mAP:")
    probes = log.dropna(subset="probe_mAP")
    print("  " + ", ".join(f"epoch {row.epoch:g}: {100 * row.probe_mAP:.1f} %" for row in probes.itertuples()))
    return run


def finetune_from(out: Path, dataset: ReidDataset, name: str, init: str | None, config: FinetuneConfig) -> Run:
    """One fine-tuning run of the table; `init` is None, "shipped" or the name of a run beside it."""
    weights = init if init in (None, SHIPPED) else str(out / "runs" / init)
    facts = {"data": {"dataset": dataset.name, "images": len(dataset.train)}, "init": describe_init(weights)}
    run = Run.create(out / "runs" / name, "finetune", config, **facts)
    print(name)
    train_mgn(run, dataset.train, config, weights)
    return run


def evaluate_both(run: Run, dataset: ReidDataset, baseline: str | None, fraction: float | None = None) -> list[dict]:
    """Two rows of the table, without and with re-ranking; an evaluation that is there is read, not repeated."""
    rows = []
    for rerank in (False, True):
        name, config = (
            f"{dataset.name}-rerank" if rerank else dataset.name,
            EvaluateConfig(rerank=rerank, cameras=True, verification=True),
        )
        if name in run.evals():
            result = run.result(name)
        elif baseline is not None:
            result = evaluate_baseline(run, baseline, dataset, config, progress=False)
        else:
            result = evaluate_run(run, load_mgn(run.folder), dataset, config, progress=False)
        start = run.name.split("-")[0]
        rows.append(
            {
                "run": run.name,
                "initialisation": LABELS.get(run.name, LABELS.get(start)),
                "identities": fraction,
                "rerank": rerank,
                "mAP": result.mAP,
                **{f"rank-{k}": result.cmc[k - 1] for k in (1, 5, 10)},
                "mINP": result.mINP,
            }
        )
    return rows


def _seconds(step: Callable[[], float], repeats: int = 3) -> float:
    """Median time of a call, after one that is not counted."""
    step()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return sorted(times)[repeats // 2]


def _within(value: float, low: int, high: int) -> int:
    return max(low, min(high, round(value)))


def render_table(table: pd.DataFrame) -> str:
    """The results as text: one line per run, plain and re-ranked values side by side, in %."""
    wide = table.pivot(index="run", columns="rerank", values=["mAP", "rank-1", "mINP"]) * 100
    wide.columns = [f"{metric}{' re-ranked' if rerank else ''}" for metric, rerank in wide.columns]
    wide = wide.reindex(table["run"].drop_duplicates())
    order = ["mAP", "rank-1", "mINP", "mAP re-ranked", "rank-1 re-ranked", "mINP re-ranked"]
    return wide[order].rename_axis(None).to_string(float_format=lambda value: f"{value:.1f}")
