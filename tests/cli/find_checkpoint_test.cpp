#include "clip_lora/cli/find_checkpoint.hpp"

#include <gmock/gmock.h>

#include "clip_lora/core/errors.hpp"
#include "support/environment.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using cli::find_checkpoint;
using ::testing::HasSubstr;
using ::testing::Not;

/// A home folder and an environment in which nothing is set but what a test sets.
class FindCheckpoint : public ::testing::Test {
 protected:
  fs::path home() const { return folder_ / "home"; }
  fs::path hub() const { return home() / ".cache/huggingface/hub"; }

  fs::path touch(const fs::path& file) const {
    fs::create_directories(file.parent_path());
    write_bytes(file, "weights");
    return file;
  }

  /// A snapshot in Hugging Face's cache, with weights in it.
  fs::path snapshot(const fs::path& cache, const std::string& repository, const std::string& revision) const {
    const fs::path folder = cache / ("models--" + repository);
    touch(folder / "refs/main");
    write_bytes(folder / "refs/main", revision);
    return touch(folder / "snapshots" / revision / "model.safetensors").parent_path();
  }

  TemporaryFolder folder_;

 private:
  EnvironmentVariable home_{"HOME", home().string()};
  EnvironmentVariable checkpoints_{"CLIP_LORA_CHECKPOINTS", std::nullopt};
  EnvironmentVariable hub_{"HF_HUB_CACHE", std::nullopt};
  EnvironmentVariable hugging_face_{"HF_HOME", std::nullopt};
};

TEST_F(FindCheckpoint, AFileOrAFolderWithAModelIsTakenAsItIs) {
  EXPECT_EQ(find_checkpoint("missing.pt", "ViT-B/16"), "missing.pt");
  const fs::path model = touch(folder_ / "model/model.safetensors").parent_path();
  touch(model / "ViT-B-16.pt");
  EXPECT_EQ(find_checkpoint(model.string(), "ViT-B/16"), model);
}

TEST_F(FindCheckpoint, AFolderOfCheckpointsIsSearchedByTheBackbonesName) {
  const fs::path file = touch(folder_ / "many/ViT-L-14-336px.pt");
  touch(folder_ / "many/ViT-B-16.pt");
  EXPECT_EQ(find_checkpoint((folder_ / "many").string(), "ViT-L/14@336px"), file);
}

TEST_F(FindCheckpoint, OpenAisCacheIsFoundByTheBackbonesName) {
  const fs::path file = touch(home() / ".cache/clip/ViT-B-16.pt");
  EXPECT_EQ(find_checkpoint("", "ViT-B/16"), file);
}

TEST_F(FindCheckpoint, TheEnvironmentsFolderComesBeforeTheCaches) {
  touch(home() / ".cache/clip/ViT-B-16.pt");
  const fs::path file = touch(folder_ / "mine/ViT-B-16.safetensors");
  const EnvironmentVariable checkpoints("CLIP_LORA_CHECKPOINTS", (folder_ / "mine").string());
  EXPECT_EQ(find_checkpoint("", "ViT-B/16"), file);
}

TEST_F(FindCheckpoint, HuggingFacesCacheIsReadAtItsMainRevision) {
  snapshot(hub(), "openai--clip-vit-base-patch16", "0123");
  const fs::path main = snapshot(hub(), "openai--clip-vit-base-patch16", "4567");
  EXPECT_EQ(find_checkpoint("", "ViT-B/16"), main);
}

TEST_F(FindCheckpoint, TheOnlySnapshotNeedsNoMainRevision) {
  const fs::path only = snapshot(hub(), "openai--clip-vit-base-patch16", "0123");
  fs::remove_all(hub() / "models--openai--clip-vit-base-patch16/refs");
  EXPECT_EQ(find_checkpoint("", "ViT-B/16"), only);
  touch(hub() / "models--openai--clip-vit-base-patch16/snapshots/4567/model.safetensors");
  EXPECT_THROW(find_checkpoint("", "ViT-B/16"), CheckpointError);
}

TEST_F(FindCheckpoint, HuggingFacesCacheIsWhereItsVariablesSay) {
  const fs::path in_home = snapshot(folder_ / "hf/hub", "laion--CLIP-ViT-H-14-laion2B-s32B-b79K", "1");
  const EnvironmentVariable hugging_face("HF_HOME", (folder_ / "hf").string());
  EXPECT_EQ(find_checkpoint("", "ViT-H/14"), in_home);
  const fs::path in_cache = snapshot(folder_ / "cache", "laion--CLIP-ViT-H-14-laion2B-s32B-b79K", "1");
  const EnvironmentVariable cache("HF_HUB_CACHE", (folder_ / "cache").string());
  EXPECT_EQ(find_checkpoint("", "ViT-H/14"), in_cache);
}

TEST_F(FindCheckpoint, ARepositorysNameIsABackboneToo) {
  const std::string repository = "laion/CLIP-ViT-B-16-laion2B-s34B-b88K";
  const fs::path folder = snapshot(hub(), "laion--CLIP-ViT-B-16-laion2B-s34B-b88K", "1");
  EXPECT_EQ(find_checkpoint("", repository), folder);
}

TEST_F(FindCheckpoint, ASnapshotWithoutWeightsIsPassedOver) {
  const fs::path folder = snapshot(hub(), "openai--clip-vit-base-patch16", "1");
  fs::rename(folder / "model.safetensors", folder / "config.json");
  EXPECT_THROW(find_checkpoint("", "ViT-B/16"), CheckpointError);
}

TEST_F(FindCheckpoint, WhatIsNowhereListsThePlacesTriedAndTheCommandThatFetchesIt) {
  const EnvironmentVariable checkpoints("CLIP_LORA_CHECKPOINTS", (folder_ / "mine").string());
  const std::string message = message_of<CheckpointError>([] { find_checkpoint("", "ViT-B/32"); });
  EXPECT_THAT(message, HasSubstr((folder_ / "mine/ViT-B-32.pt").string()));
  EXPECT_THAT(message, HasSubstr((home() / ".cache/clip/ViT-B-32.pt").string()));
  EXPECT_THAT(message, HasSubstr((hub() / "models--openai--clip-vit-base-patch32/snapshots").string()));
  EXPECT_THAT(message, HasSubstr("scripts/get_checkpoint.sh ViT-B/32"));
}

TEST_F(FindCheckpoint, WhatOpenAiDidNotPublishIsNotSaidToBeFetched) {
  EXPECT_THAT(message_of<CheckpointError>([] { find_checkpoint("", "ViT-H/14"); }),
              Not(HasSubstr("get_checkpoint")));
}

TEST_F(FindCheckpoint, AnUnknownBackboneIsRefusedWithTheNearestName) {
  EXPECT_THAT(message_of<ConfigError>([] { find_checkpoint("", "ViT-B/6"); }),
              HasSubstr("did you mean 'ViT-B/16'"));
  fs::create_directories(folder_ / "empty");
  EXPECT_THAT(message_of<ConfigError>([&] { find_checkpoint((folder_ / "empty").string(), "ViT-H/4"); }),
              HasSubstr("did you mean 'ViT-H/14'"));
}

}  // namespace
}  // namespace clip_lora::testing
