#include "regular_expression.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::lora {
namespace {

// Far above what a match of a module's name takes.
constexpr std::uint32_t kMostSteps = 100'000;
constexpr std::uint32_t kMostKibibytes = 1024;
constexpr std::uint32_t kDeepestNesting = 100;
constexpr std::size_t kLongestPattern = 65'536;

template <typename Pointer, typename Free>
std::shared_ptr<std::remove_pointer_t<Pointer>> owned(Pointer pointer, Free free) {
  if (pointer == nullptr) throw std::bad_alloc();
  return {pointer, free};
}

std::string reason_of(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR bytes_of(const std::string& text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

RegularExpression::RegularExpression(const std::string& pattern, std::string where)
    : where_(std::move(where)) {
  const auto context = owned(pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_parens_nest_limit(context.get(), kDeepestNesting);
  pcre2_set_max_pattern_length(context.get(), kLongestPattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(bytes_of(pattern), pattern.size(), PCRE2_ANCHORED | PCRE2_ENDANCHORED,
                                   &error, &offset, context.get());
  if (code == nullptr) {
    throw CheckpointError(where_ + " is no regular expression: " + reason_of(error) + " at character " +
                          std::to_string(offset));
  }
  code_ = owned(code, pcre2_code_free);
}

bool RegularExpression::matches(const std::string& text) const {
  const auto context = owned(pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMostSteps);
  pcre2_set_heap_limit(context.get(), kMostKibibytes);
  const auto match = owned(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const int result = pcre2_match(code_.get(), bytes_of(text), text.size(), 0, 0, match.get(), context.get());
  if (result < 0 && result != PCRE2_ERROR_NOMATCH) {
    throw CheckpointError(where_ + " cannot be matched with '" + text + "': " + reason_of(result));
  }
  return result >= 0;
}

}  // namespace clip_lora::lora
