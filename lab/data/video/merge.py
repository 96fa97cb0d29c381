"""Shards of a build, each cut by another machine, become one store: the same bytes as if one machine had done it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.data.holding import holding
from lab.data.keys import number_places, widths_for
from lab.data.store import SHARD, UNFINISHED
from lab.data.video.build import SHARD_DONE, Built
from lab.data.video.packing import NothingKeptError, Progress, clean, pack
from lab.data.video.parts import Part
from lab.errors import InputError


def merge(folders: Sequence[Path], out: Path, progress: Progress | None = None) -> Built:
    """Check that all shards of one build are there, whole and undamaged, and pack them into the store `out`.

    `folders` are shards, or folders that hold some. The shards are left as they are. Raises InputError for a shard that
    is missing, given twice, not finished, of another build, or damaged.
    """
    progress = progress or (lambda *_: None)
    shards = _find(folders)
    plan = _common_plan(shards)
    parts, others = _parts(shards)
    with holding(out, plan) as finished:
        if finished:
            clean(out)
            return Built(out, None, there=True)
        for number, (part, _) in enumerate(parts, 1):
            part.verify()
            progress("verifying", number, len(parts))
        for shard in shards:
            if (shard / "detections").is_dir():
                shutil.copytree(shard / "detections", out / "detections", dirs_exist_ok=True)
        try:
            report = pack(out, parts, plan, others, progress)
        except NothingKeptError:
            (out / UNFINISHED).unlink()
            raise
        clean(out)
    return Built(out, report)


def shard_settings(folders: Sequence[Path]) -> dict:
    """The settings (BuildConfig as a dict) that the shards were built with. The errors of `merge`."""
    return _common_plan(_find(folders))["settings"]


def _find(folders: Sequence[Path]) -> dict[Path, dict]:
    """Shards, given themselves or in the folders that were given, and what each says of itself."""
    found = []
    for folder in folders:
        inside = sorted(folder.glob(SHARD))
        if not inside and not folder.match(SHARD):
            raise InputError(
                f"{folder} holds no shard; expected folders like shard-0-of-2 that `lab data build --shard` wrote"
            )
        found += inside or [folder]
    shards = {}
    for folder in dict.fromkeys(path.resolve() for path in found):
        if not (folder / SHARD_DONE).is_file():
            state = "is not finished" if (folder / UNFINISHED).is_file() else "is missing or holds no shard"
            raise InputError(f"{folder} {state}; run its build again, with the same --shard")
        try:
            shards[folder] = json.loads((folder / SHARD_DONE).read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / SHARD_DONE} cannot be read ({error}); run its build again") from error
    return shards


def _common_plan(shards: dict[Path, dict]) -> dict:
    """The plan that all shards follow, without the number of the shard; each of them is there once."""
    plans = {folder: dict(about["source"]) for folder, about in shards.items()}
    numbers = {folder: tuple(plan.pop("shard")) for folder, plan in plans.items()}
    first, plan = next(iter(plans.items()))
    for folder, other in plans.items():
        if other != plan or numbers[folder][1] != numbers[first][1]:
            raise InputError(
                f"{folder} is a shard of another build than {first} (other videos, detections, settings or number of "
                "shards); give the shards of one build"
            )
    count = numbers[first][1]
    given = sorted(number for number, _ in numbers.values())
    missing, twice = sorted(set(range(count)) - set(given)), {number for number in given if given.count(number) > 1}
    if missing or twice:
        state = (
            f"shard {missing[0]} of {count} is missing" if missing else f"shard {min(twice)} of {count} is there twice"
        )
        raise InputError(f"{state}; expected each of 0 to {count - 1} once: {len(shards)} were given")
    return plan


def _parts(shards: dict[Path, dict]) -> tuple[list, dict[str, list[str]]]:
    """All parts with their places, and what is wrong beside the videos."""
    places = {tuple(place): folder for folder, about in shards.items() for _, place in about["parts"]}
    numbers = number_places(places)
    widths = widths_for(numbers.values())
    parts = [(Part(folder / "parts", numbers[place], widths), place) for place, folder in places.items()]
    return parts, next(iter(shards.values()))["others"]
