# The CUDA language. Its compiler: the one that the user names (CUDACXX, CMAKE_CUDA_COMPILER), else
# scripts/setup.sh's choice (CLIP_LORA_CUDA_HINT), else the first nvcc in PATH.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND EXISTS "${CLIP_LORA_CUDA_HINT}/bin/nvcc")
  set(CMAKE_CUDA_COMPILER "${CLIP_LORA_CUDA_HINT}/bin/nvcc")
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "No CUDA compiler: run scripts/setup.sh, name one by CUDACXX, or configure with "
                      "-DCLIP_LORA_CUDA=OFF")
endif()

set(CMAKE_CUDA_STANDARD 17)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90)
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
  message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} is CUDA ${CMAKE_CUDA_COMPILER_VERSION}, expected 13.0 or newer "
                      "(hint: scripts/setup.sh fetches one)")
endif()
