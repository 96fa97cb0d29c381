"""Rank lists as pixels, ten times as fast as a matplotlib Figure: for an app that draws three of them per click.

They look like `figures.rank_list_figure`, which is for notebooks. A list is made of `Entry`s, from a stored result or from
what a search found now. Lengths are in pixels at scale 1.
"""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lab.evaluate.search import Found
from lab.runs import Features
from lab.show.figures import QUERY, SIGNS, Entry, legend_of
from lab.show.images import ImageLoader, file_name, read_picture

TILE = (112, 224)  # width and height of a crop
STEP = 126  # from one crop to the next
GAP = 38  # between the query and the first of its list, beside a step
MARGIN, TOP, BELOW, FOOT = 14, 104, 74, 30  # around the page; above and below a row of crops; the legend
NARROWEST = 900  # room for the words above a short list


def rank_list_picture(
    query: np.ndarray | None,
    query_words: str,
    entries: Sequence[Entry],
    load_image: ImageLoader = read_picture,
    title: str = "",
    subtitle: str = "",
    columns: int = 10,
    scale: float = 1.0,
) -> Image.Image:
    """A query (H, W, 3) uint8 in its own frame, then the crops that were found for it, `columns` in a row."""
    columns = max(1, min(columns, len(entries)))
    rows = max(1, -(-len(entries) // columns))
    row_height = 26 + TILE[1] + BELOW
    width = max(2 * MARGIN + STEP + GAP + STEP * columns, NARROWEST)
    page = _Page(width, TOP - 26 + rows * row_height + FOOT, scale)
    page.write(MARGIN, MARGIN, title, 22, bold=True)
    page.write(MARGIN, MARGIN + 34, subtitle, 17)
    page.crop(MARGIN, TOP, query, "", QUERY)
    page.write(MARGIN + TILE[0] / 2, TOP - 6, "query", 18, QUERY, "ms", True)
    page.write(MARGIN + TILE[0] / 2, TOP + TILE[1] + 9, query_words, 16, anchor="ma")
    for place, entry in enumerate(entries):
        row, column = divmod(place, columns)
        _draw_entry(page, MARGIN + STEP + GAP + STEP * column, TOP + row * row_height, entry, load_image)
    if not len(entries):
        page.write(MARGIN + STEP + GAP, TOP + 90, "no gallery crop is left for this query", 18)
    page.write(MARGIN, page.height - FOOT, legend_of(entries), 16, "#444444")
    return page.image


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one under the other on white, as one for a slide."""
    width, height = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    page, top = Image.new("RGB", (width, height), "white"), 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height
    return page


def to_bytes(picture: Image.Image, form: str = "PNG") -> bytes:
    """A picture as a file: PNG, which loses nothing, or JPEG, which a browser gets in a tenth of the time."""
    stream = io.BytesIO()
    picture.save(stream, form, **({"quality": 90, "subsampling": 0} if form == "JPEG" else {"compress_level": 1}))
    return stream.getvalue()


def found_entries(found: Found, gallery: Features) -> list[Entry]:
    """What a search found, ready to be drawn."""
    parts = zip(found.index, found.rank, found.kind, found.distance, strict=True)
    return [
        Entry(
            str(gallery.path[crop]),
            int(rank),
            str(kind),
            f"{distance:.3f}\npid {gallery.pid[crop]}\ncam {gallery.camid[crop]}",
        )
        for crop, rank, kind, distance in parts
    ]


def found_table(found: Found, gallery: Features) -> pd.DataFrame:
    """One row per crop that was found, nearest first: rank, what it is, distance, pid, camid and file."""
    return pd.DataFrame(
        {
            "rank": found.rank,
            "match": found.kind,
            "distance": found.distance.astype(np.float64),
            "gallery index": found.index,
            "pid": gallery.pid[found.index],
            "camid": gallery.camid[found.index],
            "file": gallery.path[found.index],
        }
    )


class _Page:
    """A white page that is drawn on in pixels of scale 1."""

    def __init__(self, width: float, height: float, scale: float):
        self.width, self.height, self.scale = width, height, scale
        self.image = Image.new("RGB", (round(width * scale), round(height * scale)), "white")
        self.draw = ImageDraw.Draw(self.image)

    def write(self, x, y, text: str, size: float, colour="black", anchor="la", bold=False) -> None:
        """Lines of text; `anchor` says what of the first line (x, y) is, as Pillow does: "ma" is its middle, top."""
        font = _font(round(size * self.scale), bold)
        for number, line in enumerate(text.split("\n") if text else ()):
            place = x * self.scale, (y + number * 1.22 * size) * self.scale
            self.draw.text(place, line, fill=colour, font=font, anchor=anchor)

    def crop(self, x: float, y: float, picture: np.ndarray | None, path: str, colour: str) -> None:
        """A crop, whole and in its own proportions, on a grey tile in a frame whose upper left corner is (x, y)."""
        left, top, width, height = (round(value * self.scale) for value in (x, y, *TILE))
        self.draw.rectangle((left, top, left + width - 1, top + height - 1), fill="#E6E6E6")
        if picture is None:
            name = file_name(path)
            lines = ["no image", *(name[start : start + 13] for start in range(0, min(len(name), 52), 13))]
            self.write(x + TILE[0] / 2, y + 80, "\n".join(lines), 12, "#555555", "ma")
        else:
            image = ImageOps.contain(Image.fromarray(picture), (width, height), Image.Resampling.BICUBIC)
            self.image.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        self.draw.rectangle(
            (left, top, left + width - 1, top + height - 1), outline=colour, width=round(5 * self.scale)
        )


def _draw_entry(page: _Page, x: float, y: float, entry: Entry, load_image: ImageLoader) -> None:
    colour, symbol = SIGNS[entry.kind]
    page.crop(x, y, load_image(entry.path), entry.path, colour)
    number = f"{entry.rank} {symbol}".strip() if entry.rank else symbol
    page.write(x + TILE[0] / 2, y - 6, number, 18, colour, "ms", True)
    page.write(x + TILE[0] / 2, y + TILE[1] + 9, entry.words, 16, anchor="ma")


@lru_cache(32)
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """The font of the figures, which has the symbols and comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
