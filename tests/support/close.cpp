#include "support/close.hpp"

#include <torch/torch.h>

#include <cstring>

namespace clip_lora::testing {
namespace {

using ::testing::AssertionFailure;
using ::testing::AssertionResult;
using ::testing::AssertionSuccess;

AssertionResult comparable(const at::Tensor& actual, const at::Tensor& expected) {
  if (!actual.defined())
    return AssertionFailure() << "got an undefined tensor, expected " << expected.sizes();
  if (actual.sizes() == expected.sizes()) return AssertionSuccess();
  return AssertionFailure() << "got shape " << actual.sizes() << ", expected " << expected.sizes();
}

at::Tensor in_float64(const at::Tensor& x) { return x.detach().cpu().to(at::kDouble).contiguous(); }

}  // namespace

AssertionResult close(const at::Tensor& actual, const at::Tensor& expected, double tolerance) {
  if (const auto shapes = comparable(actual, expected); !shapes) return shapes;
  if (expected.numel() == 0) return AssertionSuccess();
  const auto got = in_float64(actual), wanted = in_float64(expected);
  const auto difference = (got - wanted).abs();
  const double allowed = tolerance * wanted.abs().max().item<double>();
  const double largest = difference.max().item<double>();
  if (largest <= allowed) return AssertionSuccess();  // false for NaN
  const auto where = difference.argmax();
  return AssertionFailure() << "max|a - b| = " << largest << ", allowed " << allowed << " (" << tolerance
                            << " of the largest); entry " << where.item<std::int64_t>() << " of "
                            << wanted.sizes() << ": got " << got.flatten()[where].item<double>()
                            << ", expected " << wanted.flatten()[where].item<double>();
}

AssertionResult close_in_norm(const at::Tensor& actual, const at::Tensor& expected, double tolerance) {
  if (const auto shapes = comparable(actual, expected); !shapes) return shapes;
  const auto wanted = in_float64(expected);
  const double difference = (in_float64(actual) - wanted).norm().item<double>();
  const double norm = wanted.norm().item<double>();
  if (difference <= tolerance * norm) return AssertionSuccess();
  return AssertionFailure() << "the relative norm of the difference is " << difference / norm << ", allowed "
                            << tolerance;
}

AssertionResult identical(const at::Tensor& actual, const at::Tensor& expected) {
  if (const auto shapes = comparable(actual, expected); !shapes) return shapes;
  if (actual.scalar_type() != expected.scalar_type()) {
    return AssertionFailure() << "got " << actual.scalar_type() << ", expected " << expected.scalar_type();
  }
  const auto got = actual.detach().cpu().contiguous(), wanted = expected.detach().cpu().contiguous();
  if (got.nbytes() == 0 || std::memcmp(got.const_data_ptr(), wanted.const_data_ptr(), got.nbytes()) == 0) {
    return AssertionSuccess();
  }
  return AssertionFailure() << "the bits differ: " << (got != wanted).sum().item<std::int64_t>() << " of "
                            << got.numel() << " values";
}

}  // namespace clip_lora::testing
