#include <nlohmann/json.hpp>

#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/shapes_drawing.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/io/atomic_file.hpp"

namespace clip_lora::data {
namespace {

std::string relative_path(int label, int number) {
  return shape_class_names().at(static_cast<std::size_t>(label)) + "/" + std::to_string(number) + ".png";
}

/// One picture, drawn from a random stream of its own, so that pictures can be drawn in any order.
image::Image draw_numbered(int label, int number, std::uint64_t seed, int size_px) {
  std::seed_seq stream{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                       static_cast<std::uint32_t>(label), static_cast<std::uint32_t>(number)};
  std::mt19937_64 generator(stream);
  const ShapeScene scene = random_shape_scene(label, generator);
  return draw_shape(scene, ShapeLook::kThermal, size_px, generator);
}

/// CoOp's entries [relative path, label, class name] of pictures begin … end − 1 of every class.
nlohmann::json split_entries(int begin, int end) {
  auto entries = nlohmann::json::array();
  const int labels = static_cast<int>(shape_class_names().size());
  for (int label = 0; label < labels; ++label) {
    for (int number = begin; number < end; ++number) {
      entries.push_back(
          {relative_path(label, number), label, shape_class_names()[static_cast<std::size_t>(label)]});
    }
  }
  return entries;
}

}  // namespace

void write_shapes_dataset(const std::filesystem::path& root_path, std::uint64_t seed,
                          const ShapesDatasetSize& size) {
  const std::filesystem::path folder = root_path / "shapes";
  const int per_class = size.train + size.val + size.test;
  const std::size_t pictures = shape_class_names().size() * static_cast<std::size_t>(per_class);
  parallel_for(pictures, hardware_workers(), [&](std::size_t index) {
    const int label = static_cast<int>(index) / per_class;
    const int number = static_cast<int>(index) % per_class;
    image::write_png(folder / "images" / relative_path(label, number),
                     draw_numbered(label, number, seed, size.size_px));
  });

  nlohmann::ordered_json split;
  split["train"] = split_entries(0, size.train);
  split["val"] = split_entries(size.train, size.train + size.val);
  split["test"] = split_entries(size.train + size.val, per_class);
  io::write_atomically(folder / "split_zhou_Shapes.json", split.dump() + "\n");
}

}  // namespace clip_lora::data
