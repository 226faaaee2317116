"""A night's differentially private release: its sums, their noise, and the rows that follow."""

import pyarrow.parquet as pq

from expectations.codebook_parts import DifferentialPrivacy
from jobs.domain_sums import find_largest
from jobs.dp_noise import add_noise, measure_cost, plan_noise
from jobs.dp_rows import NOT_PRIVATE, make_rows
from jobs.dp_sums import add_up, list_cells, list_questions
from jobs.errors import StageError
from jobs.job import Job
from jobs.kinds import leave_out
from jobs.survey import CohortRow

JUST_BELOW = 1 - 1e-9  # so that rounding does not take the parts' sum above the whole


def draw_release(job: Job, chosen: DifferentialPrivacy) -> list[CohortRow]:
    """The rows of tonight's release, of all cells that the codebook allows.

    The noise is new with every call; only what is published leaves the house, and it is published once.
    """
    book, files, scratch = job.book, job.night.paths("preprocess", "features"), job.night.scratch("dp")
    outcomes = book.parsed_outcomes()
    questions = list_questions(outcomes)
    footers = [pq.read_metadata(file) for file in files]
    known = find_largest(files, footers, "weight") or 1.0  # nobody may be there
    largest = known if chosen.weights == "public" else float(chosen.weights)
    plan = plan_noise(chosen.epsilon * JUST_BELOW, book.breakdowns, questions)
    cost = measure_cost(plan)
    if cost > chosen.epsilon:
        raise StageError(f"the release would cost epsilon {cost:.6f}, more than the codebook's: report this fault")
    rows: list[CohortRow] = []
    for sums in add_up(files, book, questions, largest, scratch):
        noise = plan[sums.breakdown, sums.question.source]
        own = [one for one in outcomes if one.source == sums.question.source and one.kind in ("mean", "proportion")]
        rows += make_rows(add_noise(sums, noise), noise, own, largest, chosen.design_effect)
    told = {row.outcome for row in rows}
    for outcome in (one for one in outcomes if one.name not in told):
        for breakdown in book.breakdowns:
            for cell in list_cells(book, breakdown):
                figures = leave_out(outcome.kind, None, None, None, None, None, NOT_PRIVATE)
                rows.append(CohortRow(breakdown, cell, outcome.name, figures, "suppressed"))
    return rows
