#include "flag_parts.hpp"

#include <algorithm>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/method.hpp"

namespace clip_lora::cli {
namespace {

using Flags = std::vector<std::string>;

/// A value of a flag, and those flags that it takes and other values may not.
struct Choice {
  std::string name;
  Flags flags;
};

/// Flags of what only a training does.
const Flags kOfTraining = {"train_templates", "image_memory",     "lr",        "min_lr", "warmup",
                           "weight_decay",    "grad_clip",        "ema",       "loss",   "margin",
                           "augment",         "label_smoothing",  "n_iters",   "epochs", "batch_size",
                           "class_weights",   "eval_every",       "select",    "resume", "log_every",
                           "tensorboard",     "checkpoint_every", "eval_scale"};

/// Flags of what only images with classes have.
const Flags kOfClasses = {"class_names",         "template",      "templates",  "train_templates",
                          "zero_shot_templates", "class_weights", "eval_every", "select",
                          "save_predictions"};

const std::vector<Choice>& losses() {
  static const std::vector<Choice> all = {{"ce", {"class_weights"}},
                                          {"mpm_nce", {"margin", "label_smoothing"}}};
  return all;
}

const std::vector<Choice>& methods() {
  static const std::vector<Choice> all = [] {
    std::vector<Choice> choices;
    for (const auto& method : lora::methods()) choices.push_back({method.name, method.flags});
    return choices;
  }();
  return all;
}

bool takes(const Choice& choice, const std::string& flag) {
  return std::ranges::find(choice.flags, flag) != choice.flags.end();
}

/// "--r --alpha".
std::string listed(const Flags& flags) {
  std::string text;
  for (const auto& flag : flags) text += (text.empty() ? "--" : " --") + flag;
  return text;
}

/// Adds the flags that some of the choices take, but not the one called `chosen`.
void add_what_others_take(const std::string& of, const std::string& chosen,
                          const std::vector<Choice>& choices, std::map<std::string, std::string>& found) {
  const auto own = std::ranges::find(choices, chosen, &Choice::name);
  if (own == choices.end()) return;  // validation says so
  std::map<std::string, Flags> takers;
  for (const auto& choice : choices) {
    for (const auto& flag : choice.flags) takers[flag].push_back(choice.name);
  }
  for (const auto& [flag, names] : takers) {
    if (takes(*own, flag)) continue;
    const std::string takes_it = join_capped(names) + (names.size() == 1 ? " takes it" : " take it");
    found[flag] = "has no part in " + of + " " + chosen + " (hint: " + takes_it +
                  (own->flags.empty() ? "" : "; " + chosen + " takes " + listed(own->flags)) + ")";
  }
}

}  // namespace

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const auto& loss : losses()) names.push_back(loss.name);
  return names;
}

std::map<std::string, std::string> flags_without_part(const RunOptions& options) {
  std::map<std::string, std::string> found;
  add_what_others_take("--loss", options.training.loss, losses(), found);
  if (options.data.protocol == kRetrieval) {
    for (const auto& flag : kOfClasses)
      found[flag] = "has no part in --protocol retrieval: captions have no classes";
  }
  if (!options.data.has_other_datasets()) {
    found["skip_missing"] =
        "has no part in --protocol " + options.data.protocol +
        ": it tests on no data sets beside --dataset (hint: cross_dataset and robustness do)";
  }
  const std::string& method = options.adapter.method;
  add_what_others_take("--method", method, methods(), found);
  const auto known = std::ranges::find(lora::methods(), method, &lora::Method::name);
  if (known != lora::methods().end() && !known->is_trained) {
    for (const auto& flag : kOfTraining)
      found[flag] = "has no part in --method " + method + ": nothing is trained";
  }
  return found;
}

}  // namespace clip_lora::cli
