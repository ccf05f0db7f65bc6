#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace clip_lora {

/// What a user can mend. A message has what, where, expected, got, and a hint.
/// Bugs of ours are TORCH_CHECK or assert instead.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A flag, a configuration file or a folder to write to: exit code 2.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// A data set, a split file or an image: exit code 3.
class DataError : public Error {
 public:
  using Error::Error;
};

/// A checkpoint or an adapter: exit code 4.
class CheckpointError : public Error {
 public:
  using Error::Error;
};

/// A signal asked the program to stop: exit code 128 + signal_number().
class Interrupted : public std::runtime_error {
 public:
  Interrupted(int signal_number, const std::string& what)
      : std::runtime_error(what), signal_number_(signal_number) {}
  int signal_number() const { return signal_number_; }

 private:
  int signal_number_;
};

/// The candidate that is fewest edits away from `name`, or "" if none is within half of name's length (at least 2).
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

/// " (hint: did you mean 'x'?)" for the nearest candidate, or "" where none is near.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

/// "a, b, c" with at most `limit` names; beyond that "a, b, … and 7 more".
std::string join_capped(const std::vector<std::string>& names, std::size_t limit = 10);

}  // namespace clip_lora
