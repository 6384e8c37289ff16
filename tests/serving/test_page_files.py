"""The page's files are in the package, ask nothing of other hosts, and never make markup of text."""

import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from hourllava import serving

PAGE = Path(serving.__file__).parent / "page"
ALL = sorted(PAGE.rglob("*"))
SCRIPTS = [path for path in ALL if path.suffix == ".js"]
STYLES = [path for path in ALL if path.suffix == ".css"]
INDEX = PAGE / "index.html"
NAMES_OF_SVG = "http://www.w3.org/2000/svg"  # a name, never loaded

MARKUP_OF_TEXT = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|DOMParser|document\.write|srcdoc|eval)\b"
    r"|new Function|setTimeout\(\s*[\"'`]|setHTMLUnsafe"
)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def imports_of(script: Path) -> list[str]:
    return re.findall(r'^import (?:[^;"]* from )?"([^"]+)";', text_of(script), flags=re.M)


class Markup(HTMLParser):
    """Tags of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inline = ""
        self.feed(text_of(INDEX))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inline += data.strip()


def test_the_page_is_in_the_package():
    packaged = files("hourllava.serving") / "page"
    assert (packaged / "index.html").is_file()
    assert {path.suffix for path in ALL} == {".html", ".css", ".js", ".svg"}


def test_every_file_is_reached_from_the_index_and_is_there():
    tags = Markup().tags
    reached = {
        attributes[name].removeprefix("page/")
        for _, attributes in tags
        for name in ("src", "href")
        if attributes.get(name, "#")[0] != "#"
    }
    waiting = [name for name in reached if name.endswith(".js")]
    while waiting:
        for name in imports_of(PAGE / waiting.pop()):
            assert name.startswith("./"), name
            if name[2:] not in reached:
                reached.add(name[2:])
                waiting.append(name[2:])
    assert reached == {path.name for path in ALL} - {"index.html"}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_no_file_names_another_host(path):
    text = text_of(path).replace(NAMES_OF_SVG, "").replace('"https://"', "")  # the hint in a field for addresses
    assert not re.findall(
        r"(?:https?:)?//[\w.-]+\.\w+|\bwss?://|@import|url\(", re.sub(r"^\s*//.*$", "", text, flags=re.M)
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_text(path):
    assert not MARKUP_OF_TEXT.findall(text_of(path))
    assert len(text_of(path).splitlines()) < 400
    assert text_of(path).startswith("// "), "the first line says what the file is for"


def test_the_index_runs_under_a_strict_policy():
    markup = Markup()
    assert not markup.inline
    for tag, attributes in markup.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_requests_are_sent_by_one_module():
    senders = {
        path.name
        for path in SCRIPTS
        if re.search(r"\bfetch\(|XMLHttpRequest\(|EventSource\(|WebSocket\(", text_of(path))
    }
    assert senders == {"api.js"}
