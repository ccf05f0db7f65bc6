#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// JSONL as a list.
std::vector<json> parsed(const std::string& text) {
  std::vector<json> rows;
  for (const auto& line : lines_of(text)) rows.push_back(json::parse(line));
  return rows;
}

std::vector<std::string> paths_of(const std::vector<json>& rows) {
  std::vector<std::string> paths;
  for (const auto& row : rows) paths.push_back(row.at("path"));
  return paths;
}

/// The files below a folder with their contents, by relative path.
std::map<std::string, std::string> files_below(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file())
      files[fs::relative(entry.path(), folder).string()] = read_bytes(entry.path());
  }
  return files;
}

std::string quoted(const std::string& word) { return "'" + word + "'"; }

/// A task with a trained adapter, and a few pictures of each of two shades that have nothing to do with it.
class Predict : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    task_ = new SmallTask;
    trained_ = new Outcome(run_program(task_->arguments({{"--lr", "0.05"}, {"--n_iters", "20"}})));
    ASSERT_EQ(trained_->exit_code, 0) << trained_->errors;
  }
  static void TearDownTestSuite() {
    delete trained_;
    delete task_;
  }

  static std::string adapter() { return (task_->result_folder() / "lora_weights.pt").string(); }
  static fs::path images() { return *task_ / "data/shapes/images"; }

  /// A picture of its own size, so that no two are alike.
  std::string make_picture(const std::string& name) {
    const fs::path path = folder_ / name;
    fs::create_directories(path.parent_path());
    image::write_png(path, formula_picture(20, 20 + ++pictures_));
    return path.string();
  }

  /// The words of `clip_lora predict` with the trained adapter.
  static std::vector<std::string> words(std::vector<std::string> inputs,
                                        const std::vector<std::string>& flags) {
    std::vector<std::string> words = {"predict"};
    words.insert(words.end(), inputs.begin(), inputs.end());
    words.insert(words.end(), {"--checkpoint", task_->checkpoint().string(), "--adapter", adapter()});
    words.insert(words.end(), flags.begin(), flags.end());
    return words;
  }
  static Outcome run(const std::vector<std::string>& inputs, const std::vector<std::string>& flags = {}) {
    return run_program(words(inputs, flags));
  }
  /// The same with the output of a shell command as standard input.
  static Outcome run_after(const std::string& command, const std::vector<std::string>& flags) {
    std::string line = command + " | " + CLIP_LORA_PROGRAM;
    for (const auto& word : words({"-"}, flags)) line += " " + quoted(word);
    return run_program({"-c", line}, "/bin/sh");
  }

  static SmallTask* task_;
  static Outcome* trained_;
  TemporaryFolder folder_;
  int pictures_ = 0;
};
SmallTask* Predict::task_ = nullptr;
Outcome* Predict::trained_ = nullptr;

TEST_F(Predict, ProbabilitiesOfAllClassesSumToOneAndTheLikeliestIsFirst) {
  const Outcome outcome = run({images().string()}, {"--format", "jsonl", "--top_k", "1000"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  const auto rows = parsed(outcome.output);
  EXPECT_THAT(rows, SizeIs(files_below(images()).size()));
  const json results = json::parse(read_bytes(task_->result_folder() / "results.json"));
  const std::set<std::string> classes(results["class_names"].begin(), results["class_names"].end());
  for (const auto& row : rows) {
    double sum = 0.0;
    double before = 1.0;
    std::set<std::string> named;
    for (const auto& entry : row.at("predictions")) {
      EXPECT_LE(entry.at("probability"), before);
      before = entry.at("probability");
      sum += before;
      named.insert(entry.at("class"));
    }
    EXPECT_NEAR(sum, 1.0, 1e-5) << "a softmax in float32";
    EXPECT_EQ(named, classes);
  }
  EXPECT_THAT(outcome.errors, HasSubstr("predicted")) << "notes are kept away from the data";
}

TEST_F(Predict, AccuracyOnTheTestSplitIsThatOfTheRun) {
  const json split = json::parse(read_bytes(task_->split_file()));
  std::vector<std::string> pictures;
  std::vector<std::string> right;
  for (const auto& item : split.at("test")) {
    pictures.push_back((images() / item[0].get<std::string>()).string());
    right.push_back(item[2]);
  }
  const Outcome outcome = run(pictures, {"--format", "jsonl", "--top_k", "1", "--quiet"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.errors, "");
  const auto rows = parsed(outcome.output);
  ASSERT_EQ(paths_of(rows), pictures);
  int correct = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) correct += rows[i]["predictions"][0]["class"] == right[i];
  const json results = json::parse(read_bytes(task_->result_folder() / "results.json"));
  EXPECT_DOUBLE_EQ(100.0 * correct / static_cast<double>(rows.size()), results["accuracy"]);
}

TEST_F(Predict, CsvAndTableSayWhatJsonlSays) {
  const std::string picture = make_picture("a, \"b\".png");
  const auto flags = [](const char* format) {
    return std::vector<std::string>{"--format", format, "--top_k", "2", "--quiet"};
  };
  const json row = json::parse(run({picture}, flags("jsonl")).output);
  const json& best = row["predictions"][0];
  const json& second = row["predictions"][1];
  const std::string escaped = "\"" + (folder_ / "a, \"\"b\"\".png").string() + "\"";
  const auto csv = lines_of(run({picture}, flags("csv")).output);
  ASSERT_THAT(csv, SizeIs(2));
  EXPECT_EQ(csv[0], "path,class,probability,class_2,probability_2");
  EXPECT_EQ(csv[1], escaped + "," + best["class"].get<std::string>() + "," + best["probability"].dump() +
                        "," + second["class"].get<std::string>() + "," + second["probability"].dump());
  const std::string table = run({picture}, flags("table")).output;
  char percent[32];
  std::snprintf(percent, sizeof percent, "%.2f %%", 100.0 * best["probability"].get<double>());
  EXPECT_TRUE(table.starts_with(best["class"].get<std::string>())) << table;
  EXPECT_THAT(table, HasSubstr(percent));
  EXPECT_THAT(table, HasSubstr(picture));
  EXPECT_THAT(table, HasSubstr(second["class"].get<std::string>()));
}

TEST_F(Predict, ListsOnStandardInputMayHaveAnyName) {
  const std::string plain = make_picture("two words.png");
  const std::string unicode = make_picture("\xC3\xA9t\xC3\xA9 \xE5\xA4\x8F.png");
  const std::string newline = make_picture("line\nbreak.png");
  const std::string latin = make_picture("\xE9.png");
  const Outcome lines = run_after(
      "printf '%s\\n' " + quoted(plain) + " " + quoted(unicode) + " " + quoted(plain), {"--format", "jsonl"});
  ASSERT_EQ(lines.exit_code, 0) << lines.errors;
  EXPECT_THAT(paths_of(parsed(lines.output)), ElementsAre(plain, unicode, plain)) << "a row for every line";
  const Outcome nulls =
      run_after("printf '%s\\0' " + quoted(newline) + " " + quoted(latin), {"--format", "jsonl", "--null"});
  ASSERT_EQ(nulls.exit_code, 0) << nulls.errors;
  EXPECT_THAT(paths_of(parsed(nulls.output)), ElementsAre(newline, (folder_ / "\xEF\xBF\xBD.png").string()));
}

TEST_F(Predict, ASlowListIsAnsweredAsItComes) {
  const fs::path fifo = folder_ / "names";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  std::string line = std::string("exec ") + CLIP_LORA_PROGRAM;
  for (const auto& word : words({"-"}, {"--format", "csv"})) line += " " + quoted(word);
  Program program({"-c", line + " < " + quoted(fifo.string())}, "/bin/sh");
  std::ofstream names(fifo);
  const std::string first = make_picture("first.png");
  const std::string second = make_picture("second.png");
  names << first << std::endl;
  EXPECT_TRUE(program.wait_for_output(first + ","));
  names << second << std::endl;
  EXPECT_TRUE(program.wait_for_output(second + ","));
  names.close();
  EXPECT_EQ(program.wait().exit_code, 0);
}

TEST_F(Predict, PicturesThatCannotBeReadAreSkippedAndTold) {
  const std::string good = make_picture("pictures/a.png");
  const std::string bad = (folder_ / "pictures/b.png").string();
  write_bytes(bad, read_bytes(good).substr(0, 60));
  const std::string last = make_picture("pictures/c.png");
  const fs::path out = folder_ / "out.jsonl";
  const Outcome outcome = run({(folder_ / "pictures").string()},
                              {"--format", "jsonl", "--out", out.string(), "--batch_size", "1"});
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, HasSubstr(bad));
  EXPECT_THAT(outcome.errors, HasSubstr("truncated"));
  EXPECT_THAT(outcome.errors, HasSubstr("1 of 3"));
  EXPECT_THAT(paths_of(parsed(read_bytes(out))), ElementsAre(good, last));
}

TEST_F(Predict, AnOutputThatIsThereIsReplacedOnlyByForce) {
  const std::string picture = make_picture("a.png");
  const std::string other = make_picture("b.png");
  const std::string before = read_bytes(picture);
  const Outcome refused = run({other}, {"--out", picture});  // as of `--out *.png`
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.errors, HasSubstr("--force"));
  EXPECT_EQ(read_bytes(picture), before);
  EXPECT_EQ(run({other}, {"--out", picture, "--force", "--format", "csv"}).exit_code, 0);
  EXPECT_THAT(read_bytes(picture), HasSubstr(other));
}

TEST_F(Predict, WordsThatNameNothingAreADataError) {
  const Outcome outcome = run({(folder_ / "*.jpg").string()});
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, HasSubstr("*.jpg"));
  EXPECT_EQ(run_program({"predict", "--adapter", adapter()}).exit_code, 2);
}

TEST_F(Predict, SortingCopiesEachPictureIntoItsClassAndASecondRunIsHarmless) {
  const std::string sorted = (folder_ / "sorted").string();
  const auto before = files_below(images());
  const Outcome outcome = run({images().string()}, {"--sort_into", sorted, "--format", "jsonl"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(files_below(images()), before);
  std::map<std::string, std::multiset<std::string>> expected;  // contents by class
  for (const auto& row : parsed(outcome.output)) {
    expected[row["predictions"][0]["class"]].insert(read_bytes(row["path"].get<std::string>()));
  }
  const auto copies = files_below(sorted);
  std::map<std::string, std::multiset<std::string>> found;
  for (const auto& [path, bytes] : copies) found[fs::path(path).parent_path().string()].insert(bytes);
  EXPECT_EQ(found, expected);

  const Outcome again = run({images().string()}, {"--sort_into", sorted});
  EXPECT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_THAT(again.line("sorted"), HasSubstr("0 copied"));
  EXPECT_THAT(again.line("sorted"), HasSubstr(std::to_string(before.size()) + " already there"));
  EXPECT_EQ(files_below(sorted), copies);
}

TEST_F(Predict, AFolderCanBeSortedInPlaceWithDoubtfulPicturesApart) {
  std::multiset<std::string> contents;
  for (const char* name : {"a.png", "b.png", "deep/a.png", "deep/c.png"}) {
    contents.insert(read_bytes(make_picture(std::string("photos/") + name)));
  }
  const std::string photos = (folder_ / "photos").string();
  const std::vector<std::string> flags = {"--sort_into", photos, "--mode", "move", "--threshold", "1"};
  const Outcome outcome = run({photos}, flags);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("sorted"), HasSubstr("4 moved"));
  std::multiset<std::string> found;
  const auto files = files_below(photos);
  for (const auto& [path, bytes] : files) {
    EXPECT_EQ(fs::path(path).parent_path(), "unsure") << path << ": no probability of these pictures is 1";
    found.insert(bytes);
  }
  EXPECT_EQ(found, contents);

  const Outcome again = run({photos}, flags);
  EXPECT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_EQ(files_below(photos), files);
}

TEST_F(Predict, TheRowsOfMovedPicturesOutliveAnError) {
  for (int i = 0; i < 20; ++i) make_picture("photos/" + std::to_string(i) + ".png");
  const std::string sorted = (folder_ / "sorted").string();
  const std::string out = (folder_ / "out.jsonl").string();
  // At most one block, of 512 or 1,024 bytes: room for a few rows, but not for 20.
  std::string line = "trap '' XFSZ; ulimit -f 1; exec " + std::string(CLIP_LORA_PROGRAM);
  for (const auto& word : words({(folder_ / "photos").string()},
                                {"--sort_into", sorted, "--mode", "move", "--out", out, "--format", "jsonl",
                                 "--batch_size", "1", "--top_k", "1", "--quiet"})) {
    line += " " + quoted(word);
  }
  const Outcome outcome = run_program({"-c", line}, "/bin/sh");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("cannot write '" + out + "': File too large"));
  EXPECT_FALSE(fs::exists(out));
  const auto moved = files_below(sorted);
  EXPECT_FALSE(moved.empty());
  EXPECT_THAT(outcome.errors, HasSubstr(std::to_string(moved.size()) + " pictures were sorted"));
  EXPECT_THAT(outcome.errors, HasSubstr("'" + out + ".partial'"));
  const auto rows = parsed(read_bytes(out + ".partial"));
  ASSERT_THAT(rows, SizeIs(moved.size()));
  for (const auto& row : rows) EXPECT_FALSE(fs::exists(row["path"].get<std::string>()));
}

TEST_F(Predict, TheRowsOfMovedPicturesOutliveAnInterrupt) {
  const fs::path fifo = folder_ / "names";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const std::string first = make_picture("first.png");
  const fs::path sorted = folder_ / "sorted";
  const std::string out = (folder_ / "out.csv").string();
  std::string line = std::string("exec ") + CLIP_LORA_PROGRAM;
  for (const auto& word : words({"-"}, {"--sort_into", sorted.string(), "--mode", "move", "--out", out,
                                        "--format", "csv", "--verbose"})) {
    line += " " + quoted(word);
  }
  Program program({"-c", line + " < " + quoted(fifo.string())}, "/bin/sh");
  std::ofstream names(fifo);
  names << first << std::endl;
  for (int tries = 0; fs::exists(first) && tries < 3000; ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  program.send(SIGINT);
  const Outcome outcome = program.wait();
  EXPECT_EQ(outcome.exit_code, 128 + SIGINT);
  EXPECT_THAT(outcome.errors,
              HasSubstr("1 pictures were sorted, and their rows are in '" + out + ".partial'"));
  EXPECT_FALSE(fs::exists(out));
  EXPECT_THAT(lines_of(read_bytes(out + ".partial")),
              ElementsAre(HasSubstr("path,"), HasSubstr(first + ",")));
}

TEST_F(Predict, MovingOutOfAnEmptiedFolderIsHarmless) {
  make_picture("inbox/a.png");
  const std::string inbox = (folder_ / "inbox").string();
  const std::vector<std::string> flags = {"--sort_into", (folder_ / "sorted").string(), "--mode", "move"};
  ASSERT_EQ(run({inbox}, flags).exit_code, 0);
  const Outcome again = run({inbox}, flags);
  EXPECT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_THAT(again.errors, HasSubstr(inbox));
  EXPECT_THAT(again.line("predicted"), HasSubstr(" 0 pictures"));
}

TEST_F(Predict, AKilledSortingLosesNothingAndTheNextRunFinishesIt) {
  std::set<std::string> contents;
  for (int i = 0; i < 200; ++i) {
    contents.insert(read_bytes(make_picture("photos/" + std::to_string(i) + ".png")));
  }
  const std::string photos = (folder_ / "photos").string();
  const std::string sorted = (folder_ / "sorted").string();
  const auto arguments = words({photos}, {"--sort_into", sorted, "--mode", "move", "--batch_size", "2"});
  {
    Program program(arguments);
    EXPECT_TRUE(program.wait_for_output(".png"));
    program.send(SIGKILL);
    EXPECT_EQ(program.wait().exit_code, -SIGKILL);
  }
  std::multiset<std::string> left;
  for (const auto& [path, bytes] : files_below(folder_.path())) left.insert(bytes);
  EXPECT_THAT(left, ::testing::UnorderedElementsAreArray(contents));
  EXPECT_EQ(run_program(arguments).exit_code, 0);
  std::multiset<std::string> found;
  for (const auto& [path, bytes] : files_below(sorted)) found.insert(bytes);
  EXPECT_THAT(found, ::testing::UnorderedElementsAreArray(contents));
}

TEST_F(Predict, ClassNamesWithoutAnAdapterAreZeroShot) {
  const std::string picture = make_picture("a.png");
  const fs::path names = folder_ / "names.txt";
  write_bytes(names, "circle\nring\ncircle\n");
  const std::vector<std::string> zero_shot = {
      "predict",       picture,        "--checkpoint", task_->checkpoint().string(),
      "--class_names", names.string(), "--format",     "jsonl"};
  const Outcome outcome = run_program(zero_shot);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.errors, HasSubstr("circle")) << "a class that is there twice is warned of";
  const json row = json::parse(outcome.output);
  EXPECT_THAT(row["predictions"], SizeIs(3));

  const Outcome adapted = run({picture}, {"--class_names", names.string()});
  EXPECT_EQ(adapted.exit_code, 2);
  EXPECT_THAT(adapted.errors, HasSubstr("it has 3 names"));
  EXPECT_THAT(adapted.errors, HasSubstr("16 classes"));

  write_bytes(names, "circle\n");
  const Outcome single = run_program(zero_shot);
  EXPECT_EQ(single.exit_code, 2);
  EXPECT_THAT(single.errors, HasSubstr("at least two"));
}

TEST_F(Predict, AMappingRenamesTheClassesOfTheAdapterThatItNames) {
  const std::string picture = make_picture("a.png");
  const fs::path names = folder_ / "names.json";
  const json results = json::parse(read_bytes(task_->result_folder() / "results.json"));
  std::set<std::string> expected(results["class_names"].begin(), results["class_names"].end());
  std::string two_words;
  for (const auto& name : expected) {
    if (name.find(' ') != std::string::npos) two_words = name;
  }
  expected.erase("circle");
  expected.insert("round thing");
  json mapping = {{"circle", "round thing"}};
  if (!two_words.empty()) {
    expected.erase(two_words);
    expected.insert("another thing");
    std::string key = two_words;
    std::ranges::replace(key, ' ', '_');
    mapping[key] = "another thing";
  }
  write_bytes(names, mapping.dump());
  const std::vector<std::string> flags = {"--class_names", names.string(), "--format",
                                          "jsonl",         "--top_k",      "16"};
  const Outcome outcome = run({picture}, flags);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  std::set<std::string> found;
  const json row = json::parse(outcome.output);
  for (const auto& entry : row.at("predictions")) found.insert(entry.at("class"));
  EXPECT_EQ(found, expected);

  write_bytes(names, R"({"circel": "round thing"})");
  const Outcome unknown = run({picture}, flags);
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.errors, HasSubstr("did you mean 'circle'"));

  write_bytes(names, R"({"circle": "round thing"})");
  const fs::path onnx = folder_ / "model.onnx";
  ASSERT_EQ(run_program({"export", "--checkpoint", task_->checkpoint().string(), "--adapter", adapter(),
                         "--to", "onnx", "--out", onnx.string(), "--class_names", names.string()})
                .exit_code,
            0);
  const json exported = json::parse(read_bytes(onnx.string() + ".json"))["class_names"];
  EXPECT_THAT(exported, SizeIs(16));
  EXPECT_EQ(exported[0], "round thing");
}

TEST_F(Predict, TemplatesOnTheCommandLineWinOverTheAdapters) {
  const std::string picture = make_picture("a.png");
  const auto predicted = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> all = {"--format", "jsonl", "--quiet"};
    all.insert(all.end(), flags.begin(), flags.end());
    const Outcome outcome = run({picture}, all);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    return outcome.output;
  };
  const std::string usual = predicted({});
  EXPECT_EQ(predicted({"--template", "a photo of a {}."}), usual);
  EXPECT_NE(predicted({"--template", "a photo of a {}.", "--template", "{} at night"}), usual);
  write_bytes(folder_ / "templates.txt", "a photo of a {}.\n");
  EXPECT_EQ(predicted({"--templates", (folder_ / "templates.txt").string()}), usual);
  EXPECT_EQ(run({picture}, {"--template", "a photo"}).exit_code, 2);
}

TEST_F(Predict, AnAdapterThatDoesNotSayItsClassesNeedsClassNames) {
  const fs::path peft = folder_ / "peft";
  const Outcome exported = run_program({"export", "--checkpoint", task_->checkpoint().string(), "--adapter",
                                        adapter(), "--to", "peft", "--out", peft.string()});
  ASSERT_EQ(exported.exit_code, 0) << exported.errors;
  fs::remove(peft / "clip_lora.json");
  const Outcome outcome = run_program({"predict", make_picture("a.png"), "--checkpoint",
                                       task_->checkpoint().string(), "--adapter", peft.string()});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("--class_names"));
}

TEST_F(Predict, AnAdapterOfAModelOfOnesOwnAsksForTheCheckpoint) {
  const Outcome outcome = run_program({"predict", make_picture("a.png"), "--adapter", adapter()});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("--checkpoint"));
}

}  // namespace
}  // namespace clip_lora::testing
