#pragma once

#include "clip_lora/core/errors.hpp"

namespace clip_lora::data {

/// Nothing of a data set is there, or none of the pictures that are asked for; one that is there by half is a
/// plain DataError.
class MissingData : public DataError {
 public:
  using DataError::DataError;
};

}  // namespace clip_lora::data
