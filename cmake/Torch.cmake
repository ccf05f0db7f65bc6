# LibTorch as the imported target clip_lora::torch.
#
# Its libraries are linked directly, because its own package config stops without a CUDA toolkit, wants the FindCUDA
# module that CMake has deprecated, and warns about static libraries that no wheel has. So the CUDA build of LibTorch
# also serves a machine without CUDA (CLIP_LORA_CUDA=OFF: only libtorch_cpu and libc10).
#
# Looked for in CMAKE_PREFIX_PATH (LibTorch's folder, or torch.utils.cmake_prefix_path), then CLIP_LORA_TORCH_HINT.
find_path(CLIP_LORA_TORCH_INCLUDE torch/headeronly/version.h HINTS "${CLIP_LORA_TORCH_HINT}"
  PATH_SUFFIXES include ../../include)
if(NOT CLIP_LORA_TORCH_INCLUDE)
  message(FATAL_ERROR "The headers of LibTorch 2.11 were not found: run scripts/setup.sh, or point CMAKE_PREFIX_PATH "
                      "at a LibTorch")
endif()
file(STRINGS "${CLIP_LORA_TORCH_INCLUDE}/torch/headeronly/version.h" CLIP_LORA_TORCH_VERSION
  REGEX "^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" CLIP_LORA_TORCH_VERSION "${CLIP_LORA_TORCH_VERSION}")
string(REPLACE ";" "." CLIP_LORA_TORCH_VERSION "${CLIP_LORA_TORCH_VERSION}")

# A library of the LibTorch that the headers are of.
function(clip_lora_find_torch_library variable name)
  find_library(${variable} ${name} HINTS "${CLIP_LORA_TORCH_INCLUDE}/../lib" PATH_SUFFIXES ../../lib)
  if(NOT ${variable})
    message(FATAL_ERROR "LibTorch's lib${name}.so was not found: run scripts/setup.sh, point CMAKE_PREFIX_PATH at a "
                        "LibTorch, or configure with -DCLIP_LORA_CUDA=OFF if yours is without CUDA")
  endif()
endfunction()

clip_lora_find_torch_library(CLIP_LORA_TORCH_CPU torch_cpu)
clip_lora_find_torch_library(CLIP_LORA_C10 c10)
add_library(clip_lora::torch INTERFACE IMPORTED GLOBAL)
target_include_directories(clip_lora::torch SYSTEM INTERFACE
  "${CLIP_LORA_TORCH_INCLUDE}" "${CLIP_LORA_TORCH_INCLUDE}/torch/csrc/api/include")
target_link_libraries(clip_lora::torch INTERFACE "${CLIP_LORA_TORCH_CPU}" "${CLIP_LORA_C10}")
# at::parallel_for is a template: without OpenMP where it is used it runs on one thread. LibTorch brings the library.
target_compile_options(clip_lora::torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_options(clip_lora::torch INTERFACE -fopenmp)

if(CLIP_LORA_CUDA)
  # Not by FindCUDAToolkit: CMake 3.25's stops at toolkits without nvToolsExt, which CUDA 13 is.
  find_path(CLIP_LORA_CUDA_INCLUDE cuda_runtime_api.h
    HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} "${CLIP_LORA_CUDA_HINT}/include" REQUIRED)
  find_library(CLIP_LORA_CUDART cudart HINTS "${CLIP_LORA_CUDA_INCLUDE}/.." PATH_SUFFIXES lib64 lib REQUIRED)
  find_library(CLIP_LORA_CUBLASLT cublasLt HINTS "${CLIP_LORA_CUDA_INCLUDE}/.." PATH_SUFFIXES lib64 lib REQUIRED)
  clip_lora_find_torch_library(CLIP_LORA_TORCH_CUDA torch_cuda)
  clip_lora_find_torch_library(CLIP_LORA_C10_CUDA c10_cuda)
  # Nothing refers to libtorch_cuda by name: loading it registers the CUDA kernels.
  target_link_libraries(clip_lora::torch INTERFACE
    "-Wl,--push-state,--no-as-needed,${CLIP_LORA_TORCH_CUDA},--pop-state" "${CLIP_LORA_C10_CUDA}" "${CLIP_LORA_CUBLASLT}"
    "${CLIP_LORA_CUDART}")
  target_include_directories(clip_lora::torch SYSTEM INTERFACE "${CLIP_LORA_CUDA_INCLUDE}")
  target_compile_definitions(clip_lora::torch INTERFACE CLIP_LORA_WITH_CUDA)
endif()

get_filename_component(CLIP_LORA_TORCH_LIBRARY_DIR "${CLIP_LORA_TORCH_CPU}" DIRECTORY)
message(STATUS "LibTorch ${CLIP_LORA_TORCH_VERSION} in ${CLIP_LORA_TORCH_LIBRARY_DIR}, CUDA ${CLIP_LORA_CUDA}")
