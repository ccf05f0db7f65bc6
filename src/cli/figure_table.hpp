#pragma once

#include <optional>
#include <string>
#include <vector>

#include "result_table.hpp"

namespace clip_lora::cli {

/// A mean over seeds with its spread.
struct FigureCell {
  train::Summary summary;  ///< of nothing: there is none
  std::string note;        ///< "2 of 3 seeds"; "" for nothing
  std::string attributes;  ///< that say of what it is the mean, as markup's attributes() makes them
  bool is_best = false;    ///< of its row
};

/// A row; without cells a heading of those below it.
struct FigureRow {
  std::string label;
  std::vector<FigureCell> cells;
  bool is_average = false;
};

/// A table of figures, for the page and for Markdown.
struct FigureTable {
  std::string title;
  std::vector<std::string> columns;  ///< the first is that of the labels
  std::vector<FigureRow> rows;
  std::string note;  ///< below it; "" for nothing
};

std::string as_html(const FigureTable& table);
std::string as_markdown(const FigureTable& table);

/// "84.93 ± 0.41", or the mean alone of a single run.
std::string spread_text(const train::Summary& summary);

/// A figure of a group's runs on `dataset`, or the average over its data sets for an empty name. Of a group
/// that has it nowhere, an empty cell. The untouched model's has no deviation: nothing in it depends on a
/// seed.
FigureCell measured_cell(const ResultGroup& group, const std::string& dataset, std::int64_t shots,
                         const Measure& measure);

/// The average over data sets, which are to be `datasets`: of other groups an empty cell that says so.
FigureCell average_cell(const ResultGroup& group, std::size_t datasets, std::int64_t shots,
                        const Measure& measure);

/// The harmonic mean of average_cell()s of base and new classes, as base-to-new tables have it; its deviation
/// is over the seeds' such means.
FigureCell average_of_harmonic_means(const ResultGroup& group, std::size_t datasets, std::int64_t shots,
                                     const std::optional<double>& scale);

/// Attributes of the figure that measured_cell() gives: those of place() and what was measured.
std::string measured_place(const ResultGroup& group, const std::string& dataset, std::int64_t shots,
                           const Measure& measure);

/// "Base to new classes": a protocol, for people.
std::string protocol_name(const std::string& protocol);

/// What a protocol is about.
struct ProtocolFigure {
  std::string name, tested_on;  ///< as in Measure
  std::string label;
};
/// "all": the accuracy; base_to_new: that of base and of new classes, and the harmonic mean; cross_dataset
/// and robustness: that on the data set trained on and the others' mean; retrieval: recall at 1 both ways.
std::vector<ProtocolFigure> figures_of(const std::string& protocol);

/// Such a figure of a group: the average over its data sets.
FigureCell average_of_figure(const ResultGroup& group, std::int64_t shots, const ProtocolFigure& figure,
                             const std::optional<double>& scale);

/// The groups of each backbone.
std::vector<std::vector<const ResultGroup*>> by_backbone(const ResultTable& table);

/// Those of `groups` that have runs on `dataset` with `shots`.
std::vector<const ResultGroup*> with_cell(const std::vector<const ResultGroup*>& groups,
                                          const std::string& dataset, std::int64_t shots);

/// Those of `groups` whose untouched model is none of an earlier one's.
std::vector<const ResultGroup*> with_own_zero_shot(const std::vector<const ResultGroup*>& groups);

/// "zero-shot", or "zero-shot (r_adapter)" where `groups` have several.
std::string zero_shot_label(const ResultGroup& group, const std::vector<const ResultGroup*>& groups);

/// What tells a group from others of its backbone: its variant, else its method.
std::string short_label(const ResultGroup& group);

/// "0.5" of 0.5, "1" of 1.0.
std::string scale_text(double scale);

/// ", α 0.5"; "" if there is no one scale.
std::string at_scale(const std::optional<double>& scale);

/// "16 shots".
std::string shots_text(std::int64_t shots);

// The tables of each protocol; none of those that a table has no runs of.

/// Of --protocol all: accuracies of methods on the same data: a table per backbone that has several.
std::vector<FigureTable> method_tables(const ResultTable& table);
/// Base classes, new classes, harmonic mean: a table per backbone and number of shots.
std::vector<FigureTable> base_to_new_tables(const ResultTable& table);
/// Of cross_dataset or robustness every data set by method and scale, and their mean: a table per backbone,
/// data set trained on and number of shots.
std::vector<FigureTable> other_dataset_tables(const ResultTable& table, const std::string& protocol);
/// Recall at 1, 5 and 10 by method and scale: a table per backbone and data set.
std::vector<FigureTable> retrieval_tables(const ResultTable& table);

}  // namespace clip_lora::cli
