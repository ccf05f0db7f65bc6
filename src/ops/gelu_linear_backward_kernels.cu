#include "hopper_product.cuh"

namespace clip_lora::ops {
namespace {

/// Gradients times a function's derivative in the form that CUTLASS wants: of each value in two
/// cutlass::Arrays.
template <typename Function>
struct Each {
  template <typename Values>
  struct TimesDerivative {
    __device__ Values operator()(Values gradient, const Values& h) const {
#pragma unroll
      for (int i = 0; i < Values::kElements; ++i) gradient[i] *= Function::derivative(h[i]);
      return gradient;
    }
  };
};

template <typename T, typename Function>
struct Backward {
  using Hidden = cutlass::epilogue::fusion::Sm90SrcFetch<T>;
  using Tree = hopper::Compute<Each<Function>::template TimesDerivative, T, hopper::Accumulator, Hidden>;
  using Product = hopper::Product<T, hopper::ColumnMajor, /*Source=*/T, Tree>;

  static bool launch(const GeluProduct& product, const void* hidden, cudaStream_t stream) {
    auto arguments = hopper::arguments_of<Product>(product);
    arguments.epilogue.ptr_C = static_cast<const T*>(hidden);
    arguments.epilogue.dC = arguments.epilogue.dD;
    return hopper::launch<Product>(arguments, stream);
  }
};

}  // namespace

bool launch_gelu_linear_backward(const GeluProduct& product, const void* hidden, Element element,
                                 cudaStream_t stream) {
  return hopper::with_type_and_gelu(element, product.quick, [&](auto type, auto gelu) {
    return Backward<decltype(type), decltype(gelu)>::launch(product, hidden, stream);
  });
}

}  // namespace clip_lora::ops
