#include <gmock/gmock.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <regex>
#include <string>

#include "clip_lora/core/process.hpp"

namespace clip_lora {
namespace {

/// The tag of a process that lives until `ended` is called.
class Other {
 public:
  Other() {
    int ends[2];
    if (::pipe(ends) != 0) ::abort();
    process_ = ::fork();
    if (process_ == 0) {
      const std::string tag = process_tag();
      if (::write(ends[1], tag.data(), tag.size()) < 0) ::_exit(1);
      ::close(ends[1]);
      ::pause();
      ::_exit(0);
    }
    ::close(ends[1]);
    char text[256];
    for (ssize_t size; (size = ::read(ends[0], text, sizeof text)) > 0;)
      tag_.append(text, static_cast<std::size_t>(size));
    ::close(ends[0]);
  }
  ~Other() {
    kill();
    ::waitpid(process_, nullptr, 0);
  }

  void kill() { ::kill(process_, SIGKILL); }
  /// Waits until it is dead, without looking at its exit code.
  void wait_until_dead() const {
    siginfo_t information;
    ::waitid(P_PID, static_cast<id_t>(process_), &information, WEXITED | WNOWAIT);
  }
  const std::string& tag() const { return tag_; }

 private:
  pid_t process_ = 0;
  std::string tag_;
};

TEST(ProcessTag, TellsProcessesApartAndStaysTheSame) {
  const Other other;
  EXPECT_EQ(process_tag(), process_tag());
  EXPECT_NE(process_tag(), other.tag());
  EXPECT_TRUE(std::regex_match(process_tag(), std::regex("[0-9a-f]{16}\\.[0-9]+\\.[0-9]+"))) << process_tag();
}

TEST(IsSurelyDead, OfAProcessOfThisMachineOnceItHasEnded) {
  Other other;
  EXPECT_FALSE(is_surely_dead(process_tag()));
  EXPECT_FALSE(is_surely_dead(other.tag()));
  other.kill();
  other.wait_until_dead();
  EXPECT_TRUE(is_surely_dead(other.tag())) << "although its parent has not looked yet";
}

TEST(IsSurelyDead, OfALaterProcessWithTheSameNumber) {
  const std::string tag = process_tag();
  EXPECT_TRUE(is_surely_dead(tag.substr(0, tag.rfind('.')) + ".1"));
}

TEST(IsSurelyDead, NothingIsKnownOfOtherMachinesAndOtherWords) {
  const std::string tag = process_tag();
  EXPECT_FALSE(is_surely_dead("0123456789abcdef.1.1"));
  for (const std::string word : {"", "1", "a.b.c", ".."}) EXPECT_FALSE(is_surely_dead(word)) << word;
  EXPECT_FALSE(is_surely_dead(tag.substr(0, tag.find('.')) + ".." + "1"));
}

TEST(HostName, CanBeGivenByTheEnvironment) {
  const std::string own = host_name();
  EXPECT_NE(own, "");
  ::setenv("CLIP_LORA_HOSTNAME", "another", 1);
  EXPECT_EQ(host_name(), "another");
  ::unsetenv("CLIP_LORA_HOSTNAME");
  EXPECT_EQ(host_name(), own);
}

TEST(RandomId, IsNewEachTime) {
  EXPECT_TRUE(std::regex_match(random_id(), std::regex("[0-9a-f]{32}")));
  EXPECT_NE(random_id(), random_id());
}

}  // namespace
}  // namespace clip_lora
