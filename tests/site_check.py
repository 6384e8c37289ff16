"""A built site needs nothing from other hosts, and all of its links and anchors lead somewhere.

    python tests/site_check.py site

Run by `make docs`; the standard library is all it needs.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes from which a browser loads something without being asked.
LOADED = {
    "link": ("href",), "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",),
    "video": ("src", "poster"), "audio": ("src",), "embed": ("src",), "object": ("data",),
}  # fmt: skip
UNLOADED_LINKS = {"canonical", "prev", "next", "alternate"}
OUTSIDE = re.compile(r"(?:https?:)?//", re.IGNORECASE)


class Page(HTMLParser):
    """What a page loads, what it links to, and the anchors it has."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif not (tag == "link" and given.get("rel") in UNLOADED_LINKS):
            self.loaded += [given[name] for name in LOADED.get(tag, ()) if name in given]


def problems(site: Path) -> list[str]:
    """One line for each fault of the site."""
    site = site.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"{site} holds no page"]
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses depend on where it is shown
            continue
        found += [f"{path} loads {address} from another host" for address in page.loaded if OUTSIDE.match(address)]
        inside = [address for address in page.loaded if not OUTSIDE.match(address) and not address.startswith("data:")]
        for address in inside + [link for link in page.links if not urlsplit(link).scheme]:
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or site not in target.parents:
                found.append(f"{path} needs {address}, which is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{path} links to {address}; there is no such anchor")
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path} loads {match} from another host" for match in re.findall(r"url\([\"']?((?:https?:)?//[^)]+)", text)
        ]
    return found


def main() -> None:
    found = problems(Path(sys.argv[1]))
    if found:
        sys.exit("\n".join(found))
    print(f"{sys.argv[1]}: nothing is loaded from other hosts, every link leads somewhere")


if __name__ == "__main__":
    main()
