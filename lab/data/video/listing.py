"""What a build is made from: the videos with their names, and which detection file belongs to which."""

import hashlib
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from lab.data.keys import Place
from lab.data.video.detections import PICKLES, TEXTS, match_detections
from lab.data.video.frames import list_videos
from lab.data.video.settings import BuildConfig
from lab.errors import InputError


@dataclass(frozen=True)
class Listing:
    """The videos below `root` with the place of each, the detection files of those that have one, and what does not fit:
    `others`, names by what is wrong with them."""

    root: Path
    places: dict[Path, Place]
    detections: dict[Path, Path]
    others: dict[str, list[str]]

    def name(self, video: Path) -> str:
        """The path of a video below the root."""
        return video.relative_to(self.root).as_posix()

    def plan(self, config: BuildConfig) -> dict:
        """What a store follows from, as plain JSON: the names of the videos, which number them, and the settings."""
        names = "\n".join("\t".join(place) for place in sorted(self.places.values()))
        settings = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "device"}
        settings |= {field.name: float(settings[field.name]) for field in fields(config) if field.type is float}
        for file in ("detector", "detector_weights", "keypoints"):  # wherever they lie
            settings[file] = settings[file] and Path(settings[file]).name
        digest = hashlib.sha256(names.encode()).hexdigest()
        return {"kind": "videos", "videos": len(self.places), "names": digest, "settings": settings}

    def inputs(self) -> str:
        """A checksum of the names and sizes of all videos and detection files: a store is made from these."""
        found = hashlib.sha256()
        for video in sorted(self.places):
            for file in (video, self.detections.get(video)):
                size = file.stat().st_size if file is not None and file.exists() else None
                found.update(f"{self.name(video)}\t{size}\n".encode())
        return found.hexdigest()


def list_inputs(videos: Path, detections: Path | None) -> Listing:
    """Find the videos, a file or all in a folder, and their detection files, a file or a folder of them.

    Raises InputError if there is no video, or if none has detections although some were given.
    """
    if videos.suffix.lower() in PICKLES + TEXTS:
        raise InputError(
            f"{videos} is no video by its name; expected a video or a folder: are --videos and --detections swapped?"
        )
    root, others = videos if videos.is_dir() else videos.parent, {}
    files = []
    for file in list_videos(videos):
        try:
            str(file).encode()
        except UnicodeEncodeError:
            name = str(file.relative_to(root)).encode("utf-8", "backslashreplace").decode()
            others.setdefault("video whose name is no valid text (UTF-8)", []).append(name)
        else:
            files.append(file)
    matched: dict[Path, Path] = {}
    if detections is not None:
        matched, left = match_detections(files, root, detections)
        if not matched:
            raise InputError(
                f"none of the {len(files)} video(s) at {videos} has detections at {detections}; expected a file that is called "
                f"like its video: {files[0].stem}.txt or .pkl for {files[0].name}, and there is {left[0].name}"
            )
        if left:
            names = [file.relative_to(detections).as_posix() if detections.is_dir() else file.name for file in left]
            others["detection file without a video"] = sorted(names)
    return Listing(root, name_places(files, root), matched, others)


def name_places(files: list[Path], root: Path) -> dict[Path, Place]:
    """Country, city and name of each video by its folders. Names are without suffix, unless two in a folder would be alike."""
    stems = Counter((file.parent, file.stem) for file in files)
    alike = {folder for (folder, _), count in stems.items() if count > 1}
    found = {}
    for file in files:
        country, *cities = file.relative_to(root).parts[:-1] or ("",)
        found[file] = (country, "/".join(cities), file.name if file.parent in alike else file.stem)
    return found
