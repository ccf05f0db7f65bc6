#include "clip_lora/lora/options.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <iomanip>
#include <limits>
#include <sstream>
#include <utility>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::lora {
namespace {

constexpr std::array kEncoders = {std::pair{Encoder::kBoth, "both"}, std::pair{Encoder::kText, "text"},
                                  std::pair{Encoder::kVision, "vision"}};

constexpr std::array kPositions = {
    std::pair{Position::kAll, "all"},        std::pair{Position::kBottom, "bottom"},
    std::pair{Position::kMiddle, "mid"},     std::pair{Position::kUp, "up"},
    std::pair{Position::kHalfUp, "half-up"}, std::pair{Position::kHalfBottom, "half-bottom"},
    std::pair{Position::kTop3, "top3"}};

constexpr std::array kDropUnits = {std::pair{DropUnit::kPosition, "position"},
                                   std::pair{DropUnit::kSample, "sample"},
                                   std::pair{DropUnit::kModule, "module"}};

template <typename Table>
std::vector<std::string> names_of(const Table& table) {
  std::vector<std::string> names;
  for (const auto& [value, name] : table) names.emplace_back(name);
  return names;
}

template <typename Table, typename Value>
std::string name_in(const Table& table, Value wanted) {
  const auto found =
      std::find_if(table.begin(), table.end(), [&](const auto& row) { return row.first == wanted; });
  return found->second;
}

template <typename Table>
auto value_in(const Table& table, const std::string& name, const std::string& flag) {
  for (const auto& [value, known] : table) {
    if (name == known) return value;
  }
  const std::vector<std::string> names = names_of(table);
  throw ConfigError(flag + " '" + name + "': expected one of " + join_capped(names) +
                    did_you_mean(name, names));
}

/// Ascending begin … end − 1.
std::vector<std::int64_t> range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> indices;
  for (std::int64_t i = begin; i < end; ++i) indices.push_back(i);
  return indices;
}

double divisor(std::int64_t rank, bool rank_stabilised) {
  const auto number = static_cast<double>(rank);
  return rank_stabilised ? std::sqrt(number) : number;
}

}  // namespace

std::string to_string(Encoder encoder) { return name_in(kEncoders, encoder); }
std::string to_string(Position position) { return name_in(kPositions, position); }
Encoder parse_encoder(const std::string& name) { return value_in(kEncoders, name, "--encoder"); }
Position parse_position(const std::string& name) { return value_in(kPositions, name, "--position"); }

std::vector<std::string> projection_names(const Projections& projections) {
  std::vector<std::string> names;
  if (projections.q) names.emplace_back("q");
  if (projections.k) names.emplace_back("k");
  if (projections.v) names.emplace_back("v");
  if (projections.o) names.emplace_back("o");
  return names;
}

Projections parse_projections(const std::vector<std::string>& names) {
  Projections projections{.q = false, .k = false, .v = false, .o = false};
  for (const auto& name : names) {
    if (name == "q") {
      projections.q = true;
    } else if (name == "k") {
      projections.k = true;
    } else if (name == "v") {
      projections.v = true;
    } else if (name == "o") {
      projections.o = true;
    } else {
      throw ConfigError("--params '" + name +
                        "': expected any of q, k, v, o (hint: separate them by spaces)");
    }
  }
  return projections;
}

std::vector<std::int64_t> blocks_at(Position position, std::int64_t depth) {
  const std::int64_t third = depth / 3;
  const std::int64_t half = depth / 2;
  switch (position) {
    case Position::kAll:
      return range(0, depth);
    case Position::kBottom:
      return range(0, third);
    case Position::kMiddle:
      return range(third, 2 * third);
    case Position::kUp:
      return range(2 * third, depth);
    case Position::kHalfBottom:
      return range(0, half);
    case Position::kHalfUp:
      return range(half, depth);
    case Position::kTop3:
      return range(std::max<std::int64_t>(0, depth - 3), depth);
  }
  return {};
}

std::vector<Position> every_position() {
  std::vector<Position> positions;
  for (const auto& [position, name] : kPositions) positions.push_back(position);
  return positions;
}

double update_scaling(double alpha, std::int64_t rank, bool rank_stabilised) {
  return alpha / divisor(rank, rank_stabilised);
}

double alpha_of(double scaling, std::int64_t rank, bool rank_stabilised) {
  const double product = scaling * divisor(rank, rank_stabilised);
  std::ostringstream text;
  text << std::setprecision(std::numeric_limits<double>::digits10) << product;
  const double decimal = std::strtod(text.str().c_str(), nullptr);
  return update_scaling(decimal, rank, rank_stabilised) == scaling ? decimal : product;
}

void LoraOptions::validate() const {
  const auto require = [](bool valid, const std::string& flag, const std::string& got,
                          const std::string& expected) {
    if (!valid) throw ConfigError(flag + " " + got + ": expected " + expected);
  };
  require(rank >= 1, "--r", std::to_string(rank), "at least 1");
  require(alpha > 0.0 && std::isfinite(alpha), "--alpha", std::to_string(alpha), "a number above 0");
  require(dropout >= 0.0 && dropout < 1.0, "--dropout_rate", std::to_string(dropout), "a number in [0, 1)");
  require(projections.q || projections.k || projections.v || projections.o, "--params", "''",
          "any of q, k, v, o");
}

double LoraOptions::scaling() const { return update_scaling(alpha, rank, rank_stabilised); }

std::string to_string(DropUnit unit) { return name_in(kDropUnits, unit); }

DropUnit parse_drop_unit(const std::string& name) {
  return value_in(kDropUnits, name, "--adapter_drop_unit");
}

void RAdapterOptions::validate() const {
  const auto fail = [](const std::string& flag, const auto& got, const std::string& expected) {
    std::ostringstream message;
    message << flag << " " << got << ": expected " << expected;
    throw ConfigError(message.str());
  };
  if (rank < 0) fail("--adapter_rank", rank, "at least 0 (0: full rank)");
  if (!std::isfinite(initial_scale) || initial_scale == 0.0)
    fail("--adapter_init_scale", initial_scale, "a number other than 0, at which nothing would be learned");
  if (!(drop >= 0.0 && drop < 1.0)) fail("--adapter_drop", drop, "at least 0 and below 1");
}

void AdapterOptions::validate() const {
  lora.validate();
  r_adapter.validate();
}

}  // namespace clip_lora::lora
