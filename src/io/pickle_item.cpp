#include "pickle_item.hpp"

#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <ATen/core/jit_type.h>

namespace clip_lora::io {

c10::IValue PickleItem::value() const {
  if (const auto* value = std::get_if<c10::IValue>(&content)) return *value;
  const auto* shared = std::get_if<std::shared_ptr<PickleTuple>>(&content);
  if (shared == nullptr) throw PickleError("holds " + describe() + " as a value");
  PickleTuple& tuple = **shared;
  if (!tuple.value) {
    std::vector<c10::IValue> values;
    values.reserve(tuple.items.size());
    for (const PickleItem& item : tuple.items) values.push_back(item.value());
    tuple.value = c10::ivalue::Tuple::create(std::move(values));
  }
  return *tuple.value;
}

std::string PickleItem::describe() const {
  if (const auto* value = std::get_if<c10::IValue>(&content)) return "a value of kind " + value->tagKind();
  if (const auto* global = std::get_if<PickleGlobal>(&content)) return "the global '" + global->name + "'";
  return std::holds_alternative<PickleStorage>(content) ? "a storage" : "a tuple";
}

PickleItem new_dict_item() {
  return {c10::IValue(c10::impl::GenericDict(c10::AnyType::get(), c10::AnyType::get())),
          std::make_shared<PickleExtent>()};
}

PickleItem new_list_item() {
  return {c10::IValue(c10::impl::GenericList(c10::AnyType::get())), std::make_shared<PickleExtent>()};
}

}  // namespace clip_lora::io
