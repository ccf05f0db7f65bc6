#pragma once

#include "clip_lora/cli/run.hpp"
#include "run_session.hpp"

namespace clip_lora::cli {

/// As cli::run with the protocol retrieval: recall among the test split's images and captions, by the
/// untouched model and by one trained on the training split's pairs. Without an observer it prints what
/// happens. Throws as cli::run.
RunResult run_retrieval(RunOptions options, RunSession::Kept& kept, const RunObserver* observer);

}  // namespace clip_lora::cli
