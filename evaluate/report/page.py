"""HTML writer: renders a `Page` as one file that loads nothing and runs only our own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from importlib import resources

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from evaluate.report.blocks import Page

SCRIPT, STYLE = "page.js", "page.css"


def render(page: Page) -> str:
    """The whole file, with style, plotly and scripts; its policy forbids network access."""
    scripts = [_newlines(get_plotlyjs()), *(resource_text(name) for name in (SCRIPT, *page.scripts))]
    return _ENVIRONMENT.get_template("page.html.j2").render(
        page=page,
        policy=policy(scripts),
        style=Markup(resource_text(STYLE)),  # noqa: S704 our own file
        scripts=[Markup(text) for text in scripts],  # noqa: S704 our own files and plotly's
    )


def policy(scripts: Iterable[str]) -> str:
    """The page's Content-Security-Policy: no network access, and only these scripts, even if a title contains HTML."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def inert_json(data: object) -> Markup:
    """JSON that is safe inside a `script` element; NaN is refused."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 no character of it can open or end markup


def figure_json(figure: go.Figure) -> Markup:
    """JSON for `Plotly.newPlot`, without plotly's default template, which is larger than the plots."""
    return inert_json(json.loads(go.Figure(figure).update_layout(template="none").to_json()))


def resource_text(name: str) -> str:
    """A file of this package."""
    return _newlines(resources.files("evaluate.report").joinpath(name).read_text("utf-8"))


def _newlines(text: str) -> str:
    """The text with newlines as a browser reads them, because it hashes scripts after reading."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evaluate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inert_json": inert_json, "figure_json": figure_json}
    return environment


_ENVIRONMENT = _environment()
