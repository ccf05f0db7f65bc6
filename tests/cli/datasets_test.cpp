#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "support/files.hpp"
#include "support/miniature_benchmarks.hpp"
#include "support/miniature_shifts.hpp"
#include "support/temporary_folder.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Datasets : public ::testing::Test {
 protected:
  Outcome run(std::vector<std::string> flags = {}) const {
    flags.insert(flags.begin(), {"datasets", "--root_path", root_.path().string()});
    return run_program(flags);
  }

  /// What is said of one data set.
  json described(const std::string& name, std::vector<std::string> flags = {}) const {
    flags.emplace_back("--json");
    for (const auto& entry : json::parse(run(flags).output)) {
      if (entry.at("name") == name) return entry;
    }
    ADD_FAILURE() << name << " is not listed";
    return {};
  }

  TemporaryFolder root_;
};

TEST_F(Datasets, SaysOfEachOfTheElevenWhereToPutWhat) {
  const Outcome outcome = run();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  for (const auto& name : miniature_names()) EXPECT_THAT(outcome.line(name), HasSubstr("not found")) << name;
  EXPECT_EQ(outcome.line("shapes"), "") << "the demo's pictures are listed where they are";
  EXPECT_THAT(outcome.output, HasSubstr("put 101_ObjectCategories/ and split_zhou_Caltech101.json into '" +
                                        (root_ / "caltech-101").string() + "' or '" +
                                        (root_ / "Caltech101").string() + "', see DATASETS.md"));
}

TEST_F(Datasets, CountsClassesAndImagesOfEachSplit) {
  for (const auto& name : miniature_names()) write_miniature(root_.path(), name, FolderNames::kCoop);
  const Outcome outcome = run();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  for (const auto& name : miniature_names()) EXPECT_THAT(outcome.line(name), HasSubstr("complete")) << name;
  const json cars = described("stanford_cars");
  EXPECT_EQ(cars["folder"], (root_ / "stanford_cars").string());
  EXPECT_EQ(cars["classes"], 3);
  EXPECT_EQ(cars["splits"]["train"]["images"], 6);
  EXPECT_EQ(cars["splits"]["val"]["images"], 3);
  EXPECT_EQ(cars["splits"]["test"]["images"], 6);
  EXPECT_EQ(cars["complete"], true);
  EXPECT_FALSE(described("imagenet")["splits"].contains("val"));
}

TEST_F(Datasets, KnowsTheShiftsOfImageNet) {
  write_wordnet_ids(root_.path());
  for (const std::string name : {"imagenet_v2", "imagenet_r", "imagenet_sketch", "objectnet", "imagenet_a"}) {
    EXPECT_THAT(run().line(name), HasSubstr("not found"));
    write_shift_miniature(root_.path(), name);
    EXPECT_THAT(run().line(name), HasSubstr("complete"));
  }
  EXPECT_EQ(run({"--dataset", "imagenet-a", "objectnet"}).exit_code, 0);
  EXPECT_EQ(described("imagenet_r")["classes"], 200);
  EXPECT_EQ(described("imagenet_v2")["splits"], (json{{"test", described("imagenet_v2")["splits"]["test"]}}));
  EXPECT_EQ(described("imagenet_v2")["splits"]["test"]["images"], 1000);
  EXPECT_EQ(described("objectnet")["classes"], 3);
  fs::remove_all(root_ / "objectnet-1.0/mappings");
  const Outcome outcome = run();
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.line("objectnet"), HasSubstr("cannot be read"));
  EXPECT_THAT(outcome.output, HasSubstr("has no 'folder_to_objectnet_label.json'"));
}

TEST_F(Datasets, KnowsTheCaptionedOnes) {
  for (const std::string name : {"coco", "flickr30k", "flickr8k"}) {
    write_caption_miniature(root_.path(), name);
    EXPECT_THAT(run().line(name), HasSubstr("complete"));
    const json splits = described(name)["splits"];
    EXPECT_EQ(splits["train"]["images"], 4);
    EXPECT_EQ(splits["val"]["images"], 2);
    EXPECT_EQ(splits["test"]["images"], 3);
  }
  fs::remove(root_ / "flickr30k/images/101.jpg");
  const Outcome outcome = run({"--dataset", "flickr30k"});
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.line("flickr30k"), HasSubstr("1 missing"));
}

TEST_F(Datasets, NamesTheFirstMissingImagesAndFails) {
  write_miniature(root_.path(), "eurosat", FolderNames::kCoop);
  fs::remove_all(root_ / "eurosat/2750");
  fs::create_directory(root_ / "eurosat/2750");
  const Outcome outcome = run();
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.line("eurosat"), HasSubstr("15 missing"));
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("6 of 6 train images are missing"),
                    HasSubstr((root_ / "eurosat/2750/AnnualCrop/AnnualCrop_0000.jpg").string()),
                    HasSubstr("and 3 more"), HasSubstr("see DATASETS.md")));
  EXPECT_EQ(described("eurosat")["splits"]["test"]["missing"], 6);
}

TEST_F(Datasets, SaysWhyAFolderCannotBeReadAndFails) {
  fs::create_directory(root_ / "dtd");
  const Outcome outcome = run();
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.line("dtd"), HasSubstr("cannot be read"));
  EXPECT_THAT(outcome.output,
              HasSubstr("no split file '" + (root_ / "dtd/split_zhou_DescribableTextures.json").string()));
}

TEST_F(Datasets, LooksAtTheNamedOnesOnlyWhichMustBeThere) {
  write_miniature(root_.path(), "fgvc", FolderNames::kCoop);
  fs::create_directory(root_ / "dtd");
  const Outcome found = run({"--dataset", "fgvc_aircraft"});
  EXPECT_EQ(found.exit_code, 0) << found.output;
  EXPECT_THAT(found.output, Not(HasSubstr("eurosat")));
  EXPECT_EQ(run({"--dataset", "fgvc", "fgvc_aircraft", "fgvc"}).output, found.output)
      << "named twice, said once";
  EXPECT_EQ(run({"--dataset", "fgvc", "eurosat"}).exit_code, 3);
}

TEST_F(Datasets, VerifyListsTheImagesThatCannotBeDecoded) {
  write_miniature(root_.path(), "ucf101", FolderNames::kRelease);
  const fs::path image = root_ / "UCF101/UCF-101-midframes/Billiards/v_Billiards_g0003.jpg";
  EXPECT_EQ(run({"--verify"}).exit_code, 0);
  write_bytes(image, "no picture");
  EXPECT_EQ(run().exit_code, 0) << "without --verify no image is opened";
  const Outcome outcome = run({"--verify", "--workers", "2"});
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.line("ucf101"), HasSubstr("1 broken"));
  EXPECT_THAT(outcome.output, HasSubstr(image.string()));
  EXPECT_EQ(described("ucf101", {"--verify"})["broken"][0]["image"], image.string());
}

TEST_F(Datasets, RefusesUnknownNamesAndFolders) {
  const Outcome unknown = run({"--dataset", "eurosta"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.errors, HasSubstr("did you mean 'eurosat'?"));
  const Outcome missing = run_program({"datasets", "--root_path", (root_ / "none").string()});
  EXPECT_EQ(missing.exit_code, 3);
  EXPECT_THAT(missing.errors, HasSubstr((root_ / "none").string()));
  EXPECT_EQ(run({"--workers", "-1"}).exit_code, 2);
}

}  // namespace
}  // namespace clip_lora::testing
