#include "clip_lora/io/safetensors.hpp"
#include "unit/lora_files.hpp"

namespace clip_lora::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// Our own format, with tensors and metadata at will.
class SafetensorsAdapter : public AdapterFiles {
 protected:
  SafetensorsAdapter() {
    lora::save_adapter(path_, irregular_adapter(clip_), some_context(), lora::AdapterFormat::kSafetensors);
    file_ = io::read_safetensors(path_);
    for (auto& [name, tensor] : file_.tensors) tensor = tensor.clone();  // the file will be written again
  }
  void write() { io::write_safetensors(path_, file_.tensors, file_.metadata); }
  /// The complaint about a value in one of the metadata's JSON texts.
  std::string complaint_about(const std::string& part, const std::string& key, const json& value) {
    const auto before = file_.metadata;
    auto content = json::parse(file_.metadata.at(part));
    content[key] = value;
    file_.metadata[part] = content.dump();
    write();
    file_.metadata = before;
    return complaint();
  }

  io::Safetensors file_;
};

TEST_F(SafetensorsAdapter, WithoutAPartOfTheMetadataIsRefusedNamingIt) {
  const auto whole = file_.metadata;
  for (const char* part : {"options", "scalings", "context"}) {
    file_.metadata = whole;
    file_.metadata.erase(part);
    write();
    EXPECT_THAT(complaint(), HasSubstr(part));
    for (const std::string text : {"", "[]", "{", "null", "{}"}) {
      file_.metadata[part] = text;
      write();
      complaint();
    }
  }
}

TEST_F(SafetensorsAdapter, OfAnotherFormatOrVersionIsRefused) {
  file_.metadata["version"] = "2";
  write();
  EXPECT_THAT(complaint(), HasSubstr("version '2'"));
  file_.metadata.clear();
  write();
  EXPECT_THAT(complaint(), HasSubstr("checkpoint?"));
  file_.tensors = {{"base_model.model.x.lora_A.weight", at::ones({2})}};
  write();
  EXPECT_THAT(complaint(), HasSubstr("PEFT"));
}

TEST_F(SafetensorsAdapter, WithOptionsOfWrongTypesOrValuesIsRefusedNamingThem) {
  for (const json& value : {json("2"), json(nullptr), json(true), json({1}), json(0), json(-1)}) {
    EXPECT_THAT(complaint_about("options", "r", value), HasSubstr("r "));
    EXPECT_THAT(complaint_about("options", "alpha", value), HasSubstr("alpha"));
  }
  EXPECT_THAT(complaint_about("options", "rank_stabilised", 1), HasSubstr("rank_stabilised"));
  EXPECT_THAT(complaint_about("options", "dropout_rate", 1), HasSubstr("dropout_rate"));
  EXPECT_THAT(complaint_about("options", "position", "upp"), HasSubstr("up"));
  EXPECT_THAT(complaint_about("context", "version", 2), HasSubstr("version"));
}

TEST_F(SafetensorsAdapter, WithScalingsOfOtherTensorsIsRefused) {
  const std::string name = "transformer.resblocks.0.attn.q_proj";
  EXPECT_THAT(complaint_about("scalings", name, "x"), HasSubstr(name));
  EXPECT_THAT(complaint_about("scalings", "transformer.resblocks.1.attn.q_proj", 1), HasSubstr("is missing"));
  EXPECT_THAT(complaint_about("scalings", "transformer.resblocks.9.attn.q_proj", 1),
              HasSubstr("5 updates are listed"));
  file_.tensors["transformer.resblocks.1.attn.q_proj.w_lora_A"] = at::ones({2, 128});
  write();
  EXPECT_THAT(complaint(), HasSubstr("is unexpected"));
}

TEST_F(SafetensorsAdapter, WithShapesThatDoNotFitEachOtherIsRefused) {
  const std::string name = "transformer.resblocks.0.attn.q_proj.w_lora_";
  for (const std::vector<std::int64_t>& shape :
       std::vector<std::vector<std::int64_t>>{{0, 128}, {3, 127}, {4, 128}, {384}}) {
    file_.tensors[name + "A"] = at::ones(shape);
    write();
    EXPECT_THAT(complaint(), HasSubstr(name));
  }
}

}  // namespace
}  // namespace clip_lora::testing
