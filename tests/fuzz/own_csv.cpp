#include <filesystem>

#include "clip_lora/data/own_dataset.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

/// Pieces: the table, a split that an earlier run kept, a file of class names. An empty piece is a file that
/// is not there.
void run(std::string_view input) {
  static const auto picture = scratch_file("a.png", "");
  const auto pieces = pieces_of(input, 3);
  const auto table = scratch_file("own.csv", pieces[0]);
  data::OwnDatasetOptions options;
  if (!pieces[1].empty()) options.saved_split = scratch_file("kept.json", pieces[1]);
  if (!pieces[2].empty()) options.class_names = scratch_file("names.txt", pieces[2]);
  read_whatever_it_is([&] {
    const data::Dataset dataset = data::load_own_dataset(table, options);
    const int classes = static_cast<int>(dataset.class_names.size());
    require(classes >= 2 && !dataset.train.empty() && !dataset.test.empty(),
            "a data set can be trained and tested on");
    for (const auto* items : {&dataset.train, &dataset.val, &dataset.test}) {
      for (const data::Item& item : *items)
        require(item.label >= 0 && item.label < classes, "a label has a name");
    }
  });
}

std::vector<std::string> seeds() {
  const std::string rows = "a.png,cat\nb.png,cat\nc.png,dog\nd.png,dog\n";
  const std::string kept =
      R"({"test_fraction": 0.3, "val_fraction": 0.2, "seed": 1, "image_folder": ".", "train": [["a.png", 0, "cat"], ["c.png", 1, "dog"]], "val": [], "test": [["b.png", 0, "cat"], ["d.png", 1, "dog"]]})";
  return {rows,
          R"(path,label,split,group,other
"a,1.png","c""at",train,g1,x
b.png,dog,test,g2,y
b.png,dog,test,g2,y
)",
          "label,file\r\n01,x/a.jpg\r\n1,b.jpg\r\n\r\n 2 , c.jpg \r\n",
          "a.png,cat,train\nb.png,dog,validation\nc.png,cat,tset\n",
          joined({rows, kept, ""}),
          joined({rows, "", "cat: the cat\ndog: a dog\n"}),
          joined({rows, kept, R"({"cat": "Katze", "dog": "Hund"})"}),
          joined({rows, "", R"(["x", "y"])"}),
          joined({"image;class\na;b\n", "{}", "x\n"}),
          std::string("\xef\xbb\xbf") + "path,label,group\na.png,a,g\nb.png,b,g\nc.png,a,h\nd.png,b,h\n"};
}

}  // namespace

const Target own_csv = {"own_csv", run, seeds};

}  // namespace clip_lora::fuzz
