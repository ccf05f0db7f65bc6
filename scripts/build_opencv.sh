#!/usr/bin/env bash
# Builds OpenCV's core, imgproc and imgcodecs as static libraries: scripts/build_opencv.sh ARCHIVE FOLDER
#   ARCHIVE  the source archive of PyPI's opencv-python-headless, which holds OpenCV's and that of its codecs
#   FOLDER   what they are installed into, for CMAKE_PREFIX_PATH; FOLDER.partial is built in, and removed
# Needs CMake, Ninja and a C++ compiler. Nothing of the machine's is linked.
set -euo pipefail
[ $# -eq 2 ] || {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
archive="$(realpath -e "$1")"
folder="$(realpath -m "$2")"
partial="$folder.partial"

options=(-DCMAKE_BUILD_TYPE=Release "-DBUILD_LIST=core,imgproc,imgcodecs" "-DCMAKE_INSTALL_PREFIX=$folder")
for name in BUILD_{SHARED_LIBS,TESTS,PERF_TESTS,EXAMPLES,JAVA,opencv_apps,opencv_python3} \
  WITH_{1394,ADE,AVIF,EIGEN,FFMPEG,GSTREAMER,GTK,IPP,ITT,JASPER,LAPACK,OPENCL,OPENEXR,PROTOBUF,QT,QUIRC,TBB,V4L}; do
  options+=("-D$name=OFF")
done
for name in BUILD_{JPEG,OPENJPEG,PNG,TIFF,WEBP,ZLIB} OPENCV_FORCE_3RDPARTY_BUILD; do
  options+=("-D$name=ON")
done

rm -rf "$partial"
mkdir -p "$partial"
tar -xzf "$archive" -C "$partial" --strip-components 1 --wildcards '*/opencv/*'
cmake -G Ninja -S "$partial/opencv" -B "$partial/build" "${options[@]}"
cmake --build "$partial/build" --parallel "$(nproc)" --target install
rm -rf "$partial"
