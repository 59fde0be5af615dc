#!/usr/bin/env bash
# Installs aigw from this checkout for the user who runs it: no root, no questions, nothing outside the two folders it names.
# Run it again to upgrade; --help says the rest. Everything is inside main, so that half a file does nothing.
set -eu

usage() {
  cat <<'USAGE'
usage: bash install.sh [--serve] [--demo] [--port PORT] [--dry-run]
       bash install.sh --uninstall

  --serve       when installed, run `aigw serve` here
  --demo        with no config yet: write one with the offline demo provider, and a first consumer key, printed once
  --port PORT   the port in that config (default 8080)
  --dry-run     say what would be done, and do nothing
  --uninstall   remove the program; config, keys and records stay
  --help        this

  AIGW_HOME     where the private environment lives    default: ~/.local/share/aigw (in its folder env)
  AIGW_BIN_DIR  where the command `aigw` is put        default: ~/.local/bin
  AIGW_PYTHON   the Python to use (CPython 3.11-3.14)  default: the system's own, if it fits
  PIP_INDEX_URL, HTTPS_PROXY and pip.conf are honoured.

Needs bash, curl and python3. Shell start-up files are never edited: when the command's folder is not on PATH, the line to add is
printed.
USAGE
}

main() {
  local serve="" demo="" dry="" uninstall="" port="" checkout home bin python
  while [ $# -gt 0 ]; do
    case $1 in
      --serve) serve=1 ;;
      --demo) demo=1 ;;
      --port) shift; port=${1:-} ;;
      --port=*) port=${1#--port=} ;;
      --dry-run) dry=1 ;;
      --uninstall) uninstall=1 ;;
      --no-modify-path) ;; # what we always do; accepted because other installers have it
      -h | --help) usage; exit 0 ;;
      *) printf 'error: unknown option %s\n\n' "$1" >&2; usage >&2; exit 2 ;;
    esac
    [ $# -eq 0 ] || shift
  done
  checkout=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)
  if [ ! -f "$checkout/packaging/environment.sh" ] || [ ! -f "$checkout/aigw/__main__.py" ]; then
    echo "error: install.sh installs from a checkout of aigw: run it there, as 'bash install.sh'" >&2
    exit 1
  fi
  cd "$checkout"
  . packaging/environment.sh
  clean_python_settings
  case $port in
    '') ;;
    *[!0-9]* | ??????*) printf 'error: --port takes a number\n' >&2; exit 2 ;;
  esac
  [ -z "$port" ] || [ -n "$demo" ] || say "note: --port only matters together with --demo"
  if [ -z "${HOME:-}" ] && { [ -z "${AIGW_HOME:-}" ] || [ -z "${AIGW_BIN_DIR:-}" ]; }; then
    fail "HOME is not set: set it, or both AIGW_HOME and AIGW_BIN_DIR, to say where aigw goes"
  fi
  home=${AIGW_HOME:-${XDG_DATA_HOME:-${HOME:-}/.local/share}/aigw}
  bin=${AIGW_BIN_DIR:-${HOME:-}/.local/bin}
  case $home$bin in *[$'\n\t']*) fail "AIGW_HOME and AIGW_BIN_DIR must not hold line breaks or tabs" ;; esac
  case $home in /*) ;; *) fail "AIGW_HOME must be an absolute path, not $home" ;; esac
  case $bin in /*) ;; *) fail "AIGW_BIN_DIR must be an absolute path, not $bin" ;; esac

  if [ -n "$uninstall" ]; then
    remove "$home" "$bin" "$dry"
    return
  fi
  refuse_foreign "$bin/aigw"
  python=$(find_python)
  put_in_place "$home" "$bin" "$python" "$dry"
  [ -n "$dry" ] || tell_about_path "$bin"
  if [ -n "$demo" ]; then
    prepare_demo "$bin/aigw" "$dry" "$port"
  fi
  if [ -n "$serve" ]; then
    if [ -n "$dry" ]; then
      say "would run: $bin/aigw serve"
    else
      exec "$bin/aigw" serve
    fi
  elif [ -z "$dry" ]; then
    say "start it: aigw serve"
  fi
}

# The second line of every launcher we write; the environment it starts is named in the third.
mark="# written by aigw's install.sh"

is_ours() { [ -f "$1" ] && [ "$(sed -n 2p "$1" 2>/dev/null)" = "$mark" ]; }

refuse_foreign() {
  if { [ -e "$1" ] || [ -L "$1" ]; } && ! is_ours "$1"; then
    fail "$1 exists and is not ours: move it away, or choose another folder with AIGW_BIN_DIR"
  fi
}

# The folder of the environment a launcher starts.
environment_of() { is_ours "$1" && sed -n '3s/^# environment: //p' "$1"; }

# Each installation is a folder of its own, finished before anything points to it; the launcher's replacement is the switch. The
# one before stays for the servers that still run from it.
put_in_place() {
  local home=$1 bin=$2 python=$3 dry=$4 name folder before
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
    mkdir -p "$home/env" || fail "cannot make $home/env"
    rm -rf "$folder" # only there when its Python has gone
    building=$(mktemp -d "$home/env/.building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    make_environment "$python" "$building" packaging/requirements.lock || fail "nothing was changed"
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

quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

forget_older() {
  local old
  for old in "$1"/*; do
    if [ -d "$old" ] && [ "$old" != "$2" ] && [ "$old" != "$3" ]; then rm -rf "$old"; fi
  done
}

tell_about_path() {
  case ":$PATH:" in
    *":$1:"*) ;;
    *) say "$1 is not on your PATH. Add this line to your shell's start-up file:"
       say "  export PATH=\"$1:\$PATH\"" ;;
  esac
}

# A config with the demo provider and one key, for whoever has no config yet.
prepare_demo() {
  local aigw=$1 dry=$2 port=$3 python config key talk
  if [ -n "$dry" ]; then
    say "would write a config with the demo provider and create the key 'demo', unless there is a config already"
    return
  fi
  python=$(environment_of "$aigw")/bin/python
  config=$("$python" -I -c 'from aigw.config.paths import config_path; print(config_path())')
  if [ -e "$config" ]; then
    say "$config exists and stays as it is: no demo provider and no key were added."
    say "  a key:             aigw keys create NAME"
    say "  the demo provider: a line [providers.demo] in that file"
    return
  fi
  # the key first: when that fails there is no half-made demo, and the next run starts afresh
  talk=$(mktemp "${TMPDIR:-/tmp}/aigw.XXXXXX")
  key=$("$aigw" keys create demo 2>"$talk") || key=""
  [ -n "$key" ] || cat "$talk" >&2
  rm -f "$talk"
  [ -n "$key" ] || fail "no demo key was made, so no config either. To make one yourself: aigw keys create NAME"
  write_config "$config" "$port" || fail "cannot write $config"
  say "wrote $config: the demo provider, offline"
  show_first_call "$key" "http://127.0.0.1:${port:-${AIGW_PORT:-8080}}/v1"
}

show_first_call() {
  cat <<CALL

Your key (shown only now): $1

  curl $2/chat/completions -H 'Authorization: Bearer $1' \\
    -H 'Content-Type: application/json' -d '{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}'

  from openai import OpenAI
  client = OpenAI(base_url="$2", api_key="$1")
  answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hello"}])
  print(answer.choices[0].message.content)

CALL
}

write_config() {
  local config=$1 port=$2 new
  (
    umask 077
    mkdir -p "$(dirname "$config")"
    new=$(mktemp "$config.XXXXXX")
    {
      echo "# Written by install.sh --demo. Add real providers beside the demo, or in its place."
      if [ -n "$port" ]; then printf '\n[server]\nport = %s\n' "$port"; fi
      printf '\n[providers.demo]   # answers offline, and says so; it is no model\n'
    } >"$new"
    mv "$new" "$config"
  )
}

remove() {
  local home=$1 bin=$2 dry=$3 folder config="" data=""
  folder=$(environment_of "$bin/aigw") || folder=""
  if [ -n "$folder" ]; then
    config=$("$folder/bin/python" -I -c 'from aigw.config.paths import config_path; print(config_path())' 2>/dev/null) || config=""
    data=$("$folder/bin/python" -I -c 'from aigw.config.paths import data_dir; print(data_dir())' 2>/dev/null) || data=""
  fi
  if [ -z "$folder" ] && [ ! -d "$home/env" ]; then
    say "aigw is not installed here: no $bin/aigw of ours, no $home/env"
    return
  fi
  if [ -n "$dry" ]; then
    [ -z "$folder" ] || say "would remove $bin/aigw"
    say "would remove $home/env"
    return
  fi
  if [ -n "$folder" ]; then rm -f "$bin/aigw"; say "removed $bin/aigw"; fi
  rm -rf "$home/env"
  say "removed $home/env"
  rmdir "$home" 2>/dev/null || true
  [ -z "$config" ] || [ ! -e "$config" ] || say "kept your config: $config"
  [ -z "$data" ] || [ ! -d "$data" ] || say "kept your keys and records: $data"
}

main "$@"
