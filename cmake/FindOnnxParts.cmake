# The ONNX protobuf definitions as OnnxParts::proto, and ONNX's own checker as OnnxParts::checker.
# By the files, not by ONNX's package config: Debian's names protobuf's target without looking for it.
find_path(OnnxParts_INCLUDE onnx/onnx_pb.h)
find_library(OnnxParts_PROTO onnx_proto)
find_library(OnnxParts_CHECKER onnx)
find_package(Protobuf QUIET)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxParts
  REQUIRED_VARS OnnxParts_PROTO OnnxParts_CHECKER OnnxParts_INCLUDE Protobuf_FOUND
  REASON_FAILURE_MESSAGE "install libonnx-dev and libprotobuf-dev, or point CMAKE_PREFIX_PATH at ONNX and protobuf")
if(OnnxParts_FOUND AND NOT TARGET OnnxParts::proto)
  add_library(OnnxParts::proto INTERFACE IMPORTED)
  target_include_directories(OnnxParts::proto SYSTEM INTERFACE "${OnnxParts_INCLUDE}")
  # The headers mean nothing without the two that the libraries were built with.
  target_compile_definitions(OnnxParts::proto INTERFACE ONNX_NAMESPACE=onnx ONNX_ML=1)
  target_link_libraries(OnnxParts::proto INTERFACE "${OnnxParts_PROTO}" protobuf::libprotobuf)
  add_library(OnnxParts::checker INTERFACE IMPORTED)
  target_link_libraries(OnnxParts::checker INTERFACE "${OnnxParts_CHECKER}" OnnxParts::proto)
endif()
