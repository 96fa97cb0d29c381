"""Frames: the numbers are those of OpenCV and of what is drawn into each frame; damage ends a video, never the program."""

import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from shared_data import SHARED
from videos import cut_off, damage, number_of, numbered, write_sound, write_video

from lab.data.video.frames import FrameReader, list_videos
from lab.errors import InputError

VTEST = SHARED / "pets09-s2l1" / "vtest.avi"
ALL = np.arange(1, 1000)
KINDS = [
    ("mpeg4", ".avi", 0),
    ("mpeg4", ".mp4", 2),
    ("libx264", ".mp4", 3),
    ("libx264", ".mkv", 2),
    ("libx264", ".ts", 2),
    ("libx265", ".mp4", 3),
    ("libvpx-vp9", ".webm", 0),
    ("mpeg2video", ".mpg", 2),
    ("wmv2", ".wmv", 0),
]


def of_kind(folder: Path, codec: str, suffix: str, bframes: int, count: int = 40) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")
    return write_video(folder / f"v{suffix}", count, codec=codec, bframes=bframes)


def by_opencv(file: Path) -> list[np.ndarray]:
    """All frames as OpenCV reads them one after the other, RGB."""
    capture, frames = cv2.VideoCapture(str(file)), []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames


def numbers(reader: FrameReader) -> list[tuple[int, int]]:
    """For each frame that came out: its number, and the one that it shows."""
    return [(number, number_of(rgb)) for number, rgb in reader]


@pytest.mark.parametrize(("codec", "suffix", "bframes"), KINDS)
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_frame_has_the_number_that_is_drawn_into_it(tmp_path, codec, suffix, bframes, threads):
    file = of_kind(tmp_path, codec, suffix, bframes)
    reader = FrameReader(file, ALL, threads)
    assert (reader.width, reader.height, reader.decoded) == (256, 128, 0)
    assert reader.declared in (0, 40)
    assert numbers(reader) == [(number, number) for number in range(1, 41)]
    assert (reader.decoded, reader.damage) == (40, None)


@pytest.mark.parametrize(("codec", "suffix", "bframes"), KINDS)
def test_opencv_reads_the_same_pictures(tmp_path, codec, suffix, bframes):
    file = of_kind(tmp_path, codec, suffix, bframes, 15)
    expected = by_opencv(file)
    frames = [rgb for _, rgb in FrameReader(file, ALL)]
    assert len(frames) == len(expected) == 15
    for rgb, picture in zip(frames, expected, strict=True):
        assert rgb.dtype == np.uint8
        assert rgb.shape == picture.shape
        assert np.abs(rgb.astype(int) - picture).max() <= 2


@pytest.mark.skipif(not VTEST.is_file(), reason="no PETS video in shared/data")
def test_opencv_reads_the_same_pictures_of_a_real_video():
    capture, reader = cv2.VideoCapture(str(VTEST)), FrameReader(VTEST, np.array([1, 2, 3, 60, 61, 150]))
    assert (reader.width, reader.height, reader.declared, reader.fps) == (768, 576, 795, 10)
    at = 0
    for number, rgb in reader:
        while at < number:
            picture, at = capture.read()[1], at + 1
        assert np.abs(rgb.astype(int) - picture[..., ::-1]).max() <= 2
    assert (at, reader.decoded) == (150, 150)


def test_only_wanted_frames_come_and_decoding_ends_with_the_last(tmp_path):
    file = write_video(tmp_path / "v.mp4", 60, codec="libx264", bframes=2)
    reader = FrameReader(file, np.array([7, 3, 3, 29, -1, 0]))
    assert numbers(reader) == [(3, 3), (7, 7), (29, 29)]
    assert reader.decoded == 29
    reader = FrameReader(file, np.array([], dtype=np.int64))
    assert numbers(reader) == []
    assert reader.decoded == 0


def test_frames_stay_as_they_are_when_the_next_one_comes(tmp_path):
    frames = [rgb for _, rgb in FrameReader(write_video(tmp_path / "v.mp4", 12), ALL)]
    assert [number_of(rgb) for rgb in frames] == list(range(1, 13))


def test_boxes_of_frames_that_do_not_exist_are_seen_by_the_count(tmp_path):
    reader = FrameReader(write_video(tmp_path / "v.mp4", 12), np.array([5, 13, 99]))
    assert numbers(reader) == [(5, 5)]
    assert (reader.decoded, reader.declared, reader.damage) == (12, 12, None)


def test_a_rate_that_varies_does_not_matter(tmp_path):
    times = np.cumsum([1, 3, 1, 50, 1, 1, 200, 7, 1, 1] * 3)
    for suffix, codec in ((".mp4", "libx264"), (".mkv", "mpeg4")):
        file = write_video(tmp_path / f"v{suffix}", 30, codec=codec, bframes=2, times=times.tolist())
        assert numbers(FrameReader(file, ALL)) == [(number, number) for number in range(1, 31)]


def test_a_note_to_turn_the_picture_is_ignored(tmp_path):
    file = write_video(tmp_path / "v.mp4", 5, codec="libx264")
    content = file.read_bytes()
    straight = np.array([1, 0, 0, 0, 1, 0, 0, 0, 1 << 14], dtype=">i4") * (1 << 16)
    turned = np.array([0, 1, 0, -1, 0, 0, 0, 0, 1 << 14], dtype=">i4") * (1 << 16)
    at = content.index(straight.astype(">i4").tobytes(), content.index(b"tkhd"))  # the matrix of the track
    file.write_bytes(content[:at] + turned.astype(">i4").tobytes() + content[at + 36 :])
    reader = FrameReader(file, ALL)
    frames = dict(reader)
    assert (reader.width, reader.height) == (256, 128)
    assert {number: number_of(rgb) for number, rgb in frames.items()} == {number: number for number in range(1, 6)}


def without_first_packets(file: Path, count: int) -> Path:
    """A video of which the first packets are missing: it starts in the middle of a group of pictures."""
    late = file.with_name("late" + file.suffix)
    with av.open(str(file)) as source, av.open(str(late), "w") as target:
        stream = source.streams.video[0]
        if hasattr(target, "add_stream_from_template"):
            copy = target.add_stream_from_template(stream)
        else:
            copy = target.add_stream(template=stream)
        for number, packet in enumerate(source.demux(stream)):
            if number >= count and packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return late


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mkv"), ("libx264", ".ts"), ("mpeg4", ".avi")])
def test_a_video_that_starts_without_a_key_frame_counts_as_opencv_does(tmp_path, codec, suffix):
    late = without_first_packets(of_kind(tmp_path, codec, suffix, 2 * (codec == "libx264")), 4)
    expected = [number_of(picture) for picture in by_opencv(late)]
    assert 25 < len(expected) < 40
    assert [shown for _, shown in numbers(FrameReader(late, ALL))] == expected


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libx264", ".avi"), ("mpeg4", ".mp4")])
def test_numbers_are_right_up_to_the_damage_and_end_there(tmp_path, codec, suffix):
    found = []
    for seed in range(12):
        file = damage(of_kind(tmp_path, codec, suffix, 0), 0.1 + 0.07 * seed, seed=seed)
        try:
            reader = FrameReader(file, ALL, 1)
        except InputError:
            continue
        frames = dict(numbers(reader))
        assert list(frames) == list(range(1, reader.decoded + 1))
        assert reader.decoded == 40 or reader.damage.endswith(("declares", ")")) or str(reader.decoded) in reader.damage
        found.append(reader.damage)
        # What a concealed frame shows is a guess, so not every square of the last ones has to be right.
        assert sum(shown != number for number, shown in frames.items()) <= 2
    assert sum(said is not None for said in found) >= 6


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", ".avi"), ("libx264", ".avi"), ("libvpx-vp9", ".webm")])
@pytest.mark.parametrize("share", [0.6, 0.8])
def test_a_truncated_file_gives_the_frames_before_the_cut(tmp_path, codec, suffix, share):
    reader = FrameReader(cut_off(of_kind(tmp_path, codec, suffix, 0), share), ALL, 1)
    seen = numbers(reader)
    assert 5 < len(seen) < 40
    assert seen == [(number, number) for number in range(1, len(seen) + 1)]
    assert reader.decoded == len(seen)
    if suffix == ".avi":  # WebM says neither how many frames there should be nor that the last one is cut
        assert f"after frame {len(seen)}" in reader.damage


def test_a_file_that_ends_early_says_so_only_where_frames_were_missed(tmp_path):
    file = write_video(tmp_path / "v.avi", 40)
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(b"00dc", 0, whole.index(b"idx1") * 3 // 4)])  # cut between two frames
    reader = FrameReader(file, ALL)
    count = len(numbers(reader))
    assert 10 < count < 40
    assert reader.damage == f"the stream ends after frame {count} of 40 that the file declares"
    reader = FrameReader(file, np.array([1, count]))
    assert numbers(reader) == [(1, 1), (count, count)]
    assert reader.damage is None


def test_a_picture_that_changes_its_size_ends_the_video(tmp_path):
    first = write_video(tmp_path / "a.h264", 20, codec="libx264")  # frames without a container follow one another
    second = write_video(tmp_path / "b.h264", numbered(20, (160, 320)), codec="libx264")
    file = tmp_path / "both.h264"
    file.write_bytes(first.read_bytes() + second.read_bytes())
    reader = FrameReader(file, ALL, 1)
    assert numbers(reader) == [(number, number) for number in range(1, 21)]
    assert reader.damage == "the picture changes from 256 x 128 to 320 x 160 pixels after frame 20"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"frame,id,x,y,w,h\n1,-1,1,2,3,4\n" * 50,
        b"\0" * 5000,
        np.random.default_rng(0).bytes(5000),
        b"RIFF\0\0\0\0AVI ",
    ],
)
def test_a_file_that_is_no_video_is_one_sentence(tmp_path, content):
    file = tmp_path / "v.mp4"
    file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"v\.mp4 (cannot be opened as a video \(.*\)|holds no video); expected a video"
    ):
        FrameReader(file, ALL)


def test_a_missing_file_a_folder_and_a_cut_mp4_are_one_sentence(tmp_path):
    cut = cut_off(write_video(tmp_path / "cut.mp4", 30), 0.5)
    for file in (tmp_path / "none.mp4", tmp_path, cut):
        with pytest.raises(InputError, match="cannot be opened as a video"):
            FrameReader(file, ALL)


def test_sound_alone_is_no_video(tmp_path):
    for name in ("sound.wav", "sound.avi", "sound.mkv"):
        with pytest.raises(InputError, match=r"sound\.\w+ holds no video; expected a video file"):
            FrameReader(write_sound(tmp_path / name), ALL)


def test_titles_in_another_alphabet_and_names_like_protocols_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_video(Path("http:v.mp4").absolute(), 5)
    content = file.read_bytes()
    assert content.count(b"Lavf") == 1
    file.write_bytes(content.replace(b"Lavf", b"\xff\xfe\xfd\xfc"))  # the encoder's name, no UTF-8 any more
    assert len(numbers(FrameReader(Path("http:v.mp4"), ALL))) == 5


def test_mutated_videos_are_one_sentence_or_end_early(tmp_path):
    generator = np.random.default_rng(3)
    whole = [write_video(tmp_path / f"v{suffix}", 20, codec=codec, bframes=2 * (codec == "libx264")).read_bytes()
             for suffix, codec in ((".mp4", "libx264"), (".avi", "mpeg4"), (".mkv", "libx264"))]  # fmt: skip
    start, outcomes = time.perf_counter(), set()
    for number in range(90):
        content = bytearray(whole[number % 3])
        for _ in range(generator.integers(1, 30)):
            # Half of them where the container says how many frames of which size there are.
            at = generator.integers(len(content)) if generator.random() < 0.5 else -1 - generator.integers(1500)
            content[at if number % 3 == 0 else abs(at)] = generator.integers(256)
        file = tmp_path / ("x" + (".mp4", ".avi", ".mkv")[number % 3])
        file.write_bytes(content)
        try:
            reader = FrameReader(file, ALL)
            count = sum(1 for _ in reader)
            assert count == reader.decoded
            outcomes.add("damage" if reader.damage else "whole")
        except InputError:
            outcomes.add("refused")
    assert outcomes == {"damage", "whole", "refused"}
    assert time.perf_counter() - start < 60


def test_where_av_is_missing_the_sentence_says_how_to_get_it(tmp_path):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from lab.data.video.frames import FrameReader\n"
        "FrameReader(sys.argv[1], [1])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "v.mp4"], capture_output=True, text=True)
    assert "InputError" in done.stderr
    assert "pip install 'luperson-lab[video]'" in done.stderr


def test_videos_below_a_folder_are_listed_in_order(tmp_path):
    names = [
        "it/rome/b.mp4",
        "fr/paris/a.MKV",
        "z.webm",
        "fr/notes.txt",
        ".hidden.mp4",
        ".cache/c.mp4",
        "fr/a.mp4.part",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert list_videos(tmp_path) == [tmp_path / name for name in ("fr/paris/a.MKV", "it/rome/b.mp4", "z.webm")]
    assert list_videos(tmp_path / "z.webm") == [tmp_path / "z.webm"]
    with pytest.raises(InputError, match=r"holds no video \(\.avi, "):
        list_videos(tmp_path / "folder.mp4")
    with pytest.raises(InputError, match="there is nothing at"):
        list_videos(tmp_path / "nowhere")
