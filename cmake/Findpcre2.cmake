# PCRE2, 8-bit, as pcre2::pcre2 (Debian's package has no package config).
find_path(pcre2_INCLUDE pcre2.h)
find_library(pcre2_LIBRARY pcre2-8)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(pcre2 REQUIRED_VARS pcre2_LIBRARY pcre2_INCLUDE
  REASON_FAILURE_MESSAGE "install libpcre2-dev, or point CMAKE_PREFIX_PATH at PCRE2")
if(pcre2_FOUND AND NOT TARGET pcre2::pcre2)
  add_library(pcre2::pcre2 INTERFACE IMPORTED)
  target_include_directories(pcre2::pcre2 SYSTEM INTERFACE "${pcre2_INCLUDE}")
  target_link_libraries(pcre2::pcre2 INTERFACE "${pcre2_LIBRARY}")
endif()
