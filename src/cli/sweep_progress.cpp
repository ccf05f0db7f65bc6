#include "sweep_progress.hpp"

#include <algorithm>
#include <iostream>

namespace clip_lora::cli {

SweepProgress::SweepProgress(const SweepPlan& plan, bool bar)
    : all_(plan.runs.size()),
      finished_(all_ - plan.count_to_do()),
      bar_("sweep", "iterations", plan.iterations_to_do(), bar) {}

std::string SweepProgress::count() const {
  return std::to_string(finished_) + " of " + std::to_string(all_) + " runs done";
}

void SweepProgress::show(const PlannedRun& run, std::int64_t iteration) {
  bar_.update(iterations_ + iteration, [&] { return count() + "  " + printable(run.run.label); });
}

void SweepProgress::show_waiting(const std::string& what) {
  bar_.update(iterations_, [&] { return count() + (what.empty() ? "" : "  " + what); });
}

void SweepProgress::finish(const PlannedRun& run) {
  ++finished_;
  iterations_ += run.iterations;
}

void SweepProgress::say(const std::string& line) {
  bar_.clear();
  std::cout << line << std::endl;
}

}  // namespace clip_lora::cli
