#include "pickle_globals.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <map>

namespace clip_lora::io {
namespace {

using Kind = PickleGlobal::Kind;

constexpr std::size_t kMostTensorAxes = 64;  // LibTorch's own for most operations

struct TypeNames {
  at::ScalarType type;
  const char* storage;  // in the module torch
  const char* dtype;
};

constexpr std::array kTypes = {
    TypeNames{at::kDouble, "DoubleStorage", "float64"},
    TypeNames{at::kFloat, "FloatStorage", "float32"},
    TypeNames{at::kHalf, "HalfStorage", "float16"},
    TypeNames{at::kBFloat16, "BFloat16Storage", "bfloat16"},
    TypeNames{at::kLong, "LongStorage", "int64"},
    TypeNames{at::kInt, "IntStorage", "int32"},
    TypeNames{at::kShort, "ShortStorage", "int16"},
    TypeNames{at::kChar, "CharStorage", "int8"},
    TypeNames{at::kByte, "ByteStorage", "uint8"},
    TypeNames{at::kBool, "BoolStorage", "bool"},
    TypeNames{at::kComplexFloat, "ComplexFloatStorage", "complex64"},
    TypeNames{at::kComplexDouble, "ComplexDoubleStorage", "complex128"},
    TypeNames{at::kUInt16, nullptr, "uint16"},
    TypeNames{at::kUInt32, nullptr, "uint32"},
    TypeNames{at::kUInt64, nullptr, "uint64"},
};

const std::map<std::string, Kind>& functions() {
  static const std::map<std::string, Kind> table = {
      {"collections.OrderedDict", Kind::kOrderedDict},
      {"__builtin__.set", Kind::kSet},
      {"builtins.set", Kind::kSet},
      {"torch._utils._rebuild_tensor", Kind::kRebuildTensor},
      {"torch._utils._rebuild_tensor_v2", Kind::kRebuildTensor},
      {"torch._utils._rebuild_tensor_v3", Kind::kRebuildTensorV3},
      {"torch._utils._rebuild_parameter", Kind::kRebuildParameter},
      {"torch._utils._rebuild_parameter_with_state", Kind::kRebuildParameter},
      {"torch.Size", Kind::kSize},
      {"torch.device", Kind::kDevice},
      {"torch.jit._pickle.build_intlist", Kind::kTypedList},
      {"torch.jit._pickle.build_doublelist", Kind::kTypedList},
      {"torch.jit._pickle.build_boollist", Kind::kTypedList},
      {"torch.jit._pickle.build_tensorlist", Kind::kTypedList},
      {"torch.jit._pickle.restore_type_tag", Kind::kRestoreTypeTag},
  };
  return table;
}

const PickleItem& argument(const std::vector<PickleItem>& arguments, std::size_t index) {
  if (index >= arguments.size()) {
    throw PickleError("calls a function with " + std::to_string(arguments.size()) +
                      " arguments, expected more");
  }
  return arguments[index];
}

const PickleStorage& storage_of(const PickleItem& item) {
  const auto* storage = std::get_if<PickleStorage>(&item.content);
  if (storage == nullptr) throw PickleError("makes a tensor of " + item.describe() + ", expected a storage");
  return *storage;
}

std::vector<std::int64_t> lengths_of(const PickleItem& item, const std::string& what) {
  const std::vector<PickleItem>& items = tuple_of(item, what);
  if (items.size() > kMostTensorAxes) {
    throw PickleError("has " + what + " for " + std::to_string(items.size()) + " axes, expected at most 64");
  }
  std::vector<std::int64_t> lengths;
  for (const PickleItem& length : items) lengths.push_back(integer_of(length, what));
  for (const auto length : lengths) {
    if (length < 0)
      throw PickleError("has " + std::to_string(length) + " among " + what + ", expected no negative number");
  }
  return lengths;
}

/// The dtype whose name is `item`, which find_global() made of "torch.float16".
at::ScalarType dtype_of(const PickleItem& item) {
  const std::string name = text_of(item, "a dtype");
  for (const auto& type : kTypes) {
    if (name == std::string("torch.") + type.dtype) return type.type;
  }
  throw PickleError("has '" + name + "' as a dtype");
}

/// Elements of a storage that a view must have, or nothing if that is beyond any storage. The axes that are
/// not empty count even in a tensor that is empty: LibTorch's own products must not overflow.
struct Span {
  std::uint64_t elements = 1;  ///< of the view, as if no axis were empty
  std::uint64_t end = 0;       ///< one past the last element within the storage
};

std::optional<Span> span_of(std::uint64_t offset, const std::vector<std::int64_t>& sizes,
                            const std::vector<std::int64_t>& strides) {
  Span span{1, offset};
  bool overflows = false;
  for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
    if (sizes[axis] == 0) continue;
    std::uint64_t step = 0;
    overflows |=
        __builtin_mul_overflow(span.elements, static_cast<std::uint64_t>(sizes[axis]), &span.elements);
    overflows |= __builtin_mul_overflow(static_cast<std::uint64_t>(sizes[axis]) - 1,
                                        static_cast<std::uint64_t>(strides[axis]), &step);
    overflows |= __builtin_add_overflow(span.end, step, &span.end);
  }
  overflows |= __builtin_add_overflow(span.end, std::uint64_t{1}, &span.end);
  return overflows ? std::nullopt : std::optional(span);
}

}  // namespace

const std::vector<PickleItem>& tuple_of(const PickleItem& item, const std::string& what) {
  const auto* tuple = std::get_if<std::shared_ptr<PickleTuple>>(&item.content);
  if (tuple == nullptr) throw PickleError("has " + item.describe() + " as " + what + ", expected a tuple");
  return (*tuple)->items;
}

std::int64_t integer_of(const PickleItem& item, const std::string& what) {
  const auto* value = std::get_if<c10::IValue>(&item.content);
  if (value == nullptr || !value->isInt()) {
    throw PickleError("has " + item.describe() + " as " + what + ", expected an integer");
  }
  return value->toInt();
}

std::string text_of(const PickleItem& item, const std::string& what) {
  const auto* value = std::get_if<c10::IValue>(&item.content);
  if (value == nullptr || !value->isString()) {
    throw PickleError("has " + item.describe() + " as " + what + ", expected text");
  }
  return value->toStringRef();
}

PickleItem find_global(const std::string& module, const std::string& name) {
  const std::string whole = module + "." + name;
  if (const auto found = functions().find(whole); found != functions().end()) {
    return {PickleGlobal{found->second, whole, std::nullopt}};
  }
  if (module.starts_with("__torch__.") || module == "__torch__") {
    return {PickleGlobal{Kind::kTorchScriptClass, whole, std::nullopt}};
  }
  if (whole == "torch.storage.UntypedStorage" || whole == "torch.UntypedStorage") {
    return {PickleGlobal{Kind::kStorageType, whole, std::nullopt}};
  }
  for (const auto& type : kTypes) {
    if (module != "torch") break;
    if (type.storage != nullptr && name == type.storage)
      return {PickleGlobal{Kind::kStorageType, whole, type.type}};
    if (name == type.dtype) return {c10::IValue(whole)};
  }
  throw PickleError("names the global '" + whole +
                    "', which is not among the few that are read (hint: save tensors alone, " +
                    "torch.save(model.state_dict(), file))");
}

PickleItem PickleCalls::call(const PickleGlobal& function, const PickleItem& arguments) {
  const std::vector<PickleItem>& given = tuple_of(arguments, "arguments of '" + function.name + "'");
  switch (function.kind) {
    case Kind::kOrderedDict:
      if (!given.empty()) throw PickleError("makes an OrderedDict of arguments, expected none");
      return new_dict_item();
    case Kind::kRebuildTensor:
      return {c10::IValue(tensor(given, storage_of(argument(given, 0)).type))};
    case Kind::kRebuildTensorV3:
      return {c10::IValue(tensor(given, dtype_of(argument(given, 6))))};
    case Kind::kDevice: {
      std::string name = text_of(argument(given, 0), "a device");
      if (given.size() > 1) name += ":" + std::to_string(integer_of(given[1], "the index of a device"));
      return {c10::IValue(name)};
    }
    case Kind::kRebuildParameter:
    case Kind::kSet:
    case Kind::kSize:
    case Kind::kTypedList:
    case Kind::kRestoreTypeTag:  // they change the kind of what they are given, not its content
      return argument(given, 0);
    case Kind::kTorchScriptClass:  // a named tuple
      return arguments;
    case Kind::kStorageType:
      break;
  }
  throw PickleError("calls " + PickleItem{function}.describe());
}

at::Tensor PickleCalls::tensor(const std::vector<PickleItem>& arguments, std::optional<at::ScalarType> type) {
  const PickleStorage& storage = storage_of(argument(arguments, 0));
  if (!type) throw PickleError("makes a tensor of an untyped storage without a type");
  const std::int64_t offset = integer_of(argument(arguments, 1), "a tensor's offset");
  const auto sizes = lengths_of(argument(arguments, 2), "a tensor's sizes");
  const auto strides = lengths_of(argument(arguments, 3), "a tensor's strides");
  if (sizes.size() != strides.size() || offset < 0) {
    throw PickleError("has a tensor of " + std::to_string(sizes.size()) + " axes with " +
                      std::to_string(strides.size()) + " strides and offset " + std::to_string(offset));
  }
  const std::uint64_t element_bytes = c10::elementSize(*type);
  const std::uint64_t held = storage.bytes / element_bytes;
  const bool empty = std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
  const auto span = span_of(static_cast<std::uint64_t>(offset), sizes, strides);
  // An expanded view has more elements than its storage: writing it out could take any amount of memory.
  const bool fits =
      span && (empty ? span->elements <= most_bytes_ : span->end <= held && span->elements <= held);
  if (!fits) {
    throw PickleError("has a tensor of sizes " + c10::str(at::IntArrayRef(sizes)) + ", strides " +
                      c10::str(at::IntArrayRef(strides)) + " and offset " + std::to_string(offset) +
                      " in a storage of " + std::to_string(held) + " elements");
  }
  const std::uint64_t bytes = empty ? 0 : span->elements * element_bytes;
  if (bytes > bytes_left_) throw PickleError("has tensors that together view many times the file's size");
  bytes_left_ -= bytes;
  const auto options = at::TensorOptions().dtype(*type);
  if (empty) return at::empty_strided(sizes, strides, options);
  char* begin = storage.begin + static_cast<std::uint64_t>(offset) * element_bytes;
  return at::from_blob(
      begin, sizes, strides, [owner = storage.owner](void*) {}, options);
}

}  // namespace clip_lora::io
