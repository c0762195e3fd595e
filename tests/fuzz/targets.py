"""Kinds of files, sound ones to begin with, and what reads them."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluate.data.load import load_dataset
from evaluate.experiments.grid import read_grid
from evaluate.experiments.study_spec import read_study
from evaluate.protocol.cases import draw_cases, load_cases
from evaluate.runs.journal import read_journal
from evaluate.runs.run_metrics import ranks_and_manifest
from evaluate.runs.trec import read_trec_run
from evaluate.stats.audit import audit_row, read_metric_table
from optimize.artifact import ArtifactManifest, render_prompts, restore_program
from optimize.candidates import Candidates
from programs.lm.ledger import Ledger, read_calls
from programs.lm.limits import stated_limits
from programs.lm.prices import read_prices
from programs.lm.response_cache import _stored_answer
from programs.runtime.config_file import load_schema
from tests.support.files import jsonl
from tests.support.paths import OLD_FILES, ROOT

Files = Mapping[str, bytes]
"""Contents by path in a folder."""


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        files: A sound folder; those of `fuzzed` are mutated, one at a time.
        read: Reads all that there is in the folder.
        share: How many of a thousand inputs are of this kind.
        repair: Brings checksums in order after a mutation, as a stranger would, in half of the inputs.
    """

    files: Files
    fuzzed: tuple[str, ...]
    read: Callable[[Path], object]
    share: int
    repair: Callable[[Path], object] | None = None


def _reviews(user: str, item: str, time: str, per_second: int, rating: str) -> bytes:
    bought = (("U1", "B1"), ("U1", "B2"), ("U2", "B2"), ("U2", "B3"), ("U3", "B1"), ("U3", "B3"))
    return jsonl(
        [
            {user: who, item: what, rating: 5.0 - n % 3, time: (1_500_000_000 + n) * per_second, "text": "fine"}
            for n, (who, what) in enumerate(bought)
        ]
    ).encode()


META: list[dict[str, Any]] = [
    {"asin": "B1", "title": "Baby&#39;s <b>kite</b>", "price": 9.99, "brand": "Z", "categories": [["Toys", "Kites"]]},
    {"asin": "B2", "description": ["A <i>ball</i>.", "Round &gt; flat"], "price": "$3.99 - $9.99", "title": "Ball"},
    {"asin": "B3", "title": "Cup", "categories": [["Kitchen"]], "feature": ["blue", "light"], "price": "from 4.99"},
]
PLAIN = {
    "items.csv": b"item_id,title,categories,price\n"
    b'a,Kite,Toys > Kites,3.5\nb,"Ball, red",Toys,\nc,Cup,"[""Home""]",2\n',
    "interactions.csv": b"user_id,item_id,rating,timestamp\nu,a,5,10\nu,b,4,20\nv,b,3,2018-07-07 00:48:16\nv,c,5,30\n",
    "users.csv": b"user_id,age,region\nu,34,north\nv,,south\n",
}
PLAIN_JSONL = {
    "items.jsonl": jsonl(
        [
            {"item_id": "a", "title": "Kite", "categories": [["Toys", "Kites"]], "price": 3.5},
            {"item_id": "b", "description": ["A", "ball"], "brand": "Z"},
            {"item_id": "c", "keywords": "cup blue"},
        ]
    ).encode(),
    "interactions.jsonl": jsonl(
        [
            {"user_id": "u", "item_id": "a", "rating": 5, "timestamp": 10},
            {"user_id": "u", "item_id": "b", "rating": None, "timestamp": 20},
            {"user_id": "v", "item_id": "b", "rating": 3.5, "timestamp": 5},
            {"user_id": "v", "item_id": "c", "rating": 3.5, "timestamp": 6},
        ]
    ).encode(),
    "users.jsonl": jsonl([{"user_id": "u", "age": 34.0}, {"user_id": "v", "pets": ["cat", "dog"]}]).encode(),
}
ML_1M = {
    "ratings.dat": b"1::1::5::978300001\n1::2::4::978300002\n2::2::3::978300003\n2::1::5::978300004\n"
    b"3::1::5::978300005\n3::3::5::978300006\n",
    "movies.dat": "1::Tité (1995)::Drama|Comedy\n2::Plain (1995)::Drama\n3::Third::War\n".encode("latin-1"),
    "users.dat": b"1::F::25::4::12345\n2::M::1::10::48067\n3::M::18::3::1\n",
}
ML_100K = {
    "u.data": b"1\t1\t5\t881250949\n1\t2\t4\t881250950\n2\t1\t3\t881250951\n2\t2\t3\t881250952\n"
    b"3\t1\t5\t1\n3\t3\t5\t2\n",
    "u.item": b"1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    b"2|GoldenEye (1995)|01-Jan-1995||http://x|0|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0|1|0|0\n"
    b"3|Heat (1995)|01-Jan-1995||http://x|0|1|0|0|0|0|1|0|0|0|0|0|0|0|0|0|1|0|0\n",
    "u.user": b"1|24|M|technician|85711\n2|53|F|other|94043\n3|20|M|other|1\n",
}
RECBOLE = {
    "ml.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    b"u\ta\t4\t20\nu\tb\t5\t10\nv\ta\t3\t1\nv\tc\t3\t2\n",
    "ml.item": b"item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
    b"a\tToy Story\tAnimation War\nb\tHeat\t'A', 'B'\nc\tThird\t\n",
    "ml.user": b"user_id:token\tage:token\nu\t24\nv\t53\n",
}
GOODREADS = {
    "goodreads_interactions_x.json": jsonl(
        [
            {"user_id": u, "book_id": b, "rating": r, "date_added": f"Mon Jul 03 16:17:{n:02} -0700 2017"}
            for n, (u, b, r) in enumerate([("u", "1", 5), ("u", "2", 0), ("v", "2", 4), ("v", "3", 5), ("w", "1", 4)])
        ]
    ).encode(),
    "goodreads_books_x.json": jsonl(
        [{"book_id": b, "title": f"Book {b}", "popular_shelves": [{"count": "2", "name": "sea"}]} for b in "123"]
    ).encode(),
}
HM = {
    "transactions_train.csv": b"t_dat,customer_id,article_id,price\n2018-09-20,u,01,0.05\n2018-09-21,u,02,0.03\n"
    b"2018-09-20,v,02,0.03\n2018-09-22,v,03,0.03\n",
    "articles.csv": b"article_id,prod_name,product_type_name,index_group_name,detail_desc\n"
    b'01,Top,Vest,Ladies,"Soft, warm"\n02,Tights,Tights,Ladies,\n03,Cap,Hat,Kids,\n',
    "customers.csv": b"customer_id,age,club_member_status\nu,34.0,ACTIVE\nv,,\n",
}
MIND = {
    "behaviors.tsv": b"1\tU1\t11/15/2019 8:55:22 AM\tN1 N2\tN3-1 N2-0\n2\tU2\t11/14/2019 1:05:00 PM\t\tN2-1 N1-0\n"
    b"3\tU2\t11/14/2019 9:05:00 AM\t\tN1-1\n",
    "news.tsv": b"N1\tsports\tgolf\tA putt\tHe won.\tx\t[]\t[]\nN2\tnews\tworld\tIt goes\t\tx\t[]\t[]\n"
    b"N3\tfood\tsoup\tSoup\tWarm.\tx\t[]\t[]\nN4\tfood\tsoup\tTea\tHot.\tx\t[]\t[]\n",
}
STEAM = {
    "steam_reviews.json": b"{u'username': u'u', u'product_id': u'10', u'date': u'2017-12-17', u'text': u'\\u2665'}\n"
    b"{'username': 'u', 'product_id': '20', 'date': '2017-12-18'}\n"
    b"{'username': 'v', 'product_id': '20', 'date': '2017-12-17'}\n"
    b"{'username': 'v', 'product_id': '30', 'date': '2017-12-19'}\n",
    "steam_games.json": b"{u'genres': [u'Action'], u'app_name': u'Cat', u'tags': [u'Cats'], u'id': u'10'}\n"
    b"{'app_name': 'Dog', 'id': '20', 'price': 'Free To Play'}\n{'app_name': 'Cow', 'id': '30'}\n",
}
SINGLE = b"user;item;date;title\nu;a;2024-01-01;Kite\nu;b;2024-01-02;Ball\nv;b;2024-01-01;Ball\nv;c;2024-01-03;Cup\n"
TREC = b"u1 Q0 D001 1 2.5 theirs\nu1 Q0 D002 2 1.5 theirs\nu2 Q0 D001 1 1e3 theirs\n"
PRICES = b"""dated = 2026-01-31
source = "our contract"
[models]
"openai/gpt-4o" = { input = 1.0, output = 2.0, cached = 0.5, source = "a rebate", retired = 2026-12-31 }
"local/smollm2-135m" = { usd_per_hour = 0.36 }
"""
LIMITS = b'["openai/gpt-4o"]\nconcurrency = 8\nrpm = 500\ntpm = 100000\n'
SCHEMA_YAML = b"""name: films
dimensions:
  - name: suspense
    definition: wants to be kept in the dark and on edge
    kind: emotional
  - {name: insight, definition: "wants to understand people, and times", kind: functional}
"""
TABLE = b'method,dataset,HR@5,NDCG@5,HR@10,NDCG@10\nSASRec [ours],Toys,.412,.300,.523,.336\n"A, B",Toys,0.4,0.3,,\n'
ANSWER = json.dumps(
    {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        "_seconds": 0.5,
    }
).encode()


def _dataset(folder: Path) -> object:
    data = load_dataset(folder)
    described = data.describe()
    texts = [item.text for item in data.items.values()]
    return data.sha256, described, texts, draw_cases(data, part="all", negatives=1)


def _run(folder: Path) -> object:
    return read_journal(folder), ranks_and_manifest(folder)


def _ledger(folder: Path) -> object:
    calls = list(read_calls(folder / "ledger.jsonl"))
    ledger = Ledger(folder / "ledger.jsonl")
    return calls, ledger.total(), ledger.by_role(), ledger.by_phase()


def _table(folder: Path) -> object:
    return [str(audit_row(row)) for row in read_metric_table(folder / "t.csv")]


def _artifact(folder: Path) -> object:
    return render_prompts(restore_program(folder)[0])


def _reseal(folder: Path) -> None:
    """Hashes and seal of an artifact, whatever its manifest holds."""
    try:
        found = json.loads((folder / "manifest.json").read_bytes())
        found["files"]["program.json"] = hashlib.sha256((folder / "program.json").read_bytes()).hexdigest()
        found = ArtifactManifest.model_validate(found).sealed().model_dump(mode="json")
    except (ValueError, LookupError, TypeError, RecursionError):
        return
    (folder / "manifest.json").write_text(json.dumps(found), "utf-8")


def _checksums(folder: Path) -> None:
    """The checksums of a journal's rows."""
    path = folder / "journal.jsonl"
    lines = []
    for line in path.read_bytes().split(b"\n"):
        body = line[len(b'{"sha256":"') + 16 + len(b'","row":') : -1]
        whole = b'{"sha256":"' + hashlib.sha256(body).hexdigest()[:16].encode() + b'","row":' + body + b"}"
        lines.append(whole if line else line)
    path.write_bytes(b"\n".join(lines))


def _hash_of_cases(folder: Path) -> None:
    """The number and the hash in the header of a cases file."""
    path = folder / "cases.jsonl"
    first, _, body = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(first)
        header["sha256"], header["n"] = hashlib.sha256(body).hexdigest(), body.count(b"\n")
    except (ValueError, TypeError, RecursionError):
        return
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)


def _tree_of(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _one(name: str, content: bytes, read: Callable[[Path], object], share: int) -> Target:
    return Target({name: content}, (name,), lambda folder: read(folder / name), share)


def _whole(files: Files, share: int) -> Target:
    return Target(files, tuple(files), _dataset, share)


def _amazon(reviews: str, meta: str, content: bytes, records: bytes, share: int) -> Target:
    return _whole({reviews: content, meta: records}, share)


_RUN = _tree_of(OLD_FILES / "evaluated" / "listwise")
_ARTIFACT = _tree_of(OLD_FILES / "artifact")
_2014 = ("reviewerID", "asin", "unixReviewTime", 1, "overall")
_2023 = ("user_id", "parent_asin", "timestamp", 1000, "rating")
_META_2023 = jsonl([{**row, "parent_asin": row["asin"], "store": row.get("brand")} for row in META]).encode()

TARGETS: dict[str, Target] = {
    "plain CSV": _whole(PLAIN, 110),
    "plain JSON Lines": _whole(PLAIN_JSONL, 90),
    "Amazon 2014": _amazon(
        "reviews_X_5.json", "meta_X.json", _reviews(*_2014), "".join(f"{row!r}\n" for row in META).encode(), 60
    ),
    "Amazon 2018": _amazon("X_5.json", "meta_X.json", _reviews(*_2014), jsonl(META).encode(), 60),
    "Amazon 2023": _amazon("X.jsonl", "meta_X.jsonl", _reviews(*_2023), _META_2023, 60),
    "MovieLens 1M": _whole(ML_1M, 40),
    "MovieLens 100K": _whole(ML_100K, 40),
    "RecBole": _whole(RECBOLE, 60),
    "Goodreads": _whole(GOODREADS, 40),
    "H&M": _whole(HM, 50),
    "MIND": _whole(MIND, 40),
    "Steam": _whole(STEAM, 40),
    "single file": _one("sales.csv", SINGLE, _dataset, 40),
    "TREC run": _one("run.txt", TREC, read_trec_run, 30),
    "compressed": Target(
        {**PLAIN, "items.csv": b"", "items.csv.gz": gzip.compress(PLAIN["items.csv"], mtime=0)},
        ("items.csv.gz",),
        lambda folder: ((folder / "items.csv").unlink(missing_ok=True), _dataset(folder)),
        20,
    ),
    "cases": Target(
        {"cases.jsonl": (OLD_FILES / "dev.jsonl").read_bytes()},
        ("cases.jsonl",),
        lambda folder: list(load_cases(folder / "cases.jsonl")),
        60,
        _hash_of_cases,
    ),
    "artifact": Target(_ARTIFACT, ("manifest.json", "program.json"), _artifact, 50, _reseal),
    "journal": Target(_RUN, ("journal.jsonl",), _run, 50, _checksums),
    "manifest and targets": Target(_RUN, ("manifest.json", "targets.json"), _run, 30),
    "ledger": Target({"ledger.jsonl": _RUN["ledger.jsonl"]}, ("ledger.jsonl",), _ledger, 40),
    "pools": _one("pools.json", _ARTIFACT["search/pools.json"], Candidates.load, 20),
    "study": _one("study.toml", (ROOT / "studies" / "quick.toml").read_bytes(), read_study, 50),
    "grid": _one("grid.toml", (OLD_FILES / "grid.toml").read_bytes(), read_grid, 40),
    "prices": _one("prices.toml", PRICES, read_prices, 30),
    "limits": _one("limits.toml", LIMITS, stated_limits, 20),
    "schema, TOML": _one("outdoor.toml", (OLD_FILES / "outdoor.toml").read_bytes(), load_schema, 30),
    "schema, YAML": _one("films.yaml", SCHEMA_YAML, load_schema, 40),
    "table": Target({"t.csv": TABLE}, ("t.csv",), _table, 30),
    "stored answer": _one("answer", ANSWER, lambda path: _stored_answer(path.read_bytes()), 30),
}
"""By a name for people."""


def write(files: Files, folder: Path) -> None:
    """A folder with nothing but these files."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
