"""From a list of videos to a manifest and a script for yt-dlp; the lab itself downloads no video.

LUPerson is released as such a list (vname.txt, a line `country+city+id` per video, the id is YouTube's) and detections;
the published scripts keep a video as country/city/country+city+id.mp4, at most 720 lines high and 500 MB large.
"""

import csv
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from lab.errors import InputError
from lab.files import replacing

ID = re.compile(r"[A-Za-z0-9_-]{11}")
URL = re.compile(
    r"https?://(?:(?:www\.|m\.)?youtube\.com/(?:watch\?(?:.*&)?v=|shorts/|embed/|live/)|youtu\.be/)([A-Za-z0-9_-]{11})(?:[?&#/].*)?"
)
SIZE = re.compile(r"[0-9]+(\.[0-9]+)?([kKmMgGtT]i?[bB]?)?")
LONGEST_NAME = 100  # bytes of a country or city: file systems allow 255 for country+city+id.mp4
SCRIPT = """\
#!/usr/bin/env bash
# Downloads {missing} videos with yt-dlp into the folder of this script. They may be used for research only, commercial use
# is forbidden by LUPerson's terms; the videos belong to their authors: check the terms of the platform before you start.
# Stop it at any time and start it again: what is there is kept. Videos that are gone are listed in failed.txt.
cd "$(dirname "$0")" || exit 1
command -v yt-dlp > /dev/null || {{ echo "yt-dlp is not installed: pip install yt-dlp" >&2; exit 1; }}
trap 'exit 130' INT TERM
: > failed.txt

fetch() {{ # file, address; % is doubled because yt-dlp takes the file's name for a template
  [ -e "$1" ] && return
  yt-dlp --no-overwrites --continue --retries 10 --sleep-requests 1 --sleep-interval 2 --no-playlist \\
    --format {format} --output "./${{1//[%]/%%}}" "$2"
  [ -e "$1" ] || {{ name="${{1##*/}}"; printf '%s\\n' "${{name%.mp4}}" >> failed.txt; }}
}}

{commands}
echo "$(wc -l < failed.txt) of {missing} videos could not be downloaded; failed.txt lists them"
"""


@dataclass(frozen=True)
class Video:
    """A line of the list; `country` and `city` are empty where it says only which video."""

    country: str
    city: str
    id: str

    @property
    def url(self) -> str:
        return f"https://www.youtube.com/watch?v={self.id}"  # an id that begins with - would be taken for an option

    @property
    def file(self) -> str:
        """Where the video lies below the output folder: the place that the published scripts give it."""
        if not self.country:
            return f"{self.id}.mp4"
        return f"{self.country}/{self.city}/{self.country}+{self.city}+{self.id}.mp4"


@dataclass(frozen=True)
class VideoList:
    """The videos of a list, each once; `malformed` are the numbers (from 1) of the lines that name none."""

    videos: tuple[Video, ...]
    duplicates: int
    malformed: tuple[int, ...]


@dataclass(frozen=True)
class DownloadPlan:
    """What was written: the manifest of all videos, and the script that fetches those that are not `present`."""

    list: VideoList
    present: int
    manifest: Path
    script: Path


def read_video_list(file: str | Path) -> VideoList:
    """Read lines `country+city+id`, ids or YouTube addresses; empty lines and those that begin with # are passed over.

    Raises InputError for a file that cannot be read or names no video.
    """
    try:
        text = Path(file).read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"the list {file} cannot be read ({error.strerror}); give a text file of videos") from error
    videos, duplicates, malformed = {}, 0, []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        video = _parse(line)
        if video is None:
            malformed.append(number)
        elif video.id in videos:
            duplicates += 1
        else:
            videos[video.id] = video
    if not videos:
        raise InputError(
            f"the list {file} names no video ({len(malformed)} lines were not understood); expected a line such as "
            "country+city+id, an id of 11 characters or a YouTube address for each: give LUPerson's vname.txt or your own"
        )
    return VideoList(tuple(videos.values()), duplicates, tuple(malformed))


def plan_download(file: str | Path, out: str | Path, height: int = 720, max_size: str = "500M") -> DownloadPlan:
    """Write OUT/manifest.csv (country, city, id, url, file, present) and OUT/download.sh for what is not there yet.

    `height` is the most lines that a video's frames may have, `max_size` its largest size: LUPerson's boxes belong to
    videos that were chosen with these defaults. Raises InputError.
    """
    if height < 1 or not SIZE.fullmatch(max_size):
        raise InputError(f"height is {height} and max_size '{max_size}'; expected values such as 720 and 500M")
    out, listed = Path(out), read_video_list(file)
    manifest, script = out / "manifest.csv", out / "download.sh"
    try:
        out.mkdir(parents=True, exist_ok=True)
        present = [(out / video.file).is_file() for video in listed.videos]
        with replacing(manifest) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(["country", "city", "id", "url", "file", "present"])
            for video, there in zip(listed.videos, present, strict=True):
                rows.writerow([video.country, video.city, video.id, video.url, video.file, there])
        missing = [video for video, there in zip(listed.videos, present, strict=True) if not there]
        with replacing(script) as temporary:
            temporary.write_text(_script(missing, f"[height<=?{height}][filesize<=?{max_size}]"), encoding="utf-8")
        script.chmod(0o755)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); give another folder with --out") from error
    return DownloadPlan(listed, sum(present), manifest, script)


def describe_plan(plan: DownloadPlan) -> str:
    """What the list holds and what to do next, in sentences."""
    videos, malformed = len(plan.list.videos), plan.list.malformed
    sentences = [f"{videos:,} videos, {plan.present:,} of them are there: {plan.manifest} lists them."]
    if plan.list.duplicates:
        sentences.append(f"{plan.list.duplicates:,} lines name a video that an earlier line names.")
    if malformed:
        first = ", ".join(map(str, malformed[:5])) + (", …" if len(malformed) > 5 else "")
        sentences.append(
            f"{len(malformed):,} lines name no video and were passed over (line {first}); expected country+city+id."
        )
    if plan.present < videos:
        sentences.append(f"Download the others with: bash {shlex.quote(str(plan.script))}")
    return "\n".join(sentences)


def _script(missing: list[Video], limits: str) -> str:
    commands = "".join(f"fetch {shlex.quote(video.file)} {shlex.quote(video.url)}\n" for video in missing)
    form = shlex.quote(f"bestvideo[ext=mp4]{limits}/best{limits}")
    return SCRIPT.format(missing=len(missing), format=form, commands=commands)


def _parse(line: str) -> Video | None:
    if match := ID.fullmatch(line) or URL.fullmatch(line):
        return Video("", "", match.group(match.lastindex or 0))
    country, city, id = fields if len(fields := line.split("+")) == 3 else ("", "", "")
    return Video(country, city, id) if ID.fullmatch(id) and _is_name(country) and _is_name(city) else None


def _is_name(text: str) -> bool:
    """Whether a country or city can be a folder's name: nothing may leave the output folder, and yt-dlp expands $NAME."""
    strange = set("/\\$\ufffd") & set(text)  # U+FFFD stands for bytes that are no UTF-8
    fits = 0 < len(text.encode()) <= LONGEST_NAME and text == text.strip()
    return fits and text.isprintable() and not strange and ".." not in text and text != "."
