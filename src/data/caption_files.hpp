#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace clip_lora::data {

/// An image as a caption file lists it.
struct ListedImage {
  std::string file;   ///< its path, relative to a folder that the format does not tell
  std::string split;  ///< train, val or test; "" if the file has no splits
  std::vector<std::string> captions;
};

/// What a caption file holds.
struct CaptionFile {
  std::string name;  ///< that the file gives itself; may be ""
  std::vector<ListedImage> images;
  std::vector<std::string> warnings;
};

// Both throw DataError as load_captions does.

/// Karpathy's JSON.
CaptionFile read_karpathy_json(const std::filesystem::path& file);

/// A table with a row per caption.
CaptionFile read_caption_csv(const std::filesystem::path& file);

}  // namespace clip_lora::data
