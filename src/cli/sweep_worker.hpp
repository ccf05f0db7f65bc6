#pragma once

#include <cstddef>
#include <memory>

#include "clip_lora/cli/run.hpp"
#include "sweep_plan.hpp"
#include "sweep_progress.hpp"

namespace clip_lora::cli {

/// What became of the runs of a plan.
struct SweepOutcome {
  std::size_t done = 0;    ///< by this process
  std::size_t failed = 0;  ///< by any, since the plan was made
};

/// Does what is to be done, run by run, and waits for runs that other processes do, which it takes over if
/// those show no life. Each run is held by a lease while it is worked on. One that fails is recorded and
/// left. Returns once nothing is to be done by anybody. Throws Interrupted, and ConfigError where the disk is
/// full.
SweepOutcome work(const SweepOptions& options, const SweepPlan& plan, std::unique_ptr<RunSession> session,
                  SweepProgress& progress);

}  // namespace clip_lora::cli
