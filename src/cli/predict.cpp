#include "clip_lora/cli/predict.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <numeric>
#include <optional>

#include "adapted_model.hpp"
#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/sort_pictures.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/data/dataset.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "output_files.hpp"
#include "picture_pass.hpp"
#include "prediction_text.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kListedClasses = 5;

/// What pictures are told apart into.
struct Classes {
  std::vector<std::string> names;
  text::ClassPrompts prompts;
};

std::vector<std::string> class_names(const PredictOptions& options,
                                     const std::optional<lora::AdapterContext>& context) {
  std::vector<std::string> adapter_classes = context ? context->class_names : std::vector<std::string>();
  if (!options.class_names.empty()) return read_class_names(options.class_names, adapter_classes);
  if (!adapter_classes.empty()) return adapter_classes;
  throw ConfigError("adapter '" + options.pictures.adapter +
                    "' does not say which classes it is for (hint: --class_names FILE)");
}

text::ClassPrompts class_prompts(const PredictOptions& options,
                                 const std::optional<lora::AdapterContext>& context,
                                 const std::vector<std::string>& names) {
  if (!options.templates_file.empty()) return text::read_class_prompts(options.templates_file, names);
  std::vector<std::string> templates = options.templates;
  if (templates.empty() && context) templates = context->templates;
  if (templates.empty()) templates = {std::string(text::kDefaultTemplate)};
  return text::class_prompts(names, templates);
}

Classes find_classes(const PredictOptions& options, const std::optional<lora::AdapterContext>& context) {
  Classes classes;
  classes.names = class_names(options, context);
  if (classes.names.size() < 2) {
    throw ConfigError("there is a single class, '" + classes.names.front() +
                      "': expected at least two to choose from");
  }
  if (const auto twice = data::duplicate_names(classes.names); !twice.empty())
    log_warning("several classes have the same name: " + join_capped(twice));
  classes.prompts = class_prompts(options, context, classes.names);
  return classes;
}

/// The likeliest classes of every picture; of equal ones the lower label first. probabilities: [B, C].
std::vector<PicturePrediction> likeliest(const std::vector<std::string>& paths,
                                         const at::Tensor& probabilities, std::int64_t top_k) {
  const auto [sorted, labels] =
      at::sort(probabilities.cpu(), /*stable=*/true, /*dim=*/1, /*descending=*/true);
  const auto value = sorted.accessor<float, 2>();
  const auto label = labels.accessor<std::int64_t, 2>();
  std::vector<PicturePrediction> predictions;
  for (std::int64_t row = 0; row < sorted.size(0); ++row) {
    PicturePrediction& prediction = predictions.emplace_back();
    prediction.path = paths[static_cast<std::size_t>(row)];
    for (std::int64_t place = 0; place < top_k; ++place)
      prediction.classes.push_back({label[row][place], value[row][place]});
  }
  return predictions;
}

/// `file` names what could not be written, for the reason of errno.
[[noreturn]] void throw_unwritable(const std::string& file) {
  throw ConfigError("cannot write " + file + ": " + (errno != 0 ? std::strerror(errno) : "unknown reason"));
}

/// Classifies, writes down and sorts.
class Prediction {
 public:
  explicit Prediction(const PredictOptions& options)
      : options_(options),
        model_(options.pictures),
        classes_(find_classes(options, model_.context())),
        top_k_(std::min(options.top_k, static_cast<std::int64_t>(classes_.names.size()))),
        text_(parse_prediction_format(options.format), classes_.names, static_cast<std::size_t>(top_k_)),
        pictures_of_class_(classes_.names.size()) {
    require_clip_vocabulary(model_.model());
    if (options.sort_into.empty()) return;
    sorter_.emplace(options.sort_into, classes_.names, parse_sort_mode(options.mode), options.threshold);
  }

  std::int64_t execute() {
    PicturePass pass(options_.pictures, model_.preprocessing(), excluded(), table_is_shown());
    if (!options_.pictures.compute.quiet) model_.print_header(notes());
    features_ = train::class_features(model_.clip(), text::Tokenizer(), classes_.prompts);
    write_saying_what_is_there(pass);
    if (!options_.pictures.compute.quiet) print_summary(pass);
    pass.report_skipped();
    return pass.skipped();
  }

 private:
  std::vector<fs::path> excluded() const { return sorter_ ? sorter_->folders() : std::vector<fs::path>(); }

  bool table_is_shown() const { return options_.out.empty() && options_.format == "table"; }

  /// Where notes for people go: not between the data.
  std::ostream& notes() const {
    return options_.out.empty() && options_.format != "table" ? std::cerr : std::cout;
  }

  void write_saying_what_is_there(PicturePass& pass) {
    try {
      write(pass);
    } catch (const Interrupted& interrupted) {
      const std::string unwritten = options_.out.empty() ? "" : ": '" + options_.out + "' was not written";
      throw Interrupted(interrupted.signal_number(), interrupted.what() + unwritten + what_was_sorted());
    } catch (const ConfigError& error) {
      throw ConfigError(error.what() + what_was_sorted());
    } catch (const DataError& error) {
      throw DataError(error.what() + what_was_sorted());
    } catch (const std::exception&) {  // of a type that its message alone does not make up
      if (sorter_) std::cerr << "clip_lora: stopped by an error" << what_was_sorted() << std::endl;
      throw;
    }
  }

  /// "; 12 pictures were sorted, and their rows are in 'out.csv.partial'"
  std::string what_was_sorted() const {
    return sorter_ ? "; " + with_commas(sorter_->placed()) + " pictures were sorted" + rows_kept_ : "";
  }

  void write(PicturePass& pass) {
    if (options_.out.empty()) return write_all(pass, std::cout, "standard output");
    io::write_atomically(options_.out, [&](const fs::path& temporary) {
      std::ofstream file(temporary, std::ios::binary);
      if (!file) throw_unwritable("'" + options_.out + "'");
      try {
        write_all(pass, file, "'" + options_.out + "'");
      } catch (...) {
        file.close();
        if (sorter_ && sorter_->placed() > 0) keep_rows(temporary);
        throw;
      }
    });
  }

  /// Pictures that have been moved are not found again: what is known of them stays.
  void keep_rows(const fs::path& unfinished) {
    const std::string partial = options_.out + ".partial";
    try {
      fs::resize_file(unfinished, bytes_of_whole_rows_);
      io::write_atomically(partial, [&](const fs::path& temporary) { fs::rename(unfinished, temporary); });
      rows_kept_ = ", and their rows are in '" + partial + "'";
    } catch (const std::exception& error) {
      rows_kept_ = std::string(", but their rows could not be kept: ") + error.what();
    }
  }

  void write_text(std::ostream& stream, const std::string& text, const std::string& where) {
    errno = 0;
    stream << text << std::flush;
    if (!stream) throw_unwritable(where);
    bytes_of_whole_rows_ += text.size();
  }

  void write_all(PicturePass& pass, std::ostream& stream, const std::string& where) {
    write_text(stream, text_.header(), where);
    while (const auto batch = pass.next()) {
      const auto predictions = likeliest(
          batch->paths, train::class_probabilities(model_.encoder(), features_, batch->pixels), top_k_);
      write_text(stream, text_.rows(predictions), where);
      for (const auto& prediction : predictions) take_in(pass, prediction);
    }
  }

  void take_in(PicturePass& pass, const PicturePrediction& prediction) {
    const ClassProbability& best = prediction.classes.front();
    ++pictures_of_class_[static_cast<std::size_t>(best.label)];
    if (!sorter_) return;
    try {
      sorter_->sort(prediction.path, best.label, static_cast<double>(best.probability));
    } catch (const DataError& error) {  // it went away in the meantime, or may not be moved
      pass.skip_after_all(error.what());
    }
  }

  void print_summary(const PicturePass& pass) const {
    pass.print_summary(notes(), "predicted");
    if (pass.done() > 0) notes() << "classes    " << commonest_classes() << "\n";
    if (!sorter_) return;
    const std::map<std::string, std::string> participles = {
        {"copy", "copied"}, {"link", "linked"}, {"move", "moved"}};
    notes() << "sorted     into " << options_.sort_into << ": " << with_commas(sorter_->placed()) << " "
            << participles.at(options_.mode);
    if (sorter_->renamed() > 0) notes() << " (" << with_commas(sorter_->renamed()) << " with a number)";
    if (sorter_->already_there() > 0)
      notes() << ", " << with_commas(sorter_->already_there()) << " already there";
    if (options_.threshold > 0.0)
      notes() << "; " << with_commas(sorter_->unsure()) << " of them to " << kUnsureFolder << "/";
    notes() << std::endl;
  }

  /// "cat 800, dog 34"
  std::string commonest_classes() const {
    std::vector<std::size_t> labels(pictures_of_class_.size());
    std::iota(labels.begin(), labels.end(), std::size_t{0});
    std::ranges::stable_sort(labels, std::greater(),
                             [&](std::size_t label) { return pictures_of_class_[label]; });
    std::vector<std::string> counts;
    for (const std::size_t label : labels) {
      if (pictures_of_class_[label] == 0) break;
      counts.push_back(printable(classes_.names[label]) + " " + with_commas(pictures_of_class_[label]));
    }
    return join_capped(counts, kListedClasses);
  }

  const PredictOptions& options_;
  AdaptedModel model_;
  Classes classes_;
  std::int64_t top_k_;
  PredictionText text_;
  std::optional<PictureSorter> sorter_;
  at::Tensor features_;  // [C, E]
  std::vector<std::int64_t> pictures_of_class_;
  std::uintmax_t bytes_of_whole_rows_ = 0;  // written
  std::string rows_kept_;                   // what became of them after an error
};

}  // namespace

std::int64_t predict(const PredictOptions& options) {
  options.validate();
  set_up(options.pictures.compute);
  if (!options.out.empty()) {
    require_free({options.out}, options.force);
    require_writable_file(options.out);
  }
  return Prediction(options).execute();
}

}  // namespace clip_lora::cli
