#include "split_json.hpp"

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "text_file.hpp"

namespace clip_lora::data {

nlohmann::json read_split_json(const std::filesystem::path& file) {
  const std::string source = "split file '" + file.string() + "': ";
  const auto text = read_text_file(file);
  if (!text) throw DataError(source + "it is missing or cannot be read");
  try {
    return io::parse_json_object(*text, source);
  } catch (const CheckpointError& error) {  // a split is data
    throw DataError(error.what());
  }
}

}  // namespace clip_lora::data
