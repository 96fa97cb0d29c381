"""Opening a page of the explorer in a test, and reading what it says. The folders of runs are fixtures of conftest.py."""

from pathlib import Path

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
