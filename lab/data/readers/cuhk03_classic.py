"""CUHK03 under its classic protocol: 20 times, 100 people are searched and all others train (Li et al., CVPR 2014).

The paper divided 1,360 people into 1,160 that train, 100 to choose settings by and 100 that test. The released
cuhk-03.mat has 1,467 and says only who tests (`testsets`), so all 1,367 others train here, as in other programs.

Queries are all crops of a test person's first view, the gallery holds those of the second, and the CMC is
single-gallery-shot (`lab.evaluate.single_shot`): one random gallery crop per person, the mean of the draws; a published
figure is the mean over the 20 splits too. So every query searches 100 people of the other view, as in the paper.
torchreid searches all test crops in all test crops and removes only the query's own person and view: there the gallery
also shows other people in the query's view, and its figures are others.

cuhk-03.mat is unpacked once:

    classic-labeled/          or classic-detected/
      testsets.csv            split,pair,person,pid: who tests in which split
      images/0001_c1_01.png   pid, view, image number; pids count over all pairs, as the new protocol's labels do
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lab.data.readers.cuhk03_mat import NUMBERS, appearing, find, open_boxes, read_pairs, read_pixels
from lab.data.readers.scan import contents, first, images_in
from lab.data.splits import ReidDataset, Split
from lab.errors import InputError

CLASSIC = ("cuhk03-classic-labeled", "cuhk03-classic-detected")
SPLITS = 20
CROPS = {"labeled": 14096, "detected": 14097}  # of all 1,467 people
TESTSETS = "testsets.csv"
COLUMNS = ["split", "pair", "person", "pid"]
NAME = re.compile(r"^(\d{4})_c([12])_\d\d\.png$")


def cuhk03_classic(root: Path, name: str, split: int = 0) -> ReidDataset:
    """CUHK03, classic protocol, one of its 20 splits, counted from 0. May unpack cuhk-03.mat first.

    The data set is called by its split, such as cuhk03-classic-labeled-split07, so that results lie side by side.
    """
    if not 0 <= split < SPLITS:
        raise InputError(f"{name} has no split {split}; expected one of its {SPLITS} splits: give --split 0 to 19")
    kind = name.rsplit("-", 1)[1]
    notes = []
    folder = _folder(root, kind)
    if folder is None:
        folder = root / f"classic-{kind}"
        images = _mat_file(root, kind)
        unpack_all(images, kind, folder)
        notes.append(f"{images.name} was unpacked into {folder}, which the next call reads")
    crops = _crops(folder / "images", notes)
    if len(crops) != CROPS[kind]:
        notes.append(f"{len(crops)} crops in all instead of the published {CROPS[kind]}: figures are not comparable")
    testing = np.isin(crops.pid, _testing(folder / TESTSETS, split))
    parts = {
        "train": crops.take(~testing),
        "query": crops.take(testing & (crops.camid == 1)),
        "gallery": crops.take(testing & (crops.camid == 2)),
    }
    if empty := [part for part, crops in parts.items() if not len(crops)]:
        raise InputError(
            f"{folder} has no crop for the {empty[0]} of split {split}; expected both views of people who test, and "
            "others who train: remove the folder and unpack cuhk-03.mat again"
        )
    notes.append(
        f"split {split} of 0 to {SPLITS - 1}: the first view of {parts['query'].num_ids} people is searched in the second; "
        f"figures of this protocol are single-gallery-shot, and the mean over all {SPLITS} splits (--split all)"
    )
    return ReidDataset(f"{name}-split{split:02d}", **parts, notes=tuple(notes), edition=name, single_shot=True)


def unpack_all(images: Path, kind: str, folder: Path) -> None:
    """Write every crop of cuhk-03.mat and the table of test people; the folder appears when it is whole, or not at all.

    Raises InputError for a file without these boxes or with other test sets, and a place that cannot be written.
    """
    with open_boxes(images, kind) as file:
        pairs = read_pairs(file, kind)
        table = _test_sets(file, [cells.shape[1] for cells in pairs])
        with appearing(folder, TESTSETS) as temporary:
            (temporary / "images").mkdir()
            _write_crops(file, pairs, temporary / "images")
            table.to_csv(temporary / TESTSETS, index=False)


def _test_sets(file, people: list[int]) -> pd.DataFrame:
    """Who tests in which split, from `testsets`: 20 references to (2, 100) pairs and people, both counted from 1."""
    try:
        sets = [np.asarray(file[reference][()]) for reference in np.ravel(file["testsets"][()])]
    except (TypeError, ValueError, KeyError, AttributeError, OSError) as error:
        raise InputError(
            f"{file.filename} has no 'testsets' that can be read ({str(error)[:120]}); expected the {SPLITS} test sets of the "
            "released cuhk-03.mat: fetch it again"
        ) from error
    fits = [found.ndim == 2 and len(found) == 2 and found.size > 0 for found in sets]
    if len(sets) != SPLITS or not all(fits):
        raise InputError(
            f"{file.filename} has {len(sets)} test sets, {sum(fits)} of them lists of camera pair and person; expected "
            f"{SPLITS} such lists, as in the released file: fetch it again"
        )
    table = pd.DataFrame(
        [(split, int(pair), int(person)) for split, found in enumerate(sets) for pair, person in found.T],
        columns=COLUMNS[:3],
    )
    known = {(pair, person) for pair, count in enumerate(people, 1) for person in range(1, count + 1)}
    strange = [row for row in table.itertuples(index=False, name=None) if row[1:] not in known]
    if strange:
        split, pair, person = strange[0]
        raise InputError(
            f"{file.filename} lets person {person} of camera pair {pair} test in split {split}, and its boxes have no such "
            "person; expected the released file: fetch it again"
        )
    before = np.cumsum([0, *people])
    return table.assign(pid=before[table["pair"] - 1] + table["person"])


def _write_crops(file, pairs: list[np.ndarray], folder: Path) -> None:
    from tqdm import tqdm

    cells = np.concatenate(pairs, axis=1)  # (10, all people): the column is the pid, less 1
    written = 0
    for column in tqdm(range(cells.shape[1]), unit="person", desc=f"unpacking {Path(file.filename).name}"):
        for row in range(NUMBERS):
            name = f"{column + 1:04d}_c{1 if row < NUMBERS // 2 else 2}_{row + 1:02d}.png"
            try:
                pixels = read_pixels(file, cells[row, column])
            except (ValueError, OSError) as error:
                raise InputError(
                    f"{file.filename} is damaged: {name} cannot be read ({str(error)[:120]}); fetch it again"
                ) from error
            if pixels is not None:  # few people have all ten images
                Image.fromarray(pixels).save(folder / name, compress_level=1)  # 1: fast, and hardly larger
                written += 1
    if not written:
        raise InputError(
            f"all cells of {file.filename} are empty; expected images, as in the released file: fetch it again"
        )


def _folder(root: Path, kind: str) -> Path | None:
    """The unpacked folder of this kind of boxes: `root` itself or one in it; None if there is none."""
    if (root / TESTSETS).is_file():
        if root.name.startswith("classic-") and root.name != f"classic-{kind}":
            raise InputError(
                f"{root} is not called classic-{kind} and those boxes were asked for; give --root {root.parent}, or the "
                "data set of the other boxes"
            )
        return root
    folder = root / f"classic-{kind}"
    return folder if (folder / TESTSETS).is_file() else None


def _mat_file(root: Path, kind: str) -> Path:
    images = find(root, "cuhk-03.mat")
    if images is None:
        found = "is a file" if root.is_file() else f"holds {contents(root)}"
        raise InputError(
            f"{root} {found}; expected a folder with cuhk-03.mat, or with classic-{kind}/ that was unpacked from it: only "
            "the original file has the classic splits, copies for the new protocol have them not"
        )
    return images


def _testing(file: Path, split: int) -> np.ndarray:
    try:
        table = pd.read_csv(file)[COLUMNS].astype(np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{file} cannot be read ({str(error)[:120]}); expected columns {','.join(COLUMNS)}: remove the folder and "
            "unpack cuhk-03.mat again"
        ) from error
    return table.loc[table["split"] == split, "pid"].to_numpy()


def _crops(folder: Path, notes: list[str]) -> Split:
    if not folder.is_dir():
        raise InputError(
            f"{folder.parent} has no images/; expected 0001_c1_01.png and others there: remove the folder and unpack "
            "cuhk-03.mat again"
        )
    matches = {name: NAME.match(name) for name in images_in(folder, notes)}
    if strange := [name for name, match in matches.items() if match is None]:
        notes.append(f"{folder.name}: {len(strange)} image(s) with other names skipped ({first(strange)})")
    kept = [(f"{folder / name}", int(match[1]), int(match[2])) for name, match in matches.items() if match is not None]
    return Split(*zip(*kept, strict=True)) if kept else Split([], [], [])
