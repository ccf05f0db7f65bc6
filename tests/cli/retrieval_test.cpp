#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <signal.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "support/files.hpp"
#include "support/test_data.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using Flags = std::map<std::string, std::string>;

/// A flag that a run is to go without.
const std::string kRemoved = "REMOVED";

/// The pictures of SmallTask with five captions each.
class Retrieval : public ::testing::Test {
 protected:
  Retrieval() { write_captions(5); }

  fs::path captions() const { return task_ / "captions.csv"; }
  fs::path result_folder() const { return task_.save_path() / "small/captions/allshots/seed1"; }
  fs::path adapter() const { return result_folder() / "lora_weights.safetensors"; }
  json results() const { return json::parse(read_bytes(result_folder() / "results.json")); }

  /// The second shape's first training picture has `first_captions`, others have five; all are numbered, from
  /// `number` on.
  void write_captions(int first_captions, int number = 0) const {
    std::string text = "image,caption,split\n";
    int left = first_captions;
    for (const std::string shape : {"ring", "circle"}) {
      for (const int picture : {0, 1, 3, 4}) {
        for (int i = 0; i < left; ++i) {
          text += "data/shapes/images/" + shape + "/" + std::to_string(picture) + ".png,\"a " + shape +
                  ", in picture " + std::to_string(number++) + "\"," + (picture < 2 ? "train" : "test") +
                  "\n";
        }
        left = 5;
      }
    }
    write_bytes(captions(), text);
  }

  /// Five iterations of an R-Adapter, with `changes` to the flags as in SmallTask.
  std::vector<std::string> arguments(const Flags& changes = {}) const {
    Flags flags = {{"--protocol", "retrieval"},
                   {"--dataset", captions().string()},
                   {"--checkpoint", task_.checkpoint().string()},
                   {"--method", "r_adapter"},
                   {"--warmup", "0"},
                   {"--epochs", "1"},
                   {"--batch_size", "4"},
                   {"--save_path", task_.save_path().string()}};
    for (const auto& [flag, value] : changes) flags[flag] = value;
    std::vector<std::string> words;
    for (const auto& [flag, value] : flags) {
      if (value == kRemoved) continue;
      words.push_back(flag);
      std::istringstream stream(value);
      for (std::string word; stream >> word;) words.push_back(word);
    }
    return words;
  }

  /// The changes that make of it a run without training.
  static Flags untrained() {
    return {{"--method", "zero_shot"},
            {"--warmup", kRemoved},
            {"--epochs", kRemoved},
            {"--batch_size", kRemoved}};
  }

  const SmallTask task_;
};

/// "adapted    …" and "scale 0.50 …" without what comes before the figures.
std::string figures(const std::string& line) { return line.substr(std::min<std::size_t>(11, line.size())); }

TEST_F(Retrieval, TrainsEveryMethodAndSavesAdapterSettingsAndRecall) {
  for (const std::string method : {"lora", "r_adapter", "lora_xs"}) {
    fs::remove_all(task_.save_path());
    const Outcome outcome = run_program(arguments({{"--method", method}, {"--eval_scale", "0.5 1"}}));
    ASSERT_EQ(outcome.exit_code, 0) << method << outcome.errors;
    const json found = results();
    for (const char* direction : {"image_to_text", "text_to_image"}) {
      for (const json& recall : {found["retrieval"]["zero_shot"], found["retrieval"]["scales"][1]}) {
        const double at_1 = recall[direction]["at_1"], at_10 = recall[direction]["at_10"];
        EXPECT_GE(at_1, 0.0);
        EXPECT_GE(recall[direction]["at_5"], at_1);
        EXPECT_GE(at_10, recall[direction]["at_5"]);
        EXPECT_LE(at_10, 100.0);
      }
    }
    EXPECT_EQ(found["retrieval"]["images"], 4);
    EXPECT_EQ(found["retrieval"]["captions"], 20);
    EXPECT_EQ(found["retrieval"]["scales"][0]["eval_scale"], 0.5);
    EXPECT_EQ(found["settings"], json::parse(read_bytes(result_folder() / "config.json")));
    EXPECT_EQ(found["settings"]["loss"], "mpm_nce");
    EXPECT_EQ(found["settings"]["shots"], "all");
    EXPECT_TRUE(fs::exists(found["adapter"].get<std::string>()));
    EXPECT_EQ(found["training"]["iterations"], 5) << "of 20 pairs, four each";
    EXPECT_EQ(found["training"]["images"], 20);
    EXPECT_THAT(outcome.output, HasSubstr("4 test images with 20 captions"));
    EXPECT_NE(outcome.line("zero-shot"), "");
    EXPECT_EQ(figures(outcome.line("adapted")), figures(outcome.line("scale 0.50")));
  }
}

TEST_F(Retrieval, ZeroShotTrainsNothingAndTakesNoFlagOfTraining) {
  const Outcome outcome = run_program(arguments(untrained()));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(figures(outcome.line("adapted")), figures(outcome.line("zero-shot")));
  EXPECT_EQ(results()["training"]["iterations"], 0);
  EXPECT_EQ(results()["training"]["images"], 0);
  for (const char* flag : {"lr", "loss", "eval_scale", "r", "adapter_rank"})
    EXPECT_FALSE(results()["settings"].contains(flag)) << flag;

  const Outcome refused = run_program(arguments({{"--method", "zero_shot"}}));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.errors, HasSubstr("has no part in --method zero_shot: nothing is trained"));
}

TEST_F(Retrieval, ScaleZeroIsTheUntouchedModelWhateverWasTrained) {
  const Outcome outcome =
      run_program(arguments({{"--eval_scale", "0 2"}, {"--lr", "0.05"}, {"--epochs", "4"}, {"--ema", "0"}}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(figures(outcome.line("scale 0.00")), figures(outcome.line("zero-shot")));
  for (const auto& [name, tensor] : io::read_safetensors(adapter()).tensors) {
    if (name.ends_with(".weight")) {
      EXPECT_GT(tensor.abs().max().item<double>(), 0.0) << name << " was trained";
    }
  }
}

TEST_F(Retrieval, EvalOnlyAndAdapterGiveTheRecallOfTheTrainingRunAndChangeNoFile) {
  const Outcome trained = run_program(arguments({{"--lr", "0.05"}, {"--ema", "0"}}));
  ASSERT_EQ(trained.exit_code, 0) << trained.errors;
  const std::string saved = read_bytes(result_folder() / "results.json");

  const Outcome evaluated = run_program(arguments({{"--eval_only", ""}}));
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.errors;
  EXPECT_EQ(evaluated.line("adapted"), trained.line("adapted"));
  const Outcome named = run_program(arguments(
      {{"--eval_only", ""}, {"--save_path", kRemoved}, {"--adapter", adapter().string()}, {"--quiet", ""}}));
  ASSERT_EQ(named.exit_code, 0) << named.errors;
  EXPECT_EQ(named.output, trained.line("adapted") + "\n") << "--quiet prints recall only";
  EXPECT_EQ(read_bytes(result_folder() / "results.json"), saved);
}

TEST_F(Retrieval, GoesOnFromAnAdapterAndTakesOneThatWasTrainedOnClasses) {
  ASSERT_EQ(run_program(task_.arguments()).exit_code, 0);
  const std::string classes = (task_.result_folder() / "lora_weights.pt").string();
  const Outcome outcome = run_program(arguments({{"--method", "lora"}, {"--adapter", classes}}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.errors, "") << "captions have no class names that could be other ones";
  EXPECT_TRUE(fs::exists(result_folder() / "lora_weights.pt"));
}

TEST_F(Retrieval, GoesOnFromACheckpointToTheSameAdapterButNotWithOtherCaptions) {
  const Flags longer = {{"--epochs", "60"}, {"--checkpoint_every", "20"}, {"--workers", "1"}};
  ASSERT_EQ(run_program(arguments(longer)).exit_code, 0);
  const std::string whole = read_bytes(adapter());
  fs::remove_all(task_.save_path());

  const fs::path checkpoint = result_folder() / "checkpoint.safetensors";
  Program program(arguments(longer));
  for (int waited_ms = 0; !fs::exists(checkpoint) && waited_ms < 60'000; waited_ms += 5)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  program.send(SIGTERM);
  const Outcome stopped = program.wait();
  ASSERT_EQ(stopped.exit_code, 128 + SIGTERM) << stopped.errors;
  EXPECT_THAT(stopped.errors, HasSubstr("hint: --resume goes on from there"));

  Flags resumed = longer;
  resumed["--resume"] = "";
  write_captions(5, /*number=*/1000);
  const Outcome other = run_program(arguments(resumed));
  EXPECT_EQ(other.exit_code, 4);
  EXPECT_THAT(other.errors, HasSubstr("of other settings: captions "));

  write_captions(5);
  const Outcome outcome = run_program(arguments(resumed));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_NE(outcome.line("resumed"), "");
  EXPECT_EQ(read_bytes(adapter()), whole);
  EXPECT_FALSE(fs::exists(checkpoint));
}

TEST_F(Retrieval, OtherThanFiveCaptionsWorkAndAreSaid) {
  write_captions(2);
  const Outcome outcome = run_program(arguments());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.errors, HasSubstr("1 of 8 images have other than five captions: 2 to 5"));
  EXPECT_EQ(results()["training"]["images"], 17);
  EXPECT_EQ(results()["warnings"].size(), 1U);
}

TEST_F(Retrieval, CaptionsThatAreTooLongAreCut) {
  std::string words;
  for (int i = 0; i < 200; ++i) words += "long ";
  std::string text = read_bytes(captions());
  text +=
      "data/shapes/images/ring/0.png," + words + ",train\ndata/shapes/images/ring/3.png," + words + ",test\n";
  write_bytes(captions(), text);
  const Outcome outcome = run_program(arguments());
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
}

TEST_F(Retrieval, MissingImagesAreNamedOrLeftOut) {
  fs::remove(task_ / "data/shapes/images/circle/0.png");
  fs::remove(task_ / "data/shapes/images/circle/3.png");
  const Outcome refused = run_program(arguments());
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.errors, AllOf(HasSubstr("test split"), HasSubstr("circle/3.png")));

  const Outcome allowed = run_program(arguments({{"--allow_missing", ""}}));
  ASSERT_EQ(allowed.exit_code, 0) << allowed.errors;
  EXPECT_THAT(allowed.line("missing"), HasSubstr("1 of test, 1 of train"));
  EXPECT_EQ(results()["missing_images"], json({{"test", 1}, {"train", 1}}));
  EXPECT_EQ(results()["retrieval"]["images"], 3);
  EXPECT_EQ(results()["training"]["images"], 15);
}

TEST_F(Retrieval, WithoutTrainingImagesOnlyTheUntouchedModelIsMeasured) {
  std::string text = read_bytes(captions());
  for (std::size_t at; (at = text.find("train\n")) != std::string::npos;) text.replace(at, 6, "val\n");
  write_bytes(captions(), text);
  const Outcome refused = run_program(arguments());
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.errors, AllOf(HasSubstr("no training images"), HasSubstr("--method zero_shot")));
  EXPECT_EQ(run_program(arguments(untrained())).exit_code, 0);
}

TEST_F(Retrieval, RefusesWhatDoesNotGoTogetherByName) {
  const std::vector<std::pair<Flags, std::string>> cases = {
      {{{"--shots", "4"}}, "--shots 4 is not for --protocol retrieval"},
      {{{"--templates", "imagenet"}}, "--templates has no part in --protocol retrieval"},
      {{{"--train_templates", "random"}}, "--train_templates has no part in --protocol retrieval"},
      {{{"--zero_shot_templates", "dataset"}}, "--zero_shot_templates has no part in --protocol retrieval"},
      {{{"--class_weights", "balanced"}}, "--class_weights has no part in --protocol retrieval"},
      {{{"--eval_every", "10"}}, "--eval_every has no part in --protocol retrieval"},
      {{{"--loss", "ce"}}, "--loss ce is not for --protocol retrieval"},
      {{{"--save_predictions", ""}}, "--save_predictions has no part in --protocol retrieval"},
      {{{"--n_iters", "9"}}, "--n_iters 9"},
      {{{"--margin", "-0.1"}}, "--margin -0.1: expected at least 0"},
      {{{"--batch_size", "1"}}, "--batch_size 1: expected at least 2"},
      {{{"--ema", "1"}}, "--ema 1: expected at least 0 and below 1"},
      {{{"--eval_scale", "3"}}, "--eval_scale 3: expected 0 to 2"},
      {{{"--adapter_rank", "65"}}, "--adapter_rank 65: expected at most the tower's width, 64"},
      {{{"--dataset", "flickr"}}, "flickr8k"},
      {{{"--dataset", kRemoved}}, "coco, flickr30k, flickr8k"}};
  for (const auto& [changes, expected] : cases) {
    const Outcome outcome = run_program(arguments(changes));
    EXPECT_EQ(outcome.exit_code, 2) << expected;
    EXPECT_THAT(outcome.errors, HasSubstr(expected));
    EXPECT_EQ(outcome.line("adapted"), "");
  }
}

TEST_F(Retrieval, RefusesAnAdapterOfAnotherMethod) {
  ASSERT_EQ(run_program(arguments()).exit_code, 0);
  const Outcome outcome = run_program(
      arguments({{"--method", "lora_xs"}, {"--eval_only", ""}, {"--adapter", adapter().string()}}));
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr("--method"), HasSubstr("r_adapter"), HasSubstr("lora_xs")));
}

TEST_F(Retrieval, TheSavedCommandRepeatsTheRun) {
  ASSERT_EQ(run_program(arguments({{"--margin", "0"}, {"--ema", "0"}})).exit_code, 0);
  const std::string command = results()["command"];
  EXPECT_THAT(command, AllOf(HasSubstr("--margin 0"), HasSubstr("--ema 0"), HasSubstr("--protocol retrieval"),
                             HasSubstr("--method r_adapter"), Not(HasSubstr("--loss"))));
  const json first = results();
  fs::remove_all(task_.save_path());
  const std::string program = CLIP_LORA_PROGRAM;
  const Outcome again =
      run_program({"-c", "'" + program + "'" + command.substr(command.find(' '))}, "/bin/sh");
  ASSERT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_EQ(results()["settings"], first["settings"]);
  EXPECT_EQ(results()["retrieval"], first["retrieval"]);
}

TEST_F(Retrieval, ReportsHaveItsRecallBesideAccuracies) {
  ASSERT_EQ(run_program(arguments()).exit_code, 0);
  ASSERT_EQ(run_program(task_.arguments()).exit_code, 0);
  const Outcome outcome = run_program({"report", task_.save_path().string()});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("read"), AllOf(HasSubstr("2 runs"), Not(HasSubstr("skipped"))));
  const std::string page = read_bytes(task_.save_path() / "report.html");
  const std::string recall = results()["retrieval"]["scales"][0]["text_to_image"]["at_5"].dump();
  EXPECT_THAT(page, AllOf(HasSubstr("<section id=\"retrieval\">"), HasSubstr("<section id=\"tables\">")));
  EXPECT_THAT(page.substr(page.find("<section id=\"retrieval\">")),
              HasSubstr("<data value=\"" + recall + "\""));
}

TEST_F(Retrieval, IsSweptWithTheResultsOfSingleRuns) {
  const std::vector<std::string> sweep = {"sweep",
                                          "--datasets",
                                          captions().string(),
                                          "--checkpoint",
                                          task_.checkpoint().string(),
                                          "--protocol",
                                          "retrieval",
                                          "--method",
                                          "r_adapter",
                                          "--warmup",
                                          "0",
                                          "--epochs",
                                          "1",
                                          "--batch_size",
                                          "4",
                                          "--seeds",
                                          "1",
                                          "2",
                                          "--save_path",
                                          task_.save_path().string()};
  const Outcome outcome = run_program(sweep);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors << outcome.output;
  EXPECT_THAT(outcome.line("done "),
              AllOf(HasSubstr("all shots seed 1"), HasSubstr("adapted image to text")));
  EXPECT_TRUE(fs::exists(result_folder().parent_path() / "seed2/results.json"));
  const json swept = results();
  EXPECT_THAT(run_program(sweep).line("finished"), HasSubstr("0 runs"));

  fs::remove_all(task_.save_path());
  ASSERT_EQ(run_program(arguments()).exit_code, 0);
  EXPECT_EQ(swept["retrieval"], results()["retrieval"]);
  EXPECT_EQ(swept["settings"], results()["settings"]);
}

TEST_F(Retrieval, ASweepFindsTheNameThatAFileOfCaptionsGives) {
  const json sentences = {{{"raw", "a ring"}}, {{"raw", "it is a ring"}}};
  json images = json::array();
  for (const std::string picture : {"0", "1", "3"}) {
    images.push_back({{"filename", "ring/" + picture + ".png"},
                      {"split", picture == "3" ? "test" : "train"},
                      {"sentences", sentences}});
  }
  const fs::path file = task_ / "data/shapes/captions.json";
  write_bytes(file, json({{"dataset", "rings"}, {"images", images}}).dump());
  const std::vector<std::string> sweep = {
      "sweep",     "--datasets", file.string(), "--checkpoint", task_.checkpoint().string(), "--protocol",
      "retrieval", "--method",   "zero_shot",   "--save_path",  task_.save_path().string()};
  const Outcome outcome = run_program(sweep);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors << outcome.output;
  EXPECT_TRUE(fs::exists(task_.save_path() / "small/rings/allshots/seed1/results.json"));
  EXPECT_THAT(run_program(sweep).line("finished"), HasSubstr("0 runs"));
}

/// The figures of an independent implementation on 200 images with their 1,000 captions.
TEST(RetrievalData, ZeroShotRecallIsTheKnownOne) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const fs::path data = test_data();
  const TemporaryFolder folder;
  const Outcome outcome = run_program(
      {"--protocol", "retrieval", "--dataset", data / "data/retrieval/flickr8k_subset/dataset_flickr8k.json",
       "--checkpoint", data / "models/small_clip_64px.safetensors", "--method", "zero_shot", "--save_path",
       (folder / "results").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  const fs::path saved = folder / "results/small_clip_64px/flickr8k_subset/allshots/seed1/results.json";
  const json recall = json::parse(read_bytes(saved))["retrieval"]["zero_shot"];
  const auto expect = [](const json& found, const std::vector<double>& known) {
    EXPECT_NEAR(found["at_1"].get<double>(), known[0], 0.2);
    EXPECT_NEAR(found["at_5"].get<double>(), known[1], 0.2);
    EXPECT_NEAR(found["at_10"].get<double>(), known[2], 0.2);
  };
  expect(recall["image_to_text"], {85.0, 100.0, 100.0});
  expect(recall["text_to_image"], {70.6, 92.4, 96.1});
}

}  // namespace
}  // namespace clip_lora::testing
