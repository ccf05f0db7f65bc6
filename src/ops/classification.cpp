#include "clip_lora/ops/classification.hpp"

#include <ATen/ATen.h>

#include "unit_vectors.hpp"

#ifdef CLIP_LORA_WITH_CUDA
#include "classification_kernels.hpp"
#include "on_cuda.hpp"
#endif

namespace clip_lora::ops {
namespace {

/// Each image's share of the loss: its class's weight over the sum of all images'. [B, 1]
at::Tensor shares(const at::Tensor& labels, const at::Tensor& class_weights, const at::TensorOptions& type) {
  if (!class_weights.defined())
    return at::full({labels.size(0), 1}, 1.0 / static_cast<double>(labels.size(0)), type);
  const at::Tensor weights = class_weights.to(type).index_select(0, labels);
  return (weights / weights.sum()).unsqueeze(1);
}

ClassificationLoss classification_loss_definition(const at::Tensor& image_features,
                                                  const at::Tensor& text_features, const at::Tensor& labels,
                                                  const ClassificationOptions& options,
                                                  bool needs_image_gradient, bool needs_text_gradient) {
  // The factor on cosines magnifies rounding, and on a CPU float64 costs nothing beside the towers.
  const at::ScalarType type = image_features.is_cpu() ? at::kDouble : at::kFloat;
  const std::int64_t per_class = options.prompts_per_class, width = text_features.size(1);
  const UnitVectors images = unit_vectors(image_features.to(type));                               // [B, E]
  const UnitVectors prompts = unit_vectors(text_features.to(type).view({-1, per_class, width}));  // [C, T, E]
  // The mean of one unit vector is that vector, whose norm may differ from 1 by rounding only.
  const UnitVectors classes =
      per_class == 1 ? UnitVectors{prompts.vectors.squeeze(1), {}} : unit_vectors(prompts.vectors.mean(1));

  const at::Tensor logits = at::mm(images.vectors, classes.vectors.t()).mul_(options.logit_scale);  // [B, C]
  const at::Tensor log_probabilities = at::log_softmax(logits, 1);
  const at::Tensor share = shares(labels, options.class_weights, logits.options());
  const at::Tensor targets = labels.unsqueeze(1);
  ClassificationLoss result;
  result.loss = log_probabilities.gather(1, targets)
                    .mul(share)
                    .sum()
                    .neg()
                    .to(at::promote_types(image_features.scalar_type(), at::kFloat));
  if (!needs_image_gradient && !needs_text_gradient) return result;

  at::Tensor d_cosines = log_probabilities.exp();  // [B, C]
  d_cosines.scatter_add_(1, targets, at::full_like(share, -1.0)).mul_(share * options.logit_scale);
  if (options.loss_scale.defined()) d_cosines.mul_(options.loss_scale);
  if (needs_image_gradient) {
    const at::Tensor d_units = at::mm(d_cosines, classes.vectors);
    result.d_image_features = unit_vectors_backward(d_units, images).to(image_features.scalar_type());
  }
  if (needs_text_gradient) {
    at::Tensor d_units = at::mm(d_cosines.t(), images.vectors);  // [C, E]
    if (per_class > 1) d_units = unit_vectors_backward(d_units, classes).div_(static_cast<double>(per_class));
    result.d_text_features = unit_vectors_backward(d_units.unsqueeze(1), prompts)
                                 .view({-1, width})
                                 .to(text_features.scalar_type());
  }
  return result;
}

}  // namespace

#ifdef CLIP_LORA_WITH_CUDA
namespace on_cuda {
namespace {

/// Above so many logits, cuBLAS's products are faster than the kernels' and the definition's launches do not
/// matter.
constexpr std::int64_t kMostLogits = 1 << 20;

bool fits(const at::Tensor& image_features, const at::Tensor& text_features,
          const ClassificationOptions& options) {
  const auto readable = [](const at::Tensor& x) {
    return x.scalar_type() != at::kDouble && x.size(1) % 8 == 0 &&
           reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0;
  };
  return options.prompts_per_class == 1 && image_features.size(0) * text_features.size(0) <= kMostLogits &&
         image_features.numel() > 0 && text_features.numel() > 0 && readable(image_features) &&
         readable(text_features);
}

ClassificationLoss classification_loss(const at::Tensor& image_features, const at::Tensor& text_features,
                                       const at::Tensor& labels, const ClassificationOptions& options,
                                       bool needs_image_gradient, bool needs_text_gradient) {
  const std::int64_t images = image_features.size(0), classes = text_features.size(0);
  const auto pointer_or_null = [](const at::Tensor& x) {
    return x.defined() ? x.const_data_ptr<float>() : nullptr;
  };
  ClassificationProblem problem;
  problem.image_features = image_features.const_data_ptr();
  problem.text_features = text_features.const_data_ptr();
  problem.labels = labels.const_data_ptr<std::int64_t>();
  problem.class_weights = pointer_or_null(options.class_weights);
  problem.loss_scale = pointer_or_null(options.loss_scale);
  problem.logit_scale = static_cast<float>(options.logit_scale);
  problem.images = static_cast<int>(images);
  problem.classes = static_cast<int>(classes);
  problem.width = static_cast<int>(image_features.size(1));
  problem.element = element_of(image_features);

  const at::TensorOptions in_float32 = image_features.options().dtype(at::kFloat);
  const at::Tensor buffer = at::empty({2 * images * classes + classes + 3 * images}, in_float32);
  ClassificationScratch scratch;
  scratch.products = buffer.mutable_data_ptr<float>();
  scratch.d_cosines = scratch.products + images * classes;
  scratch.inverse_text_norms = scratch.d_cosines + images * classes;
  scratch.inverse_image_norms = scratch.inverse_text_norms + classes;
  scratch.projections = scratch.inverse_image_norms + images;
  scratch.losses = scratch.projections + images;

  ClassificationLoss result;
  result.loss = at::empty({}, in_float32);
  ClassificationResults results{result.loss.mutable_data_ptr<float>()};
  if (needs_image_gradient) {
    result.d_image_features = at::empty_like(image_features);
    results.d_image_features = result.d_image_features.mutable_data_ptr();
  }
  if (needs_text_gradient) {
    result.d_text_features = at::empty_like(text_features);
    results.d_text_features = result.d_text_features.mutable_data_ptr();
  }
  launch_classification(problem, scratch, results, current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return result;
}

}  // namespace
}  // namespace on_cuda
#endif

ClassificationLoss classification_loss(const at::Tensor& image_features, const at::Tensor& text_features,
                                       const at::Tensor& labels, const ClassificationOptions& options,
                                       bool needs_image_gradient, bool needs_text_gradient) {
  TORCH_CHECK(image_features.dim() == 2 && text_features.dim() == 2 &&
                  image_features.size(1) == text_features.size(1),
              "classification_loss: image features ", image_features.sizes(), " do not fit text features ",
              text_features.sizes());
  TORCH_CHECK(image_features.scalar_type() == text_features.scalar_type(),
              "classification_loss: features of one type expected");
  TORCH_CHECK(
      labels.dim() == 1 && labels.size(0) == image_features.size(0) && labels.scalar_type() == at::kLong,
      "classification_loss: expected an int64 label for each of ", image_features.size(0), " images");
  TORCH_CHECK(options.prompts_per_class >= 1 && text_features.size(0) % options.prompts_per_class == 0,
              "classification_loss: ", text_features.size(0), " prompts are not ", options.prompts_per_class,
              " for each class");
  TORCH_CHECK(!options.class_weights.defined() ||
                  options.class_weights.numel() * options.prompts_per_class == text_features.size(0),
              "classification_loss: expected a weight for each class");
  const at::Tensor images = image_features.contiguous(), texts = text_features.contiguous();
#ifdef CLIP_LORA_WITH_CUDA
  if (images.is_cuda() && on_cuda::fits(images, texts, options)) {
    return on_cuda::classification_loss(images, texts, labels.contiguous(), options, needs_image_gradient,
                                        needs_text_gradient);
  }
#endif
  return classification_loss_definition(images, texts, labels, options, needs_image_gradient,
                                        needs_text_gradient);
}

}  // namespace clip_lora::ops
