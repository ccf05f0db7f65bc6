#include "run_session.hpp"

#include <algorithm>

#include "clip_lora/core/device.hpp"

namespace clip_lora::cli {
namespace {

bool same_items(const std::vector<data::Item>& a, const std::vector<data::Item>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.label == y.label && x.image == y.image; });
}

}  // namespace

const Model& RunSession::Kept::model(const RunOptions& options) {
  ModelKey key = {options.model.backbone, options.model.checkpoint, options.model.activation,
                  options.compute.device, options.compute.precision};
  if (model_key_ == key) return model_;
  const at::Device device = parse_device(options.compute.device);
  const at::ScalarType type = parse_precision(options.compute.precision, device);
  model_key_.reset();
  zero_shot_.reset();
  model_ = {};  // two models may be more than memory holds
  model_ = load_model(options.model);
  make_current(device);
  model_.loaded.clip->to(device, type);
  model_key_ = std::move(key);
  return model_;
}

const text::Tokenizer& RunSession::Kept::tokenizer() {
  if (!tokenizer_) tokenizer_.emplace();
  return *tokenizer_;
}

std::shared_ptr<data::EvaluationViews> RunSession::Kept::test_views(
    const std::vector<data::Item>& items, const image::Preprocessing& preprocessing) {
  if (views_ && viewed_preprocessing_ == preprocessing && same_items(viewed_items_, items)) return views_;
  views_.reset();  // the old ones count among what is not free
  views_ = std::make_shared<data::EvaluationViews>(items.size(), preprocessing.size_px);
  viewed_items_ = items;
  viewed_preprocessing_ = preprocessing;
  return views_;
}

const train::Predictions* RunSession::Kept::zero_shot(const ZeroShot& wanted) const {
  const bool is_wanted = zero_shot_ && zero_shot_->tf32 == wanted.tf32 &&
                         zero_shot_->preprocessing == wanted.preprocessing &&
                         zero_shot_->prompts == wanted.prompts && same_items(zero_shot_->items, wanted.items);
  return is_wanted ? &zero_shot_->predictions : nullptr;
}

}  // namespace clip_lora::cli
