"""Parts that pages are made of: charts and tables with their downloads, and links from one page to another.

Every table and figure of the explorer can be saved: a table as CSV, a drawn picture as PNG, and a chart as SVG by the
camera in its corner, with its numbers as CSV.
"""

import re
from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

DOWNLOAD = ":material/download:"


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


def link(page: str, label: str, icon: str = "arrow_forward", **choices: str) -> None:
    """A link to another page that keeps what the sidebar says; `choices` are values of that page's selectors."""
    st.page_link(f"views/{page}.py", label=label, icon=f":material/{icon}:", query_params=address(**choices))


def go_to(page: str, **choices: str) -> None:
    """Open another page now, for instance when a point was clicked: the next run of the script does it (`follow`)."""
    plain_ranking = {"rerank": "false"} if "rerank" in st.session_state else {}
    st.session_state["go_to"] = page, plain_ranking | address(**choices)
    st.rerun()


def follow() -> None:
    """Open the page that `go_to` asked for: before any selector is drawn, as one that is drawn keeps its value."""
    page, choices = st.session_state.pop("go_to", (None, {}))
    if page is None:
        return
    known = {key: value for key, value in choices.items() if key in st.session_state}  # a selector has it: it is told
    for key, value in known.items():
        st.session_state[key] = value == "true" if key == "rerank" else value
    st.switch_page(f"views/{page}.py", query_params={key: choices[key] for key in choices if key not in known})


def address(**choices: str) -> dict[str, str | list[str]]:
    """The part of a URL that opens a view again: what the sidebar says, and `choices`, which have the last word."""
    chosen = st.session_state["choices"]
    shared = {"run": list(chosen.evals), "dataset": chosen.dataset}
    if chosen.rerank:
        shared["rerank"] = "true"
    return {key: value for key, value in {**shared, **choices}.items() if value not in ("", [], None)}


def plain(text: str) -> str:
    """Text from a file, made safe for a place that understands Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])", r"\\\1", str(text))


def file_stem(text: str) -> str:
    """A file name's beginning that every system takes."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:120] or "lab"
