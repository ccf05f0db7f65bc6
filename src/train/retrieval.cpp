#include "clip_lora/train/retrieval.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "clip_lora/engine/encoders.hpp"
#include "image_pass.hpp"

namespace clip_lora::train {
namespace {

constexpr std::int64_t kCaptionsAtOnce = 2048;  // between two looks for a signal

/// What each query looks for: pairs of a query and a candidate, those of a query together.
struct Wanted {
  at::Tensor query;                 ///< [P] int64, ascending, on the features' device
  at::Tensor candidate;             ///< [P] int64, likewise
  std::vector<std::int64_t> begin;  ///< of each query's pairs, and P
};

/// query, candidate: [P] int64 on the CPU, the former ascending and with every one of 0 … queries − 1.
Wanted wanted(const at::Tensor& query, const at::Tensor& candidate, std::int64_t queries, at::Device device) {
  const at::Tensor ends = at::bincount(query, {}, queries).cumsum(0);
  std::vector<std::int64_t> begin = {0};
  begin.insert(begin.end(), ends.const_data_ptr<std::int64_t>(),
               ends.const_data_ptr<std::int64_t>() + queries);
  return {query.to(device), candidate.to(device), std::move(begin)};
}

/// How many candidates are ahead of the first wanted one of the queries first … first + count − 1. All of a
/// query's similarities come from one product, so that equal candidates have equal ones. [count] int64.
at::Tensor ahead_of_wanted(const at::Tensor& queries, const at::Tensor& candidates, const Wanted& wanted,
                           std::int64_t first, std::int64_t count) {
  const std::int64_t begin = wanted.begin[static_cast<std::size_t>(first)];
  const std::int64_t end = wanted.begin[static_cast<std::size_t>(first + count)];
  const at::Tensor row = wanted.query.slice(0, begin, end) - first;
  const at::Tensor column = wanted.candidate.slice(0, begin, end);
  const std::int64_t none = candidates.size(0);

  const at::Tensor similarity = at::matmul(queries.narrow(0, first, count), candidates.t());  // [count, C]
  const at::Tensor of_pairs = similarity.index({row, column});                                // [pairs]
  const at::Tensor best = at::full({count}, -std::numeric_limits<float>::infinity(), queries.options())
                              .scatter_reduce(0, row, of_pairs, "amax");
  const at::Tensor place =
      at::full({count}, none, column.options())
          .scatter_reduce(0, row, at::where(of_pairs == best.index_select(0, row), column, none), "amin");

  const at::Tensor earlier = at::arange(none, column.options()) < place.unsqueeze(1);
  const at::Tensor threshold = best.unsqueeze(1);
  at::Tensor ahead = (similarity == threshold).logical_and_(earlier);
  ahead.logical_or_(similarity > threshold);
  return ahead.sum(1);
}

Recall recall_of(const at::Tensor& queries, const at::Tensor& candidates, const Wanted& wanted,
                 std::int64_t similarities_at_once) {
  const std::int64_t block = std::max<std::int64_t>(1, similarities_at_once / candidates.size(0));
  std::vector<at::Tensor> ranks;
  for (std::int64_t first = 0; first < queries.size(0); first += block) {
    const std::int64_t count = std::min(block, queries.size(0) - first);
    ranks.push_back(ahead_of_wanted(queries, candidates, wanted, first, count));
  }
  const at::Tensor rank = at::cat(ranks).cpu();
  const auto percent_among = [&](std::int64_t k) {
    return 100.0 * (rank < k).sum().item<double>() / static_cast<double>(rank.size(0));
  };
  return {percent_among(1), percent_among(5), percent_among(10)};
}

/// Captions without repetitions.
struct DistinctCaptions {
  std::vector<std::string_view> texts;
  std::vector<std::int64_t> places;  ///< of each caption, in texts
};

DistinctCaptions distinct_captions(const std::vector<std::string>& captions) {
  DistinctCaptions distinct;
  std::unordered_map<std::string_view, std::int64_t> place_of;
  for (const auto& caption : captions) {
    const auto [entry, is_new] = place_of.try_emplace(caption, std::ssize(distinct.texts));
    if (is_new) distinct.texts.push_back(caption);
    distinct.places.push_back(entry->second);
  }
  return distinct;
}

void check_sizes(const at::Tensor& images, const at::Tensor& texts, const at::Tensor& image_of_text) {
  TORCH_CHECK(images.dim() == 2 && texts.dim() == 2 && images.size(1) == texts.size(1) &&
                  images.scalar_type() == at::kFloat && texts.scalar_type() == at::kFloat,
              "features of ", images.sizes(), " and ", texts.sizes(), ", expected float32 [N, E] and [M, E]");
  TORCH_CHECK(images.device() == texts.device(), "features on ", images.device(), " and ", texts.device());
  TORCH_CHECK(image_of_text.dim() == 1 && image_of_text.size(0) == texts.size(0) &&
                  image_of_text.scalar_type() == at::kLong,
              "the images of ", texts.size(0), " texts should be int64 [M], got ", image_of_text.sizes());
}

void check_images_of_texts(const at::Tensor& image_of_text, std::int64_t images) {
  TORCH_CHECK(images > 0 && image_of_text.size(0) > 0, "retrieval among ", images, " images and ",
              image_of_text.size(0), " texts");
  const auto lowest = image_of_text.min().item<std::int64_t>();
  const auto highest = image_of_text.max().item<std::int64_t>();
  TORCH_CHECK(lowest >= 0 && highest < images, "texts of the images ", lowest, " to ", highest,
              ", there are ", images);
  const auto without_text = (at::bincount(image_of_text, {}, images) == 0).sum().item<std::int64_t>();
  TORCH_CHECK(without_text == 0, without_text, " of ", images, " images have no text");
}

}  // namespace

RetrievalMetrics compute_recall(const at::Tensor& image_features, const at::Tensor& text_features,
                                const at::Tensor& image_of_text, std::int64_t similarities_at_once) {
  const at::NoGradGuard no_grad;
  check_sizes(image_features, text_features, image_of_text);
  const std::int64_t images = image_features.size(0), texts = text_features.size(0);
  const at::Tensor image = image_of_text.cpu();
  check_images_of_texts(image, images);
  require_finite(rows_not_finite(image_features), images, "features", "images");
  require_finite(rows_not_finite(text_features), texts, "features", "captions");

  const auto [sorted, by_image] = at::sort(image, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Device device = image_features.device();
  const Wanted captions = wanted(sorted, by_image, images, device);
  const Wanted pictures = wanted(at::arange(texts, at::kLong), image, texts, device);
  return {recall_of(image_features, text_features, captions, similarities_at_once),
          recall_of(text_features, image_features, pictures, similarities_at_once), images, texts};
}

at::Tensor image_features(const model::Clip& clip, data::EvaluationLoader& loader,
                          const std::function<void(std::int64_t)>& on_progress) {
  const at::TensorOptions options = at::TensorOptions(clip->device()).dtype(at::kFloat);
  std::vector<at::Tensor> rows = {at::empty({0, clip->architecture().embedding}, options)};
  encode_images(clip, loader, on_progress,
                [&](const data::Batch&, const at::Tensor& features) { rows.push_back(features); });
  return at::cat(rows);
}

at::Tensor caption_features(const model::Clip& clip, const text::Tokenizer& tokenizer,
                            const std::vector<std::string>& captions,
                            const std::function<void(std::int64_t)>& on_progress) {
  const at::NoGradGuard no_grad;
  const auto context_length = static_cast<int>(clip->architecture().context_length);
  const DistinctCaptions distinct = distinct_captions(captions);
  const at::TensorOptions options = at::TensorOptions(clip->device()).dtype(at::kFloat);
  std::vector<at::Tensor> features = {at::empty({0, clip->architecture().embedding}, options)};
  std::vector<std::vector<std::int64_t>> rows;
  for (std::size_t i = 0; i < distinct.texts.size(); ++i) {
    rows.push_back(tokenizer.tokenize(distinct.texts[i], context_length, text::Overlong::kTruncate));
    if (std::ssize(rows) < kCaptionsAtOnce && i + 1 < distinct.texts.size()) continue;
    features.push_back(engine::prompt_features(clip, model::make_prompts(rows)));
    rows.clear();
    on_progress(static_cast<std::int64_t>(i) + 1);
    stop_if_interrupted(static_cast<std::int64_t>(i) + 1, "captions");
  }
  return at::cat(features).index_select(0, at::tensor(distinct.places, at::kLong).to(clip->device()));
}

}  // namespace clip_lora::train
