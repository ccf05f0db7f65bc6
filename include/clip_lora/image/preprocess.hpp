#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <random>
#include <span>
#include <string>

#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/image.hpp"
#include "clip_lora/image/resample.hpp"

namespace clip_lora::image {

/// How a picture of any shape becomes a square: OpenCLIP's `resize_mode`.
enum class ResizeMode {
  kShortest,  ///< shorter side to resize_px, then the central square (OpenAI's, Hugging Face's
              ///< `shortest_edge`)
  kLongest,   ///< longer side to resize_px, then padded around with fill_color
  kSquash     ///< both sides to resize_px, whatever the shape
};

/// What pixels that were kept are known by: raise it with every change of what decoding or resizing gives.
inline constexpr std::uint32_t kPixelsVersion = 2;

/// From a decoded picture to a tower's input. The defaults are OpenAI's.
struct Preprocessing {
  int size_px = 224;    ///< R, the side of the square input (Hugging Face: crop_size)
  int resize_px = 224;  ///< what the resize aims at; R except in some Hugging Face configurations
  ResizeMode resize_mode = ResizeMode::kShortest;
  Interpolation interpolation = Interpolation::kBicubic;
  Orientation orientation = Orientation::kIgnoreExif;  ///< of photos that say how they were held
  std::array<std::uint8_t, 3> fill_color = {0, 0, 0};  ///< of what is padded
  double rescale_factor = 1.0 / 255.0;                 ///< applied to the bytes before the normalisation
  std::array<float, 3> mean = {0.48145466F, 0.4578275F, 0.40821073F};
  std::array<float, 3> standard_deviation = {0.26862954F, 0.26130258F, 0.27577711F};
  int border_px = 0;  ///< cut off each side before an evaluation view is made (ObjectNet's red frame: 2)

  bool operator==(const Preprocessing&) const = default;
};

/// Names as in OpenCLIP's and Hugging Face's configurations: "shortest", "bicubic" and so on. The parsers
/// throw ConfigError with the nearest name.
std::string to_string(ResizeMode mode);
std::string to_string(Interpolation interpolation);
ResizeMode parse_resize_mode(const std::string& name);
Interpolation parse_interpolation(const std::string& name);

/// The evaluation view [R, R]: the picture without border_px on each side, as far as a pixel is left, resized
/// to resize_px as resize_mode says (by kShortest the longer side becomes int(resize_px · long / short)),
/// then its centre, padded with fill_color where it is too small. Equal to what torchvision's Resize and
/// CenterCrop (kShortest, kSquash) and OpenCLIP's ResizeKeepRatio(longest=1) and CenterCropOrPad (kLongest)
/// make of a Pillow image; a side that they would round to nothing is one pixel here.
Image evaluation_view(const Image& image, const Preprocessing& preprocessing);

/// The file `path`, decoded as the preprocessing says (its orientation), at the evaluation view. Throws
/// DataError.
Image load_evaluation_view(const std::filesystem::path& path, const Preprocessing& preprocessing);

/// (bytes · rescale_factor − mean) / standard_deviation of pixels `rgb` [height, width, 3], to `out` [3,
/// height, width]: bit for bit what torchvision's ToTensor and Normalize make of them, where rescale_factor
/// is 1/255.
void normalise_chw(std::span<const std::uint8_t> rgb, const Preprocessing& preprocessing, float* out);

/// One random view of a training image.
struct TrainingView {
  Box box;
  bool flip = false;
};

/// How training images are varied. The defaults are CLIP-LoRA's.
struct Augmentation {
  double smallest_scale = 0.08;  ///< a crop has this part of the image's area at least; above 0, at most 1
  bool flip = true;              ///< half of the views are mirrored

  bool operator==(const Augmentation&) const = default;
};

/// The published ones by name: "clip_lora" (scale (0.08, 1), flip) and "open_clip" (scale (0.9, 1), no flip,
/// as R-Adapter trains). Throws ConfigError for other names, with the nearest.
Augmentation parse_augmentation(const std::string& name);

/// The name of a published one, else its values in words.
std::string to_string(const Augmentation& augmentation);

/// Draws torchvision's RandomResizedCrop(scale (smallest_scale, 1), ratio (3/4, 4/3)) rectangle, ten tries
/// and then the central fallback, and a flip of probability 0.5 where there are any, for an image of [height,
/// width].
TrainingView draw_training_view(int height, int width, std::mt19937_64& generator,
                                const Augmentation& augmentation = {});

/// Crops `view.box`, resizes it to [R, R] with the preprocessing's filter, then flips it if asked to.
Image training_view(const Image& image, const TrainingView& view, const Preprocessing& preprocessing);

}  // namespace clip_lora::image
