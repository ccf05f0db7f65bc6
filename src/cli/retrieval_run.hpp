#pragma once

#include <string>

#include "clip_lora/cli/run.hpp"
#include "run_session.hpp"

namespace clip_lora::cli {

/// As cli::run with the protocol retrieval: recall among the test split's images and captions, by the
/// untouched model and by one trained on the training split's pairs. Without an observer it prints what
/// happens. Throws as cli::run.
RunResult run_retrieval(RunOptions options, RunSession::Kept& kept, const RunObserver* observer);

/// "image to text 85.00 / 100.00 / 100.00   text to image 70.60 / 92.40 / 96.10 %": recall at 1 / 5 / 10.
std::string recall_text(const train::RetrievalMetrics& metrics);

}  // namespace clip_lora::cli
