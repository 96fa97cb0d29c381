"""A run is a folder that one stage writes and everything else reads; its layout is the contract between the stages.

    runs/<name>/
      config.json       stage, settings, seed, versions, git commit, what it was initialised from
      log.csv           one row per logged step
      checkpoint.pt     model, optimizer, step, epoch, RNG states, config
      checkpoint-<step>.pt    the ones before it that were kept; a damaged one is put aside as *.damaged.pt
      tensorboard/, profile/  if they were asked for
      .lock             held by the process that writes the run; the empty file stays when nobody does
      eval/<dataset>[-aqe][-rerank]/   result.json, queries.csv, ranks.npz, gallery.csv, and if they were asked for
                        cameras.npz, cameras.csv (each gallery camera alone) and verification.npz (all pairs)
      features/<dataset>-{query,gallery,multi}.npz, and .partial.npy while they are being made
      maps/<dataset>-<part>-<method>-<size>-<seed>.npz    points of the explorer's embedding maps

This module reads and writes results with numpy and pandas alone, so that the explorer can show a rank list without
loading torch. Legend: Q queries, G gallery crops, D feature size.
"""

import dataclasses
import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from lab.errors import InputError
from lab.features_on_disk import RowsOnDisk, read_features, read_labels, write_features
from lab.files import replacing, write_json
from lab.log_file import append_row, read_log, trim_rows

RANKS = 50  # length of the CMC curve and of a stored rank list
LOCK = ".lock"
LEFTOVER = re.compile(r"\.(checkpoint\.pt|log\.csv|config\.json)\..+")  # temporary files that a killed process leaves
OLDER = re.compile(r"checkpoint-(\d+)\.pt")
ORIGIN = ("settings", "init", "data")  # what a run follows from, besides its stage
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@dataclass(frozen=True, eq=False)
class Features:
    """What a model says about a list of crops: `values` (N, D) float32 beside pid, camid and path (N,).

    Large `values` that were loaded from a file stay there, of the type that was stored: then they are a `RowsOnDisk`,
    which is indexed like an array and reads the rows that are asked for (`np.asarray` loads all of them).
    """

    values: np.ndarray | RowsOnDisk
    pid: np.ndarray
    camid: np.ndarray
    path: np.ndarray

    def save(self, file: Path) -> None:
        """Write an npz, whose rows can be read one by one later; `values` that are on disk are copied slice by slice."""
        with replacing(Path(file)) as temporary, open(temporary, "wb") as stream:
            path = np.asarray(self.path, dtype=np.str_)
            write_features(stream, self.values, pid=self.pid, camid=self.camid, path=path)

    @classmethod
    def load(cls, file: Path, on_disk: bool | None = None) -> "Features":
        """Read a feature file; `path` may be missing in files that were made elsewhere.

        The file is an npz with values (N, D), pid, camid and path (N,), or NAME.npy with the values alone and, beside
        it, NAME-labels.npz with the rest. `on_disk` says whether the values stay on disk; None leaves those above 1 GB
        there, if they are stored row by row and not compressed (numpy.savez does so). Values that are loaded become
        float32.
        """
        file = Path(file)
        if not file.is_file():
            raise InputError(f"no feature file at {file}; expected an npz with values, pid and camid")
        data = read_features(file, on_disk)
        missing = [name for name in ("values", "pid", "camid") if name not in data]
        if missing:
            raise InputError(f"{file} has no {', '.join(missing)}; expected arrays values (N, D), pid (N,), camid (N,)")
        values = data["values"]
        count = values.shape[0] if values.ndim else 0
        data.setdefault("path", np.full(count, "", dtype=np.str_))
        wrong = [f"{name} {data[name].shape}" for name in ("pid", "camid", "path") if data[name].shape != (count,)]
        if values.ndim != 2 or wrong:
            raise InputError(
                f"{file} holds values {values.shape} and {', '.join(wrong) or 'matching labels'}; "
                "expected values (N, D) and one pid, camid and path for each of the N rows"
            )
        if values.dtype.kind not in "fiu":
            raise InputError(f"{file} holds values of type {values.dtype}; expected real numbers, such as float32")
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused with its rows
            values = np.ascontiguousarray(values, dtype=np.float32) if isinstance(values, np.ndarray) else values
        pid, camid = (_whole_numbers(file, name, data[name]) for name in ("pid", "camid"))
        return cls(values, pid, camid, data["path"].astype(np.str_))


def _whole_numbers(file: Path, name: str, found: np.ndarray) -> np.ndarray:
    """Labels as int64, if that is what they are."""
    if found.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):
            numbers = found.astype(np.int64)
        wrong = np.flatnonzero(numbers != found)
        if not len(wrong):
            return numbers
        example = f"{found[wrong[0]]} in row {wrong[0]}"
    else:
        example = f"of type {found.dtype}"
    raise InputError(
        f"{name} of {file} is {example}; expected whole numbers up to 2^63: number them, for instance with "
        "numpy.unique(…, return_inverse=True)"
    )


@dataclass(frozen=True, eq=False)
class EvalResult:
    """The outcome of one evaluation: the means, every query's values, and every query's first 50 valid gallery entries.

    `cmc` (50,), `mAP`, `mINP` are fractions over the queries that have a valid match, unless `settings` say
    otherwise: "denominator" "all" is over all queries, and with "gallery_shot" "single" `cmc` (it alone) is that of one
    random crop per person, and `cmc_std` (50,) its standard deviation over the draws.
    Per query: `path`, `pid`, `camid`, `ap`, `inp` (NaN without a valid match), `first_match`
    (1-based rank of the first true match in the whole gallery, 0 = none).
    `index` (Q, 50) int32 into the gallery, `distance` (Q, 50) float32, `match` (Q, 50) bool hold the rank lists
    without the entries that the protocol removes; -1, NaN and False pad short ones. `gallery_*` (G,) may be None for results
    made elsewhere.
    """

    mAP: float
    mINP: float
    cmc: np.ndarray
    num_query: int
    num_valid_query: int
    num_gallery: int
    path: np.ndarray
    pid: np.ndarray
    camid: np.ndarray
    ap: np.ndarray
    inp: np.ndarray
    first_match: np.ndarray
    index: np.ndarray
    distance: np.ndarray
    match: np.ndarray
    gallery_path: np.ndarray | None = None
    gallery_pid: np.ndarray | None = None
    gallery_camid: np.ndarray | None = None
    cmc_std: np.ndarray | None = None
    settings: dict = field(default_factory=dict)

    def save(self, folder: Path, more: Callable[[Path], None] | None = None) -> None:
        """Write result.json, queries.csv, ranks.npz and gallery.csv; the folder appears whole or not at all.

        `more` writes other files into the folder before it appears.
        """
        folder = Path(folder)
        temporary = _make_sibling(folder)
        summary = {
            "mAP": self.mAP,
            "mINP": self.mINP,
            "cmc": [float(value) for value in self.cmc],
            "num_query": self.num_query,
            "num_valid_query": self.num_valid_query,
            "num_gallery": self.num_gallery,
            "settings": self.settings,
        }
        if self.cmc_std is not None:
            summary["cmc_std"] = [float(value) for value in self.cmc_std]
        (temporary / "result.json").write_text(json.dumps(summary, indent=1) + "\n")
        columns = {name: getattr(self, name) for name in ("path", "pid", "camid", "ap", "inp", "first_match")}
        pd.DataFrame(columns).to_csv(temporary / "queries.csv", index=False)
        np.savez(temporary / "ranks.npz", index=self.index, distance=self.distance, match=self.match)
        if self.gallery_path is not None:
            gallery = {"path": self.gallery_path, "pid": self.gallery_pid, "camid": self.gallery_camid}
            pd.DataFrame(gallery).to_csv(temporary / "gallery.csv", index=False)
        if more is not None:
            more(temporary)
        if folder.exists():
            if not (folder / "result.json").is_file():
                shutil.rmtree(temporary)
                raise InputError(f"{folder} is there and holds no evaluation; give the evaluation another name")
            shutil.rmtree(folder)
        temporary.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> "EvalResult":
        """Read an eval folder, also one that another program dropped there (gallery.csv may be missing)."""
        folder = Path(folder)
        try:
            summary = json.loads((folder / "result.json").read_text())
            queries = pd.read_csv(folder / "queries.csv", dtype={"path": str}, keep_default_na=True)
            with np.load(folder / "ranks.npz", allow_pickle=False) as ranks:
                lists = {name: ranks[name] for name in ("index", "distance", "match")}
            gallery = _read_gallery(folder / "gallery.csv")
            return cls(
                **{name: summary[name] for name in ("mAP", "mINP", "num_query", "num_valid_query", "num_gallery")},
                cmc=np.asarray(summary["cmc"], dtype=np.float64),
                cmc_std=np.asarray(summary["cmc_std"], dtype=np.float64) if "cmc_std" in summary else None,
                settings=summary.get("settings", {}),
                path=queries["path"].fillna("").to_numpy(dtype=np.str_),
                **{name: queries[name].to_numpy() for name in ("pid", "camid", "ap", "inp", "first_match")},
                **lists,
                **gallery,
            )
        except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:
            raise InputError(
                f"{folder} is not a complete evaluation ({type(error).__name__}: {error}); expected result.json, "
                "queries.csv and ranks.npz; evaluate the run again"
            ) from error


class Run:
    """One run folder. Opening it reads config.json if there is one; a folder with only eval/ is a valid run."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.name = self.folder.name
        config = self.folder / "config.json"
        try:
            self.config = json.loads(config.read_text()) if config.is_file() else {}
        except (ValueError, OSError) as error:
            raise InputError(
                f"{config} cannot be read ({error}); restore it or start the run in a new folder"
            ) from error

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open an existing run; a folder that is none is an InputError."""
        run = cls(folder)
        if not run.folder.is_dir():
            raise InputError(
                f"no run at {folder}: the folder is not there; give the --out folder of an earlier command"
            )
        if not run.config and not run.evals():
            raise InputError(f"{folder} is not a run: it has neither config.json nor eval/; give a run folder")
        return run

    @classmethod
    def create(cls, folder: str | Path, stage: str, settings, **facts) -> "Run":
        """Start the run folder of a stage, or open it again if it holds the same stage with the same settings.

        `settings` is the stage's dataclass, `facts` more entries for config.json (what it was initialised from, its
        data). Other settings are an InputError, unless the earlier attempt left no checkpoint and so nothing to lose, or
        they are named in the dataclass's HOW: those say how the work is done and not what comes out.
        Anything else found in the folder is left as it is and reported as an InputError too, and so is another process
        that writes there. Of the processes of one job the first creates the run and the others open what it made: call it
        inside `lab.distributed.first_process_first()`.
        """
        if not _is_first():
            return cls.open(folder)
        config = describe(stage, settings, **facts)
        run = cls._open_same(folder, config, settings)
        if run.has_work():
            return run
        with run.locked():
            run = cls._open_same(folder, config, settings)  # until now another process may have begun it
            if run.has_work():
                return run
            try:
                write_json(run.folder / "config.json", config)
            except OSError as error:
                raise _cannot_write(run.folder, error) from error
            return cls(folder)  # read before the lock is given back: then another process may begin it anew

    @classmethod
    def _open_same(cls, folder: str | Path, config: dict, settings) -> "Run":
        """The run as it is, which may be not there yet; InputError if the folder holds anything but this run."""
        run = cls(folder)
        if run.config:
            run._refuse_other_config(config, _usual_values(settings), getattr(settings, "HOW", frozenset()))
        elif run.folder.exists() and (not run.folder.is_dir() or any(map(_is_stranger, run.folder.iterdir()))):
            raise InputError(f"{folder} already holds something that is not a run; give --out a new folder")
        return run

    def _refuse_other_config(self, config: dict, usual: list[dict], how: frozenset[str]) -> None:
        """Raise InputError for another stage or other settings; a setting newer than the run may have a usual value."""
        if self.config.get("stage") != config["stage"]:
            raise InputError(
                f"{self.folder} already holds a run of stage '{self.config.get('stage')}', and '{config['stage']}' was "
                "to be written; give --out a new folder"
            )
        if not self.has_work():
            return
        for key in ORIGIN:
            before, now = self.config.get(key), config.get(key)
            if key == "settings":
                before = _with_newer(before or {}, now, usual)
                before, now = ({name: one[name] for name in one if name not in how} for one in (before, now))
            if before != now:
                what = _first_difference(key, before, now)
                raise InputError(
                    f"{self.folder} already holds a run with other settings ({what}); give --out a new folder, or "
                    "the same settings to go on"
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing the run meanwhile, and clear away what killed ones left half written.

        One process may nest it; of several processes of one job the first holds the lock for all. Makes the folder if it
        is not there. Raises InputError if another process writes the run, or has begun it anew with other settings
        since it was opened, and if the folder cannot be written.
        """
        if not _is_first():
            yield
            return
        lock = self._acquire()
        try:
            yield
        finally:
            # the file stays: who opened it before it was deleted would lock a file that nobody else sees any more
            lock.release()

    def _acquire(self) -> FileLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # one path per folder: the process finds its own lock again, however the folder was spelled
            lock = FileLock(self.folder.resolve() / LOCK, is_singleton=True)
            nested = lock.is_locked
            _acquire_now(lock, self.folder)
        except Timeout as error:
            raise InputError(
                f"another process is writing {self.folder}; wait for it or stop it, or give --out a new folder"
            ) from error
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        try:
            if not nested:
                self._refuse_changed_config()
                for file in filter(_is_leftover, self.folder.iterdir()):
                    file.unlink()
        except BaseException:
            lock.release()
            raise
        return lock

    def _refuse_changed_config(self) -> None:
        found = Run(self.folder).config
        if self.config and any(found.get(key) != self.config.get(key) for key in ("stage", *ORIGIN)):
            raise InputError(
                f"another process has begun {self.folder} anew with other settings; give --out a new folder"
            )

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def older_checkpoints(self) -> dict[Path, int]:
        """The checkpoints before the last one that were kept, each with its step, the newest first."""
        found = {file: int(match[1]) for file in self.folder.glob("*.pt") if (match := OLDER.fullmatch(file.name))}
        return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))

    def has_work(self) -> bool:
        """Whether there is something to lose: a checkpoint or an evaluation."""
        return self.checkpoint.exists() or bool(self.older_checkpoints()) or bool(self.evals())

    @property
    def log_file(self) -> Path:
        return self.folder / "log.csv"

    def log(self) -> pd.DataFrame:
        """log.csv as a table, empty if nothing was logged."""
        return read_log(self.log_file)

    def append_log(self, row: dict) -> None:
        """Add one row to log.csv; the first row fixes the columns. Raises InputError on a full disk."""
        append_row(self.log_file, row)

    def trim_log(self, step: int) -> None:
        """Drop the rows after `step`, which a run that goes on from a checkpoint will write again."""
        trim_rows(self.log_file, step)

    def evals(self) -> list[str]:
        """Names of the evaluations, e.g. ["synthetic", "synthetic-rerank"]."""
        return sorted(file.parent.name for file in self.folder.glob("eval/*/result.json") if file.is_file())

    def result(self, name: str) -> EvalResult:
        result = EvalResult.load(self.folder / "eval" / name)
        if result.gallery_path is None:
            dataset = name.removesuffix("-rerank")
            files = [self._feature_file(part, "gallery") for part in (dataset, dataset.removesuffix("-aqe"))]
            file = next((file for file in files if file.is_file()), None)
            if file is not None:
                gallery = read_labels(file)
                result = dataclasses.replace(result, **{f"gallery_{name}": gallery[name] for name in gallery})
        return result

    def save_result(self, name: str, result: EvalResult, more: Callable[[Path], None] | None = None) -> Path:
        """Write eval/<name>/, replaced as a whole; `more` writes further files into the folder."""
        folder = self.folder / "eval" / name
        try:
            result.save(folder, more)
        except OSError as error:
            raise InputError(f"cannot write {folder} ({error.strerror}); give a run folder that is writable") from error
        return folder

    def features(self, dataset: str, part: str) -> Features:
        """Stored features; `part` is "query" or "gallery"."""
        return Features.load(self._feature_file(dataset, part))

    def save_features(self, dataset: str, part: str, features: Features) -> Path:
        file = self._feature_file(dataset, part)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            features.save(file)
        except OSError as error:
            raise InputError(f"cannot write {file} ({error.strerror}); give a run folder that is writable") from error
        return file

    def _feature_file(self, dataset: str, part: str) -> Path:
        return self.folder / "features" / f"{dataset}-{part}.npz"


def find_runs(folder: str | Path) -> list[Run]:
    """All runs directly in `folder`, sorted by name; one whose config cannot be read is left out (Run.open says why)."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = [path for path in sorted(folder.iterdir()) if (path / "config.json").is_file() or (path / "eval").is_dir()]
    return [run for run in map(_readable, found) if run is not None]


def _readable(folder: Path) -> Run | None:
    try:
        return Run(folder)
    except InputError:
        return None


def _is_first() -> bool:
    """As lab.distributed.is_first, which would load torch: whether torchrun made this process its first, or only one."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def _is_leftover(file: Path) -> bool:
    return LEFTOVER.fullmatch(file.name) is not None


def _is_stranger(file: Path) -> bool:
    return file.name != LOCK and not _is_leftover(file)


def _acquire_now(lock: FileLock, folder: Path) -> None:
    """Take the lock or raise Timeout; where the file system has no locks, say so and do without."""
    try:
        lock.acquire(timeout=0)
    except (OSError, NotImplementedError) as error:  # Timeout is an OSError, of no errno
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        print(f"note: the file system of {folder} has no locks: start no second process there", file=sys.stderr)


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(f"cannot write the run folder {folder} ({error.strerror or error}); give --out a writable place")


def describe(stage: str, settings, **facts) -> dict:
    """What config.json says: stage, every setting, seed, versions, commit, and `facts` such as init and data."""
    values = dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else dict(settings)
    values = json.loads(json.dumps(values, default=str))  # tuples and paths as they will be read back
    return {
        "stage": stage,
        "settings": values,
        "seed": values.get("seed"),
        "init": None,
        "data": None,
        **json.loads(json.dumps(facts, default=str)),
        "versions": {"python": platform.python_version(), "torch": _version("torch"), "lab": _version("luperson-lab")},
        "commit": _git_commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _usual_values(settings) -> list[dict]:
    """The defaults of a settings dataclass and, if it has one, its tiny(), as JSON reads them back."""
    if not dataclasses.is_dataclass(settings):
        return []
    fields = {field.name: field.default for field in dataclasses.fields(settings)}
    usual = [{name: value for name, value in fields.items() if value is not dataclasses.MISSING}]
    usual += [dataclasses.asdict(type(settings).tiny())] if hasattr(settings, "tiny") else []
    return json.loads(json.dumps(usual, default=str))


def _with_newer(before: dict, now: dict, usual: list[dict]) -> dict:
    """Earlier settings, with those that did not exist then: as they are now if that is usual, else their default."""
    newer = {}
    for name in set(now) - set(before):
        values = [one[name] for one in usual if name in one]
        if values:
            newer[name] = now[name] if now[name] in values else values[0]
    return before | newer


def _make_sibling(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    temporary.chmod(0o755)
    return temporary


def _read_gallery(file: Path) -> dict:
    if not file.is_file():
        return {}
    table = pd.read_csv(file, dtype={"path": str})
    return {
        "gallery_path": table["path"].fillna("").to_numpy(dtype=np.str_),
        "gallery_pid": table["pid"].to_numpy(),
        "gallery_camid": table["camid"].to_numpy(),
    }


def _first_difference(key: str, before, now) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(set(before) | set(now)):
            if before.get(name) != now.get(name):
                return f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
    return f"{key} was {before!r}, now {now!r}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the source tree that runs, or None outside a checkout."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
