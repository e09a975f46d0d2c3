"""Compares what a run made of the example crawl with the crawl's truth table.

    python examples/check_crawl.py --truth DIR/truth.jsonl --output OUT

Prints a line for each difference and a summary; exits with 1 if there is a difference.
"""

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pagepairs.manifest import read_dataset

Fact = tuple[tuple[str, ...], str]
"""What a record is called, and what became of it: "kept" or a reason, and the image's id or a detail where one is known."""


EXPLAINED = ("image_dropped", "copy_removed", "same_images_as_other_page")
"""Reasons whose detail says more: why scan dropped the image, why its copy must go, which page stays."""


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a dataset, or of all datasets below a folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist: give the --output of a finished `pagepairs run`")
    complete = [path for path, _, names in os.walk(folder) if "manifest.json" in names]
    return [row for path in sorted(complete) for row in read_dataset(path).to_pylist()]


def true_facts(truth: list[dict[str, str]]) -> list[Fact]:
    """Returns the truth table's rows as facts."""
    facts: list[Fact] = []
    for row in truth:
        if row["record"] == "image":
            facts.append((("image", row["image_url"]), outcome(row["expected"], row["image_id"])))
        elif row["record"] == "reference":
            facts.append((("reference", row["page_url"], row["image_url"]), outcome(row["expected"], row["image_id"], row["detail"])))
        else:
            facts.append((("candidate", row["page_url"], row["image_id"], row["other_id"]), row["expected"]))
    return facts


def outcome(expected: str, image_id: str, detail: str = "") -> str:
    """Returns what became of a record, in words that can be compared."""
    known = image_id if expected == "kept" else detail if expected in EXPLAINED else ""
    return f"{expected} {known}".strip()


def facts_of(output: Path, truth: list[dict[str, str]]) -> list[Fact]:
    """Returns every image and every reference of a run as facts, and those candidates that the truth table names."""
    certain = {(row["page_url"], row["image_url"]) for row in truth if row["record"] == "reference" and row["image_id"]}
    facts: list[Fact] = [
        (("image", row["image_url"]), outcome("kept", row["image_id"])) for row in rows_of(output / "images") if not row["reason"]
    ]
    for row in rows_of(output / "drops"):
        reason = f"error: {row['reason']}" if row["error"] else outcome(row["reason"], "", row["detail"])
        if row["stage"] == "pair":
            facts.append((("reference", row["page_url"], row["image_url"]), reason))
        else:  # embed and shard drop nothing of this crawl, so any drop but scan's is a difference
            facts.append((("image" if row["stage"] == "scan" else row["stage"], row["image_url"]), reason))
    for episode in rows_of(output / "episodes"):
        places = [((episode["page_url"], image["image_url"]), image["image_id"]) for image in episode["images"]]
        facts += [(("reference", *place), outcome("kept", image_id if place in certain else "")) for place, image_id in places]
    named = {(row["page_url"], row["image_id"], row["other_id"]) for row in truth if row["record"] == "candidate"}
    for row in rows_of(output / "candidates"):
        if (row["page_url"], row["a_id"], row["b_id"]) in named:
            facts.append((("candidate", row["page_url"], row["a_id"], row["b_id"]), row["reason"] or "kept"))
    return facts


def differences(expected: Iterable[Fact], found: Iterable[Fact]) -> list[str]:
    """Returns a line for each record whose outcomes differ; a record that is named twice has two outcomes."""
    outcomes: dict[tuple[str, ...], tuple[Counter[str], Counter[str]]] = defaultdict(lambda: (Counter(), Counter()))
    for side, facts in enumerate((expected, found)):
        for name, what in facts:
            outcomes[name][side][what] += 1
    lines = []
    for name, (wanted, got) in sorted(outcomes.items()):
        missing, extra = sorted((wanted - got).elements()), sorted((got - wanted).elements())
        for index in range(max(len(missing), len(extra))):
            sides = [side[index] if index < len(side) else "nothing" for side in (missing, extra)]
            lines.append(f"{' '.join(name)}: expected {sides[0]}, found {sides[1]}")
    return lines


def main() -> int:
    """Prints the differences and returns the exit status."""
    parser = argparse.ArgumentParser(description="Compares a run on the example crawl with the truth table.")
    parser.add_argument("--truth", type=Path, required=True, help="truth.jsonl of the example crawl")
    parser.add_argument("--output", type=Path, required=True, help="--output of the run")
    flags = parser.parse_args()
    truth = [json.loads(line) for line in flags.truth.read_text(encoding="utf-8").splitlines()]
    expected = true_facts(truth)
    try:
        found = facts_of(flags.output, truth)
    except ValueError as error:
        parser.error(str(error))
    lines = differences(expected, found)
    wrong = sum(": expected nothing, " not in line for line in lines)
    print(
        "\n".join(
            [*lines, f"{len(expected) - wrong} of {len(expected)} as the truth table says, {len(lines) - wrong} that it does not name"]
        )
    )
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
