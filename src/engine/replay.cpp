#include "replay.hpp"

#include <exception>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#ifdef CLIP_LORA_WITH_CUDA
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace clip_lora::engine {

#ifdef CLIP_LORA_WITH_CUDA

namespace {

using c10::cuda::CUDAStream;

/// `after` does nothing before everything that `before` has been given is done.
void order(const CUDAStream& before, const CUDAStream& after) {
  at::cuda::CUDAEvent event;
  event.record(before);
  event.block(after);
}

/// A stream for as long as this lives; then the next one gets it. cuBLAS keeps some 32 MiB for each stream that
/// it has ever worked on, which run after run with streams of their own would add up to gigabytes.
class PooledStream {
 public:
  PooledStream(bool high_priority, c10::DeviceIndex device)
      : key_(high_priority, device), stream_(take(key_)) {}
  ~PooledStream() {
    const std::lock_guard lock(mutex_);
    idle_[key_].push_back(stream_);
  }
  PooledStream(const PooledStream&) = delete;
  PooledStream& operator=(const PooledStream&) = delete;

  const CUDAStream& operator*() const { return stream_; }

 private:
  using Key = std::pair<bool, c10::DeviceIndex>;

  static CUDAStream take(const Key& key) {
    const std::lock_guard lock(mutex_);
    auto& idle = idle_[key];
    if (idle.empty()) return c10::cuda::getStreamFromPool(key.first, key.second);
    const CUDAStream stream = idle.back();
    idle.pop_back();
    return stream;
  }

  static inline std::mutex mutex_;
  static inline std::map<Key, std::vector<CUDAStream>> idle_;

  Key key_;
  CUDAStream stream_;
};

}  // namespace

struct SideStream::Cuda {
  explicit Cuda(c10::DeviceIndex device) : stream(/*high_priority=*/false, device) {}

  PooledStream stream;
  bool is_busy = false;  // since the last join
};

SideStream::SideStream(at::Device device)
    : cuda_(device.is_cuda() ? std::make_unique<Cuda>(device.index()) : nullptr) {}

void SideStream::run(const std::function<void()>& work) const {
  if (!cuda_) return work();
  order(c10::cuda::getCurrentCUDAStream(), *cuda_->stream);
  cuda_->is_busy = true;
  const c10::cuda::CUDAStreamGuard guard(*cuda_->stream);
  work();
}

void SideStream::join() const {
  // A stream that was given nothing is no part of a capture, which must not wait for it then.
  if (!cuda_ || !std::exchange(cuda_->is_busy, false)) return;
  order(*cuda_->stream, c10::cuda::getCurrentCUDAStream());
}

struct ReplayContext::Cuda {
  explicit Cuda(c10::DeviceIndex index) : device(index), stream(/*high_priority=*/true, index) {
    // Holds the pool, also while no work is there that does.
    c10::cuda::CUDACachingAllocator::beginAllocateToPool(device, pool, [](cudaStream_t) { return false; });
    c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool);
  }
  ~Cuda() {
    c10::cuda::CUDACachingAllocator::releasePool(device, pool);
    try {
      c10::cuda::CUDACachingAllocator::emptyCache();  // else the pool's memory stays, of use to nobody
    } catch (const c10::Error&) {  // of a device that has failed before, as others have said
    }
  }
  Cuda(const Cuda&) = delete;
  Cuda& operator=(const Cuda&) = delete;

  c10::DeviceIndex device;
  PooledStream stream;
  at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
};

ReplayContext::ReplayContext(at::Device device)
    : cuda_(device.is_cuda() ? std::make_unique<Cuda>(device.index()) : nullptr) {}

void ReplayContext::wait_for(const ReplayContext& other) const {
  if (cuda_) order(*other.cuda_->stream, *cuda_->stream);
}

void ReplayContext::wait_for_current_stream() const {
  if (cuda_) order(c10::cuda::getCurrentCUDAStream(cuda_->device), *cuda_->stream);
}

void ReplayContext::make_current_stream_wait() const {
  if (cuda_) order(*cuda_->stream, c10::cuda::getCurrentCUDAStream(cuda_->device));
}

struct Moment::Cuda {
  at::cuda::CUDAEvent event;
};

void Moment::mark(const ReplayContext& context) {
  if (context.cuda() == nullptr) return;
  if (!cuda_) cuda_ = std::make_unique<Cuda>();
  cuda_->event.record(*context.cuda()->stream);
}

void Moment::mark_current_stream(at::Device device) {
  if (!device.is_cuda()) return;
  if (!cuda_) cuda_ = std::make_unique<Cuda>();
  cuda_->event.record(c10::cuda::getCurrentCUDAStream(device.index()));
}

void Moment::wait() const {
  if (cuda_) cuda_->event.synchronize();
}

struct ReplayedWork::Cuda {
  /// Without a graph, but out of the graphs' memory, which is not needed twice then.
  void run_eagerly(const std::function<void()>& work, const ReplayContext::Cuda& context) {
    // The side streams allocate here as well, and nobody else does while this thread is at it.
    c10::cuda::CUDACachingAllocator::beginAllocateToPool(context.device, context.pool,
                                                         [](cudaStream_t) { return true; });
    is_pool_user = true;
    try {
      work();
    } catch (...) {
      c10::cuda::CUDACachingAllocator::endAllocateToPool(context.device, context.pool);
      throw;
    }
    c10::cuda::CUDACachingAllocator::endAllocateToPool(context.device, context.pool);
  }

  void capture(const std::function<void()>& work, const ReplayContext::Cuda& context) {
    auto captured = std::make_unique<at::cuda::CUDAGraph>();
    // Other threads may go on pinning memory meanwhile.
    captured->capture_begin(context.pool, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      try {
        captured->capture_end();         // the stream is to be of use again; what there is of a graph goes
      } catch (const std::exception&) {  // the work's own exception says more
      }
      throw;
    }
    captured->capture_end();
    graph = std::move(captured);
  }

  std::unique_ptr<at::cuda::CUDAGraph> graph;
  bool is_captured = true;
  bool is_pool_user = false;
};

void ReplayedWork::run(const std::function<void()>& prepare) {
  if (!cuda_) {
    prepare();
    return work_();
  }
  const auto& context = *context_.cuda();
  const c10::cuda::CUDAStreamGuard guard(*context.stream);
  prepare();
  if (!cuda_->is_captured) return work_();
  if (!cuda_->is_pool_user) return cuda_->run_eagerly(work_, context);
  if (!cuda_->graph) cuda_->capture(work_, context);
  cuda_->graph->replay();
}

ReplayedWork::ReplayedWork(const ReplayContext& context, std::function<void()> work, bool captured)
    : context_(context),
      work_(std::move(work)),
      cuda_(context.cuda() != nullptr ? std::make_unique<Cuda>() : nullptr) {
  if (cuda_) cuda_->is_captured = captured;
}

ReplayedWork::~ReplayedWork() {
  if (!cuda_) return;
  const auto& context = *context_.cuda();
  // Work that has failed says so here, too: whoever uses the device next is told again.
  C10_CUDA_IGNORE_ERROR(cudaStreamSynchronize(*context.stream));
  cuda_->graph.reset();
  if (cuda_->is_pool_user) c10::cuda::CUDACachingAllocator::releasePool(context.device, context.pool);
}

#else

struct SideStream::Cuda {};
SideStream::SideStream(at::Device) {}
void SideStream::run(const std::function<void()>& work) const { work(); }
void SideStream::join() const {}

struct ReplayContext::Cuda {};
ReplayContext::ReplayContext(at::Device) {}
void ReplayContext::wait_for(const ReplayContext&) const {}
void ReplayContext::wait_for_current_stream() const {}
void ReplayContext::make_current_stream_wait() const {}

struct Moment::Cuda {};
void Moment::mark(const ReplayContext&) {}
void Moment::mark_current_stream(at::Device) {}
void Moment::wait() const {}

struct ReplayedWork::Cuda {};
ReplayedWork::ReplayedWork(const ReplayContext& context, std::function<void()> work, bool)
    : context_(context), work_(std::move(work)) {}
ReplayedWork::~ReplayedWork() = default;

void ReplayedWork::run(const std::function<void()>& prepare) {
  prepare();
  work_();
}

#endif

SideStream::~SideStream() = default;
ReplayContext::~ReplayContext() = default;
Moment::Moment() = default;
Moment::~Moment() = default;

}  // namespace clip_lora::engine
