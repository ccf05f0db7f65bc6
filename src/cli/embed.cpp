#include "clip_lora/cli/embed.hpp"

#include <ATen/ATen.h>

#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "adapted_model.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/model/naming.hpp"
#include "clip_lora/ops/elementwise.hpp"
#include "npy.hpp"
#include "output_files.hpp"
#include "picture_pass.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTensorName = "image_features";

/// The pictures' features and names, row by row.
struct Embedded {
  at::Tensor features;  ///< [N, E] float32 on the CPU
  std::vector<std::string> files;
};

fs::path list_beside(const fs::path& out) { return out.string() + ".json"; }

/// [B, E] float32 on the CPU.
at::Tensor features_of(AdaptedModel& model, const at::Tensor& pixels, bool raw) {
  const at::Tensor features = model.encoder().encode(pixels);
  return (raw ? features : ops::l2_normalise(features)).cpu();
}

Embedded embed_all(PicturePass& pass, AdaptedModel& model, bool raw) {
  Embedded all;
  std::vector<at::Tensor> batches = {
      at::empty({0, model.model().loaded.clip->architecture().embedding}, at::kFloat)};
  while (const auto batch = pass.next()) {
    batches.push_back(features_of(model, batch->pixels, raw));
    all.files.insert(all.files.end(), batch->paths.begin(), batch->paths.end());
  }
  all.features = at::cat(batches);
  return all;
}

nlohmann::ordered_json description(const EmbedOptions& options, const AdaptedModel& model,
                                   const Embedded& all) {
  return {{"features", fs::path(options.out).filename().string()},
          {"tensor", kTensorName},
          {"shape", all.features.sizes().vec()},
          {"normalised", !options.raw},
          {"model", model.model().backbone},
          {"fingerprint", model.model().fingerprint},
          {"adapter", options.pictures.adapter},
          {"preprocessing", model::to_json(model.preprocessing())},
          {"files", all.files}};
}

void write(const EmbedOptions& options, const AdaptedModel& model, const Embedded& all) {
  if (all.files.empty()) {
    throw DataError("there is no picture that can be read: '" + options.out + "' was not written");
  }
  const fs::path out = options.out;
  write_files({out, list_beside(out)}, [&](const fs::path& folder) {
    if (out.extension() == ".npy") {
      write_npy(folder / out.filename(), all.features);
    } else {
      io::write_safetensors(folder / out.filename(), {{kTensorName, all.features}});
    }
    io::write_atomically(folder / list_beside(out).filename(),
                         io::json_text(description(options, model, all), 1) + "\n");
  });
}

}  // namespace

std::int64_t embed(const EmbedOptions& options) {
  options.validate();
  set_up(options.pictures.compute);
  require_free({options.out, list_beside(options.out)}, options.force);
  require_writable_file(options.out);
  AdaptedModel model(options.pictures);
  PicturePass pass(options.pictures, model.preprocessing(), /*excluded=*/{}, /*is_shown=*/false);
  const bool quiet = options.pictures.compute.quiet;
  if (!quiet) model.print_header(std::cout);
  try {
    write(options, model, embed_all(pass, model, options.raw));
  } catch (const Interrupted& interrupted) {
    throw Interrupted(interrupted.signal_number(), "interrupted: '" + options.out + "' was not written");
  }
  if (!quiet) {
    pass.print_summary(std::cout, "embedded");
    std::cout << "saved      " << options.out << "   and the list of pictures in "
              << list_beside(options.out).string() << std::endl;
  }
  pass.report_skipped();
  return pass.skipped();
}

}  // namespace clip_lora::cli
