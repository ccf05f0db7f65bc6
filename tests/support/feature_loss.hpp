#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/close.hpp"

namespace clip_lora::testing {

// What holds for every loss of image and text features.

/// x / ‖x‖, row by row.
inline at::Tensor unit(const at::Tensor& x) { return x / x.norm(2, -1, true); }

/// compute(options): loss and both gradients in float64.
template <typename Options, typename Compute>
void expect_loss_scale_on_the_gradients_only(const Compute& compute) {
  const auto plain = compute(Options());
  for (const auto& scale : {at::full({}, 512.0F), at::full({1}, 512.0F)}) {
    Options options;
    options.loss_scale = scale;
    const auto scaled = compute(options);
    EXPECT_EQ(scaled.loss.dim(), 0);
    EXPECT_TRUE(identical(scaled.loss, plain.loss));
    EXPECT_TRUE(close(scaled.d_image_features, plain.d_image_features * 512.0, 1e-12));
    EXPECT_TRUE(close(scaled.d_text_features, plain.d_text_features * 512.0, 1e-12));
  }
}

/// compute(of_images, of_texts): loss of features in float16, and the gradients that are asked for.
template <typename Compute>
void expect_the_gradients_that_are_asked_for(const Compute& compute) {
  for (const bool of_images : {false, true}) {
    for (const bool of_texts : {false, true}) {
      const auto result = compute(of_images, of_texts);
      EXPECT_EQ(result.loss.scalar_type(), at::kFloat);
      EXPECT_EQ(result.d_image_features.defined(), of_images);
      EXPECT_EQ(result.d_text_features.defined(), of_texts);
      for (const auto& gradient : {result.d_image_features, result.d_text_features}) {
        if (gradient.defined()) {
          EXPECT_EQ(gradient.scalar_type(), at::kHalf);
        }
      }
    }
  }
}

}  // namespace clip_lora::testing
