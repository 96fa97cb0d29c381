"""Attention: which pixels of a crop decide, why two crops match, and which parts of the model tell them apart."""

from pathlib import Path

import numpy as np
import streamlit as st
from attention_parts import (
    CAPTIONS,
    KINDS,
    LEVELS,
    Side,
    compute,
    describe_pair,
    draw_maps,
    draw_parts,
    explain_crops,
    first_right,
    gallery_side,
    query_side,
    why_other,
    working_size,
)
from choices import Choices, chosen, keep_valid, need_results
from loaders import data_root, thumbnail
from models import PartMaps
from parts import link, offer_picture, offer_table, plain, show_picture, stem_of
from queries import choose_query, query_label

from lab.runs import EvalResult, Run
from lab.show.figures import CROSS, TICK
from lab.show.images import file_name, read_picture

ALONE, PAIR = "the query alone", "a pair"
TILES = 10


def main() -> None:
    choices = chosen()
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    left.title("Where does it look?")
    need_results(choices)
    usable = [
        name
        for name, (run, _, _) in choices.evals.items()
        if run.checkpoint.is_file() and run.config.get("stage") == "finetune"
    ]
    if not usable:
        st.info(
            "Attention needs a fine-tuned model, and none of the chosen runs holds checkpoint.pt of one. Choose another "
            "run in the sidebar, or make one:"
        )
        st.code(
            "lab finetune --dataset NAME --root DIR --out RUN\nlab evaluate --run RUN --dataset NAME --root DIR", "bash"
        )
        return
    keep_valid("attention_run", usable)
    name = right.selectbox("Run", usable, key="attention_run", bind="query-params")
    query = choose_query(choices, name)
    explain(choices, name, query)


@st.fragment
def explain(choices: Choices, name: str, query: int) -> None:
    run, evaluation, result = choices.evals[name]
    stem = stem_of([name], evaluation)
    sides, kind, level, strength = choose_view(result, query)
    absent = [side for side in sides if side.file is None]
    broken = [side for side in sides if side.file and read_picture(side.path, data_root()) is None]
    if absent:
        st.info(
            f"The image {plain(file_name(absent[0].path))} is not there; set LAB_DATA to the folder of the data set."
        )
    elif broken:
        st.error(f"The image {plain(file_name(broken[0].path))} cannot be read as a picture; replace the file.")
    else:
        try:
            with st.spinner("Computing maps …"):
                found = compute(run, working_size(run, result), sides, kind, level)
            show_maps(run, sides, found, kind, level, strength, stem)
            if len(sides) == 2:
                show_parts(run, result, query, sides, found, stem)
        except Exception as error:  # a checkpoint from anywhere: what is wrong with it is shown, not raised
            st.error(plain(f"{run.name}: the maps cannot be computed. {error}"))
    others = [other for other in choices.evals if other != name]
    link("rank_lists", "Open its rank list", query=query_label(result, query), run=[name, *others])
    st.caption("Notebook 07 explains these maps and what they cannot say.")


def _usual_map() -> None:
    """What is asked first of a pair: why do these two match?"""
    st.session_state["maps"] = KINDS["cosine" if st.session_state["explain"] == PAIR else "activation"]


def choose_view(result: EvalResult, query: int) -> tuple[list[Side], str, str, float]:
    """What to explain: one crop or two, the kind of map, of which heads, and how strongly it covers the crop."""
    ranks = [] if result.gallery_path is None else (np.flatnonzero(result.index[query] >= 0) + 1).tolist()
    left, middle, right, last = st.columns([1, 1.3, 1, 1.2], vertical_alignment="bottom")
    pair = left.selectbox("Explain", [ALONE, PAIR], key="explain", bind="query-params", on_change=_usual_map) == PAIR
    kinds = [words for kind, words in KINDS.items() if (pair and ranks) or kind in ("activation", "class")]
    keep_valid("maps", kinds)
    words = middle.selectbox("Map", kinds, key="maps", bind="query-params")
    level = right.selectbox("Of", list(LEVELS), key="map_parts", bind="query-params")
    strength = last.slider("Overlay strength", 0.0, 1.0, 0.65, 0.05, key="strength", bind="query-params")
    sides = [query_side(result, query)]
    if pair and not ranks:
        st.info("This result does not say which gallery crops it ranked, so there is no pair to explain.")
    elif pair:
        sides.append(gallery_side(result, query, choose_rank(result, query, ranks)))
    kind = next(kind for kind, shown in KINDS.items() if shown == words)
    return sides, kind, level, strength


def choose_rank(result: EvalResult, query: int, ranks: list[int]) -> int:
    """One crop of the rank list: by its number, the first right one, or by its thumbnail."""
    keep_valid("rank", ranks)
    left, *places = st.columns([1.9] + [1] * TILES, gap="xsmall", vertical_alignment="bottom")
    rank = left.selectbox("Gallery crop at rank", ranks, key="rank", bind="query-params")
    right, first = first_right(result, query), (rank - 1) // TILES * TILES
    words = f"First right: {right}" if right else "None is right"
    left.button(
        words, key="first right", disabled=right in (None, rank), width="stretch", on_click=_take, args=(right,),
        help="The first right crop in the list" if right else f"No right crop is among the first {len(ranks)}",
    )  # fmt: skip
    for place, number in zip(places, ranks[first : first + TILES], strict=False):
        path, sign = str(result.gallery_path[result.index[query][number - 1]]), _sign(result, query, number)
        place.image(thumbnail(path, data_root()), width="stretch", alt=f"Query {query}, rank {number}")
        kind = "primary" if number == rank else "secondary"
        place.button(
            f"{number} {sign}", key=f"rank {number}", type=kind, width="stretch", on_click=_take, args=(number,),
            help=f"Distance {result.distance[query][number - 1]:.3f}",
        )  # fmt: skip
    return rank


def show_maps(run: Run, sides: list[Side], found: PartMaps, kind: str, level: str, strength: float, stem: str) -> None:
    crops, scores = explain_crops(sides, found)
    title = f"{run.name}: {KINDS[kind]}, {level}"
    subtitle = " · ".join(file_name(side.path) for side in sides)
    key = (str(run.folder), run.checkpoint.stat().st_mtime_ns, tuple(sides), kind, level)
    picture = draw_maps(crops, strength, title, subtitle, key)
    stem = f"{stem}-attention-{kind}-{level}-{files_of(sides)}"
    rows, columns = next(iter(found.flat.values())).shape
    show_picture(picture, stem, f"{KINDS[kind]} of {level}, for {subtitle}")
    more = f" There are {found.identities:,} classes." if kind == "class" else ""
    if kind in ("class", "cosine") and not all(cam.any() for cams in found.maps.values() for cam in cams):
        more += " *Empty map*: all that the branch found speaks against it, and Grad-CAM leaves that out."
    if not all(flat.all() for flat in found.flat.values()):
        more += " A stripe's map lies in its own rows."
    st.caption(
        f"{CAPTIONS[kind]}{more} The network has {rows} x {columns} places; the rest is drawn between them, and each map "
        "is stretched from its own lowest to its own highest value."
    )
    if len(scores):
        show_scores(scores, stem)


def show_scores(scores, stem: str) -> None:
    st.subheader("Do the maps lie on the person?")
    formats = {"energy": "on the person", "chance": "a flat map", "gain": "gain over flat", "pointing": "pointing game"}
    columns = {
        name: st.column_config.NumberColumn(f"{words} ({'points' if name == 'gain' else '%'})", format="%.1f")
        for name, words in formats.items()
    }
    st.dataframe(scores, hide_index=True, column_config=columns, height="content" if len(scores) < 9 else 320)
    offer_table(scores, f"{stem}-scores", "Scores as CSV")
    st.caption(
        "The crop is drawn, so its person is known (white outline). *On the person*: share of the map's total there; a "
        "map without any idea gets what *a flat map* gets, the person's share of the pixels it may lie on. *Pointing "
        "game*: 100 if the map's highest point is on the person (in part, where several are as high). Empty maps have "
        "no score. A few coarse places can hide a good map: one crop is an anecdote."
    )


def show_parts(run: Run, result: EvalResult, query: int, sides: list[Side], found: PartMaps, stem: str) -> None:
    """How the distance of the pair is made up."""
    table = describe_pair(run, working_size(run, result), sides)
    total = float(table["adds to the distance"].sum())
    rank = int(sides[1].name.split(" ")[1])
    stored = float(result.distance[query][rank - 1])
    st.subheader("Which parts make the distance?")
    who = f"{TICK} the same person" if result.match[query][rank - 1] else f"{CROSS} another person"
    st.markdown(
        f"Query and {sides[1].name} ({who}): the eight parts sum to the distance **{total:.3f}** (1 - cosine); the rank "
        f"list says {stored:.3f}."
    )
    if abs(total - stored) > 0.01:
        st.info(why_other(result, total, stored))
    rows = next(iter(found.flat.values())).shape[0]
    adds = dict(zip(table["part"], table["adds to the distance"], strict=True))
    title = f"{run.name}: distance {total:.3f} = sum of the eight parts"
    stem = f"{stem}-parts-{files_of(sides)}"
    words = ", ".join(f"{part} {value:.3f}" for part, value in adds.items())
    picture = draw_parts((sides[0].path, sides[1].path), adds, rows, title)
    st.image(picture, width="stretch", alt=f"{title}: {words}")
    with st.container(horizontal=True):
        offer_picture(picture, stem)
        offer_table(table, stem, "Parts as CSV")
    st.caption(
        "A long bar: here the two crops differ in the eyes of the network. b1, b2 and b3 see the whole crop, b21 and b22 "
        "its halves, b31 to b33 its thirds. Each part adds half its squared difference; none takes anything away."
    )


def files_of(sides: list[Side]) -> str:
    return "-".join(Path(file_name(side.path)).stem for side in sides)


def _sign(result: EvalResult, query: int, rank: int) -> str:
    return TICK if result.match[query][rank - 1] else CROSS


def _take(rank: int) -> None:
    st.session_state["rank"] = rank


main()
