#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "pickle_item.hpp"

namespace clip_lora::io {

/// A pickle and what it may refer to.
struct PickleSource {
  std::string_view bytes;
  /// The bytes of the storage of that key, for which memory is taken at most once; its type is left open.
  std::function<PickleStorage(const std::string& key)> find_storage;
  /// What all tensors together may view, each counted by itself.
  std::uint64_t most_tensor_bytes = 0;
};

/// The value that `source` describes. Nothing is run: there are a closed list of opcodes (those that Python's
/// pickle writes in protocols 2 to 5 and LibTorch's Pickler), a closed list of globals, and limits on depth,
/// on the number of values, and on how often a value may be referred to, so that what comes out is bounded by
/// the pickle's size. Dictionaries have keys of AnyType. Throws PickleError with the place in the pickle.
/// Source: CPython's Lib/pickletools.py; torch/serialization.py for the persistent ids.
c10::IValue run_pickle(const PickleSource& source);

}  // namespace clip_lora::io
