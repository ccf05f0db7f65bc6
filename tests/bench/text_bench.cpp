#include <benchmark/benchmark.h>

#include <string>

#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"

namespace {

// One prompt per ImageNet class: what a run pays for its 1,000 class names.
void tokenize_imagenet(benchmark::State& state) {
  const clip_lora::text::Tokenizer tokenizer;
  for (auto _ : state) {
    for (const std::string& name : clip_lora::text::imagenet_class_names()) {
      const std::string prompt = clip_lora::text::fill_template(clip_lora::text::kDefaultTemplate, name);
      benchmark::DoNotOptimize(tokenizer.tokenize(prompt));
    }
  }
}
BENCHMARK(tokenize_imagenet)->Unit(benchmark::kMillisecond);

void construct_tokenizer(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(clip_lora::text::Tokenizer());
  }
}
BENCHMARK(construct_tokenizer)->Unit(benchmark::kMillisecond);

}  // namespace
