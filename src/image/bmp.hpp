#pragma once

#include "clip_lora/image/image.hpp"
#include "file_kind.hpp"

namespace clip_lora::image {

/// An uncompressed BMP of 1, 4, 8, 16, 24 or 32 bits as Pillow's `convert("RGB")` shows it. OpenCV's reader
/// does not stretch 16-bit colours to the full range, and knows fewer orders of the 32-bit channels. Throws
/// DataError, naming no file, for a file that is truncated or broken, and for what Pillow does not read or
/// misreads.
Image decode_bmp(Bytes bytes);

/// From the header; the file may end behind it. Throws DataError as above.
ImageSize bmp_size(Bytes bytes);

}  // namespace clip_lora::image
