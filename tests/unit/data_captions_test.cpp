#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/captions.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using clip_lora::testing::message_of;
using clip_lora::testing::write_bytes;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// An image of Karpathy's format with captions "name 0", "name 1", …
json image_of(const std::string& name, const std::string& split, int captions = 5) {
  json sentences = json::array();
  for (int i = 0; i < captions; ++i) {
    sentences.push_back({{"raw", name + " " + std::to_string(i)}, {"tokens", {"a", "b"}}, {"sentid", i}});
  }
  return {{"filename", name}, {"imgid", 0}, {"split", split}, {"sentences", sentences}, {"sentids", {0}}};
}

class Captions : public ::testing::Test {
 protected:
  fs::path write_json(const fs::path& file, const json& images, const std::string& name = "pets") const {
    const json whole = {{"images", images}, {"dataset", name}};
    return write_text(file, whole.dump());
  }

  fs::path write_text(const fs::path& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    write_bytes(root_ / file, text);
    return root_ / file;
  }

  /// Nobody opens the pictures: they may be empty.
  void write_pictures(const fs::path& folder, const std::vector<std::string>& names) const {
    for (const auto& name : names) write_text(folder / name, "");
  }

  CaptionDataset load(const std::string& path_or_name) const {
    return load_captions(path_or_name, root_.path());
  }

  /// What is said of these images in a JSON whose pictures are there.
  std::string complaint(const json& images) const {
    const fs::path file = write_json("broken.json", images);
    return message_of<DataError>([&] { load(file); });
  }

  const json three_ = {image_of("a.jpg", "train"), image_of("b.jpg", "val"), image_of("c.jpg", "test")};
  clip_lora::testing::TemporaryFolder root_;
};

TEST_F(Captions, ReadsKarpathysFormat) {
  write_pictures("images", {"a.jpg", "b.jpg", "c.jpg"});
  const CaptionDataset pets = load(write_json("some.json", three_));
  EXPECT_EQ(pets.name, "pets");
  ASSERT_EQ(pets.train.size(), 1U);
  ASSERT_EQ(pets.val.size(), 1U);
  ASSERT_EQ(pets.test.size(), 1U);
  EXPECT_EQ(pets.test[0].image, (root_ / "images/c.jpg").string());
  EXPECT_THAT(pets.test[0].captions, ElementsAre("c.jpg 0", "c.jpg 1", "c.jpg 2", "c.jpg 3", "c.jpg 4"));
  EXPECT_THAT(pets.warnings, IsEmpty());
}

TEST_F(Captions, KeepsWhatACaptionIsMadeOf) {
  json images = json::array({image_of("c.jpg", "test", 1)});
  images[0]["sentences"][0]["raw"] = "  \"Zwei\" Hünde ,\nrunning . ";
  write_pictures("", {"c.jpg"});
  EXPECT_EQ(load(write_json("some.json", images)).test[0].captions[0], "  \"Zwei\" Hünde ,\nrunning . ");
}

TEST_F(Captions, FindsCocoWithItsTwoFoldersAndTrainsOnWhatIsLeftOfVal) {
  json images = {image_of("1.jpg", "test"), image_of("2.jpg", "train"), image_of("3.jpg", "restval")};
  images[0]["filepath"] = "val2014";
  images[1]["filepath"] = "train2014";
  images[2]["filepath"] = "val2014";
  for (const std::string folder : {"coco/", "COCO/"}) {
    write_pictures(folder + "val2014", {"1.jpg", "3.jpg"});
    write_json(folder + (folder == "COCO/" ? "annotations/dataset_coco.json" : "dataset_coco.json"), images);
    const CaptionDataset coco = load("coco");
    EXPECT_EQ(coco.name, "coco");
    ASSERT_EQ(coco.train.size(), 2U);
    EXPECT_TRUE(fs::equivalent(coco.test[0].image, root_ / folder / "val2014/1.jpg"));
    EXPECT_TRUE(fs::equivalent(coco.train[1].image, root_ / folder / "val2014/3.jpg"));
    fs::remove_all(root_ / "coco");
  }
}

TEST_F(Captions, FindsFlickr30kAndItsPicturesInTheUsualFolders) {
  for (const std::string folder : {"flickr30k-images", "images", "flickr30k_images", ""}) {
    fs::remove_all(root_ / "flickr30k");
    fs::create_directories(root_ / "flickr30k/images");
    write_pictures("flickr30k/" + folder, {"c.jpg"});
    write_json("flickr30k/dataset_flickr30k.json", three_);
    EXPECT_TRUE(fs::exists(load("flickr30k").test[0].image)) << folder;
  }
}

TEST_F(Captions, SaysWhichPlacesWereTried) {
  EXPECT_THAT(
      message_of<MissingData>([&] { load("coco"); }),
      AllOf(HasSubstr("'" + (root_ / "coco").string() + "'"), HasSubstr((root_ / "MSCOCO").string())));
  fs::create_directory(root_ / "flickr30k");
  EXPECT_THAT(message_of<DataError>([&] { load("flickr30k"); }),
              AllOf(HasSubstr("no dataset_flickr30k.json"),
                    HasSubstr((root_ / "flickr30k/karpathy/dataset_flickr30k.json").string())));
  write_json("flickr30k/dataset_flickr30k.json", three_);
  EXPECT_THAT(message_of<MissingData>([&] { load("flickr30k"); }),
              AllOf(HasSubstr("such as 'a.jpg'"), HasSubstr((root_ / "flickr30k/images").string())));
}

TEST_F(Captions, OffersTheNearestName) {
  EXPECT_THAT(message_of<ConfigError>([&] { load("flickr30"); }), HasSubstr("did you mean 'flickr30k'?"));
}

TEST_F(Captions, WarnsOnceOfOtherThanFiveCaptions) {
  write_pictures("", {"a.jpg", "b.jpg", "c.jpg"});
  const json images = {image_of("a.jpg", "train", 7), image_of("b.jpg", "test", 1),
                       image_of("c.jpg", "test")};
  const CaptionDataset pets = load(write_json("some.json", images));
  EXPECT_THAT(pets.warnings, ElementsAre("2 of 3 images have other than five captions: 1 to 7"));
  EXPECT_EQ(pets.train[0].captions.size(), 7U);
}

TEST_F(Captions, CountsMissingPicturesAndGoesOnWithoutThem) {
  write_pictures("images", {"b.jpg"});
  json images;
  for (const std::string name : {"a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"}) {
    images.push_back(image_of(name, "test"));
  }
  CaptionDataset pets = load(write_json("some.json", images));
  EXPECT_THAT(message_of<DataError>([&] { require_images(pets.test, "test split"); }),
              AllOf(HasSubstr("test split: 4 of 5 images are missing"), HasSubstr("images/d.jpg"),
                    HasSubstr("and 1 more"), HasSubstr("--allow_missing")));
  EXPECT_EQ(leave_out_missing(pets.test, "test split"), 4U);
  ASSERT_EQ(pets.test.size(), 1U);
  EXPECT_EQ(pets.test[0].image, (root_ / "images/b.jpg").string());
  EXPECT_EQ(pets.test[0].captions[0], "b.jpg 0");
  EXPECT_EQ(leave_out_missing(pets.test, "test split"), 0U);
  fs::remove(root_ / "images/b.jpg");
  EXPECT_THAT(message_of<MissingData>([&] { leave_out_missing(pets.test, "test split"); }),
              HasSubstr("all of its images are missing"));
}

TEST_F(Captions, RefusesBrokenEntries) {
  write_pictures("", {"a.jpg", "b.jpg", "c.jpg"});
  const auto broken = [&](const auto& change) {
    json images = three_;
    change(images);
    return complaint(images);
  };
  EXPECT_THAT(broken([](json& i) { i[1]["split"] = "dev"; }),
              AllOf(HasSubstr("broken.json"), HasSubstr("images[1] 'b.jpg' has the split 'dev'"),
                    HasSubstr("expected train, restval, val or test")));
  EXPECT_THAT(broken([](json& i) { i[2]["filename"] = "a.jpg"; }),
              HasSubstr("images[2] 'a.jpg' is images[0], too"));
  EXPECT_THAT(broken([](json& i) { i[0]["sentences"] = json::array(); }), HasSubstr("has no captions"));
  EXPECT_THAT(broken([](json& i) { i[0].erase("sentences"); }), HasSubstr("no list 'sentences'"));
  EXPECT_THAT(broken([](json& i) { i[0]["sentences"][3]["raw"] = " \t"; }),
              HasSubstr("images[0] 'a.jpg' sentences[3] is an empty caption"));
  EXPECT_THAT(broken([](json& i) { i[0]["sentences"][3].erase("raw"); }), HasSubstr("has no 'raw'"));
  EXPECT_THAT(broken([](json& i) { i[0]["sentences"][3] = "text"; }), HasSubstr("sentences[3] is no object"));
  EXPECT_THAT(broken([](json& i) { i[1].erase("filename"); }), HasSubstr("images[1] has no 'filename'"));
  EXPECT_THAT(broken([](json& i) { i[1]["filename"] = ""; }), HasSubstr("images[1] has an empty filename"));
  EXPECT_THAT(broken([](json& i) { i[1]["filename"] = 7; }), HasSubstr("has the filename 7"));
  EXPECT_THAT(broken([](json& i) { i[1] = 7; }), HasSubstr("images[1] is 7, expected an object"));
  EXPECT_THAT(broken([](json& i) { i[1] = {json::array({1})}; }), HasSubstr("images[1] is [[1]]"));
  EXPECT_THAT(broken([](json& i) { i[2]["split"] = "train"; }),
              HasSubstr("none of its images has the split"));
  EXPECT_THAT(broken([](json& i) { i = json::array(); }), HasSubstr("'images' is empty"));
}

TEST_F(Captions, TakesFilesOfOneNameInTwoFoldersForTwo) {
  json images = {image_of("a.jpg", "test"), image_of("a.jpg", "test")};
  images[0]["filepath"] = "train2014";
  images[1]["filepath"] = "val2014";
  write_pictures("train2014", {"a.jpg"});
  EXPECT_EQ(load(write_json("some.json", images)).test.size(), 2U);
}

TEST_F(Captions, RefusesOtherFiles) {
  write_pictures("", {"a.jpg", "b.jpg", "c.jpg"});
  const std::string whole = json({{"images", {image_of("c.jpg", "test", 1)}}}).dump();
  const auto said_of = [&](const std::string& text) {
    const fs::path file = write_text("broken.json", text);
    return message_of<DataError>([&] { load(file); });
  };
  // At every length: what is cut off anywhere must not pass for a shorter list.
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THAT(said_of(whole.substr(0, length)), HasSubstr("it is not JSON, or not all of it is there"));
  }
  EXPECT_THAT(said_of("[1, 2]"), HasSubstr("it is a JSON array, expected an object"));
  EXPECT_THAT(said_of("7"), HasSubstr("it is a JSON number"));
  EXPECT_THAT(said_of(R"({"train": [["a.jpg", 0, "x"]]})"), HasSubstr("no list 'images'"));
  EXPECT_THAT(said_of(R"({"images": {"a": {}}})"), HasSubstr("no list 'images'"));
  EXPECT_THAT(said_of(R"({"images": 7})"), HasSubstr("no list 'images'"));
  EXPECT_THAT(said_of("{\"images\": [{\"filename\": \"\xff\"}]}"), HasSubstr("not JSON"));
  EXPECT_THAT(said_of("{\"images\": [" + std::string(1000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(message_of<DataError>([&] { load(root_ / "absent.json"); }),
              HasSubstr("missing or cannot be read"));
}

TEST_F(Captions, IsCalledLikeItsFileWhereItsOwnNameWouldBeNoFolders) {
  write_pictures("", {"c.jpg"});
  for (const std::string name : {"", "../up", "a b"})
    EXPECT_EQ(load(write_json("my.json", three_, name)).name, "my");
}

TEST_F(Captions, ReadsATableWithARowPerCaption) {
  const fs::path file = write_text("my/pairs.csv",
                                   "caption,Image,split\n"
                                   "\"A dog, running\",a.jpg,train\n"
                                   "Two cats .,sub/b.jpg,TEST\n"
                                   "Another \"\"dog,a.jpg,train\n"
                                   "One,c.jpg,validation\n"
                                   "Hidden,d.jpg,restval\n");
  EXPECT_THAT(message_of<DataError>([&] { load(file); }), HasSubstr("line 4")) << "quotes outside of a field";
  const fs::path good = write_text("my/pairs.csv",
                                   "caption,Image,split\n"
                                   "\"A dog, running\",a.jpg,train\n"
                                   "Two cats .,sub/b.jpg,TEST\n"
                                   "\"Another \"\"dog\"\"\",a.jpg,train\n"
                                   "One,c.jpg,validation\n"
                                   "Hidden,d.jpg,restval\n");
  const CaptionDataset pairs = load(good);
  EXPECT_EQ(pairs.name, "pairs");
  ASSERT_EQ(pairs.train.size(), 2U);
  EXPECT_EQ(pairs.train[0].image, (root_ / "my/a.jpg").string());
  EXPECT_THAT(pairs.train[0].captions, ElementsAre("A dog, running", "Another \"dog\""));
  EXPECT_EQ(pairs.train[1].image, (root_ / "my/d.jpg").string());
  ASSERT_EQ(pairs.val.size(), 1U);
  ASSERT_EQ(pairs.test.size(), 1U);
  EXPECT_EQ(pairs.test[0].image, (root_ / "my/sub/b.jpg").string());
  EXPECT_THAT(pairs.warnings, ElementsAre("4 of 4 images have other than five captions: 1 to 2"));
}

TEST_F(Captions, SplitsTheImagesOfATableWithoutSplits) {
  std::string table = "image,caption\n";
  for (int image = 0; image < 20; ++image) {
    for (int i = 0; i < 5; ++i) table += std::to_string(image) + ".jpg,caption " + std::to_string(i) + "\n";
  }
  const fs::path file = write_text("pairs.csv", table);
  const CaptionDataset pairs = load(file);
  EXPECT_EQ(pairs.train.size(), 10U);
  EXPECT_EQ(pairs.val.size(), 4U);
  EXPECT_EQ(pairs.test.size(), 6U);
  EXPECT_THAT(pairs.warnings, IsEmpty());
  const CaptionDataset other = load_captions(file, root_.path(), {.test_fraction = 0.5, .val_fraction = 0.0});
  EXPECT_EQ(other.test.size(), 10U);
  EXPECT_THAT(other.val, IsEmpty());
  EXPECT_NE(load_captions(file, root_.path(), {.seed = 2}).test[0].image, pairs.test[0].image);
  EXPECT_EQ(load(file).test[0].image, pairs.test[0].image);
}

TEST_F(Captions, RefusesBrokenTables) {
  const auto said_of = [&](const std::string& text) {
    const fs::path file = write_text("broken.csv", text);
    return message_of<DataError>([&] { load(file); });
  };
  const std::string header = "image,caption,split\n";
  EXPECT_THAT(said_of(""), HasSubstr("no rows below the header"));
  EXPECT_THAT(said_of(header), HasSubstr("no rows below the header"));
  EXPECT_THAT(said_of("a.jpg,A dog\nb.jpg,A cat\n"),
              HasSubstr("no column 'image'; it has: 'a.jpg', 'A dog'"));
  EXPECT_THAT(said_of("image,text\na.jpg,A dog\n"), HasSubstr("no column 'caption'"));
  EXPECT_THAT(said_of("image\tcaption\na.jpg\tA dog\n"), HasSubstr("separated by commas"));
  EXPECT_THAT(said_of("image,caption,image\na,b,c\n"), HasSubstr("'image' twice"));
  EXPECT_THAT(said_of(header + "a.jpg,A dog, running,test\n"),
              HasSubstr("line 2: there are 4 fields, expected 3"));
  EXPECT_THAT(said_of(header + "a.jpg,A dog,tset\n"), HasSubstr("did you mean 'test'?"));
  EXPECT_THAT(said_of(header + "a.jpg, ,test\n"), HasSubstr("line 2: the caption of 'a.jpg' is empty"));
  EXPECT_THAT(said_of(header + ",A dog,test\n"), HasSubstr("line 2: the image is empty"));
  EXPECT_THAT(said_of(header + "a.jpg,A dog,test\na.jpg,A dog,train\n"),
              HasSubstr("line 3: 'a.jpg' has the split 'train', but 'test' in line 2"));
  EXPECT_THAT(said_of(header + "a.jpg,A dog,train\n"), HasSubstr("none of its images has the split 'test'"));
  EXPECT_THAT(said_of(header + "a.jpg,A d\xffg,test\n"), HasSubstr("line 2: it is not valid UTF-8"));
  EXPECT_THAT(said_of(header + "a.jpg,\"A dog,test\n"), HasSubstr("never closed"));
}

TEST_F(Captions, NamesColumnsThatAreNotUsed) {
  const fs::path file = write_text("pairs.csv", "image,caption,split,author\na.jpg,A dog,test,me\n");
  EXPECT_THAT(load(file).warnings, ElementsAre(HasSubstr("not used: 'author'"), HasSubstr("1 of 1 images")));
}

TEST(CaptionPairs, AreOnePerCaptionWithTheImageAsLabel) {
  const std::vector<CaptionedImage> images = {{"a.jpg", {"one", "two"}}, {"b.jpg", {"three"}}};
  const CaptionPairs pairs = caption_pairs(images);
  EXPECT_THAT(pairs.captions, ElementsAre("one", "two", "three"));
  ASSERT_EQ(pairs.items.size(), 3U);
  EXPECT_EQ(pairs.items[1].image, "a.jpg");
  EXPECT_EQ(pairs.items[1].label, 0);
  EXPECT_EQ(pairs.items[2].image, "b.jpg");
  EXPECT_EQ(pairs.items[2].label, 1);
  const auto items = image_items(images);
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items[1].image, "b.jpg");
  EXPECT_EQ(items[1].label, 1);
}

}  // namespace
}  // namespace clip_lora::data
