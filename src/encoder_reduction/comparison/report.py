"""The report: the question and its answer first, then pictures, tables, method; as Markdown and as one page."""

import io
from dataclasses import dataclass, field

import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from .tables import to_markdown

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { line-height: 1.2 } h2 { margin-top: 2.5rem }
.table { overflow-x: auto } table { border-collapse: collapse; font-size: 0.9rem; white-space: nowrap }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd }
thead th { border-bottom: 2px solid #1a1a1a; white-space: normal; vertical-align: bottom }
figure { margin: 1.5rem 0 } figure svg { width: 100%; height: auto; max-width: 48rem } figcaption { color: #555 }
code { overflow-wrap: anywhere }
"""


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: of its files.
        shown: what the page shows.
        every: what the CSV file holds; not rounded, with columns that the page has no room for.
    """

    name: str
    shown: pd.DataFrame
    every: pd.DataFrame


@dataclass(frozen=True)
class Picture:
    """A picture of the report: the name of its files, the figure, and the caption."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Section:
    """One part of the report: a heading, then paragraphs (Markdown), tables and pictures in order."""

    title: str
    parts: list[str | Table | Picture] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append(text)

    def table(self, name: str, shown: pd.DataFrame, every: pd.DataFrame | None = None) -> None:
        """Add a table; its CSV file holds ``every``, or what is shown."""
        self.parts.append(Table(name, shown, shown if every is None else every))

    def picture(self, name: str, figure: Figure, caption: str) -> None:
        """Add a picture."""
        self.parts.append(Picture(name, figure, caption))

    @property
    def tables(self) -> list[Table]:
        """Its tables."""
        return [part for part in self.parts if isinstance(part, Table)]

    @property
    def pictures(self) -> list[Picture]:
        """Its pictures."""
        return [part for part in self.parts if isinstance(part, Picture)]


def as_markdown(sections: list[Section]) -> str:
    """The report without its pictures, for a terminal and for reading in a repository."""
    blocks = []
    for section in sections:
        if len(section.pictures) == len(section.parts):
            continue
        blocks.append(f"## {section.title}")
        for part in section.parts:
            if isinstance(part, Table):
                blocks.append(to_markdown(part.shown))
            elif isinstance(part, str):
                blocks.append(part)
    return "\n\n".join(blocks)


def as_page(title: str, sections: list[Section]) -> str:
    """Sections as one HTML page that fetches nothing: its pictures are drawn inside it."""
    markdown = MarkdownIt("commonmark").enable("table")
    blocks = []
    for section in sections:
        blocks.append(markdown.render(f"## {section.title}" if section.title else ""))
        for part in section.parts:
            if isinstance(part, Table):
                blocks.append(f'<div class="table">{markdown.render(to_markdown(part.shown))}</div>')
            elif isinstance(part, str):
                blocks.append(markdown.render(part))
            else:
                blocks.append(f"<figure>{_svg(part.figure)}<figcaption>{part.caption}</figcaption></figure>")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{title}</h1>\n{''.join(blocks)}</body>\n</html>\n"
    )


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
