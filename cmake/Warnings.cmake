# The warnings that our own targets are compiled with, as one interface target.
add_library(clip_lora_warnings INTERFACE)
set(warnings -Wall -Wextra -Wconversion -Wno-sign-conversion)
if(CMAKE_UNITY_BUILD)
  # What is named like something of another file in the batch shadows nothing, and what is in an anonymous namespace is as
  # good as in a file of its own.
  list(APPEND warnings $<$<CXX_COMPILER_ID:GNU>:-Wshadow=local> $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
else()
  list(APPEND warnings -Wshadow)
endif()
target_compile_options(clip_lora_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:${warnings} $<$<BOOL:${CLIP_LORA_WERROR}>:-Werror>>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${CLIP_LORA_WERROR}>>:-Werror=all-warnings>)
# GCC 12 and 13 see overflows in the standard library's own std::string operations (GCC bugs 105329 and 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
  target_compile_options(clip_lora_warnings INTERFACE -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow)
endif()
if(CLIP_LORA_SANITIZER)
  target_compile_options(clip_lora_warnings INTERFACE -fsanitize=${CLIP_LORA_SANITIZER} -fno-omit-frame-pointer)
  target_link_options(clip_lora_warnings INTERFACE -fsanitize=${CLIP_LORA_SANITIZER})
endif()
