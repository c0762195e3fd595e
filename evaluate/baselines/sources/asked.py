"""What a program said about some lists: scores of MAR, and how profile and traits match; unknown for other lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evaluate.baselines.sources.lists import FeatureColumns, Lists
from programs.gate import recorded_scores
from programs.motivation_encoder import MotivationEncoder
from programs.runtime.errors import InputError, quoted
from signatures.rows import Case, Ranking
from signatures.types import Profile, Strength

_STRENGTHS: Mapping[Strength, float] = {"strong": 1.0, "moderate": 2 / 3, "weak": 1 / 3}


class AskedAbout:
    """Features of the recorded rows of one program; NaN for candidates and lists that it was not asked about.

    `mar`, `mar.rank`: MAR's standard score, and the share of the scored candidates with a smaller score. `profile`,
    `profile.mean`: cosine of motivation and nearest trait phrase, for the nearest motivation and the mean over all.
    `need`: likewise for the nearest need. `dimension`: leanings of the item on the dimensions of the profile, weighted
    by strength.

    Args:
        program: Its name, for the names of the features.
        cases: The lists that the program ranked.
        rows: Its rows by user.
        head: See `Fusion`.
        motivations: Gives leanings of items, and the encoder that compares phrases.
    """

    def __init__(
        self,
        program: str,
        cases: Sequence[Case],
        rows: Mapping[str, Ranking],
        head: int | None,
        motivations: MotivationEncoder,
    ) -> None:
        kinds = ("mar", "mar.rank", "profile", "profile.mean", "need", "dimension")
        self.names = tuple(f"{program}.{kind}" for kind in kinds)
        self.motivations = motivations
        self._vectors = self._encoded([rows[case.user_id] for case in cases if case.user_id in rows])
        self._columns = {
            (case.user_id, case.candidates): self._features(case, rows[case.user_id], head)
            for case in cases
            if case.user_id in rows
        }

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        if not lists.cases:
            return np.zeros((0, len(self.names)))
        # The same user may have other lists, such as training lists: an answer belongs to one list.
        unknown = np.full(len(self.names), np.nan)
        return np.vstack(
            [
                self._columns.get((case.user_id, case.candidates), np.tile(unknown, (len(case.candidates), 1)))
                for case in lists.cases
            ]
        )

    def _encoded(self, rows: Sequence[Ranking]) -> dict[str, FeatureColumns]:
        """Unit vectors of all phrases of profiles and traits."""
        phrases = {phrase for row in rows if row.profile for phrase in row.profile.phrases}
        phrases |= {phrase for row in rows for traits in row.traits for phrase in traits.all_phrases}
        ordered = sorted(phrases)
        vectors = self.motivations.encoder.encode(ordered).astype(float) if ordered else np.zeros((0, 1))
        return dict(zip(ordered, vectors, strict=True))

    def _features(self, case: Case, row: Ranking, head: int | None) -> FeatureColumns:
        if row.order and sorted(row.order) != sorted(case.candidates):
            raise InputError(f"the recorded row of user {quoted(case.user_id)} ranks other candidates than the case")
        out = np.full((len(case.candidates), len(self.names)), np.nan)
        if not row.order or not row.asked:
            return out
        mar = recorded_scores(row, head)
        if (known := ~np.isnan(mar)).any():
            scored = mar[known]
            spread = scored.std()
            out[known, 0] = (scored - scored.mean()) / spread if spread > 0 else 0.0
            smaller = (scored[:, None] > scored).sum(axis=1) + 0.5 * (scored[:, None] == scored).sum(axis=1)
            out[known, 1] = smaller / len(scored)
        if row.profile is not None:
            traits = {one.item_id: one.all_phrases for one in row.traits}
            for place, item in enumerate(case.candidates):
                if item in traits:
                    out[place, 2:] = self._match(row.profile, item, traits[item])
        return out

    def _match(self, profile: Profile, item: str, phrases: Sequence[str]) -> tuple[float, ...]:
        wanted = [self._nearest(motivation.description, phrases) for motivation in profile.motivations]
        needs = [self._nearest(need.phrase, phrases) for need in profile.needs]
        return (
            max(wanted, default=np.nan),
            float(np.mean(wanted)) if wanted else np.nan,
            max(needs, default=np.nan),
            self._served(profile, item),
        )

    def _nearest(self, phrase: str, phrases: Sequence[str]) -> float:
        own = self._vectors[phrase]
        return max((float(own @ self._vectors[other]) for other in phrases), default=np.nan)

    def _served(self, profile: Profile, item: str) -> float:
        names = self.motivations.schema.names
        known = [one for one in profile.motivations if one.dimension in names]
        if not known or item not in self.motivations.catalogue:
            return float("nan")
        leanings = self.motivations.of(self.motivations.catalogue[item])
        return float(sum(_STRENGTHS[one.strength] * leanings[names.index(one.dimension)] for one in known))
