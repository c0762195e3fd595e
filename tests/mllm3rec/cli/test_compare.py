"""`mllm3rec compare` as a user types it, against real servers on loopback: shared work, prices, a dead backend."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluate.experiments.grid import read_grid
from evaluate.experiments.grid_runner import GridRunner
from evaluate.protocol.cases import load_cases
from programs.lm.ledger import read_calls
from programs.lm.response_cache import use_response_cache
from programs.runtime.errors import BudgetExceededError, InputError
from tests.support.cases import cases_file
from tests.support.command_line import commands_in, run
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible
from tests.support.files import plain_files
from tests.support.flaky_server import FlakyOpenAI


def drawn(folder: Path, users: int, negatives: int = 9, source: str = "demo") -> Path:
    """A file of cases."""
    cases_file(folder / "cases.jsonl", users, negatives, part="all", source=source)
    return folder / "cases.jsonl"


def grid_file(path: Path, servers: dict[str, FakeOpenAI], roles: str, more: str = "") -> Path:
    backends = "".join(f'[backends.{name}]\nmodel = "{server.model(name)}"\n' for name, server in servers.items())
    path.write_text(f"{roles}\n{more}\n{backends}")
    return path


@contextmanager
def named_servers(*names: str) -> Iterator[dict[str, FakeOpenAI]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(FakeOpenAI()) for name in names}


BOTH = 'mope = ["a", "b"]\nmote = ["a"]\nmar = ["a", "b"]'


@dataclass(frozen=True)
class Compared:
    """A finished comparison of four mixes, and its servers.

    Attributes:
        printed: What it printed, as JSON.
        sent: Calls that the servers had counted when it ended.
    """

    cases: Path
    grid: Path
    directory: Path
    servers: dict[str, FakeOpenAI]
    printed: dict[str, Any]
    sent: int

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """What it says of each mix."""
        return {row["label"]: row for row in self.printed["rows"]}


def sent_to(servers: Mapping[str, FakeOpenAI]) -> int:
    """Calls that servers have counted."""
    return sum(len(server.bodies) for server in servers.values())


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    """The comparison, made by the command line."""
    folder = tmp_path_factory.mktemp("compared")
    cases = drawn(folder, 4)
    with named_servers("a", "b") as servers:
        grid = grid_file(folder / "grid.toml", servers, BOTH)
        with commands_in(folder):
            found = run("compare", cases, "--grid", grid, "--out", folder / "run", "--json")
        assert found.exit_code == 0, found.output
        yield Compared(cases, grid, folder / "run", servers, json.loads(found.stdout), sent_to(servers))


def test_the_ledgers_and_the_servers_count_the_same_calls(compared: Compared) -> None:
    ledgers = [call for path in compared.directory.rglob("ledger.jsonl") for call in read_calls(path)]
    assert sum(not call.hit for call in ledgers) == compared.sent
    tokens = sum(server.tokens_in for server in compared.servers.values())
    assert sum(call.tokens_in for call in ledgers if not call.hit) == tokens


def test_a_finished_comparison_pays_nothing_when_it_is_run_again(compared: Compared) -> None:
    again = run("compare", compared.cases, "--grid", compared.grid, "--out", compared.directory, "--json")
    assert sent_to(compared.servers) == compared.sent
    assert json.loads(again.stdout)["rows"] == compared.printed["rows"]


def test_shared_work_is_done_once_and_both_costs_are_told(compared: Compared) -> None:
    rows = compared.rows
    assert list(rows) == ["a_a_a", "a_a_b", "b_a_a", "b_a_b"]
    roles = {label: {role["role"]: role for role in row["cost"]["roles"]} for label, row in rows.items()}
    assert roles["a_a_a"]["mope"]["stored"] == 0
    # The second mix takes profiles and traits from the first; alone it would have cost as much.
    assert roles["a_a_b"]["mope"]["stored"] == roles["a_a_b"]["mope"]["calls"] == roles["a_a_a"]["mope"]["calls"]
    assert roles["a_a_b"]["mote"]["stored"] == roles["a_a_b"]["mote"]["calls"]
    assert roles["a_a_b"]["mote"]["tokens_in"] == roles["a_a_a"]["mote"]["tokens_in"] > 0
    assert roles["b_a_a"]["mope"]["stored"] == 0
    assert rows["a_a_a"]["cost"]["per_user"] is None, "these servers have no price"


def test_the_prior_alone_stands_beside_the_mixes(compared: Compared) -> None:
    prior = prior_run(compared)
    assert {name: found["mean"] for name, found in compared.printed["prior"].items()} == pytest.approx(
        {name.split("/")[0]: found["mean"] for name, found in prior["metrics"].items()}
    )
    table = run("compare", compared.cases, "--grid", compared.grid, "--out", compared.directory).stdout
    assert "prior alone, $0" in table
    page = (compared.directory / "report" / "report.html").read_text("utf-8")
    mixes = page.split('id="tab-mixes"')[1].split("</section>")[0]
    assert mixes.count('<td class="name">prior alone</td>') == 2, "in accuracy and in costs"


def prior_run(compared: Compared) -> dict[str, Any]:
    """The ranker `prior` on the same cases."""
    directory = compared.directory.parent / "prior"
    found = run("evaluate", compared.cases, "--ranker", "prior", "--out", directory, "--json")
    return dict(json.loads(found.stdout))


def test_the_report_shows_every_mix_and_the_front(compared: Compared) -> None:
    page = (compared.directory / "report" / "report.html").read_text("utf-8")
    assert "Pareto front" in page
    assert "a_a_b" in page


def test_lists_shorter_than_five_are_compared(tmp_path: Path) -> None:
    with named_servers("a") as servers:
        grid = grid_file(tmp_path / "grid.toml", servers, 'mope = ["a"]\nmote = ["a"]\nmar = ["a"]\n')
        found = run("compare", drawn(tmp_path, 3, negatives=3), "--grid", grid, "--out", tmp_path / "run", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "run" / "comparison.json").read_bytes())["rows"]
    assert (tmp_path / "run" / "report" / "report.html").is_file()


def test_a_dead_backend_ends_its_mixes_and_no_others(tmp_path: Path) -> None:
    cases = drawn(tmp_path, 4)
    served = threading.Event()

    def dying(body: Body) -> Reply:
        if served.is_set():
            return Reply("the engine is on fire", status=401)
        served.set()
        return sensible(body)

    with FakeOpenAI() as healthy, FakeOpenAI(dying) as dead:
        grid = grid_file(tmp_path / "grid.toml", {"a": healthy, "b": dead}, BOTH)
        found = run("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--json")
        assert found.exit_code == 1, found.output
        rows = {row["label"]: row for row in json.loads(found.stdout)["rows"]}
        assert rows["a_a_a"]["unresolved"] == 0
        assert rows["a_a_b"]["unresolved"] > 0
        assert rows["b_a_a"]["unresolved"] > 0
        assert "on fire" in rows["b_a_a"]["stopped"]
        assert rows["b_a_a"]["metrics"] == {} or rows["b_a_a"]["bounds"]
        assert json.loads(found.stdout)["recommendation"]["best"] == "a_a_a"


def test_a_grid_edited_after_its_runs_is_refused(compared: Compared, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(compared.directory, tmp_path / "run"))
    edited = tmp_path / "grid.toml"
    edited.write_text(compared.grid.read_text().replace(compared.servers["b"].url, compared.servers["a"].url))
    found = run("compare", compared.cases, "--grid", edited, "--out", directory)
    assert isinstance(found.exception, InputError)
    assert "configuration.models" in str(found.exception)
    assert sent_to(compared.servers) == compared.sent


def test_a_budget_holds_for_all_mixes_together(tmp_path: Path) -> None:
    cases = drawn(tmp_path, 4)
    with named_servers("a", "b") as servers:
        grid = grid_file(tmp_path / "grid.toml", servers, BOTH)
        with pytest.raises(BudgetExceededError):
            run("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--max-calls", "40")
        # What was paid for can be looked at.
        assert (tmp_path / "run" / "report" / "report.html").exists()
        assert sent_to(servers) <= 40
        more = run("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--json")
        assert more.exit_code == 0, more.output


def test_what_a_forecast_pays_counts_for_the_budget(tmp_path: Path) -> None:
    cases = drawn(tmp_path, 6)
    with named_servers("a", "b") as servers:
        grid = grid_file(tmp_path / "grid.toml", servers, BOTH)
        assert run("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--dry-run").exit_code == 0
        sent = sent_to(servers)
        with pytest.raises(BudgetExceededError):
            run("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--max-calls", str(sent + 5))
        assert sent_to(servers) <= sent + 5


def test_a_forecast_of_a_search_is_its_own(tmp_path: Path) -> None:
    cases = drawn(tmp_path, 3)
    with named_servers("a", "b") as servers:
        grid = grid_file(tmp_path / "grid.toml", servers, BOTH)
        forecast = ("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--dry-run")
        whole = json.loads(run(*forecast, "--json").stdout)
        part = json.loads(run(*forecast, "--search", 2, "--json").stdout)
        assert "--search 2: 2 of these" in " ".join(run(*forecast, "--search", 2).output.split())
    assert (whole["search"], whole["mixes"]) == (None, part["mixes"])
    assert part["search"]["mixes"] == 2
    assert 0 < part["search"]["most"]["calls"] <= sum(mix["marginal"]["calls"] for mix in whole["mixes"])


def test_a_forecast_keeps_to_the_limits_of_the_command(tmp_path: Path) -> None:
    cases = drawn(tmp_path, 3)

    def slow(body: Body) -> Reply:
        reply = sensible(body)
        reply.seconds = 0.7
        return reply

    with FakeOpenAI(slow) as server:
        grid = grid_file(tmp_path / "grid.toml", {"a": server}, 'mope = ["a"]\nmote = ["a"]\nmar = ["a"]')
        forecast = ("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--dry-run")
        with pytest.raises(BudgetExceededError, match="the minutes of this session are over"):
            run(*forecast, "--max-minutes", 0.01)
        server.respond = sensible
        server.bodies.clear()
        assert run(*forecast, "--max-tokens", 777).exit_code == 0
        assert {body["max_tokens"] for body in server.bodies} == {777}, "other limits are other questions"


def test_a_search_goes_on_and_refuses_another_grid(tmp_path: Path) -> None:
    cases = drawn(tmp_path, 3)
    with named_servers("a", "b") as servers:
        grid = grid_file(tmp_path / "grid.toml", servers, BOTH)
        search = ("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--search")
        with pytest.raises(BudgetExceededError):
            run(*search, "2", "--max-calls", "25")
        told = json.loads((tmp_path / "run" / "comparison.json").read_text())["rows"]
        assert [(row["label"], row["users"] < 3, bool(row["stopped"])) for row in told] == [("a_a_a", True, True)]
        found = run(*search, "2", "--json")
        assert found.exit_code == 0, found.output
        assert len(json.loads(found.stdout)["rows"]) == 2
        more = run(*search, "3", "--json")
        assert [row["label"] for row in json.loads(more.stdout)["rows"]][:2] == [
            row["label"] for row in json.loads(found.stdout)["rows"]
        ]
        sent = sent_to(servers)
        grid.write_text(grid.read_text().replace('mote = ["a"]', 'mote = ["a", "b"]'))
        refused = run(*search, "4")
        assert isinstance(refused.exception, InputError)
        assert "search over another grid" in str(refused.exception)
        assert sent_to(servers) == sent


def test_priced_servers_with_bad_days_agree_with_the_ledger_to_the_cent(
    tmp_path: Path, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One says when to come back, one does not, one is slow, one dies half-way; then the same command once more."""
    cases = drawn(tmp_path, 6)
    with (
        FlakyOpenAI((Reply("wait", status=429, headers={"Retry-After": "1"}),) * 2) as asking,
        FlakyOpenAI((Reply("no", status=429),) * 4) as refusing,
        FlakyOpenAI(seconds=0.02) as slow,
        FlakyOpenAI(dies_after=5) as dying,
    ):
        servers: dict[str, FakeOpenAI] = {"asking": asking, "refusing": refusing, "slow": slow, "dying": dying}
        prices = {"asking": (1.0, 3.0), "refusing": (0.25, 0.5), "slow": (10.0, 40.0), "dying": (2.0, 2.0)}
        lines = [
            f'"{server.model(name)}" = {{ input = {prices[name][0]}, output = {prices[name][1]} }}'
            for name, server in servers.items()
        ]
        own = tmp_path / "prices.toml"
        own.write_text('dated = 2026-11-01\nsource = "a test"\n[models]\n' + "\n".join(lines) + "\n")
        monkeypatch.setenv("MLLM3REC_PRICES", str(own))
        roles = 'mope = ["asking", "dying"]\nmote = ["refusing"]\nmar = ["slow", "refusing"]'
        grid = grid_file(tmp_path / "grid.toml", servers, roles, "workers = 4")
        found = run("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--json")
        assert found.exit_code == 1, found.output
        told = json.loads(found.stdout)
        unresolved = {row["label"]: row["unresolved"] for row in told["rows"]}
        assert unresolved["asking_refusing_slow"] == unresolved["asking_refusing_refusing"] == 0
        assert unresolved["dying_refusing_slow"] > 0
        assert unresolved["dying_refusing_refusing"] > 0

        ledgers = [call for path in (tmp_path / "run").rglob("ledger.jsonl") for call in read_calls(path)]
        answered = [call for call in ledgers if not call.hit and not call.failed]
        for name, server in servers.items():
            mine = [call for call in answered if call.model.endswith(f"/{name}")]
            assert mine, {call.model for call in answered}
            assert sum(call.tokens_in for call in mine) == server.tokens_in
            assert sum(call.tokens_out for call in mine) == server.tokens_out
            dollars = (server.tokens_in * prices[name][0] + server.tokens_out * prices[name][1]) / 1e6
            assert sum(call.usd or 0.0 for call in mine) == pytest.approx(dollars, abs=1e-9)
        billed = sum(role["billed_usd"] for row in told["rows"] for role in row["cost"]["roles"])
        assert billed == pytest.approx(sum(call.usd or 0.0 for call in ledgers if not call.hit), abs=1e-9)
        # Whoever hung up without an answer may have billed it; who said no has not.
        doubtful = {call.model.rpartition("/")[2] for call in ledgers if call.failed and call.usd}
        assert doubtful == {"dying"}

        served = [len(server.bodies) for server in servers.values()]
        again = run("compare", cases, "--grid", grid, "--out", tmp_path / "run", "--json")
        assert [len(server.bodies) for server in servers.values()] == served, "nothing is paid twice"
        rows = {row["label"]: row["unresolved"] for row in json.loads(again.stdout)["rows"]}
        assert rows == unresolved


# With 29 negatives out of 120 products, every product is shown to many users, and a few users share many of theirs.
@pytest.mark.parametrize(("name", "negatives"), [("demo", 9), ("films", 9), ("tools", 9), ("films", 29)])
def test_the_forecast_is_within_a_fifth_of_what_it_then_takes(tmp_path: Path, name: str, negatives: int) -> None:
    sources = {
        "films": lambda: plain_files(tmp_path / "films", ["quiet", "night", "harbour", "letter"] * 4, 60, 9),
        "tools": lambda: plain_files(tmp_path / "tools", ["steel", "folding", "bench", "clamp", "long"] * 3, 60, 25),
    }
    source = sources[name]() if name in sources else name
    cases = drawn(tmp_path, 24, negatives, source)
    with named_servers("a", "b") as servers:
        path = grid_file(tmp_path / "grid.toml", servers, BOTH)
        found = run("compare", cases, "--grid", path, "--out", tmp_path / "run", "--dry-run", "--json")
        assert found.exit_code == 0, found.output
        paid = list(read_calls(tmp_path / "run" / "forecast" / "ledger.jsonl"))
        assert sum(not call.hit for call in paid) == sent_to(servers)
        said = {one["label"]: one for one in json.loads(found.stdout)["mixes"]}
        assert run("compare", cases, "--grid", path, "--out", tmp_path / "run", "--json").exit_code == 0
        runner = GridRunner(read_grid(path), load_cases(cases), tmp_path / "run")
        for mix in runner.grid.mixes():
            taken = runner.read_mix(mix, None).cost
            real = sum(role.tokens_in + role.tokens_out for role in taken.roles)
            forecast = said[mix.label]["alone"]["tokens_in"] + said[mix.label]["alone"]["tokens_out"]
            assert forecast == pytest.approx(real, rel=0.2), mix.label
            assert said[mix.label]["alone"]["usd"] is None or taken.usd is not None
    use_response_cache(":memory:").close()
