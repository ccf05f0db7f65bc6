#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace clip_lora::engine {

/// What a launcher tells each process of a run: torchrun's variables of the environment.
struct ProcessEnvironment {
  int rank = 0;                   ///< RANK: 0 … size − 1
  int size = 1;                   ///< WORLD_SIZE
  int local_rank = 0;             ///< LOCAL_RANK, among the processes of this machine; RANK if it is not set
  int local_size = 1;             ///< LOCAL_WORLD_SIZE: how many those are; WORLD_SIZE if it is not set
  std::string master_address;     ///< MASTER_ADDR: where process 0 runs
  std::uint16_t master_port = 0;  ///< MASTER_PORT: where it, or torchrun, listens
  bool launcher_has_store = false;  ///< TORCHELASTIC_USE_AGENT_STORE=True: torchrun listens there itself
  std::string attempt = "0";        ///< TORCHELASTIC_RESTART_COUNT
};

/// Nothing where WORLD_SIZE is not set, empty, or 1. Throws ConfigError for values that are missing or
/// senseless.
std::optional<ProcessEnvironment> read_process_environment();

struct ProcessGroupOptions {
  std::chrono::milliseconds timeout =
      std::chrono::minutes(5);  ///< of a collective, the others' lateness included
  std::chrono::milliseconds start_timeout = std::chrono::minutes(10);  ///< until all processes are there
};

/// The processes that train one model together: LibTorch's c10d, with NCCL for CUDA tensors and Gloo for CPU
/// ones. All processes make the same calls in the same order, each from one thread. Nothing here is
/// differentiable.
///
/// A process that is lost ends the others: their collectives, running or next, throw an Error such as
/// "process 2 of 4, on alpha, is gone: its process has ended (hint: …)", or Interrupted if a signal is
/// pending, which is what others were lost by then. Processes of one machine know that
/// at once, of another when a connection closes, a process has given no sign of life for a minute, or a
/// collective has timed out.
class ProcessGroup {
 public:
  /// Waits until all processes are there. `device`: of the tensors; CPU tensors will do as well if it is a
  /// CUDA one. Throws ConfigError for a rank or port that is taken, and for a CUDA device if the program was
  /// built without NCCL; Error if a process does not come, naming it.
  ProcessGroup(const ProcessEnvironment& environment, at::Device device,
               const ProcessGroupOptions& options = {});

  /// Says goodbye. Process 0, which the others reach each other through, waits for theirs up to ten seconds.
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int rank() const;
  int size() const;
  /// Processes of this machine.
  int local_size() const;
  bool is_first() const { return rank() == 0; }

  // Collectives. CPU tensors: return when it is done. CUDA: queued on the current stream, nothing waits for
  // the device. Shapes and types are the same in all processes.

  /// tensor: [n, ...]. Returns [size() · n, ...], the processes' in the order of their ranks.
  at::Tensor all_gather(const at::Tensor& tensor);

  /// tensor: contiguous; becomes the sum of the processes', the same bits in each.
  void all_reduce_sum(const at::Tensor& tensor);

  /// tensor: contiguous; becomes process 0's.
  void broadcast(const at::Tensor& tensor);

  /// Returns when all processes have called it, however long that takes, signals or not. Does not wait for
  /// the device.
  void barrier();

  /// Throws ConfigError in every process if they differ in a setting, with its name, both ranks and values.
  void require_same(const std::map<std::string, std::string>& settings);

  /// Throws the Error of a process that is known to be lost. On CUDA, where a collective only queues its
  /// work, call it after waiting for the device: work that waited for a lost process has ended with undefined
  /// results.
  void check() const;

  /// Tells the others why this process gives up: it becomes the reason in their errors. Throws nothing.
  void report_failure(const std::string& reason) noexcept;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace clip_lora::engine
