#include "hopper_product.cuh"

namespace clip_lora::ops {
namespace {

namespace fusion = cutlass::epilogue::fusion;

/// A function of registers in the form that CUTLASS wants: of each value in a cutlass::Array.
template <typename Function>
struct Each {
  template <typename Values>
  struct Activate {
    __device__ Values operator()(Values h) const {
#pragma unroll
      for (int i = 0; i < Values::kElements; ++i) h[i] = Function::value(h[i]);
      return h;
    }
  };
};

/// gelu(hidden), where hidden = sum + bias is rounded to T and stored on the way if its address is not null.
template <typename T, typename Function>
struct Forward {
  using Descriptor =
      cutlass::epilogue::collective::detail::EpilogueDescriptor<hopper::Tile, hopper::EpilogueTile, void, T,
                                                                hopper::EpilogueSchedule>;
  using Aux = cutlass::epilogue::collective::detail::AuxStoreDescriptor<Descriptor, hopper::ColumnMajor, T>;
  using Store = fusion::Sm90AuxStore<Aux::Stages, typename Aux::EpilogueTile, T,
                                     cutlass::FloatRoundStyle::round_to_nearest, typename Aux::Stride,
                                     typename Aux::SmemLayoutAtom, typename Aux::CopyOpR2S>;
  using Bias = fusion::Sm90ColBroadcast</*Stages=*/0, hopper::Tile, T, float>;
  using Hidden = fusion::Sm90EVT<Store, hopper::Compute<cutlass::plus, T, hopper::Accumulator, Bias>>;
  using Tree = hopper::Compute<Each<Function>::template Activate, T, Hidden>;
  using Product = hopper::Product<T, hopper::RowMajor, /*Source=*/void, Tree>;

  static bool launch(const GeluProduct& product, const void* bias, void* hidden, cudaStream_t stream) {
    auto arguments = hopper::arguments_of<Product>(product);
    arguments.epilogue.thread = {{{/*sum=*/{}, {static_cast<const T*>(bias)}, /*plus=*/{}},
                                  {static_cast<T*>(hidden), arguments.epilogue.dD}},
                                 /*gelu=*/{}};
    return hopper::launch<Product>(arguments, stream);
  }
};

}  // namespace

bool launch_linear_gelu(const GeluProduct& product, const void* bias, void* hidden, Element element,
                        cudaStream_t stream) {
  return hopper::with_type_and_gelu(element, product.quick, [&](auto type, auto gelu) {
    return Forward<decltype(type), decltype(gelu)>::launch(product, bias, hidden, stream);
  });
}

}  // namespace clip_lora::ops
