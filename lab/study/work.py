"""Doing the cells of a study: each an ordinary run, each once, whoever comes first.

    FOLDER/study.json            what the study is: another one is refused
    FOLDER/runs/pretrain-…       a pre-training, shared by the cells that start from it
    FOLDER/runs/…                a fine-tuning with its evaluations
    FOLDER/data/                 the synthetic people
    FOLDER/locks/                one per run that is being made

A process goes through the cells, takes one that nobody works on, and passes over those that others do. What is killed
goes on from its checkpoint, and what is done is not done again.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import torch
from filelock import FileLock, Timeout

from lab.backbone import pick_device
from lab.errors import InputError, Stopped
from lab.evaluate.evaluate import evaluate_run
from lab.evaluate.settings import EvaluateConfig
from lab.files import write_json
from lab.finetune.train import finetune
from lab.finetune.train import load as load_mgn
from lab.machine import describe_machine
from lab.pretrain.train import pretrain
from lab.runs import Run
from lab.study.designs import Cell, make_studies
from lab.study.results import COST, SETTINGS, Results, collect, load, read_settings
from lab.study.world import StudyConfig, World
from lab.weights import describe_init

WAIT = 2.0  # seconds until a process asks again whether another one is done


def do_study(name: str, folder: Path, config: StudyConfig) -> Results:
    """Do what is not done yet of a study, or of "all", and return everything that the folder holds.

    Raises InputError for a folder of another study and for bad settings; Stopped when SIGTERM stopped a training.
    """
    studies = make_studies(config.seeds, config.files(), config.domains)
    if name != "all" and name not in studies:
        raise InputError(f"there is no study '{name}' of these data; choose all, {', '.join(studies)}")
    world = World(config, folder)
    world.check()
    begin(folder, config)
    world.draw(config.workers)
    cells = [cell for study in (studies.values() if name == "all" else [studies[name]]) for cell in study.cells]
    cells = share_out(list(dict.fromkeys(cells)), *config.part())
    print(f"{len(cells)} cells, {sum(is_done(folder, config, cell) for cell in cells)} of them are done", flush=True)
    if config.workers == 1:
        work(folder, config, cells)
    else:
        _in_processes(folder, config, cells)
    return update(folder)


def begin(folder: Path, config: StudyConfig) -> None:
    """Write study.json; InputError if the folder holds another study, or something else. More seeds may be added to one.

    How many there were before stays in `seeds_before`: who adds seeds after a look at the verdicts has to say so.
    """
    facts, file = config.facts(), folder / SETTINGS
    if file.is_file():
        before = read_settings(folder)
        for key, value in facts.items():
            if before.get(key) != value and not (key == "seeds" and value > before["seeds"]):
                raise InputError(
                    f"{folder} holds a study with {key} {before.get(key)!r}, and now it is {value!r}; give --out a new folder, "
                    "or the same settings to go on"
                )
        if facts["seeds"] > before["seeds"]:
            earlier = [*before.get("seeds_before", []), before["seeds"]]
            write_json(file, before | {"seeds": facts["seeds"], "seeds_before": earlier})
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} holds something that is not a study; give --out a new folder")
        write_json(file, facts)
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); give --out a writable place") from error


def share_out(cells: Sequence[Cell], part: int, parts: int) -> list[Cell]:
    """The cells of one of several machines: those of one pre-training stay together, so that it is made once."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.pretraining or cell.name, []).append(cell)
    loads = [0] * parts
    mine = set()
    for group in sorted(groups.values(), key=len, reverse=True):
        least = loads.index(min(loads))
        loads[least] += len(group) + 2 * (group[0].pretraining is not None)  # a pre-training costs as much as two cells
        mine |= set(group) if least == part else set()
    return [cell for cell in cells if cell in mine]


def update(folder: Path) -> Results:
    """Read all runs of the folder anew into its tables, and return these. Raises InputError if there is no finished cell."""
    collect(folder, read_settings(folder)).save(folder)
    return load(folder)  # as they are written, so that reports from runs and from tables are the same to the last digit


def is_done(folder: Path, config: StudyConfig, cell: Cell) -> bool:
    return {config.dataset, f"{config.dataset}-rerank"} <= set(Run(folder / "runs" / cell.name).evals())


def work(folder: Path, config: StudyConfig, cells: Sequence[Cell]) -> None:
    """Do the cells that nobody else does, and wait for those that somebody does, until all are done."""
    world, left = World(config, folder), list(cells)
    while left:
        tried = [cell for cell in left if not is_done(folder, config, cell) and not _attempt(world, cell)]
        if len(tried) == len(left):
            time.sleep(WAIT)
        left = tried


def _attempt(world: World, cell: Cell) -> bool:
    """Do a cell with the pre-training that it starts from; False if another process is at one of them."""
    try:
        with _claimed(world.folder, cell.name):
            if cell.pretraining is not None:
                with _claimed(world.folder, cell.pretraining):
                    _pretrain(world, cell)
            if not is_done(world.folder, world.config, cell):
                _finetune(world, cell)
    except Timeout:
        return False
    return True


@contextmanager
def _claimed(folder: Path, name: str) -> Iterator[None]:
    """Nobody else makes the run meanwhile. Raises Timeout if somebody does."""
    (folder / "locks").mkdir(exist_ok=True)
    with FileLock(folder / "locks" / f"{name}.lock", timeout=0):
        yield


def _pretrain(world: World, cell: Cell) -> None:
    folder = world.folder / "runs" / cell.pretraining
    if (folder / COST).is_file():
        return
    images = world.crops(cell.start, cell.seed)
    config, places = world.pretraining(cell, len(images)), world.places(cell.start.crops)
    used = {"crops": cell.start.crops, "images": len(images), "places": len(places)}
    run = Run.create(folder, "pretrain", config, data=used)
    with _timed(folder, f"{cell.pretraining}: {config.epochs} epochs of {len(images)} crops"):
        pretrain(run, images, config, progress=False, places=places)


def _finetune(world: World, cell: Cell) -> None:
    folder, config = world.folder / "runs" / cell.name, world.finetuning(cell)
    init = cell.start.weights or (cell.pretraining and str(world.folder / "runs" / cell.pretraining))
    facts = {"data": {"dataset": world.config.dataset, "images": len(world.data.train)}, "init": _origin(cell, init)}
    run = Run.create(folder, "finetune", config, **facts)
    done = {}
    with _timed(folder, cell.name, lambda: f", mAP {100 * done['mAP']:.1f} %"):
        finetune(run, world.data.train, config, init, progress=False)
        model = load_mgn(folder)
        for rerank in (False, True):
            how = EvaluateConfig(rerank=rerank, amp=config.amp, num_workers=0)
            result = evaluate_run(run, model, world.data, how, progress=False)
            done.setdefault("mAP", result.mAP)
    if not world.config.keep_weights:
        for file in (run.checkpoint, *(folder / "features").glob("*.npz")):
            file.unlink()


def _origin(cell: Cell, init: str | None) -> dict | None:
    """What config.json says about the initial weights: no path, as a study can be moved."""
    return (
        None
        if init is None
        else {"weights": cell.pretraining or cell.start.name, "sha256": describe_init(init)["sha256"]}
    )


@contextmanager
def _timed(folder: Path, what: str, more: Callable[[], str] = str) -> Iterator[None]:
    """Write what a run cost, and say that it is done. A run that was killed counts from where it went on."""
    cpu, began = time.process_time(), time.monotonic()
    yield
    cost = {"cpu_seconds": time.process_time() - cpu, "seconds": time.monotonic() - began}
    write_json(
        folder / COST, cost | {"threads": torch.get_num_threads(), "machine": describe_machine(pick_device("auto"))}
    )
    print(f"{what}{more()} ({cost['seconds']:.0f} s)", flush=True)


def _in_processes(folder: Path, config: StudyConfig, cells: Sequence[Cell]) -> None:
    """`work` in several processes, which share the cores. Raises what the first that failed raised."""
    context = get_context("spawn")
    answers, ends = zip(*(context.Pipe(duplex=False) for _ in range(config.workers)), strict=True)
    jobs = [context.Process(target=_job, args=(folder, config, cells, end)) for end in ends]
    with _asking(jobs):
        for job, end in zip(jobs, ends, strict=True):
            job.start()
            end.close()  # the process has its own
        for job in jobs:
            job.join()
    for answer in answers:
        if error := _read(answer):
            raise error
    codes = [job.exitcode for job in jobs]
    if -signal.SIGTERM in codes:
        raise Stopped("stopped by SIGTERM between two trainings: run the same command to go on", signal.SIGTERM)
    if any(codes):
        raise RuntimeError(f"processes of the study ended with exit codes {codes}; what they said is above")


@contextmanager
def _asking(jobs: Sequence[BaseProcess]) -> Iterator[None]:
    """SIGTERM goes on to the processes, which save and end; Ctrl-C reaches them anyway, and this one waits for them."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for job in jobs:
            if job.is_alive():
                job.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    except KeyboardInterrupt:
        for job in jobs:
            job.join()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(answer: Connection) -> Exception | None:
    """The error that a process sent before it ended, if it did."""
    try:
        return answer.recv()
    except EOFError:
        return None


def _job(folder: Path, config: StudyConfig, cells: Sequence[Cell], answer: Connection) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.workers))
    try:
        work(folder, config, cells)
    except InputError as error:
        answer.send(error)
    except Stopped as stop:
        answer.send(stop)
    except KeyboardInterrupt:
        pass  # the process that started this one says so
