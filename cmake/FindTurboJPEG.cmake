# libjpeg-turbo's own interface as TurboJPEG::TurboJPEG (its package config in Debian needs more packages than it).
# The shared library: the static one would clash with the libjpeg in a static OpenCV.
find_path(TurboJPEG_INCLUDE turbojpeg.h)
find_library(TurboJPEG_LIBRARY NAMES libturbojpeg.so turbojpeg)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TurboJPEG REQUIRED_VARS TurboJPEG_LIBRARY TurboJPEG_INCLUDE
  REASON_FAILURE_MESSAGE "install libturbojpeg0-dev, or point CMAKE_PREFIX_PATH at libjpeg-turbo")
if(TurboJPEG_FOUND AND NOT TARGET TurboJPEG::TurboJPEG)
  add_library(TurboJPEG::TurboJPEG INTERFACE IMPORTED)
  target_include_directories(TurboJPEG::TurboJPEG SYSTEM INTERFACE "${TurboJPEG_INCLUDE}")
  target_link_libraries(TurboJPEG::TurboJPEG INTERFACE "${TurboJPEG_LIBRARY}")
endif()
