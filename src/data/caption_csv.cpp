#include <optional>
#include <unordered_map>

#include "caption_files.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/csv_table.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

class CaptionTableReader {
 public:
  explicit CaptionTableReader(const fs::path& file) : file_(file) {}

  CaptionFile read() {
    const std::vector<CsvRow> rows = parse_csv(text(), "caption file '" + file_.string() + "' ");
    if (rows.size() < 2) fail("it has no rows below the header image, caption[, split]");
    find_columns(rows.front());
    for (std::size_t i = 1; i < rows.size(); ++i) take(rows[i]);
    return std::move(found_);
  }

 private:
  std::string text() const {
    auto text = read_text_file(file_);
    if (!text) fail("it is missing or cannot be read");
    if (const auto line = line_without_utf8(*text)) {
      fail_at(*line, "it is not valid UTF-8 (hint: save the table as 'CSV UTF-8')");
    }
    return std::move(*text);
  }

  void find_columns(const CsvRow& header) {
    columns_ = header.fields.size();
    const auto image = find_column(header, "image");
    const auto caption = find_column(header, "caption");
    split_ = find_column(header, "split");
    if (!image || !caption) {
      const bool other_separator = header.fields.front().find_first_of(";\t") != std::string::npos;
      fail_at(header.line, std::string("the header has no column '") + (image ? "caption" : "image") +
                               "'; it has: " + join_quoted(header.fields) +
                               (other_separator ? " (hint: columns are separated by commas)" : ""));
    }
    image_ = *image;
    caption_ = *caption;
    std::vector<std::string> unused;
    for (std::size_t i = 0; i < columns_; ++i) {
      if (i != image_ && i != caption_ && i != split_) unused.push_back(header.fields[i]);
    }
    if (!unused.empty()) {
      found_.warnings.push_back("caption file '" + file_.string() + "': columns that are not used: " +
                                join_quoted(unused) + " (used are 'image', 'caption' and 'split')");
    }
  }

  std::optional<std::size_t> find_column(const CsvRow& header, const std::string& name) const {
    std::optional<std::size_t> column;
    for (std::size_t i = 0; i < header.fields.size(); ++i) {
      if (lower_case(trimmed(header.fields[i])) != name) continue;
      if (column) fail_at(header.line, "the header has the column '" + name + "' twice");
      column = i;
    }
    return column;
  }

  void take(const CsvRow& row) {
    if (row.fields.size() != columns_) {
      fail_at(row.line, "there are " + std::to_string(row.fields.size()) + " fields, expected " +
                            std::to_string(columns_) +
                            " (hint: a caption with a comma in it is put in quotation marks)");
    }
    const std::string& image = row.fields[image_];
    if (image.empty()) fail_at(row.line, "the image is empty");
    if (image.find('\0') != std::string::npos) fail_at(row.line, "the image has a null byte in its path");
    if (trimmed(row.fields[caption_]).empty()) fail_at(row.line, "the caption of '" + image + "' is empty");
    const std::string split = split_ ? read_split(row) : "";
    const auto [known, is_new] = known_.try_emplace(image, Known{found_.images.size(), row.line});
    if (is_new) found_.images.push_back({image, split, {}});
    ListedImage& listed = found_.images[known->second.index];
    if (listed.split != split) {
      fail_at(row.line, "'" + image + "' has the split '" + split + "', but '" + listed.split + "' in line " +
                            std::to_string(known->second.line));
    }
    listed.captions.push_back(row.fields[caption_]);
  }

  std::string read_split(const CsvRow& row) const {
    const std::string& given = row.fields[*split_];
    std::string split = lower_case(trimmed(given));
    if (split == "restval") return "train";
    if (split == "valid" || split == "validation") return "val";
    if (split == "train" || split == "val" || split == "test") return split;
    fail_at(row.line, "the split is '" + given + "', expected train, val or test" +
                          did_you_mean(split, {"train", "val", "validation", "test"}));
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError("caption file '" + file_.string() + "': " + reason);
  }

  [[noreturn]] void fail_at(std::size_t line, const std::string& reason) const {
    throw DataError("caption file '" + file_.string() + "' line " + std::to_string(line) + ": " + reason);
  }

  struct Known {
    std::size_t index = 0;  // of the image
    std::size_t line = 0;   // in which it is first named
  };

  const fs::path& file_;
  std::size_t columns_ = 0, image_ = 0, caption_ = 0;
  std::optional<std::size_t> split_;
  CaptionFile found_;
  std::unordered_map<std::string, Known> known_;
};

}  // namespace

CaptionFile read_caption_csv(const fs::path& file) { return CaptionTableReader(file).read(); }

}  // namespace clip_lora::data
