#include <algorithm>
#include <map>
#include <numeric>

#include "clip_lora/cli/console.hpp"
#include "markup.hpp"
#include "report_parts.hpp"

namespace clip_lora::cli {
namespace {

using OfClass = ClassResults::OfClass;

constexpr std::size_t kMostClasses = 24;     // of the table of gains; of more the ends are shown
constexpr std::size_t kMostMatrixRows = 24;  // of the confusion matrix; of more classes the worst are shown
constexpr std::size_t kMostPairs = 10;       // of the commonest confusions
constexpr double kHalf = 0.6, kDeep = 0.92;  // shares from which on a cell's number needs another colour

const std::string& name_of(const ClassResults& results, std::int64_t label) {
  return results.classes.at(static_cast<std::size_t>(label)).name;
}

double gain(const OfClass& of_class) { return *of_class.accuracy - *of_class.zero_shot_accuracy; }

/// Classes that have pictures, the largest gain first.
std::vector<const OfClass*> by_gain(const ClassResults& results) {
  std::vector<const OfClass*> classes;
  for (const auto& of_class : results.classes) {
    if (of_class.accuracy && of_class.zero_shot_accuracy) classes.push_back(&of_class);
  }
  std::stable_sort(classes.begin(), classes.end(),
                   [](const OfClass* a, const OfClass* b) { return gain(*a) > gain(*b); });
  return classes;
}

/// 0 … 100 % on a strip of 210 px.
std::string strip_x(double percent_value) { return fixed(5.0 + 2.0 * percent_value, 1); }

/// From zero-shot (hollow) to adapted (filled).
std::string strip(const OfClass& of_class) {
  const std::string before = strip_x(*of_class.zero_shot_accuracy), after = strip_x(*of_class.accuracy);
  return std::string("<svg class=\"strip ") + (gain(of_class) < 0.0 ? "loss" : "win") +
         "\" viewBox=\"0 0 210 16\" aria-hidden=\"true\"><path class=\"grid\" d=\"M5 0V16M105 0V16M205 "
         "0V16\"/>"
         "<path class=\"line\" d=\"M" +
         before + " 8H" + after + "\"/><circle class=\"before\" cx=\"" + before +
         "\" cy=\"8\" r=\"3.6\"/><circle class=\"after\" cx=\"" + after + "\" cy=\"8\" r=\"4\"/></svg>";
}

constexpr const char* kStripHeader =
    "<svg class=\"strip\" viewBox=\"0 0 210 16\" aria-label=\"0 to 100 percent\"><text x=\"2\" "
    "y=\"12\">0</text>"
    "<text x=\"105\" y=\"12\" class=\"t-mid\">50</text><text x=\"209\" y=\"12\" "
    "class=\"t-end\">100</text></svg>";

std::string gain_row(const OfClass& of_class) {
  const double difference = gain(of_class);
  const char* css = difference < 0.0 ? "loss" : difference > 0.0 ? "win" : "";
  return "<tr" + attributes({{"data-class", of_class.name}}) + "><th scope=\"row\">" +
         escaped(of_class.name) + "</th><td>" + strip(of_class) + "</td><td class=\"" + css + "\">" +
         signed_number(difference, 1) + "</td>" +
         figure_cell(*of_class.zero_shot_accuracy, 1, "class_zero_shot") +
         figure_cell(*of_class.accuracy, 1, "class_accuracy") + "<td" +
         attributes({{"data-key", "class_total"}, {"data-value", std::to_string(of_class.total)}}) + ">" +
         with_commas(of_class.total) + "</td></tr>";
}

std::string gains_table(const ClassResults& results) {
  const auto classes = by_gain(results);
  std::string text =
      std::string("<table class=\"gains\"><thead><tr><th scope=\"col\">class</th><th scope=\"col\">") +
      kStripHeader +
      "</th><th scope=\"col\">gain</th><th scope=\"col\">zero-shot</th><th scope=\"col\">adapted</th>"
      "<th scope=\"col\">pictures</th></tr></thead><tbody>";
  const bool all = classes.size() <= kMostClasses;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    const std::size_t half = kMostClasses / 2;
    if (!all && i == half) {
      text += "<tr class=\"gap\"><td colspan=\"6\">… " + std::to_string(classes.size() - kMostClasses) +
              " classes between …</td></tr>";
    }
    if (all || i < half || i + half >= classes.size()) text += gain_row(*classes[i]);
  }
  return scrolling(text + "</tbody></table>");
}

/// Labels of the matrix's rows: all classes, or of many those with the most mistakes.
std::vector<std::int64_t> matrix_labels(const ClassResults& results) {
  std::vector<std::int64_t> labels(results.classes.size());
  std::iota(labels.begin(), labels.end(), 0);
  if (labels.size() <= kMostMatrixRows) return labels;
  const auto mistakes = [&](std::int64_t label) {
    const OfClass& of_class = results.classes[static_cast<std::size_t>(label)];
    return of_class.total - of_class.correct;
  };
  std::stable_sort(labels.begin(), labels.end(),
                   [&](std::int64_t a, std::int64_t b) { return mistakes(a) > mistakes(b); });
  labels.resize(kMostMatrixRows);
  std::sort(labels.begin(), labels.end());
  return labels;
}

std::string matrix_cell(const ClassResults& results, const train::Confusion& entry) {
  const std::int64_t total = results.classes[static_cast<std::size_t>(entry.label)].total;
  const double share =
      static_cast<double>(entry.count) / static_cast<double>(std::max<std::int64_t>(1, total));
  const bool right = entry.label == entry.predicted;
  return "<td" +
         attributes({{"class", std::string(right ? "hit" : "miss") + (share > kDeep   ? " deep"
                                                                      : share > kHalf ? " half"
                                                                                      : "")},
                     {"style", "--v:" + fixed(share, 2)},
                     {"data-key", "confusion"},
                     {"data-value", std::to_string(entry.count)},
                     {"data-cell", std::to_string(entry.label) + "," + std::to_string(entry.predicted)},
                     {"title", name_of(results, entry.label) + " taken for " +
                                   name_of(results, entry.predicted) + ": " + std::to_string(entry.count)}}) +
         ">" + with_commas(entry.count) + "</td>";
}

std::string matrix(const ClassResults& results) {
  const auto labels = matrix_labels(results);
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> counts;
  for (const auto& entry : results.confusion) counts[{entry.label, entry.predicted}] = entry.count;
  const bool all = labels.size() == results.classes.size();
  std::string text = "<table class=\"confusion\"><thead><tr><th scope=\"col\">is \\ taken for</th>";
  for (const std::int64_t label : labels) {
    text += "<th scope=\"col\"" + attributes({{"title", name_of(results, label)}}) + "><span>" +
            escaped(name_of(results, label)) + "</span></th>";
  }
  text += std::string(all ? "" : "<th scope=\"col\"><span>others</span></th>") + "</tr></thead><tbody>";
  for (const std::int64_t label : labels) {
    std::int64_t others = results.classes[static_cast<std::size_t>(label)].total;
    text += "<tr><th scope=\"row\">" + escaped(name_of(results, label)) + "</th>";
    for (const std::int64_t predicted : labels) {
      const auto entry = counts.find({label, predicted});
      if (entry == counts.end()) {
        text += "<td></td>";
        continue;
      }
      others -= entry->second;
      text += matrix_cell(results, {label, predicted, entry->second});
    }
    text += (all ? "" : "<td>" + (others == 0 ? "" : with_commas(others)) + "</td>") + "</tr>";
  }
  return scrolling(text + "</tbody></table>");
}

std::string commonest_confusions(const ClassResults& results) {
  std::vector<train::Confusion> pairs;
  std::copy_if(results.confusion.begin(), results.confusion.end(), std::back_inserter(pairs),
               [](const auto& entry) { return entry.label != entry.predicted; });
  if (pairs.empty()) return "<p class=\"note\">No picture of the test split was taken for another class.</p>";
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const auto& a, const auto& b) { return a.count > b.count; });
  pairs.resize(std::min(kMostPairs, pairs.size()));
  std::string text = "<p class=\"note\">Commonest: ";
  for (const auto& entry : pairs) {
    text += (&entry == &pairs.front() ? "" : "; ") + escaped(name_of(results, entry.label)) + " → " +
            escaped(name_of(results, entry.predicted)) + " " + with_commas(entry.count) + "×";
  }
  return text + ".</p>";
}

}  // namespace

std::string classes_part(const ClassResults& results) {
  const std::string shown = results.classes.size() <= kMostMatrixRows
                                ? ""
                                : "<p class=\"note\">The " + std::to_string(kMostMatrixRows) + " of " +
                                      std::to_string(results.classes.size()) +
                                      " classes with the most mistakes.</p>";
  return "<h4>Gains and losses by class</h4><p class=\"note\">Accuracy in percent: ○ zero-shot, ● "
         "adapted.</p>" +
         gains_table(results) + "<h4>Confusion matrix</h4>" + shown + matrix(results) +
         commonest_confusions(results);
}

}  // namespace clip_lora::cli
