#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace clip_lora::engine {

/// A stream of work beside the one that is current. On the CPU everything runs one after the other.
class SideStream {
 public:
  explicit SideStream(at::Device device);
  ~SideStream();

  /// Runs `work` on the side stream, behind everything that the current stream has been given so far. What it
  /// reads has to live until join().
  void run(const std::function<void()>& work) const;
  /// The current stream goes on only when the side stream is done. Where work has thrown, neither is used again.
  void join() const;

 private:
  struct Cuda;
  std::unique_ptr<Cuda> cuda_;  // null on the CPU
};

/// A stream, and memory, that pieces of replayed work share, which never run at the same time. On the CPU
/// nothing.
class ReplayContext {
 public:
  explicit ReplayContext(at::Device device);
  ~ReplayContext();

  /// From here on the context's stream waits for what the other one has been given so far.
  void wait_for(const ReplayContext& other) const;
  void wait_for_current_stream() const;
  void make_current_stream_wait() const;

  struct Cuda;
  Cuda* cuda() const { return cuda_.get(); }

 private:
  std::unique_ptr<Cuda> cuda_;
};

/// A point in what a context is given.
class Moment {
 public:
  Moment();
  ~Moment();
  void mark(const ReplayContext& context);
  /// The same in what the current stream of `device` is given.
  void mark_current_stream(at::Device device);
  /// Returns when all that had been given then is done; at once if nothing was marked.
  void wait() const;

 private:
  struct Cuda;
  std::unique_ptr<Cuda> cuda_;
};

/// Work on tensors that stay in their places. On CUDA it runs on its context's stream, the second run
/// captures it in a graph, which is replayed from then on; on the CPU it is just called.
class ReplayedWork {
 public:
  /// Unless it is to be `captured`, it is just called on the context's stream.
  ReplayedWork(const ReplayContext& context, std::function<void()> work, bool captured = true);
  ~ReplayedWork();

  /// Does `prepare` (copies of inputs) and the work.
  void run(const std::function<void()>& prepare = [] {});

 private:
  struct Cuda;
  const ReplayContext& context_;
  std::function<void()> work_;
  std::unique_ptr<Cuda> cuda_;
};

}  // namespace clip_lora::engine
