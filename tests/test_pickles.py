"""Pickles: what the released files hold comes back, anything that would run is refused and does nothing."""

import collections
import io
import os
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.data.pickles import load_pickle, read_keys
from lab.errors import InputError

KEYS = [f"{video % 3:02d}_00_{video:04d}_{image:08d}" for video in range(5) for image in range(9)]
ARRAYS = {
    "rows": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    "big endian": np.array([1, 2, 3], dtype=">f4"),
    "text": np.array(["a", "bcü"]),
    "bytes": np.array([b"abc", b"d"]),
    "objects": np.array(["x", None, 1, [2]], dtype=object),
    "one": np.array(3.5),
    "nothing": np.zeros((0, 4)),
    "flags": np.array([True, False]),
}
PLAIN = {
    "numbers": [1, -1, 10**30, 2.5, True, None],
    "numpy numbers": (np.float32(3.5), np.int64(-4), np.bool_(True), np.str_("abc")),
    "containers": [{1, 2}, frozenset([3]), (), [], {}, bytearray(b"ab\0"), b"\xff\0", b"", "ü"],
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "default": collections.defaultdict(list, {1: [2], 3: [4]}),
}


def write(folder: Path, content: bytes, name: str = "x.pkl") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def reduced(function, *arguments):
    """An object that a pickle makes by calling `function`."""
    kind = type("Reduced", (), {"__reduce__": lambda self: (function, arguments)})
    return kind()


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_containers_come_back_as_the_plain_unpickler_reads_them(tmp_path, protocol):
    content = pickle.dumps(PLAIN | ARRAYS, protocol=protocol)
    read, expected = load_pickle(write(tmp_path, content)), pickle.loads(content)
    assert list(read) == list(expected)
    for name in PLAIN:
        assert read[name] == expected[name], name
    for name in ARRAYS:
        assert read[name].dtype == expected[name].dtype.newbyteorder("="), name  # the machine's byte order
        assert read[name].shape == expected[name].shape, name
        assert read[name].tolist() == ARRAYS[name].tolist(), name
        assert read[name].flags.f_contiguous == expected[name].flags.f_contiguous, name


def test_an_array_that_was_read_can_be_pickled_and_copied_again(tmp_path):
    array = load_pickle(write(tmp_path, pickle.dumps(ARRAYS["rows"])))
    again = pickle.loads(pickle.dumps(array))  # as a data loader does when it hands it to a worker
    assert type(again) is np.ndarray
    np.testing.assert_array_equal(again, ARRAYS["rows"])


def test_names_of_numpy_1_and_of_python_2_are_known(tmp_path):
    content = pickle.dumps(ARRAYS["rows"], protocol=2).replace(b"numpy._core.", b"numpy.core.")
    np.testing.assert_array_equal(load_pickle(write(tmp_path, content)), ARRAYS["rows"])
    python_2 = b"c__builtin__\nset\np0\n((lp1\nS'a'\np2\natp3\nRp4\n."  # set(["a"]) by Python 2.7, protocol 0
    assert load_pickle(write(tmp_path, python_2)) == {"a"}
    values = np.array([1.5, -2.0]).tobytes()  # numpy.array([1.5, -2.0]) by Python 2.7, protocol 2: content is a str
    array = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10"
    )
    assert load_pickle(write(tmp_path, array + values + b"tb.")).tolist() == [1.5, -2.0]


def malicious(mark: str) -> dict[str, bytes]:
    """Pickles that make the file `mark` if anything of them is run, by every opcode that calls or changes something."""
    call = f"open({mark!r}, 'w')".encode()
    touch = f"touch {mark}".encode()
    return {
        "reduce": pickle.dumps(reduced(os.system, touch.decode())),
        "nested": pickle.dumps({"keys": [reduced(eval, call.decode())], "more": ARRAYS["rows"]}),
        "protocol 0": pickle.dumps(reduced(os.system, touch.decode()), protocol=0),
        "in an object array": pickle.dumps(np.array([reduced(os.system, touch.decode())], dtype=object)),
        "inst": b"(S'" + call.replace(b"'", b'"') + b"'\ni__builtin__\neval\n.",
        "obj": b"(cbuiltins\neval\nV" + call + b"\no.",
        "stack global": b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c" + bytes([len(call)]) + call + b"\x85R.",
        "getattr": b"cbuiltins\ngetattr\n(cos\nV" + b"system\ntR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x12os.system.__call__\x93)R.",
        "numpy's own loader": b"cnumpy\nload\n(V" + mark.encode() + b"\ntR.",
        "numpy's test runner": b"cnumpy.testing._private.utils\nrunstring\n(V" + call + b"\n}tR.",
        "functools.partial": pickle.dumps(__import__("functools").partial(os.system, touch.decode())),
        "a class of the lab": b"clab.data.pickles\n_Function\n(cos\nsystem\ntR(V" + touch + b"\ntR.",
    }


@pytest.mark.parametrize("name", malicious(""))
def test_a_malicious_pickle_is_refused_by_name_and_does_nothing(tmp_path, name):
    mark = tmp_path / "was-run"
    file = write(tmp_path, malicious(str(mark))[name])
    with pytest.raises(InputError, match=r"x\.pkl asks for (os|posix|builtins|numpy|functools|lab)\."):
        load_pickle(file)
    assert not mark.exists()


def test_the_malicious_pickles_do_run_where_nothing_stops_them(tmp_path):
    mark = tmp_path / "was-run"
    pickle.loads(malicious(str(mark))["reduce"])
    assert mark.exists()


PERSISTENT, EXTENSION, NEXT_BUFFER = b"Pname\n.", b"\x82\x01.", b"\x80\x05\x97."
DTYPE = b"cnumpy\ndtype\n(V%s\nI00\nI%02d\ntR"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"


@pytest.mark.parametrize(
    "content",
    [
        PERSISTENT,
        EXTENSION,
        NEXT_BUFFER,
        DTYPE % (b"O", 1) + b"(I3\nV|\n(cnumpy\nndarray\ntNNI8\nI8\nI0\ntb.",  # a type with a sub-array
        DTYPE % (b"V16", 1) + b".",  # a type without a meaning
        DTYPE % (b"M8[s]", 1) + b".",
        RECONSTRUCT + b"(I1\n(I1000000\nt" + DTYPE % (b"f8", 1) + b"I00\nVshort\ntb.",  # fewer bytes than it says
        RECONSTRUCT + b"(I1\n(I-1\nt" + DTYPE % (b"f8", 1) + b"I00\nV\ntb.",
        RECONSTRUCT
        + b"(I1\n(I1\nt"
        + DTYPE % (b"O", 1)
        + b"I00\nVAAAAAAAA\ntb.",  # objects whose addresses are made up
        RECONSTRUCT + b"(I1\n(I1\nt" + DTYPE % (b"U1", 1) + b"I00\nV\xff\xff\xff\xff\ntb.",  # text of no characters
        b"cnumpy.core.multiarray\nscalar\n(" + DTYPE % (b"O", 1) + b"VAAAAAAAA\ntR.",
        b"cnumpy\nndarray\n((I1\ntVO\ntR.",  # the constructor itself
        b"cbuiltins\nbytearray\n(I99999999999\ntR.",
        b"cbuiltins\nbytes\n(L99999999999L\ntR.",
        b"\x80\x04C\x00r\xff\xff\xff\x7f.",  # memo number 2^31: a table of 34 GB
        b"\x80\x04C\x00p99999999999\n.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 35) + b"x.",  # a bytearray of 32 GB
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        b"",
        b".",
        b"no pickle at all",
        b"\x89PNG\r\n\x1a\n",
        pickle.dumps(KEYS)[:-20],
    ],
)
def test_tricks_and_broken_files_are_one_sentence(tmp_path, content):
    file = write(tmp_path, content)
    with pytest.raises(InputError, match=r"x\.pkl.*(again|trust)"):
        load_pickle(file)


def test_a_pickle_cannot_change_what_later_ones_find(tmp_path):
    """BUILD sets attributes of what it is given: of a function that is admitted, of a class, of numpy's own float64."""
    for content in (
        b"c_codecs\nencode\n(N}Vcall\nVnothing\nstb.",
        b"cnumpy\ndtype\n}V__init__\nNsb.",
        DTYPE % (b"f8", 0) + b"(I3\nV>\nNNNI-1\nI-1\nI0\ntb.",
    ):
        try:
            load_pickle(write(tmp_path, content))
        except InputError:
            continue
    test_arrays_and_plain_containers_come_back_as_the_plain_unpickler_reads_them(tmp_path, 2)
    assert np.dtype("f8").isnative


def test_mutated_pickles_end_in_one_sentence_or_in_plain_content(tmp_path):
    """1,500 mutations in a process that may take 4 GB: no other exception, no crash, no flood of memory."""
    code = """
import random, resource, sys
from pathlib import Path
from lab.data.pickles import load_pickle
from lab.errors import InputError
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
random.seed(0)
refused = 0
for number in range(1500):
    whole = Path(sys.argv[1 + number % 3])
    content = bytearray(whole.read_bytes())
    for _ in range(random.choice((1, 1, 3, 20))):
        at = random.randrange(len(content))
        kind = random.randrange(4)
        if kind == 0:
            content[at] = random.randrange(256)
        elif kind == 1:
            del content[at : at + random.randrange(1, 9)]
        elif kind == 2:
            content[at:at] = random.randbytes(random.randrange(1, 9))
        else:
            content[at] ^= 1 << random.randrange(8)
    file = whole.with_name("mutated.pkl")
    file.write_bytes(content)
    try:
        load_pickle(file)
    except InputError as error:
        assert "mutated.pkl" in str(error) and len(str(error)) < 600, error
        refused += 1
print(refused)
"""
    files = []
    for protocol in (0, 2, 5):
        content = pickle.dumps({"keys": KEYS, **PLAIN, **ARRAYS}, protocol=protocol)
        files.append(str(write(tmp_path, content, f"whole-{protocol}.pkl")))
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 300 < int(done.stdout) < 1500


@pytest.mark.parametrize(
    "content",
    [
        KEYS,
        tuple(KEYS),
        [key.encode() for key in KEYS],
        {"keys": KEYS},
        {"keys": np.array(KEYS)},
        {"keys": np.array(KEYS, dtype="S")},
        {"keys": np.array(KEYS, dtype=object), "other": None},
    ],
)
def test_keys_are_read_from_a_list_and_from_a_dict(tmp_path, content):
    shuffled = random.Random(0).sample(range(len(KEYS)), len(KEYS))
    for protocol in (2, 4):
        keys, labels = read_keys(write(tmp_path, pickle.dumps(content, protocol=protocol)))
        assert keys.dtype == "S19"
        assert [key.decode() for key in keys] == KEYS
        assert labels == {}
    keys, _ = read_keys(write(tmp_path, pickle.dumps([KEYS[at] for at in shuffled])))
    assert [key.decode() for key in keys] == [KEYS[at] for at in shuffled]  # in the file's order


def test_labels_come_with_the_keys(tmp_path):
    pids = list(range(len(KEYS)))
    content = {"keys": KEYS, "pids": pids, "vids": np.array(pids, dtype=np.int32) // 9}
    _, labels = read_keys(write(tmp_path, pickle.dumps(content)))
    assert sorted(labels) == ["pids", "vids"]
    assert labels["pids"].dtype == labels["vids"].dtype == np.int64
    assert labels["pids"].tolist() == pids
    assert labels["vids"].tolist() == [pid // 9 for pid in pids]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "no keys"),
        ({}, "a dict of 0 entries"),
        ({"names": KEYS}, r"a dict of 1 entries \('names'\)"),
        (7, "a int"),
        ("30_00_0292_00000238", "a str of 19"),
        (np.array("30_00_0292_00000238"), "an array of one <U19"),
        ([*KEYS, 3], "int among its keys"),
        ([KEYS], "list among its keys"),
        (np.zeros((2, 2)), "Array among its keys"),
        ([""], "keys of 0 to 0 characters"),
        ([*KEYS, "k" * 512], "keys of 19 to 512 characters"),
        (["schlüssel"], "not ASCII"),
        ({"keys": KEYS, "pids": [1, 2]}, "a list of 2 as 'pids' beside 45 keys"),
        ({"keys": KEYS, "pids": ["a"] * 45}, "a list of 45 as 'pids'"),
        ({"keys": KEYS, "vids": [10**30] * 45}, "a list of 45 as 'vids'"),
        ({"keys": KEYS, "vids": np.zeros((45, 2))}, "an array of 45x2 float64 as 'vids'"),
        ({"keys": KEYS, "vids": None}, "a NoneType as 'vids'"),
    ],
)
def test_other_content_is_named(tmp_path, content, found):
    with pytest.raises(InputError, match=rf"x\.pkl holds .*{found}.*expected .*give"):
        read_keys(write(tmp_path, pickle.dumps(content)))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for file in (tmp_path / "none.pkl", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            load_pickle(file)


def test_a_list_that_holds_itself_a_thousandfold_is_described_in_a_few_words(tmp_path):
    knot = []
    for _ in range(60):
        knot = [knot, knot]  # 2^60 elements, if anybody counted them
    buffer = io.BytesIO()
    pickle.dump({"keys": KEYS, "pids": knot}, buffer)
    with pytest.raises(InputError, match="a list of 2 as 'pids'"):
        read_keys(write(tmp_path, buffer.getvalue()))
