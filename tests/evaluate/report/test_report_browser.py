"""The study report in a real browser: views, clicks, shared addresses, and that hostile data stays text."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evaluate.report.pseudonyms import pseudonym
from evaluate.report.write import write_report
from tests.support.browser import CHROMIUM, FLAGS, Page, needs_browser
from tests.support.small_study import SCRIPT, USERS, study

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = needs_browser

TABS = {
    "overview": "Overview",
    "accuracy": "Accuracy",
    "slices": "Slices",
    "failures": "Failures",
    "cost": "Cost",
    "users": "Users",
    "versus": "A against B",
    "reproduce": "Reproduce",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(study(), tmp_path_factory.mktemp("page"))[0].as_uri()


@pytest.fixture
def page(chrome: Chrome, url: str) -> Page:
    chrome.get_log("browser")
    opened = Page(chrome, url)
    opened.open()
    return opened


@pytest.mark.parametrize("tab", TABS)
def test_an_address_opens_its_view(url: str, tmp_path: Path, tab: str) -> None:
    """Without any driver: what a plain browser shows for a shared address."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000", "--dump-dom"]
    dom = subprocess.run([*command, f"{url}#tab={tab}"], capture_output=True, text=True, timeout=120, check=True).stdout  # noqa: S603
    assert 'data-ready="yes"' in dom
    assert f'id="tab-{tab}" role="tabpanel" aria-label="{TABS[tab]}">' in dom  # shown: the others got `hidden`
    assert dom.count('hidden=""') >= len(TABS) - 1
    sought = {"users": pseudonym(USERS[0]), "versus": 'id="counts"', "accuracy": "main-svg", "slices": "main-svg"}
    assert sought.get(tab, "<table") in dom


def test_tabs_and_the_back_button(page: Page) -> None:
    for tab in TABS:
        page.one(f"#to-{tab}").click()
        assert [panel.get_attribute("id") for panel in page.all(".panel") if panel.is_displayed()] == [f"tab-{tab}"]
        assert page.state == ("" if tab == "overview" else f"#tab={tab}")
    page.browser.back()
    assert page.one("#tab-versus").is_displayed()


def test_plots_are_drawn_and_nothing_is_fetched_or_refused(page: Page) -> None:
    page.browser.get_log("performance")
    for tab, plots in (("accuracy", 2), ("slices", 3), ("versus", 1)):
        page.open(f"tab={tab}")
        page.wait(
            "document.querySelectorAll(arguments[0]).length === arguments[1]",
            f"#tab-{tab} svg.main-svg:first-child",
            plots,
        )
    assert not page.browser.get_log("browser")  # a refused script or request would be here
    sent = [
        entry["message"] for entry in page.browser.get_log("performance") if "requestWillBeSent" in entry["message"]
    ]
    assert sent
    assert not [message for message in sent if '"url":"http' in message]


def test_hostile_text_stays_text(page: Page) -> None:
    from selenium.common.exceptions import NoAlertPresentException

    for state in ("", "tab=accuracy", "tab=users&ranker=model+%7C+one", "tab=versus", "tab=reproduce"):
        page.open(state)
        with pytest.raises(NoAlertPresentException):
            _ = page.browser.switch_to.alert.text
    assert page.texts("h1") == [f"A study {SCRIPT}"]
    assert page.run("return document.images.length") == 0
    page.open("tab=users&ranker=model+%7C+one")
    assert f"fun {SCRIPT}" in page.one("table.candidates").text
    assert f"wants to learn {SCRIPT}" in page.one("ul.profile").text
    assert "=HYPERLINK(1) & <img src=x" in page.one("ol.history").text


def test_hostile_addresses_do_no_harm(page: Page) -> None:
    page.open("tab=%3Cimg%20src=x%3E&protocol=99&ranker=__proto__&show=constructor&user=x&sort=x.99&a=b&cell=9-9")
    assert page.one("#tab-overview").is_displayed()
    for tab in ("users", "versus"):
        page.open(f"tab={tab}&protocol=__proto__&ranker=x&show=toString&length=zz&a=x&b=x&cell=1-2-3&sort=main.-0")
        assert page.one(f"#tab-{tab} h3").is_displayed()
    assert not page.browser.get_log("browser")


def test_sorting_keeps_parts_below_their_ranker(page: Page) -> None:
    page.open("tab=accuracy")
    rows = 'table[data-name="main"] tbody td:first-child'
    before = page.texts(rows)
    page.one('table[data-name="main"] th:nth-child(2) button').click()
    down = page.texts(rows)
    assert down == [
        "trained", "prior (reference)", "chance (random order)",
        "model | one", "model | one: prior alone", "model | one: MAR alone",
    ]  # fmt: skip
    assert "sort=main.-2" in page.state
    page.one('table[data-name="main"] th:nth-child(2) button').click()
    assert page.texts(rows)[0] == "model | one"
    assert page.one('table[data-name="main"] th:nth-child(2)').get_attribute("aria-sort") == "ascending"
    page.open("tab=accuracy&sort=main.-2")
    assert page.texts(rows) == down
    page.open("tab=accuracy")
    assert page.texts(rows) == before


def test_users_are_filtered_and_opened(page: Page) -> None:
    page.one("#to-users").click()
    assert page.one("#ranker").get_attribute("value") == "model | one"  # the one with most to see
    users = "#user-list .who"
    assert page.texts(users) == [pseudonym(USERS[i]) for i in (0, 1, 2, 3)]
    for shown, who in (
        ("hits in the first 5", [1]),
        ("misses (below 5)", [0]),
        ("unparsable answers", [2]),
        ("unresolved", [3]),
        ("all users", [0, 1, 2, 3]),
    ):
        page.choose("show", shown)
        page.wait("document.querySelectorAll(arguments[0]).length === arguments[1]", users, len(who))
        assert page.texts(users) == [pseudonym(USERS[i]) for i in who]
    page.choose("length", "10+")
    page.wait("document.querySelectorAll(arguments[0]).length === 1", users)
    assert page.texts(users) == [pseudonym(USERS[3])]
    assert "unresolved: no result, not counted as a miss" in page.one("#user").text
    page.choose("length", "any number")
    page.choose("ranker", "prior")
    page.wait("document.querySelectorAll(arguments[0]).length === 4", users)
    page.one(f'[data-user="{pseudonym(USERS[2])}"]').click()
    page.wait("document.querySelector('#who')?.textContent === arguments[0]", pseudonym(USERS[2]))
    assert "held-out item at rank 7 of 10" in page.one("#user").text
    assert len(page.all("table.candidates tbody tr")) == 10
    assert page.texts("tr.target td:first-child") == ["7"]
    state = page.state
    page.open(state.lstrip("#"))
    page.wait("document.querySelector('#who')?.textContent === arguments[0]", pseudonym(USERS[2]))


def test_a_user_is_found_by_pseudonym_and_by_id(page: Page) -> None:
    page.open("tab=users")
    for typed in (pseudonym(USERS[1])[:6], USERS[1]):
        page.one("#q").clear()
        page.one("#q").send_keys(typed)
        page.wait("document.querySelector('#user-list').querySelectorAll('button').length === 1")
        assert page.texts("#user-list .who") == [pseudonym(USERS[1])]
        assert page.run("return document.activeElement.id") == "q"
    page.one("#q").send_keys("x")
    page.wait("document.querySelector('#user').textContent.startsWith('No user fits')")


def test_a_motivation_lights_up_its_evidence(page: Page) -> None:
    from selenium.webdriver import ActionChains

    page.open("tab=users&ranker=model+%7C+one")
    assert "evidence: 1. =HYPERLINK(1)" in page.one("ul.profile").text
    ActionChains(page.browser).move_to_element(page.one("ul.profile li")).perform()
    assert len(page.all("ol.history li.lit")) == 1
    assert "re-check: not faithful" in page.one("table.candidates").text
    assert page.texts("tr.target .badge") == ["held out"]


def test_a_against_b(page: Page) -> None:
    from selenium.webdriver import ActionChains

    page.one("#to-versus").click()
    assert (page.one("#a").get_attribute("value"), page.one("#b").get_attribute("value")) == ("model | one", "prior")
    # Ranks of the model 6, 1, 7 and of the prior 1, 3, 7; the fourth user is unresolved.
    assert page.texts("#counts td") == ["1", "0", "1", "1"]
    assert page.texts('[data-list="B hits, A misses"] .who') == [pseudonym(USERS[0])]
    assert "1 user without a rank" in page.one("#compared").text
    assert len(page.all("#pair .side")) == 2
    page.one("#swap").click()
    page.wait("document.querySelector('#a').value === 'prior'")
    assert page.texts('[data-list="A hits, B misses"] .who') == [pseudonym(USERS[0])]
    page.choose("b", "trained")
    page.wait("document.querySelectorAll('[data-list=\"B hits, A misses\"] button').length === 2")
    page.one(f'[data-list="B hits, A misses"] [data-user="{pseudonym(USERS[3])}"]').click()
    page.wait("document.querySelector('#who')?.textContent === arguments[0]", pseudonym(USERS[3]))
    assert ["held-out item at rank 10 of 10" in side.text for side in page.all("#pair .side")] == [True, False]
    page.wait("document.querySelectorAll('#scatter .point').length === 4")
    ActionChains(page.browser).scroll_to_element(page.one("#scatter")).perform()
    ActionChains(page.browser).move_to_element(page.all("#scatter .point")[1]).pause(0.3).click().perform()
    page.wait("location.hash.includes('cell=3-2')")
    assert page.texts('[data-list="A at rank 3, B at rank 2"] .who') == [pseudonym(USERS[1])]
    page.wait("document.querySelector('#who')?.textContent === arguments[0]", pseudonym(USERS[1]))


def test_a_legend_hides_and_shows_a_ranker(page: Page) -> None:
    page.open("tab=accuracy")
    button = "//*[@id='tab-accuracy']//div[@class='legend']//button[normalize-space()='trained']"
    lines = "document.querySelectorAll('#tab-accuracy figure:has(.legend) .scatterlayer .trace').length"
    page.wait(f"{lines} === 4")  # chance and three rankers
    page.browser.find_element("xpath", button).click()
    page.wait(f"{lines} === 3")
    page.browser.find_element("xpath", button).click()
    page.wait(f"{lines} === 4")


def test_users_are_shown_after_a_protocol_without_them(chrome: Chrome, tmp_path: Path) -> None:
    record = study()
    (warm,) = record.protocols
    protocols = [warm, *(dataclasses.replace(warm, name=name) for name in ("one ranker", "nobody"))]
    runs = [*record.runs, dataclasses.replace(record.runs[0], protocol="one ranker")]
    record = dataclasses.replace(record, protocols=protocols, runs=runs)
    page = Page(chrome, write_report(record, tmp_path)[0].as_uri())
    chrome.get_log("browser")
    for tab, place, without in (("users", "#user-list", "2"), ("versus", "#counts", "1"), ("versus", "#counts", "2")):
        page.open(f"tab={tab}")
        page.wait(f"document.querySelector('{place}') !== null")
        for protocol in (without, "0"):
            page.run("report.go({ protocol: arguments[0] })", protocol)
            page.wait(f"(document.querySelector('{place}') !== null) === (arguments[0] === '0')", protocol)
    assert not [line for line in chrome.get_log("browser") if line["level"] == "SEVERE"]


def test_rankers_of_other_draws_are_compared_no_longer_but_others_are_again(page: Page) -> None:
    page.open("tab=versus")
    page.run("report.data.protocols[0].runs.find((run) => run.label === 'trained').draw = 1")
    for b, there in (("prior", True), ("trained", False), ("prior", True)):
        page.run("report.go({ a: 'model | one', b: arguments[0] })", b)
        page.wait(f"(document.querySelector('#counts') !== null) === {str(there).lower()}")


def test_the_plot_of_ranks_counts_all_users(page: Page) -> None:
    page.open("tab=versus")
    page.run("""
        const many = 4100, shop = report.data.protocols[0];
        Object.assign(shop, { users: Array.from({ length: many }, (_, i) => `u-${i}`), lengths: Array(many).fill(2) });
        for (const run of shop.runs) Object.assign(run, { ranks: "1".repeat(many), asked: many, rows: {} });
        report.go({ a: "prior", b: "trained" });
    """)
    page.wait("document.querySelector('#scatter')?.data?.[1].text.join() === '4,100 users'")
