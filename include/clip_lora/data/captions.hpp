#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/data/own_dataset.hpp"

namespace clip_lora::data {

/// A picture and what people wrote about it.
struct CaptionedImage {
  std::string image;                  ///< its path, as Item::image
  std::vector<std::string> captions;  ///< as they stand in the file; at least one, none of white space alone
};

/// Images and captions for retrieval: lists, no pixels. There is at least one test image.
struct CaptionDataset {
  std::string name;
  std::vector<CaptionedImage> train;
  std::vector<CaptionedImage> val;
  std::vector<CaptionedImage> test;
  std::vector<std::string> warnings;  ///< images with other than five captions, columns that are not used, …
};

/// One of the published ones, which load_captions finds by name.
struct CaptionBenchmark {
  std::string name;                  ///< `--dataset`
  std::vector<std::string> folders;  ///< below --root_path
  std::string split_file;            ///< Karpathy's JSON, in the folder or one below it that is usual
  std::string contents;              ///< what the folder must hold, in words
};

/// coco, flickr30k and flickr8k, in this order.
const std::vector<CaptionBenchmark>& caption_benchmarks();

/// By name; nullptr if there is none.
const CaptionBenchmark* find_caption_benchmark(const std::string& name);

/// Images with captions, by what `path_or_name` is:
///  - a name of caption_benchmarks(), below `root_path`;
///  - a .json in the format of Karpathy's splits (cs.stanford.edu/people/karpathy/deepimagesent): images[] of
///    filename, filepath (COCO), split (train, restval, which counts as train, val or test) and
///    sentences[].raw; the pictures lie beside the file or in a usual folder beside it or beside its folder;
///  - a .csv (RFC 4180) whose header names the columns image, caption and, if it has one, split: a row per
///    caption, paths relative to its folder; without a split, images are split as `split` says.
/// No image is opened. Throws ConfigError for any other word (the nearest name is offered), DataError naming
/// file and place: no such file, a broken or truncated one, an image without captions or with an empty one, a
/// filename that is there twice, an unknown split, no test images, a folder without any of the pictures.
CaptionDataset load_captions(const std::string& path_or_name, const std::filesystem::path& root_path,
                             const SplitOptions& split = {});

/// An item per image, whose label is its index.
std::vector<Item> image_items(const std::vector<CaptionedImage>& images);

/// Images and captions as training pairs them.
struct CaptionPairs {
  std::vector<Item> items;            ///< the label is the image's index: those of one image are positives
  std::vector<std::string> captions;  ///< of items[i]
};

/// A pair per caption, image by image.
CaptionPairs caption_pairs(const std::vector<CaptionedImage>& images);

/// As the require_images of items.
void require_images(const std::vector<CaptionedImage>& images, const std::string& what);

/// What --allow_missing does instead: leaves out the images whose files do not exist, and says how many they
/// were. Throws MissingData with `what` ("test split") if all are.
std::size_t leave_out_missing(std::vector<CaptionedImage>& images, const std::string& what);

}  // namespace clip_lora::data
