#pragma once

#include <optional>
#include <string>
#include <vector>

#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/model/architecture.hpp"
#include "clip_lora/model/naming.hpp"

namespace clip_lora::model {

/// What a checkpoint says beside its tensors.
struct Description {
  ClipArchitecture architecture;
  image::Preprocessing preprocessing;
  Naming naming = Naming::kOpenAi;
  std::vector<std::string> warnings;
};

/// Completes what the tensors' `shapes` say. `naming` is that of the tensors' names, `activation` what the
/// user demands. Throws CheckpointError for configurations that are broken, contradict the shapes or demand
/// what is not there.
Description describe_checkpoint(const io::CheckpointFiles& files, const ClipArchitecture& shapes,
                                Naming naming, std::optional<Activation> activation);

}  // namespace clip_lora::model
