#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/csv_table.hpp"
#include "own_data.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

/// Where the columns of a table are.
struct Columns {
  std::size_t path = 0;
  std::size_t label = 1;
  std::optional<std::size_t> split, group;
  std::size_t count = 0;
};

/// What a column may be called in a header, in lower case.
const std::vector<std::string> kPathNames = {"path", "image", "file", "filename"};
const std::vector<std::string> kLabelNames = {"label", "class"};

/// One picture of the table.
struct Picture {
  std::size_t line = 0;
  std::string image;
  std::string label;
  std::string split;  // "train", "val" or "test"; "" without such a column
  std::string group;  // "" for none
};

bool is_one_of(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// "path, image or file".
std::string join_or(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 < names.size() ? ", " : " or ";
    text += names[i];
  }
  return text;
}

/// Reads the rows of one file.
class TableReader {
 public:
  TableReader(const fs::path& file, std::vector<std::string>& warnings) : file_(file), warnings_(warnings) {}

  std::vector<Picture> read() {
    const std::vector<CsvRow> rows = parse_csv(text(), "'" + file_.string() + "' ");
    if (rows.empty()) throw DataError(own_data(file_) + "it is empty, expected rows of path, label");
    const bool has_header = find_columns(rows.front());
    if (!has_header && rows.size() > 1) refuse_unknown_header(rows[0], rows[1]);
    if (has_header && rows.size() == 1) throw DataError(own_data(file_) + "it has a header, but no rows");
    std::vector<Picture> pictures;
    for (std::size_t i = has_header ? 1 : 0; i < rows.size(); ++i) {
      Picture picture = read_row(rows[i]);
      if (is_new(pictures, picture)) pictures.push_back(std::move(picture));
    }
    if (repeated_ > 0) {
      warnings_.push_back(own_data(file_) + std::to_string(repeated_) +
                          (repeated_ == 1 ? " row repeats" : " rows repeat") + " a picture and " +
                          (repeated_ == 1 ? "is" : "are") + " left out");
    }
    return pictures;
  }

  const Columns& columns() const { return columns_; }

 private:
  std::string text() const {
    auto text = read_text_file(file_);
    if (!text) throw DataError(own_data(file_) + "it cannot be read");
    if (const auto line = line_without_utf8(*text)) {
      fail(*line, "it is not valid UTF-8 (hint: save the table as 'CSV UTF-8')");
    }
    return std::move(*text);
  }

  /// Whether `first` is a header. Its names say where the columns are; without one they have the usual order.
  bool find_columns(const CsvRow& first) {
    columns_.count = first.fields.size();
    if (has_image_extension(trimmed(first.fields.front()))) {  // whatever its class is called
      take_usual_order(first);
      return false;
    }
    std::vector<std::string> names;
    for (const auto& field : first.fields) names.push_back(lower_case(trimmed(field)));
    const auto path = find_column(first, names, kPathNames);
    const auto label = find_column(first, names, kLabelNames);
    if (path && label) {
      columns_.path = *path;
      columns_.label = *label;
      columns_.split = find_column(first, names, {"split"});
      columns_.group = find_column(first, names, {"group"});
      warn_of_unused(first);
      return true;
    }
    if (path || label) {
      fail(first.line, "the header has no column " + join_or(path ? kLabelNames : kPathNames) +
                           "; it has: " + join_quoted(first.fields));
    }
    take_usual_order(first);
    return false;
  }

  /// A first row that names no file where the second does is a header of other names.
  void refuse_unknown_header(const CsvRow& first, const CsvRow& second) const {
    const auto is_file = [&](const CsvRow& row) {
      std::error_code ignored;
      return fs::is_regular_file(path_of(row), ignored);
    };
    if (has_image_extension(path_of(first)) || is_file(first) || !is_file(second)) return;
    fail(first.line, "it looks like a header, but no column's name is known: " + join_quoted(first.fields) +
                         " (hint: known are " + join_or(kPathNames) + " for the path, " +
                         join_or(kLabelNames) + " for the label, split and group)");
  }

  /// Not normalised: "link/.." need not be where the table lies.
  fs::path path_of(const CsvRow& row) const { return file_.parent_path() / row.fields[columns_.path]; }

  std::optional<std::size_t> find_column(const CsvRow& header, const std::vector<std::string>& names,
                                         const std::vector<std::string>& wanted) const {
    std::optional<std::size_t> column;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!is_one_of(wanted, names[i])) continue;
      if (column) {
        fail(header.line, "the columns '" + header.fields[*column] + "' and '" + header.fields[i] +
                              "' mean the same, expected one of them");
      }
      column = i;
    }
    return column;
  }

  void warn_of_unused(const CsvRow& header) {
    std::vector<std::string> unused;
    for (std::size_t i = 0; i < header.fields.size(); ++i) {
      const bool is_used =
          i == columns_.path || i == columns_.label || i == columns_.split || i == columns_.group;
      if (!is_used) unused.push_back(header.fields[i]);
    }
    if (unused.empty()) return;
    warnings_.push_back(own_data(file_) + "columns that are not used: " + join_quoted(unused) +
                        " (used are 'path', 'label', 'split' and 'group')");
  }

  void take_usual_order(const CsvRow& first) {
    if (columns_.count == 1) {
      const bool other_separator = first.fields[0].find_first_of(";\t") != std::string::npos;
      fail(first.line, std::string("there is one column, expected path, label") +
                           (other_separator ? " (hint: they are separated by commas)" : ""));
    }
    if (columns_.count > 4) {
      fail(first.line,
           "there are " + std::to_string(columns_.count) +
               " columns, expected path, label[, split[, group]] (hint: with a header of these names the "
               "table may have others, too)");
    }
    if (columns_.count > 2) columns_.split = 2;
    if (columns_.count > 3) columns_.group = 3;
  }

  Picture read_row(const CsvRow& row) const {
    if (row.fields.size() != columns_.count) {
      fail(row.line, "there are " + std::to_string(row.fields.size()) + " fields, expected " +
                         std::to_string(columns_.count) +
                         " (hint: a field with a comma in it is put in quotation marks)");
    }
    Picture picture;
    picture.line = row.line;
    const std::string& path = row.fields[columns_.path];
    if (path.empty()) fail(row.line, "the path is empty");
    if (path.find('\0') != std::string::npos) fail(row.line, "the path has a null byte in it");
    picture.image = path_of(row).string();
    picture.label = trimmed(row.fields[columns_.label]);
    if (picture.label.empty()) fail(row.line, "the label is empty");
    if (columns_.split) picture.split = read_split(row);
    if (columns_.group) picture.group = row.fields[*columns_.group];
    return picture;
  }

  std::string read_split(const CsvRow& row) const {
    const std::string& given = row.fields[*columns_.split];
    std::string split = lower_case(trimmed(given));
    if (split == "valid" || split == "validation") return "val";
    if (split == "train" || split == "val" || split == "test") return split;
    fail(row.line, "the split is '" + given + "', expected train, val or test" +
                       did_you_mean(split, {"train", "val", "validation", "test"}));
  }

  /// False for a row that says what one before it has said. Throws if it says something else.
  bool is_new(const std::vector<Picture>& pictures, const Picture& picture) {
    const auto [known, is_new] =
        known_.emplace(fs::path(picture.image).lexically_normal().string(), pictures.size());
    if (is_new) return true;
    const Picture& before = pictures[known->second];
    const auto compare = [&](const char* what, const std::string& first, const std::string& second) {
      if (first == second) return;
      fail(picture.line, "the picture '" + picture.image + "' has the " + what + " '" + second + "', but '" +
                             first + "' in line " + std::to_string(before.line));
    };
    compare("label", before.label, picture.label);
    compare("split", before.split, picture.split);
    compare("group", before.group, picture.group);
    ++repeated_;
    return false;
  }

  [[noreturn]] void fail(std::size_t line, const std::string& reason) const {
    throw DataError("'" + file_.string() + "' line " + std::to_string(line) + ": " + reason);
  }

  const fs::path& file_;
  std::vector<std::string>& warnings_;
  Columns columns_;
  std::unordered_map<std::string, std::size_t> known_;  // index of the picture by its normalised path
  std::size_t repeated_ = 0;
};

/// Sorted as folders are; as numbers if all are.
std::vector<std::string> sorted_labels(const std::vector<Picture>& pictures) {
  std::set<std::string> distinct;
  for (const auto& picture : pictures) distinct.insert(picture.label);
  std::vector<std::string> labels(distinct.begin(), distinct.end());
  if (!std::all_of(labels.begin(), labels.end(), is_digits)) return labels;
  const auto digits = [](const std::string& number) {
    return number.substr(std::min(number.find_first_not_of('0'), number.size() - 1));
  };
  std::stable_sort(labels.begin(), labels.end(), [&](const std::string& a, const std::string& b) {
    const std::string left = digits(a), right = digits(b);
    return left.size() != right.size() ? left.size() < right.size() : left < right;
  });
  return labels;
}

std::unordered_map<std::string, int> by_label(const std::vector<std::string>& labels) {
  std::unordered_map<std::string, int> numbers;
  for (const auto& label : labels) numbers.emplace(label, static_cast<int>(numbers.size()));
  return numbers;
}

/// Groups are what keeps near duplicates out of the test.
void warn_of_torn_groups(const std::vector<Picture>& pictures, const fs::path& file,
                         std::vector<std::string>& warnings) {
  std::map<std::string, std::set<std::string>> splits_of;
  for (const auto& picture : pictures) {
    if (!picture.group.empty()) splits_of[picture.group].insert(picture.split);
  }
  std::vector<std::string> torn;
  for (const auto& [group, splits] : splits_of) {
    if (splits.size() > 1) torn.push_back(group);
  }
  if (!torn.empty())
    warnings.push_back(own_data(file) + "groups with pictures in several splits: " + join_quoted(torn));
}

Dataset take_splits(const std::vector<Picture>& pictures, const fs::path& file) {
  Dataset dataset;
  dataset.name = own_dataset_name(file);
  dataset.class_names = sorted_labels(pictures);
  const auto numbers = by_label(dataset.class_names);
  for (const auto& picture : pictures) {
    auto& items = picture.split == "train" ? dataset.train
                  : picture.split == "val" ? dataset.val
                                           : dataset.test;
    items.push_back({picture.image, numbers.at(picture.label)});
  }
  for (const auto& [split, items] : {std::pair{"train", &dataset.train}, std::pair{"test", &dataset.test}}) {
    if (!items->empty()) continue;
    throw DataError(own_data(file) + "no row has the split '" + split +
                    "' (hint: without the column 'split' the pictures are split for you)");
  }
  return dataset;
}

UnsplitData unsplit(const std::vector<Picture>& pictures, const fs::path& file) {
  UnsplitData data;
  data.name = own_dataset_name(file);
  data.path = file;
  const auto labels = sorted_labels(pictures);
  const auto numbers = by_label(labels);
  for (const auto& label : labels) data.classes.push_back({label, {}});
  for (const auto& picture : pictures) {
    data.classes[static_cast<std::size_t>(numbers.at(picture.label))].images.push_back(picture.image);
    if (!picture.group.empty()) data.group_of.emplace(picture.image, picture.group);
  }
  // As folders are listed: the order of the rows does not matter.
  for (auto& folder : data.classes) std::sort(folder.images.begin(), folder.images.end());
  return data;
}

}  // namespace

Dataset load_own_csv(const fs::path& file, const OwnDatasetOptions& options) {
  std::vector<std::string> warnings;
  TableReader reader(file, warnings);
  const std::vector<Picture> pictures = reader.read();
  Dataset dataset;
  if (reader.columns().split) {
    if (reader.columns().group) warn_of_torn_groups(pictures, file, warnings);
    dataset = take_splits(pictures, file);
    warn_of_unused_fractions(dataset, file, options.split);
  } else {
    UnsplitData data = unsplit(pictures, file);
    require_classes(data.classes.size(), data.classes.front().name, file);
    dataset = split_or_reuse(data, file.parent_path(), options);
  }
  dataset.warnings.insert(dataset.warnings.begin(), warnings.begin(), warnings.end());
  return dataset;
}

}  // namespace clip_lora::data
