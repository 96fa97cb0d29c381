"""Person boxes of a video from a file: LUPerson's released pickles and MOTChallenge's text lines.

Both count frames from 1. A box is x, y, width, height in pixels; x and y are taken as they stand in the file and mean the
top left corner counted from 0 (MOTChallenge's own annotations count from 1: they are a pixel further).
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lab.data.pickles import load_pickle
from lab.errors import InputError

PICKLES, TEXTS = (".pkl", ".pickle"), (".txt", ".csv")
FARTHEST = 1e6  # pixels; no video is as large
MOST = 2**31 - 1  # of frame numbers and ids, which the index keeps as int32
EXPECTED_LINE = "lines such as 1,-1,649.4,231.5,44.4,86.1,0.99 (frame from 1, id, x, y, width, height, score)"
EXPECTED_PICKLE = "frame number from 1 -> list of (index, {'bbox': four numbers x0, y0, x1, y1})"


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one video by frame, and what of its file could not be used.

    frame (N,) int64 from 1, ascending; box (N, 4) float64 x, y, width, height in pixels; score (N,) float64, NaN unknown;
    track (N,) int64, -1 unknown; skipped: reason -> number of entries. Indexing by a mask or positions gives Boxes.
    """

    frame: np.ndarray
    box: np.ndarray
    score: np.ndarray
    track: np.ndarray
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, chosen) -> "Boxes":
        return Boxes(self.frame[chosen], self.box[chosen], self.score[chosen], self.track[chosen], self.skipped)


def read_detections(file: Path) -> Boxes:
    """The boxes of a detection file, by suffix: .pkl and .pickle as LUPerson released them, .txt and .csv MOTChallenge.

    An entry that cannot be used (no numbers, no extent, a frame before 1, beyond any video) is counted in `skipped`; a file
    without entries has no boxes. Raises InputError for a file whose every entry is unusable, and for another kind of file.
    """
    file = Path(file)
    suffix = file.suffix.lower()
    if suffix in PICKLES:
        return _from_pickle(file)
    if suffix in TEXTS:
        return _from_text(file)
    raise InputError(f"{file} has the suffix '{suffix}'; expected a detection file: {', '.join(PICKLES + TEXTS)}")


def match_detections(videos: Sequence[Path], root: Path, detections: Path) -> tuple[dict[Path, Path], list[Path]]:
    """Which detection file belongs to which video below `root`, and which detection files belong to none; both sorted.

    `detections` is a file (of the only video, or named like one) or a folder, in which a video country/city/stem.mp4 finds
    country/city/stem.EXT, stem.EXT, country+city+stem.EXT, or in place of stem.EXT MOTChallenge's stem/det/det.txt, else
    stem/gt/gt.txt. Raises InputError where two files claim a video or two videos a file, and where there are none.
    """
    videos, root, detections = sorted(map(Path, videos)), Path(root), Path(detections)
    if detections.is_file():
        if len(videos) == 1:
            return {videos[0]: detections}, []
        folder, files = detections.parent, [detections]
    else:
        folder, files = detections, _detection_files(detections)
    places, names = _names_of(videos, root if root.is_dir() else root.parent)
    found, unmatched = {}, []
    for file in files:
        claimed = _claimed(file.relative_to(folder), places, names)
        if not claimed:
            unmatched.append(file)
        elif len(claimed) > 1:
            raise InputError(
                f"{file} fits {claimed[0]} and {claimed[1]}; put it where it can be told whose it is: at the same relative "
                "place as its video"
            )
        elif claimed[0] not in found:
            found[claimed[0]] = file
        elif not _is_det_and_gt(found[claimed[0]], file):
            raise InputError(
                f"{found[claimed[0]]} and {file} both claim the video {claimed[0]}; one detection file a video was "
                "expected: move one of them away"
            )
    if detections.is_file() and not found:
        raise InputError(
            f"{detections} is one file and there are {len(videos)} videos, none of them called {detections.stem}; give a "
            "folder with one detection file a video, or one video"
        )
    return dict(sorted(found.items())), unmatched


def _detection_files(folder: Path) -> list[Path]:
    """All detection files below a folder, sorted, det.txt before gt.txt; hidden ones are passed over."""
    if not folder.is_dir():
        raise InputError(
            f"there are no detections {folder}; expected a detection file or a folder of them: give another"
        )
    found = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in PICKLES + TEXTS
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    )
    if not found:
        suffixes = ", ".join(PICKLES + TEXTS)
        raise InputError(f"{folder} holds no detection file ({suffixes}); give the folder that does")
    return found


def _names_of(videos: list[Path], root: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Videos by relative place (country/city/stem), and by the names that a file may have without folders."""
    places, names = {}, {}
    for video in videos:
        whole = video.relative_to(root)
        for place in (whole.with_suffix(""), whole):  # NAME.txt, and NAME.mp4.txt where there is also a NAME.avi
            places.setdefault(place.as_posix(), []).append(video)
            for name in {place.name, "+".join(place.parts)}:
                names.setdefault(name, []).append(video)
    return places, names


def _claimed(file: Path, places: dict[str, list[Path]], names: dict[str, list[Path]]) -> list[Path]:
    """The videos that a detection file (a path relative to its folder) may belong to."""
    if file.parts[-2:] in (("det", "det.txt"), ("gt", "gt.txt")) and len(file.parts) > 2:
        place = file.parent.parent
    else:
        place = file.with_suffix("")
    return places.get(place.as_posix()) or (names.get(place.name, []) if len(place.parts) == 1 else [])


def _is_det_and_gt(first: Path, second: Path) -> bool:
    """Whether two files are det/det.txt, which is preferred, and gt/gt.txt of one MOTChallenge folder."""
    return first == second.parent.parent / "det" / "det.txt" and second.name == "gt.txt"


def _from_pickle(file: Path) -> Boxes:
    content = load_pickle(file)
    if not isinstance(content, dict):
        raise InputError(
            f"{file} holds a {type(content).__name__}; expected a dict {EXPECTED_PICKLE}: give another file"
        )
    rows = []
    for frame, entries in content.items():
        for entry in entries if isinstance(entries, list | tuple) else [entries]:
            rows.append(_row(frame, entry))
    table = np.array([row for row in rows if row], dtype=np.float64).reshape(-1, 8)
    table = table[np.lexsort((table[:, 7], table[:, 0]))]  # by frame, then object index
    table[:, 4:6] -= table[:, 2:4]  # corners to extent
    skipped = {"no frame number or no box of four numbers": rows.count(None)}
    return _usable(table[:, :7], skipped, f"{file} has no box that can be used", EXPECTED_PICKLE)


def _row(frame, entry) -> tuple[float, ...] | None:
    """Frame, track, corners, score and object index of an entry (index, {'bbox': …}); None if it is something else."""
    try:
        index, found = entry
        x0, y0, x1, y1 = map(_number, found["bbox"])
        score = next((found[name] for name in ("score", "conf") if name in found), None)
        track = next((found[name] for name in ("track", "id") if name in found), None)
        score, track = (np.nan if value is None else _number(value) for value in (score, track))
        return _number(frame), track, x0, y0, x1, y1, score, _number(index)
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def _number(value) -> float:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError("no number")
    return float(value)


def _from_text(file: Path) -> Boxes:
    try:
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")  # the mark that Windows editors put in front
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); expected {EXPECTED_LINE}") from error
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")  # a lone \r within lines makes pandas 2 give up
    first = next((line for line in io.BytesIO(content) if line.split(b"#")[0].strip()), b"")
    comma = content.count(b",") > content.count(b"\n") / 2  # five in a line, or one in a comment now and then
    header = (b"," if comma else b" ").join(b"%d" % column for column in range(7)) + b"\n"
    try:
        columns = pd.read_csv(
            io.BytesIO(header + content),
            sep="," if comma else r"\s+",
            usecols=list(map(str, range(7))),  # with this, longer lines are no error, and with the header shorter ones
            index_col=False,
            comment="#",
            encoding="latin-1",  # any byte is a character: what is no number is counted below
            quoting=csv.QUOTE_NONE,
            skipinitialspace=True,
            keep_default_na=False,
            na_values=[""],
            low_memory=False,
        )
    except pd.errors.ParserError as error:
        raise InputError(
            f"{file} is no table of text ({str(error)[:120].strip()}); expected {EXPECTED_LINE}"
        ) from error
    table = np.column_stack([_numbers(columns[name]) for name in columns])
    short = columns["5"].isna().to_numpy()
    shown = ascii(first[:60].decode("latin-1").strip())
    return _usable(
        table[~short][np.argsort(table[~short, 0], kind="stable")],
        {"fewer than six values": int(short.sum())},
        f"{file} has no line that can be used, and starts with {shown}",
        EXPECTED_LINE,
    )


def _numbers(column: pd.Series) -> np.ndarray:
    """A column of text as numbers: NaN where nothing stands or 'nan', infinite where something else does."""
    if pd.api.types.is_bool_dtype(column):  # nothing but True and False
        return np.full(len(column), np.inf)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    if not pd.api.types.is_numeric_dtype(column):
        at = np.flatnonzero(np.isnan(numbers) & column.notna().to_numpy())
        numbers[at] = np.where(column.iloc[at].astype(str).str.strip().str.lower() == "nan", np.nan, np.inf)
    return numbers


def _usable(table: np.ndarray, skipped: dict[str, int], nothing: str, expected: str) -> Boxes:
    """Boxes of a table (N, 7) frame, track, x, y, width, height, score; raises InputError if all are unusable."""
    frame, track, box, score = table[:, 0], table[:, 1], table[:, 2:6], table[:, 6]
    good = np.ones(len(table), dtype=bool)
    for reason, bad in (
        ("not a number", ~np.isfinite(frame) | ~np.isfinite(box).all(axis=1) | np.isinf(track) | np.isinf(score)),
        ("frame is not a whole number from 1", (frame < 1) | (frame != np.floor(frame))),
        ("id is not a whole number", ~np.isnan(track) & (track != np.floor(track))),
        ("width or height is not positive", (box[:, 2:] <= 0).any(axis=1)),
        ("beyond any video", (np.abs(box) > FARTHEST).any(axis=1) | (frame > MOST) | (np.abs(track) > MOST)),
    ):
        skipped = skipped | {reason: int((good & bad).sum())}
        good &= ~bad
    skipped = {reason: count for reason, count in skipped.items() if count}
    if skipped and not good.any():
        reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
        raise InputError(f"{nothing} ({reasons}); expected {expected}: give another file")
    track = np.where(track[good] >= 0, track[good], -1)
    return Boxes(frame[good].astype(np.int64), box[good], score[good], track.astype(np.int64), skipped)
