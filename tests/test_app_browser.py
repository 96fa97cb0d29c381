"""The explorer in a real browser: choose, click a point, follow it to a rank list, open its URL again, save a table.

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
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from app_pages import EXPLORER
from make_demo import make_run

from lab.data import load
from lab.runs import Run

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's package chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
LONG = ("finetune-tiny-synthetic-from-luperson-seed-0", "finetune-tiny-synthetic-from-luperson-seed-1")
PAGES = ("", "rank_lists", "attention", "compare", "study", "distances", "embedding", "training", "search", "data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, market) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    dataset = load("market1501", market)
    for name, noise in {"good": 0.6, "middle": 1.2, "bad": 5.0, **dict.fromkeys(LONG, 9.0)}.items():
        make_run(folder / name, dataset, noise)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The address of an explorer that runs on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(EXPLORER), "--server.port", str(port)]
    environment = os.environ | {"LAB_RUNS": str(folder), "LAB_DATA": ""}
    root = EXPLORER.parents[1]  # where .streamlit/config.toml is
    started = subprocess.Popen([*command, "--server.headless", "true"], env=environment, cwd=root)
    address = f"http://localhost:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=5)
                break
            except OSError:
                assert started.poll() is None, "the server ended"
                time.sleep(0.5)
        yield address
    finally:
        started.terminate()
        started.wait(30)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(90_000)
    yield context.new_page()
    context.close()


def visit(page, address: str) -> None:
    page.goto(address)
    settle(page)


def settle(page) -> None:
    """Wait until the script has run and everything is on the page."""
    page.wait_for_selector("h1")
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget], [data-stale=true]')")
    page.wait_for_timeout(700)


def test_every_page_opens_without_a_message_of_failure(page, server):
    for name in PAGES:
        visit(page, f"{server}/{name}")
        assert page.locator("[data-testid=stException]").count() == 0, name
        assert page.locator("h1").first.inner_text()


def test_point_leads_to_its_rank_list_whose_address_opens_the_same_view(page, server, folder):
    visit(page, f"{server}/compare?run=good&run=bad")
    page.locator(".js-plotly-plot .scatterlayer .trace .points path").last.click(force=True)
    page.wait_for_url("**/rank_lists**")
    settle(page)
    chosen = parse_qs(urlsplit(page.url).query)
    assert sorted(chosen["run"]) == ["bad", "good"]
    query = int(chosen["query"][0].split(" ")[0])
    assert 0 <= query < Run(folder / "good").result("market1501").num_query
    before = [image.get_attribute("alt") for image in page.locator("img[alt^='Rank list']").all()]
    assert len(before) == 2
    address = page.url
    page.goto("about:blank")
    visit(page, address)
    assert [image.get_attribute("alt") for image in page.locator("img[alt^='Rank list']").all()] == before


def chosen_runs(page) -> list[str]:
    """The runs that the sidebar says."""
    return [chip.inner_text() for chip in page.locator(".stSidebar .st-key-run [data-tag]:visible").all()]


def test_back_returns_from_a_point_to_the_page_as_it_was(page, server):
    visit(page, f"{server}/compare?run=good&run=bad&rerank=true&changed=10")
    before = page.url
    page.locator(".js-plotly-plot .scatterlayer .trace .points path").last.click(force=True)
    page.wait_for_url("**/rank_lists**")
    settle(page)
    page.go_back()
    settle(page)
    assert page.url == before
    assert page.locator("h1").inner_text() == "Which run is better, and where?"
    assert chosen_runs(page) == ["good", "bad"]


def test_a_link_says_each_choice_once_and_back_returns_from_it(page, server):
    visit(page, f"{server}/compare?run=good&run=bad&where=cameras")
    before = page.url
    page.get_by_role("link", name="Their rank lists").click()
    page.wait_for_url("**/rank_lists**")
    settle(page)
    assert parse_qs(urlsplit(page.url).query) == {"run": ["good", "bad"], "dataset": ["market1501"]}
    page.go_back()
    settle(page)
    assert page.url == before
    assert chosen_runs(page) == ["good", "bad"]


@pytest.mark.parametrize("width", [1024, 1280])
def test_names_of_runs_that_begin_alike_are_shown_whole(page, server, width):
    page.set_viewport_size({"width": width, "height": 900})
    visit(page, f"{server}/?run={LONG[0]}&run={LONG[1]}")
    for name in page.locator(".stSidebar .st-key-run [data-tag]:visible span").all():
        assert name.evaluate("name => name.scrollWidth <= name.clientWidth")  # nothing of it is cut
    assert chosen_runs(page) == list(LONG)


def test_charts_are_dark_on_a_dark_page_and_saved_for_white_paper(browser, server, tmp_path):
    for scheme, shown in (("light", "none"), ("dark", "invert(0.91) hue-rotate(180deg)")):
        context = browser.new_context(color_scheme=scheme, accept_downloads=True)
        context.set_default_timeout(90_000)
        page = context.new_page()
        visit(page, f"{server}/?run=good")
        chart = page.locator(".js-plotly-plot").first
        chart.hover()
        assert chart.evaluate("chart => getComputedStyle(chart).filter") == shown
        with page.expect_download() as started:
            chart.locator("[data-title^=Download]").click()
        started.value.save_as(tmp_path / f"{scheme}.svg")
        assert started.value.suggested_filename == "all-runs-market1501-intervals-of-mAP.svg"
        context.close()
    light, dark = ((tmp_path / f"{scheme}.svg").read_text() for scheme in ("light", "dark"))
    assert "rgb(255, 255, 255)" in light
    assert dark.count("rgb(255, 255, 255)") == light.count("rgb(255, 255, 255)")


def test_choice_is_in_the_address_and_the_table_can_be_saved(page, server, folder, tmp_path):
    visit(page, f"{server}/rank_lists?run=bad")
    page.get_by_role("button", name="arrow_forward").click()
    settle(page)
    query = int(parse_qs(urlsplit(page.url).query)["query"][0].split(" ")[0])
    assert query == 1
    with page.expect_download() as started:
        page.get_by_role("button", name="CSV", exact=False).first.click()
    started.value.save_as(tmp_path / "list.csv")
    table = pd.read_csv(tmp_path / "list.csv")
    result = Run(folder / "bad").result("market1501")
    assert table["gallery index"].tolist() == result.index[1][result.index[1] >= 0].tolist()


def test_server_answers_on_this_machine_only(server):
    port = urlsplit(server).port
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this machine has no address but the local one")
    with socket.socket() as outside:
        outside.settimeout(5)
        assert outside.connect_ex((own, port)) != 0
