#pragma once

#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace clip_lora::testing {

using Json = nlohmann::json;
/// Names of requests, and what answers each.
using Requests = std::map<std::string, std::function<Json(const Json& request)>>;

/// Lets a test in Python call the library: reads a JSON object a line, `{"request": name, …}`, and answers
/// each with a line, the answer of `requests` or `{"error": message}`. Returns at the end of the input.
inline int serve(const Requests& requests) {
  for (std::string line; std::getline(std::cin, line);) {
    Json answer;
    try {
      const Json request = Json::parse(line);
      answer = requests.at(request.at("request").get<std::string>())(request);
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }
  return 0;
}

}  // namespace clip_lora::testing
