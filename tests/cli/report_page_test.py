"""The page of `clip_lora report`: every figure equals the JSON it comes from, nothing is fetched, and a browser shows it
without complaint, overlap or sideways scrolling. Run by ctest, or by hand, then with a folder for screenshots:

    CLIP_LORA_PROGRAM=build/release/bin/clip_lora CLIP_LORA_SCREENSHOTS=shots python3 tests/cli/report_page_test.py
"""

import collections
import csv
import html.parser
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import unittest

import browser
import report_results

PROGRAM = os.environ["CLIP_LORA_PROGRAM"]
LARGEST = 1_500_000  # bytes of a page

# What a reader could not make out: text that is too small, that overlaps other text of its chart or leaves it, and
# anything that makes the page wider than the screen.
UNREADABLE = """(() => {
  document.querySelectorAll('details').forEach(element => element.open = true);
  const found = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) found.push('the page scrolls sideways: ' + document.documentElement.scrollWidth);
  for (const svg of document.querySelectorAll('svg.chart')) {
    const frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([words, box], i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        found.push('outside its chart: ' + words);
      for (const [others, other] of boxes.slice(i + 1))
        if (box.left < other.right - 1 && other.left < box.right - 1 && box.top < other.bottom - 3 && other.top < box.bottom - 3)
          found.push(words + ' overlaps ' + others);
    });
    const size = parseFloat(getComputedStyle(svg.querySelector('text')).fontSize) * frame.width / svg.viewBox.baseVal.width;
    if (size < 9.5) found.push('text of ' + size + ' px in ' + svg.getAttribute('aria-label'));
  }
  for (const element of document.querySelectorAll('p, li, td, th, dt, dd, h1, h2, h3, figcaption, summary')) {
    const style = getComputedStyle(element);
    if (element.textContent.trim() && parseFloat(style.fontSize) < 11.5) found.push('text of ' + style.fontSize + ': ' + element.textContent);
    const box = element.getBoundingClientRect();
    if (!element.closest('.scroll') && box.width > 0 && (box.right > width + 1 || box.left < -1))
      found.push('outside the screen: ' + element.textContent);
  }
  return found;
})()"""


class Figures(html.parser.HTMLParser):
    """Collects every element with data-key: its attributes, those that say of what from around it, and its text."""

    VOID = {"meta", "link", "br", "img", "hr"}

    def __init__(self, text):
        super().__init__()
        self.open, self.figures, self.titles = [], [], []
        self.feed(text)
        self.close()
        if self.open:
            raise AssertionError(f"never closed: {self.open[-1]}")

    def handle_starttag(self, tag, pairs):
        if tag not in self.VOID:
            self.open.append((tag, dict(pairs), []))

    def handle_startendtag(self, tag, pairs):
        pass

    def handle_data(self, data):
        for _, _, text in self.open:
            text.append(data)

    def handle_endtag(self, tag):
        name, own, text = self.open.pop()
        if name != tag:
            raise AssertionError(f"</{tag}> closes <{name}>")
        if "data-key" not in own:
            return
        around = {}
        for _, outer, _ in self.open:
            around |= {key: value for key, value in outer.items() if key.startswith("data-")}
        self.figures.append(around | own | {"text": "".join(text).strip(), "tag": tag})


def report(folder, *arguments):
    done = subprocess.run([PROGRAM, "report", folder, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done


def value_of(figure):
    return float(figure.get("value", figure.get("data-value")))


class ReportPage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.runs_folder = report_results.write_small(pathlib.Path(cls.folder.name))
        cls.said = report(cls.runs_folder)
        cls.page_file = cls.runs_folder / "report.html"
        cls.page = cls.page_file.read_text()
        cls.figures = Figures(cls.page).figures
        cls.runs = {}
        for file in cls.runs_folder.rglob("results.json"):
            if file.parent.name not in ("truncated", "foreign"):
                cls.runs[str(file.parent.relative_to(cls.runs_folder))] = json.loads(file.read_text())

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def cells(self):
        """Accuracies by the place of their mean on the page: group, data set, shots."""
        groups = [("ViT-B/16", 2), ("ViT-B/16", 8), ("ViT-B/32", 2)]  # by backbone, then rank
        cells = collections.defaultdict(dict)
        for run in self.runs.values():
            settings = run["settings"]
            group = str(groups.index((settings["backbone"], settings["r"])))
            cells[group, run["dataset"], str(settings["shots"])][settings["seed"]] = run
        return cells

    def test_every_figure_of_a_run_is_that_of_its_json(self):
        of_json = {
            "seconds_total": lambda run: run["seconds"]["total"],
            "seconds_training": lambda run: run["seconds"]["training"],
            "peak_gpu_bytes": lambda run: run["memory"]["peak_gpu_bytes"],
            "peak_resident_bytes": lambda run: run["memory"]["peak_resident_bytes"],
            "loss": lambda run: run["training"]["loss"],
        }
        checked = collections.Counter()
        for figure in self.figures:
            key = figure["data-key"]
            run = self.runs.get(figure.get("data-run"))
            if run is None or key.startswith("class") or key == "confusion":
                continue
            expected = of_json[key](run) if key in of_json else run[key]
            self.assertEqual(value_of(figure), expected, figure)
            checked[key] += 1
            if "bytes" in key:
                self.assertEqual(figure["text"], f"{expected / 2**30:.2f}")
            else:
                decimals = len(figure["text"].partition(".")[2])
                self.assertAlmostEqual(float(figure["text"]), expected, delta=0.5000001 * 10**-decimals)
        for key in ["accuracy", "zero_shot_accuracy", "top5_accuracy", "macro_f1", "seconds_total", "peak_gpu_bytes"]:
            self.assertGreaterEqual(checked[key], len(self.runs), key)

    def test_every_mean_is_that_of_the_json(self):
        cells = self.cells()
        seen = collections.Counter()
        for figure in self.figures:
            if figure["data-key"] not in ("mean_accuracy", "deviation"):
                continue
            runs = cells[figure["data-group"], figure["data-dataset"], figure["data-shots"]]
            of = statistics.fmean if figure["data-key"] == "mean_accuracy" else statistics.stdev
            self.assertAlmostEqual(value_of(figure), of([run["accuracy"] for run in runs.values()]), places=9)
            seen[figure["data-key"], figure["tag"]] += 1
        self.assertEqual(seen["mean_accuracy", "data"], len(cells), "a cell for each mean in the tables")
        marks = sum(count for (key, tag), count in seen.items() if key == "mean_accuracy" and tag != "data")
        self.assertEqual(marks, len(cells), "a mark for each mean in the charts")

    def test_averages_are_over_all_data_sets_or_missing(self):
        cells = self.cells()
        seen = set()
        for figure in self.figures:
            if figure["data-key"] not in ("average_accuracy", "average_deviation"):
                continue
            place = figure["data-group"], figure["data-shots"]
            seen.add(place)
            of_sets = [runs for (group, _, shots), runs in cells.items() if (group, shots) == place]
            means = [statistics.fmean(run["accuracy"] for run in runs.values()) for runs in of_sets]
            if figure["data-key"] == "average_accuracy":
                self.assertAlmostEqual(value_of(figure), statistics.fmean(means), places=9)
                continue
            by_seed = [statistics.fmean(runs[seed]["accuracy"] for runs in of_sets) for seed in of_sets[0]]
            self.assertAlmostEqual(value_of(figure), statistics.stdev(by_seed), places=9)
        self.assertIn(("0", "16"), seen)
        self.assertNotIn(("0", "8"), seen, "oxford_pets has no runs there")
        self.assertIn("2 of 3 data sets", self.page)
        self.assertIn("2 of 3 seeds", self.page)
        self.assertIn("with gaps: 2 of 3 seeds", self.page, "dtd lacks a seed of 16 shots")
        row = next(line for line in (self.runs_folder / "results.md").read_text().splitlines() if line.startswith("| **average**"))
        self.assertTrue(row.endswith(" (2 of 3) |"), row)

    def test_classes_and_confusions_are_those_of_the_json(self):
        counted = 0
        for figure in self.figures:
            run = self.runs.get(figure.get("data-run"))
            if figure["data-key"] == "confusion":
                label, predicted = map(int, figure["data-cell"].split(","))
                self.assertIn([label, predicted, int(figure["data-value"])], run["confusion"])
                counted += int(figure["data-value"])
            if figure["data-key"] in ("class_accuracy", "class_zero_shot"):
                per_class = (run if figure["data-key"] == "class_accuracy" else run["zero_shot"])["per_class"]
                accuracies = {entry["name"]: entry["accuracy"] for entry in per_class}
                self.assertEqual(value_of(figure), accuracies[figure["data-class"]])
        self.assertGreater(counted, 1000)

    def test_published_figures_stand_beside_the_runs(self):
        source = pathlib.Path(__file__).parents[2] / "configs/published.json"
        paper = json.loads(source.read_text())["figures"][0]
        places = {}
        for figure in self.figures:
            if figure["data-key"] == "published" and figure.get("data-shots"):
                places[figure["data-dataset"], figure["data-shots"]] = value_of(figure)
        for dataset in ["dtd", "eurosat", "oxford_pets"]:
            for shots, accuracy in zip(paper["shots"], paper["accuracy"][dataset]):
                self.assertEqual(places[dataset, str(shots)], accuracy)
        self.assertIn("arxiv.org/abs/2405.18541", self.page)
        groups = {figure.get("data-group") for figure in self.figures if figure["data-key"] == "published"}
        self.assertEqual(groups - {None}, {"0"}, "the paper's rank is 2, and of ViT-B/32 it has none of these data sets")

    def test_speed_of_a_resumed_run_is_that_of_its_last_part(self):
        [(name, run)] = [(name, run) for name, run in self.runs.items() if run["training"]["resumed_from"]]
        row = re.search(rf'<tr data-run="{name}">.*?</tr>', self.page)[0]
        self.assertEqual(row.count('<span class="partial">last part</span>'), 2)
        images = run["training"]["images_seen"] - run["training"]["resumed_from"]["images"]
        self.assertIn(f"<td>{images / run['seconds']['training']:,.0f}</td>", row)
        self.assertEqual(self.page.count(">last part<"), 2, "no other run was resumed")

    def test_charts_are_drawn_to_scale(self):
        chart = re.search(r'<svg viewBox="[^"]+" role="img" aria-label="[^"]*mean over data sets".*?</svg>', self.page)[0]
        low, high = (float(re.search(rf'data-y-{end}="([^"]+)"', chart)[1]) for end in ("low", "high"))
        marks = re.findall(r'cy="([^"]+)" r="3.2" data-key="average_accuracy" data-value="([^"]+)"', chart)
        self.assertGreaterEqual(len(marks), 4)
        height = 232 - 24 - 38  # of the plot
        for y, value in marks:
            self.assertAlmostEqual(float(y), 232 - 38 - (float(value) - low) / (high - low) * height, delta=0.06)

    def test_thumbnails_show_what_changed(self):
        pictures = re.findall(r'<figure class="(fixed|broken)"><img [^>]*src="data:image/jpeg;base64,/9j/', self.page)
        self.assertEqual(collections.Counter(pictures)["fixed"], 12)  # two runs with predictions
        self.assertGreater(collections.Counter(pictures)["broken"], 0)

    def test_commands_are_there_word_for_word(self):
        commands = set(re.findall(r"<li><code>(.*?)</code></li>", self.page))
        for run in self.runs.values():
            self.assertIn(html.escape(run["command"], quote=False), {c.replace("&quot;", '"') for c in commands})

    def test_what_could_not_be_read_is_named_and_counted(self):
        for name in ["truncated", "foreign"]:
            self.assertIn(str(self.runs_folder / name / "results.json"), self.said.stderr)
        self.assertIn("2 skipped", self.said.stdout)
        self.assertIn("2 files were skipped", self.page)

    def test_the_page_is_small_and_refers_to_nothing(self):
        self.assertLess(len(self.page.encode()), LARGEST)
        self.assertEqual(re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|url\(|@import|<script', self.page), [])

    def test_the_table_for_other_programs_has_every_run(self):
        with (self.runs_folder / "results.csv").open() as file:
            rows = {row["run"]: row for row in csv.DictReader(file)}
        self.assertEqual(rows.keys(), self.runs.keys())
        for name, run in self.runs.items():
            self.assertEqual(float(rows[name]["accuracy"]), run["accuracy"])
            self.assertEqual(rows[name]["command"], run["command"])
            self.assertEqual(rows[name]["setting.r"], str(run["settings"]["r"]))

    def test_markdown_has_means_gaps_and_the_paper(self):
        table = (self.runs_folder / "results.md").read_text()
        accuracies = [run["accuracy"] for run in self.cells()["0", "eurosat", "16"].values()]
        mean = f"{statistics.fmean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f}"
        row = next(line for line in table.splitlines() if line.startswith("| eurosat"))
        self.assertTrue(row.endswith(f" {mean} |"), row)
        self.assertIn("| – |", next(line for line in table.splitlines() if line.startswith("| oxford_pets")))
        self.assertIn("paper | – | 72.2 | 82.7 | 84.9 | 89.7 | 92.1 |", table)

    def test_the_same_results_make_the_same_page(self):
        report(self.runs_folder, "--out", self.folder.name)
        self.assertEqual((pathlib.Path(self.folder.name) / "report.html").read_text(), self.page)

    @unittest.skipIf(browser.find_browser() is None, "there is no Chromium")
    def test_a_browser_shows_it_readably(self):
        with browser.Browser(browser.find_browser()) as page:
            for width in (1280, 390):
                for dark in (False, True):
                    page.open(self.page_file, width, dark)
                    self.keep_screenshot(page, f"page_{width}_{'dark' if dark else 'light'}")
                    self.assertEqual(page.evaluate(UNREADABLE), [], f"at {width} px")
                    self.keep_screenshot(page, f"all_{width}_{'dark' if dark else 'light'}")
            self.assertEqual(page.problems, [])
            self.assertEqual(set(page.requests), {self.page_file.resolve().as_uri()})

    @staticmethod
    def keep_screenshot(page, name):
        if folder := os.environ.get("CLIP_LORA_SCREENSHOTS"):
            pathlib.Path(folder).mkdir(exist_ok=True)
            page.screenshot(pathlib.Path(folder) / f"{name}.png")


class LargePage(unittest.TestCase):
    def test_the_paper_on_five_backbones_stays_below_the_limit(self):
        with tempfile.TemporaryDirectory() as folder:
            report_results.write_large(pathlib.Path(folder))
            said = report(folder)
            page = (pathlib.Path(folder) / "report.html").read_bytes()
            self.assertIn("825 runs", said.stdout)
            self.assertLess(len(page), LARGEST)
            self.assertIn(b"more data sets would make this page too large", page)
            self.assertEqual(page.count(b"<li><code>clip_lora"), 825)
            Figures(page.decode())  # every element is closed


if __name__ == "__main__":
    unittest.main()
