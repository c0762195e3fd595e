"""Metrics of a run from its journal rows: per component, with unresolved users, parse failures and usage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from evaluate.runs.directory import RunDirectory
from evaluate.runs.journal import RunManifest, read_journal
from evaluate.stats.audit import Finding, audit_ranks
from evaluate.stats.intervals import Difference, Estimate, paired_difference
from evaluate.stats.list_metrics import Coverage
from evaluate.stats.metrics import CUTOFFS, Bounds, bounds, per_user, rank_of, summarize
from programs.label_aligners import mean_by_position
from programs.ranker import order_by_score
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError, quoted
from signatures.rows import Case, Ranking, Status, Usage, seed_of, total_usage


class RunMetrics(BaseModel):
    """Metrics of one run.

    Attributes:
        metrics: Of the ranker's order, by name (`HR@5/30`: 30 is the length of the list).
        components: Likewise for every score vector alone: prior, MAR, fused.
        against_prior: Paired difference of the ranker's order to the prior alone, if there is a prior.
        users: Number of cases with a scored row.
        unresolved: Number of cases that failed or were not reached; never counted as misses.
        not_asked: Number of users about whom the gate did not ask; ranked by the prior alone.
        unparsable_answers: Share of the model's answers that could not be parsed.
        unparsable_users: Number of users without a parsable answer; ranked by the prior.
        appended: Candidates the model left out, per user.
        dropped: Labels the model wrote that name no candidate, per user.
        refused_traits: Share of MOTE's phrases that validation refused.
        refused_items: Number of items whose text the provider refused; they have no traits.
        bounds: The metrics if every unresolved user were a miss, and if each were ranked first.
        score_sources: Number of users by how MAR's scores were computed (`Alignment.source`).
        position_bias: Mean score of MAR by position in the prompt before calibration, over users and orders, for
            aligners that read the log-probabilities of labels; zeros without a bias. In nats.
        usage: What was really sent and paid for in the whole run.
        audit: Check of these ranks against identities that every ranking satisfies.
        further: Metrics at cutoffs that were asked for (`FurtherMetrics`), by name; empty unless asked.
        coverage: Coverage of the catalogue at these cutoffs, likewise.
    """

    model_config = ConfigDict(extra="forbid")

    ranker: str
    users: int
    unresolved: int
    metrics: dict[str, Estimate]
    components: dict[str, dict[str, Estimate]]
    against_prior: dict[str, Difference] = {}
    bounds: dict[str, Bounds] = {}
    not_asked: int = Field(default=0, exclude_if=lambda users: not users)
    unparsable_answers: float = 0.0
    unparsable_users: int = 0
    appended: float = 0.0
    dropped: float = 0.0
    refused_traits: float = 0.0
    refused_items: int = Field(default=0, exclude_if=lambda items: not items)
    score_sources: dict[str, int] = {}
    position_bias: list[float] = Field(default_factory=list, exclude_if=lambda means: not means)
    usage: Usage = Usage()
    audit: Finding | None = None
    further: dict[str, Estimate] = Field(default_factory=dict, exclude_if=lambda metrics: not metrics)
    coverage: dict[str, Coverage] = Field(default_factory=dict, exclude_if=lambda metrics: not metrics)

    @property
    def warning(self) -> str | None:
        """What to say before any figure if users have no readable answer; None if all have one."""
        return unreadable_warning(self.unparsable_users, self.asked)

    @property
    def readable(self) -> bool:
        """Whether enough users have a readable answer for the figures to be about the model."""
        return is_readable(self.unparsable_users, self.asked)

    @property
    def asked(self) -> int:
        """Number of users about whom the models were asked; all of a ranker without models."""
        return self.users - self.not_asked


MOST_UNREADABLE = 0.5
"""Share of users without a readable answer above which figures are not about the model any more."""


def count_unparsable(rows: Iterable[Ranking]) -> int:
    """Number of users without a parsable answer; ranked by the prior."""
    return sum(row.status is Status.UNPARSABLE for row in rows)


def is_readable(unparsable_users: int, users: int) -> bool:
    """Whether at most `MOST_UNREADABLE` of the users have no readable answer."""
    return unparsable_users <= MOST_UNREADABLE * users


def unreadable_warning(unparsable_users: int, users: int) -> str | None:
    """A sentence on users without a readable answer, whom the prior ranks; None if there are none.

    >>> unreadable_warning(40, 40)
    '40 of 40 users: no answer of the model could be read; all figures are those of the prior'
    """
    if not unparsable_users:
        return None
    figures = "all figures are those of the prior" if unparsable_users == users else "the prior alone ranks these users"
    return f"{unparsable_users} of {users} users: no answer of the model could be read; {figures}"


def ranks_of(cases: Sequence[Case], rows: Mapping[str, Ranking], component: str | None = None) -> dict[str, int]:
    """Rank of the target by user, for scored rows: in the ranker's order, or by one score vector.

    Raises:
        InputError: if a row does not rank, or score, exactly the candidates of its case.
    """
    ranks = {}
    for case in cases:
        row = rows.get(case.user_id)
        if row is None or not row.scored or case.target is None:
            continue
        order = row.order
        if component is not None:
            if len(row.scores.get(component, ())) != len(case.candidates):
                raise InputError(
                    f"the row of user {quoted(case.user_id)} has not one {component!r} score for each candidate"
                )
            order = order_by_score(case.candidates, row.scores[component], tie_seed=seed_of("ties", case.user_id))
        if sorted(order) != sorted(case.candidates):
            raise InputError(f"the row of user {quoted(case.user_id)} does not rank the candidates of its case")
        ranks[case.user_id] = rank_of(order, case.target)
    return ranks


def ranks_and_manifest(directory: Path) -> tuple[RunManifest, dict[str, int], int]:
    """Manifest, ranks of the targets and list length of a finished run directory.

    Raises:
        InputError: if the directory is not a run, or its targets are missing.
    """
    manifest, rows = read_journal(directory)
    path = RunDirectory(directory).targets
    if not path.exists():
        raise InputError(f"{path} is missing: evaluate the run again to write it")
    targets: dict[str, str] = read_json(path, dict[str, str], "delete it and evaluate the run again")
    scored = {user: row for user, row in rows.items() if row.scored}
    if lost := scored.keys() - targets.keys():
        raise InputError(f"{path}: has no target of user {quoted(min(lost))}; delete it and evaluate the run again")
    ranks = {user: rank_of(row.order, targets[user]) for user, row in scored.items()}
    return manifest, ranks, max((len(row.order) for row in scored.values()), default=0)


def against_run(directory: Path, other: Path, ks: Sequence[int] = CUTOFFS) -> dict[str, Difference]:
    """Paired differences between two finished runs on the same cases, `directory` minus `other`, by metric.

    Args:
        ks: Cutoffs of HR and NDCG.

    Raises:
        InputError: if one of them is not a run, or they ranked different cases.
    """
    manifest, ranks, size = ranks_and_manifest(directory)
    return paired_by_metric(ranks, ranks_on(other, manifest.cases_sha256), size, ks)


def ranks_on(directory: Path, cases_sha256: str) -> dict[str, int]:
    """Ranks of the targets of a finished run on the cases of a hash.

    Raises:
        InputError: if the directory is not a run, or it ranked other cases.
    """
    manifest, ranks, _ = ranks_and_manifest(directory)
    if manifest.cases_sha256 != cases_sha256:
        raise InputError(
            f"{directory}: ranked other cases (sha256 {manifest.cases_sha256[:12]}) than these ({cases_sha256[:12]}); "
            "runs can be compared on the same cases only"
        )
    return ranks


def paired_by_metric(
    mine: Mapping[str, int], theirs: Mapping[str, int], list_size: int, ks: Sequence[int] = CUTOFFS
) -> dict[str, Difference]:
    """Paired differences by metric name (`HR@5/30`), `mine` minus `theirs`, over the users that both ranked."""
    ours, others = per_user(mine, ks), per_user(theirs, ks)
    return {f"{name}/{list_size}": paired_difference(ours[name], others[name], seed=0) for name in ours.columns}


def run_metrics(
    ranker: str, cases: Sequence[Case], rows: Mapping[str, Ranking], spent: Usage | None = None
) -> RunMetrics:
    """Compute all metrics of a run.

    Args:
        ranker: Its name.
        cases: Every case of the run.
        rows: Journal rows by user id.
        spent: Usage from the run's ledger, which includes calls of interrupted users; None for the rows' sum.

    Raises:
        InputError: if no case has a scored row.
    """
    ranks = ranks_of(cases, rows)
    if not ranks:
        errors = [row.error for row in rows.values() if row.error]
        cause = f"; the last failure: {errors[-1]}" if errors else ""
        raise InputError(f"no case has been ranked yet: nothing to report{cause}")
    scored = [rows[user] for user in ranks]
    size = len(cases[0].candidates)
    unparsable = count_unparsable(scored)
    asked = [row for row in scored if row.asked]
    names = [name for name in scored[0].scores if all(name in row.scores for row in scored)]
    if unparsable == len(asked):
        # MAR answered nobody: its scores are all equal, and their order is a draw.
        names = [name for name in names if name != "mar"]
    frames = {name: per_user(ranks_of(cases, rows, name)) for name in names}
    frame = per_user(ranks)
    unresolved = len(cases) - len(ranks)
    against = {}
    if "prior" in frames and len(names) > 1 and ranker != "prior":
        against = {f"{m}/{size}": paired_difference(frame[m], frames["prior"][m], seed=0) for m in frame.columns}
    of_rows = total_usage(row.usage for row in scored)
    return RunMetrics(
        ranker=ranker,
        users=len(ranks),
        unresolved=unresolved,
        metrics=summarize(frame, negatives=size - 1),
        components={name: summarize(part, negatives=size - 1) for name, part in frames.items()},
        against_prior=against,
        bounds=bounds(frame, unresolved, negatives=size - 1) if unresolved else {},
        not_asked=len(scored) - len(asked),
        unparsable_answers=unparsable_share(scored, of_rows.calls + of_rows.cache_hits),
        unparsable_users=unparsable,
        appended=sum(row.appended for row in asked) / max(1, len(asked)),
        dropped=sum(row.dropped for row in asked) / max(1, len(asked)),
        refused_traits=_refused(scored),
        refused_items=len({t.item_id for row in scored for t in row.traits if t.refused_by_provider}),
        score_sources=score_sources(scored),
        position_bias=mean_by_position([row.by_position for row in scored]),
        usage=spent or of_rows,
        audit=audit_ranks(ranks, method=ranker, list_size=size),
    )


def unparsable_share(rows: Sequence[Ranking], answers: int) -> float:
    """Share of a run's answers that could not be parsed; 0 without answers."""
    return sum(row.unparsable for row in rows) / answers if answers else 0.0


def score_sources(rows: Sequence[Ranking]) -> dict[str, int]:
    """Number of rows by how MAR's scores were computed (`Alignment.source`)."""
    return dict(Counter(row.score_source for row in rows if row.score_source))


def _refused(rows: Sequence[Ranking]) -> float:
    refused = sum(len(traits.dropped) for row in rows for traits in row.traits if not traits.refused_by_provider)
    kept = sum(len(traits.phrases) for row in rows for traits in row.traits)
    return refused / (refused + kept) if refused else 0.0
