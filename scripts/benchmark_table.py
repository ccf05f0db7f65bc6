#!/usr/bin/env python3
"""The results of scripts/benchmark.sh as Markdown: scripts/benchmark_table.py FOLDER

FOLDER has machine.txt, a line of text; perhaps notes.txt, lines about what is missing; *.json of Google Benchmark, of
bench_step, bench_evaluation and bench_ops; and *.jsonl of scripts/baseline_pytorch.py, a run in each line. Medians
are compared. Needs no package.
"""

import json
import pathlib
import statistics
import sys
from dataclasses import dataclass

# Operations of bench_ops by the beginning of their name, in the order of the table.
GROUPS = {
    "linear": "matrix products, activation",
    "attention": "attention",
    "layer_norm": "LayerNorm, down-projections, dropout",
    "up_gradient": "gradients of the B's",
    "resized_views": "crops, resizing and flips",
    "patch_rows": "normalised patches",
    "classification": "logits, loss and their gradients",
    "adamw": "AdamW",
    "write_up": "AdamW",
}
TOWERS = ["images", "vision", "text", "head"]


@dataclass(frozen=True)
class Case:
    """What was timed, the same for clip_lora and PyTorch: an iteration of training ("step"), or encoding images."""

    what: str
    backbone: str
    batch: int
    method: str | None = None
    loss: str | None = None
    classes: int | None = None


def step(backbone, classes, method="lora", loss="ce", batch=32):
    return Case("step", backbone, int(batch), method, loss, int(classes))


@dataclass
class Run:
    """One timing."""

    case: Case
    median_ms: float
    lower_ms: float
    upper_ms: float
    peak_gib: float
    reserved_gib: float
    precision: str
    limit_gib: str = ""


def case_of_benchmark(name):
    """"step/ViT-B_16/method:r_adapter/loss:mpm_nce/batch:512/classes:10/…"; without a method LoRA's as published."""
    what, backbone, *rest = name.split("/")
    backbone = backbone.replace("_", "/")
    named = dict(part.split(":") for part in rest if ":" in part)
    parameters = {key: named[key] for key in ("classes", "method", "loss", "batch") if key in named}
    if what == "step":
        return step(backbone, **parameters)
    return Case(what, backbone, int(parameters["batch"]))


def read_ours(document):
    """The runs of one JSON of bench_step or bench_evaluation, and the errors."""
    context = document["context"]
    runs, errors = [], []
    for entry in document["benchmarks"]:
        if entry.get("error_occurred"):
            errors.append(f"{entry['name']}: {entry['error_message']}")
            continue
        times = (entry[f"{name}_ms"] for name in ("median", "lower_quartile", "upper_quartile"))
        memory = (entry["peak_memory_gib"], entry["reserved_memory_gib"])
        limit = context.get("memory_limit_gib", "")
        runs.append(Run(case_of_benchmark(entry["name"]), *times, *memory, context["precision"], limit))
    return runs, errors


def read_baseline(line):
    entry = json.loads(line)
    if entry["what"] == "encode":
        case = Case("evaluation", entry["backbone"], entry["batch_size"])
    else:
        case = step(*(entry[key] for key in ("backbone", "classes", "method", "loss", "batch_size")))
    times = (entry[f"{name}_ms"] for name in ("median", "lower_quartile", "upper_quartile"))
    return Run(case, *times, entry["peak_memory_gib"], entry["reserved_memory_gib"], entry["precision"])


@dataclass
class Figure:
    """Several runs of one thing."""

    ms: float
    lower_ms: float
    upper_ms: float
    peak_gib: float
    reserved_gib: float


def summarise(runs):
    if not runs:
        return None
    return Figure(
        statistics.median(run.median_ms for run in runs),
        min(run.lower_ms for run in runs),
        max(run.upper_ms for run in runs),
        max(run.peak_gib for run in runs),
        max(run.reserved_gib for run in runs),
    )


def number(value):
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def time_cell(figure):
    if figure is None:
        return "–"
    return f"{number(figure.ms)} ({number(figure.lower_ms)}–{number(figure.upper_ms)})"


def memory_cell(figure):
    if figure is None:
        return "–"
    return f"{number(figure.peak_gib)} / {number(figure.reserved_gib)}"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def table(header, rows):
    return "\n".join([row(header), row(["---"] * len(header)), *map(row, rows)])


def label(case):
    if case.what == "step":
        return f"{case.backbone}, {case.method} by {case.loss}, {case.classes:,} classes, batch {case.batch}"
    return f"{case.backbone}, encoding {case.batch} images"


def throughput(case, figure):
    unit = {"mpm_nce": "pairs", None: "images"}.get(case.loss)
    return f", {1e3 * case.batch / figure.ms:,.0f} {unit}/s" if unit and figure else ""


def comparison(ours, baseline):
    """One row for each thing that either side was timed on, in the order of the runs."""
    rows = []
    for case in dict.fromkeys(run.case for run in ours + baseline):
        mine = summarise([run for run in ours if run.case == case])
        theirs = summarise([run for run in baseline if run.case == case])
        ratio = f"{theirs.ms / mine.ms:.1f}×" if mine and theirs else "–"
        times = [time_cell(figure) + throughput(case, figure) for figure in (mine, theirs)]
        rows.append([label(case), *times, ratio, memory_cell(mine), memory_cell(theirs)])
    header = ["", "clip_lora, ms", "PyTorch, ms", "ratio", "clip_lora, GiB", "PyTorch, GiB"]
    return table(header, rows)


def limits(ours):
    rows = [
        [label(run.case), run.limit_gib, time_cell(summarise([run])), memory_cell(summarise([run]))]
        for run in ours
    ]
    return table(["", "held to, GiB", "ms", "GiB"], rows)


def group_of(operation):
    for beginning, group in GROUPS.items():
        if operation.startswith(beginning):
            return group
    raise SystemExit(f"benchmark_table.py: no group for the operation '{operation}'")


def breakdown_of(document):
    """{(tower, group): milliseconds per iteration} of one JSON of bench_ops, and the errors."""
    parts, errors = {}, []
    for entry in document["benchmarks"]:
        tower, operation = entry["name"].split("/")[1:3]
        if entry.get("error_occurred"):
            errors.append(f"{entry['name']}: {entry['error_message']}")
            continue
        key = (tower, group_of(operation))
        parts[key] = parts.get(key, 0.0) + entry["median_ms"] * entry["calls_per_iteration"]
    return parts, errors


def breakdown(by_classes, ours):
    """by_classes: {classes: parts}."""
    counts = sorted(by_classes)
    order = sorted(
        {key for parts in by_classes.values() for key in parts},
        key=lambda key: (TOWERS.index(key[0]), list(GROUPS.values()).index(key[1])),
    )
    rows = [
        [f"{tower}: {group}", *(f"{by_classes[count].get((tower, group), 0.0):.3f}" for count in counts)]
        for tower, group in order
    ]
    rows.append(["sum of the parts", *(f"{sum(by_classes[count].values()):.3f}" for count in counts)])
    measured = [summarise([run for run in ours if run.case == step("ViT-B/16", count)]) for count in counts]
    rows.append(["iteration, measured", *(f"{figure.ms:.3f}" if figure else "–" for figure in measured)])
    return table(["ViT-B/16, ms per iteration", *(f"{count:,} classes" for count in counts)], rows)


def read_folder(folder):
    """(runs of ours, of the baseline, {classes: parts}, errors)."""
    ours, baseline, by_classes, errors = [], [], {}, []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:  # of a program that ended early
            document = {"benchmarks": []}
        if not document["benchmarks"]:
            errors.append(f"{path.name}: no results")
        elif document["benchmarks"][0]["name"].startswith("ops/"):
            by_classes[int(document["context"]["classes"])], found = breakdown_of(document)
            errors += found
        else:
            runs, found = read_ours(document)
            ours += runs
            errors += found
    for path in sorted(folder.glob("*.jsonl")):
        baseline += [read_baseline(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return ours, baseline, by_classes, errors


def document_of(folder):
    ours, baseline, by_classes, errors = read_folder(folder)
    free = [run for run in ours if not run.limit_gib]
    held = [run for run in ours if run.limit_gib]
    precision = ", ".join(dict.fromkeys(run.precision for run in ours + baseline))
    parts = [
        (folder / "machine.txt").read_text(encoding="utf-8").strip(),
        f"Training iterations (LoRA of rank 2) and encoding for evaluation in {precision}: time with quartiles, "
        "and peak memory as tensors took it / as the allocator held it.",
        comparison(free, baseline),
    ]
    if by_classes:
        parts += [
            "Where the time goes: each operation timed by itself in a CUDA graph, times its calls per iteration. The "
            "towers run side by side in an iteration, so that it can be shorter than the sum of its parts; what the last "
            "blocks do for the few rows that stand for their sequences is not among them.",
            breakdown(by_classes, free),
        ]
    if held:
        parts += ["With the allocator held to a part of the GPU's memory:", limits(held)]
    notes = folder / "notes.txt"
    if notes.exists():
        errors = notes.read_text(encoding="utf-8").splitlines() + errors
    if errors:
        parts.append("\n".join(["What is missing:", *(f"- {error}" for error in dict.fromkeys(errors))]))
    return "\n\n".join(parts)


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1:] in (["-h"], ["--help"]) else 2)
    print(document_of(pathlib.Path(sys.argv[1])))


if __name__ == "__main__":
    main()
