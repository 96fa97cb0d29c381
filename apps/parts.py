"""Parts that pages are made of: charts and tables with their downloads, and links from one page to another.

Every table and figure of the explorer can be saved: a table as CSV, a drawn picture as PNG, and a chart as SVG by the
camera in its corner, with its numbers as CSV. Their files are called RUNS-EVALUATION-WHAT (`stem_of`).
"""

import html
import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import urlencode

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

DOWNLOAD = ":material/download:"
NAMED = 3  # runs that the name of a file spells
DEFAULT_PAGE = "overview"  # it has no name in its address


def show_chart(
    figure: go.Figure, stem: str, alt: str, numbers: pd.DataFrame | None = None, select: bool = False
) -> list[dict]:
    """A plotly Figure; `stem` names its files and is its key. Returns the points that were clicked, if it may be asked.

    `numbers` is what the chart shows, offered as CSV. A clicked point is a dict with "customdata", "x", "y" and others.
    """
    config = {"displaylogo": False, "toImageButtonOptions": {"format": "svg", "filename": file_stem(stem)}}
    kind = {"on_select": "rerun", "selection_mode": ("points", "box", "lasso")} if select else {}
    event = st.plotly_chart(figure, key=stem, theme=None, config=config, alt=alt, **kind)
    if numbers is not None:
        offer_table(numbers, stem, "Numbers of this chart as CSV")
    return list(event["selection"]["points"]) if select and event else []


def show_picture(picture: bytes, stem: str, alt: str, width: int | str = "stretch") -> None:
    """A PNG file, with a button that saves it."""
    st.image(picture, width=width, alt=alt)
    offer_picture(picture, stem)


def offer_table(table: pd.DataFrame, stem: str, label: str = "Table as CSV", index: bool = False) -> None:
    """A button that saves a table; it is written only when it is asked for."""
    name = f"{file_stem(stem)}.csv"
    st.download_button(
        label, lambda: table.to_csv(index=index), name, "text/csv", key=f"csv {stem}", icon=DOWNLOAD, on_click="ignore"
    )


def offer_picture(picture: bytes | Callable[[], bytes], stem: str, label: str = "Picture as PNG") -> None:
    """A button that saves a PNG file; a function is called when it is asked for."""
    name = f"{file_stem(stem)}.png"
    st.download_button(label, picture, name, "image/png", key=f"png {stem}", icon=DOWNLOAD, on_click="ignore")


def link(page: str, label: str, icon: str = "arrow_forward", **choices: str | list[str]) -> None:
    """A link to another page that keeps what the sidebar says; `choices` are values of that page's selectors.

    It is the browser's own link and no st.page_link, which adds the choices of the page that is left to its address.
    """
    words = f'<span class="lab-icon" aria-hidden="true">{icon}</span>{html.escape(label)}'
    st.html(f'<a class="lab-link" href="{html.escape(address(page, **choices))}">{words}</a>', width="content")


def go_to(page: str, **choices: str | list[str]) -> None:
    """Open another page now, for instance when a point was clicked, so that Back returns to this one as it was."""
    target = address(page, **choices)
    if st.session_state.get("gone to") == target:
        return  # the browser came back to a page that it had kept, where the point is still chosen
    st.session_state["gone to"] = target
    st.html(f"<script>window.location.assign({json.dumps(target)})</script>", unsafe_allow_javascript=True)
    st.stop()


def address(page: str, **choices: str | list[str]) -> str:
    """The URL that opens a view: a page, what the sidebar says, and `choices`, which have the last word."""
    chosen = st.session_state["choices"]
    shared = {"run": list(chosen.evals), "dataset": chosen.dataset, "rerank": "true" if chosen.rerank else ""}
    said = {key: value for key, value in {**shared, **choices}.items() if value not in ("", [], None)}
    return f"./{'' if page == DEFAULT_PAGE else page}?{urlencode(said, doseq=True)}"


def plain(text: str) -> str:
    """Text from a file, made safe for a place that understands Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])", r"\\\1", str(text))


def stem_of(runs: Iterable[str], evaluation: str = "") -> str:
    """How the name of each download begins: of which run or runs, of which evaluation. What it is comes behind."""
    names = list(runs)
    said = "-".join(names)[:120] if len(names) <= NAMED else f"{len(names)}-runs"
    return f"{said}-{evaluation}" if evaluation else said


def file_stem(text: str) -> str:
    """A file name's beginning that every system takes."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:200] or "lab"
