"""Frame of every page: navigation, colours, the page's content, and its renewal while something is running."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from nicegui import ui
from starlette.requests import Request

from mllm3rec.view.elements import Place, link, tag
from mllm3rec.view.library import Library
from programs.runtime.errors import InputError

Watched = Callable[[], object] | None
"""Tells whether a page has to be made again: its result changes when what the page shows has changed."""

BuildPage = Callable[[Library, Place], Awaitable[Watched]]
"""Makes the content of a page."""

RENEW_EVERY = 2.0
"""Seconds between two looks whether a page has to be made again."""

TRY_EVERY = 10.0
"""Seconds until a page that could not be made is tried again."""

_STYLE = Path(__file__).with_name("view.css")
_PAGES = {"/": "Runs", "/playground": "Playground"}
_IS_IN_USE = (
    "!!document.querySelector('#content details[open]') || "
    "['INPUT', 'SELECT', 'TEXTAREA'].includes(document.activeElement && document.activeElement.tagName)"
)
_THEMES = {"": None, "dark": True, "light": False}


def add_page(library: Library, path: str, title: str, build: BuildPage) -> None:
    """Register a page of the view."""

    async def page(request: Request) -> None:
        place = Place(path, request.query_params)
        theme = place.one("theme")
        ui.dark_mode(_THEMES.get(theme))
        ui.add_css(_STYLE)
        link("Skip to the content", "#content", "skip")
        _top(library, place)
        main = tag("div", id="content", aria_busy="true", tabindex=-1)
        with main:
            tag("p", "Reading…", "soft", role="status")

        async def fill() -> Watched:
            made = tag("div")
            made.move(main)
            with made:
                try:
                    watched = await build(library, place)
                except (InputError, OSError, ImportError) as error:
                    tag("p", str(error), "error", role="alert")
                    watched = _try_again
            for old in list(main.default_slot.children):
                if old is not made:
                    old.delete()
            main.props["aria-busy"] = "false"
            main.update()
            return watched

        async def begin() -> None:
            watched = await fill()
            if watched is None:
                return
            last = await asyncio.to_thread(_looked_at, watched)

            async def look() -> None:
                nonlocal last, watched
                now = await asyncio.to_thread(_looked_at, watched)
                # A reader who types or has opened a part keeps the page as it is.
                if now != last and not await ui.run_javascript(_IS_IN_USE, timeout=5):
                    last, watched = now, await fill()

            ui.timer(RENEW_EVERY, look)

        ui.timer(0.01, begin, once=True)

    ui.page(path, title=f"{title} · M-LLM³Rec")(page)


def _looked_at(watched: Watched) -> object:
    try:
        return None if watched is None else watched()
    except (InputError, OSError) as error:
        return str(error)  # the page is made again, and says it


def _try_again() -> object:
    """What went wrong may pass: a file that is just being written, a folder that is not there yet."""
    return time.monotonic() // TRY_EVERY


def _top(library: Library, place: Place) -> None:
    with tag("header", classes="top"):
        tag("strong", "M-LLM³Rec")
        with tag("nav", aria_label="pages"):
            for path, name in _PAGES.items():
                link(name, place.to(path), aria_current="page" if path == place.path else None)
        tag("span", library.root, "folder")
        with tag("nav", classes="theme", aria_label="colours"):
            for theme in ("light", "dark"):
                link(theme, place.here(theme=theme), aria_current="true" if theme == place.one("theme") else None)
