"""The whole story at size tiny on the synthetic people: `lab demo`, and the folder that all notebooks share.

Renders a data set, pre-trains for about two minutes so that one sees it work, fine-tunes at 10 % and at 100 % of the
identities from three starting points, evaluates everything with and without re-ranking beside two baselines, and
prints one table. Whatever is already there is reused; a notebook asks for what it needs (`Demo`), and only that is made.

So that it ends within minutes on any machine, crops have a quarter of tiny's pixels, and the number of epochs follows
from a short measurement of this machine's speed (`Plan`, kept in plan.json): the table shows what the same few minutes
buy from each starting point, and a faster machine prints better numbers. `lab study` compares starting points at fixed
settings and with several seeds.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from lab.backbone import autocast, pick_device
from lab.data import ReidDataset, load
from lab.data.readers import list_images
from lab.data.synthetic import SyntheticConfig
from lab.data.synthetic.dataset import MARKER
from lab.data_verbs import render_people
from lab.errors import InputError
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
from lab.pretrain.train import load as load_moco
from lab.pretrain.train import pretrain as train_moco
from lab.runs import EvalResult, Run
from lab.show.images import read_picture
from lab.weights import SHIPPED, describe_init

FRACTIONS = {"10": 0.1, "100": 1.0}  # of the training identities, as in the paper's small-scale setting
PRETRAIN_SECONDS = 90  # what the plan aims at, all else is rendering, reading and evaluation
FINETUNE_SECONDS = {"10": 20, "100": 45}  # of each run
STEPS_PER_EPOCH = 8  # of fine-tuning
SMALL = {"height": 64, "width": 32}
PRETRAINED = "pretrain-short"
BASELINES = {"baseline-histogram": "histogram", "baseline-untrained": "untrained"}
STARTS = {  # in the name of a run -> where its trunk comes from
    "scratch": None,
    "short": PRETRAINED,
    "shipped": SHIPPED,
}
LABELS = {
    "scratch": "random weights",
    "short": "pre-trained here, two minutes",
    "shipped": "shipped trunk, pre-trained for long",
    "baseline-histogram": "colour histogram",
    "baseline-untrained": "untrained network",
}
FINETUNED = [f"{start}-{percent}" for percent in FRACTIONS for start in STARTS]
RELEASED = "lup-r50"  # at size paper: LUPerson's own weights in place of the shipped trunk


@dataclass(frozen=True)
class Plan:
    """How many epochs fit into the demo's minutes on this machine."""

    pretrain_step_seconds: float  # measured
    finetune_step_seconds: float  # measured
    pretrain_epochs: int
    finetune_epochs: dict[str, int]  # percent of the identities -> epochs


class Demo:
    """The demo's folder: data/, runs/ and plan.json, each made when it is first asked for and is not there.

    At `size` "tiny" people are drawn, and settings are `pretrain_config` and `finetune_config`. At "paper" they are the
    published ones, `root` is the folder of Market-1501 and `unlabeled` a store or folder of crops for pre-training; that
    takes GPUs and days, less if FOLDER/runs already holds runs of these names. Raises InputError.
    """

    def __init__(
        self,
        folder: str | Path,
        size: str = "tiny",
        root: str | Path | None = None,
        unlabeled: str | Path | None = None,
        seed: int = 0,
    ):
        if size not in ("tiny", "paper"):
            raise InputError(f'there is no size {size!r}; choose "tiny" or "paper"')
        if size == "paper" and root is None:
            raise InputError(
                'size "paper" works on real data, and no folder was given; set ROOT to that of Market-1501'
            )
        self.folder, self.size, self.seed = Path(folder), size, seed
        self.root = Path(root) if size == "paper" else self.folder / "data"
        self._unlabeled = unlabeled

    @cached_property
    def data(self) -> ReidDataset:
        if self.size == "paper":
            return load("market1501", self.root)
        self._draw_people()
        return load("synthetic", self.root)

    @cached_property
    def unlabeled(self) -> list[str]:
        """The crops of pre-training."""
        if self.size == "tiny":
            self._draw_people()
            return list_images(self.root / "unlabeled")
        if self._unlabeled is None:
            raise InputError(
                'pre-training at size "paper" needs crops without labels; set UNLABELED to a folder of them'
            )
        return list_images(Path(self._unlabeled))

    @cached_property
    def plan(self) -> Plan:
        self._draw_people()
        return make_plan(self.folder)

    def picture(self, path: str) -> np.ndarray | None:
        """RGB (H, W, 3) uint8 of a crop, None if it is gone."""
        return read_picture(path, root=self.root)

    def run(self, name: str) -> Run:
        """A finished run of `FINETUNED` or `BASELINES` with its evaluations, or `PRETRAINED`."""
        folder = self.folder / "runs" / name
        if name == PRETRAINED:
            self._pretrain(folder)
        elif name in BASELINES:
            self._evaluate(Run(folder))
        elif name in FINETUNED:
            if not set(self._evaluations.values()) <= set(Run(folder).evals()):
                self._finetune(folder)
            self._evaluate(Run(folder))
        else:
            names = ", ".join([*BASELINES, PRETRAINED, *FINETUNED])
            raise InputError(f"the demo has no run {name!r}; it has {names}")
        return Run.open(folder)

    def result(self, name: str, rerank: bool = False) -> EvalResult:
        """How a run ranks the test people."""
        return self.run(name).result(self._evaluations[rerank])

    def model(self, name: str) -> nn.Module:
        """The network of a run, in eval mode: MGN, or MoCo for the pre-trained one."""
        return (load_moco if name == PRETRAINED else load_mgn)(self.run(name).folder)

    def config(self, name: str) -> PretrainConfig | FinetuneConfig:
        """The settings that a run is trained with."""
        if name == PRETRAINED:
            if self.size == "paper":
                return PretrainConfig(seed=self.seed)
            return pretrain_config(self.plan.pretrain_epochs, self.seed)
        percent = name.split("-")[1]
        if self.size == "paper":
            return FinetuneConfig(fraction=FRACTIONS[percent], seed=self.seed)
        return finetune_config(FRACTIONS[percent], self.plan.finetune_epochs[percent], self.seed)

    def _draw_people(self) -> None:
        if not (self.root / MARKER).is_file():
            render_people(self.root, SyntheticConfig(seed=self.seed), workers=os.cpu_count() or 1)

    def _pretrain(self, folder: Path) -> None:
        """MoCo on the unlabelled crops, with a retrieval probe on the test split."""
        config = self.config(PRETRAINED)
        run = Run.create(folder, "pretrain", config, data={"images": len(self.unlabeled)})

        @cache
        def probe() -> Callable:  # reads its crops when it is needed, which in a finished run is never
            return retrieval_probe(self.data, config.height, config.width)

        train_moco(run, self.unlabeled, config, after_epoch=lambda model, epoch: probe()(model, epoch))

    def _finetune(self, folder: Path) -> None:
        init, config = STARTS[folder.name.split("-")[0]], self.config(folder.name)
        if init == PRETRAINED:
            weights = str(self.run(PRETRAINED).folder)
        else:
            weights = RELEASED if init and self.size == "paper" else init
        facts = {"data": {"dataset": self.data.name, "images": len(self.data.train)}, "init": describe_init(weights)}
        run = Run.create(folder, "finetune", config, **facts)
        train_mgn(run, self.data.train, config, weights)

    def _evaluate(self, run: Run) -> None:
        """Without and with re-ranking; an evaluation that is there is not repeated."""
        for rerank, name in self._evaluations.items():
            if name in run.evals():
                continue
            config = EvaluateConfig(rerank=rerank, cameras=True, verification=True)
            if run.name in BASELINES:
                evaluate_baseline(run, BASELINES[run.name], self.data, config, progress=False)
            else:
                evaluate_run(run, load_mgn(run.folder), self.data, config, progress=False)

    @property
    def _evaluations(self) -> dict[bool, str]:
        """re-ranked or not -> the name of the evaluation."""
        return {False: self.data.name, True: f"{self.data.name}-rerank"}


def run_demo(out: Path, seed: int = 0) -> pd.DataFrame:
    """Do what is not done yet under `out` (data/, runs/, results.csv) and return the table. Raises InputError."""
    demo = Demo(out, seed=seed)
    print("1. Synthetic people")
    render_people(demo.root, SyntheticConfig(seed=seed), workers=os.cpu_count() or 1)  # or notices other ones
    print(demo.data.summary().to_string(), "\n")

    print("2. Two minutes of pre-training without labels")
    log = demo.run(PRETRAINED).log()
    print(f"loss {log['loss'].iloc[-1]:.2f} (chance {log['chance_loss'].iloc[-1]:.2f}); retrieval without labels, mAP:")
    probes = log.dropna(subset="probe_mAP")
    print("  " + ", ".join(f"epoch {row.epoch:g}: {100 * row.probe_mAP:.1f} %" for row in probes.itertuples()))

    rows = []
    for title, names in (
        ("3. Baselines that learned nothing", BASELINES),
        ("4. Fine-tuning on 10 % and on 100 % of the identities", FINETUNED),
    ):
        print(f"\n{title}")
        for name in names:
            print(name)
            rows += result_rows(demo, name)

    table = pd.DataFrame(rows)
    table.to_csv(demo.folder / "results.csv", index=False)
    print(
        f"\n5. Results on {len(demo.data.query)} queries, in % ({demo.folder / 'results.csv'})\n{render_table(table)}"
    )
    return table


def result_rows(demo: Demo, name: str) -> list[dict]:
    """Two rows of the table, without and with re-ranking."""
    start, _, percent = name.partition("-")
    facts = {
        "run": name,
        "initialisation": LABELS.get(name, LABELS.get(start)),
        "identities": FRACTIONS.get(percent),
    }
    rows = []
    for rerank in (False, True):
        result = demo.result(name, rerank)
        ranks = {f"rank-{k}": result.cmc[k - 1] for k in (1, 5, 10)}
        rows.append(facts | {"rerank": rerank, "mAP": result.mAP, **ranks, "mINP": result.mINP})
    return rows


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
