#pragma once

#include <cstddef>
#include <string>

#include "result_table.hpp"
#include "saved_run.hpp"

namespace clip_lora::cli {

struct PageOptions {
  std::string title;           ///< the page's heading
  std::size_t thumbnails = 6;  ///< pictures that adaptation fixed, and as many that it broke, per data set
};

/// All results as one self-contained HTML page of at most 1.5 MB: no network, no scripts. What would make it
/// larger is left out, and the page says so. Pictures, curves and classes are read from the folders of the
/// runs that are shown. Every figure stands beside its exact value: in `value` or `data-value`, with
/// `data-key` naming it.
std::string report_page(const SavedRuns& found, const ResultTable& table, const PageOptions& options);

}  // namespace clip_lora::cli
