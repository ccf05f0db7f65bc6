#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clip_lora/model/transformer.hpp"

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

/// `--adapter_drop_unit`: position (the release's), sample, or module (the paper's).
using DropUnit = model::DropUnit;

std::string to_string(DropUnit unit);
DropUnit parse_drop_unit(const std::string& name);  ///< throws ConfigError with the nearest name

/// R-Adapter's W and s. The defaults are the release's.
struct RAdapterOptions {
  std::int64_t rank = 0;       ///< R: columns of U, rows of V; 0: W is of full rank
  double initial_scale = 0.1;  ///< s at the start
  double drop = 0.2;           ///< probability of δ = 0 in training, [0, 1)
  DropUnit drop_unit = DropUnit::kPosition;

  /// Throws ConfigError naming the field, its value and the allowed range.
  void validate() const;
};

/// How an adapter is made, of whichever method.
struct AdapterOptions {
  std::string method = "lora";  ///< its name among methods()
  LoraOptions lora;             ///< its encoder and position are those of every method
  RAdapterOptions r_adapter;

  /// Throws ConfigError naming the field, its value and what is allowed.
  void validate() const;
};

}  // namespace clip_lora::lora
