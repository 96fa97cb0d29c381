"""The whole story at size tiny on the synthetic people: `lab demo`.

Renders a data set, pre-trains for about two minutes so that one sees it work, fine-tunes at 10 % and at 100 % of the
identities from three starting points, evaluates everything with and without re-ranking beside two baselines, and
prints one table. Whatever is already there is reused.
"""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lab.backbone import SHIPPED, describe_init
from lab.data import ReidDataset, load
from lab.data.readers import list_images
from lab.data.synthetic import SyntheticConfig
from lab.evaluate.evaluate import EvaluateConfig, evaluate_baseline, evaluate_run
from lab.evaluate.probe import retrieval_probe
from lab.finetune.train import FinetuneConfig
from lab.finetune.train import finetune as train_mgn
from lab.finetune.train import load as load_mgn
from lab.pretrain.train import PretrainConfig
from lab.pretrain.train import pretrain as train_moco
from lab.runs import Run
from lab.verbs import render_people

FRACTIONS = {"10": 0.1, "100": 1.0}  # of the training identities, as in the paper's small-scale setting
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


def run_demo(out: Path, seed: int = 0) -> pd.DataFrame:
    """Do what is not done yet under `out` (data/, runs/, results.csv) and return the table. Raises InputError."""
    out = Path(out)
    print("1. Synthetic people")
    render_people(out / "data", SyntheticConfig(seed=seed), workers=os.cpu_count() or 1)
    dataset = load("synthetic", out / "data")
    print(dataset.summary().to_string(), "\n")

    print("2. Two minutes of pre-training without labels")
    pretrain_short(out, dataset, seed)

    print("\n3. Baselines that learned nothing")
    rows = []
    for baseline in ("histogram", "untrained"):
        rows += evaluate_both(Run(out / "runs" / f"baseline-{baseline}"), dataset, baseline)

    print("\n4. Fine-tuning on 10 % and on 100 % of the identities")
    for percent, fraction in FRACTIONS.items():
        for start, init in STARTS.items():
            run = finetune_from(out, dataset, f"{start}-{percent}", init, fraction, seed)
            rows += evaluate_both(run, dataset, None, fraction)

    table = pd.DataFrame(rows)
    table.to_csv(out / "results.csv", index=False)
    print(f"\n5. Results on {len(dataset.query)} queries, in % ({out / 'results.csv'})\n{render_table(table)}")
    return table


def pretrain_short(out: Path, dataset: ReidDataset, seed: int) -> Run:
    """MoCo on the unlabelled synthetic crops at a quarter of the pixels, with a retrieval probe on the test split."""
    config = replace(PretrainConfig.tiny(), height=64, width=32, epochs=4, probe_every=1, seed=seed)
    paths = list_images(out / "data" / "unlabeled")
    run = Run.create(out / "runs" / STARTS["short"], "pretrain", config, data={"images": len(paths)})
    if not is_finished(run, config.epochs):
        train_moco(run, paths, config, after_epoch=retrieval_probe(dataset, config.height, config.width))
    log = run.log()
    print(f"loss {log['loss'].iloc[-1]:.2f} (chance {log['chance_loss'].iloc[-1]:.2f}); retrieval without labels, mAP:")
    probes = log.dropna(subset="probe_mAP")
    print("  " + ", ".join(f"epoch {row.epoch:g}: {100 * row.probe_mAP:.1f} %" for row in probes.itertuples()))
    return run


def finetune_from(out: Path, dataset: ReidDataset, name: str, init: str | None, fraction: float, seed: int) -> Run:
    """One fine-tuning run of the table; `init` is None, "shipped" or the name of a run beside it."""
    config = replace(FinetuneConfig.tiny(), fraction=fraction, seed=seed)
    weights = init if init in (None, SHIPPED) else str(out / "runs" / init)
    facts = {"data": {"dataset": dataset.name, "images": len(dataset.train)}, "init": describe_init(weights)}
    run = Run.create(out / "runs" / name, "finetune", config, **facts)
    if not is_finished(run, config.epochs):
        print(name)
        train_mgn(run, dataset.train, config, weights)
    return run


def is_finished(run: Run, epochs: int) -> bool:
    """Whether the run's log reaches its last epoch and its checkpoint is there."""
    log = run.log()
    return run.checkpoint.is_file() and len(log) > 0 and log["epoch"].iloc[-1] >= epochs


def evaluate_both(run: Run, dataset: ReidDataset, baseline: str | None, fraction: float | None = None) -> list[dict]:
    """Two rows of the table, without and with re-ranking; an evaluation that is there is read, not repeated."""
    rows = []
    for rerank in (False, True):
        name, config = f"{dataset.name}-rerank" if rerank else dataset.name, EvaluateConfig(rerank=rerank)
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


def render_table(table: pd.DataFrame) -> str:
    """The results as text: one line per run, plain and re-ranked values side by side, in %."""
    wide = table.pivot(index="run", columns="rerank", values=["mAP", "rank-1", "mINP"]) * 100
    wide.columns = [f"{metric}{' re-ranked' if rerank else ''}" for metric, rerank in wide.columns]
    wide = wide.reindex(table["run"].drop_duplicates())
    order = ["mAP", "rank-1", "mINP", "mAP re-ranked", "rank-1 re-ranked", "mINP re-ranked"]
    return wide[order].rename_axis(None).to_string(float_format=lambda value: f"{value:.1f}")
