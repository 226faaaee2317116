"""docs/performance.md and its picture, from the results of the benchmarks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from jobs.charts import FONT, SERIES, VEGA_LITE

PAGE, PICTURE = "performance.md", "performance.svg"
WIDTH, BAR = 380, 22
MILLION = 1e6


def write_page(found: dict[str, Any], docs: Path) -> None:
    (docs / PICTURE).write_text(draw(found))
    (docs / PAGE).write_text("\n".join(_tell(found)) + "\n")


def draw(found: dict[str, Any]) -> str:
    """SVG: how fast each way scores, and the processor time of whole nights by their size."""
    ways = [
        {
            "way": f"{way['way']} ({way['numbers']})",
            "speed": way["rows_a_second"] / 1000,
            "ours": str("deals" in way["way"]),
        }
        for way in found["scoring"]["ways"]
    ]
    speed = (
        alt.Chart(alt.InlineData(values=ways), title="Scoring: thousand people a second, read to written")
        .mark_bar(height=BAR - 6)
        .encode(
            x=alt.X("speed:Q", title=None),
            y=alt.Y("way:N", sort="-x", title=None, axis=alt.Axis(labelLimit=330)),
            color=alt.Color("ours:N", scale=alt.Scale(domain=["True", "False"], range=list(SERIES[:2])), legend=None),
        )
        .properties(width=WIDTH, height=BAR * len(ways))
    )
    nights = [
        {"people": night["people"] / MILLION, "stage": stage, "cpu": told["cpu_seconds"], "order": place}
        for night in found["nights"]
        for place, (stage, told) in enumerate(night["stages"].items())
    ]
    growth = (
        alt.Chart(alt.InlineData(values=nights), title="A whole night: processor seconds by million people, by stage")
        .mark_bar()
        .encode(
            x=alt.X("sum(cpu):Q", title=None),
            y=alt.Y("people:O", title=None, axis=alt.Axis(labelLimit=330)),
            color=alt.Color("stage:N", sort=None, title=None, scale=alt.Scale(scheme="tableau10")),
            order=alt.Order("order:Q"),
        )
        .properties(width=WIDTH, height=2 * BAR * len(found["nights"]))
    )
    chart = alt.vconcat(speed, growth).resolve_scale(color="independent")
    styled = chart.configure(font=FONT, background="white").configure_view(stroke=None)
    return str(vl_convert.vegalite_to_svg(styled.to_dict(), vl_version=VEGA_LITE))


def _tell(found: dict[str, Any]) -> Iterator[str]:
    machine, scoring, feed = found["machine"], found["scoring"], found["feed"]
    yield "# Performance\n"
    yield "Made by `make bench-full`; `make bench` measures the same in minutes, without the largest night.\n"
    yield f"![Speed of scoring, and processor time of whole nights]({PICTURE})\n"
    yield (
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']}; "
        f"{machine['java']}; torch {machine['torch']}, pyspark {machine['pyspark']}, pyarrow {machine['pyarrow']}, "
        f"petastorm {machine['petastorm']}. Load before: {machine['load_before']}. "
        "Competitors take turns within one run, figures are medians; only ratios carry over to other machines.\n"
    )
    yield "## Scoring\n"
    yield (
        f"Medians of {scoring['rounds']} rounds, warm. "
        f"Through Spark {scoring['share_of_limit']:.2f} of what the same machine does without Spark. "
        f"A night's start-up comes once: Spark's session {scoring['start_up_seconds']['session']:.1f} s, "
        f"a worker's first task {scoring['start_up_seconds']['first_task']:.1f} s more than later ones.\n"
    )
    yield from _table(
        ("way", "numbers", "people", "people a second", "CPU s per million", "first run, s more"),
        [
            (
                w["way"],
                w["numbers"],
                f"{w['people']:,}",
                f"{w['rows_a_second']:,}",
                w["cpu_seconds_per_million"],
                w["first_run_seconds_more"],
            )
            for w in scoring["ways"]
        ],
    )
    yield "\nOurs over the documented ways, in their recommended form and with the same numbers:\n"
    names = [name for name in scoring if name.startswith("over_") and not name.endswith("_same_numbers")]
    yield from _table(
        ("way", "recommended form", "same numbers"),
        [(f"`{name[5:]}`", scoring[name], scoring.get(f"{name}_same_numbers", "")) for name in names],
    )
    yield "\n## Training feed\n"
    yield (
        f"Steps of the training itself, batches of {feed['batch_size']:,}, "
        f"{feed['threads']} thread, {feed['numbers']}; "
        f"fed by Petastorm {feed['share_of_memory']:.2f} of the speed from memory.\n"
    )
    yield from _table(
        ("feed", "training, people a second", "feeding alone"),
        [
            (name, f"{speed:,}", f"{feed['rows_a_second_feeding_alone'][name]:,}")
            for name, speed in feed["rows_a_second"].items()
        ],
    )
    yield "\n## Whole nights\n"
    yield "Validate to publish, with a model in force. Memory is the peak of all processes' PSS.\n"
    yield from _table(
        ("people", "seconds", "CPU s", "memory, MiB", "of it JVM", "workers", "driver"),
        [
            (
                f"{night['people']:,}",
                night["seconds"],
                night["cpu_seconds"],
                f"{night['peak_pss_mib']:,}",
                *(f"{night['peak_pss_mib_by_process'].get(name, 0):,}" for name in ("JVM", "worker", "driver")),
            )
            for night in found["nights"]
        ],
    )
    yield ""
    for growth in found["growth"]:
        yield (
            f"- from {growth['from_people']:,} to {growth['to_people']:,} people: "
            f"{growth['cpu_seconds_per_million_rows']} CPU s for each million rows more"
        )
    yield f"\nStages of {found['stages']['people']:,} people:\n"
    yield from _table(
        ("stage", "rows a second", "CPU s per million rows"),
        [
            (stage, f"{told['rows_a_second']:,}", told["cpu_seconds_per_million"])
            for stage, told in found["stages"].items()
            if stage != "people"
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
