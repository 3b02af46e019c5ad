"""Checks the links of the documents on GitHub and of the built site: ``python -m tools.site.links [site]``.

Links within the repository and the site must exist, with their anchors. A page of the site must load nothing from
elsewhere. Links to other places are listed with ``--external``; they are not fetched.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}  # what a browser loads
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^( *)```.*?^\1```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
MADE = "docs/reference/settings.md"  # exists in the site only


@dataclass
class Html(HTMLParser):
    """The anchors, links and loaded files of a page."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag names."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in LOADED and LOADED[tag] in values and values.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(values[LOADED[tag]])


def site_faults(site: Path) -> tuple[list[str], set[str]]:
    """Return the faults of a built site, and its links to other places."""
    pages = {file.relative_to(site).as_posix(): Html() for file in sorted(site.rglob("*.html"))}
    for name, page in pages.items():
        page.feed((site / name).read_text(encoding="utf-8"))
    faults: list[str] = []
    external: set[str] = set()
    for name, page in pages.items():
        faults += [f"{name} loads {place}" for place in page.loaded if urlsplit(place).scheme not in ("", "data")]
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                external |= {link} if parts.scheme in ("http", "https") else set()
            elif name != "404.html":  # its links are absolute: it is shown at any address
                faults += _missing(name, unquote(parts.path), unquote(parts.fragment), site, pages)
    return faults, external


def _missing(name: str, path: str, anchor: str, site: Path, pages: dict[str, Html]) -> Iterator[str]:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
    target = f"{target}/index.html" if (site / target).is_dir() else target
    if not (site / target).is_file():
        yield f"{name} links to {path}, which does not exist"
    elif anchor and target in pages and anchor not in pages[target].anchors and anchor != "__skip":
        yield f"{name} links to {target}#{anchor}, and there is no such anchor"


def document_faults(root: Path = ROOT) -> tuple[list[str], set[str]]:
    """Return the faults of the links in the Markdown documents, as GitHub shows them, and their external links."""
    faults, external = [], set()
    for file in sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("results/**/*.md")]):
        name = file.relative_to(root).as_posix()
        for link in LINK.findall(CODE.sub("", file.read_text(encoding="utf-8"))):
            if urlsplit(link).scheme:
                external.add(link)
                continue
            path, _, anchor = link.partition("#")
            target = (file.parent / unquote(path)).resolve() if path else file
            if target == root / MADE:
                continue
            if not target.exists() or not target.is_relative_to(root):
                faults.append(f"{name} links to {link}, which does not exist")
            elif anchor and target.suffix == ".md" and anchor not in github_anchors(target.read_text(encoding="utf-8")):
                faults.append(f"{name} links to {link}, and there is no such heading")
    return faults, external


def github_anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a document.

    >>> sorted(github_anchors("# 16 bits: one product or two\\n## `fit` again\\n## `fit` again\\n"))
    ['16-bits-one-product-or-two', 'fit-again', 'fit-again-1']
    """
    found: set[str] = set()
    for heading in HEADING.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def main(args: list[str]) -> int:
    """Print the faults, and with ``--external`` the links to other places; return the exit status."""
    faults, external = document_faults()
    for site in (Path(arg) for arg in args if not arg.startswith("-")):
        more, others = site_faults(site)
        faults, external = faults + more, external | others
    print("\n".join([*faults, *(sorted(external) if "--external" in args else [])]))
    print(f"{len(faults)} faults; {len(external)} links to other places, not fetched", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
