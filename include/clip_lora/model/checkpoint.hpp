#pragma once

#include <optional>
#include <string>
#include <vector>

#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/model/clip.hpp"
#include "clip_lora/model/naming.hpp"

namespace clip_lora::model {

/// A CLIP with everything that its checkpoint says about using it.
struct LoadedClip {
  Clip clip{nullptr};  ///< float32, CPU
  /// The factor on cosines, exp of clip->logit_scale as float32 has it: bfloat16 would make 98.9 out of 100.
  double logit_scale = 0.0;
  image::Preprocessing preprocessing;
  Naming naming = Naming::kOpenAi;
  std::vector<std::string> warnings;  ///< what had to be assumed; empty if the checkpoint says it all
};

/// The CLIP of a checkpoint in OpenAI's, Hugging Face's or OpenCLIP's names. What the shapes do not say
/// (activation, head width, eps, preprocessing) comes from `activation` if given, else from the configuration
/// beside the weights (config.json and preprocessor_config.json, or open_clip_config.json), the metadata of a
/// safetensors file of ours, or the code of a TorchScript archive; else it is taken to be OpenAI's, with a
/// warning that names `--activation`. Throws CheckpointError that lists every missing, unexpected and wrongly
/// shaped tensor by the file's own names (ten and a count); for a configuration that contradicts the shapes,
/// or the activation in the weights' own file (unless `activation` decides); for NaN and infinities, naming the
/// tensors, and a logit scale far from every CLIP's; and for what is no CLIP with a
/// vision transformer and CLIP's own text transformer (a ResNet, a timm tower, a text tower of transformers'
/// AutoModel, SigLIP, CoCa, …), naming what was found.
LoadedClip load_clip(const io::CheckpointFiles& files, std::optional<Activation> activation = std::nullopt);

/// The CLIP of an OpenAI-named state dict with OpenAI's activation, in float32 on the CPU. `source` names the
/// file in errors. `input_resolution`, `context_length`, `vocab_size` and `attn_mask` of archives are
/// ignored. Throws as above.
Clip load_clip(const io::StateDict& state_dict, const std::string& source);

/// 32 hexadecimal digits of XXH3-128 over the names, shapes and float32 values of a float32 model's tensors,
/// the same for every container, naming and lossless storage type that it came from.
std::string fingerprint(const Clip& clip);

/// The model's parameters by their checkpoint names; the tensors are shared, not copied.
io::StateDict state_dict(const Clip& clip);

/// Fills the weights as CLIP does before pre-training (Radford et al. 2021, section 2.4 and OpenAI's
/// release), from LibTorch's default generator.
void initialise(Clip& clip);

}  // namespace clip_lora::model
