# Installs the build in BUILD into a scratch FOLDER, then builds and runs the program in CONSUMER and the installed one.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    string(JOIN " " command ${ARGN})
    message(FATAL_ERROR "${command}: exit code ${result}\n${output}")
  endif()
  message(STATUS "${output}")
endfunction()

file(REMOVE_RECURSE "${FOLDER}")
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${FOLDER}/installed")
run("${CMAKE_COMMAND}" -S "${CONSUMER}" -B "${FOLDER}/build" -G "${GENERATOR}" -D CMAKE_BUILD_TYPE=Release
  -D "CMAKE_CXX_COMPILER=${CXX_COMPILER}" -D "CMAKE_PREFIX_PATH=${FOLDER}/installed")
run("${CMAKE_COMMAND}" --build "${FOLDER}/build")
run("${FOLDER}/build/consumer")
run("${FOLDER}/installed/bin/clip_lora" --help)
file(REMOVE_RECURSE "${FOLDER}")
