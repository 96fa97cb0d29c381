"""The explorer: look at what re-ID runs find, and where they look. Start it with `lab app RUNS_DIR`, or
`LAB_RUNS=RUNS_DIR streamlit run apps/explorer.py`.

This file holds the choices that all pages share; the pages are the files in views/. It reads run folders (lab/runs.py)
and computes no metric. LAB_DATA names the data set's folder when the images are not where the runs say.
"""

from pathlib import Path

import streamlit as st
from choices import choose
from loaders import find_folder, list_runs
from parts import plain

ICON = str(Path(__file__).with_name("icon.svg"))
STYLE = """<style>
.stMainBlockContainer {padding: 4.2rem 2rem 2rem}  /* room for pictures on a projector */
[class*="st-key-narrow"] button {padding-left: 0; padding-right: 0; min-width: 2.1rem; white-space: nowrap}
/* names of runs may begin alike: they are shown whole */
.stSidebar .stMultiSelect .react-aria-ComboBox > div {max-height: none}
.stSidebar .stMultiSelect [data-tag] {height: auto; max-width: 100%; padding-block: 0.25rem; line-height: 1.25}
.stSidebar .stMultiSelect [data-tag] span {white-space: normal; overflow-wrap: anywhere}
[data-testid="stMultiSelectDropdown"] {min-width: min(26rem, 90vw)}
.lab-link {display: inline-flex; align-items: center; gap: 0.4rem; padding: 0.25rem 0.5rem; border-radius: 0.5rem}
a.lab-link, a.lab-link:visited {color: inherit; text-decoration: none}
a.lab-link:hover {background: color-mix(in srgb, currentColor 10%, transparent)}
.lab-icon {font-family: "Material Symbols Rounded"; font-size: 1.25rem; line-height: 1}
</style>"""
# Charts are drawn for white paper, as they are saved; on a dark screen they are shown with light and dark swapped.
DARK = """<style>
.js-plotly-plot, [class*="st-key-drawn"] img {filter: invert(0.91) hue-rotate(180deg)}
</style>"""
STUDY = "Study"  # the one page that needs no runs


def main() -> None:
    st.set_page_config("LUPerson Lab", ICON, layout="wide", initial_sidebar_state=250)
    st.html(STYLE)
    if st.context.theme.type == "dark":
        st.html(DARK)
    page = st.navigation(
        [
            st.Page("views/overview.py", title="Overview", icon=":material/leaderboard:", default=True),
            st.Page("views/rank_lists.py", title="Rank lists", icon=":material/format_list_numbered:"),
            st.Page("views/attention.py", title="Attention", icon=":material/visibility:"),
            st.Page("views/compare.py", title="Compare two", icon=":material/compare_arrows:"),
            st.Page("views/study.py", title=STUDY, icon=":material/science:"),
            st.Page("views/distances.py", title="Distances", icon=":material/straighten:"),
            st.Page("views/embedding.py", title="Embedding map", icon=":material/scatter_plot:"),
            st.Page("views/training.py", title="Training", icon=":material/show_chart:"),
            st.Page("views/search.py", title="Your own image", icon=":material/image_search:"),
            st.Page("views/data.py", title="Data", icon=":material/photo_library:"),
        ],
        position="top",
    )
    folder = find_folder()
    runs, problems = list_runs(folder)
    if runs:
        choose(folder, runs, problems)
    elif page.title != STUDY:
        show_empty(str(folder), problems)
        st.stop()
    page.run()


def show_empty(folder: str, problems: list[str]) -> None:
    """What to do when there is nothing to look at."""
    st.title("LUPerson Lab explorer")
    st.info(
        f"There is no run to look at in {plain(folder)}. "
        "These two commands make some and show them (about 10 minutes on two cores):"
    )
    st.code("lab demo --out demo\nlab app demo/runs", language="bash")
    st.markdown(
        "To look at your own runs, give the folder that holds them: `lab app RUNS_DIR`. A run is a folder with "
        "`config.json` or with `eval/`, as `lab finetune` and `lab evaluate` write it. The page [Study](./study) needs none."
    )
    for problem in problems:
        st.error(plain(problem))


main()
