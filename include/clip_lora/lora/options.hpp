#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace clip_lora::lora {

/// Which towers are adapted: `--encoder`.
enum class Encoder { kBoth, kText, kVision };

/// Which blocks of a tower are adapted: `--position`.
enum class Position { kAll, kBottom, kMiddle, kUp, kHalfUp, kHalfBottom, kTop3 };

/// Which projections of attention are adapted: `--params`.
struct Projections {
  bool q = true;
  bool k = true;
  bool v = true;
  bool o = false;

  bool operator==(const Projections&) const = default;
};

/// Names as on the command line; the parsers throw ConfigError with the nearest name.
std::string to_string(Encoder encoder);
std::string to_string(Position position);
Encoder parse_encoder(const std::string& name);
Position parse_position(const std::string& name);
std::vector<std::string> projection_names(const Projections& projections);  ///< e.g. {"q", "k", "v"}
Projections parse_projections(const std::vector<std::string>& names);

/// Indices of the adapted blocks, ascending, in a tower of `depth` blocks (depth ≥ 1).
/// Thirds and halves round down, what remains belongs to the upper part; top3 of a shallower tower is all of
/// it. Equal to the reference's tables at depth 12; the reference has no bottom/mid/up/top3 for 24.
std::vector<std::int64_t> blocks_at(Position position, std::int64_t depth);

/// Every position, in the order of the command line's help.
std::vector<Position> every_position();

/// The factor on an update: alpha / √rank if it is rank-stabilised, as the release computes it, else alpha /
/// rank.
double update_scaling(double alpha, std::int64_t rank, bool rank_stabilised);

/// The alpha of that scaling: the decimal of up to 15 digits that gives it exactly, or else the nearest
/// number.
double alpha_of(double scaling, std::int64_t rank, bool rank_stabilised);

/// How A and B are made, scaled and placed. The defaults are the paper's.
struct LoraOptions {
  std::int64_t rank = 2;    ///< R: rows of A, columns of B; 1 … D
  double alpha = 1.0;       ///< the update is scaled by update_scaling(alpha, rank, …); above 0
  double dropout = 0.25;    ///< on A's input, one mask per projection; [0, 1)
  Projections projections;  ///< at least one
  Position position = Position::kAll;
  Encoder encoder = Encoder::kBoth;
  bool rank_stabilised = true;  ///< false only for adapters of PEFT without use_rslora; no flag

  /// Throws ConfigError naming the field, its value and the allowed range.
  void validate() const;
  /// γ, by default alpha / √R (as the release computes it; not alpha / R).
  double scaling() const;
};

}  // namespace clip_lora::lora
