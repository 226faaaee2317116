"""On request: a synthetic extract, a public-use file of people who do not exist, drawn from a published night's model.

Every column that the codebook speaks of is drawn anew, and no row is a person's:
- cohorts, covariates, weights and who leaves items out: by logits on two-way tables, without a level that fewer than
  SMALLEST people have (model/cells.py); numbers from histograms with as many a bin (model/numbers.py);
- answers: traits by the latent regression on the published cells, PSU and weight that `aggregate` uses, the items by
  the model's decoder (model/simulating.py);
- strata and PSUs under new names, none of fewer people (jobs/synthetic_design.py); weights are calibrated to what the
  night has published, and none is one that fewer people have (jobs/synthetic_weights.py).
The same night, number of people and seed give the same bytes. What is written goes to the given folder alone.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import yaml

from expectations.codebook import Codebook
from jobs.errors import UsageError
from jobs.lake import Lake
from jobs.provenance import hash_code
from jobs.synthetic_columns import Texts
from jobs.synthetic_population import Manifest, draw_extract, read_population
from model.cells import SMALLEST

MANIFEST, CODEBOOK = "manifest.json", "codebook.yaml"
MARK = "[synthetic]"  # before the title
IS = "people who do not exist, drawn from a model of the survey's people; for teaching, trying out and planning"
IS_NOT = (
    "no person's record, and no anonymised copy of one; no substitute for the survey where a figure is not published: "
    "what the model does not hold (rare combinations, answers that hang together beside the traits) is not in it; "
    "not differentially private"
)


def synthesize(lake: Lake, manifest: Manifest, book: Codebook, people: int, seed: int, out: Path) -> Path:
    """Writes the extract, the codebook that reads it and its manifest into the new folder `out`; returns the extract.

    Raises UsageError for a number of people or a folder that it cannot serve, and what `read_population` raises.
    """
    if people < 1:
        raise UsageError("--people must be 1 or more")
    if out.resolve().is_relative_to(lake.root.resolve()):
        raise UsageError(f"{out} lies in the lake: a synthetic extract is no table of it, name a folder outside")
    if out.exists():
        raise UsageError(f"{out} is there already: name a new folder")
    population = read_population(lake, manifest, book)
    columns = draw_extract(population, people, seed)
    scratch = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        file = scratch / name_file(book)
        write_csv(file, columns, book)
        (scratch / CODEBOOK).write_text(copy_codebook(book, lake, manifest, file.name))
        told = {
            "what_it_is": IS,
            "what_it_is_not": IS_NOT,
            "file": file.name,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "people": people,
            "seed": seed,
            "run_date": manifest["run_date"],
            "model_version": manifest["model"]["model_version"],
            "codebook": manifest["codebook"],
            "fewest_people": SMALLEST,
            "mindcensus": version("mindcensus"),
            "code_sha256": hash_code(),
        }
        (scratch / MANIFEST).write_text(json.dumps(told, indent=1) + "\n")
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return out / name_file(book)


def name_file(book: Codebook) -> str:
    """The extract's file: the source's own, where that is one CSV."""
    [*names] = book.source.files
    own = book.source.format == "csv" and len(names) == 1 and not set("*?[") & set(names[0])
    return Path(names[0]).name if own else f"{book.codebook}.csv"


def write_csv(file: Path, columns: Mapping[str, Texts], book: Codebook) -> None:
    """Nothing in a codebook's codes needs quotes but a delimiter, and that is quoted."""
    delimiter, encoding = (
        (book.source.delimiter, book.source.encoding) if book.source.format == "csv" else (",", "utf-8")
    )

    def quote(text: str | None) -> str:
        text = text or ""
        return '"' + text.replace('"', '""') + '"' if set(text) & {delimiter, '"', "\n", "\r"} else text

    lines = [delimiter.join(columns)]
    lines += [delimiter.join(map(quote, row)) for row in zip(*columns.values(), strict=True)]
    file.write_bytes(("\n".join(lines) + "\n").encode(encoding))


def copy_codebook(book: Codebook, lake: Lake, manifest: Manifest, file: str) -> str:
    """The codebook as it reads the extract: one CSV, without replicate weights, sizes of strata, lists and feedback."""
    raw = yaml.safe_load((lake.restricted / "codebooks" / f"{manifest['codebook']['sha256']}.yaml").read_text())
    kept = {name: raw["source"][name] for name in ("delimiter", "encoding") if name in raw["source"]}
    raw["source"] = {"format": "csv", "files": [file], **(kept if book.source.format == "csv" else {})}
    raw["title"] = f"{MARK} {book.title}"
    for words in raw.get("translations", {}).values():
        words[raw["title"]] = f"{MARK} {words.get(book.title, book.title)}"
    for name in ("replicates", "fpc"):
        raw["design"].pop(name, None)
    raw.pop("feedback", None)
    raw.get("consent", {}).pop("list", None)
    return yaml.safe_dump(raw, allow_unicode=True, sort_keys=False)
