include("${CMAKE_CURRENT_LIST_DIR}/RoomOrder.cmake")

# clip_lora_room(<name> SOURCES <file>... [DEPENDS <room or library>...] [PRIVATE_DEPENDS <library>...] [TORCH])
#
# One static library per room of src/: clip_lora_<name>, alias clip_lora::<name>. DEPENDS names what its public
# headers need, PRIVATE_DEPENDS what only its sources use. TORCH rooms share one precompiled LibTorch header.
function(clip_lora_room name)
  cmake_parse_arguments(ROOM "TORCH" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  set(target clip_lora_${name})
  add_library(${target} STATIC ${ROOM_SOURCES})
  add_library(clip_lora::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
  target_link_libraries(${target} PUBLIC ${ROOM_DEPENDS}
    PRIVATE ${ROOM_PRIVATE_DEPENDS} $<BUILD_INTERFACE:clip_lora_warnings>)
  if(ROOM_TORCH)
    target_link_libraries(${target} PUBLIC clip_lora::torch)
    clip_lora_precompile(${target})
  endif()
endfunction()

# Compiles `target` with the shared precompiled LibTorch header.
function(clip_lora_precompile target)
  if(NOT TARGET clip_lora_precompiled)
    file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/precompiled.cpp" CONTENT "")
    add_library(clip_lora_precompiled OBJECT "${PROJECT_BINARY_DIR}/precompiled.cpp")
    target_compile_features(clip_lora_precompiled PUBLIC cxx_std_20)
    target_link_libraries(clip_lora_precompiled PRIVATE clip_lora::torch clip_lora_warnings)
    target_precompile_headers(clip_lora_precompiled PRIVATE <ATen/ATen.h> <torch/nn/cloneable.h>
      <torch/nn/modules/container/modulelist.h> <torch/nn/pimpl.h> <torch/types.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM clip_lora_precompiled)
  # A precompiled header fits only code of its own kind, and it is made for libraries: -fPIC, not an executable's -fPIE.
  target_compile_options(${target} PRIVATE -fPIC)
endfunction()
