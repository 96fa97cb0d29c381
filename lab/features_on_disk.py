"""Features that stay on disk: the rows of a matrix in an .npz or .npy file, read when they are asked for.

A million features of 2,048 numbers are 8 GB. A ranking needs them slice by slice only, so there is no need to hold them:
`RowsOnDisk` looks like the matrix, and every access reads its rows into a new array and keeps nothing else.

Legend: N rows, D numbers in a row, R rows of one access.
"""

import zipfile
import zlib
from copy import copy
from itertools import pairwise
from pathlib import Path

import numpy as np

from lab.errors import InputError

# Larger matrices stay on disk unless told otherwise. MSMT17's gallery (0.67 GB with 2,048 numbers) is still loaded, as
# ranking is fastest from memory; half a million distractors (4.2 GB) would fill a laptop.
MOST_IN_MEMORY = 1_000_000_000
TYPES = tuple(np.dtype(name) for name in ("float16", "float32", "float64"))
PIECE = 1 << 24  # bytes that are read at once when rows are picked or copied
GAP = 1 << 14  # bytes between two wanted rows: fewer are read through, which is faster than going to the next row
UNREADABLE = (ValueError, TypeError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class RowsOnDisk:
    """A matrix (N, D) of float16, float32 or float64 that stays in its file; indexing reads rows into a new array.

    `rows[a:b]`, `rows[numbers]` and `rows[mask]` are arrays (R, D), `rows[i]` is one (D,), of the stored type.
    `take(numbers)` leaves the rows on disk. `np.asarray(rows)` loads everything. Raises InputError when the file was
    replaced or shortened since it was opened.
    """

    ndim = 2

    def __init__(self, file: Path, start: int, shape: tuple[int, int], dtype: np.dtype):
        self.file, self.start, self.shape, self.dtype = Path(file), start, shape, np.dtype(dtype)
        self.row_bytes = shape[1] * self.dtype.itemsize
        self.number: np.ndarray | None = None  # (N,) rows of the file that this matrix consists of; None: all of them
        self._stamp = _stamp(self.file.stat())

    @classmethod
    def open(cls, file: Path) -> "RowsOnDisk":
        """The array `values` of an .npz that numpy.savez wrote, or the array of an .npy.

        Raises InputError for a file that is neither, is cut off, or holds something that cannot be read row by row.
        """
        file = Path(file)
        try:
            start, room = (0, file.stat().st_size) if file.suffix == ".npy" else _find_values(file)
            with open(file, "rb") as stream:
                stream.seek(start)
                shape, by_columns, dtype = _read_header(stream)
                start, room = stream.tell(), room - (stream.tell() - start)
        except UNREADABLE as error:
            raise InputError(
                f"{file} cannot be read as an npz or npy ({error}); save it with numpy.savez or numpy.save"
            ) from error
        found = f"values {shape} of {dtype}{' in Fortran order' if by_columns else ''}"
        if len(shape) != 2 or by_columns or dtype not in TYPES:
            raise InputError(
                f"{file} holds {found}, which cannot be read row by row; save them as an array (N, D) of float16, "
                "float32 or float64 in C order (numpy.ascontiguousarray)"
            )
        if room < shape[0] * shape[1] * dtype.itemsize:
            raise InputError(f"{file} is cut off: {room} bytes are left for {found}; write it again")
        return cls(file, start, shape, dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return len(self) * self.row_bytes

    def __repr__(self) -> str:
        return f"RowsOnDisk({str(self.file)!r}, shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, which) -> np.ndarray:
        if isinstance(which, slice) and self.number is None:
            start, stop, step = which.indices(len(self))
            if step == 1:
                return self._read(start, max(start, stop))
        if isinstance(which, (int, np.integer)):
            return self._pick(self._numbers([which]))[0]
        return self._pick(self._numbers(which))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:  # numpy's name for the parameter
        if copy is False:
            raise ValueError("the rows are on disk: an array of them is always a copy")
        values = self[:]
        return values if dtype is None else values.astype(dtype, copy=False)

    def take(self, numbers: np.ndarray, axis: int = 0) -> "RowsOnDisk":
        """Some of the rows, in this order, still on disk; called as for an array: `values.take(numbers, axis=0)`."""
        if axis != 0:
            raise IndexError(f"rows are taken along axis 0, not {axis}")
        taken = copy(self)
        taken.number = self._numbers(numbers)
        taken.shape = (len(taken.number), self.shape[1])
        return taken

    def _numbers(self, which) -> np.ndarray:
        """Row numbers in the file (R,) of a slice, a mask (N,) or integers (R,), which may be negative."""
        columns = isinstance(which, tuple)  # rows[a, b]
        if isinstance(which, slice):
            which = np.arange(*which.indices(len(self)))
        which = np.asarray(which)
        if which.dtype == bool and which.shape == (len(self),):
            which = np.flatnonzero(which)
        elif which.size == 0:
            which = which.astype(np.int64)
        if which.ndim != 1 or which.dtype.kind not in "iu" or columns:
            raise IndexError(f"rows are chosen by a slice, a mask ({len(self)},) or integers (R,), not {which!r}")
        which = which.astype(np.int64)
        if len(which) and not -len(self) <= which.min() <= which.max() < len(self):
            raise IndexError(f"row {which.min()} or {which.max()} is not among {len(self)}")
        which = np.where(which < 0, which + len(self), which)
        return which if self.number is None else self.number[which]

    def _pick(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of the file by number: those that lie close together are read in one go, in the order of the file."""
        found = np.empty((len(numbers), self.shape[1]), self.dtype)
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        piece = ordered // max(1, PIECE // max(1, self.row_bytes))
        cut = np.flatnonzero((np.diff(ordered) * self.row_bytes > GAP) | (np.diff(piece) > 0)) + 1
        cut = [0, *cut.tolist(), len(ordered)] if len(ordered) else []
        with self._open() as stream:
            for first, last in pairwise(cut):
                start, stop = int(ordered[first]), int(ordered[last - 1]) + 1
                if last - first == 1:
                    self._fill(found[order[first]], start, stream)
                    continue
                span = np.empty((stop - start, self.shape[1]), self.dtype)
                self._fill(span, start, stream)
                found[order[first:last]] = span[ordered[first:last] - start]
        return found

    def _read(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop of the file."""
        found = np.empty((stop - start, self.shape[1]), self.dtype)
        with self._open() as stream:
            self._fill(found, start, stream)
        return found

    def _fill(self, found: np.ndarray, start: int, stream) -> None:
        """Read into an array what the file has from row `start` on."""
        stream.seek(self.start + start * self.row_bytes)
        left = found.reshape(-1).view(np.uint8)
        while len(left):
            count = stream.readinto(left)  # systems read 2 GB at most in one go
            if not count:
                raise InputError(f"{self.file} ended too early, when rows from {start} on were read; write it again")
            left = left[count:]

    def _open(self):
        try:
            if _stamp(self.file.stat()) == self._stamp:
                return open(self.file, "rb", buffering=0)
        except OSError as error:
            raise InputError(f"{self.file} cannot be read any more ({error.strerror}); put it back") from error
        raise InputError(f"{self.file} was changed while it was in use; start again with the file as it is now")


def read_features(file: Path, on_disk: bool | None = None) -> dict[str, np.ndarray | RowsOnDisk]:
    """Those of the arrays values, pid, camid and path that a feature file has; `values` may stay on disk.

    `file` is an npz with all of them, or NAME.npy with the values and beside it NAME-labels.npz with the rest. (An npz,
    not a CSV: the labels of a million crops are read in 0.15 s instead of 2.2 s.) `on_disk` None leaves matrices above
    1 GB on disk, if they are stored so that rows can be read. Raises InputError for files that cannot be read and,
    with `on_disk` True, for values that cannot be read row by row.
    """
    file = Path(file)
    labels = file if file.suffix != ".npy" else file.with_name(f"{file.stem}-labels.npz")
    if not labels.is_file():
        raise InputError(f"no {labels.name} beside {file}; save pid (N,), camid (N,) and, if known, path (N,) there")
    rows = _rows(file, on_disk)
    try:
        with np.load(labels, allow_pickle=False) as arrays:
            wanted = {"pid", "camid", "path"} | ({"values"} if labels == file and rows is None else set())
            found = {name: arrays[name] for name in arrays.files if name in wanted}
        if rows is not None:
            found["values"] = rows
        elif labels != file:
            found["values"] = np.load(file, allow_pickle=False)
    except UNREADABLE as error:
        name = "an npz of plain arrays" if labels == file else f"an array with {labels.name} beside it"
        raise InputError(f"{file} cannot be read as {name} ({error}); save it with numpy.savez") from error
    return found


def read_labels(file: Path) -> dict[str, np.ndarray]:
    """pid, camid and path (N,) of a feature file, without its values; path is "" where the file has none.

    Raises InputError for a file that cannot be read or has no pid or camid.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("path", "pid", "camid") if name in arrays.files}
    except UNREADABLE as error:
        raise InputError(
            f"{file} cannot be read as an npz of plain arrays ({error}); save it with numpy.savez"
        ) from error
    if not {"pid", "camid"} <= set(found):
        raise InputError(f"{file} has no pid or no camid; expected arrays values (N, D), pid (N,), camid (N,)")
    found.setdefault("path", np.full(len(found["pid"]), "", dtype=np.str_))
    return found


def write_features(stream, values: np.ndarray | RowsOnDisk, **labels: np.ndarray) -> None:
    """What numpy.savez(stream, values=values, **labels) writes, though `values` is never in memory as a whole.

    `values` is anything with shape, dtype and slices.
    """
    header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": tuple(values.shape)}
    step = max(1, PIECE // max(1, values.shape[1] * values.dtype.itemsize))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("values.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for start in range(0, len(values), step):
                member.write(np.ascontiguousarray(values[start : start + step]).data)
        for name, array in labels.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _rows(file: Path, on_disk: bool | None) -> RowsOnDisk | None:
    if on_disk is False:
        return None
    try:
        rows = RowsOnDisk.open(file)
    except InputError:
        if on_disk:
            raise
        return None  # it is loaded whole, which says what is wrong if anything is
    return rows if on_disk or rows.nbytes > MOST_IN_MEMORY else None


def _find_values(file: Path) -> tuple[int, int]:
    """Where the array `values` of an npz starts in the file, and how many bytes it has, its header included."""
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo("values.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise InputError(
            f"{file} is compressed, so its rows can only be loaded all together; save it with numpy.savez instead of "
            "savez_compressed to leave it on disk"
        )
    with open(file, "rb") as stream:
        stream.seek(member.header_offset)
        local = stream.read(30)  # its name and extra field may be longer or shorter than in the directory
    start = member.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return start, member.file_size


def _read_header(stream) -> tuple[tuple, bool, np.dtype]:
    """Shape, whether columns come first (Fortran order), and type, as .npy files say them before the numbers."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _stamp(status) -> tuple[int, int]:
    """What differs when a file was replaced or written again."""
    return status.st_size, status.st_mtime_ns
