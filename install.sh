#!/usr/bin/env bash
# Installs aigw from this checkout for the user who runs it: no root, nothing outside the folders it names. Run it again to upgrade;
# --help says the rest. Everything is inside functions and called by the last line, whose end is its last byte: half a file does
# nothing.
set -eu

usage() {
  cat <<'USAGE'
usage: bash install.sh [--no-init] [--serve] [--demo] [--port PORT] [--index-url URL] [--ca-file FILE] [--dry-run]
       bash install.sh --uninstall [--purge [--yes]] [--dry-run]

Without options it installs, and when there is a terminal and no config yet it ends in the set-up (`aigw init`). What is there
already - config, keys, records - stays as it is.

  --no-init        install only
  --serve          when installed, run `aigw serve` here
  --demo           with no config yet: write one with the offline demo provider, and a first consumer key, printed once
  --port PORT      the port in that config (default 8080)
  --index-url URL  the package index to download from, in place of the usual one; what comes from there is checked by hash
  --ca-file FILE   PEM file with the authorities to trust for the download (a company's proxy), in place of the usual ones
  --dry-run        say what would be done, and do nothing
  --uninstall      remove the program; config, keys and records stay
  --purge          with --uninstall: remove these as well. Lists them and asks
  --yes            with --purge: do not ask
  --help           this

  AIGW_HOME     where the private environment lives    default: ~/.local/share/aigw (in its folder env)
  AIGW_BIN_DIR  where the command `aigw` is put        default: ~/.local/bin
  AIGW_PYTHON   the Python to use (CPython 3.11-3.14)  default: the system's own, if it fits
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY, PIP_INDEX_URL, PIP_CERT, REQUESTS_CA_BUNDLE, SSL_CERT_FILE and pip.conf are honoured.

Needs bash, curl and python3. Shell start-up files are never edited: when the command's folder is not on PATH, the line to add is
printed.
USAGE
}

main() {
  local script=$1 serve="" demo="" dry="" uninstall="" purge="" yes="" init=1 port="" index="" ca="" had_config="" start=$PWD checkout home bin python
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --serve) serve=1 ;;
      --demo) demo=1 ;;
      --no-init) init="" ;;
      --port) shift; port=${1:-} ;;
      --port=*) port=${1#--port=} ;;
      --index-url) shift; index=${1:-}; [ -n "$index" ] || misused "--index-url takes a URL" ;;
      --index-url=*) index=${1#--index-url=}; [ -n "$index" ] || misused "--index-url takes a URL" ;;
      --ca-file) shift; ca=${1:-}; [ -n "$ca" ] || misused "--ca-file takes a file" ;;
      --ca-file=*) ca=${1#--ca-file=}; [ -n "$ca" ] || misused "--ca-file takes a file" ;;
      --dry-run) dry=1 ;;
      --uninstall) uninstall=1 ;;
      --purge) purge=1 ;;
      --yes | -y) yes=1 ;;
      --no-modify-path) ;; # what we always do; accepted because other installers have it
      -h | --help) usage; exit 0 ;;
      *) printf 'error: unknown option %s\n\n' "$1" >&2; usage >&2; exit 2 ;;
    esac
    [ $# -eq 0 ] || shift
  done
  case $port in
    '') ;;
    *[!0-9]* | ??????*) misused "--port takes a number" ;;
  esac
  case $index in
    '') ;;
    *[[:space:]]*) misused "--index-url takes one URL" ;;
    http://?* | https://?* | file:///?*) ;;
    *) misused "--index-url takes a URL that begins with https://, http:// or file://" ;;
  esac
  [ -z "$purge" ] || [ -n "$uninstall" ] || misused "--purge goes with --uninstall: it removes config, keys and records"

  checkout=$(checkout_of "$script") || {
    echo "error: install.sh installs from a checkout of aigw: run it there, as 'bash install.sh'" >&2
    exit 1
  }
  cd "$checkout"
  . packaging/environment.sh
  clean_python_settings
  refuse_borrowed_home
  if [ -z "${HOME:-}" ] && { [ -z "${AIGW_HOME:-}" ] || [ -z "${AIGW_BIN_DIR:-}" ]; }; then
    fail "HOME is not set: set it, or both AIGW_HOME and AIGW_BIN_DIR, to say where aigw goes"
  fi
  home=${AIGW_HOME:-${XDG_DATA_HOME:-${HOME:-}/.local/share}/aigw}
  bin=${AIGW_BIN_DIR:-${HOME:-}/.local/bin}
  case $home$bin in *[$'\n\t']*) fail "AIGW_HOME and AIGW_BIN_DIR must not hold line breaks or tabs" ;; esac
  case $home in /*) ;; *) fail "AIGW_HOME must be an absolute path, not $home" ;; esac
  case $bin in /*) ;; *) fail "AIGW_BIN_DIR must be an absolute path, not $bin" ;; esac

  if [ -n "$uninstall" ]; then
    remove "$home" "$bin" "$start" "$script" "$dry" "$purge" "$yes"
    return
  fi
  [ -z "$port" ] || [ -n "$demo" ] || say "note: --port only matters together with --demo"
  [ ! -e "$(config_file "$start")" ] || had_config=1
  refuse_foreign "$bin/aigw"
  [ -z "$ca" ] || ca=$(usable_ca_file "$start" "$ca") || exit 1
  python=$(use_network_settings "$index" "$ca"; find_python)
  put_in_place "$home" "$bin" "$python" "$dry" "$index" "$ca"
  if [ -n "$demo" ]; then
    prepare_demo "$bin/aigw" "$dry" "$port" "$start"
  fi
  go_on "$bin" "$start" "$script" "$dry" "$serve" "$had_config" "$init" "$ca"
}

misused() { printf 'error: %s\n' "$1" >&2; exit 2; }

# The checkout this script is part of: the folder of its file or, when it came through a pipe, the one we were started in.
checkout_of() {
  local folder
  for folder in "${1:+$(dirname "$1")}" .; do
    if [ -n "$folder" ] && [ -f "$folder/packaging/environment.sh" ] && [ -f "$folder/aigw/__main__.py" ]; then
      (cd "$folder" && pwd)
      return
    fi
  done
  return 1
}

# `sudo bash install.sh` with the home of the user who asked: it would leave files there that are root's.
refuse_borrowed_home() {
  if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ] && [ -d "${HOME:-}" ] && [ ! -O "$HOME" ]; then
    fail "$HOME belongs to $SUDO_USER: run this without sudo (it needs no root), or with 'sudo -H' to install for root"
  fi
}

# Prints where a person's answers come from: standard input, or the terminal when standard input was this script (curl ... | bash).
# Fails when nobody is there.
terminal() {
  [ -t 2 ] || return 1
  if [ -t 0 ]; then
    echo /dev/stdin
  elif [ -z "$1" ] && (: </dev/tty) 2>/dev/null; then
    echo /dev/tty
  else
    return 1
  fi
}

# The last step: serve, set up, or say how to.
go_on() {
  local bin=$1 start=$2 script=$3 dry=$4 serve=$5 had_config=$6 init=$7 ca=$8 aigw config answers code=0
  config=$(config_file "$start")
  aigw="$bin/aigw"
  if [ -n "$serve" ]; then
    if [ -n "$dry" ]; then
      say "would run: $aigw serve"
    else
      tell_about_path "$bin"
      cd "$start"
      exec "$aigw" serve
    fi
    return
  fi
  case ":$PATH:" in *":$bin:"*) aigw=aigw ;; *) aigw=$(typed "$bin/aigw") ;; esac
  if [ -n "$had_config" ] && [ -z "$dry" ]; then
    say "kept as they are: your config $config, and the keys and records in $(data_folder "$start")"
    say "start it: $aigw serve      change the set-up: $aigw init"
    tell_about_path "$bin"
    return
  elif [ -e "$config" ]; then # --demo wrote it just now
    [ -n "$dry" ] || say "start it: $aigw serve"
  elif [ -n "$init" ] && [ -t 1 ] && answers=$(terminal "$script"); then
    if [ -n "$dry" ]; then
      say "would run: $bin/aigw init"
      return
    fi
    say ""
    if [ -n "$ca" ]; then say "(behind the same proxy aigw itself needs ca_file = \"$ca\" in [upstream] of its config)"; fi
    cd "$start"
    if [ "$answers" = /dev/tty ]; then "$bin/aigw" init </dev/tty || code=$?; else "$bin/aigw" init || code=$?; fi
    say ""
    if [ "$code" != 0 ]; then
      tell_about_path "$bin"
      say "aigw is installed, but not set up. To do that: $aigw init"
      exit "$code"
    fi
  elif [ -z "$dry" ]; then
    say "next: $aigw init      (asks; without questions: aigw init --yes --from-env)"
    say "then: $aigw serve"
  fi
  if [ -z "$dry" ]; then
    tell_about_path "$bin" # last: what was said to be typed needs it
    say "completion with Tab, if you like: aigw --install-completion"
  fi
}

# The second line of every launcher we write; the environment it starts is named in the third.
mark="# written by aigw's install.sh"

# Lies in every folder we made: what has none is not ours to remove.
made=".made-by-aigw-install"

is_ours() { [ -f "$1" ] && [ "$(sed -n 2p "$1" 2>/dev/null)" = "$mark" ]; }

refuse_foreign() {
  if { [ -e "$1" ] || [ -L "$1" ]; } && ! is_ours "$1"; then
    fail "$1 exists and is not ours: move it away, or choose another folder with AIGW_BIN_DIR"
  fi
}

# The folder of the environment a launcher starts.
environment_of() { is_ours "$1" && sed -n '3s/^# environment: //p' "$1"; }

is_our_environment() { [ -d "$1" ] && [ ! -L "$1" ] && [ -f "$1/$made" ]; }

# Each installation is a folder of its own, finished before anything points to it; the launcher's replacement is the switch. The
# one before stays for the servers that still run from it.
put_in_place() {
  local home=$1 bin=$2 python=$3 dry=$4 index=$5 ca=$6 name folder before
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

# A path as a person types it.
typed() {
  case $1 in
    *[!A-Za-z0-9/._+-]*) quoted "$1" ;;
    *) printf '%s' "$1" ;;
  esac
}

quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

forget_older() {
  local old
  for old in "$1"/*; do
    if is_our_environment "$old" && [ "$old" != "$2" ] && [ "$old" != "$3" ]; then rm -rf "$old"; fi
  done
}

tell_about_path() {
  local first
  case ":$PATH:" in
    *":$1:"*)
      first=$(command -v aigw 2>/dev/null) || first=""
      if [ -n "$first" ] && [ ! "$first" -ef "$1/aigw" ]; then
        say "warning: another aigw comes first on your PATH: $first. 'aigw' means that one, and $1/aigw is this one"
      fi ;;
    *) say "$1 is not on your PATH yet. Type this line here, and add it to your shell's start-up file:"
       say "  export PATH=\"$1:\$PATH\"" ;;
  esac
}

# A config with the demo provider and one key, for whoever has no config yet.
prepare_demo() {
  local aigw=$1 dry=$2 port=$3 start=$4 config key talk
  if [ -n "$dry" ]; then
    say "would write a config with the demo provider and create the key 'demo', unless there is a config already"
    return
  fi
  config=$(config_file "$start")
  if [ -e "$config" ]; then
    say "$config exists and stays as it is: no demo provider and no key were added."
    say "  a key:             aigw keys create NAME"
    say "  the demo provider: a line [providers.demo] in that file"
    return
  fi
  # the key first: when that fails there is no half-made demo, and the next run starts afresh
  talk=$(mktemp "${TMPDIR:-/tmp}/aigw.XXXXXX")
  key=$(cd "$start" && "$aigw" keys create demo 2>"$talk") || key=""
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

# Where aigw keeps things (aigw/config/paths.py): `config_file DIR`, `data_folder DIR`, DIR being where a relative path begins.
config_file() { absolute "$1" "${AIGW_CONFIG:-$(users_folder "${XDG_CONFIG_HOME:-}" .config)/aigw/config.toml}"; }

data_folder() { absolute "$1" "${AIGW_DATA_DIR:-$(users_folder "${XDG_DATA_HOME:-}" .local/share)/aigw}"; }

users_folder() {
  case $1 in
    /*) printf '%s\n' "$1" ;;
    *) if [ "$(uname)" = Darwin ]; then printf '%s\n' "${HOME:-}/Library/Application Support"; else printf '%s\n' "${HOME:-}/$2"; fi ;;
  esac
}

absolute() {
  case $2 in
    /*) printf '%s\n' "$2" ;;
    '~/'*) printf '%s\n' "${HOME:-}/${2#'~/'}" ;;
    *) printf '%s\n' "$1/$2" ;;
  esac
}

remove() {
  local home=$1 bin=$2 start=$3 script=$4 dry=$5 purge=$6 yes=$7 folder config data one verb=removed
  folder=$(environment_of "$bin/aigw") || folder=""
  config=$(config_file "$start")
  data=$(data_folder "$start")
  doomed=()
  emptied=()
  stays=()
  [ -z "$folder" ] || doomed+=("$bin/aigw")
  find_environments "$home"
  if [ -n "$purge" ]; then find_kept "$config" "$data" "$home"; fi
  if [ -z "${AIGW_HOME:-}" ] && [ ! -L "$home" ]; then emptied+=("$home"); fi # the default one is named after us
  if [ ${#doomed[@]} = 0 ]; then
    say "aigw is not installed here: no $bin/aigw of ours, no environment of ours in $home/env"
    [ -n "$purge" ] || tell_what_is_kept "$config" "$data"
    return
  fi
  if [ -n "$purge" ] && [ -z "$dry" ]; then
    refuse_while_serving "$folder" "$data"
    agree "$script" "$yes"
  fi
  [ -z "$dry" ] || verb="would remove"
  for one in "${doomed[@]}"; do
    [ -n "$dry" ] || rm -rf "$one" || fail "could not remove $one"
    say "$verb $one"
  done
  for one in ${emptied[@]+"${emptied[@]}"}; do
    [ -d "$one" ] || continue
    if [ -n "$dry" ]; then
      say "$verb $one, if it is empty then"
    else
      rm -f "$one/$made"
      if rmdir "$one" 2>/dev/null; then say "$verb $one"; fi
    fi
  done
  if [ -n "$purge" ]; then
    for one in ${stays[@]+"${stays[@]}"}; do say "not ours, so it stays: $one"; done
  else
    tell_what_is_kept "$config" "$data"
  fi
}

tell_what_is_kept() {
  [ ! -e "$1" ] || say "kept your config: $1"
  [ ! -e "$2/aigw.db" ] || say "kept your keys and records: $2"
  if [ -e "$1" ] || [ -e "$2/aigw.db" ]; then say "to remove these as well: bash install.sh --uninstall --purge"; fi
}

# Fills `doomed` with what we made below AIGW_HOME, and `emptied` with its folders.
find_environments() {
  local one
  if [ -L "$1/env" ]; then
    say "$1/env is a symbolic link, which is not followed: remove by hand what it points to"
    return
  fi
  for one in "$1"/env/* "$1"/env/.building.*; do
    if is_our_environment "$one"; then doomed+=("$one"); fi
  done
  if [ -f "$1/env/$made" ]; then
    emptied+=("$1/env")
  fi
  }

# Fills `doomed` with the files that aigw wrote, by the names it gives them: config, provider keys beside it, database, journal and
# what else lies in the data directory. A folder that is a symbolic link is not entered; a link in a file's place goes, not its target.
find_kept() {
  local config=$1 data=$2 home=$3 beside one
  beside=$(dirname "$config")
  doom_files "$config" "$beside/.${config##*/}.new"
  if [ ! -L "$beside/keys" ]; then
    for one in "$beside"/keys/*; do
      # in a folder that is not named after us only those that the config names
      if [ -z "${AIGW_CONFIG:-}" ] || grep -qF "keys/${one##*/}\"" "$config" 2>/dev/null; then doom_files "$one"; fi
    done
    [ -n "${AIGW_CONFIG:-}" ] || emptied+=("$beside/keys")
  fi
  if [ -L "$data" ]; then
    say "$data is a symbolic link, which is not followed: remove by hand what it points to"
  else
    doom_files "$data"/aigw.db "$data"/aigw.db-wal "$data"/aigw.db-shm "$data"/aigw.db-journal "$data"/aigw.db.v*.backup \
      "$data"/aigw.db.before-* "$data"/consumers.cache* "$data"/operator.key "$data"/control.sock "$data"/control.lock "$data"/plugins.trusted "$config".before
    if [ ! -L "$data/journal" ]; then
      doom_files "$data"/journal/[0-9]*-[0-9]*-*.journal "$data"/journal/damaged.lines
      emptied+=("$data/journal")
    fi
    if [ ! -L "$data/models" ]; then
      doom_files "$data"/models/*.json "$data"/models/*.new
      emptied+=("$data/models")
    fi
    if [ ! -L "$data/configs" ]; then
      doom_files "$data"/configs/*.toml "$data"/configs/.[0-9a-f]*
      emptied+=("$data/configs")
    fi
  fi
  if [ -z "${AIGW_DATA_DIR:-}" ] && [ ! -L "$data" ] && [ "$data" != "$home" ]; then emptied+=("$data"); fi
  if [ -z "${AIGW_CONFIG:-}" ] && [ ! -L "$beside" ] && [ "$beside" != "$data" ]; then emptied+=("$beside"); fi
  if grep -qE '^[[:space:]]*url[[:space:]]*=[[:space:]]*"sqlite:.' "$config" 2>/dev/null; then
    stays+=("the database that [storage] url in $config names")
  fi
  if [ -L "$config" ]; then stays+=("what the link $config points to"); fi
  note_strangers "$data" "$beside" "$home"
}

doom_files() {
  local one
  for one in "$@"; do
    if [ -L "$one" ] || [ -f "$one" ] || [ -S "$one" ]; then doomed+=("$one"); fi
  done
}

# What else lies in the two folders that are named after us.
note_strangers() {
  local one known
  local -a present=()
  if [ -z "${AIGW_DATA_DIR:-}" ] && [ ! -L "$1" ]; then present+=("$1"/*); fi
  if [ -z "${AIGW_CONFIG:-}" ] && [ ! -L "$2" ] && [ "$1" != "$2" ]; then present+=("$2"/*); fi
  for one in ${present[@]+"${present[@]}"}; do
    if [ ! -e "$one" ] || [ "$one" = "$3/env" ]; then continue; fi
    for known in ${doomed[@]+"${doomed[@]}"} ${emptied[@]+"${emptied[@]}"}; do
      if [ "$one" = "$known" ]; then continue 2; fi
    done
    stays+=("$one")
  done
}

refuse_while_serving() {
  local folder=$1 data=$2
  [ -n "$folder" ] || return 0
  if "$folder/bin/python" -I - "$data" >/dev/null 2>&1 <<'ASK'; then
import pathlib, sys
from aigw.cli.control import ask
try:
    running = ask(pathlib.Path(sys.argv[1])) is not None
except OSError:  # it is there, and says nothing
    running = True
sys.exit(not running)
ASK
    fail "aigw serve is running, and what it keeps would be removed under it: stop it first ('aigw status' says where it is)"
  fi
}

agree() {
  local script=$1 yes=$2 answers answer="" one
  [ -z "$yes" ] || return 0
  say "These are removed for good:"
  for one in "${doomed[@]}"; do say "  $one"; done
  answers=$(terminal "$script") || { say "Nothing was removed. There is no terminal to ask at: add --yes when you are certain."; exit 2; }
  printf 'Remove them? [y/N] ' >&2
  if [ "$answers" = /dev/tty ]; then read -r answer </dev/tty || answer=""; else read -r answer || answer=""; fi
  case $answer in
    y | Y | yes | Yes | YES) ;;
    *) say "Nothing was removed."; exit 1 ;;
  esac
}

{ main "${BASH_SOURCE[0]:-}" "$@"; exit; }
