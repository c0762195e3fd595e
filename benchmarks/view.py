"""The view on an invented run of many users: time to open it, to find a user, to index all rows, and memory.

    python benchmarks/view.py FOLDER [USERS]

The run is written to the folder, unless it is there: rows as a listwise program with reasons writes them (about 5 kB a
user), their cases, and a ledger with four calls a user. With Chromium and selenium the pages are opened in a browser,
too, by a server that has just been started and has no index yet.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from evaluate.data.load import load_dataset
from evaluate.protocol.cases import write_cases
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.runs.directory import RunDirectory
from evaluate.runs.journal import Journal, RunManifest
from evaluate.runs.run_metrics import RunMetrics
from evaluate.stats.metrics import per_user, summarize
from mllm3rec.view.library import Library
from programs.lm.ledger import Call
from signatures.rows import Case, Ranking, Usage
from signatures.types import Interaction, Motivation, Profile, Rationale, Traits, Verdict

LIST = 30
HISTORY = 6


def invented(folder: Path, users: int) -> None:
    """Write the run and its cases."""
    dataset = load_dataset("demo")
    items = sorted(dataset.items)
    draw = random.Random(0)  # noqa: S311 - an invented run
    protocol = EvaluationProtocol.for_dataset(
        "demo", "demo", dataset.sha256, users=users, negatives=LIST - 1, part="all"
    )
    cases = []
    for number in range(users):
        chosen = draw.sample(items, LIST + HISTORY)
        candidates = tuple(chosen[:LIST])
        history = tuple(Interaction(item_id=item, rating=5.0) for item in chosen[LIST:])
        user = f"user-{number:06}"
        cases.append(Case(user_id=user, history=history, candidates=candidates, target=draw.choice(candidates)))
    written = write_cases(folder / "cases.jsonl", protocol, cases)
    ranks = {}
    with Journal.open(folder / "run", RunManifest(cases_sha256=written.sha256, ranker="invented")) as journal:
        for case in cases:
            row = _row(case, draw)
            ranks[case.user_id] = row.order.index(str(case.target)) + 1
            journal.append(row)
    files = RunDirectory(folder / "run")
    metrics = summarize(per_user(ranks), negatives=LIST - 1)
    figures = RunMetrics(ranker="invented", users=users, unresolved=0, metrics=metrics, components={})
    files.metrics.write_text(figures.model_dump_json())
    with files.ledger.open("w") as ledger:
        for user in ranks:
            for role in ("mope", "mar", "mar", "judge"):
                about = sha256(f"{user} {role}".encode()).hexdigest()[:16]
                call = Call(role=role, model="openai/invented", tokens_in=900, tokens_out=60, usd=0.0001, about=about)
                ledger.write(call.model_dump_json(exclude_defaults=True) + "\n")


def _row(case: Case, draw: random.Random) -> Ranking:
    order = tuple(draw.sample(case.candidates, len(case.candidates)))
    faithful = Verdict(faithful=True, why="supported by the traits")
    words = "an invented phrase of some length about what it is good for"
    return Ranking(
        user_id=case.user_id,
        order=order,
        scores={name: [draw.gauss(0, 1) for _ in order] for name in ("prior", "mar", "fused")},
        score_source="rank",
        profile=Profile(
            motivations=tuple(
                Motivation(dimension=name, description=words, strength="strong", evidence=(1, 2))
                for name in ("durability", "value", "learning")
            )
        ),
        traits=[Traits(item_id=item, phrases=("good for rain", "lasts for years")) for item in order],
        rationales=[Rationale(item_id=item, text=words, verdict=faithful) for item in order[:3]],
        usage=Usage(calls=4, tokens_in=3600, tokens_out=240, usd=0.0004, seconds=1.0),
    )


def resident(process: str = "self") -> int:
    """Megabytes of memory of a process now, without pages of files that the system may drop (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("RssAnon"))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print a line of the result: seconds, and those of this process on a CPU."""
    began, busy = time.perf_counter(), time.process_time()
    yield
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    print(f"{what}: {seconds:.2f} s, {busy:.2f} s on a CPU", flush=True)


def read(folder: Path, user: str) -> None:
    """Times and memory of the reading modules alone."""
    with timed("open"):
        run = Library(folder).run("run")
        facts = run.facts()
    print(f"{facts.users:,} users, HR@5 {facts.metric('HR@5')}")
    with timed("find a user without an index"):
        run.rows.find(user)
    before = resident()
    with timed(f"index of {run.rows.size >> 20} MB of rows"):
        run.rows.extend()
    print(f"memory of the index: {resident() - before} MB")
    with timed("find a user by the index"):
        run.rows.find(user)
    with timed(f"index of {run.files.ledger.stat().st_size >> 20} MB of calls, and calls about one prompt"):
        run.ledger.about(sha256(f"{user} mar".encode()).hexdigest()[:16])


def browse(folder: Path, user: str) -> None:
    """Times of the pages in a browser, with a server that has just been started."""
    from selenium import webdriver

    command = [sys.executable, "-m", "mllm3rec", "view", str(folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as view:  # noqa: S603
        address = json.loads(next(iter(view.stdout or ())))["address"]
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in ("--headless", "--no-sandbox", "--disable-gpu"):
            options.add_argument(flag)
        driver = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        browser = webdriver.Chrome(options=options, service=driver)
        try:
            browser.get(f"{address}playground")  # the browser has the scripts now
            for what, path in (
                ("list of runs", ""),
                ("the run", "compare?run=run"),
                ("find a user", f"compare?run=run&find={user}"),
                ("the user", f"user?run=run&user={user}"),
            ):
                with timed(f"page: {what}"):
                    browser.get(address + path)
                    while not browser.execute_script("return !!document.querySelector('#content[aria-busy=false]')"):
                        time.sleep(0.01)
            print(f"memory of the view: {resident(str(view.pid))} MB")
        finally:
            browser.quit()
            view.terminate()


def main(folder: Path, users: int) -> None:
    """Measure, and print one line a figure."""
    if not (folder / "run").exists():
        with timed(f"write {users:,} users"):
            invented(folder, users)
    user = f"user-{users // 2:06}"
    # In processes of their own: this one may have held all cases.
    subprocess.run([sys.executable, __file__, "read", str(folder), user], check=True)  # noqa: S603
    if shutil.which("chromium") and shutil.which("chromedriver"):
        browse(folder, user)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["read", where, whom]:
            read(Path(where), whom)
        case [where, *number]:
            main(Path(where), int(number[0]) if number else 100_000)
        case _:
            print(__doc__)
