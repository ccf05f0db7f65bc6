# clip_lora_embed(<target> <symbol> <file>)
#
# Puts the bytes of <file> into <target>. C++ sees them as
#   extern "C" const char <symbol>_begin[], <symbol>_end[];
function(clip_lora_embed target symbol file)
  if(NOT EXISTS "${file}")
    message(FATAL_ERROR "'${file}' is missing: run scripts/setup.sh, or set CLIP_LORA_ASSETS to the folder that holds it")
  endif()
  set(source "${CMAKE_CURRENT_BINARY_DIR}/${symbol}.S")
  file(CONFIGURE OUTPUT "${source}" @ONLY CONTENT [[
.section .rodata
.global @symbol@_begin
.global @symbol@_end
.balign 16
@symbol@_begin:
.incbin "@file@"
@symbol@_end:
.byte 0
.section .note.GNU-stack,"",%progbits
]])
  set_source_files_properties("${source}" PROPERTIES OBJECT_DEPENDS "${file}" SKIP_PRECOMPILE_HEADERS ON)
  target_sources(${target} PRIVATE "${source}")
endfunction()
