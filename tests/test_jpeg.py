"""Decoding: the fast way gives Pillow's picture or none, for every kind of JPEG and for broken ones."""

import io
import random
import warnings

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps
from shared_data import SHARED

from lab.data import jpeg
from lab.data.jpeg import decode, image_suffix, read_image
from lab.data.readers.scan import is_image

SIZES = [(1, 1), (17, 33), (8, 16), (64, 128), (7, 250)]  # width, height
MARKET = SHARED / "market1501-dev" / "bounding_box_train"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Large spots with some noise, so that neighbouring colours matter to the upsampling."""
    random = np.random.default_rng(seed)
    spots = Image.fromarray(random.integers(0, 256, (height // 5 + 2, width // 5 + 2, 3), dtype=np.uint8))
    noise = random.integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(spots.resize((width, height))) + noise, 0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(record: bytes) -> np.ndarray | None:
    """The oracle: what Pillow alone makes of the bytes, None if it cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(record))
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:
        return None


def is_pillow_s(record: bytes) -> bool:
    return np.array_equal(decode(record), by_pillow(record))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
def test_every_chroma_subsampling_and_odd_sizes(sampling, size, monkeypatch):
    record = simplejpeg.encode_jpeg(np.array(picture(*size)), quality=90, colorsubsampling=sampling)
    expected = by_pillow(record)
    monkeypatch.setattr(jpeg, "read_image", None)  # the slow way is not taken
    pixels = decode(record)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (size[1], size[0], 3))
    assert (pixels == expected).all()
    pixels[0, 0] = 0  # and may be written to


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"progressive": True, "subsampling": 0, "quality": 30},
        {"restart_marker_blocks": 1},
        {"optimize": True, "quality": 10},
        {"icc_profile": b"\x07" * 70_000},
        {"comment": b"a crop", "dpi": (72, 72)},
        {"keep_rgb": True},
    ],
    ids=str,
)
def test_every_way_to_write_a_plain_jpeg(options, size, monkeypatch):
    record = saved(picture(*size), **options)
    expected = by_pillow(record)
    monkeypatch.setattr(jpeg, "read_image", None)
    assert (decode(record) == expected).all()


@pytest.mark.parametrize("size", SIZES)
def test_grey_cmyk_trailing_bytes_and_other_formats(size):
    image = picture(*size)
    assert is_pillow_s(saved(image.convert("L")))
    assert is_pillow_s(saved(image.convert("CMYK")))
    assert is_pillow_s(saved(image) + b"what a camera leaves behind" * 9)
    for kind in ("PNG", "BMP", "WEBP"):
        assert is_pillow_s(saved(image, kind))
    for mode in ("P", "L", "RGBA", "1"):
        assert is_pillow_s(saved(image.convert(mode), "PNG"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_turned_as_its_note_says(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture(8, 16)
    exif_record = saved(image, exif=exif, quality=95)
    xmp_record = saved(image, xmp=b'<x:xmpmeta tiff:Orientation="%d"/>' % orientation, quality=95)
    plain = decode(saved(image, quality=95))
    turned = {  # what the EXIF standard says of row 0 and column 0
        1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.transpose(1, 0, 2),
        6: plain[::-1].transpose(1, 0, 2), 7: plain[::-1, ::-1].transpose(1, 0, 2), 8: plain[:, ::-1].transpose(1, 0, 2),
    }[orientation]  # fmt: skip
    for record in (exif_record, xmp_record):
        assert np.array_equal(decode(record), turned)


def test_crops_of_market1501_are_pillow_s():
    if not MARKET.is_dir():
        pytest.skip(f"no crops at {MARKET}")
    for file in sorted(MARKET.glob("*.jpg"))[:50]:
        assert is_pillow_s(file.read_bytes()), file


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
def test_a_jpeg_cut_short_is_refused_wherever_it_was_cut(options):
    record = saved(picture(16, 32), **options)
    for length in range(len(record)):
        assert by_pillow(record[:length]) is None
        with pytest.raises(OSError, match="."):
            decode(record[:length])


def test_a_huge_size_is_refused_before_anything_is_allocated(monkeypatch):
    record = bytearray(saved(picture(16, 32)))
    frame = record.index(b"\xff\xc0")
    record[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"  # 65,500 x 65,500 pixels
    assert simplejpeg.decode_jpeg_header(bytes(record))[:2] == (65_500, 65_500)
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", None)
    with pytest.raises(OSError, match="decompression bomb"):
        decode(bytes(record))


@pytest.mark.parametrize("record", [b"", b"\xff", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"no picture", bytes(1000)])
def test_what_is_no_picture_is_refused(record):
    with pytest.raises(OSError, match="."):
        decode(record)


def mutate(record: bytes, chance: random.Random) -> bytes:
    """Change, drop, repeat or add some bytes, half of the time in the header."""
    changed = bytearray(record)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(min(len(changed), chance.choice([700, 10**9])) or 1)
        kind = chance.random()
        if kind < 0.5:
            changed[at : at + 1] = bytes([chance.choice([chance.randrange(256), 0x00, 0xFF])])
        elif kind < 0.65:
            del changed[at:]
        elif kind < 0.8:
            del changed[at : at + chance.randint(1, 20)]
        else:
            changed[at:at] = chance.randbytes(chance.randint(1, 20))
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
def test_five_hundred_broken_records_give_pillow_s_picture_or_an_oserror():
    chance, exif = random.Random(7), Image.Exif()
    exif[0x0112] = 6
    image, grey = picture(20, 45), picture(20, 45).convert("L")
    records = [saved(image, quality=quality, subsampling=quality % 3) for quality in (30, 61, 95)]
    records += [saved(image, progressive=True), saved(grey), saved(image, restart_marker_blocks=2)]
    records += [saved(image, exif=exif), saved(image.convert("CMYK")), saved(image, "PNG")]
    outcome = {"picture": 0, "refused": 0}
    for _ in range(500):
        record = mutate(chance.choice(records), chance)
        expected = by_pillow(record)
        if expected is None:
            outcome["refused"] += 1
            with pytest.raises(OSError, match="."):
                decode(record)
        else:
            outcome["picture"] += 1
            assert np.array_equal(decode(record), expected)
    assert min(outcome.values()) > 50, outcome


def test_whatever_pillow_raises_is_an_oserror(monkeypatch):
    def stumble(image):
        raise TypeError("bad operand type for abs(): 'str'")  # seen with an EXIF note of changed bytes

    monkeypatch.setattr(jpeg.ImageOps, "exif_transpose", stumble)
    with pytest.raises(OSError, match="bad operand"):
        read_image(saved(picture(8, 8), "PNG"))


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("JPEG", ".jpg"), ("PNG", ".png"), ("BMP", ".bmp"), ("WEBP", ".webp")],
)
def test_a_file_is_called_by_its_own_format(kind, suffix):
    assert image_suffix(saved(picture(8, 8), kind)) == suffix
    assert is_image(f"a{suffix}")


def test_what_has_no_format_or_a_rare_one_is_called_jpeg_and_read_all_the_same():
    assert image_suffix(b"\x00\x01") == image_suffix(b"") == ".jpg"
    gif = saved(picture(8, 8), "GIF")
    assert image_suffix(gif) == ".jpg"
    assert is_pillow_s(gif)
