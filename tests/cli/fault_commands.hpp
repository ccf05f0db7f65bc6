#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cli/small_task.hpp"

namespace clip_lora::testing {

/// A command that writes below one folder, its place, and can be disturbed at that.
struct FaultCommand {
  std::string name;
  std::vector<std::string> words;  ///< the program's arguments
  std::vector<std::string> words_again =
      {};  ///< of the run that goes on after a disturbance, where they are others
  /// Fills the empty place with what was there before.
  std::function<void(const std::filesystem::path&)> prepare = {};
  std::set<std::string> may_go = {};  ///< files of before that may be gone, before their successors are there
  bool moves = false;                 ///< each file of before is in exactly one place at any time
  std::set<int> full_disk_exit_codes = {2};  ///< that are documented
  bool keeps_temporaries = false;            ///< a killed one's are not removed by the next, as documented
};

/// Every command that writes, on a small trained model.
class FaultCommands {
 public:
  FaultCommands();  ///< trains; fails the test if it cannot

  std::filesystem::path place() const { return task_ / "place"; }
  const std::vector<FaultCommand>& all() const { return commands_; }
  const FaultCommand& named(const std::string& name) const;
  /// Empties the place and fills it anew.
  void prepare(const FaultCommand& command) const;

  const SmallTask& task() const { return task_; }
  std::filesystem::path adapter() const { return task_.result_folder() / "lora_weights.pt"; }

 private:
  void add(FaultCommand command);
  void add_runs();
  void add_pictures();
  void add_exports();
  void add_tables();
  /// The words of a run that saves below the place.
  std::vector<std::string> run_words(std::map<std::string, std::string> changes) const;

  SmallTask task_;
  std::vector<FaultCommand> commands_;
};

/// What lies below a folder: the contents by relative path, less times and speeds, apart from what is temporary by
/// its name.
struct Snapshot {
  std::map<std::string, std::string> files;
  std::vector<std::string> temporary;
};
Snapshot snapshot_of(const std::filesystem::path& folder);

}  // namespace clip_lora::testing
