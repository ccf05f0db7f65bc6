#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/image.hpp"
#include "clip_lora/ops/view_request.hpp"
#include "picture_files.hpp"

namespace clip_lora::data {

/// All training pictures, decoded, in one buffer of bytes on a device. A file that several items name is
/// there once.
class DecodedPictures {
 public:
  struct Picture {
    std::int64_t begin = 0;  ///< of its bytes in the store
    image::ImageSize size;   ///< as decoded, that is turned
  };

  /// Reads the files' headers and decodes nothing yet. Throws DataError for a file that cannot be read,
  /// Interrupted once a signal is pending, as decode() does.
  DecodedPictures(const std::vector<Item>& items, int workers);

  std::uint64_t bytes() const { return bytes_ + ops::kStorePadding; }  ///< of the store

  /// Decodes all files, and uploads what has been decoded meanwhile. Afterwards every stream of the device
  /// may read.
  void decode(at::Device device, image::Orientation orientation, int workers);

  const at::Tensor& store() const { return store_; }  ///< [bytes()] uint8
  const Picture& of_item(std::size_t item) const { return pictures_[files_.of_item[item]]; }
  int largest_side() const { return largest_side_; }

 private:
  struct Piece;

  std::vector<Piece> pieces() const;
  void decode_piece(const Piece& piece, image::Orientation orientation);

  PictureFiles files_;
  std::vector<Picture> pictures_;  // by file
  std::uint64_t bytes_ = 0;        // of the pictures
  int largest_side_ = 1;
  at::Tensor store_;
};

}  // namespace clip_lora::data
