#include "other_datasets.hpp"

#include <gmock/gmock.h>

#include <numeric>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/robustness.hpp"
#include "support/files.hpp"
#include "support/miniature_benchmarks.hpp"
#include "support/miniature_shifts.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using cli::OtherDataset;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

/// A folder for data sets, and the options that look for those of a protocol in it.
class OtherDatasets : public ::testing::Test {
 protected:
  cli::RunOptions options(const std::string& protocol, const std::string& dataset) const {
    cli::RunOptions options;
    options.data.protocol = protocol;
    options.data.dataset = dataset;
    options.data.root_path = root_.path().string();
    return options;
  }

  cli::RunOptions robustness() const { return options("robustness", "imagenet"); }

  void write_shifts() const {
    write_wordnet_ids(root_.path());
    for (const auto& shift : data::robustness_benchmarks()) write_shift_miniature(root_.path(), shift.name);
  }

  static std::vector<std::string> names(const cli::OtherDatasets& found) {
    std::vector<std::string> names;
    for (const auto& other : found.datasets) names.push_back(other->name);
    return names;
  }

  static const OtherDataset& named(const cli::OtherDatasets& found, const std::string& name) {
    for (const auto& other : found.datasets) {
      if (other->name == name) return *other;
    }
    throw std::out_of_range(name);
  }

  const TemporaryFolder root_;
  cli::KeptOtherDatasets kept_;
};

constexpr std::size_t kClassesOfImageNet = 1000;

TEST_F(OtherDatasets, OfRobustnessAreTheShiftsWithWhatTheirLabelsMean) {
  write_shifts();
  const auto found = kept_.load(robustness(), kClassesOfImageNet);
  EXPECT_THAT(names(found),
              ElementsAre("imagenet_v2", "imagenet_r", "imagenet_sketch", "objectnet", "imagenet_a"));
  std::vector<int> all(kClassesOfImageNet);
  std::iota(all.begin(), all.end(), 0);
  for (const std::string name : {"imagenet_v2", "imagenet_sketch"}) {
    const OtherDataset& shift = named(found, name);
    EXPECT_THAT(shift.counted_labels, IsEmpty()) << name << ": all";
    EXPECT_EQ(shift.meanings, all);
    EXPECT_EQ(shift.classes, 1000);
  }
  for (const std::string name : {"imagenet_a", "imagenet_r"}) {
    const OtherDataset& shift = named(found, name);
    EXPECT_THAT(shift.counted_labels, SizeIs(200)) << name;
    EXPECT_TRUE(std::equal(shift.meanings.begin(), shift.meanings.end(), shift.counted_labels.begin()));
    EXPECT_EQ(shift.counted_labels[1] - shift.counted_labels[0], 5) << "as the miniature's";
    EXPECT_EQ(shift.classes, 200);
    EXPECT_EQ(shift.border_px, 0);
  }
  const OtherDataset& objectnet = named(found, "objectnet");
  EXPECT_THAT(objectnet.counted_labels, ElementsAre(409, 423, 530, 987));
  EXPECT_THAT(objectnet.meanings, ElementsAre(0, 1, 0, 2)) << "two ImageNet classes are alarm clocks";
  EXPECT_EQ(objectnet.classes, 3);
  EXPECT_EQ(objectnet.border_px, 2);
  for (const auto& other : found.datasets) EXPECT_TRUE(other->is_shift());
}

TEST_F(OtherDatasets, OfCrossDatasetAreTheOtherBenchmarksInTheirCustomaryPrompts) {
  for (const auto& name : miniature_names()) write_miniature(root_.path(), name, FolderNames::kCoop);
  EXPECT_THAT(kept_.load(options("cross_dataset", "imagenet"), 3).datasets, SizeIs(10));
  EXPECT_THAT(kept_.load(options("cross_dataset", "fgvc_aircraft"), 3).datasets, SizeIs(10)) << "an alias";
  const auto found = kept_.load(options("cross_dataset", "shapes"), 16);
  EXPECT_THAT(names(found),
              ElementsAre("caltech101", "dtd", "eurosat", "fgvc", "food101", "imagenet", "oxford_flowers",
                          "oxford_pets", "stanford_cars", "sun397", "ucf101"));
  const OtherDataset& dtd = named(found, "dtd");
  EXPECT_THAT(dtd.prompts, SizeIs(3));
  EXPECT_THAT(dtd.prompts[0], ElementsAre("banded texture."));
  EXPECT_THAT(named(found, "imagenet").prompts[0], SizeIs(80));
  EXPECT_THAT(dtd.meanings, ElementsAre(0, 1, 2));
  EXPECT_THAT(dtd.test, SizeIs(6));
  EXPECT_FALSE(dtd.is_shift());
}

TEST_F(OtherDatasets, ThatAreMissingAreListedWithTheirPlacesOrLeftOut) {
  write_shifts();
  fs::remove_all(root_ / "imagenet-a");
  fs::remove_all(root_ / "objectnet-1.0");
  const std::string refused = message_of<DataError>([&] { kept_.load(robustness(), kClassesOfImageNet); });
  EXPECT_THAT(refused, AllOf(HasSubstr("--protocol robustness"), HasSubstr("'imagenet_a'"),
                             HasSubstr((root_ / "imagenet-adversarial/imagenet-a").string()),
                             HasSubstr((root_ / "ObjectNet").string()),
                             HasSubstr("--skip_missing leaves out objectnet, imagenet_a"),
                             Not(HasSubstr("'imagenet_r'"))));

  auto skipping = robustness();
  skipping.data.skip_missing = true;
  const auto found = kept_.load(skipping, kClassesOfImageNet);
  EXPECT_THAT(names(found), ElementsAre("imagenet_v2", "imagenet_r", "imagenet_sketch"));
  EXPECT_THAT(found.warnings, ElementsAre(AllOf(HasSubstr("left out"), HasSubstr("'objectnet'")),
                                          AllOf(HasSubstr("left out"), HasSubstr("'imagenet_a'"))));

  write_shift_miniature(root_.path(), "imagenet_a");
  EXPECT_THAT(kept_.load(skipping, kClassesOfImageNet).datasets, SizeIs(4)) << "what has come is found";
}

TEST_F(OtherDatasets, ThatAreThereByHalfAreErrorsWhateverMayBeMissing) {
  write_shifts();
  fs::remove_all(root_ / "objectnet-1.0/mappings");
  auto skipping = robustness();
  skipping.data.skip_missing = true;
  EXPECT_THAT(message_of<DataError>([&] { kept_.load(skipping, kClassesOfImageNet); }),
              AllOf(HasSubstr("'objectnet'"), HasSubstr("objectnet_to_imagenet_1k.json")));
}

TEST_F(OtherDatasets, NoneOfWhichIsThereAreAnErrorWhateverMayBeMissing) {
  auto skipping = options("cross_dataset", "imagenet");
  skipping.data.skip_missing = true;
  EXPECT_THAT(message_of<DataError>([&] { kept_.load(skipping, 3); }),
              AllOf(HasSubstr("nothing left to test on"), HasSubstr("'ucf101'")));
}

TEST_F(OtherDatasets, ImagesThatAreMissingAreLeftOutIfThatIsAllowed) {
  for (const auto& name : miniature_names()) write_miniature(root_.path(), name, FolderNames::kCoop);
  auto crossing = options("cross_dataset", "imagenet");
  const fs::path image = kept_.load(crossing, 3).datasets.front()->test.front().image;
  fs::remove(image);
  cli::KeptOtherDatasets anew;
  EXPECT_THAT(
      message_of<DataError>([&] { anew.load(crossing, 3); }),
      AllOf(HasSubstr("caltech101: test split"), HasSubstr(image.string()), HasSubstr("--allow_missing")));
  crossing.data.allow_missing = true;
  const auto found = anew.load(crossing, 3);
  EXPECT_EQ(found.datasets.front()->left_out, 1);
  EXPECT_THAT(found.datasets.front()->test, SizeIs(5));
}

TEST_F(OtherDatasets, OfAnImageNetOfOtherClassesCannotBe) {
  write_shifts();
  EXPECT_THAT(message_of<DataError>([&] { kept_.load(robustness(), 3); }),
              AllOf(HasSubstr("3 classes"), HasSubstr("1,000")));
}

TEST_F(OtherDatasets, AreNoneForOtherProtocols) {
  EXPECT_THAT(kept_.load(options("all", "imagenet"), 3).datasets, IsEmpty());
  EXPECT_THAT(kept_.load(options("base_to_new", "imagenet"), 3).datasets, IsEmpty());
}

}  // namespace
}  // namespace clip_lora::testing
