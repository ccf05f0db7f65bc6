#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <string>

namespace clip_lora::testing {

/// The message of the `Exception` that `action` throws; a failure and "" if it throws nothing or anything
/// else.
template <typename Exception, typename Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Exception& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception was thrown: " << error.what();
    return {};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace clip_lora::testing
