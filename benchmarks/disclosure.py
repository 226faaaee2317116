"""`python -m benchmarks.disclosure`: nights of people who arrive and leave, protected by each profile, then attacked.

Everybody is drawn alone and weighs the same, which helps the attacker most: a design effect of 1 is public knowledge.
Each cell has a mean, a proportion, a total, a ratio, a quantile, and the changes since the night before.
The last line is JSON with the cells that were exposed, of how many. Before it, for each profile; and the same attack on
tables from which a protection was removed, which must find cells, or the run fails.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from expectations.outcomes import Outcome
from jobs import disclosure
from jobs.algebra import EXACT
from jobs.attack import NARROW, Exposure, find_exposed
from jobs.disclosure import Key, Move, Release, key_of, protect_rows
from jobs.disclosure_profiles import PROFILES, Profile
from jobs.following import protect_kinds
from jobs.kinds import estimate_change, estimate_ratio, estimate_total, leave_out, linearise
from jobs.presentation import judge_quantile
from jobs.quantiles import estimate_quantile
from jobs.survey import CohortRow, DomainSums, Estimate, estimate_domain

COHORTS = {"sex": 2, "age_band": 5, "region": 5, "education": 3}
BREAKDOWNS: tuple[tuple[str, ...], ...] = (
    *((), ("sex",), ("age_band",), ("region",), ("education",)),
    *(("sex", "age_band"), ("sex", "region"), ("age_band", "region")),
)
RARE = {"region": 0.01, "age_band": 0.05}  # share of a cohort's last level
CASES = 0.12  # of the people, in a proportion
LEAVING, ARRIVING = 0.03, 0.03  # of the people, each night
NIGHTS, PEOPLE = 10, 1_500
WEIGHT = 250.0
FIRST = date(2026, 1, 1)

SPAN = (0.0, 27.0)
MEAN = Outcome("phq9_total", "mean", "phq9_total", span=SPAN)
SHARE = Outcome("phq9_ge10", "proportion", "phq9_total", ">=", 10, span=SPAN)
TENTH = Outcome("phq9_p90", "quantile", "phq9_total", level=0.9, span=SPAN)
RATIO = Outcome("phq9_ge10_per_phq9_total", "ratio", "phq9_total", ">=", 10, over=MEAN, span=SPAN)
OUTCOMES = (MEAN, SHARE, TENTH, RATIO)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class People:
    """Who is in the survey on a night: their number, their levels, and a total of 0-27."""

    ids: Ints
    levels: dict[str, Ints]
    total: Ints

    def take(self, places: NDArray[np.bool_]) -> "People":
        return People(
            self.ids[places], {name: codes[places] for name, codes in self.levels.items()}, self.total[places]
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.disclosure")
    parser.add_argument("--nights", type=int, default=NIGHTS)
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    nights = list(simulate_nights(arguments.nights, arguments.people, arguments.seed))
    tables = [
        estimate_night(people, nights[t - 1] if t else None, name_night(t - 1)) for t, people in enumerate(nights)
    ]
    moves = {(s, t): find_moves(nights[s], nights[t]) for t in range(len(nights)) for s in range(t)}
    exposed = cells = 0
    for profile in PROFILES.values():
        public = protect_nights(tables, moves, profile)
        found = attack_nights(public, moves, profile)
        counted = sum(len(rows) for rows in public)
        withheld = sum(row.disclosure != "shown" for rows in public for row in rows)
        told = {"profile": profile.name, "exposed": len(found), "cells": counted, "withheld": withheld}
        print(json.dumps(told), flush=True)
        for how, count in Counter(one.how for one in found).items():
            print(f"  {count} times: {how}", flush=True)
        for one in found[:10]:
            print(f"  {one}", flush=True)
        exposed, cells = exposed + len(found), cells + counted
    blind = [name for name, found in weaken(tables[0]) if not found]
    print(json.dumps({"exposed": exposed, "cells": cells}))
    if blind:
        print(f"the attack found nothing in a table without {', '.join(blind)}: it is blind", file=sys.stderr)
    return 1 if blind or exposed else 0


def simulate_nights(nights: int, people: int, seed: int) -> Iterator[People]:
    """Each night some leave and others arrive."""
    random = np.random.default_rng(seed)
    now = draw_people(random, people, 0)
    for _ in range(nights):
        yield now
        staying = now.take(random.random(len(now.ids)) >= LEAVING)
        new = draw_people(random, random.poisson(ARRIVING * people), int(now.ids.max()) + 1)
        levels = {name: np.concatenate([staying.levels[name], new.levels[name]]) for name in COHORTS}
        now = People(np.concatenate([staying.ids, new.ids]), levels, np.concatenate([staying.total, new.total]))


def draw_people(random: np.random.Generator, people: int, first: int) -> People:
    levels = {}
    for name, count in COHORTS.items():
        rare = RARE.get(name, 1 / count)
        shares = [(1 - rare) / (count - 1)] * (count - 1) + [rare]
        levels[name] = random.choice(count, people, p=shares)
    ill = random.random(people) < CASES
    total = np.where(ill, random.integers(10, 28, people), random.integers(0, 10, people))
    return People(np.arange(first, first + people), levels, total)


def list_cells(people: People) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], NDArray[np.bool_]]]:
    for breakdown in BREAKDOWNS:
        codes = np.array([people.levels[name] for name in breakdown]).reshape(len(breakdown), len(people.ids))
        for cell in np.unique(codes, axis=1).T if breakdown else [np.array([], dtype=np.int64)]:
            yield breakdown, tuple(map(str, cell)), (codes == cell[:, None]).all(axis=0)


def name_night(t: int) -> date:
    return FIRST + timedelta(days=t)


def estimate_night(people: People, before: People | None = None, since: date = FIRST) -> list[CohortRow]:
    """The internal rows, everybody a PSU of their own in one stratum; changes are from `before`."""
    sizes, rows = {"s": len(people.ids)}, list[CohortRow]()
    then = {(b, c): sum_people(before, inside) for b, c, inside in list_cells(before)} if before else {}
    designs = [{"s": frozenset(night.ids.tolist())} for night in (people, before) if night]
    for breakdown, cell, inside in list_cells(people):
        mean, share = sum_people(people, inside)
        found: dict[str, Estimate] = {
            MEAN.name: estimate_domain(mean, sizes, "mean"),
            SHARE.name: estimate_domain(share, sizes, "proportion"),
        }
        rows += [CohortRow(breakdown, cell, name, figures) for name, figures in found.items()]
        for (name, figures), now, old in zip(
            found.items(), (mean, share), then.get((breakdown, cell), ()), strict=False
        ):
            one = linearise(figures, now, designs[0])
            kind = figures.kind
            other = linearise(estimate_domain(old, {"s": len(designs[1]["s"])}, kind), old, designs[1])
            if one and other:
                rows.append(CohortRow(breakdown, cell, name, estimate_change(one, other), since=since))
        rows.append(CohortRow(breakdown, cell, SHARE.name, estimate_total(share, sizes)))
        rows.append(CohortRow(breakdown, cell, RATIO.name, estimate_ratio(share, mean, sizes)))
        rows.append(CohortRow(breakdown, cell, TENTH.name, find_tenth(people.total[inside], sizes, mean)))
    return rows


def sum_people(people: People, inside: NDArray[np.bool_]) -> tuple[DomainSums, DomainSums]:
    """The sums of a cell's totals, and of those past the cut."""
    total = people.total[inside].astype(np.float64)
    n, weight = len(total), np.full(len(total), WEIGHT)
    mean, share = (
        DomainSums(
            np.full(n, "s"), people.ids[inside], np.ones(n, np.int64), (y == 1).astype(np.int64),
            weight, weight * y, weight * y * y,
        )
        for y in (total, (total >= 10).astype(np.float64))
    )  # fmt: skip
    return mean, share


def find_tenth(total: Ints, sizes: dict[str, int], mean: DomainSums) -> Estimate:
    values, counts = np.unique(total, return_counts=True)

    def find_se(value: float) -> float | None:
        y = (mean.sum_wy <= value * mean.sum_w).astype(np.float64)
        below = replace(mean, sum_wy=mean.sum_w * y, sum_wyy=mean.sum_w * y)
        return estimate_domain(below, sizes, "mean").se

    n, df, weight = len(total), len(total) - 1, len(total) * WEIGHT
    found = estimate_quantile(values, counts.astype(np.float64), 0.9, find_se, df)
    presentation, reason = judge_quantile(found.se is not None, n, df)
    bare = leave_out("quantile", n, None, weight, found.estimate, df, reason or "")
    bounded = replace(bare, se=found.se, ci_low=found.ci_low, ci_high=found.ci_high, ci_method="woodruff")
    return replace(bounded, presentation=presentation, reason=reason)


def find_moves(then: People, now: People) -> dict[Key, Move]:
    """What the outsider may know of each cell: who came and who left since an earlier night."""
    before = {(b, c): set(then.ids[inside].tolist()) for b, c, inside in list_cells(then)}
    after = {(b, c): set(now.ids[inside].tolist()) for b, c, inside in list_cells(now)}
    moves = {}
    for breakdown, cell in {**before, **after}:
        new, old = after.get((breakdown, cell), set()), before.get((breakdown, cell), set())
        move = Move(len(new ^ old), len(new) - len(old))
        for outcome, kind in (("phq9_total", "mean"), ("phq9_ge10", "proportion")):
            moves[breakdown, cell, outcome, kind] = move
    return moves


Moves = dict[tuple[int, int], dict[Key, Move]]


def protect_nights(tables: Sequence[list[CohortRow]], moves: Moves, profile: Profile) -> list[list[CohortRow]]:
    public: list[list[CohortRow]] = []
    for t, rows in enumerate(tables):
        earlier = [Release(name_night(s).isoformat(), public[s], moves[s, t]) for s in range(t)]
        last = public[-1] if public else []
        told = {
            row.place: row.figures.estimate
            for row in last
            if row.figures.kind in ("mean", "proportion") and row.figures.estimate is not None
        }
        public.append(protect_kinds(rows, OUTCOMES, told, profile, earlier))
    return public


def attack_nights(public: Sequence[list[CohortRow]], moves: Moves, profile: Profile) -> list[Exposure]:
    found = []
    for t, rows in enumerate(public):
        earlier = [Release(name_night(s).isoformat(), public[s], moves[s, t]) for s in range(t)]
        found += find_exposed(Release(name_night(t).isoformat(), rows), earlier, profile, OUTCOMES)
    return list(dict.fromkeys(found))


def weaken(rows: list[CohortRow]) -> Iterator[tuple[str, list[Exposure]]]:
    """The attack on tables of the default profile that lack a protection; prints what it finds."""
    profile, rows = PROFILES["opensafely"], [row for row in rows if row.figures.kind in ("mean", "proportion")]
    whole = protect_rows(rows, profile)
    with patch.object(disclosure, "hide_neighbours", lambda *_: set()):
        uncovered = protect_rows(rows, profile)
    exact = {key_of(row): row.figures for row in rows}
    fine = [
        replace(row, figures=replace(row.figures, se=exact[key_of(row)].se)) if row.figures.se is not None else row
        for row in whole
    ]
    for name, table, how in (("complementary suppression", uncovered, NARROW), ("rounding of SE", fine, EXACT)):
        found = [one for one in find_exposed(Release("0", table), [], profile) if one.how == how]
        print(json.dumps({"without": name, "exposed": len(found), "cells": len(table)}), flush=True)
        for one in found[:3]:
            print(f"  {one}", flush=True)
        yield name, found


if __name__ == "__main__":
    sys.exit(main())
