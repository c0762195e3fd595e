"""Evaluation protocol as data: held-out interaction, dev and test users, negative sampling, cold-start settings.

Everything the paper leaves open is a named choice with a default (docs/protocol.md); `splits.py` applies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from evaluate.data.records.fields import reads_as_a_day, seconds
from programs.runtime.errors import InputError, input_error, quoted
from signatures.rows import seed_of
from signatures.types import Interaction

Target = Literal["last-liked", "highest", "last"]
"""Rule for the target; the paper has both "last rated above 3" (the default here) and "highest rated"."""

UserPart = Literal["dev", "test"]
"""Dev users are for tuning and demos, test users for final figures."""

Setting = Literal["warm", "item-cold", "user-cold", "time"]
"""The paper's three evaluations (sections 4 and 5), and one date for all users: what is later is test."""

COLD_SETTINGS: tuple[Setting, ...] = ("item-cold", "user-cold")
"""Evaluated users are not in the training data of these."""

FIRST_MOMENT = 100_000_000
"""March 1973: a smaller number that is written for a date is a year or a day, not unix seconds."""


def _in_seconds(written: object) -> object:
    if not isinstance(written, str | date):
        return written
    if isinstance(written, str) and written.strip().isdecimal() and int(written) < FIRST_MOMENT:
        raise ValueError(f"{quoted(written)} is not a date; give one such as 2018-01-01, or unix seconds")
    return seconds({"date": written}, "date")


Moment = Annotated[int, BeforeValidator(_in_seconds)]
"""Unix seconds; a date such as 2018-01-01 is understood."""


def check_date(setting: Setting, since: int | None) -> None:
    """Check that only the setting time has a date.

    Raises:
        ValueError: if another one has.
    """
    if since is not None and setting != "time":
        raise ValueError("'since' is the date of the setting 'time'; choose that setting, or leave the date out")


Sampling = Literal["uniform", "popularity", "matched"]
"""How negatives are drawn: uniformly, in proportion to their users, or from items about as popular as the target.
Popularity is counted in the training data, so a cold positive is matched with other cold items."""


def default_sampling(setting: str) -> Sampling:
    """How negatives are drawn unless it is said: matched for item cold-start, else uniformly.

    Among uniform negatives of a cold item nearly all have users in the training data. So "nobody has it" gives the
    positive away, and figures say how much a ranker is hurt by that, not how well it ranks (docs/protocol.md).
    """
    return "matched" if setting == "item-cold" else "uniform"


ColdPositive = Literal["target", "any"]
"""Item cold-start: users whose target is a cold item, or all users of a cold item, with the last one as target."""

ColdHistory = Literal["window", "recent"]
"""User cold-start: the user's history. Only records inside the test window, or the last ones before the target."""

IN_MEMORY = "in-memory"
"""`EvaluationProtocol.source` of a dataset that was built from frames: it cannot be loaded again."""


def held_out(sequence: Sequence[Interaction], target: Target) -> int | None:
    """Index of the target in a user's interactions, or None if the user cannot be evaluated.

    Args:
        sequence: A user's interactions, oldest first.
        target: `last-liked`: the last one rated above 3, where an interaction without a rating counts as liked.
            `highest`: the one with the highest rating, if that is above 3, and the latest among equals.
            `last`: the last one, whatever its rating.

    Returns:
        An index of at least 1, because a history is needed; None without a positive, or if it is the first
        interaction.

    >>> rated = [Interaction(item_id=i, rating=r) for i, r in [("a", 4), ("b", 5), ("c", 4), ("d", 2)]]
    >>> held_out(rated, "last-liked"), held_out(rated, "highest"), held_out(rated, "last")
    (2, 1, 3)
    >>> held_out(rated[:1], "last") is None
    True
    """
    return positive_of(sequence, target) or None


def positive_of(sequence: Sequence[Interaction], target: Target) -> int | None:
    """Index of the target among interactions, which may be the first, or None if none fits the rule of `held_out`.

    >>> positive_of([Interaction(item_id="a", rating=4), Interaction(item_id="b", rating=2)], "last-liked")
    0
    """
    if target == "last-liked":
        liked = [i for i, event in enumerate(sequence) if event.liked]
        return liked[-1] if liked else None
    if target == "highest":
        rated = [(e.rating, i) for i, e in enumerate(sequence) if e.rating is not None and e.liked]
        return max(rated)[1] if rated else None
    return len(sequence) - 1 if sequence else None


def part_of(user_id: str) -> UserPart:
    """The part a user belongs to: decided by a hash of the id, whatever the seed, sample size and protocol.

    >>> part_of("A1B2C3") == part_of("A1B2C3")
    True
    """
    return "dev" if seed_of("part", user_id) % 2 == 0 else "test"


class EvaluationProtocol(BaseModel):
    """Everything needed to draw a cases file again from the data.

    Attributes:
        format: Version of the cases file.
        dataset: The dataset's short name.
        source: Where the data was read from: an absolute path, `demo`, or `in-memory`.
        dataset_sha256: `Dataset.sha256` of that data.
        setting: How targets and training data are divided: warm, item-cold, user-cold or time.
        target: Rule for the target: the last liked interaction, the one with the highest rating, or the last.
        negatives: Sampled items per list; a list has one more.
        sampling: How negatives are drawn; `default_sampling` of the setting unless given. Written with every file.
        part: Users to draw from.
        users: Most users, or None for all of the part.
        skip: Number of first users in the seeded order that are left out, so that a result is confirmed on others.
        seed: Decides the order of users, the negatives and the target's position.
        draw: Number of the draw: other negatives and positions for the same users.
        last: Length to which histories are cut; None keeps them whole.
        cold_share: Share of the items (item-cold) or of the records (user-cold) that is cold; of the records that are
            test where no date is given (time).
        cold_positive: Item cold-start: evaluates users whose target is a cold item, or all users of a cold item.
        cold_history: User cold-start: a history is the user's records in the test window before the target, or the last
            records before it, inside the window or not.
        cold_below: User cold-start: users with fewer records than this in the test window.
        since: Setting time: the moment from which on everything is test, in unix seconds; a date is understood.
            None: the first moment of the latest `cold_share` of the records.
        columns: Names of columns by ours that were given to read the data (`load_dataset`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["mllm3rec-cases/1"] = "mllm3rec-cases/1"
    dataset: str
    source: str
    dataset_sha256: str
    setting: Setting = "warm"
    target: Target = "last-liked"
    negatives: int = Field(default=29, ge=1)
    sampling: Sampling = Field(default_factory=lambda given: default_sampling(given.get("setting", "warm")))
    part: Literal["dev", "test", "all"] = "dev"
    users: int | None = Field(default=None, ge=1)
    skip: int = Field(default=0, ge=0, exclude_if=lambda skip: not skip)
    seed: int = 0
    draw: int = Field(default=0, ge=0)
    last: int | None = Field(default=None, ge=1)
    cold_share: float = Field(default=0.1, gt=0, lt=1)
    cold_positive: ColdPositive = "target"
    cold_history: ColdHistory = "window"
    cold_below: int = Field(default=3, ge=2)
    since: Moment | None = Field(default=None, exclude_if=lambda since: since is None)
    columns: dict[str, str] = Field(default_factory=dict, exclude_if=lambda columns: not columns)

    @model_validator(mode="after")
    def _date_fits(self) -> Self:
        check_date(self.setting, self.since)
        return self

    @field_validator("source")
    @classmethod
    def _absolute(cls, source: str) -> str:
        return source if source in ("demo", IN_MEMORY) else str(Path(source).expanduser().absolute())

    @classmethod
    def for_dataset(cls, name: str, source: str, sha256: str, **choices: Any) -> EvaluationProtocol:
        """The protocol of cases to draw from a dataset.

        Args:
            name, source, sha256: Of the dataset.
            choices: Other fields, by name; a `sampling` of None is that of the setting.

        Raises:
            InputError: naming the field that is unknown or invalid.
        """
        if choices.get("sampling", "") is None:
            del choices["sampling"]
        unknown = sorted(choices.keys() - cls.model_fields.keys())
        if unknown:
            raise InputError(f"no protocol field {unknown[0]!r}: choose among {', '.join(cls.model_fields)}")
        try:
            protocol = cls(dataset=name, source=source, dataset_sha256=sha256, **choices)
        except ValidationError as error:
            raise input_error("protocol", error) from None
        protocol.check_meant()
        return protocol

    def check_meant(self) -> None:
        """Check that choices for new cases mean what they seem to; files that were drawn earlier may hold any.

        Raises:
            InputError: if the date is a day written as a number, or a rule for target or history would be ignored.
        """
        for field, setting in (("cold_positive", "item-cold"), ("cold_history", "user-cold")):
            if self.setting != setting and getattr(self, field) != type(self).model_fields[field].default:
                raise InputError(
                    f"{field}: is a rule of the setting {setting!r}, and the setting {self.setting!r} does not read "
                    "it; choose that setting, or leave the rule out"
                )
        if self.since is not None and reads_as_a_day(self.since):
            day = f"{self.since // 10_000}-{self.since // 100 % 100:02}-{self.since % 100:02}"
            raise InputError(f"since: {self.since} would be the unix second {moment_of(self.since)}; write {day!r}")
        if (self.setting, self.cold_positive, self.target) == ("item-cold", "any", "highest"):
            raise InputError(
                "cold_positive 'any' takes the last cold item of a user, so it has no target 'highest'; give the "
                "target 'last-liked' or 'last', or the cold_positive 'target'"
            )

    def training_rules(self) -> dict[str, str | int | float]:
        """The fields that decide which interactions of a dataset are training data, with their values.

        >>> protocol = EvaluationProtocol(dataset="d", source="demo", dataset_sha256="0", setting="item-cold")
        >>> protocol.training_rules()
        {'setting': 'item-cold', 'target': 'last-liked', 'cold_share': 0.1, 'cold_positive': 'target'}
        """
        further = {
            "warm": (),
            "item-cold": ("cold_share", "cold_positive"),
            "user-cold": ("cold_share", "cold_history", "cold_below"),
            "time": ("cold_share",) if self.since is None else ("since",),
        }[self.setting]
        return {name: getattr(self, name) for name in ("setting", "target", *further)}

    def choices(self) -> dict[str, str]:
        """What the paper leaves open, and the choice made here: one line each, for people."""
        lines = {
            "setting": self.setting,
            "users": {"dev": "dev users", "test": "test users", "all": "dev and test users"}[self.part]
            + (f", without the first {self.skip:,}" if self.skip else ""),
            "target": {
                "last-liked": "the last interaction rated above 3; without ratings, the last",
                "highest": "the interaction rated highest, above 3; the latest of equals",
                "last": "the last interaction",
            }[self.target],
            "negatives": f"{self.negatives} per user, without the user's own items, "
            + {
                "uniform": "every item with the same probability",
                "popularity": "in proportion to an item's users in the training data",
                "matched": "among items with about as many users in the training data as the target",
            }[self.sampling],
            "history": "whole" if self.last is None else f"the last {self.last} interactions",
            "training data": "every user's interactions before the target",
        }
        if self.setting == "time":
            date = "the first moment of the test data" if self.since is None else moment_of(self.since)
            lines |= {
                "test data": f"everything from {date} on, for all users",
                "target": f"{lines['target']}, among the user's test data",
                "history": f"{lines['history']}, before {date}",
                "training data": f"every user's interactions before {date}",
            }
        if self.setting == "item-cold":
            lines |= {
                "cold items": f"the {self.cold_share:.0%} of items with fewest interactions in the whole data, ties at "
                "the border by a hash",
                "evaluated users": {
                    "target": "those whose target, as above, is a cold item",
                    "any": "all users of a cold item; the target is the last one that fits the rule above",
                }[self.cold_positive],
                "training data": "whole sequences of users without a cold item",
            }
        if self.setting == "user-cold":
            lines |= {
                "test window": f"the latest {self.cold_share:.0%} of all records, with all records of its first moment",
                "evaluated users": f"those with 1 to {self.cold_below - 1} records in the window",
                "their history": {
                    "window": "their records in the window before the target",
                    "recent": f"the last {self.cold_below - 1} records before the target, which lies in the window",
                }[self.cold_history],
                "training data": "records before the window, of all other users",
            }
        return lines


def moment_of(since: int) -> str:
    """A moment as people write it.

    >>> moment_of(1530924496)
    '2018-07-07T00:48:16+00:00'
    """
    return datetime.fromtimestamp(since, UTC).isoformat()


def usable_targets(sequences: Mapping[str, Sequence[Interaction]]) -> dict[str, int]:
    """Number of users that can be evaluated under each target rule."""
    rules: tuple[Target, ...] = get_args(Target)
    return {rule: sum(held_out(events, rule) is not None for events in sequences.values()) for rule in rules}
