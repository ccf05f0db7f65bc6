#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {

/// A test that hands bytes to the decoder, as a file whose name says nothing of its kind.
class DecodingTest : public ::testing::Test {
 protected:
  std::filesystem::path file_of(const std::string& bytes) const {
    write_bytes(folder_ / "picture.jpg", bytes);
    return folder_ / "picture.jpg";
  }

  image::Image decoded(const std::string& bytes,
                       image::Orientation orientation = image::Orientation::kIgnoreExif) const {
    return image::decode_image(file_of(bytes), orientation);
  }

  std::vector<std::uint8_t> pixels(const std::string& bytes) const { return decoded(bytes).rgb; }

  /// The message of the DataError.
  std::string error_for(const std::string& bytes) const {
    return message_of<DataError>([&] { decoded(bytes); });
  }

  TemporaryFolder folder_;
};

}  // namespace clip_lora::testing
