#include <filesystem>

#include "cli/saved_run.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

/// Pieces: the results.json of two runs and what a third one failed of.
void run(std::string_view input) {
  static const bool made = [] {
    for (const char* name : {"runs/a", "runs/b", "runs/c"})
      std::filesystem::create_directories(scratch_folder() / name);
    return true;
  }();
  require(made, "there are folders");
  const auto pieces = pieces_of(input, 3);
  scratch_file("runs/a/results.json", pieces[0]);
  scratch_file("runs/b/results.json", pieces[1]);
  scratch_file("runs/c/error.json", pieces[2]);
  read_whatever_it_is([] {
    const cli::SavedRuns found = cli::find_saved_runs(scratch_folder() / "runs");
    for (const cli::SavedRun& saved : found.runs) {
      read_whatever_it_is([&] { cli::read_class_results(saved); });
      saved.images_per_second();
      for (const char* setting : {"eval_scale", "checkpoint", "lr"}) cli::comparable_setting(saved, setting);
    }
  });
}

std::vector<std::string> seeds() {
  const std::string settings =
      R"("settings": {"dataset": "dtd", "backbone": "ViT-B/16", "shots": 4, "seed": 1, "eval_scale": [1.0]})";
  const std::string rest =
      R"("training": {"iterations": 20, "images": 8, "images_seen": 640, "loss": 0.5, "resumed_from": {"iteration": 10, "images": 320}}, "validation": [{"iteration": 10, "accuracy": 50.0}], "seconds": {"total": 3.5, "training": 2.0}, "memory": {"peak_gpu_bytes": null, "peak_resident_bytes": 1000}, "device": "cpu", "versions": {"clip_lora": "0.1.0"}, "command": "clip_lora", "warnings": []})";
  const std::string classes =
      R"("per_class": [{"name": "a", "total": 2, "correct": 1, "accuracy": 50.0}, {"name": "b", "total": 0, "correct": 0, "accuracy": null}], "zero_shot": {"per_class": [{"accuracy": 0.0}, {"accuracy": null}]}, "confusion": [[0, 1, 1]], )";
  const std::string whole =
      R"({"format": 1, "dataset": "dtd", "fingerprint": "0f", "zero_shot_accuracy": 40.0, "accuracy": 60.0, "macro_f1": 0.5, )" +
      classes + settings + ", " + rest;
  const std::string retrieval =
      R"({"format": 1, "dataset": "coco", "retrieval": {"images": 3, "captions": 15, "scales": [{"scale": 1.0, "image_to_text": {"r1": 50.0}}]}, )" +
      settings + ", " + rest;
  const std::string others =
      R"({"format": 1, "dataset": "imagenet", "zero_shot_accuracy": 40.0, "accuracy": 60.0, "scales": [{"scale": 1.0, "accuracy": 60.0}], "other_datasets": [{"dataset": "imagenet_v2", "accuracy": 1.0, "scales": []}], )" +
      settings + ", " + rest;
  return {joined({whole, whole, R"({"error": "out of memory", "id": "x"})"}),
          joined({whole, retrieval, "{}"}), joined({others, whole, R"({"error": 3})"}),
          joined({"{}", "[]", ""}), joined({R"({"format": 2})", whole, "x"})};
}

}  // namespace

const Target reports = {"reports", run, seeds};

}  // namespace clip_lora::fuzz
