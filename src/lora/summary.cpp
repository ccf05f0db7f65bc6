#include "clip_lora/lora/summary.hpp"

#include <algorithm>
#include <set>
#include <sstream>

#include "projection.hpp"

namespace clip_lora::lora {
namespace {

/// "2", or "2 to 8".
template <typename Number>
std::string range_text(const std::set<Number>& numbers) {
  std::ostringstream text;
  text.precision(9);
  text << *numbers.begin();
  if (numbers.size() > 1) text << " to " << *numbers.rbegin();
  return text.str();
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : " ") + name;
  return text;
}

Projections projections_of(const AdaptedBlock& block) {
  Projections projections{.q = false, .k = false, .v = false, .o = false};
  for_each_update(block.lora, [&](const Projection& projection, const ops::LowRank&) {
    projections.*projection.flag = true;
  });
  return projections;
}

/// The alpha that gives an update its scaling as alpha / √rank; the options' own if it does.
double release_alpha(const ops::LowRank& update, const LoraOptions& options) {
  const std::int64_t rank = update.a.size(0);
  if (options.rank_stabilised && update_scaling(options.alpha, rank, true) == update.scaling)
    return options.alpha;
  return alpha_of(update.scaling, rank, /*rank_stabilised=*/true);
}

/// "blocks 0 5 of text, 1 of vision".
std::string block_list(const LoraAdapter& adapter) {
  std::string text = "blocks";
  for (const Tower tower : {Tower::kText, Tower::kVision}) {
    std::string indices;
    for (const auto& block : adapter.blocks()) {
      if (block.tower == tower) indices += " " + std::to_string(block.index);
    }
    if (!indices.empty()) text += (text.ends_with("blocks") ? "" : ",") + indices + " of " + to_string(tower);
  }
  return text;
}

}  // namespace

AdapterSummary summarise(const LoraAdapter& adapter) {
  std::set<std::int64_t> ranks;
  std::set<double> alphas;
  bool same_projections = true;
  for (const auto& block : adapter.blocks()) {
    same_projections = same_projections && projections_of(block) == adapter.lora_options().projections;
    for_each_update(block.lora, [&](const Projection&, const ops::LowRank& update) {
      ranks.insert(update.a.size(0));
      alphas.insert(release_alpha(update, adapter.lora_options()));
    });
  }
  const bool placed = adapter.is_at(adapter.lora_options().position);

  AdapterSummary summary;
  summary.rank = range_text(ranks);
  summary.alpha = range_text(alphas);
  summary.encoder = to_string(adapter.lora_options().encoder);
  summary.params = joined(projection_names(adapter.lora_options().projections));
  if (!same_projections) summary.params += " (not all in each block)";
  summary.position = placed ? to_string(adapter.lora_options().position) : block_list(adapter);
  if (ranks.size() == 1 && alphas.size() == 1 && same_projections && placed) {
    summary.options = adapter.lora_options();
    summary.options->rank = *ranks.begin();
    summary.options->alpha = *alphas.begin();
    summary.options->rank_stabilised = true;
  }
  return summary;
}

AdapterSummary summarise(const LoraOptions& options) {
  LoraOptions stabilised = options;
  stabilised.alpha = alpha_of(options.scaling(), options.rank, /*rank_stabilised=*/true);
  stabilised.rank_stabilised = true;
  return {.rank = std::to_string(options.rank),
          .alpha = range_text(std::set{stabilised.alpha}),
          .encoder = to_string(options.encoder),
          .params = joined(projection_names(options.projections)),
          .position = to_string(options.position),
          .options = stabilised};
}

std::map<std::string, std::string> settings_of(const AdapterSummary& summary) {
  return {{"method", "lora"},           {"r", summary.rank},        {"alpha", summary.alpha},
          {"encoder", summary.encoder}, {"params", summary.params}, {"position", summary.position}};
}

}  // namespace clip_lora::lora
