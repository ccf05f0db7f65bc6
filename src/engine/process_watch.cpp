#include "process_watch.hpp"

#include <sstream>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/process.hpp"

namespace clip_lora::engine {
namespace {

using namespace std::chrono_literals;

constexpr auto kSignInterval = 500ms;
constexpr auto kWatchInterval = 50ms;  // of who waits for others
constexpr auto kSilence = 60s;         // after which a process is held for lost
constexpr auto kSilenceAfterFailure = 5s;
constexpr auto kExplanationTime = 8s;

// The store's keys. A process's life is "<sign> <collectives>", or kLeft.
constexpr const char* kLossKey = "loss";
constexpr const char* kNoLoss = "-";
constexpr const char* kLeft = "left";
std::string life_key(int rank) { return "life/" + std::to_string(rank); }
std::string process_key(int rank) { return "process/" + std::to_string(rank); }

std::string seconds(std::chrono::milliseconds time) {
  std::ostringstream text;
  text << std::chrono::duration<double>(time).count() << " s";
  return text.str();
}

}  // namespace

ProcessWatch::ProcessWatch(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                           std::chrono::milliseconds start_timeout)
    : store_(std::move(store)), rank_(rank), size_(size), processes_(static_cast<std::size_t>(size)) {
  try {
    take_rank();
    wait_for_all(start_timeout);
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw Error("process " + std::to_string(rank_) + " of " + std::to_string(size_) +
                ": process 0 ended before all processes had come");
  }
}

ProcessWatch::~ProcessWatch() { leave(); }

void ProcessWatch::take_rank() {
  store_->compareSet(kLossKey, "", kNoLoss);
  const std::string own = process_tag() + " " + host_name();
  const std::string holder = store_->compareSet(process_key(rank_), "", own);
  if (holder != own) {
    throw ConfigError("RANK " + std::to_string(rank_) + " is another process's already, on " +
                      holder.substr(holder.find(' ') + 1) +
                      " (hint: each process of a run needs its own RANK)");
  }
  give_sign();
}

std::vector<std::string> ProcessWatch::missing() const {
  std::vector<std::string> ranks;
  for (int i = 0; i < size_; ++i) {
    if (!store_->check({process_key(i), life_key(i)})) ranks.push_back(std::to_string(i));
  }
  return ranks;
}

void ProcessWatch::wait_for_all(std::chrono::milliseconds start_timeout) {
  const auto until = Clock::now() + start_timeout;
  for (auto absent = missing(); !absent.empty(); absent = missing()) {
    if (Clock::now() > until) {
      publish((absent.size() == 1 ? "process " : "processes ") + join_capped(absent) + " of " +
              std::to_string(size_) + " did not come within " + seconds(start_timeout));
    }
    if (const auto message = store_->get_to_str(kLossKey); message != kNoLoss) give_up(message);
    std::this_thread::sleep_for(kWatchInterval);
  }
  for (int i = 0; i < size_; ++i) {
    const std::string entry = store_->get_to_str(process_key(i));
    auto& process = processes_[static_cast<std::size_t>(i)];
    process.tag = entry.substr(0, entry.find(' '));
    process.host = entry.substr(entry.find(' ') + 1);
    process.seen = Clock::now();
  }
}

void ProcessWatch::give_up(const std::string& message) {
  store_->set(life_key(rank_), std::string(kLeft));
  const auto all_know = [this] {
    for (int i = 0; i < size_; ++i) {
      if (store_->check({life_key(i)}) && store_->get_to_str(life_key(i)) != kLeft) return false;
    }
    return true;
  };
  // The store ends with process 0.
  const auto until = Clock::now() + kExplanationTime;
  while (rank_ == 0 && Clock::now() < until && !all_know()) std::this_thread::sleep_for(kWatchInterval);
  throw Error(message);
}

void ProcessWatch::start(std::function<void()> on_loss) {
  on_loss_ = std::move(on_loss);
  thread_ = std::thread([this] { run(); });
}

void ProcessWatch::run() {
  std::unique_lock lock(mutex_);
  while (!has_left_) {
    look();
    if (const auto lost = find_lost(kSilence, /*leaving_counts=*/false); lost && !loss_) publish(*lost);
    if (loss_ && on_loss_) {
      const auto on_loss = std::exchange(on_loss_, nullptr);
      lock.unlock();
      on_loss();
      lock.lock();
    }
    wake_.wait_for(lock, kSignInterval, [this] { return has_left_; });
  }
}

std::optional<std::string> ProcessWatch::loss() const {
  if (!is_lost_) return std::nullopt;
  const std::lock_guard lock(mutex_);
  return loss_;
}

std::optional<std::string> ProcessWatch::loss_before(const std::vector<std::string>& keys) {
  const std::lock_guard lock(mutex_);
  for (int i = 0; i < size_ && !loss_; ++i) {
    const auto rank = static_cast<std::size_t>(i);
    if (processes_[rank].has_left && !store_->check({keys[rank]})) publish(Lost{i, "it has left the run"});
  }
  return loss_;
}

std::string ProcessWatch::explain(const std::string& error) {
  const auto until = Clock::now() + kExplanationTime;
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (!loss_) look();
      const bool is_last_look = Clock::now() > until;
      auto lost = find_lost(kSilenceAfterFailure, /*leaving_counts=*/true);
      if (!lost && is_last_look) lost = find_late();
      if (lost && !loss_) publish(*lost);
      if (loss_) return *loss_;
      if (is_last_look) return "a collective of " + std::to_string(size_) + " processes failed: " + error;
    }
    std::this_thread::sleep_for(kWatchInterval);
  }
}

void ProcessWatch::report(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!loss_) publish(Lost{rank_, reason});
}

void ProcessWatch::leave() {
  {
    const std::lock_guard lock(mutex_);
    if (has_left_) return;
    has_left_ = true;
    try {
      if (!store_is_lost_) store_->set(life_key(rank_), std::string(kLeft));
    } catch (const std::exception&) {
      store_is_lost_ = true;  // then nobody is left to be told
    }
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ProcessWatch::wait_for_others(std::chrono::milliseconds limit) {
  const auto until = Clock::now() + limit;
  const auto all_have_ended = [this] {
    for (int i = 0; i < size_; ++i) {
      const auto& process = processes_[static_cast<std::size_t>(i)];
      if (i != rank_ && !process.has_left && !is_surely_dead(process.tag)) return false;
    }
    return true;
  };
  const std::lock_guard lock(mutex_);
  while (!store_is_lost_ && Clock::now() < until) {
    try {
      read_lives();
    } catch (const std::exception&) {
      return;
    }
    if (all_have_ended()) return;
    std::this_thread::sleep_for(kWatchInterval);
  }
}

void ProcessWatch::give_sign() {
  store_->set(life_key(rank_), std::to_string(++signs_) + " " + std::to_string(collectives_));
}

void ProcessWatch::look() {
  if (store_is_lost_) return;
  try {
    if (!has_left_) give_sign();
    read_lives();
  } catch (const std::exception&) {
    store_is_lost_ = true;
  }
}

void ProcessWatch::read_lives() {
  std::vector<std::string> keys;
  for (int i = 0; i < size_; ++i) keys.push_back(life_key(i));
  keys.emplace_back(kLossKey);
  // In one request: who left because of a loss had published it before.
  const auto values = store_->multiGet(keys);
  const auto text = [&](std::size_t i) { return std::string(values[i].begin(), values[i].end()); };
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    auto& process = processes_[i];
    const std::string life = text(i);
    if (life == process.life) continue;
    process.life = life;
    process.seen = Clock::now();
    process.has_left = life == kLeft;
    if (!process.has_left) process.collectives = std::stoll(life.substr(life.find(' ') + 1));
  }
  if (const std::string message = text(processes_.size()); message != kNoLoss && !loss_) {
    loss_ = message;
    is_lost_ = true;
  }
}

std::optional<ProcessWatch::Lost> ProcessWatch::find_lost(std::chrono::milliseconds silence,
                                                          bool leaving_counts) const {
  const auto now = Clock::now();
  for (int i = 0; i < size_; ++i) {
    const auto& process = processes_[static_cast<std::size_t>(i)];
    if (i == rank_) continue;
    if (process.has_left) {
      if (leaving_counts) return Lost{i, "it has left the run"};
      continue;
    }
    if (is_surely_dead(process.tag)) return Lost{i, "its process has ended"};
    if (!store_is_lost_ && now - process.seen > silence)
      return Lost{i, "it has given no sign of life for " + seconds(silence)};
  }
  if (store_is_lost_ && rank_ != 0 && !processes_[0].has_left) return Lost{0, "it no longer answers"};
  return std::nullopt;
}

std::optional<ProcessWatch::Lost> ProcessWatch::find_late() const {
  std::optional<Lost> latest;
  std::int64_t fewest = collectives_;
  for (int i = 0; i < size_; ++i) {
    const auto& process = processes_[static_cast<std::size_t>(i)];
    if (i == rank_ || process.collectives >= fewest) continue;
    fewest = process.collectives;
    latest = Lost{i, "it lives, but did not come to collective " + std::to_string(collectives_) +
                         " in time; it is at " + std::to_string(fewest)};
  }
  return latest;
}

void ProcessWatch::publish(const Lost& lost) {
  publish("process " + std::to_string(lost.rank) + " of " + std::to_string(size_) + ", on " +
          processes_[static_cast<std::size_t>(lost.rank)].host + ", is gone: " + lost.reason);
}

void ProcessWatch::publish(const std::string& message) {
  loss_ = message;
  try {
    // The first to publish is believed by all: later losses are this one's consequences.
    if (!store_is_lost_) loss_ = store_->compareSet(kLossKey, kNoLoss, message);
  } catch (const std::exception&) {
    store_is_lost_ = true;
  }
  is_lost_ = true;
}

}  // namespace clip_lora::engine
