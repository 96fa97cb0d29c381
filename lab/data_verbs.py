"""What each verb of `lab data` does, one thin function per verb: from videos and downloads to data that can be learned from."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal

from tqdm import tqdm
from tyro.conf import OmitArgPrefixes, Positional

from lab.data import load
from lab.data.exporting import describe_export, export_jpegs, export_tars
from lab.data.images import open_images
from lab.data.importing import describe_import, import_images
from lab.data.info import describe, describe_info
from lab.data.jpeg import find_unreadable
from lab.data.overlap import describe_overlap, find_overlap
from lab.data.readers import DATASETS, DatasetName, count_differences, count_report, queries_without_match
from lab.data.synthetic import SyntheticConfig, write
from lab.data.video.build import Built, NothingKeptError
from lab.data.video.build import build as build_store
from lab.data.video.download import describe_plan, plan_download
from lab.data.video.merge import merge as merge_shards
from lab.data.video.merge import shard_settings
from lab.data.video.report import describe_report
from lab.data.video.settings import BuildConfig
from lab.data.video.shards import find_shard
from lab.errors import InputError
from lab.files import replacing
from lab.released import TERMS

# LUPerson's published mean and standard deviation of red, green and blue, as fractions (released transform.py)
LUPERSON_COLOURS = ((0.3525, 0.3106, 0.3140), (0.2660, 0.2522, 0.2505))


def data_check(dataset: DatasetName, root: Path, split: int = 0) -> None:
    """Layout, counts against the published ones, what was skipped and why, and pictures that cannot be read.

    Args:
        dataset: layout of the data set
        root: its folder; for 'folder' also the CSV file
        split: of the classic CUHK03, 0 to 19
    """
    print(DATASETS[dataset])
    found = load(dataset, root, split=split)
    print(f"\n{found.summary().to_string()}")
    counts = count_report(found)
    if counts is not None:
        print(f"\nbeside the published {found.edition}:\n{counts.to_string()}")
    for note in (*found.notes, count_differences(found)):
        if note:
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


def data_build(
    videos: Path,
    out: Path,
    detections: Path | None = None,
    workers: int | None = None,
    shard: str | None = None,
    config: OmitArgPrefixes[BuildConfig] = BuildConfig(),
) -> None:
    """Cut the people out of videos into a store of crops, as LUPerson was made (paper, section 3).

    Killed at any moment, the same command goes on and ends with the same bytes.

    Args:
        videos: a video, or a folder of videos with all folders below; country/city/video.mp4 names the places
        out: folder of the store
        detections: boxes of people (or give --detector): a file, or a folder with one per video, called like it: LUPerson's
            NAME.pkl or MOTChallenge's NAME.txt (frame,id,x,y,w,h,score)
        workers: processes, each cuts a video at a time; without it one per processor core, one with a detector
        shard: I/N cuts every N-th video only, for `lab data merge`; without it torchrun's or a Slurm array's share
    """
    share = find_shard(shard, os.environ)
    if share:
        print(
            f"shard {share[0]} of {share[1]}: one video in {share[1]}"
            + ("" if shard else "; --shard 0/1 takes all of them")
        )
    if workers is None:
        workers = 1 if config.detector else os.cpu_count() or 1
    if workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    settings = asdict(config)
    with explained(settings), stages() as progress:
        built = build_store(videos, detections, out, config, workers, share, progress)
    report_build(built, settings)
    if share:
        print(f"when all shards are done: lab data merge {out} --out STORE")


def data_merge(shards: Positional[tuple[Path, ...]], out: Path) -> None:
    """The shards of one build, cut by several machines, become one store; all are checked first.

    Args:
        shards: folders like shard-0-of-2, or folders that hold such
        out: folder of the store; the shards are left as they are
    """
    settings = shard_settings(shards)
    with explained(settings), stages() as progress:
        built = merge_shards(shards, out, progress)
    report_build(built, settings)


def data_import(
    source: Positional[Path], out: Path, keys: Path | None = None, check: bool = True, without: Path | None = None
) -> None:
    """LUPerson's LMDB, a folder of images or tar shards become a store; the images' bytes stay as they are.

    Args:
        source: LMDB folder, folder of images with all folders below (country/city/video/*.jpg, Market-1501's layout, any
            other), or folder of .tar shards
        out: folder of the store
        keys: LUPerson's keys.pkl, if it is not beside the LMDB
        check: decode every image, and leave out those that cannot be read
        without: CSV that `lab data overlap --out` wrote: these images are left out
    """
    with stages("image") as progress:
        report = import_images(source, out, keys, check, without=without, progress=partial(progress, "importing"))
    print(describe_import(report))
    print(f"{'nothing to do for' if report.already else 'wrote'} {out}; next: lab pretrain --data {out} --out RUN")


def data_export(
    store: Positional[Path],
    out: Path,
    format: Literal["jpeg", "webdataset"] = "jpeg",
    keys: Path | None = None,
    shard_mb: int = 500,
) -> None:
    """The crops of a store, or of LUPerson's LMDB, as image files or as WebDataset tar shards; bytes stay as they are.

    Args:
        store: folder of the store or LMDB
        out: folder for the files
        format: jpeg: a file per crop, where it was imported from or by its key; webdataset: tar shards, for object storage
        keys: LUPerson's keys.pkl, if it is not beside the LMDB
        shard_mb: megabytes of a tar shard
    """
    if shard_mb < 1:
        raise InputError(f"shard_mb is {shard_mb}; expected at least 1")
    with stages("image") as progress:
        step = partial(progress, "exporting")
        if format == "jpeg":
            report = export_jpegs(store, out, keys, progress=step)
        else:
            report = export_tars(store, out, keys, shard_mb * 1_000_000, progress=step)
    print(f"{describe_export(report)}\nwrote {out}")


def data_info(source: Positional[Path], keys: Path | None = None, sample: int = 2000, seed: int = 0) -> None:
    """Counts, sizes, colours, tracklets, and what the keys mean, of a store, LUPerson's LMDB, a folder or tar shards.

    Args:
        source: its folder
        keys: LUPerson's keys.pkl, if it is not beside the LMDB
        sample: images that are read for sizes and colours
        seed: of the sample
    """
    print(describe_info(describe(source, keys, sample, seed), LUPERSON_COLOURS))


def data_overlap(
    source: Positional[tuple[Path, ...]],
    dataset: DatasetName,
    root: Path,
    out: Path | None = None,
    workers: int = 0,
    split: int = 0,
) -> None:
    """Are images of a test set among the crops to pre-train on? Leakage makes every later number void.

    Args:
        source: store(s), folders of tar shards or of images
        dataset: layout of the data set whose query and gallery images are looked for
        root: its folder; for 'folder' also the CSV file
        out: FILE.csv for the pairs that were found
        workers: processes that read crops; 0 does it in this one
        split: of the classic CUHK03, 0 to 19
    """
    if out is not None and out.suffix != ".csv":
        raise InputError(f"the pairs were to go to {out}; expected a file name that ends in .csv")
    crops = open_images(*source)
    with tqdm(total=len(crops), unit="crop", desc="comparing") as bar:
        result = find_overlap(crops, load(dataset, root, split=split), workers=workers, progress=bar.update)
    print(describe_overlap(result))
    for row in result.matches.head().itertuples():
        print(f"- {row.stored} is {row.test} ({row.split}{', mirrored' if row.mirrored else ''})")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            result.matches.to_csv(temporary, index=False)
        print(f"wrote {out}")


def data_download(list: Positional[Path], out: Path, height: int = 720, max_size: str = "500M") -> None:
    """A list of videos becomes a manifest and a script of yt-dlp commands; nothing is downloaded here.

    Args:
        list: text file, a video per line: country+city+id as in LUPerson's vname.txt, an id, or an address
        out: folder for manifest.csv, download.sh and, when that is run, the videos
        height: lines of a video's frames at most; LUPerson's boxes belong to 720
        max_size: of a video's file at most
    """
    print(describe_plan(plan_download(list, out, height, max_size)))
    print(TERMS)


@contextmanager
def stages(unit: str = "video") -> Iterator:
    """A progress bar per stage of a job: `progress(stage, done, total)`."""
    bars: dict[str, tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            bars[stage] = tqdm(total=total, desc=stage, unit="crop" if stage == "packing" else unit)
        bars[stage].update(done - bars[stage].n)

    try:
        yield progress
    finally:
        for bar in bars.values():
            bar.close()


@contextmanager
def explained(settings: dict) -> Iterator[None]:
    """Print why no box became a crop before that ends the command."""
    try:
        yield
    except NothingKeptError as error:
        print(describe_report(error.report, settings))
        raise


def report_build(built: Built, settings: dict) -> None:
    """What a build or merge left, and how fast."""
    if built.there:
        print(f"{built.folder} is there already, made with the same settings from files of the same names and sizes")
        return
    if built.report:
        print(describe_report(built.report, settings))
    if built.crops:
        print(f"{built.crops:,} crops were cut in {built.seconds:.1f} s: {built.crops / built.seconds:,.0f} crops/s")
    print(f"wrote {built.folder}")


def render_people(out: Path, config: SyntheticConfig, workers: int) -> dict:
    """Write the synthetic people, with a progress bar."""
    with tqdm(unit="crop", desc="rendering") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return write(out, config, workers=workers, progress=progress)
