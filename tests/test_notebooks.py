"""Notebooks run from top to bottom on a small demo, their answers too, and keep the rules of the series."""

import re
from pathlib import Path

import nbformat
import pytest
from make_demo import make_demo
from nbclient import NotebookClient

from lab.errors import InputError
from lab.runs import find_runs

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
TOUR = next(path for path in NOTEBOOKS if path.name == "00_tour.ipynb")


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """What `lab demo` leaves, small."""
    folder = make_demo(tmp_path_factory.mktemp("demo"), checkpoint=True)
    (folder / "results.csv").write_text("run\n")
    return folder


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_parameters(notebook: nbformat.NotebookNode, **values) -> nbformat.NotebookNode:
    """The notebook with its parameters cell replaced, as papermill does."""
    cell = next(cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", []))
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    return notebook


def answers(notebook: nbformat.NotebookNode) -> list[str]:
    """The code in the collapsed answers."""
    return [
        code
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for code in re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)
    ]


def test_tour_runs_with_its_answers(demo):
    """Also when a run was evaluated in other ways and on other data since the demo."""
    run = next(run for run in find_runs(demo / "runs") if run.config.get("stage") == "finetune")
    for name in ("other", "synthetic-aqe", "synthetic-rerank-variant_luperson"):
        run.save_result(name, run.result("synthetic"))
    notebook = with_parameters(read(TOUR), DEMO=str(demo))
    notebook.cells += [nbformat.v4.new_code_cell(code) for code in answers(notebook)]
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(TOUR.parent))
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    charts = [output for output in outputs if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert len(pictures) == 10
    assert len(charts) == 3


def test_tour_without_a_demo_says_how_to_make_one(tmp_path):
    cells = code_cells(with_parameters(read(TOUR), DEMO=str(tmp_path / "nothing")))
    source = "\n".join(line for cell in cells[:2] for line in cell.source.splitlines() if not line.startswith("%"))
    with pytest.raises(InputError, match="lab demo --out"):
        exec(source, {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_rules_of_the_series(path):
    notebook = read(path)
    cells = code_cells(notebook)
    header = notebook.cells[0].source
    for word in ("Goal", "Needs", "Makes", "Minutes"):
        assert f"**{word}**" in header
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert all(not cell.outputs and cell.execution_count is None for cell in cells), "strip the outputs: nbstripout"
    assert not any(re.search(r"^\s*class ", cell.source, re.MULTILINE) for cell in cells)
    long = [cell.source for cell in cells if len(cell.source.splitlines()) > 10]
    assert len(long) <= max(1, len(cells) // 10), "code cells are short: move code into lab"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_words_come_before_code(path):
    kinds = [cell.cell_type for cell in read(path).cells]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") >= kinds.count("code") / 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_to_files_resolve(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_three_exercises_have_collapsed_answers(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    exercises = text.split("Exercises", 1)[1]
    assert len(re.findall(r"^\*\*\d\. ", exercises, re.MULTILINE)) == 3
    assert exercises.count("<details>") == exercises.count("</details>") >= 3
