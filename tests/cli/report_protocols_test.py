"""The page of `clip_lora report` for several methods and protocols: every mean equals that of the JSON, methods are never
averaged together, and a browser shows it without complaint. Run as report_page_test.py is.
"""

import collections
import csv
import json
import pathlib
import re
import statistics
import tempfile
import unittest

import browser
import report_page_test
import report_results

ORDER = [(protocol, method) for protocol in ["all", "base_to_new", "cross_dataset", "robustness", "retrieval"] for method in ["lora", "r_adapter"]]


def measured(run, name, tested_on, scale):
    """What the run's results.json says; None if nothing."""
    if run["settings"]["protocol"] == "retrieval":
        rows = run["retrieval"]["scales"]
        [row] = [row for row in rows if row["eval_scale"] == scale][:1]
        direction, at = name.split(".")
        return row[direction][at]
    if tested_on:
        [other] = [of for of in run["other_datasets"] if of["dataset"] == tested_on] or [run["mean_of_others"]]
        if scale == 0.0:
            return other["zero_shot_accuracy"]
        return next(row["accuracy"] for row in other["scales"] if row["eval_scale"] == scale)
    return next(row[name] for row in run["scales"] if row["eval_scale"] == scale)


def harmonic(a, b):
    return 2.0 / (1.0 / a + 1.0 / b)


class ProtocolsPage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.runs_folder = report_results.write_protocols(pathlib.Path(cls.folder.name))
        cls.said = report_page_test.report(cls.runs_folder)
        cls.page_file = cls.runs_folder / "report.html"
        cls.page = cls.page_file.read_text()
        cls.figures = report_page_test.Figures(cls.page).figures
        cls.cells = collections.defaultdict(list)
        for file in cls.runs_folder.rglob("results.json"):
            run = json.loads(file.read_text())
            settings = run["settings"]
            group = str(ORDER.index((settings["protocol"], settings["method"])))
            cls.cells[group, run["dataset"], str(settings["shots"])].append(run)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def section(self, name):
        return re.search(rf'<section id="{name}">.*?</section>', self.page)[0]

    def values_of(self, figure):
        """The runs' figures whose mean or deviation `figure` is to be, by data set."""
        scale = figure["data-scale"]
        datasets = [figure["data-dataset"]] if figure["data-dataset"] else None
        values = {}
        for (group, dataset, shots), runs in self.cells.items():
            if (group, shots) != (figure["data-group"], figure["data-shots"]) or (datasets and dataset not in datasets):
                continue
            values[dataset] = {
                run["settings"]["seed"]: measured(
                    run,
                    figure["data-measure"],
                    figure["data-tested"],
                    float(scale) if scale else run["settings"]["eval_scale"][0],
                )
                for run in runs
            }
        return values

    def test_every_measured_mean_is_that_of_the_json(self):
        checked = collections.Counter()
        for figure in self.figures:
            if figure["data-key"] != "measured":
                continue
            values = self.values_of(figure)
            means = [statistics.fmean(of.values()) for of in values.values()]
            if figure["data-measure"] == "harmonic_mean" and not figure["data-dataset"]:
                continue  # below
            self.assertAlmostEqual(report_page_test.value_of(figure), statistics.fmean(means), places=9, msg=figure)
            checked[ORDER[int(figure["data-group"])]] += 1
        for kind in ORDER:
            self.assertGreater(checked[kind], 5, kind)

    def test_every_deviation_is_over_the_seeds(self):
        checked = 0
        for figure in self.figures:
            if figure["data-key"] != "measured_deviation" or figure["data-measure"] == "harmonic_mean" and not figure["data-dataset"]:
                continue
            by_seed = [statistics.fmean(of[seed] for of in self.values_of(figure).values()) for seed in report_results.SEEDS]
            self.assertAlmostEqual(report_page_test.value_of(figure), statistics.stdev(by_seed), places=9, msg=figure)
            checked += 1
        self.assertGreater(checked, 50)

    def test_the_average_harmonic_mean_is_that_of_the_averages(self):
        found = 0
        for figure in self.figures:
            if figure.get("data-measure") != "harmonic_mean" or figure["data-dataset"] or figure["data-group"] != "2":
                continue
            halves = [self.values_of(figure | {"data-measure": name}) for name in ("accuracy", "new_classes_accuracy")]
            by_seed = [
                harmonic(*(statistics.fmean(of[seed] for of in half.values()) for half in halves))
                for seed in report_results.SEEDS
            ]
            if figure["data-key"] == "measured_deviation":
                self.assertAlmostEqual(report_page_test.value_of(figure), statistics.stdev(by_seed), places=9)
                continue
            means = [statistics.fmean(statistics.fmean(of.values()) for of in half.values()) for half in halves]
            self.assertAlmostEqual(report_page_test.value_of(figure), harmonic(*means), places=9)
            found += 1
        self.assertGreaterEqual(found, 2, "zero-shot and LoRA")
        self.assertIn("CoCoOp", self.section("base-to-new"))
        self.assertIn("2 of 3 data sets", self.section("base-to-new"), "R-Adapter lacks one")

    def test_methods_stand_side_by_side_and_published_figures_beside_lora_alone(self):
        tables = self.section("tables")
        self.assertIn("Methods side by side, ViT-B/16", tables)
        row = re.search(r'<tr><th scope="row">eurosat, 16 shots</th>(.*?)</tr>', tables)[1]
        groups = re.findall(r'<td[^>]* data-group="(\d)"[^>]*data-scale="([^"]*)"', row)
        self.assertEqual(groups, [("0", "0.0"), ("0", ""), ("1", "0.0"), ("1", "")], "prompts differ, so does zero-shot")
        published = {figure.get("data-group") for figure in self.figures if figure["data-key"] == "published"}
        self.assertEqual(published - {None}, {"0"})
        curves = self.section("curves")
        self.assertEqual({group for group in re.findall(r'data-group="(\d+)"', curves)}, {"0", "1"}, "all classes alone")

    def test_curves_against_the_scale_have_every_scale(self):
        scales = self.section("scales")
        for kind, group in zip(ORDER, range(len(ORDER))):
            drawn = re.findall(rf'<(?:circle|rect|polygon) [^>]*data-group="{group}" data-dataset="([^"]*)"[^>]*data-scale="([^"]+)"', scales)
            self.assertEqual({float(scale) for _, scale in drawn}, set(report_results.SCALES[kind[1]]), kind)
        self.assertGreaterEqual(scales.count(">0: zero-shot<"), 5)

    def test_a_bar_per_shift_and_per_target(self):
        for name, others, group in [("robustness", report_results.SHIFTS, 6), ("cross-dataset", report_results.BENCHMARKS, 4)]:
            bars = re.findall(r'<rect [^>]*width="([^"]+)"[^>]*data-value="([^"]+)"[^>]*data-group="(\d)"[^>]*data-tested="([^"]*)"', self.section(name))
            expected = set(others) - {"caltech101"} | {"", "mean_of_others"}
            for one in (group, group + 1):
                self.assertEqual({tested for _, _, of, tested in bars if of == str(one)}, expected)
            self.assertEqual(len(bars), 4 * len(expected), "zero-shot beside adapted")
            longest, value = max((float(width), float(value)) for width, value, _, _ in bars)
            for width, of_bar, _, _ in bars:
                self.assertAlmostEqual(float(width) / longest, float(of_bar) / value, delta=0.002)

    def test_recall_is_there_in_both_directions(self):
        section = self.section("retrieval")
        self.assertEqual(section.count('<th scope="row">'), 1 + 4 + 4, "zero-shot and four scales of each method")
        self.assertEqual(section.count('data-measure="text_to_image.at_10"'), 9)
        self.assertIn("57 runs", self.said.stdout)
        self.assertNotIn("skipped", self.said.stdout)

    def test_tables_for_other_programs_have_every_figure(self):
        with (self.runs_folder / "scales.csv").open() as file:
            rows = list(csv.DictReader(file))
        others = [row for row in rows if row["tested_on"] == "objectnet"]
        self.assertEqual(len(others), 6 * 5)
        for row in others:
            run = json.loads((self.runs_folder / row["run"] / "results.json").read_text())
            self.assertEqual(float(row["percent"]), measured(run, "accuracy", "objectnet", float(row["eval_scale"])))
        markdown = (self.runs_folder / "results.md").read_text()
        for words in ["Methods side by side", "**mean of the others**", "image → text at 1", "| H |"]:
            self.assertIn(words, markdown)

    def test_nothing_on_the_page_is_not_a_number(self):
        self.assertEqual(re.findall(r">-?(?:nan|inf)<|\"-?(?:nan|inf)\"", self.page), [])
        self.assertLess(len(self.page.encode()), report_page_test.LARGEST)

    @unittest.skipIf(browser.find_browser() is None, "there is no Chromium")
    def test_a_browser_shows_it_readably(self):
        with browser.Browser(browser.find_browser()) as page:
            for width in (1280, 390):
                for dark in (False, True):
                    page.open(self.page_file, width, dark)
                    self.assertEqual(page.evaluate(report_page_test.UNREADABLE), [], f"at {width} px")
                    report_page_test.ReportPage.keep_screenshot(page, f"protocols_{width}_{'dark' if dark else 'light'}")
            self.assertEqual(page.problems, [])


if __name__ == "__main__":
    unittest.main()
