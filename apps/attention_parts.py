"""The pieces of the page on attention: the crops of a pair, their maps and scores, and the parts of their distance."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from loaders import data_root, find_mask, stamp
from models import PartMaps, embed_crops, enlarged, heads_of_model, part_maps, scores_of

from lab.evaluate.parts import part_table
from lab.runs import EvalResult, Run
from lab.show.figures import CROSS, QUERY, RIGHT, TICK, WRONG, to_png
from lab.show.images import find_image, read_picture
from lab.show.maps import parts_figure
from lab.show.pair_maps import Explained, explained_figure
from lab.show.tables import settings_of

KINDS = {"activation": "activation", "class": "Grad-CAM of the class", "cosine": "Grad-CAM of the cosine",
         "similarity": "similarity map"}  # fmt: skip
LEVELS = {
    "branches": ("b1", "b2", "b3"),
    "b2 and halves": ("b2", "b21", "b22"),
    "b3 and thirds": ("b3", "b31", "b32", "b33"),
    "all parts": ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33"),
}
CAPTIONS = {
    "activation": "**Activation map**: how strongly a branch answers at each place, whatever for. It has no question: "
    "it says where there is an answer, not what it is used for.",
    "class": "**Grad-CAM of the class**: where more of what the branch found would raise the score of a class. A class "
    "is a person of the *training* set: the one that this head's classifier takes the crop for (its number and the "
    "cosine with it stand below the map). Nobody in the test set is one of them, so no class is the right one.",
    "cosine": "**Grad-CAM of the cosine**: where more of what the branch found would make the crop more like the other "
    "one, so why the two match. Under *branches* the cosine is that of the whole descriptors, else that of each part.",
    "similarity": "**Similarity map**: how like the other crop's part a place is if the head sees that place alone.",
}
WIDEST = 4  # maps of a crop that leave room for those of another one beside it


@dataclass(frozen=True)
class Side:
    """One crop of a pair: "query" or "rank 3", the path in the result, and how it is framed."""

    name: str
    path: str
    words: str
    colour: str
    below: str

    @property
    def file(self) -> str | None:
        found = find_image(self.path, data_root())
        return None if found is None else str(found)


def query_side(result: EvalResult, query: int) -> Side:
    words = f"pid {result.pid[query]}\ncam {result.camid[query]}"
    return Side("query", str(result.path[query]), "query", QUERY, words)


def gallery_side(result: EvalResult, query: int, rank: int) -> Side:
    crop, right = int(result.index[query][rank - 1]), bool(result.match[query][rank - 1])
    sign, colour = (f"{TICK} right", RIGHT) if right else (f"{CROSS} wrong", WRONG)
    words = f"pid {result.gallery_pid[crop]}\ncam {result.gallery_camid[crop]}"
    return Side(f"rank {rank}", str(result.gallery_path[crop]), f"rank {rank} {sign}", colour, words)


def working_size(run: Run, result: EvalResult) -> tuple[int, int]:
    """Height and width in pixels at which the result was made, or else the run was trained; else the published ones."""
    settings = settings_of(run.config)
    wanted = {name: result.settings.get(name) or settings.get(name) for name in ("height", "width")}
    return int(wanted["height"] or 384), int(wanted["width"] or 128)


def compute(run: Run, size: tuple[int, int], sides: list[Side], kind: str, level: str) -> PartMaps:
    files = tuple(side.file for side in sides)
    return part_maps(str(run.checkpoint), stamp(run.checkpoint), files, size, kind, LEVELS[level])


def describe_pair(run: Run, size: tuple[int, int], sides: list[Side]) -> pd.DataFrame:
    """How much each part adds to the distance of the pair, as the model has it now."""
    files = tuple(side.file for side in sides)
    query, gallery = embed_crops(str(run.checkpoint), stamp(run.checkpoint), files, size)
    heads = heads_of_model()
    sees = {1: "whole", 2: "half", 3: "third"}
    table = part_table(query, gallery, list(heads))
    table.insert(
        1, "sees", [f"{sees[count]} {place + 1}" if count > 1 else "whole" for _, count, place in heads.values()]
    )
    table["share"] *= 100
    return table.rename(columns={"adds": "adds to the distance", "share": "share (%)", "cosine": "cosine alone"})


def explain_crops(sides: list[Side], found: PartMaps) -> tuple[list[Explained], pd.DataFrame]:
    """The crops with their enlarged maps for the picture, and the score of each map where the true person is known."""
    crops, rows = [], []
    for place, side in enumerate(sides):
        image, mask = read_picture(side.path, data_root()), find_mask(side.path)
        mask = mask if mask is not None and mask.shape == image.shape[:2] else None
        maps, below = {}, {"": side.below}
        for head, cams in found.maps.items():
            maps[head] = enlarged(cams[place], image.shape[:2])
            lines = []
            if head in found.classes:
                identity, cosine = found.classes[head][place]
                lines = [f"id {identity + 1}: {cosine:.2f}"]
            if not cams[place].any():
                lines.append("empty map")
            elif mask is not None:
                score = scores_of(maps[head], mask, found.flat[head])
                lines += [f"person {100 * score['energy']:.0f} %", f"flat {100 * score['chance']:.0f} %"]
                rows.append({"crop": side.name, "map": head} | score)
            below[head] = "\n".join(lines)
        crops.append(Explained(side.words, image, maps, side.colour, below, mask))
    return crops, _score_table(rows)


def _score_table(rows: list[dict]) -> pd.DataFrame:
    """Scores in per cent: of the map on the person, of what a flat map has there, their difference, pointing game."""
    table = pd.DataFrame(rows, columns=["crop", "map", "energy", "chance", "pointing"])
    table[["energy", "chance", "pointing"]] *= 100
    table.insert(4, "gain", table["energy"] - table["chance"])
    return table


@st.cache_data(max_entries=64, show_spinner=False)
def draw_maps(_crops: list[Explained], strength: float, title: str, subtitle: str, key: tuple) -> bytes:
    """The picture of maps as PNG; `key` says what the crops and their maps follow from."""
    stacked = max(len(crop.maps) for crop in _crops) > WIDEST
    return to_png(explained_figure(_crops, strength, title, subtitle, stacked))


@st.cache_data(max_entries=64, show_spinner=False)
def draw_parts(pair: tuple[str, str], adds: dict[str, float], rows: int, title: str) -> bytes:
    images = tuple(read_picture(path, data_root()) for path in pair)
    limit = max(1.05 * max(adds.values()), 1e-3)  # two equal crops have no bars, and an axis all the same
    return to_png(parts_figure(images, adds, heads_of_model(), rows, title, limit=limit))


def first_right(result: EvalResult, query: int) -> int | None:
    """The rank of the first right crop, if it is among the stored ones."""
    found = np.flatnonzero(result.match[query] & (result.index[query] >= 0))
    return int(found[0]) + 1 if len(found) else None


def why_other(result: EvalResult, total: float, stored: float) -> str:
    """Why the distance of the features is another one than the rank list's, as far as the result says it."""
    settings = result.settings
    done = {"rerank": "re-ranked", "expand": "of expanded queries", "flip": "of the flip test", "multi_query": "pooled"}
    reasons = [words for key, words in done.items() if settings.get(key)]
    if settings.get("distance") == "euclidean":
        reasons.append("squared Euclidean")
    because = (
        f"its distances are {' and '.join(reasons)}" if reasons else "the checkpoint or the images have changed since"
    )
    return f"The rank list has another distance ({stored:.3f}) than the features themselves ({total:.3f}): {because}."
