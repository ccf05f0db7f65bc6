#pragma once

#include <string>

namespace clip_lora {

/// The name of this machine: $CLIP_LORA_HOSTNAME, or the system's.
std::string host_name();

/// A word that no other process has that shares a file system with this one:
/// `<machine>.<process number>.<start>`, where the machine is a hash of its name, of this boot of it, and of
/// the space that process numbers are from.
std::string process_tag();

/// Whether the process of a tag, of this machine in this boot and seen by this process's numbers, is no more.
/// False for any other tag: nothing is known of another machine's processes.
bool is_surely_dead(const std::string& tag);

/// 32 hexadecimal digits out of the system's randomness.
std::string random_id();

}  // namespace clip_lora
