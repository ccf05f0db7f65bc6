// Each operation of a training iteration by itself, at the shapes of ViT-B/16: 32 images of 197 tokens, and
// the packed prompts of `--classes` classes. The counter calls_per_iteration says how often an iteration
// makes the call, so that time times calls, added up, breaks an iteration down. Left out is what the last
// blocks do for the few rows that stand for their sequences.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/program.hpp"
#include "bench/step_inputs.hpp"
#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/ops/adamw.hpp"
#include "clip_lora/ops/classification.hpp"
#include "clip_lora/ops/layer_norm.hpp"
#include "clip_lora/ops/linear.hpp"
#include "clip_lora/ops/linear_gelu.hpp"
#include "clip_lora/ops/packing.hpp"
#include "clip_lora/ops/patches.hpp"
#include "clip_lora/ops/sequence_attention.hpp"

namespace {

using namespace clip_lora;
using bench::Settings;

constexpr std::int64_t kLayers = 12;
constexpr std::int64_t kEmbedding = 512;
constexpr std::int64_t kPatch = 16, kResolution = 224;
constexpr std::int64_t kImageTokens = 197;
constexpr std::int64_t kAdapterParameters = 184'320;
constexpr double kScaling = 0.70710678;  // γ of rank 2
constexpr int kCallsPerGraph = 20;

// The last block's products are of k and v alone, and the first needs no dX.
constexpr double kInputProducts = (kLayers - 1) + 2.0 / 3.0;

/// The operands of a tower's operations.
struct Tower {
  std::string name;
  std::int64_t width;
  ops::Packing packing;
  at::TensorOptions options;  // of the compute type
  ops::LayerNormWeights norm;
  ops::DownProjection down;

  std::int64_t heads() const { return width / 64; }
  at::Tensor rows(std::int64_t columns) const { return at::randn({packing.rows, columns}, options); }
  at::Tensor matrix(std::int64_t out, std::int64_t in) const { return at::randn({out, in}, options) * 0.02; }
  /// Room for parts that add up to gradients of `shape`.
  at::Tensor gradients(std::vector<std::int64_t> shape) const {
    shape.insert(shape.begin(), ops::gradient_parts(options.device()));
    return at::empty(shape, options.dtype(at::kFloat));
  }
  at::Tensor bias(std::int64_t size) const { return at::randn({size}, options) * 0.02; }
};

Tower make_tower(const std::string& name, std::int64_t width, ops::Packing packing,
                 const Settings& settings) {
  const auto options = at::TensorOptions(settings.device).dtype(settings.dtype);
  const auto float32 = options.dtype(at::kFloat);
  ops::DownProjection down;
  const std::int64_t rank = settings.rank;
  down.a = at::randn({3 * rank, width}, float32) * 0.02;
  down.ranks = {rank, rank, rank};
  down.columns = (3 * rank + 7) / 8 * 8;
  down.dropout.rate = 0.25;
  down.dropout.state = at::zeros({2}, options.dtype(at::kLong));
  return {name, width, std::move(packing), options, {at::ones({width}, options), at::zeros({width}, options)},
          down};
}

/// The prompts' own rows behind the ones that all begin with.
ops::Packing pack(const std::vector<std::vector<std::int64_t>>& prompts, at::Device device) {
  std::size_t prefix = 0;
  const auto& first = prompts.front();
  while (std::ranges::all_of(prompts, [&](const auto& ids) { return ids[prefix] == first[prefix]; }))
    ++prefix;
  std::vector<std::int64_t> own_lengths;
  for (const auto& ids : prompts) {
    const auto end = std::ranges::max_element(ids) - ids.begin();
    own_lengths.push_back(end + 1 - static_cast<std::int64_t>(prefix));
  }
  return ops::pack_prompts(own_lengths, static_cast<std::int64_t>(prefix), device);
}

/// Registers ops/<tower>/<name>. `prepare` makes the operands and returns the call.
void add(const std::string& name, double calls, const Settings& settings,
         const std::function<std::function<void()>()>& prepare) {
  const auto body = [=](benchmark::State& state) {
    const at::NoGradGuard no_grad;
    bench::guarded(state,
                   [&] { bench::report(state, bench::time_calls(settings, kCallsPerGraph, prepare())); });
    state.counters["calls_per_iteration"] = calls;
  };
  benchmark::RegisterBenchmark(("ops/" + name).c_str(), body)
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

void add_layer_norms(const Tower& t, const Settings& settings) {
  const auto add_pair = [&](const std::string& name, const ops::DownProjection& down, double calls) {
    add(t.name + "/" + name, calls, settings, [=] {
      const at::Tensor x = t.rows(t.width);
      return [=] { ops::layer_norm(x, t.norm, down); };
    });
    add(t.name + "/" + name + "_backward", calls, settings, [=] {
      const at::Tensor x = t.rows(t.width), residual = t.rows(t.width),
                       d_rows = t.rows(t.width + down.columns);
      const auto normalised = ops::layer_norm(x, t.norm, down);
      at::Tensor d_a;
      if (down.columns > 0) {
        d_a = t.gradients({down.a.size(0), t.width});
      }
      return [=] { ops::layer_norm_backward(d_rows, x, normalised, t.norm, down, residual, d_a, true); };
    });
  };
  add_pair("layer_norm_and_down", t.down, kLayers);
  add_pair("layer_norm", {}, kLayers - 1);
}

void add_product(const Tower& t, const std::string& name, std::int64_t out, std::int64_t in,
                 bool with_residual, double calls, const Settings& settings) {
  add(t.name + "/linear_" + name, calls, settings, [=] {
    const at::Tensor x = t.rows(in), weight = t.matrix(out, in), bias = t.bias(out);
    const at::Tensor residual = with_residual ? t.rows(out) : at::Tensor();
    return [=] { ops::linear(x, weight, bias, residual); };
  });
}

void add_product_backward(const Tower& t, const std::string& name, std::int64_t out, std::int64_t in,
                          double calls, const Settings& settings) {
  add(t.name + "/linear_" + name + "_backward", calls, settings, [=] {
    const at::Tensor dy = t.rows(out), weight = t.matrix(out, in);
    return [=] { ops::linear_backward(dy, weight); };
  });
}

/// c_fc with the activation, and the gradient through the activation and c_proj.
void add_activated_products(const Tower& t, const Settings& settings) {
  add(t.name + "/linear_gelu", kLayers - 1, settings, [=] {
    const at::Tensor x = t.rows(t.width), weight = t.matrix(4 * t.width, t.width), bias = t.bias(4 * t.width);
    return [=] { ops::linear_gelu(x, weight, bias, ops::Gelu::kQuick, /*keep_hidden=*/true); };
  });
  add(t.name + "/linear_gelu_backward", kLayers - 1, settings, [=] {
    const at::Tensor dy = t.rows(t.width), weight = t.matrix(t.width, 4 * t.width);
    const at::Tensor hidden = t.rows(4 * t.width);
    return [=] { ops::gelu_linear_backward(dy, weight, hidden, ops::Gelu::kQuick); };
  });
}

void add_products(const Tower& t, const Settings& settings) {
  const std::int64_t d = t.width;
  add_product(t, "in_proj", 3 * d, d + t.down.columns, false, kInputProducts, settings);
  add_product_backward(t, "in_proj", 3 * d, d + t.down.columns, kInputProducts, settings);
  add_product(t, "out_proj", d, d, true, kLayers - 1, settings);
  add_product_backward(t, "out_proj", d, d, kLayers - 1, settings);
  add_activated_products(t, settings);
  add_product_backward(t, "c_fc", 4 * d, d, kLayers - 1, settings);
  add_product(t, "c_proj", d, 4 * d, true, kLayers - 1, settings);
}

void add_attention(const Tower& t, const Settings& settings) {
  add(t.name + "/attention", kLayers - 1, settings, [=] {
    const at::Tensor qkv = t.rows(3 * t.width);
    return [=] { ops::attend(qkv, t.packing, t.heads()); };
  });
  add(t.name + "/attention_backward", kLayers - 1, settings, [=] {
    const at::Tensor qkv = t.rows(3 * t.width), d_rows = t.rows(t.width);
    const auto attended = ops::attend(qkv, t.packing, t.heads());
    return [=] { ops::attend_backward(d_rows, qkv, attended, t.packing, t.heads()); };
  });
  add(t.name + "/attention_at_ends", 1, settings, [=] {
    const at::Tensor q = at::randn({t.packing.sequences, t.width}, t.options), kv = t.rows(2 * t.width);
    return [=] { ops::attend_at_ends(q, kv, t.packing, t.heads()); };
  });
  add(t.name + "/attention_at_ends_backward", 1, settings, [=] {
    const at::Tensor q = at::randn({t.packing.sequences, t.width}, t.options), kv = t.rows(2 * t.width);
    const at::Tensor d_rows = at::randn_like(q);
    const auto attended = ops::attend_at_ends(q, kv, t.packing, t.heads());
    return [=] { ops::attend_at_ends_backward(d_rows, q, kv, attended, t.packing, t.heads()); };
  });
}

void add_up_gradient(const Tower& t, const Settings& settings) {
  add(t.name + "/up_gradient", kLayers, settings, [=] {
    const at::Tensor dy = t.rows(3 * t.width), rows = t.rows(t.width + t.down.columns);
    const at::Tensor d_b = t.gradients({t.width * t.down.a.size(0)});
    const at::Tensor columns = rows.narrow(1, t.width, t.down.columns);
    return [=] {
      ops::up_projection_gradient(dy, columns, t.down.ranks, {kScaling, kScaling, kScaling}, d_b);
    };
  });
}

void add_tower(const Tower& tower, const Settings& settings) {
  add_layer_norms(tower, settings);
  add_products(tower, settings);
  add_attention(tower, settings);
  add_up_gradient(tower, settings);
}

void add_classification(std::int64_t classes, const Settings& settings) {
  add("head/classification_loss", 1, settings, [=] {
    const auto options = at::TensorOptions(settings.device).dtype(settings.dtype);
    const at::Tensor images = at::randn({bench::kBatch, kEmbedding}, options);
    const at::Tensor texts = at::randn({classes, kEmbedding}, options);
    const at::Tensor labels = at::randint(classes, {bench::kBatch}, options.dtype(at::kLong));
    return [=] { ops::classification_loss(images, texts, labels, {}, true, true); };
  });
}

void add_optimiser(const Tower& tower, const Settings& settings) {
  const auto float32 = tower.options.dtype(at::kFloat);
  add("head/adamw", 1, settings, [=] {
    const auto buffer = [&] { return at::zeros({kAdapterParameters}, float32); };
    const ops::AdamWState state = {buffer(), buffer(), buffer(), buffer(),
                                   at::ones({4}, tower.options.dtype(at::kDouble))};
    return [=] { ops::adamw_step(state, {.total_iterations = 1'000'000}, {}); };
  });
  add("head/write_up_columns", 1, settings, [=] {
    const std::int64_t rank = settings.rank, count = std::int64_t{3} * 2 * kLayers;  // of both towers
    std::vector<ops::UpColumns> all;
    for (std::int64_t i = 0; i < count; ++i) {
      const at::Tensor weight = tower.matrix(tower.width, tower.width + tower.down.columns);
      all.push_back({i * tower.width * rank, kScaling, weight.narrow(1, tower.width, rank)});
    }
    const at::Tensor parameters = at::zeros({count * tower.width * rank}, float32);
    const auto writer = std::make_shared<ops::UpColumnsWriter>(std::move(all));
    return [=] { writer->write(parameters); };
  });
}

void add_images(const Settings& settings) {
  add("images/resized_views", 1, settings, [=] {
    const at::Tensor pictures = bench::random_pictures(settings);
    std::mt19937_64 generator(1);
    const at::Tensor requests = bench::random_requests(generator).to(settings.device);
    return [=] { ops::resized_views(pictures, requests, kResolution, bench::kPictureWidth); };
  });
  add("images/patch_rows", 1, settings, [=] {
    const auto bytes = at::TensorOptions(settings.device).dtype(at::kByte);
    const at::Tensor pixels = at::randint(256, {bench::kBatch, kResolution, kResolution, 3}, bytes);
    const auto normalisation = engine::normalisation_of({});
    return [=] { ops::patch_rows(pixels, kPatch, normalisation, settings.dtype); };
  });
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t classes = 1000;
  const auto add_flags = [&](CLI::App& app) {
    app.add_option("--classes", classes, "prompts of the text tower")
        ->check(CLI::Range(2, 1000))
        ->capture_default_str();
  };
  const auto add_benchmarks = [&](const Settings& settings) {
    const Tower vision =
        make_tower("vision", 768, ops::pack_images(bench::kBatch, kImageTokens, settings.device), settings);
    const Tower text =
        make_tower("text", 512, pack(bench::imagenet_prompts(classes), settings.device), settings);
    add_images(settings);
    add_tower(vision, settings);
    add_tower(text, settings);
    add_classification(classes, settings);
    add_optimiser(vision, settings);
    benchmark::AddCustomContext("classes", std::to_string(classes));
  };
  return bench::run_program(argc, argv, "Times the operations of a training iteration.", add_benchmarks,
                            add_flags);
}
