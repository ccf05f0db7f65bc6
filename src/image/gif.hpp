#pragma once

#include "clip_lora/image/image.hpp"
#include "file_kind.hpp"

namespace clip_lora::image {

/// The first frame of a GIF on its canvas, as Pillow's `convert("RGB")` shows it: transparent pixels have the
/// colour of their palette entry, and so has the canvas around a smaller frame (entry 0 without
/// transparency). OpenCV has a GIF reader only of late, and some real data sets hold GIFs under the name of
/// JPEGs. Throws DataError, naming no file, for a file that is truncated or broken.
Image decode_gif(Bytes bytes);

/// The canvas's, from what comes before the first frame's pixels; the file may end there. Throws DataError as
/// above.
ImageSize gif_size(Bytes bytes);

}  // namespace clip_lora::image
