#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace clip_lora::io {

struct LeaseOptions {
  /// How long a holder's file must have been still, by the watcher's clock, before it is taken over.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
  /// Between two signs of life; much less than the timeout.
  std::chrono::milliseconds heartbeat = std::chrono::seconds(5);
};

/// The right to work on something that is shared by processes of any number of machines, as long as it lives.
/// A thread gives a sign of life now and then.
class Lease {
 public:
  ~Lease();  ///< gives it back
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  /// Whether it is still this process's, looked up now. It is lost for good once another has taken it over,
  /// or once no sign of life could be given for the timeout, since another may do so then.
  bool is_held();
  /// The same as of the last sign of life; costs nothing.
  bool was_held() const;

 private:
  friend class LeaseSeeker;
  class Holder;
  explicit Lease(std::unique_ptr<Holder> holder);
  std::unique_ptr<Holder> holder_;
};

/// Wants the lease `<stem>.<generation>.json`, and watches who has it.
///
/// The file of the highest generation is the lease. A generation is begun by link() of a complete file, which
/// exactly one process achieves, also on NFS; who takes over begins the next one and removes those before.
/// Nobody writes to a file but the process that began it, so that a holder who was taken for dead can only
/// find that its file is gone or outnumbered. Who has it shows life by changing its file; that it has been
/// still is measured by the watcher's own clock alone. A process of this machine that is no more need not be
/// waited for; of another machine its host name and number say nothing.
class LeaseSeeker {
 public:
  /// The folder of `stem` must exist.
  LeaseSeeker(const std::filesystem::path& stem, const LeaseOptions& options);

  /// Looks once, and takes the lease if it is free, or if its holder is dead or has been still for the
  /// timeout since this object saw it first so; nullptr otherwise. Throws ConfigError if the folder cannot be
  /// read or written.
  std::unique_ptr<Lease> try_acquire();

  /// "process 123 on host", as far as known.
  const std::string& holder() const { return holder_; }

 private:
  bool is_still(std::uint64_t generation, const std::string& content);
  std::unique_ptr<Lease> begin(std::uint64_t generation);

  std::filesystem::path stem_;
  LeaseOptions options_;
  std::uint64_t generation_ = 0;  // that was seen last
  std::string content_;
  std::chrono::steady_clock::time_point still_since_;
  std::string holder_;
};

/// Removes the lease's files. Only for what nobody will work on again.
void remove_lease(const std::filesystem::path& stem);

/// Removes those of the lease's files whose holders are processes of this machine that are no more.
void remove_lease_of_the_dead(const std::filesystem::path& stem);

}  // namespace clip_lora::io
