#include "clip_lora/ops/contrastive.hpp"

#include <ATen/ATen.h>

#include "unit_vectors.hpp"

namespace clip_lora::ops {
namespace {

/// What the pairs of a batch are to each other; both matrices [B, B].
struct Pairs {
  at::Tensor targets;  ///< what row i gives to each j: its labels' softened, shared distribution
  at::Tensor margins;  ///< added to the cosines; undefined: nothing is
};

/// Without labels: each pair its own class, ε spread over all B.
Pairs unlabelled_pairs(std::int64_t count, double label_smoothing, const at::TensorOptions& type) {
  const at::Tensor targets = at::eye(count, type).mul_(1.0 - label_smoothing);
  return {targets.add_(label_smoothing / static_cast<double>(count)), {}};
}

/// 1 − ε shared by those of i's label, ε by the others, who are kept at a distance by the margin.
Pairs labelled_pairs(const at::Tensor& labels, const ContrastiveOptions& options,
                     const at::TensorOptions& type) {
  const at::Tensor others = labels.unsqueeze(1).ne(labels).to(type);  // [B, B]
  const at::Tensor positives = 1.0 - others;
  const at::Tensor other_count =
      others.sum(1, /*keepdim=*/true).clamp_min_(1.0);  // a row without any has no ε
  Pairs pairs;
  pairs.targets = positives * ((1.0 - options.label_smoothing) / positives.sum(1, /*keepdim=*/true));
  pairs.targets.addcdiv_(others, other_count, options.label_smoothing);
  if (options.margin != 0.0) pairs.margins = others * options.margin;
  return pairs;
}

/// The mean cross-entropy of logits [B, B] by rows, and its gradient in them.
struct CrossEntropy {
  at::Tensor loss;
  at::Tensor d_logits;  ///< undefined unless asked for
};

CrossEntropy cross_entropy(const at::Tensor& logits, const at::Tensor& targets, bool needs_gradient) {
  const at::Tensor log_probabilities = at::log_softmax(logits, 1);
  const auto rows = static_cast<double>(logits.size(0));
  CrossEntropy result;
  result.loss = log_probabilities.mul(targets).sum().div_(-rows);
  if (!needs_gradient) return result;
  // A row's targets sum to 1 − ε where it has no others.
  result.d_logits = log_probabilities.exp().mul_(targets.sum(1, /*keepdim=*/true));
  result.d_logits.sub_(targets).div_(rows);
  return result;
}

void check(const at::Tensor& image_features, const at::Tensor& text_features, const at::Tensor& labels) {
  TORCH_CHECK(image_features.dim() == 2 && image_features.sizes() == text_features.sizes() &&
                  image_features.scalar_type() == text_features.scalar_type(),
              "contrastive_loss: image features ", image_features.sizes(), " ", image_features.scalar_type(),
              " are no pairs with text features ", text_features.sizes(), " ", text_features.scalar_type());
  TORCH_CHECK(!labels.defined() || (labels.dim() == 1 && labels.size(0) == image_features.size(0) &&
                                    labels.scalar_type() == at::kLong),
              "contrastive_loss: expected an int64 label for each of ", image_features.size(0), " pairs");
}

}  // namespace

ContrastiveLoss contrastive_loss(const at::Tensor& image_features, const at::Tensor& text_features,
                                 const at::Tensor& labels, const ContrastiveOptions& options,
                                 bool needs_image_gradient, bool needs_text_gradient) {
  check(image_features, text_features, labels);
  const at::ScalarType features_type = image_features.scalar_type();
  // The factor on cosines magnifies rounding, and on a CPU float64 costs nothing beside the towers.
  const at::ScalarType type = image_features.is_cpu() ? at::kDouble : at::kFloat;
  const UnitVectors images = unit_vectors(image_features.to(type));  // [B, E]
  const UnitVectors texts = unit_vectors(text_features.to(type));
  const at::TensorOptions in_type = images.vectors.options();
  const Pairs pairs = labels.defined()
                          ? labelled_pairs(labels, options, in_type)
                          : unlabelled_pairs(images.vectors.size(0), options.label_smoothing, in_type);

  at::Tensor logits = at::mm(images.vectors, texts.vectors.t());  // [B, B]
  if (pairs.margins.defined()) logits.add_(pairs.margins);
  logits.mul_(options.logit_scale);
  const bool needs_gradient = needs_image_gradient || needs_text_gradient;
  // Margins are symmetric, so that the texts' logits are the images' transposed.
  const CrossEntropy of_images = cross_entropy(logits, pairs.targets, needs_gradient);
  const CrossEntropy of_texts = cross_entropy(logits.t(), pairs.targets, needs_gradient);
  ContrastiveLoss result;
  result.loss = (of_images.loss + of_texts.loss).mul_(0.5).to(at::promote_types(features_type, at::kFloat));
  if (!needs_gradient) return result;

  at::Tensor d_cosines = (of_images.d_logits + of_texts.d_logits.t()).mul_(0.5 * options.logit_scale);
  if (options.loss_scale.defined()) d_cosines.mul_(options.loss_scale);
  if (needs_image_gradient) {
    const at::Tensor d_units = at::mm(d_cosines, texts.vectors);
    result.d_image_features = unit_vectors_backward(d_units, images).to(features_type);
  }
  if (needs_text_gradient) {
    const at::Tensor d_units = at::mm(d_cosines.t(), images.vectors);
    result.d_text_features = unit_vectors_backward(d_units, texts).to(features_type);
  }
  return result;
}

}  // namespace clip_lora::ops
