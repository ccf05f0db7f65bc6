#define XXH_INLINE_ALL
#include <ATen/ATen.h>
#include <xxhash.h>

#include <array>
#include <cstdio>
#include <memory>

#include "clip_lora/model/checkpoint.hpp"

namespace clip_lora::model {

std::string fingerprint(const Clip& clip) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  TORCH_CHECK(state != nullptr && XXH3_128bits_reset(state.get()) == XXH_OK, "no memory for a hash");
  const auto add = [&](const void* bytes, std::size_t size) {
    XXH3_128bits_update(state.get(), bytes, size);
  };
  for (const auto& [name, parameter] : state_dict(clip)) {
    const at::Tensor values = parameter.to(at::kCPU, at::kFloat).contiguous();
    add(name.c_str(),
        name.size() + 1);  // with the terminating zero, so that no two lists of names run together
    const auto axes = static_cast<std::int64_t>(values.dim());
    add(&axes, sizeof(axes));
    add(values.sizes().data(), values.sizes().size() * sizeof(std::int64_t));
    add(values.const_data_ptr(), values.nbytes());
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  std::array<char, 33> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text.data();
}

}  // namespace clip_lora::model
