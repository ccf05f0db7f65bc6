#include "clip_lora/core/process.hpp"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <random>
#include <sstream>

namespace clip_lora {
namespace {

std::string hexadecimal(std::uint64_t number) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(number >> shift) & 15];
  return text;
}

/// FNV-1a.
std::uint64_t hash(const std::string& text) {
  std::uint64_t value = 14695981039346656037ULL;
  for (const char character : text)
    value = (value ^ static_cast<unsigned char>(character)) * 1099511628211ULL;
  return value;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string target_of_link(const char* path) {
  char target[PATH_MAX];
  const ssize_t size = ::readlink(path, target, sizeof target);
  return size < 0 ? std::string() : std::string(target, static_cast<std::size_t>(size));
}

const std::string kUnknown = "unknown";
const std::string kEnded = "ended";

/// Clock ticks from the machine's boot to the process's start; kEnded if it only waits for its parent to look
/// at its exit code; nothing if that cannot be read.
std::optional<std::string> start_of(const std::string& process) {
  const std::string status = first_line("/proc/" + process + "/stat");
  const std::size_t name_end = status.rfind(')');  // the program's name may hold anything
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(status.substr(name_end + 1));
  std::string state;
  fields >> state;
  if (state == "Z" || state == "X") return kEnded;
  constexpr int kBetween = 18;  // fields between the state, the 3rd, and the start, the 22nd
  std::string field;
  for (int i = 0; i <= kBetween; ++i) fields >> field;
  return fields ? std::optional(field) : std::nullopt;
}

constexpr const char* kBootFile = "/proc/sys/kernel/random/boot_id";
constexpr const char* kNumbersLink = "/proc/self/ns/pid";

std::string machine() {
  return hexadecimal(hash(host_name() + "\n" + first_line(kBootFile) + "\n" + target_of_link(kNumbersLink)));
}

/// Containers of one machine number their processes apart, which must be seen before a number says anything.
bool can_know_processes() { return !first_line(kBootFile).empty() && !target_of_link(kNumbersLink).empty(); }

}  // namespace

std::string host_name() {
  if (const char* const name = std::getenv("CLIP_LORA_HOSTNAME"); name != nullptr && *name != '\0')
    return name;
  char name[HOST_NAME_MAX + 1] = {};
  ::gethostname(name, HOST_NAME_MAX);
  return name;
}

std::string process_tag() {
  static const std::string here = machine();
  return here + "." + std::to_string(::getpid()) + "." +
         (can_know_processes() ? start_of("self").value_or(kUnknown) : kUnknown);
}

bool is_surely_dead(const std::string& tag) {
  const auto fields = [](const std::string& text) {
    const std::size_t first = text.find('.');
    const std::size_t second = first == std::string::npos ? first : text.find('.', first + 1);
    if (second == std::string::npos) return std::optional<std::array<std::string, 3>>();
    return std::optional(std::array{text.substr(0, first), text.substr(first + 1, second - first - 1),
                                    text.substr(second + 1)});
  };
  const auto other = fields(tag);
  const auto own = fields(process_tag());
  if (!other || (*other)[0] != (*own)[0] || (*own)[2] == kUnknown || (*other)[2] == kUnknown) return false;
  const std::string& process = (*other)[1];
  if (process.empty() || process.find_first_not_of("0123456789") != std::string::npos) return false;
  if (const auto start = start_of(process)) return *start != (*other)[2];
  return ::kill(static_cast<pid_t>(std::atol(process.c_str())), 0) != 0 && errno == ESRCH;
}

std::string random_id() {
  std::random_device device;
  const auto part = [&] { return (std::uint64_t{device()} << 32) | device(); };
  const std::uint64_t high = part();
  return hexadecimal(high) + hexadecimal(part());
}

}  // namespace clip_lora
