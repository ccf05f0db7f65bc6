#include "clip_lora/io/torch_pickle.hpp"

#include <ATen/core/Dict.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/csrc/jit/serialization/pickler.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"

namespace clip_lora::io {

PickleDict new_pickle_dict() { return PickleDict(c10::StringType::get(), c10::AnyType::get()); }

PickleValue read_torch_pickle(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!std::filesystem::is_regular_file(path) || !file) {
    throw CheckpointError("'" + path.string() + "' is missing or cannot be read");
  }
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  try {
    return torch::jit::pickle_load(bytes);
  } catch (const std::exception&) {
    throw CheckpointError("'" + path.string() + "' is no PyTorch zip pickle (hint: the file is truncated, or something else)");
  }
}

void write_torch_pickle(const std::filesystem::path& path, const PickleValue& value) {
  std::string pickled;
  // LibTorch's pickle_save would add type tags, which torch.load(weights_only=True) refuses.
  torch::jit::Pickler pickler([&](const char* bytes, std::size_t size) { pickled.append(bytes, size); },
                              /*tensor_table=*/nullptr, /*type_renamer=*/nullptr, /*memoized_class_types=*/nullptr,
                              /*get_tensor_id=*/nullptr, /*tag_aggregates=*/false);
  pickler.protocol();
  pickler.pushIValue(value);
  pickler.stop();

  std::string archive;
  caffe2::serialize::PyTorchStreamWriter writer([&](const void* bytes, std::size_t size) {
    archive.append(static_cast<const char*>(bytes), size);
    return size;
  });
  writer.writeRecord("data.pkl", pickled.data(), pickled.size());
  std::size_t index = 0;
  for (const at::Tensor& tensor : pickler.tensorData()) {
    writer.writeRecord("data/" + std::to_string(index++), tensor.data_ptr(), tensor.nbytes());
  }
  writer.writeEndOfFile();
  write_atomically(path, archive);
}

}  // namespace clip_lora::io
