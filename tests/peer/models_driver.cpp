// Checkpoints and adapters, for the tests in Python: the features that a model gives.
#include <ATen/ATen.h>

#include <chrono>
#include <optional>

#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "peer/driver.hpp"

namespace clip_lora::testing {
namespace {

model::LoadedClip load(const Json& request) {
  std::optional<model::Activation> activation;
  if (request.contains("activation")) activation = model::parse_activation(request.at("activation"));
  return model::load_clip(io::read_checkpoint_files(request.at("checkpoint").get<std::string>()), activation);
}

model::Prompts prompts_from(const at::Tensor& tokens) {  // [C, L] int64
  std::vector<std::vector<std::int64_t>> rows;
  for (const at::Tensor& row : tokens.contiguous().unbind()) {
    rows.emplace_back(row.const_data_ptr<std::int64_t>(), row.const_data_ptr<std::int64_t>() + row.numel());
  }
  return model::make_prompts(rows);
}

Json described(const model::LoadedClip& loaded) {
  const image::Preprocessing& preprocessing = loaded.preprocessing;
  return {{"naming", model::to_string(loaded.naming)},
          {"warnings", loaded.warnings},
          {"fingerprint", model::fingerprint(loaded.clip)},
          {"size_px", preprocessing.size_px},
          {"resize_px", preprocessing.resize_px},
          {"resize_mode", image::to_string(preprocessing.resize_mode)},
          {"interpolation", image::to_string(preprocessing.interpolation)},
          {"fill_color", preprocessing.fill_color},
          {"rescale_factor", preprocessing.rescale_factor},
          {"mean", preprocessing.mean},
          {"std", preprocessing.standard_deviation}};
}

/// {"checkpoint", "activation"?, "adapter"?, "merged"?, "inputs": safetensors file with `images` [B, 3, R, R]
/// float32 and `tokens` [C, L] int64, "out": safetensors file for `image_features` [B, E], `text_features`
/// [C, E], `logit_scale` []} → what the checkpoint says about using it.
Json features(const Json& request) {
  model::LoadedClip loaded = load(request);
  std::optional<lora::MergedScope> merged;
  if (request.contains("adapter")) {
    const lora::LoadedAdapter adapter = lora::load_adapter(request.at("adapter").get<std::string>(),
                                                           loaded.clip, model::fingerprint(loaded.clip));
    if (request.value("merged", false)) {
      merged.emplace(loaded.clip, *adapter.adapter, adapter.scale);
    } else {
      adapter.adapter->attach(loaded.clip);
    }
  }
  const at::NoGradGuard no_gradients;
  const io::StateDict inputs = io::read_safetensors(request.at("inputs").get<std::string>()).tensors;
  const io::StateDict outputs = {
      {"image_features", loaded.clip->encode_image(inputs.at("images"))},
      {"text_features", loaded.clip->encode_text(prompts_from(inputs.at("tokens")))},
      {"logit_scale", loaded.clip->logit_scale}};
  io::write_safetensors(request.at("out").get<std::string>(), outputs);
  return described(loaded);
}

/// {} → {}, once the program has started.
Json ready(const Json&) { return Json::object(); }

/// {"checkpoint"} → {"seconds" until every parameter is in memory in float32, "checksum": their sum, to
/// compare}.
Json time_loading(const Json& request) {
  const auto start = std::chrono::steady_clock::now();
  const model::LoadedClip loaded = load(request);
  at::Tensor checksum = at::zeros({}, at::kDouble);
  for (const auto& parameter : loaded.clip->parameters()) checksum += parameter.sum(at::kDouble);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return {{"seconds", seconds.count()}, {"checksum", checksum.item<double>()}};
}

}  // namespace
}  // namespace clip_lora::testing

int main() {
  using namespace clip_lora::testing;
  return serve({{"features", features}, {"ready", ready}, {"time_loading", time_loading}});
}
