#pragma once

#include <chrono>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace clip_lora::engine {

/// Collectives of CPU tensors over TCP. Through the loopback interface if `master_address` is one of its own;
/// else through $GLOO_SOCKET_IFNAME, or the interface that this machine's name resolves to.
c10::intrusive_ptr<c10d::Backend> gloo_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                               int size, std::chrono::milliseconds timeout,
                                               const std::string& master_address);

/// Collectives of CUDA tensors. Throws ConfigError if the program was built without NCCL.
c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                               int size, std::chrono::milliseconds timeout);

}  // namespace clip_lora::engine
