#pragma once

#include <ATen/core/Tensor.h>

namespace clip_lora::ops::on_cuda {

/// Whether cuBLASLt takes these matrices: rows of neighbours, 16-byte aligned, of one floating type, not
/// empty.
bool can_multiply(const at::Tensor& x, const at::Tensor& weight);

/// ops::linear and ops::linear_backward in one launch of cuBLASLt each, bias and residual in its epilogue.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& residual, bool tf32);
at::Tensor linear_backward(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& residual,
                           bool tf32);

}  // namespace clip_lora::ops::on_cuda
