#include "id_name_lines.hpp"

#include <sstream>

#include "clip_lora/core/errors.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

struct Line {
  std::size_t number = 0;
  std::string text;
};

std::vector<Line> numbered_lines(const std::filesystem::path& file) {
  const auto text = read_text_file(file);
  if (!text) throw DataError("'" + file.string() + "': it is missing or cannot be read");
  std::istringstream stream(*text);
  std::vector<Line> lines;
  std::size_t number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    const auto words = trimmed(line);
    if (!words.empty()) lines.push_back({number, std::string(words)});
  }
  return lines;
}

}  // namespace

std::vector<std::string> read_lines(const std::filesystem::path& file) {
  std::vector<std::string> lines;
  for (Line& line : numbered_lines(file)) lines.push_back(std::move(line.text));
  return lines;
}

std::vector<IdNameLine> read_id_name_lines(const std::filesystem::path& file) {
  std::vector<IdNameLine> lines;
  for (const Line& line : numbered_lines(file)) {
    const std::size_t space = line.text.find(' ');
    if (space == std::string::npos) {
      throw DataError("'" + file.string() + "', line " + std::to_string(line.number) + ": '" + line.text +
                      "' is one word, expected an id, a space and a name");
    }
    lines.push_back({line.number, line.text.substr(0, space), std::string(trimmed(line.text.substr(space)))});
  }
  return lines;
}

}  // namespace clip_lora::data
