"""Opening a page of the explorer in a test, and reading what it says. The folders of runs are fixtures of conftest.py."""

import html
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from streamlit.testing.v1 import AppTest

from lab.data import load

EXPLORER = Path(__file__).parent.parent / "apps" / "explorer.py"
KINDS = ("title", "subheader", "markdown", "caption", "text", "info", "error", "success", "code", "warning")


def open_page(page: str, **query) -> AppTest:
    """A page of apps/views/ as its URL with these parameters opens it; an exception in it fails the test."""
    app = AppTest.from_file(str(EXPLORER), default_timeout=120)
    app.query_params.update(query)
    app.run()
    if page != "overview":
        app.switch_page(f"views/{page}.py").run()
    assert not app.exception, f"{page}: {app.exception}"
    return app


def words(app: AppTest) -> str:
    """All that a page says, in one string."""
    return "\n".join(element.value for kind in KINDS for element in app.get(kind))


def links(app: AppTest) -> dict[str, tuple[str, dict[str, list[str]]]]:
    """The links to other pages, by what they say: the page's name in the address, and its choices."""
    bodies = [element.proto.body for element in app.get("html")]
    found = [re.search(r'<a class="lab-link" href="([^"]*)"><span[^>]*>[^<]*</span>(.*)</a>', body) for body in bodies]
    return {html.unescape(match[2]): split(html.unescape(match[1])) for match in found if match}


def left_for(app: AppTest) -> tuple[str, dict[str, list[str]]] | None:
    """The page that the browser is told to open instead of this one, and its choices."""
    found = (re.search(r"window\.location\.assign\((.*)\)</script>", one.proto.body) for one in app.get("html"))
    return next((split(json.loads(match[1])) for match in found if match), None)


def split(address: str) -> tuple[str, dict[str, list[str]]]:
    """Page and choices in a relative address."""
    parts = urlsplit(address)
    return parts.path.removeprefix("./"), parse_qs(parts.query)


def downloads(app: AppTest) -> list[str]:
    """How the files are called that the buttons of a page and the cameras of its charts save, without their endings."""
    buttons = [re.search(r"-(?:csv|png) (.*)$", button.proto.id)[1] for button in app.get("download_button")]
    charts = [json.loads(chart.proto.config)["toImageButtonOptions"]["filename"] for chart in app.get("plotly_chart")]
    return buttons + charts


def pictures(app: AppTest) -> list:
    """The pictures of a page without the thumbnails of the queries."""
    return [image for image in app.get("image") if not image.proto.imgs[0].alt.startswith("Query ")]


def write_csv(market: Path, out: Path) -> Path:
    """The data of the fixture `market` as a data set "folder": data.csv beside `out`."""
    data = load("market1501", market)
    lines = ["path,pid,camid,split"]
    for name in ("train", "query", "gallery"):
        split = getattr(data, name)
        rows = zip(split.path, split.pid, split.camid, strict=True)
        lines += [f"{path},{pid},{camid},{name}" for path, pid, camid in rows]
    file = out.parent / "data.csv"
    file.write_text("\n".join(lines))
    return file
