#include <array>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/naming.hpp"
#include "configuration.hpp"
#include "json_fields.hpp"

namespace clip_lora::model {
namespace {

using nlohmann::json;

/// Three numbers, or one for all three channels.
std::optional<std::array<double, 3>> channels(const JsonFields& fields, const std::string& key, double lowest,
                                              double highest) {
  const json* value = fields.find(key);
  if (value == nullptr) return std::nullopt;
  std::array<double, 3> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const json* channel = value->is_array() && value->size() == numbers.size() ? &(*value)[i] : value;
    if (!channel->is_number()) fields.fail(key, "three numbers");
    numbers[i] = channel->get<double>();
    if (!(numbers[i] >= lowest && numbers[i] <= highest))
      fields.fail(key, "three numbers within their range");
  }
  return numbers;
}

std::array<float, 3> as_floats(const std::array<double, 3>& numbers) {
  return {static_cast<float>(numbers[0]), static_cast<float>(numbers[1]), static_cast<float>(numbers[2])};
}

void read_normalisation(const JsonFields& fields, const std::string& mean, const std::string& deviation,
                        image::Preprocessing& preprocessing) {
  constexpr double kLargest = 1e6;
  if (const auto values = channels(fields, mean, -kLargest, kLargest))
    preprocessing.mean = as_floats(*values);
  if (const auto values = channels(fields, deviation, 1e-6, kLargest)) {
    preprocessing.standard_deviation = as_floats(*values);
  }
}

double read_rescale_factor(const JsonFields& fields) {
  const double factor = fields.number("rescale_factor").value_or(image::Preprocessing{}.rescale_factor);
  constexpr double kFurthest = 1e6;
  if (factor < 1.0 / kFurthest || factor > kFurthest)
    fields.fail("rescale_factor", "a number from 1e-6 to 1e6");
  return factor;
}

image::Interpolation parse_filter(const JsonFields& fields, const std::string& key, const std::string& name) {
  try {
    return image::parse_interpolation(name);
  } catch (const ConfigError& error) {
    fields.fail(key, std::string("a filter of Pillow's: ") + error.what());
  }
}

// ---- Hugging Face ----

void require_clip_processor(const JsonFields& fields) {
  for (const char* key : {"image_processor_type", "feature_extractor_type"}) {
    const std::string type = fields.text(key).value_or("CLIPImageProcessor");
    if (!type.starts_with("CLIPImageProcessor") && !type.starts_with("CLIPFeatureExtractor")) {
      fields.fail(key, "\"CLIPImageProcessor\"");
    }
  }
}

image::Interpolation read_resample(const JsonFields& fields) {
  const json* value = fields.find("resample");
  if (value == nullptr) return image::Interpolation::kBicubic;
  if (value->is_string()) return parse_filter(fields, "resample", value->get<std::string>());
  const std::int64_t code = fields.integer("resample").value();
  if (code < 0 || code >= static_cast<std::int64_t>(kPillowFilters.size()))
    fields.fail("resample", "Pillow's 0 … 5");
  return kPillowFilters[static_cast<std::size_t>(code)];
}

/// `size`: 224 and {"shortest_edge": 224} are the shorter side, {"height": 224, "width": 224} squashes.
void read_hugging_face_size(const JsonFields& fields, image::Preprocessing& preprocessing) {
  const json* size = fields.find("size");
  if (size == nullptr) return;
  if (size->is_object() && !size->contains("height")) {
    const JsonFields edges = fields.object("size");
    edges.require_only({"shortest_edge"});
    if (!edges.has("shortest_edge")) edges.fail("shortest_edge", "the side in pixels");
    preprocessing.resize_px = static_cast<int>(edges.square_side("shortest_edge").value());
    return;
  }
  preprocessing.resize_px = static_cast<int>(fields.square_side("size").value());
  if (!size->is_number()) preprocessing.resize_mode = image::ResizeMode::kSquash;
}

/// Whatever the picture, what comes out must be the model's square.
void require_square(const JsonFields& fields, const image::Preprocessing& preprocessing) {
  const bool squashed = preprocessing.resize_mode == image::ResizeMode::kSquash;
  if (squashed && preprocessing.resize_px != preprocessing.size_px) {
    fields.fail("size", "the model's " + std::to_string(preprocessing.size_px) + " pixels");
  }
  if (!fields.boolean("do_center_crop").value_or(true) && !squashed) {
    fields.fail("do_center_crop", "true, unless `size` gives height and width");
  }
  if (preprocessing.resize_px < preprocessing.size_px) {
    fields.fail("size", "at least the crop's " + std::to_string(preprocessing.size_px) + " pixels");
  }
}

}  // namespace

image::Preprocessing open_ai_preprocessing(std::int64_t image_size_px) {
  image::Preprocessing preprocessing;
  preprocessing.size_px = static_cast<int>(image_size_px);
  preprocessing.resize_px = preprocessing.size_px;
  return preprocessing;
}

image::Preprocessing read_hugging_face_preprocessing(const json& config, std::int64_t image_size_px,
                                                     const std::string& document) {
  const JsonFields fields(config, document);
  require_clip_processor(fields);
  for (const char* key : {"do_pad", "use_square_size"}) {
    if (fields.boolean(key).value_or(false)) fields.fail(key, "false");
  }
  if (!fields.boolean("do_resize").value_or(true)) fields.fail("do_resize", "true");

  image::Preprocessing preprocessing = open_ai_preprocessing(image_size_px);
  read_hugging_face_size(fields, preprocessing);
  preprocessing.interpolation = read_resample(fields);
  if (fields.boolean("do_center_crop").value_or(true)) {
    fields.require_as_in_weights("crop_size", fields.square_side("crop_size"), image_size_px);
  }
  require_square(fields, preprocessing);

  preprocessing.rescale_factor =
      fields.boolean("do_rescale").value_or(true) ? read_rescale_factor(fields) : 1.0;
  if (fields.boolean("do_normalize").value_or(true)) {
    read_normalisation(fields, "image_mean", "image_std", preprocessing);
  } else {
    preprocessing.mean = {0.0F, 0.0F, 0.0F};
    preprocessing.standard_deviation = {1.0F, 1.0F, 1.0F};
  }
  return preprocessing;
}

image::Preprocessing read_open_clip_preprocessing(const json& preprocess_cfg, std::int64_t image_size_px,
                                                  const std::string& document) {
  const JsonFields fields(preprocess_cfg, document, "preprocess_cfg.");
  image::Preprocessing preprocessing = open_ai_preprocessing(image_size_px);
  fields.require_as_in_weights("size", fields.square_side("size"), image_size_px);
  if (const auto size = fields.square_side("resize_size")) preprocessing.resize_px = static_cast<int>(*size);
  if (fields.has("mode") && fields.text("mode") != "RGB") fields.fail("mode", "\"RGB\"");
  if (const auto name = fields.text("interpolation")) {
    preprocessing.interpolation = parse_filter(fields, "interpolation", *name);
  }
  if (const auto name = fields.text("resize_mode")) {
    if (*name != "shortest" && *name != "longest" && *name != "squash") {
      fields.fail("resize_mode", "\"shortest\", \"longest\" or \"squash\"");
    }
    preprocessing.resize_mode = image::parse_resize_mode(*name);
  }
  if (const auto color = channels(fields, "fill_color", 0.0, 255.0)) {
    for (std::size_t i = 0; i < color->size(); ++i) {
      preprocessing.fill_color[i] = static_cast<std::uint8_t>((*color)[i]);
    }
  }
  preprocessing.rescale_factor = read_rescale_factor(fields);
  if (fields.boolean("exif").value_or(false)) preprocessing.orientation = image::Orientation::kApplyExif;
  read_normalisation(fields, "mean", "std", preprocessing);
  return preprocessing;
}

image::Preprocessing preprocessing_from_json(const json& json, const std::string& document) {
  const auto size = JsonFields(json, document).square_side("size");
  return read_open_clip_preprocessing(json, size.value_or(image::Preprocessing{}.size_px), document);
}

}  // namespace clip_lora::model
