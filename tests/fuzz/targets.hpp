#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::fuzz {

/// A reader of what others wrote, as a fuzzer calls it.
struct Target {
  const char* name;
  /// Reads `input`. The errors that the reader documents are caught; whatever else it throws is a bug.
  void (*run)(std::string_view input);
  /// Inputs to begin with, made by our own writers.
  std::vector<std::string> (*seeds)();
};

extern const Target adapters, captions, configuration, evaluation_cache, images, leases, model_documents,
    own_csv, prompt_files, reports, safetensors, split_json, tokenizer, tokenizer_files, torch_archives,
    training_checkpoints;

/// Calls `read`, catching what readers are documented to throw.
template <typename Read>
void read_whatever_it_is(const Read& read) {
  try {
    read();
  } catch (const ConfigError&) {
  } catch (const DataError&) {
  } catch (const CheckpointError&) {
  }
}

/// Ends the program unless `holds`: for what must be so whatever the input.
void require(bool holds, const char* what);

/// A folder of this process, removed in the end; in memory where TMPDIR is.
const std::filesystem::path& scratch_folder();

/// Writes `bytes` to the file `name` in it, over what was there.
std::filesystem::path scratch_file(const std::string& name, std::string_view bytes);

/// An input that stands for several files: pieces separated by the line "----", of which those that are
/// missing are empty.
std::vector<std::string_view> pieces_of(std::string_view input, std::size_t count);
std::string joined(const std::vector<std::string>& pieces);

}  // namespace clip_lora::fuzz
