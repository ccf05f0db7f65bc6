#pragma once

// LibTorch ships its Gloo process group without Gloo's headers, which the group's own header includes. It
// uses their types behind pointers alone, so these declarations, used only where Gloo's headers are not
// found, suffice to make a group and call it: nothing here is ever constructed or called by this program.

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = default;
};

}  // namespace transport
}  // namespace gloo
