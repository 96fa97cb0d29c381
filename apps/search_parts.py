"""The pieces of the page that searches a picture of one's own: where the picture comes from, and what it is searched in."""

import json
from dataclasses import dataclass

import numpy as np
import streamlit as st
from attention_parts import working_size
from loaders import read_features, stamp
from models import digest_of

from lab.runs import EvalResult, Features, Run
from lab.show.uploads import Box, clip_box, decode_upload

STAGES = ("pretrain", "finetune")
EXAMPLE = {"frames": 1, "people": 9, "seed": 0, "camid": 1}  # the street of notebook 01


@dataclass(frozen=True, eq=False)
class Gallery:
    """What is searched: stored features, at which size in pixels and how the crops behind them were embedded.

    `known` says that the features were made by the run's checkpoint as it is now.
    """

    features: Features
    size: tuple[int, int]
    flip: bool
    known: bool


@dataclass(frozen=True, eq=False)
class Brought:
    """A picture (H, W, 3) uint8 with its name, a key that is new for each, and the boxes to choose from, by name."""

    name: str
    key: str
    picture: np.ndarray
    boxes: dict[str, Box]


def open_gallery(run: Run, dataset: str, result: EvalResult) -> tuple[Gallery | None, str]:
    """The stored gallery of a data set, or None and a sentence: not there, unreadable, or of another checkpoint."""
    dataset = dataset.removesuffix("-aqe")
    features, problem = read_features(run, dataset, "gallery")
    if features is None:
        return None, problem
    if not len(features.pid):
        return None, f"{run.name} holds features of no gallery crop."
    note = _read_note(run, dataset)
    made_by = note.get("checkpoint")
    if made_by and made_by != digest_of(str(run.checkpoint), stamp(run.checkpoint)):
        return None, (
            f"The stored gallery features of {run.name} were made by another checkpoint than the one it has now, so a "
            "picture cannot be compared with them."
        )
    size = working_size(run, result)
    if isinstance(note.get("height"), int) and isinstance(note.get("width"), int):
        size = note["height"], note["width"]
    return Gallery(features, size, bool(note.get("flip")), bool(made_by)), ""


def _read_note(run: Run, dataset: str) -> dict:
    """What the note beside stored features says that they were made from; empty for features from elsewhere."""
    try:
        note = json.loads((run.folder / "features" / f"{dataset}-gallery.json").read_text())
    except (OSError, ValueError):
        return {}  # features without a note are searched too, and the page says that nothing vouches for them
    return note if isinstance(note, dict) else {}


def brought_upload(uploaded) -> Brought | None:
    """The uploaded picture, decoded once and kept in this session alone; InputError says why it cannot be used."""
    kept = st.session_state.get("brought")
    if uploaded is None:
        st.session_state.pop("brought", None)
        return None
    if kept is None or kept.key != uploaded.file_id:
        st.session_state.pop("brought", None)
        kept = Brought(uploaded.name, uploaded.file_id, decode_upload(uploaded.getvalue()), {})
        st.session_state["brought"] = kept
    return kept


@st.cache_resource(max_entries=1, show_spinner="Drawing a street …")
def example_street() -> Brought:
    """A drawn frame with several people, and a detector's boxes, so that the page can be tried without a file."""
    from lab.data.synthetic.street import draw_street

    frames, found = draw_street(**EXAMPLE)
    boxes = [clip_box(box, frames[0]) for box in found.box[found.frame == 1].tolist()]
    return Brought("street", "street", frames[0], {str(number): box for number, box in enumerate(boxes, start=1)})
