#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/own_dataset.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {

/// Makes data of one's own. Pictures are empty files: nothing that lists them opens them.
class OwnData : public ::testing::Test {
 protected:
  std::filesystem::path path(const std::string& name = "photos") const { return folder_ / name; }

  void write(const std::string& name, const std::string& bytes = "") const {
    std::filesystem::create_directories(path(name).parent_path());
    testing::write_bytes(path(name), bytes);
  }

  /// `photos/<class>/<0 … count − 1>.jpg`, or below another folder.
  void write_class(const std::string& name, int count, const std::string& below = "photos") const {
    for (int i = 0; i < count; ++i) write(below + "/" + name + "/" + std::to_string(i) + ".jpg");
  }

  Dataset load(const std::string& name = "photos") const { return load_own_dataset(path(name), options_); }

  std::string data_error(const std::string& name = "photos") const {
    return testing::message_of<DataError>([&] { load(name); });
  }

  std::string config_error(const std::string& name = "photos") const {
    return testing::message_of<ConfigError>([&] { load(name); });
  }

  /// "cat/0.jpg 1" for each item, by its path below `name` and its label.
  std::vector<std::string> entries(const std::vector<Item>& items, const std::string& name = "photos") const {
    std::vector<std::string> result;
    for (const Item& item : items) {
      const auto relative = std::filesystem::path(item.image).lexically_relative(path(name));
      result.push_back(relative.string() + " " + std::to_string(item.label));
    }
    return result;
  }

  testing::TemporaryFolder folder_;
  OwnDatasetOptions options_;
};

}  // namespace clip_lora::data
