#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <random>
#include <stdexcept>

namespace clip_lora::testing {

/// A port of this machine that is free, below those that the system gives to connections.
inline int free_port() {
  std::random_device device;
  for (int tries = 0; tries < 100; ++tries) {
    const int port = 20000 + static_cast<int>(device() % 10000);
    const int file = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    const bool is_free = ::bind(file, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    ::close(file);
    if (is_free) return port;
  }
  throw std::runtime_error("no free port");
}

}  // namespace clip_lora::testing
