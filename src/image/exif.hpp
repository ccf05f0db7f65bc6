#pragma once

#include "clip_lora/image/image.hpp"
#include "file_kind.hpp"

namespace clip_lora::image {

/// The orientation that an EXIF block names, 1 to 8: a TIFF, with "Exif\0\0" before it or without. 1,
/// upright, if the block is empty, broken, or says nothing or nonsense of it.
int exif_orientation(Bytes exif);

/// The upright picture of one that was stored in an EXIF orientation of 1 to 8.
Image turn_upright(Image image, int orientation);

}  // namespace clip_lora::image
