#pragma once

#include <string>
#include <string_view>

namespace clip_lora::text {

/// `text` with its HTML character references (`&amp;`, `&#233;`, `&#xE9;`) replaced once, by the rules of the
/// HTML standard, section 13.2.5 and "named character references", as Python's `html.unescape` applies them:
/// numbers need no `;`, some names neither, and an unknown name stays as it is.
std::u32string html_unescape(std::u32string_view text);

}  // namespace clip_lora::text
