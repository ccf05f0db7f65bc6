// A user's program: the embedded tables and LibTorch's operators reach it through find_package(clip_lora)
// alone.
#include <ATen/ops/full.h>

#include <clip_lora/ops/elementwise.hpp>
#include <clip_lora/text/tokenizer.hpp>

int main() {
  const auto ids = clip_lora::text::Tokenizer().encode("a photo of a cat");
  const auto unit = clip_lora::ops::l2_normalise(at::full({1, 4}, 3.0));  // [1, 4], each 1/2
  return ids.size() == 5 && unit.sum().item<float>() == 2.0F ? 0 : 1;
}
