"""What a crop is called: LUPerson's keys `CC_cc_vvvv_iiiiiiii`.

Country, city within the country, video within the city and image within the video, each counted from 0 in alphabetical
order, as in `30_00_0292_00000238`: image 238 of video 292 of the first city of country 30. Where a number needs more
digits, all keys of a store get them, so that they sort as text the way they sort as numbers. Legend: N keys.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

WIDTHS = (2, 2, 4, 8)  # digits of country, city, video, image
PATTERN = re.compile(r"(\d{2,18})_(\d{2,18})_(\d{4,18})_(\d{8,18})", re.ASCII)
Place = tuple[str, str, str]  # names of country, city and video


def make_key(country: int, city: int, video: int, image: int, widths: Sequence[int] = WIDTHS) -> str:
    """The key of an image: make_key(30, 0, 292, 238) is '30_00_0292_00000238'."""
    return "_".join(f"{number:0{width}d}" for number, width in zip((country, city, video, image), widths, strict=True))


def parse_key(key: str) -> tuple[int, int, int, int] | None:
    """Country, city, video and image of a key; None for a name of another kind."""
    found = PATTERN.fullmatch(key)
    return tuple(map(int, found.groups())) if found else None


def number_places(places: Iterable[Place]) -> dict[Place, tuple[int, int, int]]:
    """Number countries, the cities of each and the videos of each city from 0, all in alphabetical order."""
    numbers: dict[Place, tuple[int, int, int]] = {}
    previous, number = None, (-1, 0, 0)
    for place in sorted(set(places)):
        if previous is None or place[0] != previous[0]:
            number = (number[0] + 1, 0, 0)
        elif place[1] != previous[1]:
            number = (number[0], number[1] + 1, 0)
        else:
            number = (*number[:2], number[2] + 1)
        numbers[place], previous = number, place
    return numbers


def widths_for(numbers: Iterable[Sequence[int]], images: int = 0) -> tuple[int, int, int, int]:
    """Digits that hold all these numbers of places, and that many images in each: the usual ones or more."""
    largest = np.max([*((*number, images) for number in numbers), (0, 0, 0, 0)], axis=0)
    return tuple(max(width, len(str(number))) for width, number in zip(WIDTHS, largest, strict=True))


def split_keys(keys: np.ndarray) -> np.ndarray | None:
    """(N,) keys as bytes -> (N, 4) int64 country, city, video, image; None if they are not LUPerson's or of several widths."""
    keys = np.ascontiguousarray(keys)
    first = PATTERN.fullmatch(keys[0].decode("ascii", "replace")) if len(keys) else None
    if first is None:
        return None
    letters = keys.view(np.uint8).reshape(len(keys), -1)  # keys are stored with one width, filled up with zeros
    spans = [first.span(group) for group in (1, 2, 3, 4)]
    underscores = [end for _, end in spans[:3]]
    digits = np.delete(letters, underscores, axis=1)
    if letters.shape[1] != spans[3][1] or (letters[:, underscores] != ord("_")).any():
        return None
    if (digits < ord("0")).any() or (digits > ord("9")).any():
        return None
    numbers = [
        (letters[:, start:end].astype(np.int64) - ord("0")) @ 10 ** np.arange(end - start, dtype=np.int64)[::-1]
        for start, end in spans
    ]
    return np.stack(numbers, axis=1)
