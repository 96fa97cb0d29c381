"""What each verb of the `lab` command does, one thin function per verb; those of `lab data` are in `data_verbs`.

The command line is made from these signatures and from the settings of each stage (`config`).
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
from tyro.conf import OmitArgPrefixes, Positional

from lab.convert import Layout
from lab.convert import convert as convert_weights
from lab.data import ReidDataset, load
from lab.data.images import open_images
from lab.data.readers import CLASSIC, DatasetName, count_differences, list_images
from lab.distributed import first_process_first
from lab.errors import InputError
from lab.evaluate.breakdown import break_down
from lab.evaluate.classic import check_classic, evaluate_classic, spread
from lab.evaluate.comparable import choose
from lab.evaluate.compare import compare as compare_results
from lab.evaluate.domains import SEEN, acquaintance, trained_on
from lab.evaluate.evaluate import evaluate_baseline, evaluate_features, evaluate_run
from lab.evaluate.probe import retrieval_probe
from lab.evaluate.settings import EvaluateConfig, eval_name
from lab.export import export_onnx
from lab.files import replacing
from lab.finetune.train import FinetuneConfig
from lab.finetune.train import finetune as train_mgn
from lab.matrix import make_matrix
from lab.models import image_size, load_descriptor, load_model
from lab.pretrain.train import PretrainConfig
from lab.pretrain.train import pretrain as train_moco
from lab.released import TERMS
from lab.reproduce import ReproduceConfig
from lab.reproduce import reproduce as reproduce_table
from lab.runs import EvalResult, Features, Run
from lab.show.comparison import comparison_tables, describe_breakdown, describe_comparison
from lab.study.report import write_report
from lab.study.results import load as load_study
from lab.study.work import do_study, update
from lab.study.world import StudyConfig
from lab.weights import describe_init, released_file, resolve_weights, weights_digest

Size = Literal["tiny", "paper"]
EXPLORER = Path(__file__).parent.parent / "apps" / "explorer.py"


def demo(out: Path, app: bool = True, seed: int = 0) -> None:
    """The whole story at size tiny on synthetic people: render, pre-train, fine-tune, evaluate, one table.

    Args:
        out: folder for data, runs and the table; what exists in it is reused
        app: open the explorer at the end
        seed: of people, weights and batches
    """
    from lab.demo import run_demo  # which uses this module

    run_demo(out, seed)
    print(f"\nlook at the runs with: lab app {out / 'runs'}")
    if app:
        open_explorer(out / "runs")


def pretrain(
    data: tuple[Path, ...],
    out: Path,
    size: Size = "paper",
    init: str | None = None,
    probe_dataset: DatasetName = "market1501",
    probe_root: Path | None = None,
    places: Path | None = None,
    config: OmitArgPrefixes[PretrainConfig] = PretrainConfig(),
) -> None:
    """Pre-train a trunk without labels: MoCo v2 with LUPerson's changes.

    Args:
        data: store(s), folders of tar shards, or folders of images, which are searched with all folders below
        out: run folder; with the same settings it goes on where it stopped
        size: which defaults: the published recipe, or one for two CPU cores
        init: start from this checkpoint, run folder, or 'shipped'
        probe_dataset: layout of the labelled set for the retrieval probe
        probe_root: folder of that set; the probe measures, it never teaches
        places: folder of pictures without people; then the images are cut-outs, whose alpha says where the person is,
            and views show the person in other places (`lab data synth --num-places N` makes both)
    """
    images = open_images(*data)
    probe = None
    if probe_root is not None:
        probe = retrieval_probe(load(probe_dataset, probe_root), config.height, config.width)
    scenes = list_images(places) if places else []
    used = {"folders": [str(folder) for folder in data], "images": len(images), "places": len(scenes)}
    with first_process_first():
        run = Run.create(out, "pretrain", config, data=used, init=describe_init(init))
    train_moco(run, images, config, init, probe, places=scenes)
    print(f"wrote {run.checkpoint}; next: lab finetune … --init {out}")


def finetune(
    dataset: DatasetName,
    root: Path,
    out: Path,
    size: Size = "paper",
    init: str | None = None,
    split: int = 0,
    config: OmitArgPrefixes[FinetuneConfig] = FinetuneConfig(),
) -> None:
    """Fine-tune MGN on the training identities of a labelled data set.

    Args:
        dataset: layout of the data set
        root: its folder; for 'folder' also the CSV file
        out: run folder; with the same settings it goes on where it stopped
        size: which defaults: the published recipe, or one for two CPU cores
        init: trunk to start from: checkpoint, run folder or 'shipped'; none is from scratch
        split: of the classic CUHK03, 0 to 19
    """
    found = load(dataset, root, split=split)
    facts = {
        "data": {"dataset": dataset, "root": str(root), "images": len(found.train)},
        "init": describe_init(init),
    }
    if dataset in CLASSIC:
        facts["data"]["split"] = split
    with first_process_first():
        run = Run.create(out, "finetune", config, **facts)
    train_mgn(run, found.train, config, init)
    again = f"--dataset {dataset} --root {root}{f' --split {split}' if split else ''}"
    print(f"wrote {run.checkpoint}; next: lab evaluate --run {out} {again}")


def evaluate(
    run: Path | None = None,
    weights: str | None = None,
    baseline: Literal["histogram", "untrained"] | None = None,
    dataset: DatasetName | None = None,
    root: Path | None = None,
    split: int | Literal["all"] = 0,
    query_features: Path | None = None,
    gallery_features: Path | None = None,
    name: str = "features",
    out: Path | None = None,
    config: OmitArgPrefixes[EvaluateConfig] = EvaluateConfig(),
) -> None:
    """Rank the gallery for every query: CMC, mAP, mINP and rank lists, written to the run folder's eval/.

    Give a run (or weights or a baseline, and --out) with a data set, or two feature files and --out.

    Args:
        run: run folder with a checkpoint of pretrain or finetune
        weights: instead of a run: a fine-tuned MGN or a trunk from elsewhere, as a file or a name such as
            lup-mgn-market1501
        baseline: instead of a run: colour histogram, or a network with random weights
        dataset: layout of the data set
        root: its folder; for 'folder' also the CSV file
        split: of the classic CUHK03, 0 to 19; all: each of them and their mean, for a model that never saw CUHK03
        query_features: npz with values (N, D), pid (N,), camid (N,) and, if known, path (N,); or NAME.npy with the values
            and NAME-labels.npz beside it. Large ones (more than 1 GB) stay on disk and are read as they are needed
        gallery_features: the same for the gallery
        name: what the evaluation of feature files is called
        out: run folder that the result of weights, a baseline or feature files goes to
    """
    if sum(given is not None for given in (run, weights, baseline, query_features)) != 1:
        raise InputError(
            "give one of --run RUN, --weights FILE, --baseline NAME, or --query-features Q with --gallery-features G"
        )
    if (query_features is None) != (gallery_features is None):
        one, other = ("query", "gallery") if gallery_features is None else ("gallery", "query")
        raise InputError(f"--{one}-features was given without --{other}-features; give both files")
    if query_features is not None and (dataset is not None or root is not None):
        raise InputError("feature files were given and a data set too; leave out --dataset and --root, or the files")
    if query_features is None and name != "features":
        raise InputError("--name is for feature files; other evaluations are called after their data set")
    if run is None and out is None:
        raise InputError("weights, a baseline or feature files need --out RUN, the folder that the result goes to")
    if query_features is not None:
        query, gallery = Features.load(query_features), Features.load(gallery_features)
        facts = {"files": {"query": str(query_features), "gallery": str(gallery_features)}}
        report(Run(out), evaluate_features(Run(out), name, query, gallery, config, facts))
        return
    if dataset is None or root is None:
        raise InputError("--dataset and --root are missing; say which data set to evaluate on")
    if split == "all":
        check_classic(dataset)
    found = load(dataset, root, split=0 if split == "all" else split)
    if note := count_differences(found):
        print(f"note: {note}")
    target, rank = evaluator(run, weights, baseline, out, config)
    if split == "all":
        results = evaluate_classic(target, rank, dataset, root)
        for result in results:
            report(target, result)
        print(f"\nover all {len(results)} splits, in %:\n{(100 * spread(results)).round(2).to_string()}")
        return
    if acquaintance(target, found.name, root) == SEEN:
        print(f"note: it was trained on {trained_on(target)}, and some of the people who are searched here were there")
    report(target, rank(found))


def compare(
    runs: Positional[tuple[str, ...]],
    eval: str | None = None,
    draws: int = 10_000,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Runs beside one another: means with 95 % intervals, paired tests, and where two of them differ.

    Intervals are from a bootstrap of people, not queries; p-values from swapping the results of people between two runs.
    Both speak of other people under these cameras, not of another seed of the training. Of two or three runs every pair
    is tested, of more each against the first; p-values of several pairs have Holm's correction. Results of other
    queries, galleries or protocols are refused; another method (distance, re-ranking, image size) is noted.

    Args:
        runs: run folders, or RUN:EVAL for one evaluation of a run, as in runs/a:market1501 runs/a:market1501-rerank
        eval: name of one evaluation; without it all that every run has
        draws: of the bootstrap, and random swaps of the test
        seed: of both
        out: FILE.csv for the means (fractions); tests, queries, failures and cameras go to FILE-pairs.csv and so on
    """
    if out is not None and out.suffix != ".csv":
        raise InputError(f"the tables were to go to {out}; expected a file name that ends in .csv")
    chosen = choose(runs, eval)
    comparisons = [compare_results(one.results, one.evaluation, draws, seed) for one in chosen]
    details = [break_down(found, one.folders) for found, one in zip(comparisons, chosen, strict=True)]
    for found, pairs in zip(comparisons, details, strict=True):
        print(describe_comparison(found), end="\n\n")
        if len(pairs) == 1:
            print(describe_breakdown(pairs[0]), end="\n\n")
    if out is not None:
        save_tables(out, comparison_tables(comparisons, details))


def convert(
    source: Positional[str], out: Path | None = None, to: Layout = "lab", half: bool = False, bgr: bool = False
) -> None:
    """Weights from one layout into another, with the report of what was found in them; without --out the report alone.

    Args:
        source: released or own weights (.pth, .pt, .safetensors), a run folder, or a name such as lup-r50
        out: file to write: FILE.safetensors, or FILE.pth for a published layout
        to: 'lab', a trunk or a fine-tuned MGN as safetensors; 'lup_moco', the published pre-training's raw
            checkpoint; 'fastreid', what the published fine-tuning reads
        half: store 16-bit floats
        bgr: the weights were trained on BGR images (OpenCV): turn their first convolution round
    """
    print(convert_weights(source, out, to, half, bgr))
    print(f"wrote {out}" if out else "nothing was written; give --out FILE for that")


def download(name: Positional[str], folder: Path | None = None) -> None:
    """A released LUPerson file, by name; its checksum is recorded on first use and compared after that.

    Args:
        name: a trunk, lup-r50, lup-r101 or lup-r152, or a fine-tuned MGN, lup-mgn-market1501, lup-mgn-dukemtmc,
            lup-mgn-msmt17 or lup-mgn-cuhk03
        folder: where to keep it; without it $LAB_WEIGHTS, else ~/.cache/luperson-lab
    """
    file = released_file(name, folder)
    print(f"{name} is {file}\n{TERMS}")
    if folder is not None:
        print(f"so that --init {name} finds it: export LAB_WEIGHTS={folder}")


def export(source: Positional[str], out: Path, height: int | None = None, width: int | None = None) -> None:
    """The descriptor as an ONNX file: uint8 images in, unit-norm features out, normalisation inside; checked against torch.

    Args:
        source: run folder, file of a fine-tuned MGN or with a trunk, or a name such as shipped or lup-r50
        out: file to write, FILE.onnx; it appears only when onnxruntime and torch agree
        height: of the images in pixels, fixed in the file; without it as the weights were trained
        width: the same for the width
    """
    model, settings = load_descriptor(source)
    if height is None or width is None:
        trained = image_size(source, model, settings)
        height, width = trained[0] if height is None else height, trained[1] if width is None else width
    print(f"exporting the {type(model).__name__} of {source} for images of {height} x {width} pixels")
    file = resolve_weights(source)
    name = f"{file.resolve().parent.name}/{file.name}" if Path(source).is_dir() else file.name
    facts = {"source": name, "source_sha256": weights_digest(file)}
    print(export_onnx(model, out, height, width, facts, progress=True))
    print(f"wrote {out}")


def reproduce(
    out: Path,
    market1501: Path | None = None,
    dukemtmc: Path | None = None,
    msmt17: Path | None = None,
    cuhk03: Path | None = None,
    dry_run: bool = False,
    config: OmitArgPrefixes[ReproduceConfig] = ReproduceConfig(),
) -> None:
    """LUPerson's table: fine-tune and evaluate on the data sets that are here, our numbers beside the published ones.

    The commands are printed with the GPU hours to expect, then run; what is done already is not done again. Without any
    data set the commands for all four are printed.

    Args:
        out: folder for the runs
        market1501: folder of Market-1501, if it is here
        dukemtmc: folder of DukeMTMC-reID
        msmt17: folder of MSMT17
        cuhk03: folder of CUHK03 (new protocol, labeled)
        dry_run: print the commands and what was published, run nothing
    """
    given = {"market1501": market1501, "dukemtmc": dukemtmc, "msmt17": msmt17, "cuhk03": cuhk03}
    reproduce_table(out, {name: root for name, root in given.items() if root is not None}, config, dry_run)


def matrix(
    runs: tuple[Path, ...],
    datasets: tuple[str, ...],
    out: Path,
    config: OmitArgPrefixes[EvaluateConfig] = EvaluateConfig(),
) -> None:
    """Every model on every data set: mAP and rank-1, and which data set each model was trained on.

    Cells are evaluations in the runs' own eval/; one that is there, of the same weights, crops and settings, is read and
    not made again. A cell that fails is named at the end, and the others are made all the same.

    Args:
        runs: run folders: of pretrain or finetune, or that `lab evaluate --weights` wrote
        datasets: NAME=ROOT, as in market1501=/data/market; NAME:LABEL=ROOT calls it LABEL here, as two of one layout
            need, and cuhk03-classic-labeled/7=ROOT is split 7
        out: folder for matrix.csv, one row per cell
    """
    make_matrix(runs, datasets, out, config)


def study(name: Positional[str], out: Path, config: OmitArgPrefixes[StudyConfig] = StudyConfig()) -> None:
    """The paper's claims in miniature: a grid of ordinary runs with several seeds, and a verdict for each claim.

    What is done is not done again, several processes (--workers) and machines (--shard) share the cells, and studies in
    one folder share what they have in common.

    Args:
        name: small-scale, few-shot, augmentation, temperature, pretraining-data, pretraining-effort, rerank, or all
        out: folder of the study; with the same settings it goes on where it stopped
    """
    do_study(name, out, config)
    study_report(out)


def study_report(out: Path, to: Path | None = None) -> None:
    """Tables, figures and verdicts of a study, from its runs, or from the tables of an earlier report.

    Args:
        out: folder that lab study worked in, or one with the cells.csv, people.csv and study.json of a report
        to: folder for the report; none: OUT/report
    """
    results = update(out) if (out / "runs").is_dir() else load_study(out)
    for line in write_report(results, to or out / "report"):
        print(line)


def app(runs: Positional[Path | None] = None) -> None:
    """Open the explorer on a folder of runs.

    Args:
        runs: folder of runs; without it $LAB_RUNS, else runs/ or demo/runs/
    """
    open_explorer(runs)


def evaluator(
    run: Path | None, weights: str | None, baseline: str | None, out: Path | None, config: EvaluateConfig
) -> tuple[Run, Callable[[ReidDataset], EvalResult]]:
    """The run folder that results go to, and what evaluates a run's model, weights from elsewhere or a baseline.

    Weights get a run folder of their own, and are evaluated at the image size that they were trained for.
    """
    if run is not None:
        target = Run.open(run)
        return target, partial(evaluate_run, target, load_model(target), config=config)
    if weights is None:
        return Run(out), partial(evaluate_baseline, Run(out), baseline, config=config)
    model, settings = load_descriptor(weights)
    if config.height is None or config.width is None:
        height, width = image_size(weights, model, settings)
        config = replace(config, height=config.height or height, width=config.width or width)
    facts = {"weights": weights, "height": config.height, "width": config.width}
    with first_process_first():
        target = Run.create(out, "weights", facts, init=describe_init(weights))
    digest = weights_digest(resolve_weights(weights))
    return target, partial(evaluate_run, target, model, config=config, digest=digest)


def report(run: Run, result: EvalResult) -> None:
    """Print the outcome in one line, and what has to be known about its means."""
    settings = result.settings
    name = eval_name(settings["dataset"], settings)
    cmc = ", ".join(f"rank-{k} {100 * result.cmc[k - 1]:.2f}" for k in (1, 5, 10))
    print(f"{run.name} on {name}: mAP {100 * result.mAP:.2f} %, {cmc}, mINP {100 * result.mINP:.2f} %")
    if settings["gallery_shot"] == "single":
        spread = f" (standard deviation of rank-1: {100 * result.cmc_std[0]:.2f})" if result.cmc_std is not None else ""
        draws = f"the mean of {settings['repeats']} draws{spread}"
        print(f"rank-k is single-gallery-shot: one random crop per person, {draws}")
    lonely = result.num_query - result.num_valid_query
    if lonely:
        fate = "count as 0" if settings["denominator"] == "all" else "are not counted"
        print(f"{lonely} of {result.num_query} queries have no match under another camera and {fate}")
    if settings.get("flip") or settings.get("multi_query"):
        how = ["flip test"] * bool(settings.get("flip")) + ["multi-query"] * bool(settings.get("multi_query"))
        print(f"with {' and '.join(how)}: compare with results that were made in the same way")
    if "verification" in settings:
        print(describe_verification(settings["verification"]))
    if "approximate" in settings:
        found = settings["approximate"]
        recall = ", ".join(f"recall@{k} {100 * value:.2f} %" for k, value in found["recall"].items())
        print(f"{found['settings']['index']} index: {recall} of the exact lists; metrics are those of the exact search")
    print(f"wrote {run.folder / 'eval' / name}")


def describe_verification(summary: dict) -> str:
    """Error rates of "do these two show the same person?" in a line."""
    rates = ", ".join(f"{100 * tpr:.2f} % at FPR {float(fpr):g}" for fpr, tpr in summary["tpr_at_fpr"].items())
    return f"all pairs: equal error rate {100 * summary['eer']:.2f} %, true pairs accepted: {rates}"


def save_tables(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write each table to FILE.csv or FILE-name.csv beside it."""
    for name, table in tables.items():
        file = out.with_name(f"{out.stem}-{name}.csv") if name else out
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary:
                table.to_csv(temporary, index=False)
        except OSError as error:
            raise InputError(f"cannot write {file} ({error.strerror}); give --out a writable place") from error
        print(f"wrote {file}")


def open_explorer(runs: Path | None) -> None:
    """Start Streamlit on apps/explorer.py and wait until it is closed."""
    if runs is not None and not runs.is_dir():
        raise InputError(f"there is no folder {runs}; expected a folder of runs: make one with `lab demo --out demo`")
    if not EXPLORER.is_file():
        raise InputError(f"{EXPLORER} is not there; the explorer lives in the source tree: install the lab with pip -e")
    environment = dict(os.environ) if runs is None else os.environ | {"LAB_RUNS": str(runs.resolve())}
    # Streamlit reads .streamlit/config.toml in the folder that it is started in
    command = [sys.executable, "-m", "streamlit", "run", str(EXPLORER)]
    sys.exit(subprocess.run(command, env=environment, cwd=EXPLORER.parent.parent).returncode)
