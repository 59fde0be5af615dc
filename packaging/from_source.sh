# What install.sh does in a checkout: a private Python environment from the hash lock, and a launcher for it. Sourced by it.
# shellcheck shell=bash

install_sources() {
  local python
  python=$(use_network_settings "$index" "$ca"; find_python)
  put_in_place "$python"
}

# Each installation is a folder of its own, finished before anything points to it; the launcher's replacement is the switch. The
# one before stays for the servers that still run from it.
put_in_place() {
  local python=$1 name folder before
  name=$("$python" packaging/place.py id)
  folder="$home/env/$name"
  before=$(environment_of "$bin/aigw") || before=""
  if [ -n "$dry" ]; then
    say "would use    $python ($("$python" -c 'import platform; print(platform.python_version())'))"
    if works "$folder"; then say "would keep   $folder"; else say "would make   $folder"; fi
    say "would write  $bin/aigw"
    return
  fi
  if works "$folder"; then
    say "aigw $name is installed in $folder"
  else
    say "installing aigw $name with $python"
    if [ -z "${AIGW_HOME:-}" ] && [ ! -d "$home" ]; then # shared with the data directory, which is private
      mkdir -p "$(dirname "$home")" && mkdir -m 700 "$home" || fail "cannot make $home"
    fi
    if [ ! -d "$home/env" ]; then
      mkdir -p "$home/env" && : >"$home/env/$made" || fail "cannot make $home/env"
    fi
    if [ -e "$folder" ]; then # its Python has gone, or it is damaged
      is_our_environment "$folder" || fail "$folder is in the way and is not ours: move it away, or choose another AIGW_HOME"
      rm -rf "$folder"
    fi
    building=$(mktemp -d "$home/env/.building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    : >"$building/$made"
    (use_network_settings "$index" "$ca"; make_environment "$python" "$building" packaging/requirements.lock) || fail "nothing was changed"
    "$building/bin/python" -I packaging/place.py copy
    find "$building/bin" ! -type d ! -name 'python*' -exec rm -f {} + # scripts of dependencies: nobody calls them, and they name this folder
    works "$building" || fail "the new aigw does not start; nothing was changed"
    chmod 755 "$building"
    mv "$building" "$folder" 2>/dev/null || [ -d "$folder" ] || fail "cannot make $folder"
    rm -rf "$building"
    trap - EXIT
  fi
  mkdir -p "$bin" || fail "cannot make $bin"
  write_launcher "$bin/aigw" "$folder"
  forget_older "$home/env" "$folder" "$before"
  say "aigw is $bin/aigw"
}

works() { "$1/bin/python" -I -m aigw --version >/dev/null 2>&1; }

write_launcher() {
  local launcher=$1 folder=$2 new
  new=$(mktemp "$launcher.XXXXXX")
  # -I: neither the working directory nor PYTHON* variables decide which code runs next to every key
  printf '#!/bin/sh\n%s\n# environment: %s\nexec %s -I -m aigw "$@"\n' "$mark" "$folder" "$(quoted "$folder/bin/python")" >"$new"
  chmod 755 "$new"
  mv -f "$new" "$launcher"
}

forget_older() {
  local old
  for old in "$1"/*; do
    if is_our_environment "$old" && [ "$old" != "$2" ] && [ "$old" != "$3" ]; then rm -rf "$old"; fi
  done
}
