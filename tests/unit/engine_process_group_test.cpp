#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/engine/process_group.hpp"
#include "support/environment.hpp"
#include "support/throws.hpp"
#include "unit/processes.hpp"

namespace clip_lora::engine {
namespace {

using namespace std::chrono_literals;
using clip_lora::testing::EnvironmentVariable;
using clip_lora::testing::message_of;
using clip_lora::testing::Part;
using clip_lora::testing::Processes;
using clip_lora::testing::run_processes;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

std::string text_of(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes();
  const at::Tensor flat = tensor.flatten().to(at::kDouble);
  for (std::int64_t i = 0; i < flat.numel(); ++i) text << ' ' << flat[i].item<double>();
  return text.str();
}

class ProcessGroups : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ProcessGroups, ::testing::Values(2, 4));

TEST_P(ProcessGroups, GatherInTheOrderOfRanksWhateverTheType) {
  std::string expected = "[" + std::to_string(3 * GetParam()) + ", 2]";
  for (int rank = 0; rank < GetParam(); ++rank)
    for (int i = 0; i < 6; ++i) expected += " " + std::to_string(10 * rank + i);
  const auto results = run_processes(GetParam(), [&](ProcessGroup& group) {
    for (const auto type : {at::kFloat, at::kDouble, at::kLong, at::kByte}) {
      // Not contiguous: every other column, [3, 2].
      const at::Tensor rows = (at::arange(6, at::kLong) + 10 * group.rank()).view({3, 2}).to(type);
      const at::Tensor spread = at::zeros({3, 4}, type).slice(1, 0, 4, 2);
      spread.copy_(rows);
      const at::Tensor all = group.all_gather(spread);
      if (all.scalar_type() != type || text_of(all) != expected) return text_of(all);
    }
    const at::Tensor none = group.all_gather(at::empty({0, 5}));
    return none.size(0) == 0 && none.size(1) == 5 ? std::string("well") : text_of(none);
  });
  EXPECT_THAT(results, Each("well"));
}

TEST_P(ProcessGroups, SumsEqualOneProcesssAndAreTheSameBitsOnEach) {
  const auto results = run_processes(GetParam(), [](ProcessGroup& group) {
    // Enough values for several pieces of a ring, and a number that no piece divides.
    constexpr std::int64_t kCount = 1'000'003;
    const auto part = [&](int rank) { return at::sin(at::arange(kCount, at::kFloat) * (rank + 1)); };
    at::Tensor expected = at::zeros(kCount, at::kDouble);
    for (int rank = 0; rank < group.size(); ++rank) expected += part(rank).to(at::kDouble);
    const at::Tensor sum = part(group.rank());
    group.all_reduce_sum(sum);
    // float32 sums of up to four values of size 1
    if (!at::allclose(sum.to(at::kDouble), expected, 0, 1e-6)) return std::string("another sum");
    const at::Tensor all = group.all_gather(sum.view({1, kCount}));
    for (int rank = 0; rank < group.size(); ++rank)
      if (!at::equal(all[rank], sum)) return std::string("other bits");
    return std::string("well");
  });
  EXPECT_THAT(results, Each("well"));
}

TEST_P(ProcessGroups, BroadcastIsTheFirstOnes) {
  const auto results = run_processes(GetParam(), [](ProcessGroup& group) {
    const at::Tensor tensor = at::full({2, 2}, group.rank() + 7, at::kDouble);
    group.broadcast(tensor);
    return text_of(tensor);
  });
  EXPECT_THAT(results, Each("[2, 2] 7 7 7 7"));
}

TEST_P(ProcessGroups, ABarrierIsPassedWhenTheLastHasCome) {
  const auto now = [] {
    return std::chrono::steady_clock::now().time_since_epoch().count();
  };  // one clock for all
  const auto results = run_processes(GetParam(), [&](ProcessGroup& group) {
    if (!group.is_first()) {
      group.barrier();
      return std::to_string(now());
    }
    std::this_thread::sleep_for(300ms);
    const auto came = now();
    group.barrier();
    return std::to_string(came);
  });
  for (const auto& passed : results) EXPECT_GE(std::stoll(passed), std::stoll(results[0]));
}

TEST(ProcessGroupBarrier, IsNotLeftAtASignal) {
  const auto results = run_processes(2, [](ProcessGroup& group) {
    if (group.is_first()) {
      std::this_thread::sleep_for(300ms);
    } else {
      catch_interrupts();
      ::raise(SIGTERM);
    }
    group.barrier();
    return std::string("passed");
  });
  EXPECT_THAT(results, Each("passed"));
}

TEST(ProcessGroupBarrier, EndsWhenOneIsLostForWhoHasASignalAsAnInterruption) {
  const auto results = run_processes(3, [](ProcessGroup& group) {
    if (group.rank() == 2) {
      group.report_failure("it was told to");
      return std::string("reported");
    }
    if (group.rank() == 1) {
      catch_interrupts();
      ::raise(SIGTERM);
    }
    try {
      group.barrier();
    } catch (const Interrupted& interrupted) {
      return "signal " + std::to_string(interrupted.signal_number()) + ", " + interrupted.what();
    }
    return std::string("passed");
  });
  EXPECT_THAT(results[0],
              AllOf(HasSubstr("Error: process 2 of 3, on "), HasSubstr("is gone: it was told to")));
  EXPECT_THAT(results[1],
              AllOf(HasSubstr("signal " + std::to_string(SIGTERM) + ", interrupted: process 2 of 3"),
                    HasSubstr("is gone: it was told to")));
}

TEST(ProcessGroupBarrier, EndsWhenOneLeavesWithoutComing) {
  const auto results = run_processes(2, [](ProcessGroup& group) {
    if (group.is_first()) group.barrier();
    return std::string("passed");
  });
  EXPECT_THAT(results[0], AllOf(HasSubstr("Error: process 1 of 2, on "), HasSubstr("it has left the run")));
  EXPECT_EQ(results[1], "passed");
}

TEST_P(ProcessGroups, TheSameSettingsAreAccepted) {
  const auto results = run_processes(GetParam(), [](ProcessGroup& group) {
    group.require_same({{"lr", "0.1"}, {"empty", ""}, {"encoder", "both"}});
    group.require_same({});
    return std::string("well");
  });
  EXPECT_THAT(results, Each("well"));
}

TEST_P(ProcessGroups, OtherSettingsAreRefusedOnEachWithTheDifference) {
  const int odd = GetParam() - 1;
  const auto results = run_processes(GetParam(), [&](ProcessGroup& group) {
    std::map<std::string, std::string> settings = {{"batch_size", "32"}, {"lr", "0.1"}, {"seed", "1"}};
    if (group.rank() == odd) {
      settings["batch_size"] = "16";
      settings.erase("seed");
      settings["a much longer setting than the others have"] = "x";
    }
    group.require_same(settings);
    return std::string("accepted");
  });
  EXPECT_THAT(results,
              Each(AllOf(HasSubstr("ConfigError: process " + std::to_string(odd) + " of " +
                                   std::to_string(GetParam())),
                         HasSubstr("batch_size is '16', there '32'"), HasSubstr("seed is nothing, there '1'"),
                         HasSubstr("others have is 'x', there nothing"), Not(HasSubstr("lr")))));
}

/// A step as training has it, until something happens.
std::string train(ProcessGroup& group, int steps = 1'000'000) {
  const at::Tensor gradients = at::ones(10'000);
  for (int step = 0; step < steps; ++step) {
    group.all_gather(at::ones({2, 8}));
    group.all_reduce_sum(gradients.fill_(1.0));
  }
  return "trained";
}

/// Trains in processes of which one ends as `part` has it after some steps. The others must say so within
/// seconds, long before a timeout.
void expect_loss(int size, int lost, const std::string& reason, const Part& part) {
  const auto start = std::chrono::steady_clock::now();
  const auto results = run_processes(size, [&](ProcessGroup& group) {
    if (group.rank() != lost) return train(group);
    train(group, 20);
    return part(group);
  });
  EXPECT_LT(std::chrono::steady_clock::now() - start, 60s);  // seconds, on a machine with other work
  for (int rank = 0; rank < size; ++rank) {
    if (rank == lost) continue;
    EXPECT_THAT(
        results[static_cast<std::size_t>(rank)],
        AllOf(HasSubstr("Error: process " + std::to_string(lost) + " of " + std::to_string(size) + ", on "),
              HasSubstr(" is gone: " + reason), HasSubstr("--resume")))
        << "rank " << rank;
  }
}

std::string kill_oneself(ProcessGroup&) {
  ::kill(::getpid(), SIGKILL);
  return "alive";
}

TEST_P(ProcessGroups, AKilledProcessEndsTheOthersByName) {
  expect_loss(GetParam(), GetParam() - 1, "its process has ended", kill_oneself);
}

TEST_P(ProcessGroups, SoDoesTheFirstThoughAllReachEachOtherThroughIt) {
  expect_loss(GetParam(), 0, "i", kill_oneself);  // its process has ended, or it no longer answers
}

TEST_P(ProcessGroups, WhoLeavesBeforeTheOthersIsNamed) {
  expect_loss(GetParam(), 1, "it has left the run",
              [](ProcessGroup&) -> std::string { throw DataError("torn"); });
}

TEST_P(ProcessGroups, AReportedReasonIsTheOthersReason) {
  expect_loss(GetParam(), 1, "image 'a.jpg' is torn", [](ProcessGroup& group) -> std::string {
    group.report_failure("image 'a.jpg' is torn");
    throw DataError("image 'a.jpg' is torn");
  });
}

TEST(ProcessGroupTimeout, OneThatDoesNotComeIsNamed) {
  const auto results = run_processes(3,
                                     [](ProcessGroup& group) {
                                       if (group.rank() != 2) return train(group);
                                       train(group, 5);
                                       const auto until = std::chrono::steady_clock::now() + 60s;
                                       while (std::chrono::steady_clock::now() < until) {
                                         group.check();
                                         std::this_thread::sleep_for(10ms);
                                       }
                                       return std::string("nothing");
                                     },
                                     {.timeout = 5s, .start_timeout = 10min});
  EXPECT_THAT(results, Each(AllOf(HasSubstr("Error: process 2 of 3, on "), HasSubstr("it lives, but"))));
}

TEST_P(ProcessGroups, ALossIsKnownWithoutACollective) {
  const auto results = run_processes(GetParam(), [&](ProcessGroup& group) {
    group.barrier();
    if (group.rank() == 1) return kill_oneself(group);
    const auto until = std::chrono::steady_clock::now() + 60s;
    while (std::chrono::steady_clock::now() < until) {
      group.check();
      std::this_thread::sleep_for(10ms);
    }
    return std::string("nothing");
  });
  for (std::size_t rank = 0; rank < results.size(); ++rank) {
    if (rank == 1) continue;
    EXPECT_THAT(results[rank], HasSubstr("Error: process 1 of "));
  }
}

TEST_P(ProcessGroups, WhoHasFinishedBeforeTheOthersIsNotLost) {
  const auto results = run_processes(GetParam(), [](ProcessGroup& group) {
    train(group, 3);
    if (!group.is_first()) std::this_thread::sleep_for(1500ms);  // and is looked at meanwhile
    group.check();
    return std::string("well");
  });
  EXPECT_THAT(results, Each("well"));
}

TEST(ProcessGroupStart, WhoDoesNotComeIsNamedByAll) {
  Processes processes(4);
  for (const int rank : {0, 2})
    processes.start(rank, [](ProcessGroup&) { return "complete"; }, {.timeout = 5min, .start_timeout = 3s});
  EXPECT_THAT(processes.wait(), Each(HasSubstr("Error: processes 1, 3 of 4 did not come within 3 s")));
}

TEST(ProcessGroupStart, ARankIsTakenOnce) {
  Processes processes(2);
  const Part part = [&](ProcessGroup& group) {
    // The store ends with the first, and is to tell both others.
    for (int i = 0; i < 3000 && group.is_first() && processes.results() < 2; ++i)
      std::this_thread::sleep_for(20ms);
    return "complete";
  };
  processes.start(0, part, {.timeout = 5min, .start_timeout = 1min});
  for (int i = 0; i < 2; ++i) processes.start(1, part, {.timeout = 5min, .start_timeout = 1min});
  auto results = processes.wait();
  EXPECT_EQ(results[0], "complete");
  if (results[1] != "complete") std::swap(results[1], results[2]);
  EXPECT_EQ(results[1], "complete");
  EXPECT_THAT(results[2], HasSubstr("ConfigError: RANK 1 is another process's already"));
}

TEST(ProcessGroupStart, ATakenPortIsAConfigError) {
  const int file = ::socket(AF_INET6, SOCK_STREAM, 0);
  if (file < 0) GTEST_SKIP() << "a machine without IPv6, which the store listens on";
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_any;
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(file, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(file, 1), 0);
  ASSERT_EQ(::getsockname(file, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const EnvironmentVariable variables[] = {{"WORLD_SIZE", "2"},
                                           {"RANK", "0"},
                                           {"MASTER_ADDR", "127.0.0.1"},
                                           {"MASTER_PORT", std::to_string(ntohs(address.sin6_port))}};
  EXPECT_THAT(message_of<ConfigError>([] { ProcessGroup(*read_process_environment(), at::kCPU); }),
              AllOf(HasSubstr("process 0 of 2 cannot listen"), HasSubstr("MASTER_PORT")));
  ::close(file);
}

/// The environment that a launcher sets, with one variable otherwise.
std::optional<ProcessEnvironment> environment_with(const char* name,
                                                   const std::optional<std::string>& value) {
  const EnvironmentVariable variables[] = {{"WORLD_SIZE", "4"},  {"RANK", "2"},
                                           {"LOCAL_RANK", "1"},  {"LOCAL_WORLD_SIZE", "2"},
                                           {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1234"}};
  const EnvironmentVariable other(name, value);
  return read_process_environment();
}

TEST(ProcessEnvironment, IsRead) {
  const auto environment = environment_with("LOCAL_RANK", "1");
  ASSERT_TRUE(environment);
  EXPECT_EQ(environment->size, 4);
  EXPECT_EQ(environment->rank, 2);
  EXPECT_EQ(environment->local_rank, 1);
  EXPECT_EQ(environment->local_size, 2);
  EXPECT_EQ(environment->master_address, "a");
  EXPECT_EQ(environment->master_port, 1234);
  EXPECT_EQ(environment_with("LOCAL_RANK", std::nullopt)->local_rank, 2);
  EXPECT_EQ(environment_with("LOCAL_WORLD_SIZE", std::nullopt)->local_size, 4);
}

TEST(ProcessEnvironment, OneProcessHasNoGroup) {
  for (const std::optional<std::string>& size : {std::optional<std::string>(), {""}, {"1"}}) {
    EXPECT_FALSE(environment_with("WORLD_SIZE", size));
    const EnvironmentVariable variable("WORLD_SIZE", size);
    EXPECT_FALSE(read_process_environment());
  }
}

TEST(ProcessEnvironment, NonsenseIsAConfigErrorThatSaysWhere) {
  struct Case {
    const char* name;
    std::optional<std::string> value;
    const char* complaint;
  };
  for (const Case& nonsense :
       {Case{"WORLD_SIZE", "0", "WORLD_SIZE is '0'"}, Case{"WORLD_SIZE", "four", "WORLD_SIZE is 'four'"},
        Case{"WORLD_SIZE", "4x", "WORLD_SIZE is '4x'"}, Case{"RANK", "4", "expected a number from 0 to 3"},
        Case{"RANK", "-1", "RANK is '-1'"}, Case{"RANK", std::nullopt, "but RANK is not"},
        Case{"LOCAL_RANK", "x", "LOCAL_RANK is 'x'"},
        Case{"LOCAL_WORLD_SIZE", "5", "expected a number from 1 to 4"},
        Case{"MASTER_ADDR", std::nullopt, "but MASTER_ADDR is not"},
        Case{"MASTER_ADDR", "", "but MASTER_ADDR is not"},
        Case{"MASTER_PORT", std::nullopt, "but MASTER_PORT"},
        Case{"MASTER_PORT", "99999", "MASTER_PORT is '99999'"},
        Case{"MASTER_PORT", "0", "MASTER_PORT is '0'"}}) {
    EXPECT_THAT(message_of<ConfigError>([&] { environment_with(nonsense.name, nonsense.value); }),
                HasSubstr(nonsense.complaint));
  }
}

}  // namespace
}  // namespace clip_lora::engine
