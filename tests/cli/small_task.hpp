#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/temporary_folder.hpp"

namespace clip_lora::testing {

/// A task that the program does in a second: a random CLIP of one block per tower, and a few pictures of
/// shapes.
class SmallTask {
 public:
  SmallTask();

  /// A run of four iterations as the program's arguments, with `changes` to its flags: a value is words with
  /// spaces between, "" for a flag without value.
  std::vector<std::string> arguments(const std::map<std::string, std::string>& changes = {}) const;

  std::filesystem::path checkpoint() const { return folder_ / "small.safetensors"; }
  std::filesystem::path split_file() const { return folder_ / "data/shapes/split_zhou_Shapes.json"; }
  /// A picture that every run needs: one of the test split.
  std::filesystem::path test_image() const { return folder_ / "data/shapes/images/circle/3.png"; }
  std::filesystem::path save_path() const { return folder_ / "results"; }
  std::filesystem::path result_folder() const { return save_path() / "small/shapes/1shots/seed1"; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_;
};

}  // namespace clip_lora::testing
