"""Pickles of the released data, read without letting them run anything: numpy arrays, numbers, text, plain containers.

A pickle is a small program: it may name any function and call it. Here it finds only the few names in ADMITTED, and none
of them is numpy's own: numpy believes what a pickle says about shapes and types, and a wrong one reads foreign memory.
What this does not stop is a file made to waste time or stack, such as a dictionary key of a million nested tuples.
"""

import mmap
import pickle
import pickletools
import re
from math import prod
from pathlib import Path

import numpy as np

from lab.errors import InputError

PLAIN_DTYPE = re.compile(r"[?bO]|[biufcO]\d{1,2}|[SU][1-9]\d{0,8}")
LABELS = ("pids", "vids")
LONGEST_KEY = 511  # bytes; LMDB takes no longer ones


def load_pickle(file: Path):
    """What a pickle holds, if that is numpy arrays (any type without fields), numbers, text, bytes and plain containers.

    Arrays come as a subclass of ndarray, ordered and default dictionaries as dict; text of Python 2 is read as latin-1.
    Raises InputError for a file that asks for anything else, naming it, and for one that is broken or missing.
    """
    file = Path(file)
    try:
        with open(file, "rb") as stream:
            _check_sizes(stream, file)
            return _Restricted(stream, file).load()
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}); expected a pickle file") from error
    except Exception as error:  # a broken pickle raises almost anything, from IndexError to MemoryError
        said = " ".join(str(error).split())[:120]
        raise InputError(
            f"{file} is not a whole pickle of arrays and plain containers ({type(error).__name__}: {said}); "
            "fetch or write it again"
        ) from error


def read_keys(file: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The keys of a released store in the file's order, and the labels that came with them.

    keys.pkl is a list of keys, or a dict with `keys` and perhaps `pids` (tracklets) and `vids` (videos). Returns keys
    (N,) fixed-length bytes and {name: (N,) int64}. Raises InputError that says what the file holds instead.
    """
    content = load_pickle(file)
    keys = content.get("keys") if isinstance(content, dict) else content
    if not isinstance(keys, list | tuple | np.ndarray) or getattr(keys, "ndim", 1) == 0:
        raise InputError(
            f"{file} holds {_look(content)}; expected a list of keys, or a dict with 'keys' and perhaps 'pids' and "
            "'vids': give the keys.pkl that came with the LMDB"
        )
    labels = {name: content[name] for name in LABELS if name in content} if isinstance(content, dict) else {}
    keys = _as_bytes(keys, file)
    return keys, {name: _as_labels(values, name, len(keys), file) for name, values in labels.items()}


def _as_bytes(keys: list | tuple | np.ndarray, file: Path) -> np.ndarray:
    """Keys as (N,) fixed-length bytes."""
    wrong = sorted(kind.__name__ for kind in set(map(type, keys)) - {str, bytes, np.str_, np.bytes_})
    if wrong or not len(keys):
        found = f"{', '.join(wrong[:3])} among its keys" if wrong else "no keys"
        raise InputError(f"{file} holds {found}; expected texts such as 30_00_0292_00000238: give another keys.pkl")
    shortest, longest = min(map(len, keys)), max(map(len, keys))
    if not 0 < shortest <= longest <= LONGEST_KEY:
        raise InputError(
            f"{file} holds keys of {shortest} to {longest} characters; expected 1 to {LONGEST_KEY}, as LMDB takes them: "
            "give another keys.pkl"
        )
    try:
        return np.array(keys, dtype=np.bytes_)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{file} holds a key that is not ASCII ({ascii(error.object)[:60]}); expected keys such as "
            "30_00_0292_00000238: give another keys.pkl"
        ) from error


def _as_labels(values, name: str, count: int, file: Path) -> np.ndarray:
    """Labels as (count,) int64."""
    listed = isinstance(values, list | tuple | np.ndarray) and getattr(values, "ndim", 1) == 1
    if listed and len(values) == count and all(issubclass(kind, int | np.integer) for kind in set(map(type, values))):
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass  # said below
    raise InputError(
        f"{file} holds {_look(values)} as '{name}' beside {count} keys; expected one whole number a key: "
        "give another keys.pkl"
    )


def _look(value) -> str:
    """What a value is, in a few words; never its repr, which a hostile file can make endless."""
    if isinstance(value, dict):
        names = ", ".join(ascii(key)[:40] for key in list(value)[:4] if isinstance(key, str | int | bytes))
        return f"a dict of {len(value)} entries ({names})" if names else f"a dict of {len(value)} entries"
    if isinstance(value, np.ndarray):
        return f"an array of {'x'.join(map(str, value.shape)) or 'one'} {value.dtype}"
    length = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"a {type(value).__name__}{length}"


class _Array(np.ndarray):
    """An ndarray that checks what a pickle says about it before numpy sees it."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        dtype = dtype.plain() if isinstance(dtype, _Dtype) else dtype
        content = content.encode("latin-1") if isinstance(content, str) else content  # Python 2's bytes
        size = prod(_natural(length) for length in shape)
        whole = list if dtype.hasobject else bytes
        if self.size or type(content) is not whole or len(content) != size * (1 if dtype.hasobject else dtype.itemsize):
            raise pickle.UnpicklingError(f"an array of {size} {dtype} whose content does not fit")
        super().__setstate__((1, tuple(shape), dtype, bool(fortran), content))
        if dtype.kind == "U":
            self.tolist()  # raises ValueError for numbers that are no characters

    def __reduce_ex__(self, protocol):
        return np.asarray(self).__reduce_ex__(protocol)


class _Dtype:
    """What a pickle says about a numpy type; only types without fields, sub-arrays and units are made of it."""

    __slots__ = ("name", "order")

    def __init__(self, name, align=False, copy=False):
        if not isinstance(name, str) or not PLAIN_DTYPE.fullmatch(name):
            raise pickle.UnpicklingError(f"an array of type {ascii(name)[:40]}")
        self.name, self.order = name, "="

    def __setstate__(self, state):
        if any(part is not None for part in state[2:5]) or state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("an array with fields or a strange byte order")
        self.order = state[1]

    def plain(self) -> np.dtype:
        return np.dtype(self.name).newbyteorder(self.order)


class _Function:
    """A function that a pickle may call and cannot change: without this, its BUILD would set attributes of it."""

    __slots__ = ("call",)

    def __init__(self, call):
        self.call = call

    def __call__(self, *arguments):
        return self.call(*arguments)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a function that is given a state")


def _natural(value) -> int:
    if type(value) is not int or value < 0:
        raise pickle.UnpicklingError("an array with a strange shape")
    return value


def _array(shape, dtype, fortran, content) -> _Array:
    array = _Array((0,), np.int8)
    array.__setstate__((1, shape, dtype, fortran, content))
    return array


def _scalar(dtype, content):
    array = _array((1,), dtype, False, content)
    if array.dtype.hasobject:
        raise pickle.UnpicklingError("a numpy number that is an object")
    return np.asarray(array)[0]


def _from_buffer(content, dtype, shape, order) -> _Array:
    return _array(shape, dtype, order == "F", bytes(content) if isinstance(content, bytearray) else content)


def _bytes(content=b"", encoding="latin-1"):
    """Bytes as old protocols spell them; never of a number, which would be that many of them."""
    if encoding not in ("latin1", "latin-1") or not isinstance(content, str | bytes):
        raise pickle.UnpicklingError("bytes that are not given as text")
    return content.encode("latin-1") if isinstance(content, str) else content


def _dict(*arguments):
    """An ordered or default dictionary as a plain one; a default's kind comes as its name, see ADMITTED."""
    pairs = [argument for argument in arguments if isinstance(argument, list)]
    return dict(*pairs)


ADMITTED = {
    "numpy.ndarray": "ndarray",
    "numpy.dtype": _Dtype,
    "numpy._core.multiarray._reconstruct": _Function(lambda kind, shape, content: _Array((0,), np.int8)),
    "numpy._core.multiarray.scalar": _Function(_scalar),
    "numpy._core.numeric._frombuffer": _Function(_from_buffer),
    "_codecs.encode": _Function(_bytes),
    "builtins.bytes": _Function(_bytes),
    "builtins.bytearray": _Function(_bytes),
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.list": "list",
    "builtins.dict": "dict",
    "collections.OrderedDict": _Function(_dict),
    "collections.defaultdict": _Function(_dict),
}


class _Restricted(pickle.Unpickler):
    """An unpickler that finds what is in ADMITTED and nothing else."""

    def __init__(self, stream, file: Path):
        super().__init__(stream, encoding="latin-1")
        self.file = file

    def find_class(self, module: str, name: str):
        module = re.sub(r"^numpy\.core\b", "numpy._core", module)  # its place until numpy 2
        module = re.sub(r"^__builtin__$", "builtins", module)  # its name in Python 2
        if (asked := f"{module}.{name}") in ADMITTED:
            return ADMITTED[asked]
        raise InputError(
            f"{self.file} asks for {ascii(asked)[1:-1][:80]}, which a file of arrays and plain containers has no use for; "
            "nothing of it was run: get the file from a source that you trust"
        )


LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def _opcode(opcode: pickletools.OpcodeInfo, longest: int = 63) -> bytes:
    """The regular expression of an opcode with its argument; of those with a length in front, of short ones."""
    code, size = re.escape(opcode.code.encode("latin-1")), opcode.arg.n if opcode.arg else 0
    if opcode.name == "PUT":
        return code + rb"\d{1,7}\n"
    if opcode.name == "LONG_BINPUT":
        return code + rb".{3}\0"  # below 2^24, at most 256 MB
    if size >= 0:
        return code + b".{%d}" % size
    if size == pickletools.UP_TO_NEWLINE:
        return code + rb"[^\n]*\n" * (2 if opcode.arg.name.endswith("_pair") else 1)
    rest = LENGTH_BYTES[size] - 1
    return code + b"(?:%s)" % b"|".join(rb"\x%02x\0{%d}.{%d}" % (long, rest, long) for long in range(longest + 1))


USUAL = re.compile(
    b"(?:%s){0,1000}" % b"|".join(_opcode(opcode) for opcode in pickletools.opcodes if opcode.name != "STOP"), re.DOTALL
)


def _check_sizes(stream, file: Path) -> None:
    """Refuse texts longer than the file, and memo numbers that no file of this size has.

    The unpickler fills a table up to the largest memo number, at 16 bytes each: one wrong number would take all memory.
    A regular expression passes over runs of usual opcodes, pickletools reads the others: a second for 4 million keys.
    """
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at, name = 0, ""
        while name != "STOP":
            content.seek(USUAL.match(content, at).end())
            opcode, number, _ = next(pickletools.genops(content))
            if opcode.name in ("PUT", "LONG_BINPUT") and number > len(content):
                raise InputError(
                    f"{file} is broken: it numbers {number} objects in {len(content)} bytes; fetch or write it again"
                )
            at, name = content.tell(), opcode.name
