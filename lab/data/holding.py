"""A folder while something is written to it: nobody else writes there, nothing of others is touched, a kill costs little."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lab.data.store import SHARD, UNFINISHED
from lab.errors import InputError
from lab.files import write_json

LOCK = ".lab-store.lock"
# files of `replacing` that a killed process leaves
LEFTOVER = re.compile(r"\.(keys\.npy|keys\.pkl|index\.parquet|(store|unfinished|shard|packing)\.json)\..+")


@contextmanager
def holding(folder: str | Path, plan: dict, last: str = "store.json") -> Iterator[dict | None]:
    """Keep other processes from a folder while something is written to it; yields what is there already, if all is.

    `plan` (plain JSON) is what the content follows from; `last` is the file that is written last, and its "source", the
    plan and maybe more, is what is yielded. Raises InputError if the folder holds anything else, or something of
    another plan, if another process is writing it, and if it cannot be written. When the block raises, what was written is
    kept for the next time.
    """
    folder, plan = Path(folder), json.loads(json.dumps(plan))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_strangers(folder, last)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another process is writing {folder}; wait for it, or give --out another folder") from error
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); give --out a writable place") from error
    try:
        yield _begin(folder, plan, last)
        (folder / UNFINISHED).unlink(missing_ok=True)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        raise InputError(
            f"{error.strerror or error}{place} while {folder} was written; mend that, and run the same command to go on"
        ) from error
    finally:
        if not (folder / UNFINISHED).exists():
            (folder / LOCK).unlink(missing_ok=True)  # who still waits for it finds everything done
        lock.release()


def refuse_other_plan(before: dict, plan: dict, folder: Path) -> None:
    """Raise InputError if what is in a folder was made by other settings; `before` may say more than the plan."""
    for name, now in plan.items():
        if before.get(name) != now:
            raise InputError(
                f"{folder} holds a store that is made otherwise ({_difference(name, before.get(name), now)}); give --out a "
                "new folder, or the same settings"
            )


def _refuse_strangers(folder: Path, last: str) -> None:
    """Only an empty folder is written to, or one that was begun. Shards may lie in the folder that they are merged into, and
    a detector's boxes where they are to be used again."""
    if (folder / last).is_file() or (folder / UNFINISHED).is_file():
        return
    for entry in sorted(folder.iterdir()):
        own = (entry.match(SHARD) or entry.name == "detections") and entry.is_dir()
        if not own and entry.name != LOCK and not LEFTOVER.fullmatch(entry.name):
            raise InputError(
                f"{folder} already holds something that is not a store ({entry.name}); give --out a new folder"
            )


def _begin(folder: Path, plan: dict, last: str) -> dict | None:
    """What is there if all is done; checks that it follows from the plan."""
    if (folder / last).is_file():
        found = _read(folder / last).get("source", {})
        refuse_other_plan(found, plan, folder)
        return found
    if (folder / UNFINISHED).is_file():
        refuse_other_plan(_read(folder / UNFINISHED), plan, folder)
    else:
        write_json(folder / UNFINISHED, plan)
    for entry in folder.iterdir():
        if LEFTOVER.fullmatch(entry.name):
            entry.unlink()
    return None


def _difference(name: str, before, now) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(key for key in now if before.get(key) != now[key])
        before, now = before.get(name), now[name]
    return f"{name} was {before!r}, now {now!r}"


def _read(file: Path) -> dict:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete {file.parent} and start again") from error
