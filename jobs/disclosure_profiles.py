"""Disclosure profiles: one row of data for each rule set, and what they do to a count."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Zero = Literal["shown", "suppressed", "shown unless a whole group is 0 % or 100 %"]
Rounding = Literal["none", "nearest 5", "midpoint 6"]


@dataclass(frozen=True)
class Profile:
    """One disclosure rule set.

    `least_width` is how far apart the bounds must be that an outsider can derive of a protected count, in people.
    `known_movers` is of how many people that outsider may know that they came, left or answered anew.
    """

    name: str
    redact_up_to: int
    zero: Zero
    rounding: Rounding
    least_width: int
    known_movers: int
    proportion_decimals: int = 3
    min_df: int = 0
    dominance_share: float | None = None
    p_ratio: float | None = None


OPENSAFELY = Profile("opensafely", 7, "shown unless a whole group is 0 % or 100 %", "nearest 5", 4, 7)
PROFILES = {
    profile.name: profile
    for profile in (
        OPENSAFELY,
        Profile("midpoint6", 0, "shown", "midpoint 6", 1, 6),
        Profile("cms", 10, "shown", "none", 5, 10),
        Profile("nhs_mhsds", 4, "suppressed", "nearest 5", 3, 4, proportion_decimals=2),
        Profile("acro", 9, "suppressed", "none", 5, 9, min_df=10, dominance_share=0.90, p_ratio=0.10),
    )
}


def hides_everybody(profile: Profile) -> bool:
    """Whether counts of people, whoever answered, are withheld: with a trait, with features, with two answers.

    Beside exact numbers of answers they would tell how few gave none; rounded numbers do not tell it.
    """
    return profile.rounding == "none"


def is_small(count: int, redact_up_to: int, zero_too: bool) -> bool:
    return count <= redact_up_to and (count > 0 or zero_too)


def redacted_range(profile: Profile) -> tuple[int, int]:
    """The least and the most people of a cell that is redacted for having few."""
    return 0 if profile.zero == "suppressed" else 1, profile.redact_up_to


def protected_range(profile: Profile) -> tuple[int, int]:
    """The least and the most people of a count that is protected: by redaction, or by the first midpoint."""
    return (1, 6) if profile.rounding == "midpoint 6" else redacted_range(profile)


def round_count(count: int, profile: Profile = OPENSAFELY) -> int:
    """A count as the profile publishes it; redaction is not decided here."""
    if profile.rounding == "nearest 5":
        return 5 * math.floor(count / 5 + 0.5)
    if profile.rounding == "midpoint 6":
        return math.ceil(count / 6) * 6 - 3 if count else 0
    return count


def redact_count(count: int, profile: Profile = OPENSAFELY) -> int | None:
    """A lone count (of rows, of files' people) as the profile publishes it; None where it is redacted."""
    return None if is_small(count, profile.redact_up_to, profile.zero == "suppressed") else round_count(count, profile)


def redact_parts(whole: str, counts: Mapping[str, int], profile: Profile) -> dict[str, int | None]:
    """Counts, of which one is the sum of the others, as the profile publishes them; None where one is withheld.

    A redacted part does not stand alone, nor beside so few that together they are one: the next smallest goes with it.
    """
    shown = {name: redact_count(count, profile) for name, count in counts.items()}
    parts = [name for name in counts if name != whole]
    while hidden := [name for name in parts if shown[name] is None]:
        rest = sorted((counts[name], name) for name in parts if shown[name] is not None and counts[name])
        enough = len(hidden) > 1 and sum(counts[name] for name in hidden) > profile.redact_up_to
        if shown[whole] is None or enough:
            break
        shown[rest[0][1] if rest else whole] = None
    return shown


def redact_fates(counts: Mapping[str, int], profile: Profile) -> dict[str, int | None]:
    """What became of the `delivered` rows, `features` and others, as the profile publishes it."""
    if not hides_everybody(profile):
        return redact_parts("delivered", counts, profile)
    shown = {name: redact_count(count, profile) for name, count in counts.items()}
    return shown | {"delivered": None, "features": None}  # either would tell the other


def rounding_cell(published: int, profile: Profile) -> tuple[int, int]:
    """The least and the most people that are published as this count, where the rule does not redact them."""
    if not published or profile.rounding == "none":
        return published, published
    below, above = (2, 2) if profile.rounding == "nearest 5" else (2, 3)
    return max(redacted_range(profile)[1] + 1, published - below), published + above
