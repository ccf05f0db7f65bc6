#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace clip_lora::text {

/// CLIP's tokenizer as the files, by name, that transformers' CLIPTokenizer reads: vocab.json, merges.txt,
/// tokenizer_config.json and special_tokens_map.json. Made of the embedded merges.
/// Format: https://huggingface.co/docs/transformers/model_doc/clip (CLIPTokenizer).
std::map<std::string, std::string> hugging_face_tokenizer_files(int context_length);

/// Compares the tokenizer in `folder` (vocab.json and merges.txt, or else tokenizer.json) with CLIP's, the only one there
/// is here. Nothing to compare is fine. Throws CheckpointError naming the file and a token or merge that differs.
void require_clip_tokenizer(const std::filesystem::path& folder);

}  // namespace clip_lora::text
