"""Pictures that people bring along: whole ones are read, everything else is refused in a sentence, and nothing is written."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lab.errors import InputError
from lab.show.figures import QUERY
from lab.show.uploads import MAX_MEGABYTES, clip_box, cut_box, decode_upload, draw_boxes

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)


def file_of(picture: Image.Image, form: str = "PNG", **more) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **more)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and has next to no pixels."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(100)))
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("form", "more"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_pixels_come_through(form, more):
    assert (decode_upload(file_of(Image.fromarray(PICTURE), form, **more)) == PICTURE).all()


def test_jpeg_is_turned_as_its_note_says():
    exif = Image.Exif()
    exif[274] = 6  # the camera was held sideways
    assert decode_upload(file_of(Image.fromarray(PICTURE), "JPEG", exif=exif)).shape == (20, 40, 3)


def test_the_first_picture_of_a_phones_two_is_taken():
    second = Image.fromarray(PICTURE[:20, :10])
    record = file_of(Image.fromarray(PICTURE), "MPO", save_all=True, append_images=[second])
    assert decode_upload(record).shape == PICTURE.shape


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_all_kinds_of_colour_become_rgb(mode):
    found = decode_upload(file_of(Image.fromarray(PICTURE).convert(mode)))
    assert found.shape == PICTURE.shape
    assert found.dtype == np.uint8


def frames(form: str) -> bytes:
    parts = [Image.fromarray(np.full((20, 20, 3), value, np.uint8)) for value in (0, 255)]
    return file_of(parts[0], form, save_all=True, append_images=parts[1:])


BAD = {
    "text": (b"no picture at all", "cannot be read"),
    "nothing": (b"", "cannot be read"),
    "cut PNG": (file_of(Image.fromarray(PICTURE))[:-200], "cannot be read"),
    "cut JPEG": (file_of(Image.fromarray(PICTURE), "JPEG")[:-60], "cannot be read"),
    "another format": (file_of(Image.fromarray(PICTURE), "BMP"), "JPEG, PNG or WebP"),
    "animated GIF": (frames("GIF"), "JPEG, PNG or WebP"),
    "animated PNG": (frames("PNG"), "2 frames"),
    "animated WebP": (frames("WEBP"), "2 frames"),
    "large": (png_header(9000, 9000), "9,000 x 9,000 pixels"),
    "bomb": (png_header(60_000, 60_000), "pixels; expected at most"),
    "heavy": (bytes(MAX_MEGABYTES * 1_000_000 + 1), "MB"),
    "tiny": (file_of(Image.fromarray(PICTURE[:4, :4])), "at least 8"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("what", BAD)
def test_what_is_no_good_is_refused_in_a_sentence(what):
    record, words = BAD[what]
    with pytest.raises(InputError, match=words) as refused:
        decode_upload(record)
    assert str(refused.value).endswith(".")


def test_boxes_are_clipped_to_the_picture_and_cut_out():
    assert clip_box((-3.4, 5.2, 15, 100), PICTURE) == (0, 5, 12, 35)
    assert (cut_box(PICTURE, (2, 5, 10, 20)) == PICTURE[5:25, 2:12]).all()
    for box in ((30, 0, 10, 10), (0, 0, 20, 3), (5, 5, -10, 20)):
        with pytest.raises(InputError, match="at least 8"):
            clip_box(box, PICTURE)


def test_the_chosen_box_is_blue_and_large_pictures_shrink():
    grey = np.full((400, 800, 3), 90, np.uint8)
    drawn = draw_boxes(grey, (100, 100, 80, 160), {"7": (400, 100, 80, 160)})
    blue = [int(QUERY[place : place + 2], 16) for place in (1, 3, 5)]
    assert (drawn == blue).all(axis=2)[150, 101]
    assert not (drawn == blue).all(axis=2)[:, 390:].any()
    assert (drawn[:, 390:] != 90).any()  # the other box is there, in black and white
    assert (drawn[300:, 300:380] == 90).all()
    assert draw_boxes(grey, (100, 100, 80, 160), most=200).shape == (100, 200, 3)
