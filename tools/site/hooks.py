"""Hooks of MkDocs (mkdocs.yml names this file): pages from other files, links between them, and flow charts.

Documents are written for GitHub: their links are paths in the repository. Here each link becomes one to a page of the
site. A link to a file that is no page is a warning, so that a strict build fails.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.site import flow_chart, notebook_page, settings_page

if TYPE_CHECKING:
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

logger = logging.getLogger("mkdocs.hooks.site")
ROOT = Path(__file__).parents[2]
NOTEBOOK = "notebooks/first_adapter"
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
FOLDERS = {"docs/": "", "results/": "studies/"}  # folder of the repository -> folder of the site
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
CHART = re.compile(r"^```mermaid\n(.*?)^```", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made: settings, the notebook, root documents and reports of studies."""
    from mkdocs.structure.files import File

    made = {"reference/settings.md": settings_page.page(), f"{NOTEBOOK}.md": notebook_page.page(docs(f"{NOTEBOOK}.ipynb"))}
    for source in ("CONTRIBUTING.md", "CHANGELOG.md"):
        made[PAGES[source]] = (ROOT / source).read_text(encoding="utf-8")
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    for file in sorted((ROOT / "results").rglob("*")):
        place = site_place(file.relative_to(ROOT).as_posix())
        if place is not None and file.suffix in (".md", ".svg"):
            files.append(File.generated(config, place, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Change the links of a document to those of the site, and draw its flow charts."""
    here = repository_place(page.file.src_uri)
    drawn = CHART.sub(lambda chart: _figure(chart, page.title), markdown)
    pieces = CODE.split(drawn)  # every second piece is code
    pieces[::2] = [LINK.sub(lambda link: link[1] + site_link(link[2], here) + link[3], piece) for piece in pieces[::2]]
    return "".join(pieces)


def docs(name: str) -> Path:
    """Return a file of the folder ``docs``."""
    return ROOT / "docs" / name


def site_place(path: str) -> str | None:
    """Return the place of a file of the repository in the site; ``None`` for a file that is not in the site.

    >>> site_place("docs/tasks.md"), site_place("results/methods/report.md"), site_place("Makefile")
    ('tasks.md', 'studies/methods/report.md', None)
    """
    if path in PAGES:
        return PAGES[path]
    return next((path.replace(folder, place, 1) for folder, place in FOLDERS.items() if path.startswith(folder)), None)


def repository_place(uri: str) -> str:
    """Return the file of the repository that a page of the site is made from.

    >>> repository_place("tasks.md"), repository_place("studies/methods/report.md"), repository_place("changelog.md")
    ('docs/tasks.md', 'results/methods/report.md', 'CHANGELOG.md')
    """
    for source in ("CONTRIBUTING.md", "CHANGELOG.md"):
        if PAGES[source] == uri:
            return source
    return f"results/{uri.removeprefix('studies/')}" if uri.startswith("studies/") else f"docs/{uri}"


def site_link(target: str, here: str) -> str:
    """Return the link of the site for a link in a file of the repository.

    >>> site_link("../results/README.md#x", "docs/results.md"), site_link("docs/tasks.md", "CONTRIBUTING.md")
    ('studies/README.md#x', 'tasks.md')
    """
    path, mark, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", target):
        return target
    place = site_place(posixpath.normpath(posixpath.join(posixpath.dirname(here), path.rstrip("/") or ".")))
    own = site_place(here)
    if place is None or own is None:
        logger.warning("%s links to %s, which is no page of the site", here, target)
        return target
    if place == f"{NOTEBOOK}.ipynb" and own != f"{NOTEBOOK}.md":
        place = f"{NOTEBOOK}.md"
    return posixpath.relpath(place, posixpath.dirname(own) or ".") + mark + anchor


def _figure(chart: re.Match[str], title: Any) -> str:
    return f"<figure>{flow_chart.figure(chart[1], chart.start(), f'flow chart of {title}')}</figure>"
