#pragma once

#include <memory>
#include <string>

struct pcre2_real_code_8;

namespace clip_lora::lora {

/// A regular expression in the syntax that Python's `re` and PCRE2 share. Time, memory and nesting are
/// bounded, because patterns come from files.
class RegularExpression {
 public:
  /// `where` begins the message of the CheckpointError for a pattern that is none or that takes too long.
  RegularExpression(const std::string& pattern, std::string where);

  /// Whether it matches all of `text`.
  bool matches(const std::string& text) const;

 private:
  std::string where_;
  std::shared_ptr<pcre2_real_code_8> code_;
};

}  // namespace clip_lora::lora
