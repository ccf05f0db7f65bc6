#include "clip_lora/data/captions.hpp"

#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

void run(std::string_view input) {
  static const auto picture = scratch_file("a.jpg", "");  // which a list may name
  const bool is_json = input.find('{') < 4;               // behind a byte order mark at most
  const auto file = scratch_file(is_json ? "captions.json" : "captions.csv", input);
  read_whatever_it_is([&] {
    const data::CaptionDataset dataset = data::load_captions(file.string(), "");
    require(!dataset.test.empty(), "there is a test image");
    for (const auto* images : {&dataset.train, &dataset.val, &dataset.test}) {
      for (const auto& image : *images) require(!image.captions.empty(), "an image has a caption");
    }
  });
}

std::vector<std::string> seeds() {
  return {
      R"({"dataset": "x", "images": [{"filename": "a.jpg", "split": "test", "sentences": [{"raw": "a cat", "tokens": ["a", "cat"]}, {"raw": "it"}], "imgid": 0}]})",
      R"({"images": [{"filepath": "val2014", "filename": "a.jpg", "split": "restval", "sentences": [{"raw": "x"}]}, {"filename": "a.jpg", "split": "test", "sentences": [{"raw": "y"}]}], "dataset": 3})",
      R"({"images": [3, {}, {"filename": 4}], "images": [[]]})",
      R"({"images": {"a": [)" + std::string(100, '[') + std::string(100, ']') + "]}}",
      "image,caption,split\na.jpg,\"a cat, on a mat\",train\na.jpg,a cat,train\nb.jpg,a dog,test\n",
      "caption,image\none,a.jpg\ntwo,b.jpg\nthree,c.jpg\n",
      "image;caption\na.jpg;x\n"};
}

}  // namespace

const Target captions = {"captions", run, seeds};

}  // namespace clip_lora::fuzz
