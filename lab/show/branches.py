"""MGN's three branches and eight heads, drawn on a crop: what each of them sees, and where it goes in the descriptor."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.errors import InputError
from lab.show.curves import LINE_COLOURS

HATCHES = ("", "//", "..")  # of the branches, beside their colours
HEAD_DIM = 256  # numbers of each head

Heads = Mapping[str, tuple[str, int, int]]  # head -> its branch, stripes of that branch's map, which of them it sees


def branches_figure(
    image: np.ndarray, map_sizes: Mapping[str, tuple[int, int]], heads: Heads, title: str = "What each head sees"
) -> Figure:
    """A crop once per branch, cut as the branch cuts its map, above the descriptor that the heads fill in their order.

    `image` (H, W, 3) uint8, `map_sizes` branch -> rows and columns of its map, `heads` as `lab.finetune.mgn.HEADS`. White
    lines are the places of the map: a map of r rows has a stripe end only where a row ends. Raises InputError for more
    stripes than rows.
    """
    styles = {branch: (LINE_COLOURS[n], HATCHES[n]) for n, branch in enumerate(map_sizes)}
    figure = Figure(figsize=(9.6, 5.3), dpi=100, facecolor="white")
    figure.suptitle(title, x=0.02, y=0.985, ha="left", fontsize=13, fontweight="bold", parse_math=False)
    grid = figure.add_gridspec(
        2, len(map_sizes), height_ratios=(4.4, 1), left=0.02, right=0.98, top=0.845, bottom=0.12, hspace=0.1
    )
    for place, (branch, (rows, columns)) in enumerate(map_sizes.items()):
        own = {head: where[1:] for head, where in heads.items() if where[0] == branch}
        _draw_branch(figure.add_subplot(grid[0, place]), image, branch, rows, columns, own, styles[branch])
    _draw_descriptor(figure.add_subplot(grid[1, :]), heads, styles)
    return figure


def stripe_ends(rows: int, stripes: int) -> list[int]:
    """The rows of a map at which its stripes end, top to bottom; upper stripes get what does not divide (4: 2, 1, 1)."""
    if stripes > rows:
        raise InputError(f"a map of {rows} row(s) cannot be cut into {stripes} stripes; use taller images")
    sizes = [rows // stripes + (place < rows % stripes) for place in range(stripes)]
    return np.cumsum(sizes).tolist()


def _draw_branch(axes: Axes, image: np.ndarray, branch: str, rows: int, columns: int, own: dict, style: tuple) -> None:
    """The crop with the places of the map, a frame for the whole, and a bracket beside each stripe."""
    colour, hatch = style
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    for row in range(1, rows):
        axes.plot([0, width], [row * height / rows] * 2, color="white", linewidth=0.8, alpha=0.55)
    for column in range(1, columns):
        axes.plot([column * width / columns] * 2, [0, height], color="white", linewidth=0.8, alpha=0.55)
    axes.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor=colour, linewidth=4))
    lane = 0.14 * width
    for head, (stripes, position) in own.items():
        ends = [0, *stripe_ends(rows, stripes)]
        top, bottom = ends[position] * height / rows, ends[position + 1] * height / rows
        if stripes > 1 and position:
            axes.plot([0, width], [top, top], color=colour, linewidth=4)
        left = width * 1.1 if stripes == 1 else width * 1.56
        box = (left, top + 0.01 * height), lane, bottom - top - 0.02 * height
        axes.add_patch(Rectangle(*box, facecolor=colour, edgecolor="white", hatch=hatch, clip_on=False))
        axes.text(left + 1.25 * lane, (top + bottom) / 2, head, fontsize=12.5, va="center", fontweight="bold")
    kinds = sorted({stripes for stripes, _ in own.values()})
    cut = " + ".join("whole" if stripes == 1 else f"{stripes} stripes" for stripes in kinds)
    axes.set_title(f"branch {branch}: {cut}\nmap of {rows} x {columns} places", fontsize=11, loc="left")
    axes.set(xlim=(-0.03 * width, 2.08 * width), ylim=(height * 1.01, -height * 0.01))
    axes.set_anchor("NW")
    axes.set_axis_off()


def _draw_descriptor(axes: Axes, heads: Heads, styles: Mapping[str, tuple]) -> None:
    """The heads side by side, in the order of the descriptor, in their branch's colour and hatch."""
    for place, (head, (branch, _, _)) in enumerate(heads.items()):
        colour, hatch = styles[branch]
        box = (place * HEAD_DIM, 0), HEAD_DIM, 1
        axes.add_patch(Rectangle(*box, facecolor=colour, edgecolor="white", linewidth=2, hatch=hatch))
        plate = {"facecolor": "white", "edgecolor": "none", "pad": 2.5}
        middle = (place + 0.5) * HEAD_DIM
        axes.text(middle, 0.5, head, fontsize=12.5, ha="center", va="center", fontweight="bold", bbox=plate)
    total = HEAD_DIM * len(heads)
    axes.set(xlim=(0, total), ylim=(0, 1), yticks=[], xticks=range(0, total + 1, HEAD_DIM))
    axes.tick_params(labelsize=10.5, length=3)
    axes.set_xlabel(f"position in the descriptor: {len(heads)} heads x {HEAD_DIM} = {total:,} numbers", fontsize=11)
    axes.spines[:].set_visible(False)
