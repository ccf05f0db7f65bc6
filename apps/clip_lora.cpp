#include "clip_lora/cli/commands.hpp"

int main(int argc, char** argv) { return clip_lora::cli::main({argv + 1, argv + argc}); }
