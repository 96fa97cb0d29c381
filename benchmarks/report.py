"""What the tables of the benchmarks have in common."""

import subprocess
from pathlib import Path

import pandas as pd

from lab.runs import describe


def as_markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def short(value):
    """A number with three digits, or whole from 1,000 on; anything else as it is."""
    if not isinstance(value, float):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def commit() -> str:
    """The commit that was measured, and whether its code was changed since."""
    code = ["git", "diff", "--quiet", "HEAD", "--", "lab", "benchmarks/*.py"]
    changed = subprocess.run(code, cwd=Path(__file__).parents[1]).returncode == 1
    return f"{describe('benchmark', {})['commit']}{' with changes' * changed}"
