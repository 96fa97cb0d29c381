"""The paper's small-scale question in miniature: what is a pre-trained trunk worth when labels are few?

Fine-tunes at size tiny from several starting points, at several fractions of the identities and for several seeds,
evaluates each with and without re-ranking, and writes a table with machine, commit and command. Runs that are there
are reused, so the script can be stopped and started again.

    python benchmarks/small_scale.py --dataset synthetic --root demo/data --out runs/small-scale \\
        --starts scratch shipped --fractions 0.1 --seeds 0 1 2 --results benchmarks/results/synthetic \\
        --epochs 4 --steps-per-epoch 12
"""

import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro
from report import as_markdown, cpu_name

from lab.data import ReidDataset, load
from lab.evaluate.evaluate import evaluate_run
from lab.evaluate.settings import EvaluateConfig
from lab.finetune.train import FinetuneConfig, finetune
from lab.finetune.train import load as load_mgn
from lab.runs import Run, describe
from lab.weights import describe_init


@dataclass(frozen=True)
class Study:
    """Which cells to run; every other setting of fine-tuning is an option of its own."""

    dataset: str  # market1501, folder or synthetic
    root: Path  # its folder
    out: Path  # folder for the runs
    results: Path  # the table goes to RESULTS.csv and RESULTS.md
    starts: tuple[str, ...] = ("scratch", "shipped")  # scratch, shipped, or NAME=CHECKPOINT
    fractions: tuple[float, ...] = (0.1, 1.0)  # of the training identities
    seeds: tuple[int, ...] = (0,)
    finetune: tyro.conf.OmitArgPrefixes[FinetuneConfig] = FinetuneConfig.tiny()


def main(study: Study) -> None:
    dataset = load(study.dataset, study.root)
    rows = []
    for fraction in study.fractions:
        for start in study.starts:
            for seed in study.seeds:
                rows += run_cell(study, dataset, start, fraction, seed)
                write(study, dataset, pd.DataFrame(rows))


def run_cell(study: Study, dataset: ReidDataset, start: str, fraction: float, seed: int) -> list[dict]:
    """Fine-tune and evaluate one cell; two rows, without and with re-ranking."""
    name, _, weights = start.partition("=")
    init = None if name == "scratch" else weights or name
    config = replace(study.finetune, fraction=fraction, seed=seed)
    run = Run.create(
        study.out / f"{name}-{100 * fraction:g}-seed{seed}",
        "finetune",
        config,
        data={"dataset": study.dataset, "images": len(dataset.train)},
        init=describe_init(init),
    )
    began = time.monotonic()
    finetune(run, dataset.train, config, init)
    minutes = (time.monotonic() - began) / 60
    rows = []
    for rerank in (False, True):
        result = evaluate_run(run, load_mgn(run.folder), dataset, EvaluateConfig(rerank=rerank), progress=False)
        rows.append(
            {
                "start": name, "identities": fraction, "seed": seed, "rerank": rerank, "steps": run.log()["step"].max(),
                "mAP": 100 * result.mAP, "rank-1": 100 * result.cmc[0], "mINP": 100 * result.mINP, "minutes": minutes,
            }
        )  # fmt: skip
    return rows


def write(study: Study, dataset: ReidDataset, table: pd.DataFrame) -> None:
    """RESULTS.csv with every run, RESULTS.md with the means over seeds and how they came about."""
    study.results.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(f"{study.results}.csv", index=False, float_format="%.3f")
    groups = table.groupby(["identities", "start", "rerank"], sort=False)
    means = groups[["mAP", "rank-1", "mINP"]].mean().round(1)
    means["mAP min-max over seeds"] = groups["mAP"].agg(lambda values: f"{values.min():.1f}-{values.max():.1f}")
    means["seeds"] = groups["seed"].nunique()
    facts = describe("study", study.finetune)
    lines = [
        f"# Fine-tuning on {dataset.name}, {len(dataset.query)} queries, {len(dataset.gallery)} gallery crops",
        "",
        as_markdown(means.reset_index()),
        "",
        f"- command: `python {shlex.join(sys.argv)}`",
        f"- commit {facts['commit']}, {time.strftime('%Y-%m-%d')}, torch {torch.__version__}",
        f"- machine: {cpu_name()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        "- mAP, rank-1 and mINP in %; step AP, cosine distance, re-ranking k1 20, k2 6, lambda 0.3",
    ]
    Path(f"{study.results}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Study, description=__doc__))
