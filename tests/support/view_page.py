"""`mllm3rec view` in a process of its own, and its pages in a browser."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from programs.runtime.environment import variable
from tests.support.browser import Page
from tests.support.command_line import buffered_environment, process_of

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

READY = "document.querySelector('#content[aria-busy=false]') !== null"


def environment_in(folder: Path) -> dict[str, str]:
    """The environment of a command with a cache of its own in a folder, and without weights."""
    return buffered_environment() | {
        variable("cache"): str(folder / "cache"),
        variable("encoder"): "hashing",
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def view_of(folder: Path) -> Iterator[str]:
    """The address of a view of a folder, while the block runs."""
    line = process_of("view", folder, "--port", 0, "--json")
    with subprocess.Popen(line, stdout=subprocess.PIPE, env=environment_in(folder)) as view:  # noqa: S603
        assert view.stdout is not None
        try:
            yield json.loads(view.stdout.readline())["address"]
        finally:
            view.terminate()


class ViewPage(Page):
    """A page of the view in the browser."""

    def __init__(self, browser: Chrome, address: str) -> None:
        super().__init__(browser, address.rstrip("/"))

    def open(self, state: str = "/", **parameters: Any) -> None:
        """Open an address and wait for its content."""
        query = urlencode({name: value for name, value in parameters.items() if value is not None}, doseq=True)
        self.browser.get(f"{self.url}{state}{'?' if query else ''}{query}")
        self.ready()

    def ready(self) -> None:
        """Wait for the content of the page."""
        self.wait(READY)

    @contextmanager
    def next_page(self) -> Iterator[None]:
        """Wait for the content of the page that the block's click opens: the old one has content until it is left."""
        self.run("window.isOldPage = true")
        yield
        self.wait("window.isOldPage === undefined")
        self.ready()

    def text(self) -> str:
        """All text of the content."""
        return str(self.run("return document.querySelector('#content').innerText"))

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Wait until the content has a text."""
        end = time.monotonic() + seconds
        while text not in self.text():
            assert time.monotonic() < end, f"{text!r} did not appear; there is: {self.text()[:1500]}"
            time.sleep(0.1)

    def press(self, text: str) -> None:
        """Press the button or follow the link of a text, with the mouse."""
        from selenium.webdriver.common.by import By

        found = self.browser.find_element(
            By.XPATH, f"//*[self::button or self::a][normalize-space()={json.dumps(text, ensure_ascii=False)}]"
        )
        self.run("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def choose_named(self, name: str, text: str) -> None:
        """Choose a text in the list of a form's parameter."""
        from selenium.webdriver.support.ui import Select

        Select(self.one(f"select[name={name}]")).select_by_visible_text(text)

    def serious(self) -> list[str]:
        """Serious and critical findings of axe-core."""
        from axe_core_python.selenium import Axe

        found = Axe().run(self.browser)["violations"]
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
        ]

    def console(self) -> list[str]:
        """Errors in the browser's console since the last look."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]

    def asked(self) -> list[str]:
        """Addresses that the browser has asked for since the last look."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        sockets = [one["params"] for one in messages if one["method"] == "Network.webSocketCreated"]
        return [one["request"]["url"] for one in sent] + [one["url"] for one in sockets]
