// What the fuzzers of this folder do, as far as a test has time: every target reads its first inputs, cut and
// changed.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <random>

#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

constexpr std::array kTargets = {&adapters,     &captions,        &configuration,   &evaluation_cache,
                                 &images,       &leases,          &model_documents, &own_csv,
                                 &prompt_files, &reports,         &safetensors,     &split_json,
                                 &tokenizer,    &tokenizer_files, &torch_archives,  &training_checkpoints};

/// Changed inputs of each target; CLIP_LORA_FUZZ_INPUTS has more tried.
long changed_inputs() {
  const char* const asked = std::getenv("CLIP_LORA_FUZZ_INPUTS");
  return asked == nullptr ? 2000 : std::stol(asked);
}

/// A few bytes of `seed` changed, taken out, put in, or the rest cut off.
std::string changed(std::string seed, std::mt19937& generator) {
  const auto draw = [&](std::size_t count) { return std::size_t{generator()} % count; };
  for (std::size_t left = 1 + draw(4); left > 0; --left) {
    const std::size_t at = draw(seed.size() + 1);
    const auto byte = static_cast<char>(generator());
    switch (draw(8)) {
      case 0:
        seed.resize(at);
        break;
      case 1:
        seed.insert(at, 1 + draw(8), byte);
        break;
      case 2:
        seed.erase(at, 1 + draw(8));
        break;
      case 3:
        seed.insert(at, seed.substr(draw(seed.size() + 1), 1 + draw(32)));
        break;
      default:
        if (at < seed.size()) seed[at] = static_cast<char>(draw(2) == 0 ? seed[at] ^ (1 << draw(8)) : byte);
    }
  }
  return seed;
}

void try_input(const Target& target, const std::string& input) {
  try {
    target.run(input);
  } catch (const std::exception& error) {
    FAIL() << error.what() << " escapes, of the input " << ::testing::PrintToString(input);
  }
}

class Replay : public ::testing::TestWithParam<const Target*> {};

TEST_P(Replay, OfSeedsAndOfChangedOnes) {
  const Target& target = *GetParam();
  const std::vector<std::string> seeds = target.seeds();
  ASSERT_FALSE(seeds.empty());
  try_input(target, "");
  for (const std::string& seed : seeds) try_input(target, seed);
  std::mt19937 generator(1);
  for (long left = changed_inputs(); left > 0 && !HasFailure(); --left)
    try_input(target, changed(seeds[generator() % seeds.size()], generator));
}

INSTANTIATE_TEST_SUITE_P(Fuzz, Replay, ::testing::ValuesIn(kTargets),
                         [](const auto& parameter) { return std::string(parameter.param->name); });

}  // namespace
}  // namespace clip_lora::fuzz
