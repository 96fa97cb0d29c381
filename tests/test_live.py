"""Figures that answer to sliders, in JupyterLab with a kernel: each control draws anew, and its name can be read.

Needs Playwright for Python and a Chromium (Debian's package `chromium`, or CHROMIUM=/path/to/it); skipped without them.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's package chromium")
CELL = """
import numpy as np
from ipywidgets import Checkbox, Dropdown, FloatLogSlider, IntSlider
from lab.show import figures
from lab.show.live import explore, in_notebook

in_notebook()

def draw(number, temperature, branch, jitter, columns=1):
    title = f"{number} {temperature} {branch} {jitter}"
    return figures.contact_sheet([np.zeros((64, 32, 3), np.uint8)], [""], columns, title)

explore(
    draw,
    number=IntSlider(value=3, min=0, max=900),
    temperature=FloatLogSlider(value=0.1, base=10, min=-2, max=0, step=0.1, description="smallest softmax"),
    branch=Dropdown(options=["b1", "b2"]),
    jitter=Checkbox(value=False, description="colour jitter, strong"),
)
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A JupyterLab on a free port, with the cell above as live.ipynb and no settings of whoever runs the test."""
    folder = tmp_path_factory.mktemp("jupyter")
    (folder / "notebooks").mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel)
    nbformat.write(notebook, folder / "notebooks" / "live.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = os.environ | {name: str(folder / name) for name in (*own, "IPYTHONDIR")}
    environment.pop("LAB_STATIC", None)  # set in this process once a page was rendered
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ServerApp.token="]
    options = [f"--port={port}", f"--ServerApp.root_dir={folder / 'notebooks'}"]
    started = subprocess.Popen(command + options, env=environment, cwd=Path(__file__).parents[1])
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://localhost:{port}/api", timeout=5)
                break
            except OSError:
                assert started.poll() is None, "the server ended"
                time.sleep(0.5)
        yield f"http://localhost:{port}/lab/tree/live.ipynb"
    finally:
        started.terminate()
        started.wait(30)


def move(control) -> None:
    """One step, as a hand would."""
    if control.locator("select").count():
        control.locator("select").select_option(index=1)
    elif control.locator("input[type=checkbox]").count():
        control.locator("input[type=checkbox]").check()
    else:
        control.locator(".noUi-handle").press("ArrowRight")


def test_each_control_draws_anew_and_its_name_is_not_cut(address):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.goto(address)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=120_000)
        page.locator(".jp-CodeCell .cm-content").click()
        page.keyboard.press("Control+Enter")
        pictures = page.locator(".widget-interact img")
        pictures.wait_for(timeout=120_000)
        controls = page.locator(".widget-interact > *:not(.widget-output)")
        assert controls.count() == 4  # none for `columns`
        for control in controls.all():
            before = pictures.get_attribute("src")
            move(control)
            page.wait_for_function(
                "before => document.querySelector('.widget-interact img')?.src !== before", arg=before, timeout=60_000
            )
            assert pictures.count() == 1
            assert control.locator(".widget-label, .widget-readout").evaluate_all(
                "parts => parts.every(part => part.scrollWidth <= part.clientWidth)"
            ), control.inner_text()
        assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        browser.close()
