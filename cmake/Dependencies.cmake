# Every library from outside, found once: for this build and, installed, for those who use it.
# Missing ones are named with what installs them.
include("${CMAKE_CURRENT_LIST_DIR}/Torch.cmake")

find_package(Threads REQUIRED)
find_package(OpenCVParts REQUIRED)
find_package(utf8proc REQUIRED)
find_package(OnnxParts REQUIRED)
find_package(TurboJPEG REQUIRED)
find_package(pcre2 REQUIRED)
find_package(libcsv REQUIRED)

# find_package(<name>), or an error that says what to install.
macro(clip_lora_find name debian_package)
  find_package(${name} ${ARGN} QUIET)
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "${name} was not found: run scripts/setup.sh, install ${debian_package}, "
                        "or point CMAKE_PREFIX_PATH at it")
  endif()
endmacro()
clip_lora_find(CLI11 libcli11-dev)
clip_lora_find(nlohmann_json nlohmann-json3-dev 3.9)
clip_lora_find(spdlog libspdlog-dev)
clip_lora_find(ZLIB zlib1g-dev)
clip_lora_find(GIF libgif-dev 5.1)
