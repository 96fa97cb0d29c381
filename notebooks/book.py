"""The series in three forms: `source/*.py` to review, `*.ipynb` to run, and a book of HTML pages to read.

    python notebooks/book.py sync                               # after an edit of either form: the newer one wins
    python notebooks/book.py render --out book --folder demo    # run all, answers too, and write the book
    python notebooks/book.py render 02 05 --out book            # some of them

A source is a Python file whose cells begin with `# %%` (jupytext's percent format). Notebooks are kept without outputs and
with cell names that follow from their place, so that a diff shows what somebody changed and nothing else.
"""

import argparse
import os
import re
import shutil
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from latex2mathml.converter import convert
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCES = HERE / "source"
FORMAT = {"extension": ".py", "format_name": "percent"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
ANSWER = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"(\]\(|href=\")([^)#\"\s]+)((?:#[^)\"\s]*)?[)\"])")
FORMULA = re.compile(r"(?P<code>```.*?```|`[^`\n]+`)|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)
SECONDS = 600  # for one cell


def notebooks(names: list[str] | None = None) -> list[Path]:
    """All notebooks in order, or those whose names begin so."""
    found = sorted(HERE.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return found
    unknown = [name for name in names if not any(path.name.startswith(name) for path in found)]
    if unknown:
        raise SystemExit(f"there is no notebook {unknown[0]}; there are {', '.join(path.stem for path in found)}")
    return [path for path in found if path.name.startswith(tuple(names))]


# Two forms of one notebook


def read_source(file: Path) -> NotebookNode:
    """The notebook that a source describes, tidied."""
    return tidied(jupytext.read(file, fmt=FORMAT), file.stem)


def tidied(notebook: NotebookNode, name: str) -> NotebookNode:
    """Without outputs and private metadata; cells are named by number, such as "02-007"."""
    cells = []
    for number, cell in enumerate(notebook.cells):
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        tags = cell.metadata.get("tags")
        cells.append(
            make(cell.source.strip("\n"), metadata={"tags": tags} if tags else {}, id=f"{name[:2]}-{number:03d}")
        )
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})


def sync() -> list[str]:
    """Bring the two forms of every notebook in step; returns the names of the files that were written."""
    written = []
    for name in sorted({path.stem for path in (*SOURCES.glob("[0-9]*.py"), *HERE.glob("[0-9]*.ipynb"))}):
        source, notebook = SOURCES / f"{name}.py", HERE / f"{name}.ipynb"
        newer = max((path for path in (source, notebook) if path.exists()), key=lambda path: path.stat().st_mtime)
        cells = read_source(source) if newer == source else tidied(nbformat.read(notebook, as_version=4), name)
        for path, text in ((source, source_text(cells)), (notebook, nbformat.writes(cells) + "\n")):
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
                written.append(path.name)
    return written


def source_text(notebook: NotebookNode) -> str:
    bare = notebook.copy()
    bare.metadata = NotebookNode(jupytext={"notebook_metadata_filter": "-all", "cell_metadata_filter": "tags"})
    return jupytext.writes(bare, fmt=FORMAT).lstrip()


# Running


def parameters_cell(notebook: NotebookNode) -> NotebookNode:
    return next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))


def with_parameters(notebook: NotebookNode, **values) -> NotebookNode:
    """The notebook with some of its parameters set, as papermill does: in a cell behind its own parameters."""
    place = notebook.cells.index(parameters_cell(notebook)) + 1
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(place, nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]}))
    return notebook


def answers(notebook: NotebookNode) -> list[str]:
    """The code in the collapsed answers."""
    return [code for cell in notebook.cells if cell.cell_type == "markdown" for code in ANSWER.findall(cell.source)]


def run(path: Path, folder: Path) -> NotebookNode:
    """The notebook executed on the demo's `folder`, its answers after it; raises nbclient's CellExecutionError."""
    notebook = with_parameters(nbformat.read(path, as_version=4), FOLDER=str(folder.resolve()))
    added = [nbformat.v4.new_code_cell(code, metadata={"tags": ["answer"]}) for code in answers(notebook)]
    notebook.cells += added
    os.environ["LAB_STATIC"] = "1"
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3").execute(cwd=str(HERE))
    return notebook


# The book


def render(names: list[str], out: Path, folder: Path) -> None:
    """Run the notebooks one after another and write OUT/*.html and OUT/index.html; prints the minutes of each."""
    out.mkdir(parents=True, exist_ok=True)
    chosen = notebooks(names)
    for path in chosen:
        began = time.monotonic()
        executed = run(path, folder)
        (out / f"{path.stem}.html").write_text(page(executed, path, out))
        print(f"{path.stem}: {time.monotonic() - began:.0f} s", flush=True)
    (out / "index.html").write_text(index())
    print(f"the book is in {out / 'index.html'}")


def page(executed: NotebookNode, path: Path, out: Path) -> str:
    """A notebook as one HTML page: no answers' outputs, no progress bars, links to pages of the book."""
    skipped = {"answer", "injected-parameters"}
    executed.cells = [cell for cell in executed.cells if not skipped & set(cell.metadata.get("tags", []))]
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        else:
            cell.source = with_formulas(with_links(cell.source, out))
    executed.cells = [nbformat.v4.new_markdown_cell(neighbours(path)), *executed.cells]
    executed.cells.append(nbformat.v4.new_markdown_cell(neighbours(path)))
    exporter = HTMLExporter(template_name="lab", exclude_input_prompt=True, exclude_output_prompt=True)
    text, _ = exporter.from_notebook_node(executed, resources={"metadata": {"name": title(path)}})
    return text


def neighbours(path: Path) -> str:
    """Links to the pages before and after."""
    series = notebooks()
    place = series.index(path)
    links = ["[all notebooks](index.html)"]
    if place:
        links.insert(0, f"[← {title(series[place - 1])}]({series[place - 1].stem}.html)")
    if place + 1 < len(series):
        links.append(f"[{title(series[place + 1])} →]({series[place + 1].stem}.html)")
    return " · ".join(links)


def title(path: Path) -> str:
    return nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")


def with_links(text: str, out: Path) -> str:
    """Links to notebooks lead to their pages, links to files of the project to coloured copies in OUT/project."""

    def change(found: re.Match) -> str:
        before, link, after = found.groups()
        target = (HERE / link).resolve()
        if "://" in link or not target.is_file():
            return found.group()
        if target.suffix == ".ipynb":
            return f"{before}{target.stem}.html{after}"
        return f"{before}{copied(target, out)}{after}"

    return LINK.sub(change, text)


def with_formulas(text: str) -> str:
    """TeX between dollars as MathML, which browsers show without a script from the network; code is left alone."""

    def change(found: re.Match) -> str:
        if found["code"]:
            return found.group()
        display = "block" if found["block"] else "inline"
        return convert(found["block"] or found["inline"], display=display).replace("\n", " ")

    return FORMULA.sub(change, text)


def copied(file: Path, out: Path) -> str:
    """A file of the project as a page of the book, an image as it is; its address."""
    place = Path("project") / file.relative_to(ROOT)  # not "files", which nbconvert takes off
    if file.suffix in (".py", ".md", ".csv", ".toml", ".yml"):
        place = place.with_name(f"{place.name}.html")
        formatter = HtmlFormatter(full=True, linenos="inline", lineanchors="L", title=str(file.relative_to(ROOT)))
        content = highlight(file.read_text(), lexer_of(file), formatter)
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        (out / place).write_text(content)
    else:
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / place)
    return place.as_posix()


def lexer_of(file: Path) -> Lexer:
    try:
        return get_lexer_for_filename(file.name)
    except ClassNotFound:  # a table
        return TextLexer()


def index() -> str:
    """The list of notebooks, with the goal that each begins with."""
    rows = []
    for path in notebooks():
        goal = re.search(r"\*\*Goal\*\* \| (.*?) \|", nbformat.read(path, as_version=4).cells[0].source)
        rows.append(f"1. **[{title(path)}]({path.stem}.html)** {goal[1] if goal else ''}")
    text = "# Person re-identification, explained by running it\n\n" + "\n".join(rows)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    return HTMLExporter(template_name="lab").from_notebook_node(book, resources={"metadata": {"name": "LUPerson Lab"}})[
        0
    ]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("sync", help="bring *.ipynb and source/*.py in step")
    rendering = verbs.add_parser("render", help="run notebooks and write the book")
    rendering.add_argument("names", nargs="*", help="02, 05_evaluation, …; all without")
    rendering.add_argument("--out", type=Path, default=ROOT / "book", help="folder of the book")
    rendering.add_argument("--folder", type=Path, default=ROOT / "demo", help="the demo's folder, made where missing")
    options = parser.parse_args(arguments)
    if options.verb == "sync":
        print("\n".join(sync()) or "nothing to do")
    else:
        render(options.names, options.out, options.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
