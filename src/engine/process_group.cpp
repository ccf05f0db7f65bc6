#include "clip_lora/engine/process_group.hpp"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "backends.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "process_watch.hpp"

namespace clip_lora::engine {
namespace {

using StorePointer = c10::intrusive_ptr<c10d::Store>;
using BackendPointer = c10::intrusive_ptr<c10d::Backend>;

constexpr auto kFarewell = std::chrono::seconds(10);
constexpr auto kLookInterval = std::chrono::milliseconds(20);  // of who waits for others

std::optional<std::string> variable(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::string required_variable(const char* name) {
  const auto value = variable(name);
  if (!value) {
    throw ConfigError(
        std::string("WORLD_SIZE is set, but ") + name +
        " is not (hint: scripts/launch_multi_gpu.sh and torchrun set both; unset WORLD_SIZE for a run "
        "of one process)");
  }
  return *value;
}

int number(const char* name, const std::string& text, int least, int most) {
  int value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (wrong != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw ConfigError(std::string(name) + " is '" + text + "' in the environment, expected a number from " +
                      std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

std::string process_of(const ProcessEnvironment& environment) {
  return "process " + std::to_string(environment.rank) + " of " + std::to_string(environment.size);
}

/// LibTorch's message without the stack that it adds.
std::string message_of(const std::exception& error) {
  const auto* const torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string message = torch_error ? torch_error->what_without_backtrace() : error.what();
  return message.substr(0, message.find('\n'));
}

/// LibTorch warns of each connection that is lost with pages of its stack; what is lost is said in our
/// errors.
void quieten_connection_warnings() {
  constexpr int kErrorsOnly = 2;
  if (!variable("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = kErrorsOnly;
}

StorePointer open_store(const ProcessEnvironment& environment, std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = environment.master_port;
  options.isServer = environment.rank == 0 && !environment.launcher_has_store;
  options.waitWorkers = false;  // ProcessWatch waits, and can say who is missing
  options.timeout = timeout;
  const std::string place = environment.master_address + ":" + std::to_string(environment.master_port);
  try {
    return c10::make_intrusive<c10d::PrefixStore>(
        "clip_lora/" + environment.attempt,
        c10::make_intrusive<c10d::TCPStore>(environment.master_address, options));
  } catch (const std::exception& error) {
    if (options.isServer) {
      throw ConfigError(process_of(environment) + " cannot listen at " + place + ": " + message_of(error) +
                        " (hint: MASTER_ADDR must be its machine, and MASTER_PORT a free port there)");
    }
    throw Error(process_of(environment) + ": nobody answers at " + place +
                ", MASTER_ADDR:MASTER_PORT: " + message_of(error));
  }
}

using Settings = std::map<std::string, std::string>;

std::string serialised(const Settings& settings) {
  std::string text;
  for (const auto& [name, value] : settings) text += name + '\0' + value + '\0';
  return text;
}

/// What serialised() made; zeros after it are padding.
Settings parsed(const char* text, std::size_t size) {
  Settings settings;
  for (const char* const end = text + size; text < end && *text != '\0';) {
    const std::string name = text;
    text += name.size() + 1;
    const std::string value = text;
    text += value.size() + 1;
    settings[name] = value;
  }
  return settings;
}

/// What of a value a message has room for.
std::string shortened(const std::string& value) {
  constexpr std::size_t kMost = 60;
  return value.size() <= kMost ? value : value.substr(0, kMost) + "…";
}

/// "--lr is '0.1', there '0.2'" for each setting that `own` has otherwise than `first`.
std::vector<std::string> differences(const Settings& own, const Settings& first) {
  std::set<std::string> names;
  for (const auto* settings : {&own, &first})
    for (const auto& entry : *settings) names.insert(entry.first);
  const auto value_of = [](const Settings& settings, const std::string& name) {
    const auto found = settings.find(name);
    return found == settings.end() ? std::optional<std::string>() : found->second;
  };
  const auto shown = [](const std::optional<std::string>& value) {
    return value ? "'" + shortened(*value) + "'" : "nothing";
  };
  std::vector<std::string> result;
  for (const auto& name : names) {
    const auto mine = value_of(own, name), theirs = value_of(first, name);
    if (mine != theirs) result.push_back(name + " is " + shown(mine) + ", there " + shown(theirs));
  }
  return result;
}

}  // namespace

std::optional<ProcessEnvironment> read_process_environment() {
  const auto size = variable("WORLD_SIZE");
  constexpr int kMostProcesses = 65536;
  if (!size || number("WORLD_SIZE", *size, 1, kMostProcesses) == 1) return std::nullopt;
  ProcessEnvironment environment;
  environment.size = number("WORLD_SIZE", *size, 1, kMostProcesses);
  environment.rank = number("RANK", required_variable("RANK"), 0, environment.size - 1);
  const auto local_rank = variable("LOCAL_RANK");
  environment.local_rank =
      local_rank ? number("LOCAL_RANK", *local_rank, 0, environment.size - 1) : environment.rank;
  const auto local_size = variable("LOCAL_WORLD_SIZE");
  environment.local_size =
      local_size ? number("LOCAL_WORLD_SIZE", *local_size, 1, environment.size) : environment.size;
  environment.master_address = required_variable("MASTER_ADDR");
  environment.master_port =
      static_cast<std::uint16_t>(number("MASTER_PORT", required_variable("MASTER_PORT"), 1, 65535));
  environment.launcher_has_store = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  environment.attempt = variable("TORCHELASTIC_RESTART_COUNT").value_or("0");
  return environment;
}

class ProcessGroup::Impl {
 public:
  Impl(const ProcessEnvironment& environment, at::Device device, const ProcessGroupOptions& options)
      : environment_(environment),
        store_(open_store(environment, options.start_timeout)),
        watch_(store_->clone(), environment.rank, environment.size, options.start_timeout) {
    watch_.start([this] { abort(); });
    try {
      gloo_ = gloo_backend(c10::make_intrusive<c10d::PrefixStore>("gloo", store_), rank(), size(),
                           options.timeout, environment.master_address);
    } catch (const std::exception& error) {
      fail(error);
    }
    if (device.is_cuda()) {
      const std::lock_guard lock(nccl_mutex_);
      nccl_ = nccl_backend(c10::make_intrusive<c10d::PrefixStore>("nccl", store_), rank(), size(),
                           options.timeout);
    }
  }

  ~Impl() {
    watch_.leave();
    if (nccl_ && !watch_.loss()) nccl_->shutdown();
    nccl_.reset();
    gloo_.reset();
    if (rank() == 0) watch_.wait_for_others(kFarewell);
  }

  int rank() const { return environment_.rank; }
  int size() const { return environment_.size; }
  int local_size() const { return environment_.local_size; }

  void check() const {
    if (const auto loss = watch_.loss()) throw_loss(*loss);
  }

  void report_failure(const std::string& reason) { watch_.report(reason); }

  /// Waits for what `start` begins on the backend of `device`, or has the current stream wait.
  template <typename Start>
  void run(at::Device device, const Start& start) {
    check();
    TORCH_CHECK(!device.is_cuda() || nccl_, "a CUDA tensor in a group of CPU processes");
    const c10::OptionalDeviceGuard guard(device);
    watch_.entered_collective();
    try {
      start(device.is_cuda() ? *nccl_ : *gloo_)->wait();
    } catch (const std::exception& error) {
      fail(error);
    }
  }

  /// Through the store: collectives have a time limit.
  void barrier() {
    const std::string place = "barrier/" + std::to_string(barriers_++) + "/";
    std::vector<std::string> keys;
    for (int i = 0; i < size(); ++i) keys.push_back(place + std::to_string(i));
    try {
      store_->set(keys[static_cast<std::size_t>(rank())], std::string("here"));
      while (!store_->check(keys)) {
        if (const auto loss = watch_.loss_before(keys)) throw_loss(*loss);
        std::this_thread::sleep_for(kLookInterval);
      }
    } catch (const Error&) {
      throw;
    } catch (const Interrupted&) {
      throw;
    } catch (const std::exception& error) {
      fail(error);
    }
  }

 private:
  void abort() {
    const std::lock_guard lock(nccl_mutex_);
    if (nccl_) nccl_->abort();
  }

  [[noreturn]] void fail(const std::exception& error) { throw_loss(watch_.explain(message_of(error))); }

  /// What happens to others after a signal to all is no error.
  [[noreturn]] static void throw_loss(const std::string& loss) {
    if (const int signal = pending_interrupt()) throw Interrupted(signal, "interrupted: " + loss);
    throw Error(loss + " (hint: started again with --resume, the run goes on from what it saved last)");
  }

  const ProcessEnvironment environment_;
  const StorePointer store_;
  BackendPointer gloo_;
  std::mutex nccl_mutex_;  // the watch's thread aborts it
  BackendPointer nccl_;
  ProcessWatch watch_;  // after what its thread uses
  std::int64_t barriers_ = 0;
};

ProcessGroup::ProcessGroup(const ProcessEnvironment& environment, at::Device device,
                           const ProcessGroupOptions& options) {
  quieten_connection_warnings();
  impl_ = std::make_unique<Impl>(environment, device, options);
}

ProcessGroup::~ProcessGroup() = default;

int ProcessGroup::rank() const { return impl_->rank(); }

int ProcessGroup::size() const { return impl_->size(); }

int ProcessGroup::local_size() const { return impl_->local_size(); }

at::Tensor ProcessGroup::all_gather(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.dim() >= 1, "all_gather: a tensor without dimensions");
  at::Tensor input = tensor.detach().contiguous();
  std::vector<std::int64_t> sizes = input.sizes().vec();
  sizes[0] *= size();
  at::Tensor output = at::empty(sizes, input.options());
  if (input.numel() == 0) return output;
  impl_->run(input.device(), [&](c10d::Backend& backend) { return backend._allgather_base(output, input); });
  return output;
}

void ProcessGroup::all_reduce_sum(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous(), "all_reduce_sum: the tensor is not contiguous");
  std::vector<at::Tensor> tensors = {tensor.detach()};
  impl_->run(tensor.device(), [&](c10d::Backend& backend) { return backend.allreduce(tensors); });
}

void ProcessGroup::broadcast(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous(), "broadcast: the tensor is not contiguous");
  std::vector<at::Tensor> tensors = {tensor.detach()};
  impl_->run(tensor.device(), [&](c10d::Backend& backend) { return backend.broadcast(tensors); });
}

void ProcessGroup::barrier() { impl_->barrier(); }

void ProcessGroup::require_same(const std::map<std::string, std::string>& settings) {
  const std::string own = serialised(settings);
  const at::Tensor sizes = all_gather(at::tensor({static_cast<std::int64_t>(own.size())}, at::kLong));
  const std::int64_t longest = sizes.max().item<std::int64_t>();
  if (longest == 0) return;
  const at::Tensor padded = at::zeros({1, longest}, at::kByte);
  std::memcpy(padded.mutable_data_ptr(), own.data(), own.size());
  const at::Tensor all = all_gather(padded);
  const auto settings_of = [&](int rank) {
    return parsed(static_cast<const char*>(all.const_data_ptr()) + rank * longest,
                  static_cast<std::size_t>(longest));
  };
  const Settings first = settings_of(0);
  for (int i = 1; i < size(); ++i) {
    const auto found = differences(settings_of(i), first);
    if (found.empty()) continue;
    throw ConfigError("process " + std::to_string(i) + " of " + std::to_string(size()) +
                      " has other settings than process 0: " + join_capped(found) +
                      " (hint: start all processes of a run with the same flags and files)");
  }
}

void ProcessGroup::check() const { impl_->check(); }

void ProcessGroup::report_failure(const std::string& reason) noexcept {
  try {
    impl_->report_failure(reason);
  } catch (...) {  // NOLINT(bugprone-empty-catch): the others will see that this process ends
  }
}

}  // namespace clip_lora::engine
