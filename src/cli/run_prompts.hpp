#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/text/prompts.hpp"

namespace clip_lora::cli {

/// The run's templates, at least one: those of the flags, else the adapter's, else text::kDefaultTemplate.
/// Throws ConfigError.
std::vector<std::string> run_templates(const PromptOptions& options,
                                       const std::optional<lora::AdapterContext>& adapter);

/// The prompts of training out of the run's templates.
text::ClassPrompts training_prompts(const PromptOptions& options, const std::vector<std::string>& class_names,
                                    const std::vector<std::string>& templates);

/// The prompts of the zero-shot line. `benchmark` may be nullptr. Throws ConfigError.
text::ClassPrompts zero_shot_prompts(const PromptOptions& options, const data::Benchmark* benchmark,
                                     const std::vector<std::string>& class_names,
                                     const std::vector<std::string>& templates);

/// What to warn of if the adapter of the file `source` was trained for other classes than `class_names`.
std::optional<std::string> class_names_warning(const lora::AdapterContext& adapter,
                                               const std::vector<std::string>& class_names,
                                               const std::filesystem::path& source);

}  // namespace clip_lora::cli
