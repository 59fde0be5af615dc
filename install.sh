#!/bin/sh
# Installs aigw for the user who runs it: no root, nothing outside the folders it names. Fetched from a release it puts that
# release's single file in place, once hash and signature are good; from a checkout it installs these sources. --help says the rest.
# For any POSIX shell. Everything is inside functions and called by the last line, whose end is its last byte: half a file does
# nothing.
set -eu

# Filled in when a release is published: its version, the SHA-256 of each single file, and who may sign (ssh allowed_signers).
pinned_version=''
pinned_pins=''
pinned_signers=''

places='https://github.com/aigw/aigw/releases/download https://gitee.com/aigw/aigw/releases/download'

usage() {
  cat <<'USAGE'
usage: sh install.sh [--version X.Y.Z] [--no-init] [--serve] [--demo] [--port PORT] [--ca-file FILE] [--dry-run]
       bash install.sh [--index-url URL] [the same]        in a checkout: install these sources
       sh install.sh --uninstall [--purge [--yes]] [--dry-run]

Without options it installs, and when there is a terminal and no config yet it ends in the set-up (`aigw init`). What is there
already - config, keys, records - stays as it is.

  --version X.Y.Z  that release, in place of the newest one
  --no-init        install only
  --serve          when installed, run `aigw serve` here
  --demo           with no config yet: write one with the offline demo provider, and a first consumer key, printed once
  --port PORT      the port in that config (default 8080)
  --index-url URL  from a checkout: the package index to download from; what comes from there is checked by hash
  --ca-file FILE   PEM file with the authorities to trust for the download (a company's proxy), in place of the usual ones
  --dry-run        say what would be done, and do nothing
  --uninstall      remove the program; config, keys and records stay
  --purge          with --uninstall: remove these as well. Lists them and asks
  --yes            with --purge: do not ask
  --help           this

  AIGW_BIN_DIR            where the command `aigw` is put        default: ~/.local/bin
  AIGW_DOWNLOAD_BASE      where releases lie: https://..., file:///folder; several, with blanks between: the first that
                          answers    default: the project's
  AIGW_VERSION            as --version
  AIGW_REQUIRE_SIGNATURE  1: fail where the signature cannot be checked (no ssh-keygen)
  AIGW_SIGNERS            a file with the keys to believe (ssh allowed_signers), in place of the project's
  AIGW_NO_MODIFY_PATH     accepted, and not needed: shell start-up files are never edited
  AIGW_HOME               from a checkout: where the private environment lives    default: ~/.local/share/aigw (in its folder env)
  AIGW_PYTHON             from a checkout: the Python to use (CPython 3.11-3.14)  default: the system's own, if it fits
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY and CURL_CA_BUNDLE are honoured; from a checkout also PIP_INDEX_URL, PIP_CERT and pip.conf.

A release needs curl or wget; a checkout needs bash, curl and python3. Shell start-up files are never edited: when the command's
folder is not on PATH, the line to add is printed.
USAGE
}

main() {
  if [ -n "${ZSH_VERSION:-}" ]; then emulate sh; fi
  script="" start=$PWD
  if [ -f "$1" ]; then script=$1; fi # else it came through a pipe, or as an argument
  shift
  serve="" demo="" dry="" uninstall="" purge="" yes="" init=1 port="" index="" ca="" had_config="" version=${AIGW_VERSION:-}
  while [ $# -gt 0 ]; do
    case $1 in
      --version) shift; version=${1:-}; [ -n "$version" ] || misused "--version takes a version" ;;
      --version=*) version=${1#--version=}; [ -n "$version" ] || misused "--version takes a version" ;;
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
  case $version in
    '') ;;
    *[!0-9abrc.]* | *.*.*.* | .* | *.) misused "--version takes a version, as 1.2.3" ;;
    [0-9]*.[0-9]*.[0-9]*) ;;
    *) misused "--version takes a version, as 1.2.3" ;;
  esac
  case $index in
    '') ;;
    *[[:space:]]*) misused "--index-url takes one URL" ;;
    http://?* | https://?* | file:///?*) ;;
    *) misused "--index-url takes a URL that begins with https://, http:// or file://" ;;
  esac
  [ -z "$purge" ] || [ -n "$uninstall" ] || misused "--purge goes with --uninstall: it removes config, keys and records"

  checkout=""
  if [ -z "$pinned_version" ]; then # a published one never looks around: what lies where it is run is not its business
    checkout=$(checkout_of) || checkout=""
    if [ -z "$checkout" ] && [ -z "$version" ] && [ -z "${AIGW_DOWNLOAD_BASE:-}" ] && [ -z "$uninstall" ]; then
      fail "this install.sh installs from a checkout of aigw: run it there, as 'bash install.sh'. A release has an install.sh of its own"
    fi
  fi
  if [ -n "$checkout" ]; then
    if [ -z "${BASH_VERSION:-}" ]; then
      fail "a checkout is installed with bash: bash ${script:-install.sh}"
    fi
    cd "$checkout"
    . packaging/environment.sh
    . packaging/from_source.sh
    clean_python_settings
  fi
  refuse_borrowed_home
  if [ -z "${HOME:-}" ] && { [ -z "${AIGW_HOME:-}" ] || [ -z "${AIGW_BIN_DIR:-}" ]; }; then
    fail "HOME is not set: set it, or both AIGW_HOME and AIGW_BIN_DIR, to say where aigw goes"
  fi
  home=${AIGW_HOME:-${XDG_DATA_HOME:-${HOME:-}/.local/share}/aigw}
  bin=${AIGW_BIN_DIR:-${HOME:-}/.local/bin}
  case $home$bin in *"$newline"* | *"$tab"*) fail "AIGW_HOME and AIGW_BIN_DIR must not hold line breaks or tabs" ;; esac
  case $home in /*) ;; *) fail "AIGW_HOME must be an absolute path, not $home" ;; esac
  case $bin in /*) ;; *) fail "AIGW_BIN_DIR must be an absolute path, not $bin" ;; esac
  config=$(config_file "$start")
  data=$(data_folder "$start")

  if [ -n "$uninstall" ]; then
    remove
    return
  fi
  [ -z "$port" ] || [ -n "$demo" ] || say "note: --port only matters together with --demo"
  [ ! -e "$config" ] || had_config=1
  refuse_foreign "$bin/aigw"
  if [ -n "$checkout" ]; then
    [ -z "$ca" ] || ca=$(usable_ca_file "$start" "$ca") || exit 1
    install_sources
  else
    install_release
  fi
  if [ -n "$demo" ]; then prepare_demo; fi
  go_on
}

newline='
'
tab=$(printf '\t')

say() { printf '%s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
misused() { printf 'error: %s\n' "$1" >&2; exit 2; }

# The checkout this script is part of: the folder of its file or, when it came through a pipe, the one we were started in.
checkout_of() {
  for folder in "${script:+$(dirname "$script")}" .; do
    if [ -n "$folder" ] && [ -f "$folder/packaging/environment.sh" ] && [ -f "$folder/aigw/__main__.py" ]; then
      (cd "$folder" && pwd)
      return
    fi
  done
  return 1
}

# `sudo sh install.sh` with the home of the user who asked: it would leave files there that are root's.
refuse_borrowed_home() {
  if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ] && [ -d "${HOME:-}" ] && [ ! -O "$HOME" ]; then
    fail "$HOME belongs to $SUDO_USER: run this without sudo (it needs no root), or with 'sudo -H' to install for root"
  fi
}

# ---- a release

install_release() {
  work=$(mktemp -d "${TMPDIR:-/tmp}/aigw.XXXXXX") || fail "no folder could be made in ${TMPDIR:-/tmp}"
  fresh=""
  trap 'rm -rf "$work" ${fresh:+"$fresh"}' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  [ -z "$ca" ] || [ -r "$ca" ] || fail "--ca-file $ca: there is no such file, or you may not read it"
  read_signers
  system=$(uname -s | tr '[:upper:]' '[:lower:]')
  machine=$(uname -m | sed 's/^amd64$/x86_64/; s/^arm64$/aarch64/')
  find_place
  check_newest
  if [ -z "$version" ]; then version=${pinned_version:-$newest}; fi
  program="aigw-$version-$system-$machine"
  refuse_withdrawn "$version"
  refuse_older
  fetch "$place/$version/SHA256SUMS" "$work/SHA256SUMS" || fail "aigw $version is not at $place"
  check_signature "$version/SHA256SUMS" "$work/SHA256SUMS" aigw-release
  listed=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$program\$/\1/p" "$work/SHA256SUMS")
  case $listed in
    ????????????????????????????????????????????????????????????????) ;;
    *) fail "aigw $version was not made for this system ($system $machine). Elsewhere: uv tool install aigw, or a checkout" ;;
  esac
  if [ "$version" = "$pinned_version" ]; then
    pin=$(printf '%s\n' "$pinned_pins" | sed -n "s/^\([0-9a-f]\{64\}\)  $program\$/\1/p")
    [ "$pin" = "$listed" ] || fail "$place lists another SHA-256 for $program than this installer: one of them was replaced. Nothing was changed"
  elif [ "$signed" != 1 ]; then
    fail "aigw $version cannot be checked: this installer knows the hashes of ${pinned_version:-no version}, and no signature could be checked. Nothing was changed"
  fi
  refuse_withdrawn "$listed"
  if [ -n "$dry" ]; then
    say "would fetch  $place/$version/$program (sha256 $listed)"
    say "would write  $bin/aigw"
    return
  fi
  put_release
}

put_release() {
  mkdir -p "$bin" || fail "cannot make $bin"
  fresh=$(mktemp "$bin/.aigw.XXXXXX") || fail "cannot write to $bin: give yourself write access, or choose another folder with AIGW_BIN_DIR"
  say "fetching aigw $version for $system $machine from $place"
  fetch "$place/$version/$program" "$fresh" show || fail "$program could not be fetched whole. Nothing was changed"
  got=$(sha256_of "$fresh")
  [ "$got" = "$listed" ] || fail "what came is not aigw $version: its SHA-256 is $got, not $listed. Nothing was changed"
  chmod 755 "$fresh"
  said=$(unset AIGW_LAUNCHER AIGW_RUNTIME; "$fresh" --version 2>"$work/said") || said=""
  [ "$said" = "aigw $version" ] || { cat "$work/said" >&2; fail "aigw $version does not start here. Nothing was changed"; }
  keep_release
  mv -f "$fresh" "$bin/aigw" || fail "cannot write $bin/aigw"
  fresh=""
  say "aigw $version is $bin/aigw (sha256 $got)"
  if [ "$signed" = 1 ]; then say "signed by $signers_named"; else say "signature not checked; the hash is the one in this installer"; fi
}

# What `aigw verify` and `aigw update` read: the signed lists, beside the data.
keep_release() {
  if [ ! -d "$data" ]; then
    mkdir -p "$(dirname "$data")" && mkdir -m 700 "$data" 2>/dev/null || [ -d "$data" ] || fail "cannot make $data"
  fi
  mkdir -p "$data/releases/$version" || fail "cannot make $data/releases/$version"
  for one in "$work"/SHA256SUMS*; do keep "$one" "$data/releases/$version"; done
  for one in "$work"/revoked.json*; do
    if [ -f "$one" ]; then keep "$one" "$data/releases"; fi
  done
}

keep() { # FILE FOLDER: in one step; another installer may do the same just now
  cp "$1" "$2/.new.$$" && mv -f "$2/.new.$$" "$2/${1##*/}" || fail "cannot write to $2"
}

# The keys that are believed, one line each in $work/signers; how their names are spelled, in the order of their signatures.
read_signers() {
  if [ -n "${AIGW_SIGNERS:-}" ]; then
    [ -r "$AIGW_SIGNERS" ] || fail "AIGW_SIGNERS=$AIGW_SIGNERS: there is no such file, or you may not read it"
    grep -v '^#' "$AIGW_SIGNERS" >"$work/signers" || :
  else
    printf '%s\n' "$pinned_signers" >"$work/signers"
  fi
  grep . "$work/signers" >"$work/signers.some" || :
  mv "$work/signers.some" "$work/signers"
}

names_for() { # NAMESPACE: who has to sign, in order, each once
  while read -r name rest; do
    case $rest in *namespaces=*) case $rest in *"$1"*) ;; *) continue ;; esac ;; esac
    printf '%s\n' "$name"
  done <"$work/signers" | awk '!seen[$0]++'
}

# The place that has the list of versions first: all are asked at once, so a mirror nearby wins, wherever this is.
find_place() {
  place="" number=0
  for one in ${AIGW_DOWNLOAD_BASE:-$places}; do
    case $one in
      https://* | file:///* | http://127.0.0.1[:/]* | http://localhost[:/]*) ;;
      /*) one="file://$one" ;;
      *) fail "AIGW_DOWNLOAD_BASE: $one is no place; expected https://... or file:///..." ;;
    esac
    number=$((number + 1))
    mkdir "$work/place.$number"
    printf '%s\n' "${one%/}" >"$work/place.$number/base"
    (
      trap - EXIT
      own=$work/place.$number
      if (work=$own; fetch "${one%/}/channel/latest.json" "$own/latest.json"); then : >"$own/good"; else : >"$own/bad"; fi
    ) &
  done
  waited=0
  while [ "$waited" -lt 300 ]; do
    known=0
    for one in "$work"/place.*; do
      if [ -f "$one/good" ]; then
        place=$(cat "$one/base")
        mv "$one/latest.json" "$work/latest.json"
        return
      fi
      if [ -f "$one/bad" ]; then known=$((known + 1)); fi
    done
    [ "$known" -lt "$number" ] || break
    sleep 0.1 2>/dev/null || sleep 1
    waited=$((waited + 1))
  done
  for one in "$work"/place.*; do
    say "nothing at $(cat "$one/base") ($(work=$one; fetch_problem))"
  done
  fail "no release could be reached. Behind a proxy: HTTPS_PROXY=http://host:port; from a folder: AIGW_DOWNLOAD_BASE=file:///folder"
}

# latest.json: whether it is to be believed, and which version it names ($newest).
check_newest() {
  check_signature channel/latest.json "$work/latest.json" aigw-release
  newest=$(json_text version "$work/latest.json")
  expires=$(json_text expires "$work/latest.json")
  case $newest in
    [0-9]*.[0-9]*.[0-9]*) ;;
    *) fail "$place/channel/latest.json names no version: an error page?" ;;
  esac
  case $expires in
    [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*Z) ;;
    *) fail "$place/channel/latest.json does not say until when it holds" ;;
  esac
  if ! earlier "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$expires"; then
    fail "$place/channel/latest.json was to be believed until $expires only: the mirror is out of date, or keeps newer versions back. Nothing was changed"
  fi
  if fetch "$place/channel/revoked.json" "$work/revoked.json"; then
    check_signature channel/revoked.json "$work/revoked.json" aigw-revocation
  else
    rm -f "$work/revoked.json"
  fi
  if [ -n "$pinned_version" ] && [ -z "$version" ] && older "$pinned_version" "$newest"; then
    say "note: aigw $newest is there; this installer is of $pinned_version: fetch install.sh again for the newest"
  fi
}

refuse_withdrawn() { # VERSION|SHA256
  [ -f "$work/revoked.json" ] || return 0
  reason=$(json_text "$1" "$work/revoked.json")
  [ -z "$reason" ] || fail "aigw $version was withdrawn: $reason. Nothing was changed"
}

refuse_older() {
  [ -x "$bin/aigw" ] || return 0
  present=$("$bin/aigw" --version 2>/dev/null) || return 0
  present=${present#aigw }
  if older "$version" "$present"; then
    fail "aigw $version is older than the $present that is installed: refused. The version before: aigw update --rollback"
  fi
}

# check_signature PATH FILE NAMESPACE: all who have to have signed. Sets $signed: 1 when they had, "" where nobody could look.
check_signature() {
  signed="" signers_named=""
  who=$(names_for "$3")
  number=0
  for one in $who; do
    number=$((number + 1))
    suffix=.sig
    [ "$number" = 1 ] || suffix=.sig.$number
    fetch "$place/$1$suffix" "$2$suffix" || fail "$place/$1 has no signature of $one ($(fetch_problem)). Nothing was changed"
  done
  if [ "$number" = 0 ]; then
    must_not_be_required "this installer knows no key"
  elif ! command -v ssh-keygen >/dev/null 2>&1; then
    must_not_be_required "there is no ssh-keygen here (OpenSSH 8.1 or later)"
  else
    number=0
    for one in $who; do
      number=$((number + 1))
      suffix=.sig
      [ "$number" = 1 ] || suffix=.sig.$number
      ssh-keygen -Y verify -f "$work/signers" -I "$one" -n "$3" -s "$2$suffix" <"$2" >"$work/ssh" 2>&1 ||
        fail "$place/$1: the signature of $one is not good. Nothing was changed. ssh-keygen says: $(tail -n 1 "$work/ssh")"
      signers_named="${signers_named:+$signers_named and }$one"
    done
    signed=1
  fi
}

must_not_be_required() {
  [ "${AIGW_REQUIRE_SIGNATURE:-}" != 1 ] || fail "the signature cannot be checked, and AIGW_REQUIRE_SIGNATURE=1: $1"
}

# fetch URL FILE [show]: whole, or not at all. What went wrong is in $work/problem.
fetch() {
  fetch_url=$1 fetch_to=$2 fetch_show=${3:-}
  : >"$work/problem"
  rm -f "$work/part"
  case $fetch_url in
    file://*) cp "${fetch_url#file://}" "$work/part" 2>"$work/problem" || return 1 ;;
    *)
      if command -v curl >/dev/null 2>&1; then
        set -- --fail --location --show-error --connect-timeout 10 --speed-limit 1000 --speed-time 30 --max-filesize 300000000
        case $fetch_url in https:*) set -- "$@" --proto '=https' --tlsv1.2 ;; esac
        [ -z "$ca" ] || set -- "$@" --cacert "$ca"
        if [ "$fetch_show" = show ] && [ -t 2 ]; then
          curl "$@" --progress-bar --output "$work/part" "$fetch_url" || return 1
        else
          curl "$@" --silent --output "$work/part" "$fetch_url" 2>"$work/problem" || return 1
        fi
      elif command -v wget >/dev/null 2>&1; then
        wget -q -T 30 ${ca:+--ca-certificate="$ca"} -O "$work/part" "$fetch_url" 2>"$work/problem" || {
          echo "wget could not fetch it" >>"$work/problem"
          return 1
        }
      else
        fail "neither curl nor wget is here: install one of them"
      fi ;;
  esac
  cat "$work/part" >"$fetch_to" || fail "cannot write $fetch_to: is the disk full?"
  rm -f "$work/part"
}

fetch_problem() { tail -n 1 "$work/problem" | cut -c 1-200; }

sha256_of() {
  if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1" | cut -d ' ' -f 1
  elif command -v shasum >/dev/null 2>&1; then shasum -a 256 <"$1" | cut -d ' ' -f 1
  elif command -v openssl >/dev/null 2>&1; then openssl dgst -sha256 <"$1" | sed 's/.* //'
  else fail "nothing here computes a SHA-256: install coreutils or openssl"; fi
}

# json_text KEY FILE: the text of a key in JSON that we wrote, a key on each line. What is signed is read; nothing else is.
json_text() { sed -n "s/^ *\"$(printf '%s' "$1" | sed 's/[.]/\\./g')\": \"\([^\"]*\)\",\{0,1\}\$/\1/p" "$2" | head -n 1; }

earlier() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | LC_ALL=C sort | head -n 1)" = "$1" ]; }

# older A B: whether version A comes before B. 1.2.0rc1 comes before 1.2.0.
older() {
  [ "$1" != "$2" ] || return 1
  first=$(printf '%s\n%s\n' "$1" "$2" | sed 's/\([0-9]\)\(a\|b\|rc\)\([0-9]\)/\1.\2.\3/; t
s/$/.z.0/' | sed 's/\.a\./.1./; s/\.b\./.2./; s/\.rc\./.3./; s/\.z\./.4./' | LC_ALL=C sort -t . -k 1,1n -k 2,2n -k 3,3n -k 4,4n -k 5,5n | head -n 1)
  [ "$first" = "$(printf '%s\n' "$1" | sed 's/\([0-9]\)\(a\|b\|rc\)\([0-9]\)/\1.\2.\3/; t
s/$/.z.0/' | sed 's/\.a\./.1./; s/\.b\./.2./; s/\.rc\./.3./; s/\.z\./.4./')" ]
}

# ---- what follows an installation

# Prints where a person's answers come from: standard input, or the terminal when standard input was this script (curl ... | bash).
# Fails when nobody is there.
terminal() {
  [ -t 2 ] || return 1
  if [ -t 0 ]; then
    echo /dev/stdin
  elif [ -z "$script" ] && (: </dev/tty) 2>/dev/null; then
    echo /dev/tty
  else
    return 1
  fi
}

# The last step: serve, set up, or say how to.
go_on() {
  aigw="$bin/aigw"
  if [ -n "$serve" ]; then
    if [ -n "$dry" ]; then
      say "would run: $aigw serve"
    else
      tell_about_path
      cd "$start"
      leave_nothing
      exec "$aigw" serve
    fi
    return
  fi
  case ":$PATH:" in *":$bin:"*) aigw=aigw ;; *) aigw=$(typed "$bin/aigw") ;; esac
  if [ -n "$had_config" ] && [ -z "$dry" ]; then
    say "kept as they are: your config $config, and the keys and records in $data"
    say "start it: $aigw serve      change the set-up: $aigw init"
    tell_about_path
    return
  elif [ -e "$config" ]; then # --demo wrote it just now
    [ -n "$dry" ] || say "start it: $aigw serve"
  elif [ -n "$init" ] && [ -t 1 ] && answers=$(terminal); then
    if [ -n "$dry" ]; then
      say "would run: $bin/aigw init"
      return
    fi
    say ""
    if [ -n "$ca" ]; then say "(behind the same proxy aigw itself needs ca_file = \"$ca\" in [upstream] of its config)"; fi
    cd "$start"
    code=0
    if [ "$answers" = /dev/tty ]; then "$bin/aigw" init </dev/tty || code=$?; else "$bin/aigw" init || code=$?; fi
    say ""
    if [ "$code" != 0 ]; then
      tell_about_path
      say "aigw is installed, but not set up. To do that: $aigw init"
      exit "$code"
    fi
  elif [ -z "$dry" ]; then
    say "next: $aigw init      (asks; without questions: aigw init --yes --from-env)"
    say "then: $aigw serve"
  fi
  if [ -z "$dry" ]; then
    tell_about_path # last: what was said to be typed needs it
    say "completion with Tab, if you like: aigw --install-completion"
  fi
}

# Before another program takes this process over, which no trap survives.
leave_nothing() { if [ -n "${work:-}" ]; then rm -rf "$work"; fi; }

# The second line of every launcher that is written from a checkout; the environment it starts is named in the third.
mark="# written by aigw's install.sh"

# Lies in every folder we made: what has none is not ours to remove.
made=".made-by-aigw-install"

# A launcher of ours, or a single file: that ends in a trailer of 56 bytes which begins with its magic.
is_ours() { is_launcher "$1" || is_single_file "$1"; }

is_launcher() { [ -f "$1" ] && [ "$(sed -n 2p "$1" 2>/dev/null | tr -d '\000')" = "$mark" ]; }

is_single_file() { [ -f "$1" ] && [ "$(tail -c 56 "$1" 2>/dev/null | head -c 8 | tr -d '\000')" = AIGWSFX2 ]; }

refuse_foreign() {
  if { [ -e "$1" ] || [ -L "$1" ]; } && ! is_ours "$1"; then
    fail "$1 exists and is not ours: move it away, or choose another folder with AIGW_BIN_DIR"
  fi
}

# The folder of the environment a launcher starts.
environment_of() { is_launcher "$1" && sed -n '3s/^# environment: //p' "$1"; }

is_our_environment() { [ -d "$1" ] && [ ! -L "$1" ] && [ -f "$1/$made" ]; }

# A path as a person types it.
typed() {
  case $1 in
    *[!A-Za-z0-9/._+-]*) quoted "$1" ;;
    *) printf '%s' "$1" ;;
  esac
}

quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

tell_about_path() {
  case ":$PATH:" in
    *":$bin:"*)
      first=$(command -v aigw 2>/dev/null) || first=""
      if [ -n "$first" ] && [ ! "$first" -ef "$bin/aigw" ]; then
        say "warning: another aigw comes first on your PATH: $first. 'aigw' means that one, and $bin/aigw is this one"
      fi ;;
    *) say "$bin is not on your PATH yet. Type this line here, and add it to your shell's start-up file:"
       say "  export PATH=\"$bin:\$PATH\"" ;;
  esac
}

# A config with the demo provider and one key, for whoever has no config yet.
prepare_demo() {
  if [ -n "$dry" ]; then
    say "would write a config with the demo provider and create the key 'demo', unless there is a config already"
    return
  fi
  if [ -e "$config" ]; then
    say "$config exists and stays as it is: no demo provider and no key were added."
    say "  a key:             aigw keys create NAME"
    say "  the demo provider: a line [providers.demo] in that file"
    return
  fi
  # the key first: when that fails there is no half-made demo, and the next run starts afresh
  talk=$(mktemp "${TMPDIR:-/tmp}/aigw.XXXXXX")
  key=$(cd "$start" && "$bin/aigw" keys create demo 2>"$talk") || key=""
  [ -n "$key" ] || cat "$talk" >&2
  rm -f "$talk"
  [ -n "$key" ] || fail "no demo key was made, so no config either. To make one yourself: aigw keys create NAME"
  write_config || fail "cannot write $config"
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

# ---- taking it away

# Lists have a path on each line: no path of ours holds a line break.
remove() {
  doomed="" emptied="" stays="" verb=removed
  folder=$(environment_of "$bin/aigw") || folder=""
  if [ -n "$folder" ] || is_single_file "$bin/aigw"; then doom "$bin/aigw"; fi
  find_environments
  find_releases
  if [ -n "$purge" ]; then find_kept; fi
  if [ -z "${AIGW_HOME:-}" ] && [ ! -L "$home" ]; then empty "$home"; fi # the default one is named after us
  if [ -z "$doomed" ]; then
    say "aigw is not installed here: no $bin/aigw of ours, no environment of ours in $home/env"
    [ -n "$purge" ] || tell_what_is_kept
    return
  fi
  if [ -n "$purge" ] && [ -z "$dry" ]; then
    refuse_while_serving
    agree
  fi
  [ -z "$dry" ] || verb="would remove"
  each "$doomed" remove_one
  each "$emptied" remove_empty
  if [ -n "$purge" ]; then
    each "$stays" tell_of_stranger
  else
    tell_what_is_kept
  fi
}

doom() { doomed="$doomed$1$newline"; }
empty() { emptied="$emptied$1$newline"; }
stay() { stays="$stays$1$newline"; }

# each LIST FUNCTION: FUNCTION with each of its lines.
each() {
  lines=$1 call=$2
  while [ -n "$lines" ]; do
    line=${lines%%"$newline"*}
    lines=${lines#*"$newline"}
    "$call" "$line"
  done
}

remove_one() {
  [ -n "$dry" ] || rm -rf "$1" || fail "could not remove $1"
  say "$verb $1"
}

remove_empty() {
  [ -d "$1" ] || return 0
  if [ -n "$dry" ]; then
    say "$verb $1, if it is empty then"
  else
    rm -f "$1/$made"
    if rmdir "$1" 2>/dev/null; then say "$verb $1"; fi
  fi
}

tell_of_stranger() { say "not ours, so it stays: $1"; }

tell_what_is_kept() {
  [ ! -e "$config" ] || say "kept your config: $config"
  [ ! -e "$data/aigw.db" ] || say "kept your keys and records: $data"
  if [ -e "$config" ] || [ -e "$data/aigw.db" ]; then say "to remove these as well: bash install.sh --uninstall --purge"; fi
}

# What was made below AIGW_HOME from a checkout, and its folders.
find_environments() {
  if [ -L "$home/env" ]; then
    say "$home/env is a symbolic link, which is not followed: remove by hand what it points to"
    return
  fi
  for one in "$home"/env/* "$home"/env/.building.*; do
    if is_our_environment "$one"; then doom "$one"; fi
  done
  if [ -f "$home/env/$made" ]; then empty "$home/env"; fi
}

# What a single file unpacked, and what is kept of releases. Nobody writes there but us.
find_releases() {
  for one in "${AIGW_RUNTIME_DIR:-${XDG_DATA_HOME:-${HOME:-}/.local/share}/aigw/rt}"; do
    if [ -L "$one" ] || [ ! -d "$one" ]; then continue; fi
    for below in "$one"/* "$one"/.new.* "$one"/.old.*; do
      if is_runtime "$below"; then doom "$below"; fi
    done
    empty "$one"
  done
  if [ -d "$data/releases" ] && [ ! -L "$data/releases" ]; then
    doom_files "$data/releases/revoked.json" "$data"/releases/revoked.json.sig* "$data/releases/.lock" "$data"/releases/.new.*
    for one in "$data"/releases/*; do
      if [ -d "$one" ] && [ ! -L "$one" ]; then
        doom_files "$one"/SHA256SUMS "$one"/SHA256SUMS.sig* "$one/aigw" "$one"/.new.*
        empty "$one"
      fi
    done
    empty "$data/releases"
  fi
}

is_runtime() { [ -d "$1" ] && [ ! -L "$1" ] && [ -f "$1/manifest.json" ] && [ -f "$1/bin/python3._pth" ]; }

# The files that aigw wrote, by the names it gives them: config, provider keys beside it, database, journal and what else lies in
# the data directory. A folder that is a symbolic link is not entered; a link in a file's place goes, not its target.
find_kept() {
  beside=$(dirname "$config")
  doom_files "$config" "$beside/.${config##*/}.new"
  if [ ! -L "$beside/keys" ]; then
    for one in "$beside"/keys/*; do
      # in a folder that is not named after us only those that the config names
      if [ -z "${AIGW_CONFIG:-}" ] || grep -qF "keys/${one##*/}\"" "$config" 2>/dev/null; then doom_files "$one"; fi
    done
    [ -n "${AIGW_CONFIG:-}" ] || empty "$beside/keys"
  fi
  if [ -L "$data" ]; then
    say "$data is a symbolic link, which is not followed: remove by hand what it points to"
  else
    doom_files "$data"/aigw.db "$data"/aigw.db-wal "$data"/aigw.db-shm "$data"/aigw.db-journal "$data"/aigw.db.v*.backup \
      "$data"/aigw.db.before-* "$data"/consumers.cache* "$data"/operator.key "$data"/control.sock "$data"/control.lock "$data"/plugins.trusted "$config".before
    if [ ! -L "$data/journal" ]; then
      doom_files "$data"/journal/[0-9]*-[0-9]*-*.journal "$data"/journal/damaged.lines
      empty "$data/journal"
    fi
    if [ ! -L "$data/models" ]; then
      doom_files "$data"/models/*.json "$data"/models/*.new
      empty "$data/models"
    fi
    if [ ! -L "$data/configs" ]; then
      doom_files "$data"/configs/*.toml "$data"/configs/.[0-9a-f]*
      empty "$data/configs"
    fi
  fi
  if [ -z "${AIGW_DATA_DIR:-}" ] && [ ! -L "$data" ] && [ "$data" != "$home" ]; then empty "$data"; fi
  if [ -z "${AIGW_CONFIG:-}" ] && [ ! -L "$beside" ] && [ "$beside" != "$data" ]; then empty "$beside"; fi
  if grep -qE '^[[:space:]]*url[[:space:]]*=[[:space:]]*"sqlite:.' "$config" 2>/dev/null; then
    stay "the database that [storage] url in $config names"
  fi
  if [ -L "$config" ]; then stay "what the link $config points to"; fi
  note_strangers
}

doom_files() {
  for each_file in "$@"; do
    if [ -L "$each_file" ] || [ -f "$each_file" ] || [ -S "$each_file" ]; then doom "$each_file"; fi
  done
}

# What else lies in the two folders that are named after us.
note_strangers() {
  if [ -z "${AIGW_DATA_DIR:-}" ] && [ ! -L "$data" ]; then
    for one in "$data"/*; do note_stranger "$one"; done
  fi
  if [ -z "${AIGW_CONFIG:-}" ] && [ ! -L "$beside" ] && [ "$data" != "$beside" ]; then
    for one in "$beside"/*; do note_stranger "$one"; done
  fi
}

note_stranger() {
  if [ ! -e "$1" ] || [ "$1" = "$home/env" ]; then return; fi
  case $newline$doomed$emptied in
    *"$newline$1$newline"*) ;;
    *) stay "$1" ;;
  esac
}

refuse_while_serving() {
  [ -x "$bin/aigw" ] || return 0
  # one that is there and says nothing is running, too
  said=$("$bin/aigw" status --json 2>&1) || :
  case $said in
    *'"running": false'*) ;;
    *'"running"'* | *'did not answer'*)
      fail "aigw serve is running, and what it keeps would be removed under it: stop it first ('aigw status' says where it is)" ;;
  esac
}

agree() {
  [ -z "$yes" ] || return 0
  say "These are removed for good:"
  each "$doomed" tell_doomed
  answers=$(terminal) || { say "Nothing was removed. There is no terminal to ask at: add --yes when you are certain."; exit 2; }
  printf 'Remove them? [y/N] ' >&2
  answer=""
  if [ "$answers" = /dev/tty ]; then read -r answer </dev/tty || answer=""; else read -r answer || answer=""; fi
  case $answer in
    y | Y | yes | Yes | YES) ;;
    *) say "Nothing was removed."; exit 1 ;;
  esac
}

tell_doomed() { say "  $1"; }

{ main "$0" "$@"; exit; }