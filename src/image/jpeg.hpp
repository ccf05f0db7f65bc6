#pragma once

#include <cstdint>
#include <vector>

#include "clip_lora/image/image.hpp"
#include "file_kind.hpp"

namespace clip_lora::image {

/// A JPEG as Pillow's `convert("RGB")` shows it; `frame` is read_jpeg_frame's. Four colour components (CMYK
/// or Adobe's YCCK, inverted as Adobe writes them) are mixed as Pillow mixes them. Throws DataError, naming
/// no file, if its data are damaged. The pixels go to `memory` if it has room for them.
Image decode_jpeg(Bytes bytes, const JpegFrame& frame, std::vector<std::uint8_t> memory);

}  // namespace clip_lora::image
