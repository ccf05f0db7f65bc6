#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "clip_lora/core/memory.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"

namespace clip_lora {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kGiB = 1 << 30;

/// A root folder with the files that the kernel would show.
class AvailableMemory : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    clip_lora::testing::write_bytes(root_ / path, text);
  }

  void write_meminfo() {  // 8 GiB available
    write("proc/meminfo",
          "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    8388608 kB\n");
  }

  clip_lora::testing::TemporaryFolder root_;
};

TEST_F(AvailableMemory, IsWhatTheKernelCallsAvailable) {
  write_meminfo();
  EXPECT_EQ(available_memory_bytes(root_.path()), 8 * kGiB);
}

TEST_F(AvailableMemory, IsAGibibyteWhereNothingIsKnown) {
  EXPECT_EQ(available_memory_bytes(root_.path()), kGiB);
}

TEST_F(AvailableMemory, IsWhatTheControlGroupLeavesWithoutCachedFiles) {
  write_meminfo();
  write("proc/self/cgroup", "0::/user/run\n");
  write("sys/fs/cgroup/user/run/memory.max", "1073741824\n");
  write("sys/fs/cgroup/user/run/memory.current", "524288000\n");  // 500 MiB, 300 of them cached files
  write("sys/fs/cgroup/user/run/memory.stat",
        "anon 209715200\nactive_file 104857600\ninactive_file 209715200\n");
  EXPECT_EQ(available_memory_bytes(root_.path()), kGiB - 200 * kMiB);
}

TEST_F(AvailableMemory, IsLimitedByTheGroupsAbove) {
  write_meminfo();
  write("proc/self/cgroup", "0::/user/run\n");
  write("sys/fs/cgroup/user/run/memory.max", "max\n");
  write("sys/fs/cgroup/user/run/memory.current", "1048576\n");
  write("sys/fs/cgroup/user/memory.max", "3145728\n");
  write("sys/fs/cgroup/user/memory.current", "1048576\n");
  EXPECT_EQ(available_memory_bytes(root_.path()), 2 * kMiB);
}

TEST_F(AvailableMemory, IsLimitedByAContainerThatSeesItsGroupAsTheMount) {
  write_meminfo();
  write("proc/self/cgroup", "5:cpu:/box/1\n4:memory:/box/1\n0::/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n");
  write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0\ntotal_active_file 1048576\n");
  EXPECT_EQ(available_memory_bytes(root_.path()), kGiB + kMiB);
}

TEST_F(AvailableMemory, IsNothingInAGroupBeyondItsLimit) {
  write_meminfo();
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/memory.max", "1000\n");
  write("sys/fs/cgroup/memory.current", "2000\n");
  EXPECT_EQ(available_memory_bytes(root_.path()), 0U);
}

TEST(AvailableMemoryOfThisMachine, IsMoreThanNothing) { EXPECT_GT(available_memory_bytes(), 0U); }

TEST(PeakResident, CountsWhatWasTouchedSinceTheReset) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the sanitizer keeps several bytes for each";
#endif
  reset_peak_resident();
  const std::uint64_t before = peak_resident_bytes();
  { const std::string touched(256 * kMiB, 'x'); }
  EXPECT_GE(peak_resident_bytes(), before + 200 * kMiB);
  EXPECT_LE(peak_resident_bytes(), before + 400 * kMiB);
}

}  // namespace
}  // namespace clip_lora
