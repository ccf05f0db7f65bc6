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
# Which GPUs the kernels are made for, e.g. 90 or "86-real;90". By default every generation from Ampere on, and PTX of
# the newest for what comes after.
if(DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(every_architecture OFF)
else()
  set(every_architecture ON)
  set(CMAKE_CUDA_ARCHITECTURES 80)  # until the compiler's version is known
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.6)
  message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} is CUDA ${CMAKE_CUDA_COMPILER_VERSION}, expected 12.6 or newer "
                      "(hint: scripts/setup.sh fetches one)")
endif()
if(every_architecture)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90 120)
  endif()
endif()

# For Hopper also kernels that are built with CUTLASS's headers, which CMAKE_PREFIX_PATH or CLIP_LORA_CUTLASS_HINT has.
set(CLIP_LORA_HOPPER OFF)
if(";${CMAKE_CUDA_ARCHITECTURES};" MATCHES ";(90a?(-real|-virtual)?|all|all-major);")
  set(CLIP_LORA_HOPPER ON)
  find_path(CLIP_LORA_CUTLASS_INCLUDE cutlass/gemm/device/gemm_universal_adapter.h
    HINTS "${CLIP_LORA_CUTLASS_HINT}/include")
  if(NOT CLIP_LORA_CUTLASS_INCLUDE)
    message(FATAL_ERROR "The headers of CUTLASS 4.2 were not found: run scripts/setup.sh, point CMAKE_PREFIX_PATH at "
                        "them, or leave 90 out of CMAKE_CUDA_ARCHITECTURES")
  endif()
endif()
