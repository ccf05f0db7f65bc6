#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "support/close.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class AdapterFile : public ::testing::Test {
 protected:
  /// Saves a random adapter with `options` and returns its tensors.
  io::StateDict save(const lora::LoraOptions& options = {}) {
    const lora::Adapter adapter(clip_, options);
    randomise(adapter);
    lora::save_adapter(path_, adapter);
    return snapshot(adapter.state_dict());
  }
  /// The complaint about loading the file into an adapter with `options`, which must name the file and load
  /// nothing.
  std::string complaint(const lora::LoraOptions& options = {}) {
    lora::Adapter adapter(clip_, options);
    const auto before = snapshot(adapter.state_dict());
    const auto message = message_of<CheckpointError>([&] { lora::load_adapter(path_, adapter); });
    EXPECT_THAT(message, HasSubstr("weights.pt"));
    for (const auto& [name, tensor] : before)
      EXPECT_TRUE(identical(adapter.state_dict().at(name), tensor)) << name;
    return message;
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "runs" / "weights.pt";
  model::Clip clip_ = random_clip();
};

std::vector<lora::LoraOptions> options_of_every_kind() {
  std::vector<lora::LoraOptions> all(9);
  all[1].encoder = lora::Encoder::kText;
  all[2].encoder = lora::Encoder::kVision;
  all[3].projections = {.q = false, .k = false, .v = false, .o = true};
  all[4].projections = {.q = true, .k = true, .v = true, .o = true};
  all[5].rank = 16;
  all[5].alpha = 0.1;
  all[6].position = lora::Position::kTop3;
  all[7].position = lora::Position::kMiddle;
  all[8].rank = 1;
  return all;
}

TEST_F(AdapterFile, LoadingWhatWasSavedIsTheIdentity) {
  for (const auto& options : options_of_every_kind()) {
    const auto saved = save(options);
    lora::Adapter adapter(clip_, options);
    lora::load_adapter(path_, adapter);
    ASSERT_EQ(adapter.state_dict().size(), saved.size());
    for (const auto& [name, tensor] : saved) {
      EXPECT_TRUE(identical(adapter.state_dict().at(name), tensor)) << name;
      EXPECT_TRUE(adapter.state_dict().at(name).requires_grad()) << name;
    }
  }
}

TEST_F(AdapterFile, LoadingReachesAnAttachedAdapter) {
  const at::NoGradGuard no_grad;
  save();
  lora::Adapter adapter(clip_, {});
  adapter.attach(clip_);
  const auto images = random_images(tiny_architecture(), 2);
  const auto fresh = clip_->encode_image(images);
  lora::load_adapter(path_, adapter);
  EXPECT_FALSE(close(clip_->encode_image(images), fresh, 1e-3));
}

TEST_F(AdapterFile, ADifferentSettingIsRefusedNamingBothValues) {
  save();
  lora::LoraOptions options;
  options.rank = 4;
  EXPECT_THAT(complaint(options), AllOf(HasSubstr("--r 2"), HasSubstr("--r 4")));
  options = {};
  options.alpha = 3.0;
  EXPECT_THAT(complaint(options), AllOf(HasSubstr("--alpha 1"), HasSubstr("--alpha 3")));
  options = {};
  options.encoder = lora::Encoder::kText;
  EXPECT_THAT(complaint(options), AllOf(HasSubstr("--encoder both"), HasSubstr("--encoder text")));
  options = {};
  options.projections.o = true;
  EXPECT_THAT(complaint(options), AllOf(HasSubstr("--params q k v"), HasSubstr("--params q k v o")));
  options = {};
  options.position = lora::Position::kUp;
  EXPECT_THAT(complaint(options), AllOf(HasSubstr("--position all"), HasSubstr("--position up")));
}

TEST_F(AdapterFile, AllDifferentSettingsAreNamedAtOnce) {
  save();
  lora::LoraOptions options;
  options.rank = 4;
  options.alpha = 3.0;
  options.encoder = lora::Encoder::kVision;
  options.projections.k = false;
  options.position = lora::Position::kHalfUp;
  EXPECT_THAT(complaint(options), AllOf(HasSubstr("--r"), HasSubstr("--alpha"), HasSubstr("--encoder"),
                                        HasSubstr("--params"), HasSubstr("--position")));
}

TEST_F(AdapterFile, DropoutMayDiffer) {
  save();
  lora::Adapter adapter(clip_, without_dropout());
  EXPECT_NO_THROW(lora::load_adapter(path_, adapter));
}

TEST_F(AdapterFile, OfAnotherModelIsRefusedNamingTensorAndShapes) {
  auto wider = tiny_architecture();
  wider.text.width = 192;
  wider.text.heads = 3;
  save();
  lora::Adapter adapter(random_clip(wider), {});
  EXPECT_THAT(message_of<CheckpointError>([&] { lora::load_adapter(path_, adapter); }),
              AllOf(HasSubstr("layer_0"), HasSubstr("q_proj"), HasSubstr("[2, 128]"), HasSubstr("[2, 192]")));
  auto deeper = tiny_architecture();
  deeper.vision.layers = 5;
  lora::Adapter larger(random_clip(deeper), {});
  EXPECT_THAT(message_of<CheckpointError>([&] { lora::load_adapter(path_, larger); }), HasSubstr("layer_8"));
}

TEST_F(AdapterFile, AMissingFileOrAFolderIsRefusedByName) {
  complaint();
  std::filesystem::create_directories(path_);
  complaint();
}

TEST_F(AdapterFile, TruncatedAnywhereIsRefused) {
  save();
  const auto whole = read_bytes(path_);
  for (std::size_t part = 0; part < 64; ++part) {
    write_bytes(path_, whole.substr(0, whole.size() * part / 64));
    complaint();
  }
}

TEST_F(AdapterFile, SomethingElseIsRefused) {
  save();
  for (const std::string bytes : {"", "not a zip", "PK\3\4", "\x80\2}q\1."}) {
    write_bytes(path_, bytes);
    complaint();
  }
}

TEST_F(AdapterFile, AnUnwritablePathIsAConfigErrorThatNamesIt) {
  write_bytes(folder_ / "taken", "");
  const lora::Adapter adapter(clip_, {});
  EXPECT_THAT(message_of<ConfigError>([&] { lora::save_adapter(folder_ / "taken" / "weights.pt", adapter); }),
              HasSubstr("taken"));
}

}  // namespace
}  // namespace clip_lora::testing
