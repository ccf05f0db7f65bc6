#pragma once

#include <string>

namespace clip_lora::testing {

/// A sweep of `seeds` · 2 runs of `iterations` per shot is killed `kills` times, each time up to `longest_ms`
/// after its start, and started again: in the end all is done and as of an undisturbed sweep, no file is ever
/// half, what was done stays as it is, and each kill costs one run's work at most. Fails the test otherwise.
void expect_to_survive_kills(int seeds, int iterations, int kills, int longest_ms);

/// `processes` that start at once on one folder of `seeds` · 2 runs, two of which believe to be on other
/// machines. `kills` of them, those two first, are killed on the way and replaced. Each run is done once
/// and the cache of decoded images is built once. Fails the test otherwise.
void expect_to_share(int processes, int seeds, int kills);

/// A process that is stopped until another has taken over its run leaves the run to that one when it goes on,
/// and does the rest. Fails the test otherwise.
void expect_the_late_to_step_back();

}  // namespace clip_lora::testing
