#pragma once

#include <ATen/core/Tensor.h>

#include <compare>
#include <cstdint>

#include "clip_lora/model/clip.hpp"
#include "features.hpp"

namespace clip_lora::engine {

/// All that an iteration's shapes depend on of the texts of its batch. Few batches differ in it: rows are
/// rounded up, and what the texts leave of them is taken up by fillers, short sequences that stand for no
/// text.
struct TextRoom {
  std::int64_t texts = 0;
  std::int64_t fillers = 0;  ///< behind the texts, each of at least one row
  std::int64_t rows = 0;     ///< of texts and fillers together
  std::int64_t longest = 0;  ///< rows that no text exceeds

  /// What `prompts` need. `context_length`: no prompt has more tokens.
  static TextRoom of(const model::Prompts& prompts, std::int64_t context_length);
  std::int64_t sequences() const { return texts + fillers; }
  auto operator<=>(const TextRoom&) const = default;  // NOLINT(modernize-use-nullptr): there is none
};

/// The texts of one batch after another, at addresses that stay, so that an iteration on them can be
/// captured.
class BatchTexts {
 public:
  BatchTexts(const model::Clip& clip, const TextRoom& room);

  /// Takes other texts of the same room. Their copy to the device is left to the current stream; the one
  /// before has to have arrived.
  void fill(const model::Prompts& prompts);

  /// As pack() without a shared prefix, but for the fillers behind. Everything but the rows stays in place.
  Chunk embedded() const;

  /// Features [N, E] of the texts, of those of all sequences, and the way back: fillers have no gradient.
  at::Tensor without_fillers(const at::Tensor& features) const;
  at::Tensor with_fillers(const at::Tensor& d_features) const;

 private:
  /// Views of parts of a flat tensor, one behind the other.
  struct Parts {
    Parts() = default;
    Parts(const at::Tensor& flat, const TextRoom& room);
    at::Tensor ids;        // [T]
    at::Tensor positions;  // [T]
    at::Tensor numbers;    // [T]
    at::Tensor ends;       // [N]
    at::Tensor offsets;    // [N + 1]
    at::Tensor tiles;      // [M, 5]
  };

  model::Clip clip_;
  TextRoom room_;
  at::Tensor host_;  // int64, pinned
  at::Tensor device_;
  Parts on_host_;
  Parts on_device_;
  Chunk chunk_;  // without rows
};

}  // namespace clip_lora::engine
