"""Pictures with crops in them: rank lists, contact sheets, attention. Curves are in `curves`.

Each is one composed matplotlib Figure, good for slides, and none is registered with pyplot, so a server that draws
thousands keeps none. Colours are told apart by colour-blind readers and never stand alone: right is also a tick, wrong
also a cross.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.runs import EvalResult
from lab.show.images import ImageLoader, file_name, read_picture
from lab.show.tables import describe_query

RIGHT, WRONG, QUERY, JUNK = "#009E73", "#D55E00", "#0072B2", "#8C8C8C"  # Okabe and Ito, 2008
TICK, CROSS, REMOVED = "\u2713", "\u2717", "\u2298"
LEFT_OUT = "same person and camera: left out"
SIGNS = {"right": (RIGHT, TICK), "wrong": (WRONG, CROSS), "same camera": (JUNK, REMOVED), "": (QUERY, "")}

TILE_HEIGHT = 2.0  # of a tile, in tile widths: a person's crop
STEP = 1.13  # from one tile to the next
INCHES = 0.8  # a tile's width: small, so that the words below it are large on a projector


@dataclass(frozen=True)
class Entry:
    """One crop of a rank list: where it stands (0: the protocol removes it), what it is ("right", "wrong", "same camera", "").

    `words` are the lines below it.
    """

    path: str
    rank: int
    kind: str
    words: str


def rank_list_figure(
    result: EvalResult,
    query: int,
    top_k: int = 10,
    load_image: ImageLoader = read_picture,
    title: str = "",
    columns: int = 10,
) -> Figure:
    """The query in its own frame, then its `top_k` nearest gallery crops in order: green tick right, red cross wrong.

    Under each crop its distance, pid and camera. `load_image(path)` gives (H, W, 3) uint8, or None for a grey tile.
    The same person by the query's own camera is not in the list, as the protocol wants.
    """
    path, entries = str(result.path[query]), stored_entries(result, query, top_k)
    load_entry = load_image if result.gallery_path is not None else lambda path: None
    columns = max(1, min(columns, len(entries)))
    rows = max(1, -(-len(entries) // columns))
    top, row_height = 1.05, TILE_HEIGHT + 1.0
    figure, axes = _sheet(max(1.5 + STEP * columns, 8.3), top + rows * row_height)
    _write(axes, 0, 0, title or file_name(path), 12.5, weight="bold")
    _write(axes, 0, 0.34, describe_list(result, query, len(entries)), 10.5)
    _tile(axes, 0, top, load_image(path), path, QUERY)
    _write(axes, 0.5, top - 0.04, "query", 11, QUERY, "center", "bottom", "bold")
    words = f"pid {result.pid[query]}\ncam {result.camid[query]}"
    _write(axes, 0.5, top + TILE_HEIGHT + 0.07, words, 9.5, ha="center")
    for place, entry in enumerate(entries):
        row, column = divmod(place, columns)
        _ranked_tile(axes, 1.5 + STEP * column, top + row * row_height, entry, load_entry)
    if not len(entries):
        _write(axes, 1.5, 1.9, "no gallery crop is left for this query", 10.5)
    _write(axes, 0, top + rows * row_height - 0.26, legend_of(entries), 9.5, "#444444")
    return figure


def stored_entries(result: EvalResult, query: int, top_k: int = 10) -> list[Entry]:
    """The first entries of a stored rank list, ready to be drawn."""
    return [_entry(result, query, place) for place in np.flatnonzero(result.index[query] >= 0)[:top_k]]


def describe_list(result: EvalResult, query: int, shown: int) -> str:
    """One line above a rank list of which `shown` entries can be seen: AP, first and next right one, the file."""
    later = next_right(result, query, shown)
    later = 0 if later == result.first_match[query] else later  # it is named already
    parts = describe_query(result, query), f"next right one at rank {later}" if later else ""
    return " · ".join([part for part in parts if part] + [file_name(str(result.path[query]))])


def legend_of(entries: Sequence[Entry]) -> str:
    """What the symbols of these entries mean."""
    kinds = {entry.kind for entry in entries}
    if not kinds - {""}:
        return "nearest first"
    removed = f"{REMOVED} same person and camera: not counted" if "same camera" in kinds else LEFT_OUT
    return "    ".join(["nearest first", f"{TICK} same person, other camera", f"{CROSS} other person", removed])


def next_right(result: EvalResult, query: int, shown: int) -> int:
    """The rank of the first right crop after the first `shown`, as far as the stored list goes; 0 if it holds none."""
    later = np.flatnonzero(result.match[query][shown:])
    return shown + int(later[0]) + 1 if len(later) else 0


def contact_sheet(
    images: Sequence[np.ndarray | None],
    titles: Sequence[str] | None = None,
    columns: int = 10,
    title: str = "",
    row_titles: Sequence[str] | None = None,
) -> Figure:
    """Crops side by side, `columns` in a row, each with a title of some lines above it; None is a grey tile.

    `row_titles` stand to the left of the rows, for instance the camera of each.
    """
    titles = list(titles) if titles is not None else [""] * len(images)
    row_height = TILE_HEIGHT + (0.36 if any(titles) else 0.13)
    row_height += 0.19 * max([name.count("\n") for name in titles], default=0)
    rows = -(-len(images) // columns)
    left, top = (1.1 if row_titles else 0), (0.45 if title else 0)
    figure, axes = _sheet(left + STEP * min(columns, len(images)), top + rows * row_height)
    _write(axes, 0, 0, title, 12.5, weight="bold")
    for place, (image, name) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(place, columns)
        bottom = top + (row + 1) * row_height
        _tile(axes, left + STEP * column, bottom - TILE_HEIGHT, image, "" if image is not None else name, None)
        _write(axes, left + STEP * column + 0.5, bottom - TILE_HEIGHT - 0.04, name, 9.5, ha="center", va="bottom")
    for row, name in enumerate(row_titles or ()):
        _write(axes, left - 0.1, top + (row + 1) * row_height - TILE_HEIGHT / 2, name, 10.5, ha="right", va="center")
    return figure


def card_sheet(images: Sequence[np.ndarray | None], words: Sequence[str], columns: int = 4) -> Figure:
    """Crops with lines of words to the right of each, `columns` in a row, for what is too long to stand above them."""
    width, height = 2.9, TILE_HEIGHT + 0.13
    rows = max(1, -(-len(images) // columns))
    figure, axes = _sheet(width * min(columns, max(1, len(images))), rows * height)
    for place, (image, text) in enumerate(zip(images, words, strict=True)):
        row, column = divmod(place, columns)
        _tile(axes, column * width, row * height, image, "", None)
        _write(axes, column * width + 1.08, row * height + 0.05, text, 10.5)
    return figure


def attention_overlay(
    image: np.ndarray,
    attention: np.ndarray | Mapping[str, np.ndarray],
    mask: np.ndarray | None = None,
    strength: float = 0.65,
    title: str = "",
) -> Figure:
    """A crop (H, W, 3) uint8 beside the same crop under one or more attention maps (H, W) of 0..1.

    The overlay is clear where the map is low. `mask` (H, W) bool, the true person of a synthetic crop, is outlined in
    white. `strength` 0 shows the crop alone, 1 the map alone where it is high.
    """
    maps = attention if isinstance(attention, Mapping) else {"attention": attention}
    figure = Figure(figsize=(1.35 * (1 + len(maps)) + 0.75, 3.2), dpi=100)
    figure.suptitle(title, x=0.02, y=0.985, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    panels = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
    figure.subplots_adjust(left=0.02, right=1 - 0.75 / figure.get_figwidth(), top=0.82, bottom=0.03, wspace=0.06)
    for axes, (name, values) in zip(panels, {"crop": None, **maps}.items(), strict=True):
        axes.imshow(image if values is None else blend(image, values, strength))
        if mask is not None:
            axes.contour(mask.astype(float), levels=[0.5], colors="black", linewidths=2.2)
            axes.contour(mask.astype(float), levels=[0.5], colors="white", linewidths=1.0)
        axes.set_title(name, fontsize=9.5, parse_math=False)
        axes.set_axis_off()
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), "inferno")
    bar = figure.colorbar(scale, ax=list(panels), fraction=0.03, pad=0.02, ticks=[0, 1])
    bar.ax.set_yticklabels(["low", "high"], fontsize=9)
    bar.set_label("attention in this map", fontsize=9, labelpad=-12)
    return figure


def blend(image: np.ndarray, attention: np.ndarray, strength: float) -> np.ndarray:
    """Lay a map (H, W) of 0..1 over a picture (H, W, 3) uint8: the higher the map, the more its colour covers."""
    if attention.shape != image.shape[:2]:
        raise ValueError(f"the map is {attention.shape}, the picture {image.shape[:2]}: they must be of one size")
    heat = np.clip(np.nan_to_num(attention), 0, 1)[..., None]
    colour = matplotlib.colormaps["inferno"](heat[..., 0])[..., :3] * 255
    cover = strength * heat
    return np.round((1 - cover) * image + cover * colour).astype(np.uint8)


def to_png(figure: Figure, max_width: int = 1440) -> bytes:
    """A matplotlib figure as a PNG file, at 150 dots per inch or as many as fit into `max_width` pixels."""
    stream = io.BytesIO()
    dpi = min(150, max_width / figure.get_figwidth())
    figure.savefig(stream, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})  # 6 takes as long as the drawing
    return stream.getvalue()


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty page in tile widths, y downwards: one Axes for all tiles, which draws ten times faster than one each."""
    margin = 0.12
    width, height = width + 2 * margin, height + 2 * margin
    figure = Figure(figsize=(width * INCHES, height * INCHES), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-margin, width - margin), ylim=(height - margin, -margin))
    axes.set_autoscale_on(False)
    axes.set_axis_off()
    return figure, axes


def _tile(axes: Axes, x: float, y: float, image: np.ndarray | None, path: str, colour: str | None) -> None:
    """A crop, whole and in its own proportions, in the tile whose upper left corner is (x, y)."""
    axes.add_patch(Rectangle((x, y), 1, TILE_HEIGHT, facecolor="#E6E6E6", edgecolor="none", zorder=-1))
    if image is None:
        name = "\n".join(textwrap.wrap(file_name(path), 13)[:5])
        _write(axes, x + 0.5, y + TILE_HEIGHT / 2, f"no image\n{name}", 7, "#555555", "center", "center")
    else:
        rows, columns = image.shape[:2]
        width = min(1.0, TILE_HEIGHT * columns / rows)
        height = width * rows / columns
        left, top = x + (1 - width) / 2, y + (TILE_HEIGHT - height) / 2
        axes.imshow(image, extent=(left, left + width, top + height, top), aspect="auto", interpolation="antialiased")
    if colour:
        axes.add_patch(Rectangle((x, y), 1, TILE_HEIGHT, fill=False, edgecolor=colour, linewidth=3.5))


def _ranked_tile(axes: Axes, x: float, y: float, entry: Entry, load_image: ImageLoader) -> None:
    colour, symbol = SIGNS[entry.kind]
    _tile(axes, x, y, load_image(entry.path), entry.path, colour)
    number = f"{entry.rank} {symbol}".strip() if entry.rank else symbol
    _write(axes, x + 0.5, y - 0.04, number, 11.5, colour, "center", "bottom", "bold")
    _write(axes, x + 0.5, y + TILE_HEIGHT + 0.07, entry.words, 9.5, ha="center")


def _entry(result: EvalResult, query: int, place: int) -> Entry:
    """The entry at a place (0 = nearest) of a stored rank list."""
    crop, kind = int(result.index[query][place]), "right" if result.match[query][place] else "wrong"
    words = f"{result.distance[query][place]:.3f}"
    if result.gallery_pid is not None:
        words += f"\npid {result.gallery_pid[crop]}\ncam {result.gallery_camid[crop]}"
    path = f"gallery #{crop}" if result.gallery_path is None else str(result.gallery_path[crop])
    return Entry(path, int(place) + 1, kind, words)


def _write(axes, x, y, text, size, colour="black", ha="left", va="top", weight="normal") -> None:
    if text:  # file names may hold a dollar sign, which is no formula here
        axes.text(
            x, y, text, fontsize=size, color=colour, ha=ha, va=va, fontweight=weight, parse_math=False, linespacing=1.15
        )
