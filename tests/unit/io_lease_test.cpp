#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/process.hpp"
#include "clip_lora/io/lease.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using io::LeaseOptions;
using io::LeaseSeeker;

constexpr LeaseOptions kPatient = {.timeout = 1h, .heartbeat = 20ms};
constexpr LeaseOptions kHasty = {.timeout = 200ms, .heartbeat = 20ms};

class Leases : public ::testing::Test {
 protected:
  fs::path stem() const { return folder_ / "lease"; }
  fs::path file(int generation) const { return folder_ / ("lease." + std::to_string(generation) + ".json"); }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path())) names.push_back(entry.path().filename());
    return names;
  }

  /// What a process of another machine would leave.
  void write_anothers(int generation, const std::string& heartbeat) const {
    write_bytes(file(generation),
                R"({"id": "theirs", "process": "0123456789abcdef.1.1", "host": "far", "heartbeat": ")" +
                    heartbeat + "\"}\n");
  }

  TemporaryFolder folder_;
};

TEST_F(Leases, OnlyOneHasItAndThenTheNext) {
  LeaseSeeker first(stem(), kPatient), second(stem(), kPatient);
  {
    const auto lease = first.try_acquire();
    ASSERT_TRUE(lease);
    EXPECT_TRUE(lease->is_held());
    EXPECT_FALSE(second.try_acquire());
    EXPECT_THAT(second.holder(), ::testing::HasSubstr(host_name()));
    EXPECT_THAT(files(), ::testing::ElementsAre("lease.1.json"));
  }
  EXPECT_THAT(files(), ::testing::ElementsAre()) << "given back";
  EXPECT_TRUE(second.try_acquire());
}

TEST_F(Leases, OfManyAtOnceExactlyOneGetsIt) {
  for (int round = 0; round < 20; ++round) {
    constexpr int kSeekers = 16;
    std::atomic<int> winners = 0, ready = 0;
    std::vector<std::unique_ptr<io::Lease>> leases(kSeekers);
    std::vector<std::thread> threads;
    if (round % 2 == 1) write_anothers(3, "1");  // taken over as well as begun
    for (int i = 0; i < kSeekers; ++i) {
      threads.emplace_back([&, i] {
        LeaseSeeker seeker(stem(), {.timeout = 1ms, .heartbeat = 1h});
        if (round % 2 == 1) {
          seeker.try_acquire();
          std::this_thread::sleep_for(5ms);
        }
        ++ready;
        while (ready < kSeekers) std::this_thread::yield();
        leases[static_cast<std::size_t>(i)] = seeker.try_acquire();
      });
    }
    for (auto& thread : threads) thread.join();
    for (auto& lease : leases) winners += lease && lease->is_held() ? 1 : 0;
    EXPECT_EQ(winners, 1) << "round " << round;
    leases.clear();
    io::remove_lease(stem());
  }
}

TEST_F(Leases, AHolderThatShowsLifeKeepsItHoweverShortTheTimeout) {
  LeaseSeeker first(stem(), kHasty), second(stem(), kHasty);
  const auto lease = first.try_acquire();
  const auto until = std::chrono::steady_clock::now() + 5 * kHasty.timeout;
  while (std::chrono::steady_clock::now() < until) {
    ASSERT_FALSE(second.try_acquire());
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_TRUE(lease->is_held());
}

TEST_F(Leases, AnotherMachinesIsTakenOverOnlyAfterItHasBeenStillForTheTimeout) {
  write_anothers(7, "1");
  LeaseSeeker seeker(stem(), kHasty);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(seeker.try_acquire());
  EXPECT_EQ(seeker.holder(), "a process on far");
  std::this_thread::sleep_for(kHasty.timeout / 2);
  write_anothers(7, "2");  // it lives, whatever its clock says
  std::unique_ptr<io::Lease> lease;
  while (!(lease = seeker.try_acquire())) std::this_thread::sleep_for(5ms);
  EXPECT_GE(std::chrono::steady_clock::now() - start, kHasty.timeout + kHasty.timeout / 2);
  EXPECT_THAT(files(), ::testing::ElementsAre("lease.8.json")) << "the generation before is gone";
}

TEST_F(Leases, WhoHasLostItNoticesAndLeavesTheNewHoldersFileAlone) {
  LeaseSeeker seeker(stem(), kPatient);
  auto lease = seeker.try_acquire();
  ASSERT_TRUE(lease->was_held());
  write_anothers(2, "1");
  EXPECT_FALSE(lease->is_held());
  EXPECT_FALSE(lease->was_held());
  fs::remove(file(2));
  EXPECT_FALSE(lease->is_held()) << "what is lost stays lost";
  write_anothers(1, "1");  // another begins where none is left
  const std::string theirs = read_bytes(file(1));
  lease.reset();
  EXPECT_EQ(read_bytes(file(1)), theirs);
}

TEST_F(Leases, TheThreadNoticesToo) {
  LeaseSeeker seeker(stem(), kHasty);
  const auto lease = seeker.try_acquire();
  fs::remove(file(1));
  const auto until = std::chrono::steady_clock::now() + 10s;
  while (lease->was_held() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(5ms);
  EXPECT_FALSE(lease->was_held());
}

TEST_F(Leases, AKilledProcessOfThisMachineNeedNotBeWaitedFor) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t process = ::fork();
  if (process == 0) {
    LeaseSeeker seeker(stem(), kPatient);
    const auto lease = seeker.try_acquire();
    if (::write(ends[1], lease ? "y" : "n", 1) != 1) ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  char answer = 0;
  ASSERT_EQ(::read(ends[0], &answer, 1), 1);
  ASSERT_EQ(answer, 'y');
  LeaseSeeker seeker(stem(), kPatient);
  EXPECT_FALSE(seeker.try_acquire());
  ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
  EXPECT_TRUE(seeker.try_acquire());
}

TEST_F(Leases, AFileOfNonsenseIsTakenOverAfterTheTimeout) {
  write_bytes(file(1), "{\"id\": ");
  LeaseSeeker seeker(stem(), kHasty);
  EXPECT_FALSE(seeker.try_acquire());
  std::this_thread::sleep_for(kHasty.timeout + 50ms);
  EXPECT_TRUE(seeker.try_acquire());
}

TEST_F(Leases, AFolderThatIsNotThereIsAConfigError) {
  LeaseSeeker seeker(folder_ / "none" / "lease", kPatient);
  EXPECT_THAT(message_of<ConfigError>([&] { seeker.try_acquire(); }), ::testing::HasSubstr("none"));
}

}  // namespace
}  // namespace clip_lora::testing
