#include "linear_cuda.hpp"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>

namespace clip_lora::ops::on_cuda {
namespace {

constexpr std::size_t kWorkspaceBytes = 32U << 20U;  // what cuBLAS itself takes on Hopper
constexpr std::uintptr_t kAlignment = 16;
constexpr int kCandidates = 8;

void check(cublasStatus_t status, const char* call) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: ", call, " returned ",
              cublasLtGetStatusString(status));
}

cudaDataType_t data_type(at::ScalarType type) {
  if (type == at::kHalf) return CUDA_R_16F;
  return type == at::kBFloat16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// One of cuBLASLt's descriptors, destroyed with its scope.
template <typename Handle, cublasStatus_t (*Destroy)(Handle)>
class Descriptor {
 public:
  Descriptor() = default;
  ~Descriptor() {
    if (handle != nullptr) Destroy(handle);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  Handle handle = nullptr;
};

using Layout = Descriptor<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Product = Descriptor<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Preference = Descriptor<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

/// D = op(A) B + C, all by columns as BLAS has them: a row-major [T, N] is its [N, T].
struct Multiplication {
  at::ScalarType type;
  bool transpose_a;
  std::int64_t m, n, k;
  std::int64_t lda, ldb, ldc, ldd;
  bool has_bias;
  bool has_residual;
  bool tf32;
  std::array<std::uint32_t, 4> alignments = {};  ///< of A, B, C and D in bytes

  auto key() const {
    return std::tuple(type, transpose_a, m, n, k, lda, ldb, ldc, ldd, has_bias, has_residual, tf32,
                      alignments);
  }
};

/// The descriptors of a multiplication and the algorithm that cuBLASLt's heuristics like best for it. Nothing
/// is timed: the choice, and with it every bit of the result, is the same in every run. (Timing sixteen
/// candidates at ViT-B/16's shapes won 2 %, and nothing in the whole iteration, which the GPU's power
/// limits.)
class Plan {
 public:
  explicit Plan(const Multiplication& shape) : shape_(shape) {
    const cudaDataType_t type = data_type(shape.type);
    const bool narrow = shape.type != at::kFloat;
    const cublasComputeType_t compute =
        !narrow && shape.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    check(cublasLtMatmulDescCreate(&product_.handle, compute, CUDA_R_32F), "cublasLtMatmulDescCreate");
    set(CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (shape.has_bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
    }
    layout(a_, type, shape.transpose_a ? shape.k : shape.m, shape.transpose_a ? shape.m : shape.k, shape.lda);
    layout(b_, type, shape.k, shape.n, shape.ldb);
    layout(c_, type, shape.m, shape.n, shape.ldc);
    layout(d_, type, shape.m, shape.n, shape.ldd);
    choose();
  }

  void run(const void* a, const void* b, const void* bias, const void* residual, void* out) {
    const float one = 1.0F, beta = residual != nullptr ? 1.0F : 0.0F;
    if (bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    // A temporary per call: LibTorch's allocator hands the same memory to the next product of the stream.
    const at::Tensor workspace = at::empty({static_cast<std::int64_t>(kWorkspaceBytes)},
                                           at::TensorOptions(at::kCUDA).dtype(at::kByte));
    check(
        cublasLtMatmul(at::cuda::getCurrentCUDABlasLtHandle(), product_.handle, &one, a, a_.handle, b,
                       b_.handle, &beta, residual != nullptr ? residual : out, c_.handle, out, d_.handle,
                       &algorithm_, workspace.data_ptr(), kWorkspaceBytes, at::cuda::getCurrentCUDAStream()),
        "cublasLtMatmul");
  }

 private:
  template <typename Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check(cublasLtMatmulDescSetAttribute(product_.handle, attribute, &value, sizeof value),
          "cublasLtMatmulDescSetAttribute");
  }

  static void layout(Layout& target, cudaDataType_t type, std::int64_t rows, std::int64_t columns,
                     std::int64_t ld) {
    check(cublasLtMatrixLayoutCreate(&target.handle, type, static_cast<std::uint64_t>(rows),
                                     static_cast<std::uint64_t>(columns), ld),
          "cublasLtMatrixLayoutCreate");
  }

  void choose() {
    Preference preference;
    check(cublasLtMatmulPreferenceCreate(&preference.handle), "cublasLtMatmulPreferenceCreate");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference.handle, attribute, &value, sizeof value),
            "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspaceBytes});
    // Parts of a sum are added up in float32, not in the output's type.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    const auto [a, b, c, d] = shape_.alignments;
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d);
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> results = {};
    int found = 0;
    check(cublasLtMatmulAlgoGetHeuristic(at::cuda::getCurrentCUDABlasLtHandle(), product_.handle, a_.handle,
                                         b_.handle, c_.handle, d_.handle, preference.handle, kCandidates,
                                         results.data(), &found),
          "cublasLtMatmulAlgoGetHeuristic");
    TORCH_CHECK(found > 0, "cuBLASLt has no algorithm for a product of ", shape_.m, " x ", shape_.n, " x ",
                shape_.k);
    const auto end = results.begin() + found;
    const auto liked = std::find_if(results.begin(), end,
                                    [](const auto& candidate) { return has_small_clusters(candidate.algo); });
    algorithm_ = (liked != end ? liked : results.begin())->algo;
  }

  /// Whether it runs in clusters of at most 4 blocks, or leaves that to the library. Those of 8 in cuBLASLt 13.1 end
  /// now and then in an "unspecified launch failure" where several processes take turns on one GPU.
  static bool has_small_clusters(const cublasLtMatmulAlgo_t& algorithm) {
    std::uint16_t shape = CUBLASLT_CLUSTER_SHAPE_AUTO;
    std::size_t written = 0;
    check(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, &shape,
                                               sizeof shape, &written),
          "cublasLtMatmulAlgoConfigGetAttribute");
    constexpr std::array kSmall = {
        CUBLASLT_CLUSTER_SHAPE_AUTO,  CUBLASLT_CLUSTER_SHAPE_1x1x1, CUBLASLT_CLUSTER_SHAPE_2x1x1,
        CUBLASLT_CLUSTER_SHAPE_1x2x1, CUBLASLT_CLUSTER_SHAPE_3x1x1, CUBLASLT_CLUSTER_SHAPE_1x3x1,
        CUBLASLT_CLUSTER_SHAPE_2x2x1, CUBLASLT_CLUSTER_SHAPE_4x1x1, CUBLASLT_CLUSTER_SHAPE_1x4x1};
    return std::find(kSmall.begin(), kSmall.end(), shape) != kSmall.end();
  }

  Multiplication shape_;
  Product product_;
  Layout a_, b_, c_, d_;
  cublasLtMatmulAlgo_t algorithm_ = {};
};

/// The largest power of two that divides the address, as far as cuBLASLt wants to know it.
std::uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | 256U;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

/// Plans are made once per shape, alignments and device.
void multiply(Multiplication shape, const void* a, const void* b, const at::Tensor& bias,
              const at::Tensor& residual, at::Tensor& out) {
  const void* c = residual.defined() ? residual.const_data_ptr() : out.const_data_ptr();
  shape.alignments = {alignment_of(a), alignment_of(b), alignment_of(c), alignment_of(out.const_data_ptr())};
  static std::mutex mutex;
  static std::map<std::tuple<int, decltype(shape.key())>, Plan> plans;
  const std::lock_guard lock(mutex);
  const auto plan = plans.try_emplace({out.get_device(), shape.key()}, shape).first;
  plan->second.run(a, b, bias.defined() ? bias.const_data_ptr() : nullptr,
                   residual.defined() ? residual.const_data_ptr() : nullptr, out.mutable_data_ptr());
}

bool has_aligned_rows(const at::Tensor& matrix) {
  const auto bytes = static_cast<std::uintptr_t>(matrix.element_size());
  return matrix.stride(1) == 1 && matrix.stride(0) >= matrix.size(1) &&
         static_cast<std::uintptr_t>(matrix.stride(0)) * bytes % kAlignment == 0 &&
         reinterpret_cast<std::uintptr_t>(matrix.const_data_ptr()) % kAlignment == 0;
}

}  // namespace

bool can_multiply(const at::Tensor& x, const at::Tensor& weight) {
  const at::ScalarType type = x.scalar_type();
  return weight.scalar_type() == type && (type == at::kHalf || type == at::kBFloat16 || type == at::kFloat) &&
         x.numel() > 0 && weight.numel() > 0 && has_aligned_rows(x) && has_aligned_rows(weight);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& residual, bool tf32) {
  const std::int64_t rows = x.size(0), outputs = weight.size(0);
  at::Tensor out = at::empty({rows, outputs}, x.options());
  const Multiplication shape = {.type = x.scalar_type(),
                                .transpose_a = true,
                                .m = outputs,
                                .n = rows,
                                .k = x.size(1),
                                .lda = weight.stride(0),
                                .ldb = x.stride(0),
                                .ldc = residual.defined() ? residual.stride(0) : outputs,
                                .ldd = outputs,
                                .has_bias = bias.defined(),
                                .has_residual = residual.defined(),
                                .tf32 = tf32};
  multiply(shape, weight.const_data_ptr(), x.const_data_ptr(), bias, residual, out);
  return out;
}

at::Tensor linear_backward(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& residual,
                           bool tf32) {
  const std::int64_t rows = dy.size(0), inputs = weight.size(1);
  at::Tensor dx = at::empty({rows, inputs}, dy.options());
  const Multiplication shape = {.type = dy.scalar_type(),
                                .transpose_a = false,
                                .m = inputs,
                                .n = rows,
                                .k = dy.size(1),
                                .lda = weight.stride(0),
                                .ldb = dy.stride(0),
                                .ldc = residual.defined() ? residual.stride(0) : inputs,
                                .ldd = inputs,
                                .has_bias = false,
                                .has_residual = residual.defined(),
                                .tf32 = tf32};
  multiply(shape, weight.const_data_ptr(), dy.const_data_ptr(), {}, residual, dx);
  return dx;
}

}  // namespace clip_lora::ops::on_cuda
