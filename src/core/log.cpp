#include "clip_lora/core/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace clip_lora {
namespace {

spdlog::logger& logger() {
  static const auto instance = [] {
    auto created = spdlog::stderr_color_mt("clip_lora");
    created->set_pattern("%^%l%$: %v");
    created->set_level(spdlog::level::warn);
    return created;
  }();
  return *instance;
}

}  // namespace

void set_verbosity(Verbosity verbosity) {
  switch (verbosity) {
    case Verbosity::kQuiet:
      return logger().set_level(spdlog::level::err);
    case Verbosity::kNormal:
      return logger().set_level(spdlog::level::warn);
    case Verbosity::kVerbose:
      return logger().set_level(spdlog::level::debug);
  }
}

void log_detail(const std::string& line) { logger().debug(line); }

void log_warning(const std::string& line) { logger().warn(line); }

}  // namespace clip_lora
