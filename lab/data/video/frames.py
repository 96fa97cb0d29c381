"""Frames of a video in the order in which they are shown, decoded from the first on and counted from 1."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lab.errors import InputError

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
LISTS = ("concat", "dash", "hls", "image2", "imf")  # formats that name other files: crops would come from those


def list_videos(path: Path) -> list[Path]:
    """A video file, or all videos below a folder, sorted; hidden files and folders are passed over.

    Raises InputError if there is nothing at `path`, and if no file there has one of the SUFFIXES.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"there is nothing at {path}; expected a video or a folder of videos: give another path")
    found, seen = [], set()
    for folder, folders, names in os.walk(path, followlinks=True):
        status = os.stat(folder)
        again = (status.st_dev, status.st_ino) in seen  # a link may lead back
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".") and not again]
        names = [] if again else names
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    videos = sorted(file for file in found if file.suffix.lower() in SUFFIXES and file.is_file())
    if not videos:
        raise InputError(f"{path} holds no video ({', '.join(SUFFIXES)}); give a folder that does")
    return videos


class FrameReader:
    """Iterate once over the wanted frames of a video as (number, rgb): numbers from 1 ascending, rgb (H, W, 3) uint8.

    All frames up to the last wanted one are decoded, in one pass and without a seek, and the wanted ones converted, with the
    numbers and colours that OpenCV gives when it reads the same file frame by frame. A note in the file that players should
    turn the picture is ignored: boxes refer to frames as they are stored.

    The first damage ends the video: a packet that cannot be decoded or is marked as broken, a frame that had to be patched,
    a frame of another size. What follows may be numbered too low, as nothing tells how many frames the damage took, and
    would have people cut out at wrong places. What a container loses without a mark (AVI, WebM, the end of a cut file with
    B-frames) cannot be noticed here; OpenCV does not notice it either.

    `threads` are the decoder's, 0 leaves them to FFmpeg; several may notice a frame's damage too late, so that only one gives
    the same frames of a damaged file every time.

    width, height (pixels), fps and declared (the number of frames that the file claims, 0 unknown) are known at once; decoded
    (frames seen, whole ones) and damage (None, or words such as "the stream breaks off after frame 412") after the last frame.
    Raises InputError for a file that cannot be opened, or has no video in it.
    """

    def __init__(self, file: Path, wanted: np.ndarray, threads: int = 0):
        self.file, self.threads = Path(file), threads
        self.wanted = np.unique(np.asarray(wanted, dtype=np.int64))
        self.wanted = self.wanted[self.wanted > 0]
        self.decoded, self.damage = 0, None
        self._container = _open(self.file)
        self._stream = next(iter(self._container.streams.video), None)
        codec = self._stream.codec_context if self._stream else None
        if codec is None or not codec.width:
            what = "a video that cannot be decoded" if self._stream else "no video"
            self._container.close()
            raise InputError(f"{self.file} holds {what}; expected a video file: fetch it again, or leave it out")
        self._stream.thread_type, codec.thread_count = "AUTO", threads
        self.width, self.height = codec.width, codec.height
        self.declared, self.fps = self._stream.frames, float(self._stream.average_rate or 0)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        from av import FFmpegError
        from av.video.reformatter import VideoReformatter

        to_rgb = VideoReformatter()  # one for all frames: it keeps its tables
        wanted = map(int, self.wanted)
        following = next(wanted, None)
        with self._container:
            frames = self._whole_frames()
            while following is not None and (frame := next(frames, None)) is not None:
                if self.decoded < following:
                    continue
                try:
                    rgb = to_rgb.reformat(frame, format="rgb24").to_ndarray()
                except (FFmpegError, ValueError) as error:
                    self.damage = f"frame {self.decoded} has colours of an unknown kind ({error})"
                    break
                yield self.decoded, rgb
                following = next(wanted, None)
        if following is not None and not self.damage and self.decoded < self.declared:
            self.damage = f"the stream ends after frame {self.decoded} of {self.declared} that the file declares"

    def _whole_frames(self):
        """Frames up to the first damage, counted in `decoded`."""
        from av import FFmpegError

        packets = self._container.demux(self._stream)
        # A frame comes out some packets after its own, with more threads later. Those shown before a packet that is marked
        # as broken are whole, whenever they come.
        broken_from = math.inf
        while not self.damage:
            try:
                packet = next(packets, None)
                frames = packet.decode() if packet else []
            except FFmpegError as error:
                self.damage = f"the stream breaks off after frame {self.decoded} ({error.strerror})"
                return
            if packet is None:
                return
            if packet.is_corrupt and None not in (packet.pts, packet.dts):
                broken_from = min(broken_from, packet.pts, packet.dts + 1)
            for frame in frames:
                if frame.is_corrupt or (frame.pts is not None and frame.pts >= broken_from):
                    self.damage = f"the stream is damaged after frame {self.decoded}"
                elif (frame.width, frame.height) != (self.width, self.height):
                    self.damage = (
                        f"the picture changes from {self.width} x {self.height} to {frame.width} x {frame.height} pixels "
                        f"after frame {self.decoded}"
                    )
                if self.damage:
                    return
                self.decoded += 1
                yield frame


def _open(file: Path):
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"{file} is a video and the package av is not installed; install it with `pip install 'luperson-lab[video]'`"
        ) from error
    try:
        # A relative name such as http:v.mp4 would be an address. Titles in another encoding than UTF-8 are no error.
        container = av.open(str(file.absolute()), metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(
            f"{file} cannot be opened as a video ({said}); expected a video file: fetch it again, or leave it out"
        ) from error
    if container.format.name in LISTS:
        container.close()
        raise InputError(
            f"{file} is a list of other files ({container.format.name}); expected a video file: leave it out"
        )
    return container
