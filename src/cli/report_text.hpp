#pragma once

#include <string>
#include <vector>

#include "result_table.hpp"

namespace clip_lora::cli {

/// One line per run (RFC 4180): where it stands, its accuracies, times and memory, the settings that vary
/// between runs, and its command. Numbers as in its results.json.
std::string results_csv(const ResultTable& table);

/// One line per figure of a run that depends on the scale of its adapter: what it was tested on, the scale
/// (0: the untouched model), the figure's name as in results.json, its value in percent.
std::string scales_csv(const ResultTable& table);

/// Tables in Markdown. One per group of --protocol all: data sets by shots, mean ± standard deviation over
/// seeds, the averages, and what is published beside it; then methods side by side, and those of other
/// protocols. What is not there is shown as "–".
std::string results_markdown(const ResultTable& table);

/// Adds "| a | b |" and the line's end, a '|' within a cell escaped.
void add_markdown_row(std::string& text, const std::vector<std::string>& cells);

/// What stands in a cell of a table: "84.93 ± 0.41", with " (2 of 3)" where seeds are missing.
std::string cell_text(const ResultCell& cell, std::size_t seeds);

}  // namespace clip_lora::cli
