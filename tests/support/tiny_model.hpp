#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/lora/lora_adapter.hpp"
#include "clip_lora/model/clip.hpp"
#include "support/oracle.hpp"

namespace clip_lora::testing {

/// Small enough for a test, and no two towers' widths, depths or head counts alike.
model::ClipArchitecture tiny_architecture();

/// A CLIP of that architecture with random weights; biases and normalisations too, so that none hides behind
/// 0 or 1.
model::Clip random_clip(const model::ClipArchitecture& architecture = tiny_architecture());

/// [B, 3, R, R] like normalised pictures.
at::Tensor random_images(const model::ClipArchitecture& architecture, std::int64_t count);

/// Rows of random ids that end at each of `ends`, zero-padded to the context.
std::vector<std::vector<std::int64_t>> random_prompt_rows(const model::ClipArchitecture& architecture,
                                                          const std::vector<std::int64_t>& ends);

/// Those rows as one tensor, for the oracle.
at::Tensor as_tensor(const std::vector<std::vector<std::int64_t>>& rows);

/// The default options without dropout, so that two runs agree.
lora::LoraOptions without_dropout();

/// A LoRA of those options.
lora::AdapterOptions of_lora(const lora::LoraOptions& options);

/// Fills what is trained with noise that moves the features by a tenth or so.
void randomise(const lora::Adapter& adapter);

/// Sets the adapter's tensors by name; every name of the adapter must be there.
void assign(const lora::Adapter& adapter, const io::StateDict& values);

/// A deep copy.
io::StateDict snapshot(const io::StateDict& tensors);

OracleModel oracle_of(const model::Clip& clip, const lora::LoraAdapter& adapter);
OracleModel oracle_of(const model::Clip& clip);

}  // namespace clip_lora::testing
