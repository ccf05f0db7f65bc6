#pragma once

#include "clip_lora/image/image.hpp"
#include "file_kind.hpp"

namespace clip_lora::image {

/// A JPEG of four colour components (CMYK or Adobe's YCCK, inverted as Adobe writes them) as Pillow's
/// `convert("RGB")` shows it: OpenCV computes other colours. Throws DataError, naming no file, if its data
/// are damaged.
Image decode_cmyk_jpeg(Bytes bytes, const JpegFrame& frame);

}  // namespace clip_lora::image
