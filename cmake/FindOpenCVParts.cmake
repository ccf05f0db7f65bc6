# OpenCV's core, imgproc and imgcodecs as OpenCVParts::OpenCVParts.
# A package config is taken where there is one (CMAKE_PREFIX_PATH); Debian's three small -dev packages have none.
find_package(OpenCV QUIET COMPONENTS core imgproc imgcodecs CONFIG)
if(OpenCV_FOUND)
  set(OpenCVParts_LIBRARIES opencv_imgcodecs opencv_imgproc opencv_core)
  set(OpenCVParts_INCLUDE ${OpenCV_INCLUDE_DIRS})
else()
  find_path(OpenCVParts_INCLUDE opencv2/imgcodecs.hpp PATH_SUFFIXES opencv4)
  foreach(part imgcodecs imgproc core)
    find_library(OpenCVParts_${part} opencv_${part})
    list(APPEND OpenCVParts_LIBRARIES "${OpenCVParts_${part}}")
  endforeach()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCVParts REQUIRED_VARS OpenCVParts_LIBRARIES OpenCVParts_INCLUDE
  REASON_FAILURE_MESSAGE "install libopencv-imgcodecs-dev, or point CMAKE_PREFIX_PATH at an OpenCV")
if(OpenCVParts_FOUND AND NOT TARGET OpenCVParts::OpenCVParts)
  add_library(OpenCVParts::OpenCVParts INTERFACE IMPORTED)
  target_include_directories(OpenCVParts::OpenCVParts SYSTEM INTERFACE ${OpenCVParts_INCLUDE})
  target_link_libraries(OpenCVParts::OpenCVParts INTERFACE ${OpenCVParts_LIBRARIES})
endif()
