#pragma once

#include <filesystem>
#include <string>

namespace clip_lora::testing {

/// Writes a miniature of one of the shifts of ImageNet below `root`, in the folders of the real one, a
/// picture per class: ImageNet-V2 and -Sketch with a thousand classes, ImageNet-A and -R with two hundred,
/// every fifth label from 0 and from 1. ObjectNet has the labels 409 and 530 as class 0 (alarm_clock), 423 as
/// class 1 (chair) and 987 as class 2 (zucchini), with its own pictures of 8 × 8 in a frame of 2 pixels, and
/// a folder that is none of ImageNet's.
void write_shift_miniature(const std::filesystem::path& root, const std::string& name);

/// Writes wordnet_ids.txt of the miniature's thousand ids.
void write_wordnet_ids(const std::filesystem::path& root);

/// Writes coco, flickr30k or flickr8k in Karpathy's format below `root`: four training images, of which COCO
/// calls one restval, two of val and three test images, with five captions each.
void write_caption_miniature(const std::filesystem::path& root, const std::string& name);

}  // namespace clip_lora::testing
