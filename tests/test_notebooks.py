"""Notebooks run from top to bottom, their answers too, keep the rules of the series, and become a book.

LAB_DEMO names a folder that `lab demo` made, as in CI; without it they run on a smaller one, with an epoch of training.
"""

import importlib.util
import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import nbformat
import pytest

from lab.data.synthetic import SyntheticConfig, write
from lab.demo import PRETRAINED, Demo, Plan
from lab.errors import InputError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
PAGES = [*NOTEBOOKS, *sorted(FOLDER.glob("*.md"))]
SMALL = SyntheticConfig(
    num_train_ids=80, num_test_ids=30, num_distractors=40, num_junk=10, num_unlabeled=320, people_unlabeled=60
)
PARAMETERS = 'SIZE = "tiny"', 'FOLDER = "../demo"', "ROOT = None"

_spec = importlib.util.spec_from_file_location("book", FOLDER / "book.py")
book = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(book)

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    if "LAB_DEMO" in os.environ:
        return Path(os.environ["LAB_DEMO"])
    folder = tmp_path_factory.mktemp("demo")
    write(folder / "data", SMALL)
    plan = Plan(1.0, 1.0, pretrain_epochs=2, finetune_epochs={"10": 1, "100": 1})
    (folder / "plan.json").write_text(json.dumps(asdict(plan)))
    return folder


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def words(path: Path) -> str:
    """All text that is no code."""
    if path.suffix == ".md":
        return path.read_text()
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def pictures(notebook: nbformat.NotebookNode) -> int:
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in data or "application/vnd.plotly.v1+json" in data for data in shown)


def test_the_series_is_whole():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(11)]


@each_notebook
def test_it_runs_with_its_answers(path, demo):
    executed = book.run(path, demo)
    assert sum("answer" in cell.metadata.get("tags", []) for cell in executed.cells) >= 1
    assert pictures(executed) >= 3


@each_notebook
def test_source_and_notebook_are_in_step(path):
    source = FOLDER / "source" / f"{path.stem}.py"
    assert nbformat.writes(book.read_source(source)) + "\n" == path.read_text(), "python notebooks/book.py sync"


@each_notebook
def test_outputs_are_stripped(path):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(path))


@each_notebook
def test_it_begins_with_what_it_is_for_and_with_its_parameters(path):
    first, second = read(path).cells[:2]
    assert re.match(rf"# {path.name[:2]} · \S", first.source)
    for word in ("Goal", "Needs", "Makes", "Minutes"):
        assert f"| **{word}** | " in first.source
    assert second.metadata.tags == ["parameters"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code_cells(path)) == 1
    for setting in PARAMETERS:
        assert setting in second.source


@each_notebook
def test_code_is_short_and_comes_after_words(path):
    cells = code_cells(path)
    kinds = [cell.cell_type for cell in read(path).cells]
    assert kinds.count("markdown") >= kinds.count("code") / 2
    assert not any(re.search(r"^\s*class ", cell.source, re.MULTILINE) for cell in cells), "classes belong in lab"
    statements = [re.findall(r"^(?!\s*$|import |from ).*", cell.source, re.MULTILINE) for cell in cells]
    long = [lines[0] for lines in statements if len(lines) > 10]
    assert len(long) <= len(cells) // 10, "code cells are short: move code into lab"


@each_notebook
def test_it_ends_with_three_exercises_whose_answers_are_collapsed(path):
    exercises = words(path).split("\n## Exercises", 1)[1]
    assert re.findall(r"^\*\*(\d)\. ", exercises, re.MULTILINE) == ["1", "2", "3"]
    assert exercises.count("<details>") == exercises.count("</details>") >= 3
    assert "```python" not in re.sub(r"<details>.*?</details>", "", exercises, flags=re.DOTALL)


@each_notebook
def test_it_leads_to_the_paper_the_code_and_the_explorer(path):
    text = words(path)
    assert "arxiv.org/abs/2012.03753" in text
    assert "](../lab/" in text
    assert "http://localhost:8501" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_files_resolve(path):
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", words(path)) if "://" not in link]
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_lists_every_notebook():
    table = (ROOT / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"](notebooks/{path.name})" not in table] == []


def test_terms_that_the_glossary_explains_are_words_of_the_notebook_it_names():
    for line in (FOLDER / "glossary.md").read_text().splitlines():
        found = re.match(r"\| \*\*(.+?)\*\* \| .* \| \[\d\d\]\((\S+)\) \|", line)
        if found:
            terms = [term.strip() for term in re.split(r", | and ", re.sub(r" \(.*\)", "", found[1]))]
            text = words(FOLDER / found[2]).lower()
            assert any(term.lower() in text for term in terms), f"{found[2]} does not speak of {found[1]}"


def test_a_page_of_the_book_has_figures_and_no_answers_outputs_or_bars(tmp_path):
    notebook = nbformat.v4.new_notebook()
    code, markdown = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    notebook.cells = [
        markdown(
            "# 05 · Title\nsee [the code](../lab/runs.py), [next](06_reranking.ipynb) and [paper](https://a.b/c): $k_1$, `$no$`"
        ),
        code("print('seen')", outputs=[nbformat.v4.new_output("stream", name="stdout", text="seen")]),
        code("", outputs=[nbformat.v4.new_output("stream", name="stderr", text="50%|bar")]),
        code("secret", metadata={"tags": ["answer"]}),
    ]
    path = next(path for path in NOTEBOOKS if path.name.startswith("05"))
    html = book.page(notebook, path, tmp_path)
    assert 'href="06_reranking.html"' in html
    assert 'href="project/lab/runs.py.html"' in html
    assert 'href="https://a.b/c"' in html
    assert "<msub><mi>k</mi><mn>1</mn></msub>" in html
    assert "$no$" in html
    assert "class" in (tmp_path / "project/lab/runs.py.html").read_text()
    assert "seen" in html
    assert "50%|bar" not in html
    assert "secret" not in html
    assert 'href="04_finetuning.html"' in html


def test_the_newer_form_of_a_notebook_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(book, "HERE", tmp_path)
    monkeypatch.setattr(book, "SOURCES", tmp_path / "source")
    source, notebook = tmp_path / "source" / "01_a.py", tmp_path / "01_a.ipynb"
    source.parent.mkdir()
    source.write_text('# %% [markdown]\n# # Title\n\n# %% tags=["parameters"]\nx = 1\n')
    assert book.sync() == ["01_a.ipynb"]
    cells = read(notebook)
    assert [(cell.cell_type, cell.source, cell.id) for cell in cells.cells] == [
        ("markdown", "# Title", "01-000"), ("code", "x = 1", "01-001"),
    ]  # fmt: skip
    assert book.sync() == []
    cells.cells[1].source = "x = 2"
    cells.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
    notebook.write_text(nbformat.writes(cells))
    os.utime(notebook, (2e9, 2e9))
    assert book.sync() == ["01_a.py", "01_a.ipynb"]
    assert source.read_text() == '# %% [markdown]\n# # Title\n\n# %% tags=["parameters"]\nx = 2\n'
    assert read(notebook).cells[1].outputs == []


def test_the_demo_says_what_it_lacks(tmp_path):
    with pytest.raises(InputError, match=r'^there is no size \'large\'; choose "tiny" or "paper"$'):
        Demo(tmp_path, "large")
    with pytest.raises(InputError, match="no folder was given; set ROOT to that of Market-1501"):
        Demo(tmp_path, "paper")
    with pytest.raises(InputError, match=r"^the demo has no run 'x'; it has baseline-histogram, .*, shipped-100$"):
        Demo(tmp_path).run("x")
    with pytest.raises(InputError, match="set UNLABELED to a folder of them"):
        _ = Demo(tmp_path, "paper", root=tmp_path).unlabeled
    assert Demo(tmp_path, "paper", root=tmp_path).config(PRETRAINED).batch_size == 2560
    assert list(tmp_path.iterdir()) == []
