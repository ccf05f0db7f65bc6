#include "clip_lora/data/csv_table.hpp"

#include <csv.h>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::data {
namespace {

/// libcsv, fed byte by byte so that the line is known at which a record begins.
class Parser {
 public:
  explicit Parser(const std::string& source) : source_(source) {
    // Reporting every line's end tells when a blank line is over, too.
    csv_init(&parser_, CSV_STRICT | CSV_STRICT_FINI | CSV_REPALL_NL);
  }
  ~Parser() { csv_free(&parser_); }
  Parser(const Parser&) = delete;
  Parser& operator=(const Parser&) = delete;

  std::vector<CsvRow> parse(std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (between_rows_ && kBlanks.find(text[i]) == std::string_view::npos) {
        row_.line = line_;
        between_rows_ = false;
      }
      if (csv_parse(&parser_, &text[i], 1, add_field, end_row, this) != 1) {
        fail(
            "a quotation mark stands within a field (hint: a field with one is put in quotation marks, and "
            "its own "
            "are doubled)");
      }
      const bool is_end =
          text[i] == '\n' || (text[i] == '\r' && (i + 1 == text.size() || text[i + 1] != '\n'));
      if (is_end) ++line_;
    }
    if (csv_fini(&parser_, add_field, end_row, this) != 0) {
      line_ = row_.line;
      fail("a quotation mark is never closed in the record that begins here");
    }
    return std::move(rows_);
  }

 private:
  static constexpr std::string_view kBlanks = " \t\r\n";

  // Called by C: nothing but a lack of memory throws in them.
  static void add_field(void* bytes, std::size_t size, void* self) {
    static_cast<Parser*>(self)->row_.fields.emplace_back(static_cast<const char*>(bytes), size);
  }

  static void end_row(int /*terminator*/, void* self) {
    auto& parser = *static_cast<Parser*>(self);
    if (!parser.row_.fields.empty()) parser.rows_.push_back(std::move(parser.row_));
    parser.row_ = {};
    parser.between_rows_ = true;
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError(source_ + "line " + std::to_string(line_) + ": " + reason);
  }

  const std::string& source_;
  csv_parser parser_{};
  std::size_t line_ = 1;
  CsvRow row_;
  bool between_rows_ = true;
  std::vector<CsvRow> rows_;
};

}  // namespace

std::vector<CsvRow> parse_csv(std::string_view text, const std::string& source) {
  return Parser(source).parse(text);
}

}  // namespace clip_lora::data
