// The model as it is, as a method: what the others are compared with.
#include "method_list.hpp"

namespace clip_lora::lora {

Method zero_shot_method() {
  Method method = method_of(
      "zero_shot", "the model as it is: nothing is trained", nlohmann::ordered_json::object(),
      {.make = [](const model::BlockWeights&, const AdapterOptions&) { return io::StateDict(); },
       .adapted = [](const model::BlockWeights& frozen, const io::StateDict&, double) { return frozen; }});
  method.flags.clear();
  method.is_trained = false;
  return method;
}

}  // namespace clip_lora::lora
