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
  zero_shots_.clear();
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
  const auto found = zero_shots_.find(wanted.dataset);
  if (found == zero_shots_.end()) return nullptr;
  const ZeroShot& kept = found->second;
  const bool is_wanted = kept.tf32 == wanted.tf32 && kept.deterministic == wanted.deterministic &&
                         kept.preprocessing == wanted.preprocessing && kept.prompts == wanted.prompts &&
                         same_items(kept.items, wanted.items);
  return is_wanted ? &kept.predictions : nullptr;
}

void RunSession::Kept::keep(ZeroShot zero_shot) {
  const std::string name = zero_shot.dataset;
  zero_shots_.insert_or_assign(name, std::move(zero_shot));
}

}  // namespace clip_lora::cli
