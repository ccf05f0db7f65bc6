#include "retrieval_run.hpp"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/train/retrieval.hpp"
#include "run_base.hpp"

namespace clip_lora::cli {
namespace {

using nlohmann::ordered_json;
using train::Recall;
using train::RetrievalMetrics;

std::string count(std::size_t number, const std::string& what) {
  return with_commas(static_cast<std::int64_t>(number)) + " " + what;
}

std::string text_of(const Recall& recall) {
  return fixed(recall.at_1, 2) + " / " + fixed(recall.at_5, 2) + " / " + fixed(recall.at_10, 2);
}

ordered_json to_json(const Recall& recall) {
  return {{"at_1", recall.at_1}, {"at_5", recall.at_5}, {"at_10", recall.at_10}};
}

ordered_json to_json(const RetrievalMetrics& metrics) {
  return {{"image_to_text", to_json(metrics.image_to_text)},
          {"text_to_image", to_json(metrics.text_to_image)}};
}

/// One run among images and captions, from the options to the saved results.
class RetrievalRun : private RunBase {
 public:
  using RunBase::RunBase;

  RunResult execute() {
    const auto adapter = begin(found_.run);
    templates_.clear();  // captions stand as they are
    open(pictures());
    if (only_trains()) {
      train(*adapter, caption_texts(data_.captions), {});
      return {};
    }

    RunResult result;
    if (trains()) {
      result.untouched_retrieval = timed("zero_shot", [&] { return recall("zero-shot"); });
      out_ << "zero-shot  " << recall_text(*result.untouched_retrieval) << std::endl;
      training_ = timed("training", [&] { return train(*adapter, caption_texts(data_.captions), {}); });
      save_adapter(*adapter);
    }
    result.retrieval = timed("evaluation", [&] { return evaluate(*adapter); });
    print(result.retrieval);
    if (saving()) save_results(result);
    return result;
  }

 private:
  /// For the header.
  std::string pictures() const {
    std::string line = printable(data_.dataset.name) + "   ";
    if (!data_.train.empty()) {
      line += with_commas(found_.training_images) + " training images with " +
              count(data_.captions.size(), "captions") + " (seed " + std::to_string(options_.data.seed) +
              ")   ";
    }
    return line + count(data_.test.size(), "test images with ") + count(found_.captions.size(), "captions") +
           "   recall at 1 / 5 / 10";
  }

  /// By the model as it stands.
  RetrievalMetrics recall(const std::string& label) {
    return looking_at("test split", [&] {
      const at::Tensor images = image_features(label);
      const at::Tensor captions = caption_features(label);
      return train::compute_recall(images, captions, at::tensor(found_.image_of_caption, at::kLong));
    });
  }

  at::Tensor image_features(const std::string& label) {
    ProgressBar bar(label, "images", std::ssize(data_.test), !quiet());
    data::EvaluationLoader loader = evaluation_loader(test_);
    const Stopwatch stopwatch;
    return train::image_features(clip_, loader, [&](std::int64_t done) {
      bar.update(done, [&] { return images_per_second(done, stopwatch.seconds()); });
    });
  }

  at::Tensor caption_features(const std::string& label) {
    ProgressBar bar(label, "captions", std::ssize(found_.captions), !quiet());
    return train::caption_features(clip_, kept_.tokenizer(), found_.captions, [&](std::int64_t done) {
      bar.update(done, [] { return std::string(); });
    });
  }

  /// At every --eval_scale.
  std::vector<ScaledRecall> evaluate(const lora::Adapter& adapter) {
    std::vector<ScaledRecall> scaled;
    for (const double scale : options_.eval_scales) {
      const lora::MergedScope merged(clip_, adapter, scale);
      scaled.push_back({scale, recall("evaluation")});
    }
    return scaled;
  }

  void print(const std::vector<ScaledRecall>& scaled) {
    out_ << "adapted    " << recall_text(scaled.front().recall) << std::endl;
    for (std::size_t i = 0; scaled.size() > 1 && i < scaled.size(); ++i)
      out_ << "scale " << fixed(scaled[i].scale, 2) << " " << recall_text(scaled[i].recall) << std::endl;
  }

  void save_results(const RunResult& result) {
    ordered_json results = first_results();
    ordered_json& retrieval = results["retrieval"];
    retrieval["images"] = result.untouched_retrieval->images;
    retrieval["captions"] = result.untouched_retrieval->texts;
    retrieval["zero_shot"] = to_json(*result.untouched_retrieval);
    for (const auto& [scale, recall] : result.retrieval) {
      ordered_json row = {{"eval_scale", scale}};
      row.update(to_json(recall));
      retrieval["scales"].push_back(row);
    }
    add_circumstances(results);
    write_results(results);
  }

  const CaptionData& found_ = kept_.captions.load(options_);
  Seen test_{data_.test, /*in_other_runs=*/true};
};

}  // namespace

std::string recall_text(const RetrievalMetrics& metrics) {
  return "image to text " + text_of(metrics.image_to_text) + "   text to image " +
         text_of(metrics.text_to_image) + " %";
}

RunResult run_retrieval(RunOptions options, RunSession::Kept& kept, const RunObserver* observer) {
  return RetrievalRun(std::move(options), kept, observer).execute();
}

}  // namespace clip_lora::cli
