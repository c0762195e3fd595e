"""Attack runs: gains of rankers that obey and that do not, and runs that go on where they ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from evaluate.attacks.attack import Attack, Insertion
from evaluate.attacks.attacked_ranker import AttackedRanker, attacked_own_ranker
from evaluate.attacks.runner import AttackRun, AttackRunner
from evaluate.runs.journal import Journal, read_journal
from programs.ranker import Ranker
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.rows import Case, Ranking, Status
from signatures.types import Item
from tests.support.attacks import HIDDEN, OPEN, TitleReader, deaf, obeying, shop_cases
from tests.support.runs import judgements, rows_in

CASES = shop_cases()


def runner(directory: Path, *rankers: AttackedRanker, attacks: tuple[Attack, ...] = (OPEN, HIDDEN)) -> AttackRunner:
    return AttackRunner(CASES, rankers, attacks, directory)


def test_who_obeys_shows_a_gain_and_who_is_deaf_exactly_none(tmp_path: Path) -> None:
    run = runner(tmp_path, obeying([]), deaf([])).run()
    assert run.complete
    effects = {(effect.ranker, effect.attack): effect for effect in run.results.by_attack}
    reached = effects["obeying", "open"]
    assert (reached.newcomers.mean, reached.control_newcomers.mean) == (1.0, 0.0)
    assert reached.gain.mean == reached.gain_over_control.mean >= 5
    assert reached.ndcg_lost.mean > 0
    for key in (("obeying", "hidden"), ("deaf", "open"), ("deaf", "hidden")):
        effect = effects[key]
        for difference in (effect.gain, effect.gain_over_control, effect.ndcg_lost):
            assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
        assert effect.newcomers.mean == 0
    for one in run.observations:
        case = next(case for case in CASES if case.user_id == one.user_id)
        assert one.item_id != case.target
        assert one.clean > 5
        assert one.attacked == 1 or (one.ranker, one.attack) != ("obeying", "open")


def test_rankers_get_users_by_their_own_ids_and_no_targets(tmp_path: Path) -> None:
    seen: list[Case] = []

    class Watching(TitleReader):
        def rank(self, case: Case) -> Ranking:
            seen.append(case)
            return super().rank(case)

    def watching(catalogue: Mapping[str, Item]) -> Ranker:
        return Watching(catalogue, [])

    runner(tmp_path, attacked_own_ranker("w", watching, CASES.dataset.items), attacks=(OPEN,)).run()
    users = [case.user_id for case in CASES]
    assert [case.user_id for case in seen] == users + [user for user in users for _ in range(2)]
    assert {case.target for case in seen} == {None}


def test_a_run_that_is_killed_half_way_ends_like_one_that_was_not(tmp_path: Path) -> None:
    class Power(BaseException):
        pass

    class Failing(TitleReader):
        def rank(self, case: Case) -> Ranking:
            if len(self.asked) == 11:
                raise Power
            return super().rank(case)

    first: list[str] = []
    items = CASES.dataset.items
    failing = attacked_own_ranker("obeying", lambda catalogue: Failing(catalogue, first), items)
    with pytest.raises(Power):
        runner(tmp_path / "killed", failing).run()
    kept = rows_in(tmp_path / "killed")
    assert len(kept) == len(first) == 11

    second: list[str] = []
    resumed = runner(tmp_path / "killed", obeying(second)).run()
    whole = runner(tmp_path / "whole", obeying([])).run()
    assert len(second) == 4 * (1 + 2 * 2) - 11, "nobody is asked twice"
    assert judgements(rows_in(tmp_path / "killed")) == judgements(rows_in(tmp_path / "whole"))
    assert (resumed.results, resumed.observations) == (whole.results, whole.observations)
    third: list[str] = []
    again = runner(tmp_path / "killed", obeying(third)).run()
    assert third == []
    assert again.results == whole.results


class Sick(TitleReader):
    """Fails for one user, always, or just for edited texts."""

    def __init__(self, catalogue: Mapping[str, Item], user: str, clean: bool) -> None:
        super().__init__(catalogue, [])
        self.user = user
        self.clean = clean

    def rank(self, case: Case) -> Ranking:
        if case.user_id == self.user and (self.clean or not isinstance(self.catalogue, dict)):
            raise ConnectionError("the server is gone")
        return super().rank(case)


@pytest.mark.parametrize(("clean", "missing"), [(True, 1 + 4), (False, 4)])
def test_failures_are_missing_not_zero_and_tried_again(tmp_path: Path, clean: bool, missing: int) -> None:
    user, items = CASES[1].user_id, CASES.dataset.items
    sick = attacked_own_ranker("obeying", lambda catalogue: Sick(catalogue, user, clean), items)
    run: AttackRun = runner(tmp_path, sick).run()
    assert not run.complete
    assert run.missing == {"obeying": missing}
    assert {effect.users for effect in run.results.by_attack} == {3}
    assert user not in {one.user_id for one in run.observations}
    asked: list[str] = []
    assert runner(tmp_path, obeying(asked)).run().complete
    assert asked == [user] * missing


def test_unparsable_lists_are_counted(tmp_path: Path) -> None:
    class Mumbling(TitleReader):
        def rank(self, case: Case) -> Ranking:
            found = super().rank(case)
            status = Status.OK if isinstance(self.catalogue, dict) else Status.UNPARSABLE
            return found.model_copy(update={"status": status})

    mumbling = attacked_own_ranker("m", lambda catalogue: Mumbling(catalogue, []), CASES.dataset.items)
    run = runner(tmp_path, mumbling).run()
    assert run.complete
    assert [effect.unparsable for effect in run.results.by_attack] == [4, 4]


class Wavering(TitleReader):
    """Ranks by an order of its own, which is another one than that of `TitleReader`; its answers cannot be read."""

    def rank(self, case: Case) -> Ranking:
        row = super().rank(case)
        return row.model_copy(update={"order": row.order[::-1], "status": Status.UNPARSABLE})


class Interrupted(TitleReader):
    """Ends the process, as it seems, when it is asked for an edited list."""

    def rank(self, case: Case) -> Ranking:
        if not isinstance(self.catalogue, dict):
            raise KeyboardInterrupt
        return super().rank(case)


def victims_of(run: AttackRun) -> set[tuple[str, str]]:
    """The edited item of each user."""
    return {(one.user_id, one.item_id) for one in run.observations}


@pytest.mark.parametrize("older", [False, True])
def test_a_retry_that_was_interrupted_keeps_no_rows_of_earlier_victims(tmp_path: Path, older: bool) -> None:
    items, asked = CASES.dataset.items, list[str]()
    first = runner(tmp_path / "run", attacked_own_ranker("obeying", lambda one: Wavering(one, []), items)).run()
    whole = runner(tmp_path / "whole", obeying([])).run()
    same = {user for user, _ in victims_of(first) & victims_of(whole)}
    assert len(same) < len(CASES)
    if older:  # rows that do not name their victim
        manifest, rows = read_journal(tmp_path / "run")
        (tmp_path / "run" / "journal.jsonl").unlink()
        with Journal.open(tmp_path / "run", manifest) as journal:
            for row in rows.values():
                journal.append(row.model_copy(update={"victim": None}))
        assert runner(tmp_path / "run", obeying(asked)).run().complete and not asked, "such a folder stays readable"
    retry = runner(tmp_path / "run", attacked_own_ranker("obeying", lambda one: Interrupted(one, []), items))
    retry.retry_unparsable = True
    with pytest.raises(KeyboardInterrupt):
        retry.run()
    resumed = runner(tmp_path / "run", obeying(asked)).run()
    assert set(asked) >= {case.user_id for case in CASES} - same, "edited lists are made again, for new victims"
    assert victims_of(resumed) == victims_of(whole)
    remade = [one for one in resumed.observations if one.user_id in asked]
    assert remade == [one for one in whole.observations if one.user_id in asked]


def test_other_attacks_seeds_or_rankers_are_another_run(tmp_path: Path) -> None:
    runner(tmp_path, deaf([])).run()
    other = Attack("open", "instruction", title=Insertion(before="abc"))
    with pytest.raises(InputError, match=r"configuration\.attacks\.open"):
        runner(tmp_path, deaf([]), attacks=(other, HIDDEN)).run()
    with pytest.raises(InputError, match=r"configuration\.rankers\.obeying is only given"):
        runner(tmp_path, deaf([]), obeying([])).run()
    with pytest.raises(InputError, match=r"configuration\.seed"):
        AttackRunner(CASES, [deaf([])], (OPEN, HIDDEN), tmp_path, seed=1).run()


def test_what_cannot_be_attacked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lists of 6 candidates: .* at least 6 negatives"):
        AttackRunner(shop_cases(2, negatives=5), [deaf([])], (OPEN,), tmp_path)
    with pytest.raises(InputError, match="ranker 'deaf' is named twice"):
        runner(tmp_path, deaf([]), deaf([]))
    assert not any(tmp_path.iterdir())


def test_a_spent_budget_keeps_what_there_is(tmp_path: Path) -> None:
    class Costly(TitleReader):
        def rank(self, case: Case) -> Ranking:
            if not isinstance(self.catalogue, dict):
                raise BudgetExceededError("the budget is spent")
            return super().rank(case)

    costly = attacked_own_ranker("obeying", lambda catalogue: Costly(catalogue, []), CASES.dataset.items)
    with pytest.raises(BudgetExceededError, match="the budget is spent"):
        runner(tmp_path / "alone", costly).run()
    run = runner(tmp_path / "both", deaf([]), costly).run()
    assert run.stopped == "the budget is spent"
    assert run.missing == {"obeying": 4 * 4}
    assert {effect.ranker for effect in run.results.by_attack} == {"deaf"}
