"""Chromium with its driver, and a report opened in it, for the browser tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: set CHROMIUM, or put chromium on the PATH"),
]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def started(profile: Path) -> Iterator[Chrome]:
    """A browser with a profile of its own; the test is skipped where there is no driver for it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="clicks need selenium")
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("clicks need chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1366,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    browser.implicitly_wait(5)
    try:
        yield browser
    finally:
        browser.quit()


class Page:
    """The report in the browser, opened at a state."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.url = url

    def open(self, state: str = "") -> None:
        self.browser.get("about:blank")
        self.browser.get(f"{self.url}#{state}")
        self.wait("document.querySelector('[data-ready=yes]') !== null")

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        # Read in one step: the page may replace an element between finding and reading it.
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return self.run(script, selector)

    def choose(self, name: str, text: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.one(f"#{name}")).select_by_visible_text(text)

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    @property
    def state(self) -> str:
        return self.run("return location.hash")

    def wait(self, script: str, *arguments: object) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 20).until(lambda _: self.run(f"return {script}", *arguments))

    def screen(self, width: int, height: int, scheme: str) -> None:
        """Look at the report on a screen of this size, in a colour scheme; 0 is the browser's own size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": 0 < width < 820}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
