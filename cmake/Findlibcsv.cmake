# libcsv as libcsv::libcsv (Debian's package has no package config).
find_path(libcsv_INCLUDE csv.h)
find_library(libcsv_LIBRARY csv)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(libcsv REQUIRED_VARS libcsv_LIBRARY libcsv_INCLUDE
  REASON_FAILURE_MESSAGE "install libcsv-dev, or point CMAKE_PREFIX_PATH at libcsv")
if(libcsv_FOUND AND NOT TARGET libcsv::libcsv)
  add_library(libcsv::libcsv INTERFACE IMPORTED)
  target_include_directories(libcsv::libcsv SYSTEM INTERFACE "${libcsv_INCLUDE}")
  target_link_libraries(libcsv::libcsv INTERFACE "${libcsv_LIBRARY}")
endif()
