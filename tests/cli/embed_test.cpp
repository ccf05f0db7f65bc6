#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Three pictures, one of which is none.
class Embed : public ::testing::Test {
 protected:
  Embed() {
    fs::create_directories(task_ / "photos");
    image::write_png(first(), formula_picture(40, 60));
    image::write_png(second(), formula_picture(33, 32));
  }
  fs::path first() const { return task_ / "photos/a b.png"; }
  fs::path second() const { return task_ / "photos/c.png"; }
  fs::path out(const std::string& name) const { return task_ / name; }

  Outcome run(const fs::path& file, const std::vector<std::string>& flags = {}) const {
    std::vector<std::string> words = {"embed",        (task_ / "photos").string(),
                                      "--checkpoint", task_.checkpoint().string(),
                                      "--out",        file.string()};
    words.insert(words.end(), flags.begin(), flags.end());
    return run_program(words);
  }

  /// What the library's model says of a picture, [E].
  at::Tensor features_of(const fs::path& picture) const {
    model::LoadedClip loaded = model::load_clip(io::read_checkpoint_files(task_.checkpoint()));
    image::Image view = image::load_evaluation_view(picture, loaded.preprocessing);
    const at::Tensor pixels = at::from_blob(view.rgb.data(), {1, view.height, view.width, 3}, at::kByte);
    return loaded.clip->encode_image(data::normalise(pixels, loaded.preprocessing, at::kCPU, at::kFloat))[0];
  }

  SmallTask task_;
};

TEST_F(Embed, FeaturesAreTheModelsInTheOrderOfTheList) {
  const Outcome raw = run(out("raw.safetensors"), {"--raw"});
  ASSERT_EQ(raw.exit_code, 0) << raw.errors;
  const at::Tensor features = io::read_safetensors(out("raw.safetensors")).tensors.at("image_features");
  // The same sums, in batches of one and two.
  EXPECT_TRUE(at::allclose(features, at::stack({features_of(first()), features_of(second())}), 1e-4, 1e-5));
  const json list = json::parse(read_bytes(out("raw.safetensors.json")));
  EXPECT_THAT(list["files"], ElementsAre(first().string(), second().string()));
  EXPECT_EQ(list["shape"], (std::vector<int>{2, 32}));
  EXPECT_EQ(list["normalised"], false);
  EXPECT_EQ(list["preprocessing"]["size"], 32);
  EXPECT_EQ(list["preprocessing"]["exif"], true) << "photos of one's own are turned";

  const Outcome normalised = run(out("unit.safetensors"));
  ASSERT_EQ(normalised.exit_code, 0) << normalised.errors;
  const at::Tensor unit = io::read_safetensors(out("unit.safetensors")).tensors.at("image_features");
  EXPECT_TRUE(at::allclose(unit, features / features.norm(2, {1}, /*keepdim=*/true), 1e-5, 1e-6));
  EXPECT_EQ(json::parse(read_bytes(out("unit.safetensors.json")))["normalised"], true);
}

TEST_F(Embed, NpyFilesHoldTheSameAsNumpyWritesThem) {
  ASSERT_EQ(run(out("a.safetensors")).exit_code, 0);
  ASSERT_EQ(run(out("b.npy")).exit_code, 0);
  const std::string bytes = read_bytes(out("b.npy"));
  // numpy.save of a float32 array of this shape begins with these bytes.
  std::string header = std::string("\x93NUMPY\x01\x00\x76\x00", 10) +
                       "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 32), }";
  header.append(127 - header.size(), ' ');
  header += '\n';
  ASSERT_EQ(bytes.substr(0, 128), header);
  const at::Tensor features =
      io::read_safetensors(out("a.safetensors")).tensors.at("image_features").contiguous();
  ASSERT_EQ(bytes.size(), 128 + features.nbytes());
  EXPECT_EQ(std::memcmp(bytes.data() + 128, features.const_data_ptr(), features.nbytes()), 0);
}

TEST_F(Embed, PicturesThatCannotBeReadAreNotInTheList) {
  write_bytes(task_ / "photos/b.png", "no picture");
  const Outcome outcome = run(out("f.npy"));
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, HasSubstr("b.png"));
  EXPECT_THAT(json::parse(read_bytes(out("f.npy.json")))["files"],
              ElementsAre(first().string(), second().string()));
}

TEST_F(Embed, WhereNothingCanBeReadNothingIsWritten) {
  write_bytes(first(), "no picture");
  write_bytes(second(), "no picture");
  const Outcome outcome = run(out("f.npy"));
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, HasSubstr("'" + out("f.npy").string() + "' was not written"));
  EXPECT_FALSE(fs::exists(out("f.npy")));
  EXPECT_FALSE(fs::exists(out("f.npy.json")));
}

TEST_F(Embed, AFullDiskIsToldOfTheFileThatWasAskedFor) {
  for (int i = 0; i < 8; ++i)
    image::write_png(task_ / ("photos/" + std::to_string(i) + ".png"), formula_picture(20, 20 + i));
  // At most one block, of 512 or 1,024 bytes: less than ten rows of 32 floats.
  const std::string line = "trap '' XFSZ; ulimit -f 1; exec " + std::string(CLIP_LORA_PROGRAM) + " embed '" +
                           (task_ / "photos").string() + "' --quiet --checkpoint '" +
                           task_.checkpoint().string() + "' --out '" + out("f.npy").string() + "'";
  const Outcome outcome = run_program({"-c", line}, "/bin/sh");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("cannot write '" + out("f.npy").string() + "': File too large"));
  EXPECT_FALSE(fs::exists(out("f.npy")));
}

TEST_F(Embed, FilesThatAreThereAreReplacedOnlyByForce) {
  write_bytes(out("f.npy.json"), "mine");
  const Outcome refused = run(out("f.npy"));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.errors, HasSubstr("f.npy.json"));
  EXPECT_EQ(read_bytes(out("f.npy.json")), "mine");
  EXPECT_FALSE(fs::exists(out("f.npy")));
  EXPECT_EQ(run(out("f.npy"), {"--force"}).exit_code, 0);
  EXPECT_EQ(run(out("f.txt")).exit_code, 2) << "no format of that name";
}

TEST_F(Embed, AnAdapterBringsItsPreprocessingAndFlagsWinOverIt) {
  const Outcome trained =
      run_program(task_.arguments({{"--lr", "0.05"}, {"--n_iters", "20"}, {"--resize_mode", "squash"}}));
  ASSERT_EQ(trained.exit_code, 0) << trained.errors;
  const std::string adapter = (task_.result_folder() / "lora_weights.pt").string();
  ASSERT_EQ(run(out("plain.npy")).exit_code, 0);
  ASSERT_EQ(run(out("adapted.npy"), {"--adapter", adapter}).exit_code, 0);
  EXPECT_NE(read_bytes(out("plain.npy")), read_bytes(out("adapted.npy")));
  const json preprocessing = json::parse(read_bytes(out("adapted.npy.json")))["preprocessing"];
  EXPECT_EQ(preprocessing["resize_mode"], "squash");
  EXPECT_FALSE(preprocessing.value("exif", false)) << "a benchmark's photos are not turned";

  ASSERT_EQ(
      run(out("flags.npy"), {"--adapter", adapter, "--resize_mode", "longest", "--exif", "apply"}).exit_code,
      0);
  const json changed = json::parse(read_bytes(out("flags.npy.json")))["preprocessing"];
  EXPECT_EQ(changed["resize_mode"], "longest");
  EXPECT_EQ(changed["exif"], true);

  const fs::path peft = out("peft");
  ASSERT_EQ(run_program({"export", "--checkpoint", task_.checkpoint().string(), "--adapter", adapter, "--to",
                         "peft", "--out", peft.string()})
                .exit_code,
            0);
  fs::remove(peft / "clip_lora.json");
  ASSERT_EQ(run(out("silent.npy"), {"--adapter", peft.string()}).exit_code, 0);
  const json silent = json::parse(read_bytes(out("silent.npy.json")))["preprocessing"];
  EXPECT_FALSE(silent.value("exif", false)) << "the authors' training, as torchvision, turns no photos";
}

}  // namespace
}  // namespace clip_lora::testing
