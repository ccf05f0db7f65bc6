#define USE_C10D_GLOO  // LibTorch was built with it, and its header is empty otherwise
#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "backends.hpp"

namespace clip_lora::engine {
namespace {

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

auto device_for(const std::string& master_address) {
  if (is_loopback(master_address)) return c10d::ProcessGroupGloo::createDeviceForHostname(master_address);
  if (const char* const interface = std::getenv("GLOO_SOCKET_IFNAME");
      interface != nullptr && *interface != '\0')
    return c10d::ProcessGroupGloo::createDeviceForInterface(interface);
  return c10d::ProcessGroupGloo::createDefaultDevice();
}

}  // namespace

c10::intrusive_ptr<c10d::Backend> gloo_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                               int size, std::chrono::milliseconds timeout,
                                               const std::string& master_address) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(device_for(master_address));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, std::move(options));
}

}  // namespace clip_lora::engine
