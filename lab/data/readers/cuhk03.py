"""CUHK03 under its new protocol (767/700 identities), hand-labelled or detected boxes, in Market-1501's layout.

The original cuhk-03.mat with the protocol's index file is unpacked once into that layout (`cuhk03_mat`).
"""

from pathlib import Path

from lab.data.readers.cuhk03_mat import find, unpack
from lab.data.readers.market import explain_parts, has_parts, read_parts
from lab.data.readers.scan import contents
from lab.data.splits import ReidDataset
from lab.errors import InputError

EXAMPLE = "0001_c1_2.png"
KINDS = ("labeled", "detected")


def cuhk03(root: Path, name: str = "cuhk03") -> ReidDataset:
    """CUHK03, new protocol; "cuhk03" means the labelled boxes, which LUPerson reports. May unpack cuhk-03.mat first."""
    kind = "detected" if name == "cuhk03-detected" else "labeled"
    notes = []
    folder = _folder(root, kind)
    if folder is None:
        folder = root / kind
        images, index = _mat_files(root, kind)
        unpack(images, index, kind, folder)
        notes.append(f"{images.name} was unpacked into {folder}, which the next call reads")
    splits, more = read_parts(folder, EXAMPLE)
    notes += [f"{folder.name}/ was read as the {kind} boxes", *more]
    return ReidDataset(name, **splits, notes=tuple(notes), edition=f"cuhk03-{kind}")


def _folder(root: Path, kind: str) -> Path | None:
    """The Market-style folder of this kind of boxes: `root` itself or one in it; None if there is none."""
    other = next(name for name in KINDS if name != kind)
    if has_parts(root):
        if root.name == other:
            raise InputError(
                f"{root} holds the {other} boxes and the {kind} ones were asked for; give --dataset cuhk03-{other}, or "
                f"--root {root.parent / kind}"
            )
        return root
    candidates = (root / kind, root / "cuhk03_np" / kind)
    return next((folder for folder in candidates if has_parts(folder)), None)


def _mat_files(root: Path, kind: str) -> tuple[Path, Path]:
    """cuhk-03.mat and the index file of the new protocol, in `root` or its cuhk03_release/."""
    name = f"cuhk03_new_protocol_config_{kind}.mat"
    images = find(root, "cuhk-03.mat")
    index = find(root, name)
    if images is None and (root / kind).is_dir():
        raise InputError(explain_parts(root / kind, EXAMPLE))
    if images is None:
        found = (
            f"is a file; expected a folder {kind}/" if root.is_file() else f"holds {contents(root)}; expected {kind}/"
        )
        raise InputError(
            f"{root} {found} with bounding_box_train/, query/ and bounding_box_test/ (names such as {EXAMPLE}), or "
            f"cuhk-03.mat beside {name}"
        )
    if index is None:
        raise InputError(
            f"{root} has cuhk-03.mat and no {name}; expected the new protocol's index file beside it: put it there"
        )
    return images, index
