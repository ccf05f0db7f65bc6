#include <c10/util/Exception.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <new>
#include <thread>

#include "cli/fault_commands.hpp"
#include "cli/program.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/io/mapped_file.hpp"
#include "error_text.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string quoted(const std::string& word) { return "'" + word + "'"; }

std::string shell_words(const std::vector<std::string>& words) {
  std::string line = quoted(CLIP_LORA_PROGRAM);
  for (const auto& word : words) line += " " + quoted(word);
  return line;
}

/// The command as a user whom permissions stop, which they do not stop an administrator from being otherwise.
Outcome run_with_permissions(const std::vector<std::string>& arguments) {
  if (::geteuid() != 0) return run_program(arguments);
  std::vector<std::string> words = {"--bounding-set=-dac_override,-dac_read_search,-fowner",
                                    CLIP_LORA_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return run_program(words, "/usr/bin/setpriv");
}

void set_writable(const fs::path& folder, bool writable) {
  const auto perms = writable ? fs::perms::owner_all : fs::perms::owner_read | fs::perms::owner_exec;
  fs::permissions(folder, perms);
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory()) fs::permissions(entry.path(), perms);
  }
}

TEST(ReadOnlyFolder, IsToldByEachCommandAndStaysAsItWas) {
  if (::geteuid() == 0 && run_with_permissions({"--version"}).exit_code != 0)
    GTEST_SKIP() << "setpriv cannot take the administrator's rights away";
  const FaultCommands commands;
  for (const auto& command : commands.all()) {
    commands.prepare(command);
    const auto before = snapshot_of(commands.place()).files;
    set_writable(commands.place(), false);
    const Outcome outcome = run_with_permissions(command.words);
    set_writable(commands.place(), true);
    const bool is_optional = command.name == "cache_dir";
    EXPECT_EQ(outcome.exit_code, is_optional ? 0 : 2) << command.name << ": " << outcome.errors;
    EXPECT_THAT(outcome.errors, AllOf(HasSubstr(commands.place().string()), HasSubstr("Permission denied")))
        << command.name;
    EXPECT_EQ(snapshot_of(commands.place()).files, before) << command.name;
    EXPECT_TRUE(snapshot_of(commands.place()).temporary.empty()) << command.name;
  }
}

TEST(FullDisk, OfARealFileSystemIsToldAndLeavesNothingBehind) {
  const SmallTask task;
  const fs::path disk = task / "disk";
  fs::create_directories(disk);
  if (run_program({"-m", "true"}, "/usr/bin/unshare").exit_code != 0)
    GTEST_SKIP() << "mounting is not allowed";
  for (const char* size : {"4k", "16k"}) {
    const std::string line = "mount -t tmpfs -o size=" + std::string(size) + " tmpfs " +
                             quoted(disk.string()) + " || exit 77; " +
                             shell_words(task.arguments({{"--save_path", disk.string()}})) +
                             "; code=$?; find " + quoted(disk.string()) + " -name '*.tmp-*'; exit $code";
    const Outcome outcome = run_program({"-m", "/bin/sh", "-c", line}, "/usr/bin/unshare");
    if (outcome.exit_code == 77) GTEST_SKIP() << "mounting is not allowed";
    EXPECT_EQ(outcome.exit_code, 2) << outcome.errors;
    EXPECT_THAT(outcome.errors, AllOf(HasSubstr(disk.string()), HasSubstr("No space left on device")));
    EXPECT_THAT(outcome.output, Not(HasSubstr(".tmp-")));
  }
}

TEST(FullDisk, OfTheStandardOutputIsTold) {
  const SmallTask task;
  const std::vector<std::string> inspect = {"inspect", task.checkpoint().string(), "--json"};
  for (const auto& words : {inspect, task.arguments({{"--quiet", ""}})}) {
    const Outcome outcome = run_program({"-c", shell_words(words) + " > /dev/full"}, "/bin/sh");
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.errors, HasSubstr("cannot write standard output"));
  }
}

/// Names of pictures for a command whose standard input is a pipe.
class Names {
 public:
  explicit Names(const fs::path& pipe) : file_(::open(pipe.c_str(), O_RDWR | O_CLOEXEC)) {}
  ~Names() { end(); }
  Names(const Names&) = delete;
  Names& operator=(const Names&) = delete;

  /// Returns when the command has read it.
  void tell(const std::string& name) const {
    const std::string line = name + "\n";
    ASSERT_EQ(::write(file_, line.data(), line.size()), static_cast<ssize_t>(line.size()));
    int unread = 1;
    for (int waited_ms = 0; unread > 0 && waited_ms < 60'000; waited_ms += 10) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      ASSERT_EQ(::ioctl(file_, FIONREAD, &unread), 0);
    }
    ASSERT_EQ(unread, 0);
  }
  void end() {
    if (file_ >= 0) ::close(file_);
    file_ = -1;
  }

 private:
  int file_;
};

TEST(VanishedPicture, IsSkippedAndToldByPredictAndEmbed) {
  const SmallTask task;
  ASSERT_EQ(run_program(task.arguments()).exit_code, 0);
  const std::string adapter = (task.result_folder() / "lora_weights.pt").string();
  for (const std::string command : {"predict", "embed"}) {
    const fs::path photos = task / (command + " photos");
    const fs::path pipe = task / (command + " names");
    fs::create_directories(photos / "folder");
    for (const char* name : {"a.png", "b.png", "folder/c.png"})
      image::write_png(photos / name, formula_picture(20, 24));
    const std::string first = (task / "first.png").string();
    image::write_png(first, formula_picture(24, 20));
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    Names names(pipe);
    const std::string out = (task / (command + (command == "embed" ? ".npy" : ".csv"))).string();
    std::vector<std::string> words = {
        command, "-", photos.string(), "--checkpoint", task.checkpoint().string(), "--adapter", adapter,
        "--out", out};
    if (command == "predict") words.insert(words.end(), {"--format", "csv"});
    Program program({"-c", "exec " + shell_words(words) + " < " + quoted(pipe.string())}, "/bin/sh");
    names.tell(first);  // the folder has been listed before
    fs::remove(photos / "b.png");
    fs::remove_all(photos / "folder");
    names.end();
    const Outcome outcome = program.wait();
    EXPECT_EQ(outcome.exit_code, 3) << outcome.errors;
    EXPECT_THAT(
        outcome.errors,
        AllOf(HasSubstr("skipped: image '" + (photos / "b.png").string() + "'"),
              HasSubstr("skipped: image '" + (photos / "folder/c.png").string() + "'"), HasSubstr("2 of 4")));
    const std::string written = read_bytes(command == "embed" ? out + ".json" : out);
    EXPECT_THAT(written, AllOf(HasSubstr(first), HasSubstr("a.png"), Not(HasSubstr("b.png"))));
  }
}

TEST(VanishedPicture, EndsATrainingWithItsNameAndEarlierResultsAsTheyWere) {
  const SmallTask task;
  ASSERT_EQ(run_program(task.arguments()).exit_code, 0);
  const auto before = snapshot_of(task.save_path()).files;
  // Pictures that find no room in memory are decoded at each draw.
  Program program(task.arguments({{"--n_iters", "1000000"}, {"--image_memory", "1e-9"}}));
  ASSERT_TRUE(program.wait_for_output("zero-shot")) << program.wait().errors;
  const fs::path metrics = task.result_folder() / "metrics.jsonl";
  const auto has_begun = [&] {  // to write its own, with the earlier one put aside
    return fs::exists(metrics.string() + ".before") && !read_bytes(metrics).empty();
  };
  for (int waited_ms = 0; !has_begun() && waited_ms < 60'000; waited_ms += 10)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  fs::remove_all(task / "data/shapes/images");
  const Outcome outcome = program.wait();
  EXPECT_EQ(outcome.exit_code, 3) << outcome.errors;
  EXPECT_THAT(outcome.errors, HasSubstr("training images: image '" + (task / "data/shapes/images").string()));
  EXPECT_EQ(snapshot_of(task.save_path()).files, before);
  EXPECT_TRUE(snapshot_of(task.save_path()).temporary.empty());
}

TEST(CutShortDeathTest, AMappedFileIsNamed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const TemporaryFolder folder;
  const fs::path file = folder / "checkpoint";
  const auto read_it_cut_short = [&] {
    write_bytes(file, std::string(1 << 16, 'x'));
    io::name_files_cut_short();
    const io::MappedFile mapped(file);
    fs::resize_file(file, 0);
    volatile char byte = mapped.bytes()[1 << 15];
    static_cast<void>(byte);
  };
  EXPECT_EXIT(read_it_cut_short(), ::testing::ExitedWithCode(4), "checkpoint.*cut short");
}

TEST(TwoProcesses, OfOneFolderOfResultsTheSecondIsRefusedUntilTheFirstIsNoMore) {
  const SmallTask task;
  Program first(task.arguments({{"--n_iters", "1000000"}}));
  ASSERT_TRUE(first.wait_for_output("zero-shot")) << first.wait().errors;
  const Outcome second = run_program(task.arguments());
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_THAT(second.errors, AllOf(HasSubstr(task.result_folder().string()), HasSubstr("another process")));
  EXPECT_EQ(run_program(task.arguments({{"--variant", "other"}})).exit_code, 0);
  first.send(SIGKILL);
  first.wait();
  const Outcome third = run_program(task.arguments());
  EXPECT_EQ(third.exit_code, 0) << third.errors;
}

TEST(TwoProcesses, OfOneOutputBothEndWellOrOneSaysWhy) {
  const FaultCommands commands;
  for (const char* name :
       {"predict --out", "embed f.safetensors", "export hf", "export onnx", "report", "split"}) {
    const FaultCommand& command = commands.named(name);
    commands.prepare(command);
    ASSERT_EQ(run_program(command.words).exit_code, 0);
    const auto alone = snapshot_of(commands.place()).files;
    commands.prepare(command);
    Program one(command.words), other(command.words);
    for (const Outcome& outcome : {one.wait(), other.wait()}) {
      EXPECT_THAT(outcome.exit_code, AnyOf(0, 2)) << name << ": " << outcome.errors;
      if (outcome.exit_code == 2) {
        EXPECT_THAT(outcome.errors, HasSubstr("cannot write '" + commands.place().string())) << name;
      }
    }
    EXPECT_EQ(snapshot_of(commands.place()).files, alone) << name;
    EXPECT_TRUE(snapshot_of(commands.place()).temporary.empty()) << name;
  }
}

TEST(FullMemory, SaysWhatToLower) {
  const c10::OutOfMemoryError gpu(
      {__func__, __FILE__, 1},
      "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.21 "
      "GiB is "
      "free. Including non-PyTorch memory, this process has 77.88 GiB memory in use.");
  EXPECT_THAT(
      cli::error_text(gpu),
      AllOf(HasSubstr(
                "the GPU's memory is full: Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 "
                "GiB of which 1.21 GiB is free. (hint: lower --batch_size"),
            Not(HasSubstr("Including"))));
  const c10::Error cpu({__func__, __FILE__, 1},
                       "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.");
  EXPECT_THAT(cli::error_text(cpu), HasSubstr("lower --batch_size and --workers"));
  EXPECT_THAT(cli::error_text(std::bad_alloc()), HasSubstr("lower --batch_size and --workers"));
  EXPECT_EQ(cli::error_text(std::runtime_error("something else")), "something else");
}

TEST(FailedGpu, IsToldInOneLine) {
  const auto text_of = [](const std::string& message) {
    return cli::error_text(c10::Error({"", "", 1}, message));
  };
  EXPECT_THAT(
      text_of("CUDA error: unspecified launch failure\nSearch for it\nCompile"),
      AllOf(StartsWith("CUDA error: unspecified launch failure (hint: this process cannot use the GPU"),
            Not(HasSubstr("\n"))));
  for (const std::string full :
       {"CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"}) {
    EXPECT_THAT(text_of(full + "\nframe"),
                AllOf(HasSubstr(full + " (hint: lower --batch_size"), Not(HasSubstr("frame"))));
  }
  EXPECT_EQ(text_of("CUDA error: invalid device ordinal\nframe"), "CUDA error: invalid device ordinal");
  EXPECT_EQ(text_of("\nbegins with an empty line\nframe"), "begins with an empty line");
}

TEST(FailedGpuDeathTest, EndsWithTheErrorWhereNobodyCanCatchIt) {
  const std::function<void()> fail = [] { throw std::runtime_error("CUDA error: it has failed"); };
  const auto free_a_tensor = [&]() noexcept { fail(); };
  EXPECT_EXIT(
      {
        std::set_terminate(cli::end_with_error);
        free_a_tensor();
      },
      ::testing::ExitedWithCode(1), "^clip_lora: CUDA error: it has failed\n$");
}

}  // namespace
}  // namespace clip_lora::testing
