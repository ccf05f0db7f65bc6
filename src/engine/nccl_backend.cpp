#include "backends.hpp"
#include "clip_lora/core/errors.hpp"

#ifdef CLIP_LORA_WITH_NCCL
#define USE_C10D_NCCL  // LibTorch was built with it, and its header is empty otherwise
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace clip_lora::engine {

#ifdef CLIP_LORA_WITH_NCCL

c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                               int size, std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, std::move(options));
}

#else

c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>&, int, int,
                                               std::chrono::milliseconds) {
  throw ConfigError(
      "several processes on GPUs: this program was built without NCCL (hint: build it with CUDA, and with "
      "nccl.h beside LibTorch, as scripts/setup.sh has it; or use --device cpu)");
}

#endif

}  // namespace clip_lora::engine
