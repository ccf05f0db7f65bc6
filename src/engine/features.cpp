#include "features.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "clip_lora/ops/linear.hpp"

namespace clip_lora::engine {
namespace {

/// Tokens that all prompts begin with; each keeps at least its end token to itself.
std::int64_t common_prefix(const at::Tensor& ids, const at::Tensor& eot) {
  const at::Tensor same = (ids == ids[0]).all(0);  // [L]
  const std::int64_t agreeing = same.to(at::kLong).cumprod(0).sum().item<std::int64_t>();
  return std::min(agreeing, eot.min().item<std::int64_t>());
}

/// Embedded tokens of prompts [first, last) of `ids`: the prefix of the first, then everybody's own ones.
at::Tensor embed_tokens(const model::Clip& clip, const at::Tensor& ids, const std::vector<std::int64_t>& ends,
                        std::int64_t first, std::int64_t last, std::int64_t prefix) {
  std::vector<at::Tensor> tokens = {ids[first].slice(0, 0, prefix)};
  std::vector<at::Tensor> positions = {at::arange(prefix, at::kLong)};
  for (std::int64_t i = first; i < last; ++i) {
    const std::int64_t end = ends[static_cast<std::size_t>(i)] + 1;
    tokens.push_back(ids[i].slice(0, prefix, end));
    positions.push_back(at::arange(prefix, end, at::kLong));
  }
  const auto& embedding = clip->token_embedding->weight;
  const at::Tensor places = at::cat(positions).to(embedding.device());
  return embedding.index_select(0, at::cat(tokens).to(embedding.device())) +
         clip->positional_embedding.index_select(0, places);
}

/// Position and number of each row of a part whose first sequence is place.sequences.
void set_rows(PlaceInBatch& place, const std::vector<std::int64_t>& own_lengths, std::int64_t prefix,
              at::Device device) {
  std::vector<std::int64_t> positions, numbers(static_cast<std::size_t>(prefix), 0);
  for (std::int64_t i = 0; i < prefix; ++i) positions.push_back(i);
  std::int64_t number = place.sequences;
  for (const std::int64_t length : own_lengths) {
    for (std::int64_t i = 0; i < length; ++i) positions.push_back(prefix + i);
    numbers.insert(numbers.end(), static_cast<std::size_t>(length), number++);
  }
  place.positions = at::tensor(positions, at::kLong).to(device);
  place.numbers = at::tensor(numbers, at::kLong).to(device);
}

}  // namespace

std::int64_t rows_of(const std::vector<Chunk>& chunks) {
  std::int64_t rows = 0;
  for (const auto& chunk : chunks) rows += chunk.packing.rows;
  return rows;
}

FeatureTower::FeatureTower(const Tower& tower, const model::LayerNorm& norm, double epsilon,
                           const at::Tensor& projection)
    : tower_(tower),
      norm_{norm->weight.to(at::kFloat), norm->bias.to(at::kFloat), epsilon},
      projection_(projection.to(at::kFloat)) {}

at::Tensor FeatureTower::project(const at::Tensor& ends, Tape* tape) const {
  const at::Tensor wide = ends.to(at::kFloat);
  const ops::Normalised normalised = ops::layer_norm(wide, norm_, {});
  if (tape != nullptr) {
    tape->ends = wide;
    tape->norm = normalised;
  }
  return ops::linear_backward(normalised.rows, projection_);  // a product with [D, E] as it lies: [N, E]
}

at::Tensor FeatureTower::forward_chunk(const Chunk& chunk, Tape* tape) const {
  const std::int64_t begin = tape == nullptr ? 0 : tower_.first_updated();
  return project(tower_.forward(chunk.rows, begin, chunk.packing, chunk.place,
                                tape == nullptr ? nullptr : &tape->blocks),
                 tape);
}

at::Tensor FeatureTower::features(const std::vector<Chunk>& chunks) const {
  std::vector<at::Tensor> features;
  for (const auto& chunk : chunks) features.push_back(forward_chunk(chunk, nullptr));
  return features.size() == 1 ? features.front() : at::cat(features);
}

at::Tensor FeatureTower::forward(const std::vector<Chunk>& chunks) {
  if (chunks.size() == 1) return forward_chunk(chunks.front(), &tape_);
  std::vector<at::Tensor> features;
  for (const auto& chunk : chunks) {
    features.push_back(project(
        tower_.forward(chunk.rows, tower_.first_updated(), chunk.packing, chunk.place, nullptr), nullptr));
  }
  return at::cat(features);
}

void FeatureTower::backward(const at::Tensor& d_features, const std::vector<Chunk>& chunks) {
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    if (chunks.size() > 1) forward_chunk(chunks[i], &tape_);
    const std::int64_t count = chunks[i].packing.sequences;
    backward_chunk(d_features.narrow(0, begin, count), chunks[i], /*add=*/i > 0);
    begin += count;
  }
}

void FeatureTower::backward_chunk(const at::Tensor& d_features, const Chunk& chunk, bool add) {
  const at::Tensor d_rows = ops::linear(d_features, projection_);  // [N, D]
  const at::Tensor d_ends =
      ops::layer_norm_backward(d_rows, tape_.ends, tape_.norm, norm_, {}, /*residual=*/{}, /*d_a=*/{},
                               /*needs_dx=*/true);
  tower_.backward(d_ends.to(chunk.rows.scalar_type()), tower_.first_updated(), chunk.packing, chunk.place,
                  tape_.blocks, add);
  tape_ = {};
}

FeatureTower text_tower(const model::Clip& clip, const Updates* updates) {
  const auto& architecture = clip->architecture().text;
  return {
      Tower(clip->transformer, architecture, updates == nullptr ? nullptr : &updates->of(lora::Tower::kText)),
      clip->ln_final, architecture.layer_norm_epsilon, clip->text_projection};
}

FeatureTower vision_tower(const model::Clip& clip, const Updates* updates) {
  const auto& architecture = clip->architecture().vision;
  const auto& visual = clip->visual;
  return {Tower(visual->transformer, architecture,
                updates == nullptr ? nullptr : &updates->of(lora::Tower::kVision)),
          visual->ln_post, architecture.layer_norm_epsilon, visual->proj};
}

std::vector<Chunk> pack(const model::Clip& clip, const model::Prompts& prompts, bool share_prefix,
                        std::int64_t rows_per_chunk, const std::optional<Share>& own) {
  const at::Tensor ids = prompts.ids.cpu(), eot = prompts.eot.cpu();  // [C, L], [C]
  const std::int64_t prefix = share_prefix ? common_prefix(ids, eot) : 0;
  const std::vector<std::int64_t> ends(eot.const_data_ptr<std::int64_t>(),
                                       eot.const_data_ptr<std::int64_t>() + eot.numel());
  std::vector<Chunk> chunks;
  const auto [first, count] = own.value_or(Share{0, static_cast<std::int64_t>(ends.size())});
  PlaceInBatch place = {.rows = 0, .sequences = first};
  for (std::int64_t i = 0; i < first; ++i) place.rows += ends[static_cast<std::size_t>(i)] + 1 - prefix;
  while (place.sequences < first + count) {
    std::vector<std::int64_t> own_lengths;
    std::int64_t own_rows = 0;
    for (std::int64_t i = place.sequences; i < first + count; ++i) {
      const std::int64_t length = ends[static_cast<std::size_t>(i)] + 1 - prefix;
      if (!own_lengths.empty() && own_rows + length > rows_per_chunk) break;
      own_lengths.push_back(length);
      own_rows += length;
    }
    const std::int64_t last = place.sequences + static_cast<std::int64_t>(own_lengths.size());
    set_rows(place, own_lengths, prefix, clip->device());
    chunks.push_back({ops::pack_prompts(own_lengths, prefix, clip->device()), place,
                      embed_tokens(clip, ids, ends, place.sequences, last, prefix)});
    place = {.rows = place.rows + own_rows, .sequences = last};
  }
  return chunks;
}

std::vector<Chunk> image_chunks(const model::Clip& clip, std::int64_t count, std::int64_t images_per_chunk,
                                std::int64_t first) {
  const std::int64_t length = clip->visual->positional_embedding.size(0);  // grid² + 1
  std::vector<Chunk> chunks;
  for (std::int64_t done = 0; done < count; done += images_per_chunk) {
    const std::int64_t images = std::min(images_per_chunk, count - done);
    PlaceInBatch place = {.rows = (first + done) * length, .sequences = first + done};
    set_rows(place, std::vector<std::int64_t>(static_cast<std::size_t>(images), length), 0, clip->device());
    chunks.push_back({ops::pack_images(images, length, clip->device()), place, {}});
  }
  return chunks;
}

at::Tensor image_positions(const model::Clip& clip, std::int64_t images) {
  const auto& visual = clip->visual;
  at::Tensor positions = visual->positional_embedding.clone();  // [L, D]
  positions[0].add_(visual->class_embedding);
  return positions.repeat({images, 1});
}

at::Tensor embedded_patches(const model::Clip& clip, const at::Tensor& patches, const at::Tensor& positions) {
  const auto& visual = clip->visual;
  const at::Tensor rows = ops::linear(patches, visual->conv1->weight.flatten(1), {}, positions);
  const ops::LayerNormWeights ln_pre = {visual->ln_pre->weight, visual->ln_pre->bias,
                                        clip->architecture().vision.layer_norm_epsilon};
  return ops::layer_norm(rows, ln_pre, {}).rows;
}

void run_frozen_blocks(const Tower& tower, std::vector<Chunk>& chunks) {
  for (auto& chunk : chunks) chunk.rows = tower.run_frozen(chunk.rows, tower.first_updated(), chunk.packing);
}

at::Tensor patches_of(const at::Tensor& images, std::int64_t patch, at::ScalarType dtype) {
  const std::int64_t count = images.size(0), channels = images.size(1), grid = images.size(2) / patch;
  const at::Tensor patches = images.to(dtype)
                                 .view({count, channels, grid, patch, grid, patch})
                                 .permute({0, 2, 4, 1, 3, 5})
                                 .reshape({count, grid * grid, channels * patch * patch});
  return at::constant_pad_nd(patches, {0, 0, 1, 0}).flatten(0, 1);
}

}  // namespace clip_lora::engine
