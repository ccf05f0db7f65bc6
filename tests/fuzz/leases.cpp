#include <filesystem>

#include "clip_lora/core/process.hpp"
#include "clip_lora/io/lease.hpp"
#include "support/files.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

/// Makes nobody wait: what is no dead process's lease is left alone.
constexpr io::LeaseOptions kOptions = {.timeout = std::chrono::hours(1), .heartbeat = std::chrono::hours(1)};

const std::filesystem::path& stem() {
  static const std::filesystem::path stem = [] {
    std::filesystem::create_directories(scratch_folder() / "leases");
    return scratch_folder() / "leases" / "run";
  }();
  return stem;
}

void run(std::string_view input) {
  scratch_file("leases/" + stem().filename().string() + ".1.json", input);
  read_whatever_it_is([] {
    io::LeaseSeeker seeker(stem(), kOptions);
    const auto lease = seeker.try_acquire();
    require(!seeker.holder().empty(), "a holder has a name");
    if (lease) require(lease->is_held(), "what was acquired is held");
  });
  io::remove_lease(stem());
}

std::vector<std::string> seeds() {
  io::remove_lease(stem());
  const auto lease = io::LeaseSeeker(stem(), kOptions).try_acquire();
  const std::string live = testing::read_bytes(stem().string() + ".1.json");
  const std::string tag = process_tag();
  std::string dead = tag;  // of a process that is no more, or never was
  dead.replace(dead.find('.') + 1, 0, "9");
  std::string of_the_dead = live;
  of_the_dead.replace(of_the_dead.find(tag), tag.size(), dead);
  return {live, of_the_dead, R"({"process": 3, "host": []})", "{}",
          std::string(100, '[') + std::string(100, ']')};
}

}  // namespace

const Target leases = {"leases", run, seeds};

}  // namespace clip_lora::fuzz
