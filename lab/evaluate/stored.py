"""What an evaluation leaves in the run folder and finds there again: features, and results under other protocols."""

import hashlib
import itertools
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import nn

from lab.backbone import pick_device
from lab.data.splits import Split
from lab.distributed import is_first, share, wait, world_size
from lab.errors import InputError
from lab.evaluate.features import Embed, extract
from lab.evaluate.partial import PartialFile, Rows, hash_crops, read_note
from lab.evaluate.settings import EvaluateConfig
from lab.features_on_disk import RowsOnDisk
from lab.files import write_json
from lab.runs import Features, Run

MORE = ("cameras.csv", "cameras.npz", "verification.npz")  # what was asked for beside the ranking
LATER = ("flip", "multi_query")  # not done in a result that does not say: it is from before these settings existed


def features_of(
    run: Run,
    embed: Embed | nn.Module,
    split: Split,
    name: str,
    checkpoint: str | None,
    config: EvaluateConfig,
    progress: bool,
) -> Features:
    """The features of a split: stored ones if their note says that they were made from the same, else new ones.

    `name` is that of the data set and the part, as in market1501-query. Processes that torchrun started share the crops.
    """
    dataset, part = name.rsplit("-", 1)
    note = run.folder / "features" / f"{name}.json"
    source = source_of(split, checkpoint, config)
    if checkpoint is None or {"flip": False} | (read_note(note) or {}) != source:
        found, rows = _extract(run, embed, split, name, checkpoint, config, progress)
        wait()  # for the others' shares
        if is_first():
            try:
                note.unlink(missing_ok=True)  # a note never lies beside features that it does not vouch for
                run.save_features(dataset, part, found)
                write_json(note, source)
                rows.remove()
            except OSError as error:
                reason = f"cannot write {note} ({error.strerror})"
                raise InputError(f"{reason}; give a run folder that is writable") from error
    wait()
    return run.features(dataset, part)  # large ones stay on disk


def _extract(
    run: Run,
    embed: Embed | nn.Module,
    split: Split,
    name: str,
    checkpoint: str | None,
    config: EvaluateConfig,
    progress: bool,
) -> tuple[Features, Rows]:
    """New features, complete when all processes have made their share of batches."""
    how = (config.height, config.width, config.batch_size, config.num_workers, pick_device(config.device), config.amp)
    how = (*how, progress, name.rsplit("-", 1)[1], config.flip)
    if checkpoint is None:  # nothing says what a function is: its features cannot be gone on with
        rows = Rows()
        return extract(embed, split, *how, rows), rows
    file, facts = run.folder / "features" / name, {"checkpoint": checkpoint}
    if world_size() == 1:
        rows = PartialFile(file, facts)
        return extract(embed, split, *how, rows), rows
    first, last = share(-(-len(split) // config.batch_size))  # whole batches: the bytes that one process would make
    rows = PartialFile(file, facts, first * config.batch_size, min(len(split), last * config.batch_size))
    if first < last:
        extract(embed, split, *how, rows)
    wait()
    values = RowsOnDisk.open(rows.matrix)
    return Features(values, split.pid, split.camid, split.path), rows


def source_of(split: Split, checkpoint: str | None, config: EvaluateConfig) -> dict:
    """What features depend on. Crops are told apart by path, size and time, people and cameras by their numbers."""
    digest = hash_crops(hashlib.sha256(), split.path)
    digest.update(split.pid.tobytes() + split.camid.tobytes())
    size = {"height": config.height, "width": config.width}
    return {"checkpoint": checkpoint, "crops": digest.hexdigest(), **size, "amp": config.amp, "flip": config.flip}


def set_aside(run: Run, name: str, settings: dict) -> str | None:
    """Rename an earlier result `name` whose protocol is another one, so that a new one does not replace it.

    The new name says in what it was other, such as market1501-ap_trapezoid; returns it, or None.
    """
    file = run.folder / "eval" / name / "result.json"
    before = (read_note(file) or {}).get("settings", {})
    other = _differences(dict.fromkeys(LATER) | before if before else {}, settings)
    if not other:
        return None
    folder, kept = run.folder / "eval", f"{name}-{'-'.join(other)}"
    names = (kept if number == 1 else f"{kept}-{number}" for number in itertools.count(1))
    kept = next(free for free in names if not (folder / free).exists())
    (folder / name).rename(folder / kept)
    return kept


def carry_over(run: Run, name: str, settings: dict, made: Iterable[str]) -> Callable[[Path], None]:
    """What copies the files in MORE of an earlier result into a new one, if both are of the same crops and protocol.

    `made` are those that the new result has of its own.
    """
    folder = run.folder / "eval" / name
    before = (read_note(folder / "result.json") or {}).get("settings", {})
    known = settings.get("checkpoint") is not None or settings.get("features") is not None
    same = known and all(key in before and before[key] == value for key, value in settings.items())
    files = [file for file in MORE if same and file not in made and (folder / file).is_file()]

    def copy(target: Path) -> None:
        for file in files:
            shutil.copy2(folder / file, target / file)

    return copy


def _differences(before: dict, now: dict) -> list[str]:
    """key_value of what was other before; keys that are missing there are from before they existed, or not ours."""
    found = []
    for key, value in now.items():
        if key not in before or before[key] == value:
            continue
        if isinstance(before[key], dict) and isinstance(value, dict):
            found += _differences(before[key], value)
        else:
            found.append(re.sub(r"[^\w.]+", "_", f"{key}_{before[key]}"))
    return found
