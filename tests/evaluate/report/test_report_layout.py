"""Every tab of all reports on a phone and a desk, light and dark: nothing is cut off, broken or covered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evaluate.report.write import write_report
from tests.support.browser import Page, needs_browser
from tests.support.report_pages import attack_page, comparison_page, compile_page
from tests.support.small_study import study

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = needs_browser

REPORTS = {
    "study": lambda folder: write_report(study(), folder)[0],
    "comparison": comparison_page,
    "compile": compile_page,
    "attacks": attack_page,
}
SCREENS = {"phone": (390, 844), "desk": (1440, 900)}
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}
TEXTS = {"light": "rgb(28, 33, 40)", "dark": "rgb(228, 232, 238)"}
FINDINGS = Path(__file__).with_name("layout.js").read_text("utf-8")


@pytest.fixture(scope="module", params=REPORTS)
def page(request: pytest.FixtureRequest, chrome: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(chrome, REPORTS[request.param](tmp_path_factory.mktemp(request.param)).as_uri())


def tabs(page: Page) -> list[str]:
    """Names of the page's tabs."""
    return page.run("return [...document.querySelectorAll('[role=tab]')].map((tab) => tab.dataset.tab)")


def wait_for_plots(page: Page) -> None:
    page.wait("[...document.querySelectorAll('.plot')].every((plot) => !plot.offsetParent || plot.dataset.done)")


def open_plots(page: Page) -> None:
    """Open the first tab with plots."""
    page.open()
    page.one(f"#to-{next(tab for tab in tabs(page) if tab in ('attacks', 'mixes', 'search', 'accuracy'))}").click()
    wait_for_plots(page)


@pytest.mark.parametrize("scheme", GROUNDS)
@pytest.mark.parametrize("screen", SCREENS)
def test_every_tab_fits_its_screen(page: Page, screen: str, scheme: str) -> None:
    width, height = SCREENS[screen]
    page.screen(width, height, scheme)
    page.browser.get_log("browser")
    page.open("ranker=model+%7C+one")
    page.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    for tab in tabs(page):
        page.one(f"#to-{tab}").click()
        wait_for_plots(page)
        assert page.run("return document.documentElement.scrollWidth") <= width, tab
        assert page.run(FINDINGS) == [], tab
        box = page.one(f"#to-{tab}").rect
        assert box["x"] >= 0, "the chosen tab is in sight"
        assert box["x"] + box["width"] <= width, "the chosen tab is in sight"
    assert page.run("return getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    assert not page.browser.get_log("browser")  # a refused script or style would be here


def test_plots_follow_the_colour_scheme(page: Page) -> None:
    page.screen(0, 0, "light")
    open_plots(page)
    fill = "getComputedStyle(document.querySelector('.panel:not([hidden]) .xtick text')).fill"
    for scheme, colour in TEXTS.items():
        page.screen(0, 0, scheme)
        page.wait(f"{fill} === arguments[0]", colour)


def test_the_check_of_the_layout_finds_what_is_wrong(page: Page) -> None:
    page.screen(*SCREENS["phone"], "light")
    open_plots(page)
    restyle = "document.querySelectorAll(arguments[0]).forEach((node) => { node.style = arguments[1]; })"
    page.run(restyle, ".panel:not([hidden]) h3", "width: 500px")
    page.run(restyle, "td:first-child", "min-width: 0; max-width: 3ch; white-space: nowrap")
    page.run(restyle, ".xtick text", "font-size: 60px")
    found = " ".join(page.run(FINDINGS))
    assert not [kind for kind in ("beyond the page", "cut off", "overlap") if kind not in found]
