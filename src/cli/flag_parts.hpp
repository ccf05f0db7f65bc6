#pragma once

#include <map>
#include <string>
#include <vector>

#include "clip_lora/cli/run_options.hpp"

namespace clip_lora::cli {

/// The values of --loss.
std::vector<std::string> loss_names();

/// The flags that have no part in a run of this method, loss and protocol, and why: what follows the flag in
/// a message, e.g. "has no part in --loss ce (hint: mpm_nce takes it)".
std::map<std::string, std::string> flags_without_part(const RunOptions& options);

}  // namespace clip_lora::cli
