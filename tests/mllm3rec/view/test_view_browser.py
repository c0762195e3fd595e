"""The view in a real browser: every page of finished and running work, three widths, two colours, keyboard, axe."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from evaluate.protocol.cases import load_cases
from mllm3rec.view.notes import NoteBook
from optimize.compiler import STUDY
from tests.support.browser import needs_browser
from tests.support.cases import cases_file
from tests.support.command_line import commands_in, process_of, run
from tests.support.compile_setup import sensitive
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible
from tests.support.view_page import ViewPage, environment_in, view_of

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = needs_browser

HOSTILE = "<img src=x onerror=\"document.title='owned'\">**bold** {{7*7}}"
SMALL = ("--trials", "4", "--demo-sets", "1", "--wordings", "1", "--max-demos", "1", "--interactions", "2")
SLOW = 0.15
"""Seconds of an answer of the slow servers."""


def hostile(body: Body) -> Reply:
    """A model whose reasons try to be a page."""
    answer = sensible(body)
    return Reply(answer.content.replace("Its traits answer what", HOSTILE.replace('"', '\\"')), seconds=answer.seconds)


def slow(body: Body) -> Reply:
    """Answers as a compile needs them, one after a while."""
    answer = sensitive(body)
    answer.seconds = SLOW
    return answer


@dataclass(frozen=True)
class Shown:
    """A folder with finished runs, and the address of its view."""

    folder: Path
    address: str
    server: FakeOpenAI
    users: tuple[str, ...]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Runs of two models and of the prior, a comparison, and a compile, made by the command line."""
    folder = tmp_path_factory.mktemp("view")
    cases_file(folder / "test.jsonl", 12, part="test")
    cases_file(folder / "dev.jsonl", 8)
    with FakeOpenAI(hostile) as server, FakeOpenAI(sensitive) as compiling, commands_in(folder):
        prices = folder / "prices.toml"
        prices.write_text(
            'dated = 2026-01-31\nsource = "invented"\n[models]\n'
            + "".join(
                f'"{server.model(name)}" = {{ input = {usd}, output = {usd}, source = "invented" }}\n'
                for name, usd in (("small", 0.1), ("large", 1.0))
            )
        )
        for name in ("small", "large"):
            options = ("--model", server.model(name), "--explain", 2, "--prices", prices, "--out", folder / name)
            assert run("evaluate", folder / "test.jsonl", "--ranker", "listwise", *options).exit_code == 0
        assert run("evaluate", folder / "test.jsonl", "--ranker", "prior", "--out", folder / "prior").exit_code == 0
        (folder / "grid.toml").write_text(
            f'mope = ["a"]\nmote = ["a"]\nmar = ["a", "b"]\n[backends.a]\nmodel = "{server.model("small")}"\n'
            f'[backends.b]\nmodel = "{server.model("large")}"\n'
        )
        compared = run("compare", folder / "test.jsonl", "--grid", folder / "grid.toml", "--out", folder / "mixes")
        assert compared.exit_code == 0, compared.output
        made = run("compile", folder / "dev.jsonl", "--out", folder / "art", "--model", compiling.model(), *SMALL)
        assert made.exit_code == 0, made.output
        users = tuple(case.user_id for case in load_cases(folder / "test.jsonl"))
        with view_of(folder) as address:
            yield Shown(folder, address, server, users)


@pytest.fixture
def page(chrome: Chrome, shown: Shown) -> Iterator[ViewPage]:
    opened = ViewPage(chrome, shown.address)
    opened.screen(1366, 900, "light")
    opened.console()
    opened.asked()
    yield opened
    assert opened.console() == []
    asked = [one for one in opened.asked() if urlsplit(one).scheme in ("http", "https", "ws", "wss")]
    assert asked
    assert {urlsplit(one).netloc for one in asked} == {urlsplit(shown.address).netloc}


def pages(shown: Shown) -> dict[str, tuple[str, dict[str, object]]]:
    """Every kind of page, with a path and parameters."""
    runs = ["small", "large", "prior"]
    item = load_cases(shown.folder / "test.jsonl")[0].candidates[0]
    return {
        "runs": ("/", {"sort": "metric", "order": "down"}),
        "comparison": ("/compare", {"run": runs, "log": 1, "show": "different", "b": "prior"}),
        "user": ("/user", {"run": runs[:2], "user": shown.users[0]}),
        "compile": ("/compile", {"folder": "art", "trial": 1}),
        "item": ("/item", {"run": "small", "item": item}),
        "motivation": ("/motivation", {"run": "small", "dimension": "learning"}),
        "playground": ("/playground", {"user": "S0001"}),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1920])
def test_every_page_at_every_width(page: ViewPage, shown: Shown, width: int, scheme: str) -> None:
    page.screen(width, 1000, scheme)
    for name, (path, parameters) in pages(shown).items():
        page.open(path, **parameters)
        assert page.run("return document.documentElement.scrollWidth") <= width, name
        if name in ("comparison", "compile"):
            page.wait("document.querySelector('.js-plotly-plot .main-svg') !== null")
        assert page.serious() == [], name
        # So that somebody can look at them.
        if os.environ.get("VIEW_SCREENSHOTS"):
            height = min(5000, page.run("return document.documentElement.scrollHeight"))
            page.screen(width, height, scheme)
            page.browser.save_screenshot(str(Path(os.environ["VIEW_SCREENSHOTS"]) / f"{name}-{width}-{scheme}.png"))
            page.screen(width, 1000, scheme)


def test_runs_are_filtered_sorted_and_compared(page: ViewPage) -> None:
    page.open()
    assert "5 runs" in page.text()
    page.one("input[name=words]").send_keys("listwise")
    with page.next_page():
        page.press("Filter")
    page.wait_for("2 runs")
    assert "words=listwise" in page.browser.current_url
    with page.next_page():
        page.press("dollars")
    assert page.texts("tbody tr td:nth-child(2)") == ["large", "small"]
    for box in page.all("input[type=checkbox]"):
        box.click()
    with page.next_page():
        page.press("Compare chosen")
    page.wait_for("Comparison of 2 runs")
    assert "prior alone" in page.text()


def test_a_click_on_a_point_opens_its_users_and_filters_find_them(page: ViewPage, shown: Shown) -> None:
    page.open("/compare", run=["small", "prior"])
    page.wait("document.querySelector('.js-plotly-plot .main-svg') !== null")
    point = page.one(".js-plotly-plot .scatterlayer .trace path.point")
    page.run("arguments[0].scrollIntoView({block: 'center'})", point)
    from selenium.webdriver import ActionChains

    with page.next_page():
        ActionChains(page.browser).move_to_element(point).pause(0.3).click().perform()
    assert page.run("return location.hash") == "#users"
    page.choose_named("show", "A hit and B missed")
    with page.next_page():
        page.one("select[name=show]").find_element("xpath", "ancestor::form//button").click()
    assert "show=won" in page.browser.current_url
    won = page.texts("#content table:last-of-type tbody td:first-child a")
    page.open("/compare", run=["small", "prior"], find=shown.users[3])
    with page.next_page():
        page.press(f"User {shown.users[3]}")
    page.wait_for(f"User {shown.users[3]}")
    assert all(user in shown.users for user in won if user.startswith("S"))


def test_a_user_has_every_call_and_texts_stay_texts(page: ViewPage, shown: Shown) -> None:
    page.open("/user", run=["small", "large"], user=shown.users[0])
    page.wait_for("Calls")
    assert HOSTILE.split("*")[0] in page.text()
    assert page.run("return document.title") == "User · M-LLM³Rec"
    assert page.run("return document.querySelectorAll('#content img').length") == 0
    parts = page.all("details summary")
    assert len(parts) == 2 * 17
    parts[0].click()
    opened = page.one("details[open]")
    sent = [message["content"] for message in shown.server.bodies[0]["messages"]]
    assert [" ".join(text.split()) for text in page.texts("details[open] pre")][: len(sent)] == [
        " ".join(text.split()) for text in sent
    ]
    assert "tokens" in opened.text
    assert "same prompt in the other run" in opened.text


def test_notes_and_tags_are_kept(page: ViewPage, shown: Shown) -> None:
    page.open("/compare", run="prior")
    tags, note = page.all("[role=group] input")
    tags.send_keys("paper, v2")
    note.send_keys(HOSTILE)
    page.press("Keep")
    page.wait_for("kept")
    assert NoteBook(shown.folder).read()["prior"].tags == ("paper", "v2")
    page.open("/", tag="v2")
    assert HOSTILE in page.text()
    assert "1 run\n" in page.text()


def test_a_compile_shows_its_trials_users_and_changes(page: ViewPage) -> None:
    page.open("/compile", folder="art")
    page.wait_for("held-out users")
    with page.next_page():
        page.press("1")
    page.wait_for("Trial 1 against the uncompiled program")
    assert page.all(".diff .added")
    assert "optuna-dashboard sqlite:///" in page.text()


def test_the_playground_asks_only_when_told_and_within_its_budget(page: ViewPage, shown: Shown) -> None:
    sent = len(shown.server.bodies)
    page.open("/playground", model=shown.server.model("small"), user="S0001", calls=1, program="listwise")
    assert len(shown.server.bodies) == sent
    page.press("Recommend")
    page.wait_for("the budget of 1 calls is spent")
    assert len(shown.server.bodies) <= sent + 1
    page.open("/playground", model=shown.server.model("small"), user="S0001", calls=100, program="listwise")
    page.press("Recommend")
    page.wait_for("5 items for S0001")
    asked = [body for body in shown.server.bodies if "`motivations`" in str(body["messages"])]
    profile = page.all("textarea")[1]
    assert " | strong | " in profile.get_property("value")
    profile.clear()
    profile.send_keys("value | strong | saves on everything | 1")
    page.press("Rank again with this profile")
    page.wait_for("saves on everything")
    again = [body for body in shown.server.bodies if "`motivations`" in str(body["messages"])]
    assert len(again) == len(asked)  # MOPE was not asked again
    assert any("saves on everything" in str(body["messages"]) for body in shown.server.bodies)
    history = page.all("textarea")[0]
    history.send_keys("D001")
    page.press("Make the profile")
    page.wait_for("wants reason")  # a motivation of the fake model's profile


def test_it_is_used_by_keyboard(page: ViewPage) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open("/", words="listwise")
    for _ in range(60):
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        if page.run("return document.activeElement.type === 'checkbox'"):
            break
    page.browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert page.run("return document.querySelectorAll('input:checked').length") == 1
    with page.next_page():
        page.browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.run("return location.pathname") == "/compare"


def test_what_is_not_there_is_said(page: ViewPage) -> None:
    for path, parameters in (
        ("/compare", {"run": "../../etc"}),
        ("/user", {"run": "small", "user": "nobody"}),
        ("/compile", {"folder": "none"}),
        ("/item", {}),
    ):
        page.open(path, **parameters)
        assert page.all("[role=alert]"), path


def test_colours_are_part_of_the_address(page: ViewPage) -> None:
    page.open("/", theme="dark")
    assert page.run("return document.body.classList.contains('body--dark')")
    with page.next_page():
        page.press("small")
    assert "theme=dark" in page.browser.current_url
    assert page.run("return document.body.classList.contains('body--dark')")


class TestWhileItRuns:
    @pytest.fixture
    def live(self, tmp_path: Path) -> Iterator[tuple[Path, FakeOpenAI, str]]:
        cases_file(tmp_path / "test.jsonl", 30, part="test")
        cases_file(tmp_path / "dev.jsonl", 8)
        with FakeOpenAI(slow) as server, view_of(tmp_path) as address:
            yield tmp_path, server, address

    def test_a_run_appears_grows_and_ends(self, chrome: Chrome, live: tuple[Path, FakeOpenAI, str]) -> None:
        folder, server, address = live
        page = ViewPage(chrome, address)
        page.console()
        page.open()
        assert "No run below" in page.text()
        answers = threading.Semaphore(4)

        def when_released(body: Body) -> Reply:
            answers.acquire()
            return slow(body)

        server.respond = when_released
        options = ("--ranker", "llm-only", "--model", server.model(), "--out", folder / "run")
        line = process_of("evaluate", folder / "test.jsonl", *options)
        with subprocess.Popen(line, env=environment_in(folder), stderr=subprocess.DEVNULL) as evaluating:  # noqa: S603
            page.wait_for("running", 120)
            page.wait_for("1 run")
            page.open("/compare", run="run")
            page.wait_for("4 users: rank of the target", 60)
            answers.release(3)
            page.wait_for("7 users: rank of the target", 60)
            answers.release(100)
        assert evaluating.returncode == 0
        page.wait_for("30 users: rank of the target")
        page.wait_for("finished")
        assert page.console() == []

    def test_a_compile_is_stopped_as_by_ctrl_c(self, chrome: Chrome, live: tuple[Path, FakeOpenAI, str]) -> None:
        folder, server, address = live
        page = ViewPage(chrome, address)
        line = process_of("compile", folder / "dev.jsonl", "--out", folder / "art", "--model", server.model(), *SMALL)
        pipes = {"stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(line, env=environment_in(folder), **pipes) as compiling:  # noqa: S603
            page.open()
            page.wait_for("art", 60)
            page.open("/compile", folder="art")
            page.wait_for(f"running, process {compiling.pid}", 30)
            page.press("Stop it…")
            page.press("Stop: Ctrl-C to its process")
            said = compiling.communicate(timeout=60)[1]
        assert compiling.returncode == 130
        assert "the same command goes on from there" in said
        page.wait_for("stopped; the same command goes on from here", 30)


def test_optuna_dashboard_opens_the_same_study(shown: Shown) -> None:
    pytest.importorskip("optuna_dashboard")
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    study = shown.folder / "art" / "search" / STUDY
    line = [program, f"sqlite:///{study}", "--port", str(port), "--host", "127.0.0.1"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serving:  # noqa: S603
        try:
            for _ in range(100):
                try:
                    answer = httpx.get(f"http://127.0.0.1:{port}/api/studies", timeout=5)
                    break
                except httpx.TransportError:
                    time.sleep(0.3)
            (found,) = answer.json()["study_summaries"]
            assert found["study_name"] == "mllm3rec"
            details = httpx.get(f"http://127.0.0.1:{port}/api/studies/{found['study_id']}", timeout=10).json()
            assert len(details["trials"]) >= 4
        finally:
            serving.terminate()
