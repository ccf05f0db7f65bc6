#pragma once

#include <filesystem>
#include <string>

namespace clip_lora::cli {

/// Where the checkpoint of a run lies. `checkpoint` is `--checkpoint`: a file, a folder that holds a model,
/// or a folder of several checkpoints such as `ViT-B-16.pt`; empty, `backbone` is looked for in
/// $CLIP_LORA_CHECKPOINTS, in OpenAI's cache (~/.cache/clip) and in Hugging Face's ($HF_HUB_CACHE,
/// $HF_HOME/hub, ~/.cache/huggingface/hub). `backbone` is OpenAI's name of an architecture, `ViT-H/14`, or a
/// repository on Hugging Face such as `laion/CLIP-ViT-B-16-laion2B-s34B-b88K`. Throws ConfigError for a
/// backbone of no such name (the nearest is offered), CheckpointError that lists the places tried if it is in
/// none of them. A `checkpoint` that is no folder is returned as it is.
std::filesystem::path find_checkpoint(const std::string& checkpoint, const std::string& backbone);

}  // namespace clip_lora::cli
