#pragma once

#include "clip_lora/data/benchmark.hpp"

namespace clip_lora::data {

// Each in the file of its name.
Benchmark caltech101();
Benchmark dtd();
Benchmark eurosat();
Benchmark fgvc();
Benchmark food101();
Benchmark imagenet();
Benchmark oxford_flowers();
Benchmark oxford_pets();
Benchmark shapes();
Benchmark stanford_cars();
Benchmark sun397();
Benchmark ucf101();

}  // namespace clip_lora::data
