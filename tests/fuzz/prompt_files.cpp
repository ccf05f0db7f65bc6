#include "clip_lora/text/prompts.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

void run(std::string_view input) {
  // JSON may be told by the file's name, too.
  const auto file = scratch_file(input.size() % 2 == 0 ? "prompts.txt" : "prompts.json", input);
  read_whatever_it_is([&] { text::read_templates(file); });
  read_whatever_it_is([&] {
    const auto prompts = text::read_class_prompts(file, {"annual_crop", "River"});
    require(prompts.size() == 2 && !prompts[0].empty() && !prompts[1].empty(), "each class has a prompt");
  });
}

std::vector<std::string> seeds() {
  return {"a photo of a {}.\na {} in the wild\n",
          "\xef\xbb\xbf{}\r\n\r\n[{}]\n",
          R"(["a photo of a {}.", "art of the {}"])",
          R"({"Annual Crop": ["fields seen from above"], "river": ["water", "a \u00fcber bend"], "x": []})",
          R"({"River": ["a"], "river": ["b"], "annual_crop": ["c"]})",
          "{\"a\":" + std::string(300, '[') + std::string(300, ']') + "}"};
}

}  // namespace

const Target prompt_files = {"prompt_files", run, seeds};

}  // namespace clip_lora::fuzz
