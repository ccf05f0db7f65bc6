#pragma once

#include <cstddef>
#include <functional>

namespace clip_lora {

/// Hardware threads of this machine, at least 1.
int hardware_workers();

/// Calls body(i) for every i in [0, count) on up to `workers` threads (at least 1) and waits for all of them.
/// The first exception that a body throws stops the hand-out of further indices and is thrown here.
void parallel_for(std::size_t count, int workers, const std::function<void(std::size_t)>& body);

}  // namespace clip_lora
