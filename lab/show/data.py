"""What is in a data set and in a store of unlabelled crops: counts as tables and bars, samples as sheets of crops.

Plotly Figures in the look of `curves`, sheets in that of `figures`. Legend: N crops.
"""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from lab.data.splits import Split
from lab.evaluate.map_points import has_distractors
from lab.runs import EvalResult
from lab.show.curves import LINE_COLOURS, finish
from lab.show.figures import contact_sheet
from lab.show.images import ImageLoader, read_picture

PATTERNS = ("", "/", "x")
MOST_BARS = 30  # of places in one figure
MOST_NUMBERS = 16  # bars that have room for a number each
MOST_CELLS = 40  # people of a heat map that can still be read
BLANK = np.full((4, 2, 3), 255, np.uint8)  # fills up a row of a sheet

Parts = Mapping[str, Split]


def parts_of(result: EvalResult) -> dict[str, Split]:
    """Query and gallery of an evaluation, the gallery only if the result says what it is."""
    parts = {"query": Split(result.path, result.pid, result.camid)}
    if result.gallery_pid is not None:
        parts["gallery"] = Split(result.gallery_path, result.gallery_pid, result.gallery_camid)
    return parts


def parts_table(parts: Parts, result: EvalResult | None = None) -> pd.DataFrame:
    """One row per part: crops, identities, cameras, crops per identity, distractors; with `result` queries without a match.

    Distractors (pid 0 in a gallery that no query asks for) count as crops and not as an identity.
    """
    rows = []
    for name, part in parts.items():
        nobody = name == "gallery" and "query" in parts and has_distractors(parts["query"].pid, part.pid)
        people = part.pid[part.pid != 0] if nobody else part.pid
        counts = np.unique(people, return_counts=True)[1]
        row = {"part": name, "crops": len(part), "identities": len(counts), "cameras": part.num_cameras}
        spread = f"{counts.min()} to {counts.max()}, median {np.median(counts):g}" if len(counts) else ""
        row["crops per identity"] = spread
        row["distractors (pid 0)"] = len(part) - len(people)
        if result is not None:
            row["queries without a match"] = int((result.first_match == 0).sum()) if name == "query" else 0
        rows.append(row)
    return pd.DataFrame(rows)


def per_camera(parts: Parts) -> pd.DataFrame:
    """Crops per camera (rows) and part (columns)."""
    counts = {name: pd.Series(part.camid).value_counts() for name, part in parts.items()}
    return pd.DataFrame(counts).fillna(0).astype(int).sort_index().rename_axis("camera")


def per_camera_figure(parts: Parts, title: str = "Crops per camera") -> go.Figure:
    """A group of bars per camera, one bar per part, each with its number if there is room."""
    table = per_camera(parts)
    figure = go.Figure()
    room = table.size <= MOST_NUMBERS
    for number, name in enumerate(table.columns):
        figure.add_bar(
            x=[str(camera) for camera in table.index],
            y=table[name],
            name=html.escape(name),
            marker=_look(number),
            text=[f"{count:,}" if room else "" for count in table[name]],
            textposition="outside",
            textfont={"size": 11},
            constraintext="none",
            cliponaxis=False,
            hovertemplate="camera %{x}: %{y:,} crops<extra>" + html.escape(name) + "</extra>",
        )
    figure.update_xaxes(title="camera (camid)", type="category")
    figure.update_yaxes(title="crops", rangemode="tozero")
    figure.update_layout(
        barmode="group", legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 1, "xanchor": "right"}
    )
    return finish(figure, title, 400)


def per_identity(parts: Parts, distractors: bool = False) -> pd.DataFrame:
    """How many identities (values) have how many crops (rows) in each part (columns); no pid 0 with `distractors`."""
    table = {}
    for name, part in parts.items():
        pid = part.pid[part.pid != 0] if distractors else part.pid
        table[name] = pd.Series(np.unique(pid, return_counts=True)[1], dtype=np.int64).value_counts()
    return pd.DataFrame(table).fillna(0).astype(int).sort_index().rename_axis("crops")


def per_identity_figure(table: pd.DataFrame, title: str = "Crops per identity") -> go.Figure:
    """Histogram of a `per_identity` table: how many people have one crop, two, and so on."""
    figure = go.Figure()
    most = int(table.index.max()) if len(table) else 1
    step = max(1, -(-most // 40))
    for number, name in enumerate(table.columns):
        counts = table[name].groupby((table.index - 1) // step * step + 1).sum()
        last = np.array(counts.index) + step - 1
        words = [f"{a}" if step == 1 else f"{a} to {b}" for a, b in zip(counts.index, last, strict=True)]
        figure.add_bar(
            x=(np.array(counts.index) + last) / 2,
            y=counts.to_numpy(),
            name=html.escape(name),
            marker=_look(number),
            customdata=words,
            hovertemplate="%{customdata} crops: %{y:,} identities<extra>" + html.escape(name) + "</extra>",
        )
    figure.update_xaxes(title="crops of one identity", rangemode="tozero", tickformat=",d")
    figure.update_yaxes(title="identities", rangemode="tozero", tickformat=",d")
    figure.update_layout(
        barmode="group",
        bargap=0.1,
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
    return finish(figure, title, 400)


def people_by_cameras(parts: Parts, distractors: bool = False) -> pd.DataFrame:
    """Crops of each person (rows) under each camera (columns), all parts together; no pid 0 with `distractors`."""
    pid, camid = (np.concatenate([getattr(part, name) for part in parts.values()]) for name in ("pid", "camid"))
    kept = pid != 0 if distractors else np.full(len(pid), True)
    return pd.crosstab(pd.Series(pid[kept], name="pid"), pd.Series(camid[kept], name="camera"))


def people_by_cameras_figure(table: pd.DataFrame, title: str = "Who was seen where") -> go.Figure:
    """A `people_by_cameras` table as numbers on colours; a blank cell is a person whom the camera never took."""
    values = table.to_numpy()
    figure = go.Figure(
        go.Heatmap(
            z=np.where(values > 0, values, np.nan),
            x=[str(camera) for camera in table.columns],
            y=[str(pid) for pid in table.index],
            texttemplate="%{z:d}",
            textfont={"color": "#000000"},
            colorscale=["#FFFFFF", LINE_COLOURS[5]],
            zmin=0,
            colorbar={"title": "crops", "thickness": 14, "tickformat": ",d"},
            xgap=2,
            ygap=2,
            hoverongaps=False,
            hovertemplate="pid %{y}, camera %{x}: %{z} crops<extra></extra>",
        )
    )
    figure.update_xaxes(title="camera (camid)", type="category", showgrid=False)
    figure.update_yaxes(title="person (pid)", type="category", showgrid=False, autorange="reversed", dtick=1)
    return finish(figure, title, 150 + 22 * max(6, len(table)))


def places_figure(images: pd.Series, what: str, title: str = "") -> go.Figure:
    """Images per place, a bar each, the largest on top; of many places the 30 largest."""
    shown = images.sort_values(ascending=False, kind="stable")[:MOST_BARS]
    figure = go.Figure(
        go.Bar(
            x=shown.to_numpy(),
            y=[html.escape(str(name)) for name in shown.index],
            orientation="h",
            marker=_look(0),
            text=[f"{count:,}" for count in shown],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:,} images<extra></extra>",
        )
    )
    figure.update_xaxes(title="images", rangemode="tozero", tickformat=",d")
    figure.update_yaxes(title=what, type="category", autorange="reversed", dtick=1, automargin=True)
    finish(figure, title or f"Images per {what}", 140 + 26 * max(3, len(shown)))
    return figure.update_layout(margin={"r": 70})


def sizes_figure(shapes: Sequence[tuple[int, int]], title: str = "Size of the images") -> go.Figure:
    """Histograms of the height and the width of images (S, 2) in pixels."""
    shapes = np.asarray(shapes, dtype=np.int64).reshape(-1, 2)
    width = _nice(np.ptp(shapes) / 40 if len(shapes) else 1)
    figure = go.Figure()
    for number, name in enumerate(("height", "width")):
        start, counts = np.unique(shapes[:, number] // width * width, return_counts=True)
        words = [f"{at}" if width == 1 else f"{at} to {at + width - 1}" for at in start.tolist()]
        figure.add_bar(
            x=start + (width - 1) / 2,
            y=counts,
            width=width,
            name=name,
            opacity=0.7,
            marker=_look(number),
            customdata=words,
            hovertemplate="%{customdata} pixels: %{y:,} images<extra>" + name + "</extra>",
        )
    figure.update_layout(
        barmode="overlay", legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 1, "xanchor": "right"}
    )
    figure.update_xaxes(title="pixels", rangemode="tozero", tickformat=",d")
    figure.update_yaxes(title="images", rangemode="tozero", tickformat=",d")
    return finish(figure, title, 380)


def person_sheet(
    parts: Parts, pid: int, load_image: ImageLoader = read_picture, most: int = 8, seed: int = 0
) -> Figure:
    """Crops of one person, a row for each camera, at most `most` of each drawn by `seed`; above each the part it is in."""
    part, path, camid = _crops_of(parts, pid)
    rows, titles, words = [], [], []
    for camera in np.unique(camid).tolist():
        chosen = _draw(np.flatnonzero(camid == camera), most, seed)
        rows.append([load_image(str(path[at])) for at in chosen])
        titles.append([part[at] for at in chosen])
        words.append(f"camera {camera}")
    return _rows_sheet(rows, titles, words)


def people_sheet(
    parts: Parts, pids: Sequence[int], load_image: ImageLoader = read_picture, most: int = 8, seed: int = 0
) -> Figure:
    """A row for each person, at most `most` crops of each drawn by `seed`, in the order of cameras."""
    rows, titles = [], []
    for pid in pids:
        _, path, camid = _crops_of(parts, pid)
        chosen = _draw(np.arange(len(path)), most, seed)
        chosen = chosen[np.argsort(camid[chosen], kind="stable")]
        rows.append([load_image(str(path[at])) for at in chosen])
        titles.append([f"camera {camid[at]}" for at in chosen])
    return _rows_sheet(rows, titles, [f"pid {pid}" for pid in pids])


def drawn_words(drawn: pd.DataFrame) -> list[str]:
    """Lines for each image of a drawn sample: its number, its key in two parts, where it is from, and the size of its box."""
    words = []
    for number, row in enumerate(drawn.to_dict("records"), start=1):
        key = str(row["key"]) if _known(row.get("key")) else ""
        begin, dash, end = key.rpartition("_")
        lines = [f"{number}", f"{begin}{dash}", end]
        lines += [_short(_named(level, row[level])) for level in ("country", "city", "video") if _known(row.get(level))]
        box = [row.get(side) for side in ("x", "y", "width", "height")]
        if all(map(_known, box)):
            lines += [f"box {box[2]:.0f} x {box[3]:.0f}", f"at {box[0]:.0f}, {box[1]:.0f}"]
        words.append("\n".join(line for line in lines if line))
    return words


def _named(level: str, name: object) -> str:
    """A place by its name; one that is only a number says what it is a number of."""
    return f"{level} {name}" if str(name).isdecimal() else str(name)


def _known(value: object) -> bool:
    return value is not None and value == value and value != ""


def _short(text: str, letters: int = 16) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _crops_of(parts: Parts, pid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Part, path and camera of all crops of a person."""
    found = {name: part.take(part.pid == pid) for name, part in parts.items()}
    names = np.repeat(list(found), [len(part) for part in found.values()])
    return names, *(np.concatenate([getattr(part, name) for part in found.values()]) for name in ("path", "camid"))


def _draw(numbers: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(numbers) <= most:
        return numbers
    return np.sort(np.random.default_rng(seed).choice(numbers, most, replace=False))


def _rows_sheet(rows: list[list], titles: list[list[str]], words: list[str]) -> Figure:
    """Rows of unequal length as one sheet: short ones are filled up with white."""
    columns = max([len(row) for row in rows], default=1)
    images = [image for row in rows for image in [*row, *[BLANK] * (columns - len(row))]]
    names = [name for row in titles for name in [*row, *[""] * (columns - len(row))]]
    return contact_sheet(images, names, columns, row_titles=words)


def _look(number: int) -> dict:
    pattern = {"shape": PATTERNS[number % len(PATTERNS)], "solidity": 0.25, "fgcolor": "#FFFFFF"}
    return {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "pattern": pattern}


def _nice(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, … pixels."""
    width = max(1.0, width)
    power = 10 ** int(np.floor(np.log10(width)))
    return int(next(step * power for step in (1, 2, 5, 10) if step * power >= width))
