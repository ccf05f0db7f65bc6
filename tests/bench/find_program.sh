# shellcheck shell=bash
# Where programs are: for the scripts beside it, which source it and set `programs` to the folder that they were given.

# find_program NAME: its path in $programs, in the build folder's bin/ or in bench/.
find_program() {
  local name=$1 place
  for place in "${programs:?}/$name" "$programs/bin/$name" "$programs/bench/$name"; do
    if [[ -x $place ]]; then
      echo "$place"
      return
    fi
  done
  echo "there is no $name in $programs, its bin/ or bench/" >&2
  return 1
}
