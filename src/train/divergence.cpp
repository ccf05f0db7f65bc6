#include "divergence.hpp"

#include <cmath>
#include <sstream>
#include <utility>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::train {
namespace {

/// Gradients that overflow float16 even when multiplied by it are beyond 6e7.
constexpr double kLowestLossScale = 0x1p-10;

std::string text_of(double number) {
  if (std::isnan(number)) return "nan";  // which may have a sign
  std::ostringstream text;
  text.precision(4);
  text << number;
  return text.str();
}

}  // namespace

void DivergenceWatch::remember(std::int64_t iteration, std::vector<std::int64_t> items) {
  batches_.push_back({iteration, std::move(items)});
}

void DivergenceWatch::look(std::int64_t iteration, double learning_rate,
                           const engine::Measurements& measured) {
  const bool is_finite = std::isfinite(measured.loss);
  if (measured.scales_loss) {
    if (measured.loss_scale < kLowestLossScale)
      fail("gradients overflow float16 time and again, so that the loss scale has fallen to " +
               text_of(measured.loss_scale),
           iteration, iteration, learning_rate, measured);
    if (!is_finite && iteration == plan_.iterations)
      fail("the loss is " + text_of(measured.loss), iteration, iteration, learning_rate, measured);
  } else if (measured.skipped > 0 || !is_finite) {
    fail(is_finite ? "gradients are not finite" : "the loss is " + text_of(measured.loss), last_good_ + 1,
         iteration, learning_rate, measured);
  }
  last_good_ = iteration;
  while (!batches_.empty() && batches_.front().iteration <= iteration) batches_.pop_front();
}

void DivergenceWatch::fail(const std::string& what, std::int64_t first, std::int64_t last,
                           double learning_rate, const engine::Measurements& measured) const {
  const std::string when =
      first == last ? "at iteration " + std::to_string(last)
                    : "at one of the iterations " + std::to_string(first) + " to " + std::to_string(last);
  throw Diverged("the training has diverged: " + what + " " + when + " of " +
                 std::to_string(plan_.iterations) + " (loss " + text_of(measured.loss) + ", gradient norm " +
                 text_of(measured.gradient_norm) + ", learning rate " + text_of(learning_rate) +
                 pictures(first, last) + ") (hint: lower --lr, or shorten gradients by --grad_clip 1" +
                 (measured.scales_loss ? ", or --precision bf16 or fp32)" : ")"));
}

/// "; pictures a.png, b.png" of the batches of these iterations.
std::string DivergenceWatch::pictures(std::int64_t first, std::int64_t last) const {
  if (!plan_.picture) return {};
  std::vector<std::string> names;
  for (const SeenBatch& batch : batches_) {
    if (batch.iteration < first || batch.iteration > last) continue;
    for (const std::int64_t item : batch.items) names.push_back(plan_.picture(item));
  }
  return names.empty() ? "" : "; pictures " + join_capped(names);
}

}  // namespace clip_lora::train
