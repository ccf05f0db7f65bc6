#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "support/temporary_folder.hpp"

namespace clip_lora::testing {

/// What a run of the program left behind.
struct Outcome {
  int exit_code = 0;   ///< or -n if signal n killed it
  std::string output;  ///< standard output
  std::string errors;  ///< standard error stream

  /// The first line of the output that begins with `word`, or "".
  std::string line(const std::string& word) const;
};

/// The built program, or a script, running. It sees no CUDA device, so that machines with and without one
/// behave alike.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments,
                   const std::string& executable = CLIP_LORA_PROGRAM);
  ~Program();  ///< kills it if it still runs
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void send(int signal_number) const;
  /// Waits until its standard output holds `text`; false if it ends before or takes longer than a minute.
  bool wait_for_output(const std::string& text);
  /// Waits for its end.
  Outcome wait();

 private:
  TemporaryFolder folder_;  // its two streams as files
  pid_t process_ = 0;
  int status_ = 0;
  bool ended_ = false;
};

/// Of its output "adapted    12.50 %", without the gain that only a training run prints.
std::string adapted(const Outcome& outcome);

Outcome run_program(const std::vector<std::string>& arguments,
                    const std::string& executable = CLIP_LORA_PROGRAM);

}  // namespace clip_lora::testing
