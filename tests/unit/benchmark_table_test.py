"""scripts/benchmark_table.py on results that are made up. Needs no package."""

import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "benchmark_table.py"


def load():
    specification = importlib.util.spec_from_file_location("benchmark_table", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["benchmark_table"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


benchmark_table = load()


def timed(name, median, **more):
    """An entry of Google Benchmark's JSON."""
    quartiles = {"lower_quartile_ms": 0.9 * median, "upper_quartile_ms": 1.1 * median}
    memory = {"peak_memory_gib": 2.0, "reserved_memory_gib": 2.5}
    return {"name": name, "median_ms": median, "mean_ms": median, **quartiles, **memory, **more}


def baseline(classes, median, mean, what="step", batch=32, method="lora", loss="ce"):
    times = {
        "median_ms": median,
        "mean_ms": mean,
        "lower_quartile_ms": 0.5 * median,
        "upper_quartile_ms": 2 * median,
    }
    memory = {"peak_memory_gib": 21.4, "reserved_memory_gib": 30.0}
    of = {"what": what, "backbone": "ViT-B/16", "classes": classes, "batch_size": batch, "precision": "fp16"}
    return of | {"method": method, "loss": loss} | times | memory


class BenchmarkTableTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="clip_lora_table_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "machine.txt").write_text("a GPU, a date\n")
        self.files = 0

    def add_json(self, *entries, **context):
        path = self.folder / f"{self.files}.json"
        path.write_text(json.dumps({"context": {"precision": "fp16"} | context, "benchmarks": entries}))
        os.utime(path, (self.files, self.files))  # the order of the runs
        self.files += 1

    def add_baseline(self, *entries):
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (self.folder / "baseline.jsonl").write_text(lines)

    def lines(self):
        return benchmark_table.document_of(self.folder).splitlines()

    def row(self, beginning):
        rows = [line for line in self.lines() if line.startswith(f"| {beginning} |")]
        self.assertEqual(len(rows), 1, f"rows of {beginning}")
        return [cell.strip() for cell in rows[0].strip("|").split("|")]

    def test_ratio_is_of_the_medians(self):
        self.add_json(timed("step/ViT-B_16/classes:1000/iterations:1/manual_time", 8.0, mean_ms=10.0))
        self.add_baseline(baseline(1000, median=210.0, mean=200.0))
        self.assertEqual(
            self.row("ViT-B/16, lora by ce, 1,000 classes, batch 32"),
            [
                "ViT-B/16, lora by ce, 1,000 classes, batch 32",
                "8.00 (7.20–8.80)",
                "210 (105–420)",
                "26.2×",
                "2.00 / 2.50",
                "21.4 / 30.0",
            ],
        )

    def test_several_rounds_of_a_case_are_one_row(self):
        for median in (4.0, 6.0, 5.0):
            self.add_json(timed("step/ViT-B_16/classes:10/iterations:1/manual_time", median))
        self.add_baseline(baseline(10, 60.0, 60.0), baseline(10, 40.0, 40.0))
        row = self.row("ViT-B/16, lora by ce, 10 classes, batch 32")
        self.assertEqual(row[1:4], ["5.00 (3.60–6.60)", "50.0 (20.0–120)", "10.0×"])

    def test_methods_losses_and_batches_are_rows_of_their_own(self):
        self.add_json(
            timed("step/ViT-B_16/classes:10/iterations:1/manual_time", 4.0),
            timed("step/ViT-B_16/method:r_adapter/loss:mpm_nce/classes:10/iterations:1/manual_time", 8.0),
            timed("step/ViT-B_16/method:r_adapter/loss:mpm_nce/batch:512/classes:10/manual_time", 100.0),
        )
        self.add_baseline(
            baseline(10, 40.0, 40.0),
            baseline(10, 60.0, 60.0, method="r_adapter", loss="mpm_nce"),
            baseline(10, 50.0, 50.0, method="r_adapter", loss="ce"),
            baseline(10, 500.0, 500.0, method="r_adapter", loss="mpm_nce", batch=512),
        )
        self.assertEqual(self.row("ViT-B/16, lora by ce, 10 classes, batch 32")[3], "10.0×")
        self.assertEqual(self.row("ViT-B/16, r_adapter by mpm_nce, 10 classes, batch 32")[3], "7.5×")
        self.assertEqual(self.row("ViT-B/16, r_adapter by ce, 10 classes, batch 32")[1], "–")
        large = self.row("ViT-B/16, r_adapter by mpm_nce, 10 classes, batch 512")
        self.assertEqual(large[3], "5.0×")
        self.assertIn("5,120 pairs/s", large[1])

    def test_encoding_has_images_per_second(self):
        self.add_json(timed("evaluation/ViT-B_16/batch:256/iterations:1/manual_time", 16.0))
        self.add_baseline(baseline(None, 40.0, 40.0, what="encode", batch=256))
        row = self.row("ViT-B/16, encoding 256 images")
        self.assertIn("16,000 images/s", row[1])
        self.assertIn("6,400 images/s", row[2])

    def test_a_side_that_is_missing_is_a_dash(self):
        self.add_json(timed("step/ViT-L_14/classes:100/iterations:1/manual_time", 20.0))
        self.assertEqual(self.row("ViT-L/14, lora by ce, 100 classes, batch 32")[2:], ["–", "–", "2.00 / 2.50", "–"])

    def test_breakdown_adds_up_calls(self):
        self.add_json(timed("step/ViT-B_16/classes:10/iterations:1/manual_time", 5.0))
        self.add_json(
            timed("ops/vision/linear_c_fc/iterations:1/manual_time", 0.05, calls_per_iteration=11),
            timed("ops/vision/linear_c_fc_backward/iterations:1/manual_time", 0.07, calls_per_iteration=11),
            timed("ops/head/adamw/iterations:1/manual_time", 0.01, calls_per_iteration=1),
            classes="10",
        )
        self.assertEqual(self.row("vision: matrix products, activation")[1], "1.320")
        self.assertEqual(self.row("head: AdamW")[1], "0.010")
        self.assertEqual(self.row("sum of the parts")[1], "1.330")
        self.assertEqual(self.row("iteration, measured")[1], "5.000")

    def test_limited_runs_have_a_table_of_their_own(self):
        name = "step/ViT-B_16/classes:1000/iterations:1/manual_time"
        self.add_json(timed(name, 8.0))
        self.add_json(timed(name, 9.0), memory_limit_gib="8")
        label = "| ViT-B/16, lora by ce, 1,000 classes, batch 32"
        lines = [line for line in self.lines() if line.startswith(label)]
        self.assertEqual(len(lines), 2)
        self.assertIn("| 8 | 9.00", lines[1])

    def test_notes_are_listed(self):
        (self.folder / "notes.txt").write_text("left out\nleft out\n")
        self.assertEqual(self.lines().count("- left out"), 1)

    def test_what_failed_is_listed(self):
        name = "step/ViT-B_16/classes:1000/iterations:1/manual_time"
        self.add_json({"name": name, "error_occurred": True, "error_message": "out of memory"})
        self.add_baseline(baseline(1000, 200.0, 200.0))
        self.assertIn(f"- {name}: out of memory", self.lines())
        self.assertEqual(self.row("ViT-B/16, lora by ce, 1,000 classes, batch 32")[1], "–")


if __name__ == "__main__":
    unittest.main(verbosity=2)
