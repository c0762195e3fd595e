"""Published results of the paper (doi 10.1145/3746252.3761214, Tables 2 to 4 and 7), for context only.

No ranking can produce fourteen of the rows of Table 2 (see `evaluate.stats.audit`), and the protocols differ from ours
and perhaps from each other: only baselines on the same frozen candidates are comparable.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from evaluate.stats.audit import MetricRow

DATASETS = ("Beauty", "Sports", "Toys")


class PublishedRow(BaseModel):
    """A row as printed in the paper.

    Attributes:
        table: Number of the paper's table, 2 to 4.
        setting: What the table varies.
        row: The figures; tables 3 and 4 print k = 5 only.
    """

    model_config = ConfigDict(frozen=True)

    table: int
    setting: str
    row: MetricRow

    @property
    def label(self) -> str:
        """Name of the row in a report, marked as published."""
        return f"{self.row.method} (as published, Table {self.table})"


class PublishedCost(BaseModel):
    """Dollars per user-item interaction as printed in Table 7."""

    model_config = ConfigDict(frozen=True)

    models: str
    dataset: str
    usd: Decimal
    table: int = 7


def _rows(table: int, setting: str, printed: str) -> tuple[PublishedRow, ...]:
    """Lines of `method: figures | figures | figures` for Beauty, Sports, Toys; figures HR@5 NDCG@5 [HR@10 NDCG@10]."""
    out = []
    for line in printed.strip().splitlines():
        method, _, figures = line.strip().partition(": ")
        for dataset, cell in zip(DATASETS, figures.split("|"), strict=True):
            values = dict(zip(("hr5", "ndcg5", "hr10", "ndcg10"), cell.split(), strict=False))
            row = MetricRow.model_validate({"method": method, "dataset": dataset, **values})
            out.append(PublishedRow(table=table, setting=setting, row=row))
    return tuple(out)


MAIN = _rows(
    2,
    "overall",
    """
    BPR: .1820 .1084 .3597 .1654 | .1496 .0863 .3252 .1418 | .1546 .0902 .3224 .1434
    LightFM: .3261 .2475 .4302 .2819 | .2132 .1205 .3346 .2587 | .2913 .2089 .3283 .2914
    SASRec: .3572 .2735 .4604 .3113 | .3285 .2365 .4490 .2732 | .3574 .2770 .4611 .3093
    BERT4Rec: .2733 .1629 .4949 .2523 | .2975 .1948 .4729 .2499 | .2996 .1920 .4725 .2376
    P5: .2448 .1673 .3441 .1993 | .2241 .1483 .3313 .1827 | .1411 .0916 .2227 .1178
    LLM-only: .15 .016 .25 .0795 | .17 .082 .32 .135 | .20 .093 .37 .113
    TALLRec: .32 .2097 .5252 .255 | .35 .2122 .56 .2907 | .3961 .2659 .6091 .3271
    A-LLMRec: .5365 .4915 .5307 .4927 | .2180 .1394 .3546 .200 | .3210 .2496 .4360 .3027
    M-LLM³REC: .540 .339 .709 .358 | .3876 .2387 .5734 .3060 | .488 .2890 .684 .3518
    """,
)

ITEM_COLD = _rows(
    3,
    "item cold-start",
    """
    BERT4Rec: .0704 .0499 | .0674 .0303 | .1311 .0895
    SASRec: .1199 .1022 | .1842 .0796 | .1257 .0698
    M-LLM³REC: .435 .2502 | .45 .2717 | .4975 .3078
    """,
)

USER_COLD = _rows(
    4,
    "user cold-start",
    """
    BPR: .1127 .0565 | .0776 .0355 | .1258 .0770
    LightFM: .1219 .0611 | .1149 .0576 | .1064 .0458
    BERT4Rec: .2633 .1429 | .2766 .1778 | .2696 .172
    TALLRec: .308 .1845 | .342 .2017 | .3725 .2351
    SASRec: .3203 .2032 | .2708 .1721 | .333 .2212
    M-LLM³REC: .464 .2704 | .37 .212 | .456 .262
    """,
)

COSTS: tuple[PublishedCost, ...] = tuple(
    PublishedCost(models=models, dataset=dataset, usd=Decimal(usd))
    for models, dollars in (
        ("gpt-3.5-turbo", (".008", ".009", ".013")),
        ("gpt-4-turbo", (".100", ".087", ".090")),
        ("gpt-4o", (".058", ".034", ".052")),
        ("4o & 3.5", (".018", ".009", ".013")),
    )
    for dataset, usd in zip(DATASETS, dollars, strict=True)
)
"""Table 7."""
