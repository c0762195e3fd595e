"""HTML report of a compile: held-out check, search, cost, and all prompts before and after."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluate.report.blocks import Block, Code, Details, Lead, Lines, Page, PromptDiff, Tab
from evaluate.report.costs import USAGE_COLUMNS, usage_cells
from evaluate.report.page import render
from evaluate.report.pseudonyms import without_ids
from evaluate.report.reproduction import hash_table, version_table
from evaluate.report.selective import curve_rows, curve_table
from evaluate.report.table import (
    BETTER,
    NONE,
    WORSE,
    Kind,
    Table,
    TableCell,
    TableRow,
    code_cell,
    count_cell,
    difference_cell,
    estimate_cell,
    figure_cell,
    table_row,
    word_cell,
)
from evaluate.stats.intervals import bootstrap_mean
from evaluate.stats.metrics import per_user
from evaluate.stats.selective import selective_curve
from optimize.artifact import ArtifactManifest
from optimize.candidates import ORIGINAL
from optimize.compile_figures import by_cost, by_parameter, by_trial, settings_of
from optimize.finals import Finals, finals_lines
from optimize.holdout import HoldoutVerdict
from optimize.objective import UserScore
from optimize.prompts import Demo, Prompt, Prompts, module_of
from optimize.search import Attempt
from optimize.space import Configuration
from programs.gate import Gate
from programs.lm.ledger import interrupted_note
from programs.lm.roles import ROLE_NAMES
from programs.runtime.errors import counted
from signatures.rows import Usage, total_usage

PART_NAMES = {
    "score": "score",
    "ndcg": "NDCG, fused",
    "mar": "NDCG, MAR alone",
    "hit": "HR@5, fused",
    "consistency": "consistency",
    "resemblance": "resemblance",
    "coherence": "coherence",
}
"""Names of the parts of the objective in the table of the verdict."""

PHASE_NAMES = {
    "forecast": "forecast",
    "pools": "candidates",
    "search": "search",
    "finals": "final round",
    "held-out": "held-out check",
    "": "other",
}


@dataclass(frozen=True)
class CompileRecord:
    """A finished compile, the input of its report.

    Attributes:
        unit: Unit of `Attempt.cost`: `usd` or `tokens`.
        before, after: Prompts of the uncompiled program and of the winner, by predictor.
        sent: Messages of the winner as text, by predictor, with placeholders for the inputs.
        importances: Share of each parameter in the variation of the score; may be empty.
        held_out: Scores of the winner on the held-out users.
        gate: Of the program before: that of the artifact that the compile went on from. Trials have none.
    """

    manifest: ArtifactManifest
    attempts: Sequence[Attempt]
    unit: str
    before: Prompts
    after: Prompts
    sent: Mapping[str, str]
    importances: Mapping[str, float]
    held_out: Sequence[UserScore] = ()
    gate: Gate | None = None

    @property
    def uncompiled(self) -> Configuration | None:
        """The configuration of trial 0, the uncompiled program, with its gate."""
        first = next((attempt.configuration for attempt in self.attempts if attempt.number == 0), None)
        return None if first is None else first.model_copy(update={"gate": self.gate})


def compile_report(record: CompileRecord) -> str:
    """The report as one self-contained HTML file."""
    manifest = record.manifest
    return render(
        Page(
            title=f"Compile of {manifest.family} on {manifest.data.dataset}",
            tabs=[
                Tab("verdict", "Verdict", _verdict(record)),
                Tab("search", "Search", _search(record)),
                Tab("spending", "Spending", [_spending(manifest.spent)]),
                Tab("prompts", "Prompts", _prompts(record)),
                Tab("reproduce", "Reproduce", _reproduce(manifest)),
            ],
        )
    )


# --- verdict


def _verdict(record: CompileRecord) -> list[Block]:
    return [
        Lead(f"{verdict_sentence(record)} {prior_sentence(record.manifest.verdict)}".rstrip()),
        _verdict_table(record.manifest),
        Lines([*_on_searched_users(record.manifest), *_on_prompts(record.manifest)]),
        _chosen_table(record),
        *_selective_calls(record),
    ]


def _selective_calls(record: CompileRecord) -> list[Block]:
    """Quality and cost of the winner if only some of the held-out users are asked about."""
    margins = {one.user_id: one.signals.margin for one in record.held_out if one.signals is not None}
    scores = [one for one in record.held_out if one.user_id in margins and one.ranks]
    if not scores:
        return []
    points = selective_curve(
        per_user({one.user_id: one.ranks[0] for one in scores}),
        per_user({one.user_id: one.rank for one in scores}),
        margins,
        {one.user_id: one.calls for one in scores},
        {one.user_id: one.usd for one in scores},
    )
    return [curve_table(curve_rows("winner", points, len(scores)), record.manifest.data.negatives + 1)]


def _on_searched_users(manifest: ArtifactManifest) -> list[str]:
    before, after = (manifest.searched.get(when, math.nan) for when in ("before", "after"))
    if math.isnan(before + after):
        return []
    return [
        f"On the {counted(manifest.choosing_users, 'dev user')} by whom the winner was chosen the score was "
        f"{before:.3f} before and {after:.3f} after, so the figures of held-out users are more reliable."
    ]


def what_is_tuned(optimizer: str) -> str:
    """What an optimizer changes, in words."""
    return {"prototypes": "prototypes", "finetune": "fine-tuned weights"}.get(optimizer, "prompts")


def _on_prompts(manifest: ArtifactManifest) -> list[str]:
    gain = manifest.verdict.prompts
    if gain is None:
        return []
    cell = difference_cell(gain)
    what = what_is_tuned(manifest.optimizer)
    if manifest.gate is not None:
        other, same = "A gate was fitted, too.", "With the same gate"
    else:
        fitted = manifest.finals is not None and manifest.finals.fitted is not None
        other = f"The fusion weight {'was fitted' if fitted else 'is another one'}, too."
        same = f"With the same weight, {manifest.weight:g}"
    return [
        f"{other} {same}, the winner differs from the uncompiled program by {cell.text}, 95% interval {cell.interval}: "
        f"that is what the {what} gained."
    ]


def verdict_sentence(record: CompileRecord) -> str:
    """The result in plain words."""
    verdict = record.manifest.verdict
    gain, before, after = verdict.difference["score"], verdict.before["score"], verdict.after["score"]
    cell = difference_cell(gain)
    figures = (
        f"On {gain.n} held-out dev users the score was {before.mean:.3f} before and {after.mean:.3f} after: a "
        f"difference of {cell.text}, 95% interval {cell.interval}."
    )
    if _unchanged(record):
        return f"The compile gained nothing: {_why_unchanged(record.attempts)}. {figures}"
    return {
        "better": "The compiled program is better than the uncompiled one. ",
        "not clearly better": "The compile shows no clear gain: the difference may be due to chance. ",
        "not better": "The compile gained nothing: the compiled program is not better than the uncompiled one. ",
    }[verdict.judgement] + figures


def _why_unchanged(attempts: Sequence[Attempt]) -> str:
    """Why the uncompiled program, trial 0, was kept."""
    start = max((one.score for one in attempts if one.number == 0 and one.scores), default=math.inf)
    others = [one for one in attempts if one.number]
    if not others:
        return "no other program was tried"
    better = sum(one.can_win and one.score > start for one in others)
    if better:
        return (
            f"{better} of {len(others)} other trials scored better than the uncompiled program in the search, but not "
            "when they were scored again"
        )
    return f"none of {len(others)} other trials was better than the uncompiled program"


def prior_sentence(verdict: HoldoutVerdict) -> str:
    """How the winner compares with the prior alone, in plain words; empty where that is not known."""
    found = verdict.against_prior
    if found is None:
        return ""
    ndcg, hits = difference_cell(found.ndcg), difference_cell(found.hit)
    return (
        f"The compiled program is {found.judgement} than the prior alone, which asks no model: on the same users "
        f"NDCG differs by {ndcg.text}, 95% interval {ndcg.interval}, HR@5 by {hits.text}, 95% interval {hits.interval}."
    )


def _unchanged(record: CompileRecord) -> bool:
    manifest = record.manifest
    trained = manifest.optimizer == "finetune"
    return not trained and record.before == record.after and manifest.chosen in (None, record.uncompiled)


def _verdict_table(manifest: ArtifactManifest) -> Table:
    verdict, weights = manifest.verdict, manifest.weights.model_dump()
    total = sum(weights.values())
    rows = []
    for part, difference in verdict.difference.items():
        certain = difference.low > 0 or difference.high < 0
        mark = (BETTER if difference.mean > 0 else WORSE) if certain and part != "resemblance" else ""
        rows.append(
            table_row(
                word_cell(PART_NAMES.get(part, part)),
                estimate_cell(verdict.before[part]),
                estimate_cell(verdict.after[part]),
                difference_cell(difference, mark),
                TableCell(f"{weights[part] / total:.0%}", weights[part] / total) if part in weights else NONE,
                count_cell(difference.n),
                kind="total" if part == "score" else "",
            )
        )
    caption = (
        "Means over held-out dev users, which the search did not see, with 95% intervals; differences are paired by "
        "user. The score is the weighted mean of its parts. “Fused” is the order that a user gets, “MAR alone” the "
        "order by MAR's scores. Consistency is how well the profiles of one user agree (eq. 5). Resemblance is how "
        "similar they are to other users' profiles. Coherence is the agreement of a user's different profiles minus "
        f"the resemblance. {BETTER} {WORSE}: the interval does not contain 0."
    )
    columns = ("held-out dev users", "before", "after", "difference", "weight", "users")
    return Table("verdict", "Before and after", caption, columns, tuple(rows))


def _chosen_table(record: CompileRecord) -> Table:
    manifest = record.manifest
    chosen = settings_of(manifest.chosen) if manifest.chosen else {"family": manifest.family}
    first = settings_of(record.uncompiled) if record.uncompiled else {}
    rows = []
    for name, value in chosen.items():
        old = first.get(name, "–")
        kind: Kind = "" if old == value else "reference"
        rows.append(table_row(word_cell(name), word_cell(old), word_cell(value), kind=kind))
    caption = (
        f"Trial {manifest.trial} of {manifest.trials} by the optimizer “{manifest.optimizer}”. Demos and instructions "
        f"have the names in pools.json; “{ORIGINAL}” means those of the uncompiled program. Differences are in bold."
    )
    return Table("chosen", "Chosen configuration", caption, ("setting", "uncompiled", "compiled"), tuple(rows))


# --- search


def _search(record: CompileRecord) -> list[Block]:
    blocks: list[Block] = [
        by_trial(record.attempts, record.manifest.trial),
        by_cost(record.attempts, record.unit, record.manifest.trial),
    ]
    if record.importances:
        blocks.append(by_parameter(record.importances))
    if record.manifest.finals is not None:
        blocks += [
            _finals_table(record.manifest, record.manifest.finals),
            Lines(finals_lines(record.manifest.finals, record.manifest.gate)),
        ]
    return [*blocks, _trial_table(record)]


def _finals_table(manifest: ArtifactManifest, finals: Finals) -> Table:
    rows = []
    for one in finals.finalists:
        winner = one.trial == manifest.trial
        cells = [
            word_cell(f"{one.trial} (winner)" if winner else one.trial),
            figure_cell(one.searched, 3),
            *(figure_cell(score, 3) for score in one.by_draw),
            figure_cell(one.score, 3),
            figure_cell(one.prompt_tokens, 0),
        ]
        rows.append(TableRow(tuple(cells), "reference" if winner else ""))
    draws = [f"draw {number}" for number in range(len(finals.finalists[0].by_draw))]
    caption = (
        f"The best programs of the search and the uncompiled one (trial 0), scored again on {finals.users} users, "
        f"{finals.new_users} of whom no trial had scored, with several draws of the labels and the order in MAR's "
        "prompt. Draw 0 is that of every evaluation. The score decides: the mean over draws, or, with a fitted "
        "weight, the cross-validated mean."
    )
    columns = ("trial", "in the search", *draws, "score", "prompt tokens")
    return Table("finals", "Final round", caption, columns, tuple(rows))


def _trial_table(record: CompileRecord) -> Table:
    """All trials, without the settings that are the same in all of them."""
    shown = [settings_of(attempt.configuration) for attempt in record.attempts]
    names = [
        name for name in dict.fromkeys(n for one in shown for n in one) if len({one.get(name) for one in shown}) > 1
    ]
    failed = any(attempt.error for attempt in record.attempts)
    rows = []
    for attempt, settings in zip(record.attempts, shown, strict=True):
        scores = [score.score for score in attempt.scores]
        winner = attempt.number == record.manifest.trial
        cells = [
            word_cell(f"{attempt.number} (winner)" if winner else attempt.number),
            word_cell(attempt.state.lower()),
            estimate_cell(bootstrap_mean(scores, seed=0)) if scores else NONE,
            _cost_cell(attempt, record.unit) if scores else NONE,
            figure_cell(attempt.prompt_tokens, 0) if attempt.prompt_tokens > 0 else NONE,
            count_cell(len(scores)),
            *(word_cell(settings.get(name, "–")) for name in names),
        ]
        if failed:
            cells.append(word_cell(without_ids(attempt.error or "–")))
        rows.append(TableRow(tuple(cells), "reference" if winner else ""))
    unit = "$ per user" if record.unit == "usd" else "tokens per user"
    columns = ("trial", "state", "score", unit, "prompt tokens", "users", *names, *(["error"] if failed else []))
    caption = (
        "Mean score over the dev users of the search, with 95% interval. Pruned trials were stopped early, because "
        "they were clearly worse than the best trial; trial 0 is the uncompiled program. The cost is that of MOPE and "
        "MAR: MOTE is paid once per item. Prompt tokens are those of MOPE and MAR per user; of trials with equal "
        "scores the uncompiled program wins, else the one with the fewest."
    )
    return Table("trials", "Trials", caption, columns, tuple(rows))


def _cost_cell(attempt: Attempt, unit: str) -> TableCell:
    cost = attempt.cost(unit)
    return TableCell(f"${cost:.6f}", cost) if unit == "usd" else figure_cell(cost, 0)


# --- spending


def _spending(spent: Mapping[str, Usage]) -> Table:
    rows = [table_row(word_cell(PHASE_NAMES.get(phase, phase)), *usage_cells(usage)) for phase, usage in spent.items()]
    if len(rows) > 1:
        rows.append(table_row(word_cell("total"), *usage_cells(total_usage(spent.values())), kind="total"))
    caption = (
        "Calls that were sent and paid in each phase. Cache hits are answers from the response cache; they cost "
        "nothing. “Cached” are input tokens that the server took from its prefix cache. Models without a known price "
        "are not part of the dollars."
    )
    if interrupted := total_usage(spent.values()).interrupted:
        caption += f" {interrupted_note(interrupted)}."
    return Table("spending", "Spending by phase", caption, ("phase", *USAGE_COLUMNS), tuple(rows))


# --- prompts


def _prompts(record: CompileRecord) -> list[Block]:
    names = list(dict.fromkeys([*record.before, *record.after]))
    changed = [name for name in names if record.before.get(name) != record.after.get(name)]
    lead = f"{len(changed)} of {len(names)} prompts changed." if changed else "No prompt changed."
    return [Lead(lead), *(_predictor(name, record) for name in [*changed, *(n for n in names if n not in changed)])]


def _predictor(name: str, record: CompileRecord) -> Details:
    """The old and new instruction and demos of a predictor, and its whole prompt; folded if unchanged."""
    before, after = record.before.get(name), record.after.get(name)
    module = module_of(name, record.manifest.family)
    summary = f"{module.upper() if module in ('mope', 'mote') else 'MAR' if module else 'Explanation'}: {name}"
    old, new = before or Prompt(instructions=""), after or Prompt(instructions="")
    blocks: list[Block] = [
        PromptDiff("Instruction", old.instructions, new.instructions),
        PromptDiff(_demo_title(old, new), _demo_text(old), _demo_text(new)),
    ]
    if name in record.sent:
        blocks.append(Details("Whole prompt as sent", [Code(record.sent[name])]))
    return Details(summary, blocks, _change(before, after), opened=before != after)


def _change(before: Prompt | None, after: Prompt | None) -> str:
    if before is None:
        return "only in the compiled program"
    if after is None:
        return "only in the uncompiled program"
    differs = {"instruction": before.instructions != after.instructions, "demos": before.demos != after.demos}
    changed = [part for part, changes in differs.items() if changes]
    return f"{' and '.join(changed)} changed" if changed else "unchanged"


def _demo_title(before: Prompt, after: Prompt) -> str:
    return f"Demos: {len(before.demos)} before, {len(after.demos)} after"


def _demo_text(prompt: Prompt) -> str:
    return "\n\n".join(_one_demo(demo) for demo in prompt.demos)


def _one_demo(demo: Demo) -> str:
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in demo.items()
    )


# --- reproduce


def _reproduce(manifest: ArtifactManifest) -> list[Block]:
    roles = [
        table_row(word_cell(role), code_cell(manifest.roles.of(role).model), code_cell(manifest.models.get(role, "–")))
        for role in ROLE_NAMES
    ]
    caption = "Models of the winner. Model files have a name made from their content."
    blocks: list[Block] = [
        Table("models", "Models", caption, ("role", "model", "content"), tuple(roles)),
        hash_table({"dataset": manifest.data.dataset_sha256, "cases": manifest.data.cases_sha256}),
    ]
    return [*blocks, version_table(manifest.versions)] if manifest.versions else blocks
