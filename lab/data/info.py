"""What is in a store, LUPerson's LMDB, a folder of images or tar shards: numbers, and what the keys mean."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab.data.from_folder import NAMED
from lab.data.from_store import Records
from lab.data.importing import Source, open_source, say_skipped
from lab.data.keys import parse_key, split_keys
from lab.data.sample import Sample, Spread, look_at
from lab.data.store import Store
from lab.data.video.report import describe_report
from lab.data.video.settings import BuildConfig
from lab.errors import InputError

MOST_CITIES = 20  # that are listed
LEVELS = ("country", "city", "video")
LABELS = {
    "pid": "people (pid)",
    "camid": "cameras (camid)",
    "pids": "tracklets or people (pids)",
    "vids": "videos (vids)",
}
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and std of R, G and B, 0 to 1


@dataclass(frozen=True)
class Tracklets:
    """Crops of one person in consecutive frames, as detection files or a tracker said."""

    count: int
    crops: Spread  # in a tracklet
    frames: Spread | None  # from the first to the last crop of a tracklet, both counted
    without: int  # crops that are in none


@dataclass(frozen=True)
class Info:
    """What `describe` found out."""

    path: Path
    kind: str
    images: int
    bytes: int
    bytes_of: str  # what has this size
    places: tuple[int, int, int] | None  # countries, cities and videos; None if the keys are not LUPerson's
    first: list[tuple[str, str]]  # the first keys, and what each means
    sample: Sample
    labels: dict[str, tuple[int, Spread]] = field(default_factory=dict)  # such as pid: how many, and images of each
    tracklets: Tracklets | None = None
    report: dict = field(default_factory=dict)  # of the build or import
    settings: dict = field(default_factory=dict)  # of the build
    cities: list[tuple[str, str, int]] = field(default_factory=list)  # key, name, images; empty if there is one alone
    skipped: dict[str, dict] = field(default_factory=dict)  # reason -> count and first names
    notes: list[str] = field(default_factory=list)


def describe(source: str | Path, keys: str | Path | None = None, sample: int = 2000, seed: int = 0) -> Info:
    """Look at what lies at `source`: at all of its keys, and at the pixels of `sample` images drawn by `seed`.

    For image files it says what keys `lab data import` would give them. Raises InputError.
    """
    if sample < 1:
        raise InputError(f"--sample is {sample}; expected 1 or more images to look at: give another number")
    return describe_source(open_source(source, keys), source, sample, seed)


def describe_source(found: Source, source: str | Path, sample: int = 2000, seed: int = 0) -> Info:
    """`describe` for a source that is open already; `source` is where it lies."""
    if not len(found.keys):
        raise InputError(
            f"{source} holds no image; expected a store, a released LMDB, images or tar shards: look there"
        )
    about, tracklets, labels = {}, None, dict(found.labels)
    if isinstance(found, Records) and found.store.about:
        about = found.store.about
        tracklets, columns = read_index(found.store)
        labels |= columns
    size, size_of = found.size()
    return Info(
        path=Path(source),
        kind=found.kind,
        images=len(found.keys),
        bytes=size,
        bytes_of=size_of,
        places=count_places(np.asarray(found.keys)),
        first=first_keys(found),
        sample=look_at(found, sample, seed),
        labels={name: count_labels(values) for name, values in labels.items() if (values >= 0).any()},
        tracklets=tracklets,
        report=about.get("report", {}),
        settings=about.get("source", {}).get("settings", {}),
        cities=list_cities(found),
        skipped=found.skipped,
        notes=found.notes,
    )


def count_places(keys: np.ndarray) -> tuple[int, int, int] | None:
    """How many countries, cities and videos (N,) sorted keys are of; None if some are of another kind."""
    places: set[tuple[int, ...]] = set()
    # runs of keys that differ only in the image's number are parsed once: millions of keys take a second
    for start in range(0, len(keys), 100_000):
        piece = np.unique(_without_image(keys[start : start + 100_000]))
        parsed = [parse_key(f"{key.decode('ascii', 'replace')}_00000000") for key in piece.tolist()]
        if None in parsed:
            return None
        places.update(place[:3] for place in parsed)
    return len({place[:1] for place in places}), len({place[:2] for place in places}), len(places)


def list_cities(found: Source) -> list[tuple[str, str, int]]:
    """The cities of the keys: CC_cc, their names as "city, country", and how many images each has."""
    numbers = split_keys(found.keys)
    if numbers is None:
        return []
    begins = np.flatnonzero(np.r_[True, (numbers[1:, :2] != numbers[:-1, :2]).any(axis=1)])
    counts = np.diff(np.r_[begins, len(numbers)])
    rows = [row for table in found.tables(begins[:MOST_CITIES]) for row in table.to_pylist()]
    cities = []
    for row, count in zip(rows, counts.tolist(), strict=False):
        prefix = "_".join(row["key"].split("_")[:2])
        cities.append((prefix, ", ".join(row[level] for level in ("city", "country") if row.get(level)), count))
    return cities if len(begins) > 1 else []


def _without_image(keys: np.ndarray) -> np.ndarray:
    """Keys up to their last "_", or as they are where eight digits or more do not follow it."""
    width = keys.dtype.itemsize
    letters = np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), width)
    cut = width - 9
    if cut > 0 and (letters[:, cut] == ord("_")).all() and np.isin(letters[:, cut + 1 :], _DIGITS).all():
        return np.ascontiguousarray(letters[:, :cut]).view(f"S{cut}").ravel()
    heads = [key.rpartition(b"_") for key in keys.tolist()]
    return np.array([head if tail.isdigit() and len(tail) >= 8 else b"?" for head, _, tail in heads], dtype=np.bytes_)


_DIGITS = np.frombuffer(b"0123456789", dtype=np.uint8)


def first_keys(found: Source, count: int = 5) -> list[tuple[str, str]]:
    """The first keys, and what each means in words."""
    table = next(found.tables(np.arange(min(count, len(found.keys)))))
    return [(row["key"], _meaning(row)) for row in table.to_pylist()]


def _meaning(row: dict) -> str:
    """What a key says: '30_00_0292_00000238' is image 238 of video 292 of city 0 of country 30."""
    numbers = parse_key(row["key"])
    if numbers is None:
        words = "a key of another kind than LUPerson's"
    else:
        words = f"image {numbers[3]}"
        for level, number in reversed([*zip(LEVELS, numbers[:3], strict=True)]):
            name = row.get(level)
            named = name and not (name.isdecimal() and int(name) == number)
            words += f" of {level} {number}" + (f" ({name})" if named else "")
    return words + (f", file {row['path']}" if row.get("path") else "")


def count_labels(values: np.ndarray) -> tuple[int, Spread]:
    """How many different labels there are, and how many images have each; below 0 they stand for junk or unknown."""
    _, counts = np.unique(values[values >= 0], return_counts=True)
    return len(counts), Spread.of(counts)


def read_index(store: Store) -> tuple[Tracklets | None, dict[str, np.ndarray]]:
    """The tracklets of a store, None if it has none, and the labels in its index."""
    index = store.open_index()
    names = index.schema_arrow.names
    try:
        table = index.read([name for name in (*LEVELS, "track", "frame", *LABELS) if name in names])
    except (OSError, ValueError) as error:
        raise InputError(f"the index of {store.path} cannot be read ({error}); build or import it again") from error
    labels = {name: table[name].drop_null().to_numpy() for name in LABELS if name in names}
    tracked = table.filter(pc.greater_equal(table["track"], 0)) if "track" in names else table.slice(0, 0)
    return (_tracklets(tracked, table.num_rows) if len(tracked) else None), labels


def _tracklets(tracked: pa.Table, images: int) -> Tracklets:
    """Summarise the crops that are in a tracklet. Track numbers begin anew in each video."""
    groups = tracked.group_by([name for name in (*LEVELS, "track") if name in tracked.column_names])
    crops = groups.aggregate([("track", "count")])["track_count"].to_numpy()
    frames = None
    if "frame" in tracked.column_names:
        ends = groups.aggregate([("frame", "min"), ("frame", "max")])
        frames = Spread.of(ends["frame_max"].to_numpy() - ends["frame_min"].to_numpy() + 1)
    return Tracklets(len(crops), Spread.of(crops), frames, images - len(tracked))


def describe_info(info: Info, reference: Statistics | None = None) -> str:
    """What was found, in lines; `reference` is LUPerson's published mean and std, to be put beside the sample's."""
    lines = [f"{info.path}: {info.images:,} images, {info.kind}; {info.bytes / 1e6:,.1f} MB ({info.bytes_of})"]
    if info.places:
        lines.append(", ".join(map(_many, info.places, LEVELS, ("countries", "cities", "videos"))))
    lines += [f"  {key}: {name}, {_many(count, 'image', 'images')}" for key, name, count in info.cities]
    if info.places and info.cities and info.places[1] > len(info.cities):
        lines.append("  …")
    for name, (count, images) in info.labels.items():
        lines.append(f"{count:,} {LABELS.get(name, name)}, with {_spread(images, 0)} images")
    if info.tracklets:
        lines += _say_tracklets(info.tracklets)
    lines += ["first keys:", *(f"  {key}: {words}" for key, words in info.first)]
    lines += _say_sample(info.sample, reference)
    lines += [f"left out: {line}" for line in say_skipped(info.skipped)]
    lines += [f"note: {note}" for note in info.notes]
    if "videos" in info.report:
        lines += ["how it was made:", *describe_report(info.report, info.settings).splitlines()]
        lines += [
            f"  {name}: {value}" for name, value in info.settings.items() if value != getattr(BuildConfig(), name)
        ]
        return "\n".join(lines)
    return "\n".join(lines + _say_report(info.report))


def _say_sample(sample: Sample, reference: Statistics | None) -> list[str]:
    drawn = sample.images + len(sample.unreadable)
    lines = [f"a sample of {_many(drawn, 'image', 'images')}, {len(sample.unreadable):,} of them unreadable"]
    if sample.unreadable:
        lines[0] += f" ({', '.join(sample.unreadable[:NAMED])}{', …' if len(sample.unreadable) > NAMED else ''})"
    if sample.images:
        lines.append(f"  height {_spread(sample.height, 0)}, width {_spread(sample.width, 0)} pixels")
        lines.append(f"  height / width {_spread(sample.aspect, 2)}")
        for name, ours, theirs in zip(
            ("mean", "std"), (sample.mean, sample.std), reference or (None, None), strict=True
        ):
            lines.append(f"  {name} of R, G, B {_triple(ours)}" + (f", LUPerson's {_triple(theirs)}" if theirs else ""))
    return lines


def _say_tracklets(tracklets: Tracklets) -> list[str]:
    lines = [
        f"{tracklets.count:,} tracklets with {_spread(tracklets.crops, 0)} crops; {tracklets.without:,} crops in none"
    ]
    if tracklets.frames:
        lines.append(f"  from first to last crop {_spread(tracklets.frames, 0)} frames")
    return lines


def _say_report(report: dict) -> list[str]:
    """The report of a build or import: numbers and words in one line each, and under a reason how often it was met."""
    lines = ["how it was made:"] if report else []
    for name, value in report.items():
        if isinstance(value, dict):
            entries = [
                (reason, entry["count"] if isinstance(entry, dict) else entry) for reason, entry in value.items()
            ]
            lines += [f"  {name}: {_number(entry)} {reason}" for reason, entry in entries]
        elif isinstance(value, list):
            lines += [f"  {name}: {entry}" for entry in value]
        else:
            lines.append(f"  {name}: {_number(value)}")
    return lines


def _many(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _number(value) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)


def _spread(spread: Spread, digits: int) -> str:
    median = f"{spread.median:,.{digits}f}" if digits or spread.median % 1 == 0 else f"{spread.median:,.1f}"
    return f"{spread.least:,.{digits}f} to {spread.most:,.{digits}f} (median {median})"


def _triple(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
