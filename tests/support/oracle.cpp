#include "support/oracle.hpp"

#include <torch/torch.h>

#include <cmath>
#include <numbers>
#include <string>

namespace clip_lora::testing {
namespace {

using at::indexing::Slice;

constexpr double kLogitScale = 100.0;
constexpr std::int64_t kHeadWidth = 64;

at::Tensor weight(const OracleModel& model, const std::string& name) { return model.weights.at(name); }

/// The matrix W + γ B A of the projection `name`, or W where it has no update. w: [D, D].
at::Tensor updated(const OracleModel& model, const std::string& name, const at::Tensor& w) {
  const auto a = model.lora.find(name + ".w_lora_A");
  if (a == model.lora.end()) return w;
  return w + model.scaling * model.lora.at(name + ".w_lora_B").matmul(a->second);
}

at::Tensor layer_norm(const OracleModel& model, const std::string& name, const at::Tensor& x) {
  const auto centred = x - x.mean(-1, /*keepdim=*/true);
  const auto variance = (centred * centred).mean(-1, /*keepdim=*/true);
  return centred / (variance + 1e-5).sqrt() * weight(model, name + ".weight") + weight(model, name + ".bias");
}

/// x: [L, D].
at::Tensor attention(const OracleModel& model, const std::string& name, const at::Tensor& x, bool causal) {
  const auto length = x.size(0), width = x.size(1);
  const auto in_weight = weight(model, name + ".in_proj_weight").chunk(3, 0);
  const auto in_bias = weight(model, name + ".in_proj_bias").chunk(3, 0);
  const auto q = x.matmul(updated(model, name + ".q_proj", in_weight[0]).t()) + in_bias[0];
  const auto k = x.matmul(updated(model, name + ".k_proj", in_weight[1]).t()) + in_bias[1];
  const auto v = x.matmul(updated(model, name + ".v_proj", in_weight[2]).t()) + in_bias[2];

  auto mask = at::zeros({length, length}, x.options());  // row: who looks, column: at whom
  if (causal) mask = at::full_like(mask, -INFINITY).triu(1);
  std::vector<at::Tensor> heads;
  for (std::int64_t begin = 0; begin < width; begin += kHeadWidth) {
    const auto columns = Slice(begin, begin + kHeadWidth);
    const auto scores =
        q.index({Slice(), columns}).matmul(k.index({Slice(), columns}).t()) / std::sqrt(kHeadWidth);
    heads.push_back((scores + mask).softmax(-1).matmul(v.index({Slice(), columns})));
  }
  const auto out_weight = updated(model, name + ".proj", weight(model, name + ".out_proj.weight"));
  return at::cat(heads, 1).matmul(out_weight.t()) + weight(model, name + ".out_proj.bias");
}

at::Tensor mlp(const OracleModel& model, const std::string& name, const at::Tensor& x) {
  const auto hidden = x.matmul(weight(model, name + ".c_fc.weight").t()) + weight(model, name + ".c_fc.bias");
  const auto activated = hidden * (1.702 * hidden).sigmoid();
  return activated.matmul(weight(model, name + ".c_proj.weight").t()) + weight(model, name + ".c_proj.bias");
}

at::Tensor transformer(const OracleModel& model, const std::string& tower, at::Tensor x, bool causal) {
  for (int block = 0;; ++block) {
    const auto name = tower + "transformer.resblocks." + std::to_string(block);
    if (!model.weights.contains(name + ".ln_1.weight")) return x;
    x = x + attention(model, name + ".attn", layer_norm(model, name + ".ln_1", x), causal);
    x = x + mlp(model, name + ".mlp", layer_norm(model, name + ".ln_2", x));
  }
}

/// image: [3, R, R]; returns [E].
at::Tensor encode_image(const OracleModel& model, const at::Tensor& image) {
  const auto kernel = weight(model, "visual.conv1.weight");  // [D, 3, patch, patch]
  const auto patch = kernel.size(-1);
  std::vector<at::Tensor> tokens = {weight(model, "visual.class_embedding")};
  for (std::int64_t top = 0; top < image.size(1); top += patch) {
    for (std::int64_t left = 0; left < image.size(2); left += patch) {
      const auto pixels = image.index({Slice(), Slice(top, top + patch), Slice(left, left + patch)});
      tokens.push_back((kernel * pixels).sum({1, 2, 3}));
    }
  }
  auto x = at::stack(tokens) + weight(model, "visual.positional_embedding");  // [L, D]
  x = transformer(model, "visual.", layer_norm(model, "visual.ln_pre", x), /*causal=*/false);
  return layer_norm(model, "visual.ln_post", x[0]).matmul(weight(model, "visual.proj"));
}

/// ids: [context]; returns [E].
at::Tensor encode_text(const OracleModel& model, const at::Tensor& ids) {
  auto x = weight(model, "token_embedding.weight").index({ids}) + weight(model, "positional_embedding");
  x = layer_norm(model, "ln_final", transformer(model, "", x, /*causal=*/true));
  return x[ids.argmax().item<std::int64_t>()].matmul(weight(model, "text_projection"));
}

io::StateDict in_float64(const io::StateDict& tensors) {
  io::StateDict result;
  for (const auto& [name, tensor] : tensors)
    result[name] = tensor.detach().cpu().to(at::kDouble, false, /*copy=*/true);
  return result;
}

OracleModel in_float64(const OracleModel& model) {
  return {in_float64(model.weights), in_float64(model.lora), model.scaling};
}

}  // namespace

at::Tensor oracle_image_features(const OracleModel& model, const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  const auto exact = in_float64(model);
  std::vector<at::Tensor> features;
  for (const auto& image : images.to(at::kDouble).unbind()) features.push_back(encode_image(exact, image));
  return at::stack(features);
}

at::Tensor oracle_text_features(const OracleModel& model, const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  const auto exact = in_float64(model);
  std::vector<at::Tensor> features;
  for (const auto& row : ids.to(at::kLong).unbind()) features.push_back(encode_text(exact, row));
  return at::stack(features);
}

at::Tensor oracle_cosine(const at::Tensor& image_features, const at::Tensor& text_features) {
  const auto length = [](const at::Tensor& x) { return (x * x).sum(-1, /*keepdim=*/true).sqrt(); };
  return (image_features / length(image_features)).matmul((text_features / length(text_features)).t());
}

OracleGradients oracle_gradients(const OracleModel& model, const at::Tensor& images, const at::Tensor& ids,
                                 const at::Tensor& labels, const OracleLoss& options) {
  auto exact = in_float64(model);
  for (auto& [name, tensor] : exact.lora) tensor.requires_grad_();
  std::vector<at::Tensor> image_features, text_features;
  for (const auto& image : images.to(at::kDouble).unbind())
    image_features.push_back(encode_image(exact, image));
  for (const auto& of_class : ids.to(at::kLong).split(options.prompts_per_class)) {
    at::Tensor sum = at::zeros({weight(exact, "text_projection").size(1)}, at::kDouble);
    for (const auto& row : of_class.unbind()) {
      const auto features = encode_text(exact, row);
      sum = sum + features / features.square().sum().sqrt();
    }
    text_features.push_back(sum);
  }
  const auto cosine = oracle_cosine(at::stack(image_features), at::stack(text_features));
  const auto log_probability = (kLogitScale * cosine).log_softmax(-1);
  at::Tensor loss = at::zeros({}, at::kDouble);
  double weights = 0.0;
  for (std::int64_t i = 0; i < labels.size(0); ++i) {
    const auto label = labels[i].item<std::int64_t>();
    const double of_class =
        options.class_weights.empty() ? 1.0 : options.class_weights[static_cast<std::size_t>(label)];
    loss = loss - of_class * log_probability[i][label];
    weights += of_class;
  }
  loss = loss / weights;

  OracleGradients result{cosine.detach(), loss.item<double>(), {}};
  if (loss.requires_grad()) loss.backward();
  for (const auto& [name, tensor] : exact.lora) result.gradients[name] = tensor.grad();
  return result;
}

double oracle_learning_rate(const OracleOptimiser& optimiser, std::int64_t iteration, std::int64_t total) {
  const double angle = std::numbers::pi * static_cast<double>(iteration) / static_cast<double>(total);
  const double range = optimiser.learning_rate - optimiser.final_learning_rate;
  return optimiser.final_learning_rate + range * (1.0 + std::cos(angle)) / 2.0;
}

OracleTrajectory oracle_trajectory(const OracleModel& model, const at::Tensor& images, const at::Tensor& ids,
                                   const at::Tensor& labels, const OracleOptimiser& optimiser) {
  auto current = in_float64(model);
  io::StateDict first_moments, second_moments;
  for (const auto& [name, tensor] : current.lora) {
    first_moments[name] = second_moments[name] = at::zeros_like(tensor);
  }
  OracleTrajectory result;
  const auto total = images.size(0);
  for (std::int64_t iteration = 0; iteration < total; ++iteration) {
    const auto step = oracle_gradients(current, images[iteration], ids, labels[iteration]);
    const double rate = oracle_learning_rate(optimiser, iteration, total);
    result.losses.push_back(step.loss);
    result.learning_rates.push_back(rate);
    const double correction1 = 1.0 - std::pow(optimiser.beta1, iteration + 1);
    const double correction2 = 1.0 - std::pow(optimiser.beta2, iteration + 1);
    for (auto& [name, parameter] : current.lora) {
      const auto& gradient = step.gradients.at(name);
      auto& m = first_moments[name];
      auto& v = second_moments[name];
      m = optimiser.beta1 * m + (1.0 - optimiser.beta1) * gradient;
      v = optimiser.beta2 * v + (1.0 - optimiser.beta2) * gradient * gradient;
      const auto direction = (m / correction1) / ((v / correction2).sqrt() + optimiser.epsilon);
      parameter = parameter - rate * optimiser.weight_decay * parameter - rate * direction;
    }
  }
  result.lora = current.lora;
  return result;
}

}  // namespace clip_lora::testing
