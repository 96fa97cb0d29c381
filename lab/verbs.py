"""What each verb of the `lab` command does, one thin function per verb.

The command line is made from these signatures and from the settings of each stage (`config`).
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from tqdm import tqdm
from tyro.conf import OmitArgPrefixes, Positional

from lab.backbone import describe_init, save_trunk
from lab.data import load
from lab.data.crops import find_unreadable
from lab.data.readers import count_report, list_images, queries_without_match
from lab.data.synthetic import SyntheticConfig, write
from lab.errors import InputError
from lab.evaluate.evaluate import EvaluateConfig, evaluate_baseline, evaluate_features, evaluate_run
from lab.evaluate.probe import retrieval_probe
from lab.finetune.train import FinetuneConfig
from lab.finetune.train import finetune as train_mgn
from lab.finetune.train import load as load_mgn
from lab.pretrain.train import PretrainConfig
from lab.pretrain.train import load as load_moco
from lab.pretrain.train import pretrain as train_moco
from lab.runs import EvalResult, Features, Run

Size = Literal["tiny", "paper"]
DatasetName = Literal["market1501", "folder", "synthetic"]
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


def data_check(dataset: DatasetName, root: Path) -> None:
    """Layout, counts against the published ones, what was skipped and why, and pictures that cannot be read.

    Args:
        dataset: layout of the data set
        root: its folder; for 'folder' also the CSV file
    """
    found = load(dataset, root)
    print(found.summary().to_string())
    counts = count_report(found)
    if counts is not None:
        print(f"\nimages, beside the published {dataset}:\n{counts.to_string()}")
    for note in found.notes:
        print(f"- {note}")
    unanswerable = queries_without_match(found)
    if len(unanswerable):
        names = ", ".join(Path(path).name for path in found.query.path[unanswerable[:5]])
        print(f"- {len(unanswerable)} of {len(found.query)} queries have no match under another camera: {names} …")
    paths = [*found.train.path, *found.query.path, *found.gallery.path]
    broken = find_unreadable(tqdm(paths, unit="image", desc="reading"))
    if broken:
        path, reason = next(iter(broken.items()))
        raise InputError(
            f"{len(broken)} image(s) cannot be read, the first is {path} ({reason}); replace or remove them"
        )
    print(f"- all {len(paths)} images can be read")


def data_synth(
    out: Path, workers: int = os.cpu_count() or 1, config: OmitArgPrefixes[SyntheticConfig] = SyntheticConfig()
) -> None:
    """The synthetic people in Market-1501 layout, with unlabelled crops and ground truth.

    Args:
        out: a new folder; one that was made with the same settings is left as it is
        workers: processes that render
    """
    counts = render_people(out, config, workers)["counts"]
    print(f"{out}: " + ", ".join(f"{count} images in {name}" for name, count in counts.items()))


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
        data: folder(s) of images, searched with all folders below
        out: run folder; with the same settings it goes on where it stopped
        size: which defaults: the published recipe, or one for two CPU cores
        init: start from this checkpoint, run folder, or 'shipped'
        probe_dataset: layout of the labelled set for the retrieval probe
        probe_root: folder of that set; the probe measures, it never teaches
        places: folder of pictures without people; then the images are cut-outs, whose alpha says where the person is,
            and views show the person in other places (`lab data synth --num-places N` makes both)
    """
    paths = [path for folder in data for path in list_images(folder)]
    probe = None
    if probe_root is not None:
        probe = retrieval_probe(load(probe_dataset, probe_root), config.height, config.width)
    scenes = list_images(places) if places else []
    used = {"folders": [str(folder) for folder in data], "images": len(paths), "places": len(scenes)}
    run = Run.create(out, "pretrain", config, data=used, init=describe_init(init))
    train_moco(run, paths, config, init, probe, places=scenes)
    print(f"wrote {run.checkpoint}; next: lab finetune … --init {out}")


def finetune(
    dataset: DatasetName,
    root: Path,
    out: Path,
    size: Size = "paper",
    init: str | None = None,
    config: OmitArgPrefixes[FinetuneConfig] = FinetuneConfig(),
) -> None:
    """Fine-tune MGN on the training identities of a labelled data set.

    Args:
        dataset: layout of the data set
        root: its folder; for 'folder' also the CSV file
        out: run folder; with the same settings it goes on where it stopped
        size: which defaults: the published recipe, or one for two CPU cores
        init: trunk to start from: checkpoint, run folder or 'shipped'; none is from scratch
    """
    found = load(dataset, root)
    facts = {
        "data": {"dataset": dataset, "root": str(root), "images": len(found.train)},
        "init": describe_init(init),
    }
    run = Run.create(out, "finetune", config, **facts)
    train_mgn(run, found.train, config, init)
    print(f"wrote {run.checkpoint}; next: lab evaluate --run {out} --dataset {dataset} --root {root}")


def evaluate(
    run: Path | None = None,
    baseline: Literal["histogram", "untrained"] | None = None,
    dataset: DatasetName | None = None,
    root: Path | None = None,
    query_features: Path | None = None,
    gallery_features: Path | None = None,
    name: str = "features",
    out: Path | None = None,
    config: OmitArgPrefixes[EvaluateConfig] = EvaluateConfig(),
) -> None:
    """Rank the gallery for every query: CMC, mAP, mINP and rank lists, written to the run folder's eval/.

    Give a run (or a baseline and --out) with a data set, or two feature files and --out.

    Args:
        run: run folder with a checkpoint of pretrain or finetune
        baseline: instead of a run: colour histogram, or a network with random weights
        dataset: layout of the data set
        root: its folder; for 'folder' also the CSV file
        query_features: npz with values (N, D), pid (N,), camid (N,) and, if known, path (N,)
        gallery_features: the same for the gallery
        name: what the evaluation of feature files is called
        out: run folder that the result of a baseline or of feature files goes to
    """
    if sum(given is not None for given in (run, baseline, query_features)) != 1:
        raise InputError("give one of --run RUN, --baseline NAME, or --query-features Q with --gallery-features G")
    if run is None and out is None:
        raise InputError("a baseline or feature files need --out RUN, the folder that the result goes to")
    if query_features is not None:
        if gallery_features is None:
            raise InputError("--query-features was given without --gallery-features; give both files")
        query, gallery = Features.load(query_features), Features.load(gallery_features)
        facts = {"files": {"query": str(query_features), "gallery": str(gallery_features)}}
        report(Run(out), evaluate_features(Run(out), name, query, gallery, config, facts))
        return
    if dataset is None or root is None:
        raise InputError("--dataset and --root are missing; say which data set to evaluate on")
    found = load(dataset, root)
    if baseline is not None:
        report(Run(out), evaluate_baseline(Run(out), baseline, found, config))
    else:
        target = Run.open(run)
        report(target, evaluate_run(target, load_model(target), found, config))


def convert(source: Positional[Path], out: Path, half: bool = False) -> None:
    """The trunk inside a checkpoint as a safetensors file, with the report of what was found in it.

    Args:
        source: released or own weights (.pth, .pt, .safetensors) or a run folder
        out: file to write, FILE.safetensors
        half: store 16-bit floats
    """
    print(save_trunk(source, out, half))
    print(f"wrote {out}")


def app(runs: Positional[Path | None] = None) -> None:
    """Open the explorer on a folder of runs.

    Args:
        runs: folder of runs; without it $LAB_RUNS, else runs/ or demo/runs/
    """
    open_explorer(runs)


def load_model(run: Run):
    """The model in a run's checkpoint, by the stage that wrote it; anything with `embed(images)`."""
    loaders = {"pretrain": load_moco, "finetune": load_mgn}
    stage = run.config.get("stage")
    if stage not in loaders:
        raise InputError(f"{run.folder} holds stage '{stage}' and no model; expected a run of pretrain or finetune")
    return loaders[stage](run.folder)


def render_people(out: Path, config: SyntheticConfig, workers: int) -> dict:
    """Write the synthetic people, with a progress bar."""
    with tqdm(unit="crop", desc="rendering") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return write(out, config, workers=workers, progress=progress)


def report(run: Run, result: EvalResult) -> None:
    """Print the outcome in one line, and what was left out of it."""
    name = result.settings["dataset"] + ("-rerank" if result.settings["rerank"] else "")
    cmc = ", ".join(f"rank-{k} {100 * result.cmc[k - 1]:.2f}" for k in (1, 5, 10))
    print(f"{run.name} on {name}: mAP {100 * result.mAP:.2f} %, {cmc}, mINP {100 * result.mINP:.2f} %")
    left_out = result.num_query - result.num_valid_query
    if left_out:
        print(f"{left_out} of {result.num_query} queries have no match under another camera and are not counted")
    print(f"wrote {run.folder / 'eval' / name}")


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
