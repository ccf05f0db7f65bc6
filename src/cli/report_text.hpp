#pragma once

#include <string>

#include "result_table.hpp"

namespace clip_lora::cli {

/// One line per run (RFC 4180): where it stands, its accuracies, times and memory, the settings that vary
/// between runs, and its command. Numbers as in its results.json.
std::string results_csv(const ResultTable& table);

/// Tables in Markdown, one per group: data sets by shots, mean ± standard deviation over seeds, the averages,
/// and what is published beside it. What is not there is shown as "–".
std::string results_markdown(const ResultTable& table);

/// What stands in a cell of a table: "84.93 ± 0.41", with " (2 of 3)" where seeds are missing.
std::string cell_text(const ResultCell& cell, std::size_t seeds);

}  // namespace clip_lora::cli
