include(CMakePackageConfigHelpers)

# `cmake --install`: the program, the headers, the rooms' libraries and a package for find_package(clip_lora).
function(clip_lora_install)
  set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/clip_lora")
  set(rooms ${CLIP_LORA_ROOM_ORDER})
  list(TRANSFORM rooms PREPEND clip_lora_)

  # All rooms at once, for users.
  add_library(clip_lora_all INTERFACE)
  add_library(clip_lora::clip_lora ALIAS clip_lora_all)
  set_target_properties(clip_lora_all PROPERTIES EXPORT_NAME clip_lora)
  foreach(room IN LISTS CLIP_LORA_ROOM_ORDER)
    target_link_libraries(clip_lora_all INTERFACE clip_lora::${room})
  endforeach()

  # The installed program finds LibTorch and CUDA where this build found them; CMake leaves out of the link path what the
  # CUDA compiler searches anyway.
  set(library_dirs "${CLIP_LORA_TORCH_LIBRARY_DIR}")
  if(CLIP_LORA_CUDA)
    foreach(library IN ITEMS "${CLIP_LORA_CUBLASLT}" "${CLIP_LORA_CUDART}")
      get_filename_component(library_dir "${library}" DIRECTORY)
      list(APPEND library_dirs "${library_dir}")
    endforeach()
  endif()
  list(REMOVE_DUPLICATES library_dirs)
  set_target_properties(clip_lora PROPERTIES INSTALL_RPATH "${library_dirs}" INSTALL_RPATH_USE_LINK_PATH ON)

  install(TARGETS clip_lora RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
  install(PROGRAMS "${PROJECT_SOURCE_DIR}/scripts/launch_multi_gpu.sh" DESTINATION "${CMAKE_INSTALL_BINDIR}")
  install(TARGETS ${rooms} clip_lora_all EXPORT clip_loraTargets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/clip_lora" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
    FILES_MATCHING PATTERN "*.hpp")
  install(EXPORT clip_loraTargets NAMESPACE clip_lora:: DESTINATION "${package_dir}")

  configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/clip_loraConfig.cmake.in"
    "${PROJECT_BINARY_DIR}/clip_loraConfig.cmake" INSTALL_DESTINATION "${package_dir}")
  write_basic_package_version_file("${PROJECT_BINARY_DIR}/clip_loraConfigVersion.cmake"
    COMPATIBILITY SameMinorVersion)
  install(FILES
    "${PROJECT_BINARY_DIR}/clip_loraConfig.cmake" "${PROJECT_BINARY_DIR}/clip_loraConfigVersion.cmake"
    cmake/Dependencies.cmake cmake/Torch.cmake cmake/FindOnnxParts.cmake cmake/FindOpenCVParts.cmake
    cmake/FindTurboJPEG.cmake cmake/Findlibcsv.cmake cmake/Findpcre2.cmake cmake/Findutf8proc.cmake
    DESTINATION "${package_dir}")
endfunction()
