"""From a list of videos to a manifest and a script, with a yt-dlp that is none: nothing is downloaded here."""

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.data.video.download import Video, describe_plan, plan_download, read_video_list
from lab.errors import InputError

LIST = """\
# LUPerson's own lines, ids and addresses
china+beijing+abcdefghijk
usa+new york+-b_defghij0

  0123456789A
https://www.youtube.com/watch?v=BBBBBBBBBBB&t=10s
https://youtu.be/CCCCCCCCCCC
https://www.youtube.com/shorts/DDDDDDDDDDD
no video
france+paris+abcdefghijk
france+paris+tooshort
"""
VIDEOS = (
    Video("china", "beijing", "abcdefghijk"),
    Video("usa", "new york", "-b_defghij0"),
    Video("", "", "0123456789A"),
    Video("", "", "BBBBBBBBBBB"),
    Video("", "", "CCCCCCCCCCC"),
    Video("", "", "DDDDDDDDDDD"),
)
FAKE = r"""#!/usr/bin/env bash
printf '%s\n' "$@" >> "$RECORD"
while [ $# -gt 1 ]; do if [ "$1" = --output ]; then template="$2"; fi; shift; done
case "$1" in *GONE*) exit 1;; esac
file="${template//%%/%}"
mkdir -p "$(dirname "$file")" && echo video > "$file"
"""
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")


def write(folder: Path, text: str) -> Path:
    (folder / "list.txt").write_text(text, encoding="utf-8")
    return folder / "list.txt"


def manifest(out: Path) -> list[dict]:
    with open(out / "manifest.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def run_script(folder: Path, out: Path) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Run OUT/download.sh from elsewhere with the fake yt-dlp; also what that was called with, argument by argument."""
    programs, record = folder / "programs", folder / "record.txt"
    programs.mkdir(exist_ok=True)
    record.write_text("")
    (programs / "yt-dlp").write_text(FAKE)
    (programs / "yt-dlp").chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(record)}
    script = out / "download.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    done = subprocess.run(["bash", script], env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    return done, record.read_text().splitlines()


def test_a_list_names_each_video_once_and_says_which_lines_it_did_not_understand(tmp_path):
    listed = read_video_list(write(tmp_path, LIST))
    assert listed.videos == VIDEOS
    assert listed.duplicates == 1
    assert listed.malformed == (9, 11)


def test_windows_lines_and_a_byte_order_mark_are_no_trouble(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffchina+münchen+abcdefghijk\r\nno video\r\n".encode())
    listed = read_video_list(tmp_path / "list.txt")
    assert listed.videos == (Video("china", "münchen", "abcdefghijk"),)
    assert listed.malformed == (2,)


@pytest.mark.parametrize(
    "line",
    [
        "../..+city+abcdefghijk",
        "a+..+abcdefghijk",
        "a+.+abcdefghijk",
        "/etc+city+abcdefghijk",
        "a+b/c+abcdefghijk",
        "a+b\\c+abcdefghijk",
        "a+$HOME+abcdefghijk",  # yt-dlp puts variables in
        "a+b\x00c+abcdefghijk",
        "a+b\u202ec+abcdefghijk",  # turns the direction of what follows
        "++abcdefghijk",
        "a+ b+abcdefghijk",
        f"a+{'b' * 101}+abcdefghijk",
        "a+b+c+abcdefghijk",
        "a+b+abcdefghij",
        "a+b+abcdefghijkl",
        "a+b+abcdefghij;",
        "abcdefghij\u0660",  # a digit, but none of ASCII's
        "https://example.org/watch?v=abcdefghijk",
        "https://www.youtube.com/watch?v=abcdefghijk0",
    ],
)
def test_a_line_that_would_lead_elsewhere_is_refused(tmp_path, line):
    listed = read_video_list(write(tmp_path, f"{line}\nchina+beijing+abcdefghijk\n"))
    assert listed.videos == (Video("china", "beijing", "abcdefghijk"),)
    assert listed.malformed == (1,)


def test_the_manifest_says_where_each_video_belongs_and_whether_it_is_there(tmp_path):
    out = tmp_path / "videos"
    there = out / "china" / "beijing" / "china+beijing+abcdefghijk.mp4"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"video")
    plan = plan_download(write(tmp_path, LIST), out)
    rows = manifest(out)
    assert [tuple(row.values()) for row in rows[:3]] == [
        (
            "china",
            "beijing",
            "abcdefghijk",
            "https://www.youtube.com/watch?v=abcdefghijk",
            "china/beijing/china+beijing+abcdefghijk.mp4",
            "True",
        ),
        (
            "usa",
            "new york",
            "-b_defghij0",
            "https://www.youtube.com/watch?v=-b_defghij0",
            "usa/new york/usa+new york+-b_defghij0.mp4",
            "False",
        ),
        ("", "", "0123456789A", "https://www.youtube.com/watch?v=0123456789A", "0123456789A.mp4", "False"),
    ]
    assert list(rows[0]) == ["country", "city", "id", "url", "file", "present"]
    assert len(rows) == 6
    assert plan.present == 1
    text = describe_plan(plan)
    assert "6 videos, 1 of them are there" in text
    assert "2 lines name no video and were passed over (line 9, 11)" in text
    script = plan.script.read_text()
    assert "research only" in script
    assert "check the terms" in script
    assert "abcdefghijk" not in script


@needs_bash
def test_the_script_fetches_what_is_missing_goes_on_and_lists_failures(tmp_path):
    out = tmp_path / "my videos"
    strange = 'it\'s 100% "far"; `rm -rf .` & *+c#ty+-LoSeZTaNge'
    source = write(
        tmp_path, f"china+beijing+abcdefghijk\nusa+new york+GONEdefghij\n-GONE567890\n{strange}\n0123456789A\n"
    )
    plan_download(source, out, height=480, max_size="1.5G")
    done, arguments = run_script(tmp_path, out)
    assert done.returncode == 0, done.stderr
    assert "2 of 5 videos" in done.stdout
    assert (out / "failed.txt").read_text() == "usa+new york+GONEdefghij\n-GONE567890\n"

    limits = "[height<=?480][filesize<=?1.5G]"
    assert arguments.count(f"bestvideo[ext=mp4]{limits}/best{limits}") == 5
    assert {"--no-overwrites", "--continue", "--retries", "--sleep-requests"} <= set(arguments)
    addresses = [argument for argument in arguments if argument.startswith("https")]
    assert addresses[2:4] == [
        "https://www.youtube.com/watch?v=-GONE567890",
        "https://www.youtube.com/watch?v=-LoSeZTaNge",
    ]
    assert './it\'s 100%% "far"; `rm -rf .` & *' in next(text for text in arguments if text.startswith("./it"))
    files = {str(file.relative_to(out)) for file in out.rglob("*.mp4")}
    assert files == {row["file"] for row in manifest(out) if "GONE" not in row["id"]}
    assert {path.name for path in tmp_path.iterdir()} == {"list.txt", "my videos", "programs", "record.txt"}

    _, arguments = run_script(tmp_path, out)  # the same script once more asks only for what is not there
    assert [text for text in arguments if text.startswith("https")] == addresses[1:3]

    again = plan_download(source, out)
    assert again.present == 3
    assert [row["present"] for row in manifest(out)] == ["True", "False", "False", "True", "True"]
    _, arguments = run_script(tmp_path, out)
    assert [text for text in arguments if text.startswith("https")] == addresses[1:3]


@needs_bash
def test_with_all_videos_there_the_script_calls_nothing(tmp_path):
    (tmp_path / "abcdefghijk.mp4").write_bytes(b"video")
    plan = plan_download(write(tmp_path, "abcdefghijk\n"), tmp_path)
    assert "Download" not in describe_plan(plan)
    done, arguments = run_script(tmp_path, tmp_path)
    assert (done.returncode, arguments) == (0, [])


@pytest.mark.parametrize("content", [b"", b"\n# only a remark\n", b"nothing\nhere\n", bytes(range(256)) * 50])
def test_a_list_without_a_video_is_an_error_in_one_sentence(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match="names no video"):
        plan_download(tmp_path / "list.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_read_or_written_are_errors_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        plan_download(tmp_path / "missing.txt", tmp_path / "out")
    source = write(tmp_path, "abcdefghijk\n")
    with pytest.raises(InputError, match="cannot be written"):
        plan_download(source, source)


@pytest.mark.parametrize("limits", [{"height": 0}, {"max_size": "500M]; rm"}, {"max_size": ""}, {"max_size": "-5M"}])
def test_limits_that_are_none_are_refused(tmp_path, limits):
    with pytest.raises(InputError, match="720 and 500M"):
        plan_download(write(tmp_path, "abcdefghijk\n"), tmp_path / "out", **limits)


PIECE = st.one_of(
    st.text(max_size=12), st.sampled_from(["..", ".", "/", "a", "+", "-rf", "%(id)s", "$(id)", "'", "~", "abcdefghijk"])
)
LINE = st.one_of(
    st.binary(max_size=40),
    st.lists(PIECE, max_size=5).map(lambda pieces: "+".join(pieces).encode("utf-8", "replace")),
    st.tuples(PIECE, PIECE, st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True)).map(
        lambda parts: "+".join(parts).encode()
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINE, max_size=8))
def test_any_bytes_are_a_list_or_an_error_and_stay_in_the_folder(tmp_path, lines):
    source, out = tmp_path / "list.txt", tmp_path / "out"
    source.write_bytes(b"\n".join(lines))
    try:
        plan = plan_download(source, out)
    except InputError:
        return
    rows = manifest(out)
    assert len(rows) == len(plan.list.videos) == len({row["id"] for row in rows})
    for row in rows:
        depth = 3 if row["country"] else 1
        assert len(Path(row["file"]).parts) == depth
        assert len((out / row["file"]).resolve().relative_to(out.resolve()).parts) == depth
    assert subprocess.run(["bash", "-n", plan.script]).returncode == 0
