// Pictures, for the tests and the comparison of speed in Python: pixels, sizes, tensors.
#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "clip_lora/core/parallel.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "peer/driver.hpp"

namespace clip_lora::testing {
namespace {

image::Preprocessing preprocessing_from(const Json& json) {
  image::Preprocessing preprocessing;
  preprocessing.size_px = json.at("size_px");
  preprocessing.resize_px = json.at("resize_px");
  preprocessing.resize_mode = image::parse_resize_mode(json.at("resize_mode"));
  preprocessing.interpolation = image::parse_interpolation(json.at("interpolation"));
  preprocessing.fill_color.fill(json.at("fill_color"));
  return preprocessing;
}

template <typename Value>
void write_values(const std::string& path, const std::vector<Value>& values) {
  std::ofstream out(path, std::ios::binary);
  out.exceptions(std::ios::badbit | std::ios::failbit);
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(Value)));
}

/// {"image": file, "out": file, "preprocessing": {…} or null, "exif": whether it is obeyed} → {"height",
/// "width"} of the decoded picture, or of its view for the evaluation; the bytes of its rows go to `out`.
Json pixels(const Json& request) {
  const auto orientation =
      request.at("exif").get<bool>() ? image::Orientation::kApplyExif : image::Orientation::kIgnoreExif;
  image::Image image = image::decode_image(request.at("image").get<std::string>(), orientation);
  if (!request.at("preprocessing").is_null()) {
    image = image::evaluation_view(image, preprocessing_from(request.at("preprocessing")));
  }
  write_values(request.at("out"), image.rgb);
  return {{"height", image.height}, {"width", image.width}};
}

/// {"image": file} → {"height", "width"} by its header.
Json size(const Json& request) {
  const image::ImageSize size = image::read_image_size(request.at("image").get<std::string>());
  return {{"height", size.height}, {"width", size.width}};
}

/// [3, 224, 224] of OpenAI's preprocessing.
std::vector<float> tensor_of(const std::string& path) {
  const image::Preprocessing preprocessing;
  const image::Image view = image::load_evaluation_view(path, preprocessing);
  std::vector<float> tensor(view.rgb.size());
  image::normalise_chw(view.rgb, preprocessing, tensor.data());
  return tensor;
}

/// {"image": file, "out": file} → {}; its tensor's values go to `out`.
Json tensor(const Json& request) {
  write_values(request.at("out"), tensor_of(request.at("image")));
  return Json::object();
}

/// {"images": files, "threads"} → {"seconds"} from the files to all tensors, each of which one thread makes.
Json time_tensors(const Json& request) {
  const auto paths = request.at("images").get<std::vector<std::string>>();
  const auto start = std::chrono::steady_clock::now();
  parallel_for(paths.size(), request.at("threads"), [&](std::size_t i) { tensor_of(paths[i]); });
  return {{"seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()}};
}

}  // namespace
}  // namespace clip_lora::testing

int main() {
  using namespace clip_lora::testing;
  return serve({{"pixels", pixels}, {"size", size}, {"tensor", tensor}, {"time_tensors", time_tensors}});
}
