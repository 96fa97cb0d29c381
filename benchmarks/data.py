"""Speed and memory of the data part: building a store from a video, reading crops, and a store of a million records.

    python benchmarks/data.py --out benchmarks/results/data

Jobs take turns, round by round, because machines are shared and their speed drifts: what is compared is measured within one
round. Reported are medians over the rounds and medians of ratios within a round; memory is what a new process takes beyond
its imports. What is measured is in data_build.py (the published way of cutting crops too), data_reading.py, data_million.py.
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import lmdb
import pandas as pd
import simplejpeg
import torch
from data_build import measure_building
from data_million import measure_million
from data_reading import measure_reading
from report import as_markdown, commit, short

from lab.machine import cpu_name

SECTIONS = {"build": measure_building, "reading": measure_reading, "million": measure_million}
SHARED = Path(__file__).parents[2] / "shared" / "data"


def main() -> None:
    options, found, load = parse(), {}, [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.sections:
            found[name] = SECTIONS[name](options, Path(folder))
            load.append(os.getloadavg()[0])
    text = describe_run(found, load, options)
    print(f"\n{text}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        tables = [table.assign(section=name) for name, (parts, _) in found.items() for table in parts]
        pd.concat(tables).set_index(["section", "job"]).to_csv(f"{options.out}.csv", float_format="%.4g")
        Path(f"{options.out}.md").write_text(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="(default: all)")
    parser.add_argument("--video", type=Path, default=SHARED / "pets09-s2l1" / "vtest.avi", help="to build from")
    parser.add_argument("--detections", type=Path, default=SHARED / "pets09-s2l1" / "det.txt", help="its boxes")
    parser.add_argument(
        "--images", type=Path, default=SHARED / "market1501-dev", help="a folder of image files to read"
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--crops", type=int, default=4000, help="read in a turn (default: 4000)")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the large store (default: 1000000)")
    parser.add_argument("--folder", type=Path, help="where stores are written meanwhile (default: /tmp)")
    parser.add_argument("--out", type=Path, help="write OUT.csv and OUT.md")
    return parser.parse_args()


def describe_run(found: dict, load: list[float], options: argparse.Namespace) -> str:
    """The tables in Markdown, with what is needed to measure again."""
    lines = ["# Data: building a store, reading it, a million records"]
    for name, (tables, notes) in found.items():
        lines += ["", f"## {name.capitalize()}"]
        for table in tables:
            lines += ["", as_markdown(table.map(short))]
        lines += ["", *(f"- {note}" for note in notes)]
    versions = {"av": av, "OpenCV": cv2, "lmdb": lmdb, "simplejpeg": simplejpeg, "torch": torch}
    lines += [
        "",
        "## How",
        "",
        f"- {options.rounds} rounds; seconds are medians, ratios (x) medians of the ratios within a round",
        "- MB (10^6 bytes) are beyond what the process had after its imports; mapped ones are pages of files, which all "
        "processes share and the system takes back when it needs them",
        f"- machine: {cpu_name()}, {os.cpu_count()} cores; load before the first and after each section: "
        f"{', '.join(f'{value:.1f}' for value in load)} (processes that want to run, the benchmark's 1 to 2 included)",
        f"- {', '.join(f'{name} {module.__version__}' for name, module in versions.items())}, {time.strftime('%Y-%m-%d')}",
        f"- commit {commit()}, command: `python {shlex.join(sys.argv)}`",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
