"""A small study for the tests of reports: four users, lists of ten, ranks that can be checked by hand."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser

from evaluate.paper.published import MAIN
from evaluate.protocol.cases import Cases
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.report.record import ProtocolRecord, RunRecord, StudyRecord
from evaluate.runs.journal import RunManifest
from evaluate.runs.run_metrics import ranks_of
from signatures.rows import Case, Ranking, Status, Usage
from signatures.types import Interaction, Item, Motivation, Profile, Rationale, Traits, Verdict

SCRIPT = "</script><script>alert(1)</script><!--"
USERS = ("AREVIEWER1", "AREVIEWER2", "AREVIEWER3", "AREVIEWER4")
SIZE = 10
TARGETS = {user: f"item{i}" for i, user in enumerate(USERS)}
HISTORIES = dict(zip(USERS, (1, 2, 4, 12), strict=True))
CATALOGUE = {
    **{
        f"item{i}": Item(item_id=f"item{i}", title=f"Thing {i}", categories=(("All", f"Kind {i % 3}"),))
        for i in range(SIZE)
    },
    "item0": Item(item_id="item0", title=f"Bad {SCRIPT}"),
    "owned": Item(item_id="owned", title="=HYPERLINK(1) & <img src=x onerror=alert(2)>"),
}


def case(user: str, draw: int = 0) -> Case:
    """A list of ten with the target at a position that depends on the draw."""
    ids = [f"item{i}" for i in range(SIZE)]
    return Case(
        user_id=user,
        history=(Interaction(item_id="owned", rating=5.0),) * HISTORIES[user],
        candidates=tuple(ids[draw:] + ids[:draw]),
        target=TARGETS[user],
        metadata={"region": "coast"},
    )


def order(one: Case, rank: int) -> tuple[str, ...]:
    """All candidates with the target at a rank."""
    assert one.target is not None
    rest = [item for item in one.candidates if item != one.target]
    return (*rest[: rank - 1], one.target, *rest[rank - 1 :])


def scores_of(one: Case, ordered: Sequence[str]) -> list[float]:
    """Scores that give this order."""
    return [float(-ordered.index(item)) for item in one.candidates]


def plain(one: Case, rank: int, name: str = "prior") -> Ranking:
    """A row without a language model."""
    ordered = order(one, rank)
    return Ranking(user_id=one.user_id, order=ordered, scores={name: scores_of(one, ordered)})


def spoken(one: Case, prior: int, mar: int, fused: int, status: Status = Status.OK) -> Ranking:
    """A row with a language model, whose texts are as hostile as titles are."""
    orders = {"prior": order(one, prior), "mar": order(one, mar), "fused": order(one, fused)}
    return Ranking(
        user_id=one.user_id,
        order=orders["fused"],
        scores={name: scores_of(one, ordered) for name, ordered in orders.items()},
        score_source="rank",
        appended=2,
        dropped=1,
        unparsable=1,
        profile=Profile(
            motivations=(
                Motivation(
                    dimension="learning", description=f"wants to learn {SCRIPT}", strength="strong", evidence=(1,)
                ),
            )
        ),
        traits=[Traits(item_id="item1", phrases=("teaches", f"fun {SCRIPT}"), dropped=("brand: Acme",))],
        rationales=[
            Rationale(
                item_id="item1", text=f"It teaches {SCRIPT}", verdict=Verdict(faithful=True, why="traits say so")
            ),
            Rationale(item_id="item2", text="It is red", verdict=Verdict(faithful=False, why="no trait says red")),
        ],
        usage=Usage(calls=3),
        status=status,
    )


def run(
    label: str, rows: Mapping[str, Ranking], cases: Cases, draw: int = 0, seed: int | None = None, **more: object
) -> RunRecord:
    """A run of given rows."""
    made = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    return RunRecord(
        dataset="shop",
        protocol="warm",
        draw=draw,
        ranker=label,
        seed=seed,
        manifest=RunManifest(cases_sha256=cases.sha256, ranker=label, created=made, configuration={"note": SCRIPT}),
        rows=rows,
        ranks=ranks_of(cases.cases, rows),
        list_size=SIZE,
        command=f"mllm3rec evaluate cases.jsonl --ranker {label}",
        **more,  # type: ignore[arg-type]
    )


def cases_of(draw: int, users: Sequence[str] = USERS) -> Cases:
    """The frozen lists of a draw."""
    protocol = EvaluationProtocol(
        dataset="shop", source="demo", dataset_sha256="0" * 64, negatives=SIZE - 1, draw=draw, part="all"
    )
    return Cases(protocol, tuple(case(user, draw) for user in users), sha256=f"{draw}abc" * 16)


def study(title: str = f"A study {SCRIPT}") -> StudyRecord:
    """Prior (2 draws), a trained ranker (2 draws, 2 seeds), a language model (1 draw, one user unresolved)."""
    cases = {draw: cases_of(draw) for draw in (0, 1)}
    prior = {0: (1, 3, 7, 10), 1: (1, 3, 9, 9)}
    trained = {(0, 0): (2, 2, 2, 2), (0, 1): (6, 2, 2, 2), (1, 0): (1, 1, 1, 1), (1, 1): (1, 1, 1, 10)}
    runs = [
        run("prior", {c.user_id: plain(c, r) for c, r in zip(cases[d].cases, ranks, strict=True)}, cases[d], d)
        for d, ranks in prior.items()
    ]
    runs += [
        run(
            "trained",
            {c.user_id: plain(c, r, "trained") for c, r in zip(cases[d].cases, ranks, strict=True)},
            cases[d],
            d,
            s,
            tuned=[{"factors": 8, "NDCG@5": 0.25}],
        )
        for (d, s), ranks in trained.items()
    ]
    first, second, third, _ = cases[0].cases
    rows = {
        first.user_id: spoken(first, prior=1, mar=8, fused=6),
        second.user_id: spoken(second, prior=3, mar=1, fused=1),
        third.user_id: spoken(third, prior=7, mar=4, fused=7, status=Status.UNPARSABLE),
    }
    usage = {"mope": Usage(calls=3, tokens_in=300, tokens_out=30, usd=0.03), "mar": Usage(calls=6, cache_hits=1)}
    runs.append(run("model | one", rows, cases[0], unresolved=1, usage=usage, stand_alone=usage))
    record = ProtocolRecord(
        dataset="shop",
        name="warm",
        choices=cases[0].protocol.choices(),
        cases=cases,
        popularity={"item1": 1, "item2": 5, "item3": 9},
        catalogue=CATALOGUE,
        published=[row for row in MAIN if row.row.dataset == "Beauty"],
    )
    return StudyRecord(
        name="small",
        title=title,
        reference="prior",
        protocols=[record],
        runs=runs,
        pairs=[("trained", "model | one"), ("trained", "absent")],
        commands=["mllm3rec study run small.toml"],
        hashes={"data": "feed" * 16},
        versions={"dspy": "3.4.1"},
        missing={"shop/warm/absent": "user 'AREVIEWER2': the server was gone"},
    )


class _Elements(HTMLParser):
    """Tags with their attributes, and the text of every script."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)

    def handle_endtag(self, tag: str) -> None:
        self.lasttag = ""


def assert_self_contained(text: str) -> None:
    """A page loads nothing, and its policy lets it run its own scripts and nothing else."""
    parser = _Elements()
    parser.feed(text)
    parser.close()
    assert not [tag for tag, attributes in parser.found if {"src", "href", "srcset"} & attributes.keys()]
    assert not [name for _, attributes in parser.found for name in attributes if name.startswith("on")]
    assert not {"img", "link", "iframe", "object", "base", "a"} & {tag for tag, _ in parser.found}
    policy = next(a["content"] for t, a in parser.found if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    run = [script for kind, script in parser.scripts if kind != "application/json"]
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in run}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert not [script for script in run if "innerHTML" in script and "plotly.js" not in script[:200]]
