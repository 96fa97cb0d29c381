"""What cameras do: boxes on a frame, the truth about a drawn person, and how alike crops of one camera are.

matplotlib Figures in the look of `figures`: none is registered with pyplot, and colours never stand alone.
Legend: N boxes, C crops, M cameras.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import PercentFormatter

from lab.errors import InputError
from lab.show.curves import LINE_COLOURS
from lab.show.figures import CROSS, QUERY, RIGHT, TICK, WRONG

PART_STYLES = {"head": (QUERY, "-"), "torso": ("#E69F00", "--"), "legs": ("#CC79A7", ":")}
CHANNELS = (("red", WRONG, "-"), ("green", RIGHT, "--"), ("blue", QUERY, ":"))
HATCHES = ("", "//", "xx", "..")
BINS = 40
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}


def boxes_figure(
    frame: np.ndarray, boxes: np.ndarray, reasons: Sequence[str | None], title: str = "", scores: Sequence[float] = ()
) -> Figure:
    """Boxes (N, 4) x, y, width, height in pixels on a frame (H, W, 3): kept ones solid with a tick, dropped ones dashed.

    `reasons` says why each was dropped, None for one that is kept; with `scores` the box says its score too.
    """
    if len(boxes) != len(reasons):
        raise InputError(f"there are {len(boxes)} boxes and {len(reasons)} reasons; give one for each, None if kept")
    height, width = frame.shape[:2]
    figure = Figure(figsize=(9.6, 9.6 * height / width + 0.75), dpi=100)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.7 / figure.get_figheight())
    axes.imshow(frame, extent=(0, width, height, 0))
    axes.set(xlim=(-0.02 * width, 1.02 * width), ylim=(1.01 * height, -0.02 * height))
    axes.set_axis_off()
    for number, (box, reason) in enumerate(zip(np.asarray(boxes).reshape(-1, 4), reasons, strict=True)):
        colour, line, words = (RIGHT, "-", TICK) if reason is None else (WRONG, "--", f"{CROSS} {reason}")
        axes.add_patch(Rectangle(box[:2], *box[2:], fill=False, edgecolor=colour, linestyle=line, linewidth=2.5))
        words += f" {scores[number]:.2f}" if len(scores) else ""
        below = reason is not None  # where boxes overlap, words of the two kinds do not
        y = min(box[1] + box[3] + 5, 0.96 * height) if below else max(box[1] - 5, 8)
        axes.text(
            np.clip(box[0], 0, 0.9 * width), y, words, fontsize=10.5, color="white", va="top" if below else "bottom",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    kept = sum(reason is None for reason in reasons)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", parse_math=False, pad=22)
    words = f"{TICK} solid: becomes a crop ({kept})        {CROSS} dashed: dropped ({len(reasons) - kept})"
    axes.text(0, 1.015, words, transform=axes.transAxes, fontsize=11, va="bottom")
    return figure


def ground_truth_figure(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    parts: Sequence[Mapping[str, tuple[float, float, float, float]]],
    titles: Sequence[str],
    title: str = "",
) -> Figure:
    """Crops (H, W, 3) with the outline of the visible person (white) and the boxes x0, y0, x1, y1 of head, torso, legs."""
    figure = Figure(figsize=(1.5 * len(images), 3.75), dpi=100)
    figure.suptitle(title, x=0.01, y=0.99, ha="left", fontsize=12.5, fontweight="bold", parse_math=False)
    panels = figure.subplots(1, len(images), squeeze=False)[0]
    figure.subplots_adjust(left=0.01, right=0.99, top=0.84, bottom=0.09, wspace=0.06)
    for axes, image, mask, found, name in zip(panels, images, masks, parts, titles, strict=True):
        axes.imshow(image)
        outline(axes, mask)
        for part, (x0, y0, x1, y1) in found.items():
            colour, line = PART_STYLES[part]
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, ls=line, linewidth=2.5))
        axes.set_title(name, fontsize=10.5, parse_math=False)
        axes.set_axis_off()
    handles = [Patch(fill=False, edgecolor=c, linestyle=s, linewidth=2.5, label=p) for p, (c, s) in PART_STYLES.items()]
    figure.legend(handles=handles, loc="lower left", ncols=3, fontsize=10.5, frameon=False, bbox_to_anchor=(0, -0.02))
    return figure


def outline(axes: Axes, mask: np.ndarray) -> None:
    """Draw the border of a mask (H, W) bool, white on black, so that it is seen on any picture."""
    if mask.any() and not mask.all():
        axes.contour(mask.astype(float), levels=[0.5], colors="black", linewidths=2.4)
        axes.contour(mask.astype(float), levels=[0.5], colors="white", linewidths=1.2)


def sensor_figure(levels: Mapping[str, np.ndarray], title: str = "What each sensor adds to a grey level") -> Figure:
    """A camera's answer (256, 3) to every grey level, less that level: a line per colour, all 0 if it were faithful."""
    figure = Figure(figsize=(9.6, 2.6), dpi=100, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", parse_math=False)
    panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    for axes, (name, answer) in zip(panels, levels.items(), strict=True):
        axes.axhline(0, color="#8C8C8C", linewidth=1, label="faithful")
        for channel, (colour, hue, line) in enumerate(CHANNELS):
            axes.plot(answer[:, channel] - np.arange(256), color=hue, linestyle=line, linewidth=2.2, label=colour)
        axes.set(xlim=(0, 255), xticks=[0, 128, 255])
        axes.grid(color="#E5E5E5")
        axes.set_title(name, fontsize=10.5, parse_math=False)
        axes.tick_params(labelsize=10)
    panels[0].set_ylabel("stored less true", fontsize=11)
    figure.supxlabel("grey level of the scene", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=4, fontsize=10, frameon=False)
    return figure


def distances_figure(groups: Mapping[str, np.ndarray], title: str = "", label: str = "distance") -> Figure:
    """Distances of several kinds of pairs, each as a share of its kind, one panel below the other, with its median."""
    values = np.concatenate([np.ravel(group) for group in groups.values()])
    edges = np.linspace(values.min(), values.max() + 1e-6, BINS + 1)
    figure = Figure(figsize=(9.6, 0.95 + 1.25 * len(groups)), dpi=100, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", parse_math=False)
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for number, (axes, (name, group)) in enumerate(zip(panels, groups.items(), strict=True)):
        counts = np.histogram(group, edges)[0] / max(1, np.size(group))
        axes.stairs(
            counts, edges, fill=True, facecolor=LINE_COLOURS[number % len(LINE_COLOURS)], edgecolor="white",
            alpha=0.8, hatch=HATCHES[number % len(HATCHES)], linewidth=0,
        )  # fmt: skip
        middle = float(np.median(group))
        axes.axvline(middle, color="black", linestyle="--", linewidth=1.8)
        axes.text(
            0.01, 0.93, f"{name}: {np.size(group):,} pairs, median {middle:.3f}",
            transform=axes.transAxes, fontsize=11, va="top", parse_math=False, bbox=PLATE,
        )  # fmt: skip
        axes.set_ylim(0, 1.45 * max(counts.max(), 1e-9))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.tick_params(labelsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("share of the pairs", fontsize=11)
    panels[-1].set_xlabel(label, fontsize=11)
    return figure
