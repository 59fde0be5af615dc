# Finding a Python and filling an environment from a hash lock. Sourced by install.sh and tests/run, from the checkout.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Nothing of the caller's Python settings may reach the environment we make. pip's index settings stay: a mirror is wanted.
clean_python_settings() {
  unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONPLATLIBDIR VIRTUAL_ENV
  unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_NO_BINARY PIP_CONSTRAINT PIP_REQUIREMENT
}

# use_network_settings INDEX_URL CA_FILE: what the user says about the way out, in every spelling that pip, curl and uv read. Call it
# in a subshell: it is for the downloads alone. Either may be empty: then the environment decides, and pip.conf behind it.
use_network_settings() {
  local trusted
  if [ -n "${HTTP_PROXY:-}" ] && [ -z "${http_proxy:-}" ]; then export http_proxy=$HTTP_PROXY; fi # curl reads only this one
  if [ -n "$1" ]; then export PIP_INDEX_URL=$1; fi
  if [ -n "$2" ]; then
    export PIP_CERT=$2 REQUESTS_CA_BUNDLE=$2 CURL_CA_BUNDLE=$2 SSL_CERT_FILE=$2
    return
  fi
  trusted=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${CURL_CA_BUNDLE:-${SSL_CERT_FILE:-}}}}
  if [ -f "$trusted" ]; then
    # not PIP_CERT, which would win over a pip.conf
    export REQUESTS_CA_BUNDLE="${REQUESTS_CA_BUNDLE:-$trusted}" CURL_CA_BUNDLE="${CURL_CA_BUNDLE:-$trusted}" SSL_CERT_FILE="${SSL_CERT_FILE:-$trusted}"
  fi
}

# usable_ca_file DIR FILE: the absolute path of FILE, which may be relative to DIR, once it is sure that it holds a certificate.
usable_ca_file() {
  local file=$2
  case $file in
    /*) ;;
    '~/'*) file="${HOME:-}/${file#'~/'}" ;;
    *) file="$1/$file" ;;
  esac
  [ -r "$file" ] || fail "--ca-file $2: there is no such file, or you may not read it"
  grep -q -e '-----BEGIN \(TRUSTED \)\{0,1\}CERTIFICATE-----' "$file" 2>/dev/null ||
    fail "--ca-file $2 holds no certificate; expected PEM text, with a line -----BEGIN CERTIFICATE-----"
  printf '%s\n' "$file"
}

# CPython 3.11 to 3.14 (the locked wheels are built for these) with what aigw needs of the standard library.
fits() {
  "$1" -c 'import sys, ctypes, sqlite3, ssl, venv, zlib
sys.exit(not ((3, 11) <= sys.version_info[:2] < (3, 15) and sys.implementation.name == "cpython"))' >/dev/null 2>&1
}

# Prints the Python to use. AIGW_PYTHON decides when it is set. Else the system's own comes first: distributions build it
# optimised and keep it patched, while the version manager that shadows it on PATH usually has neither (measured: a pyenv build
# runs 13 to 25 % more instructions per request). Last, uv may bring one.
find_python() {
  local candidate
  if [ -n "${AIGW_PYTHON:-}" ]; then
    command -v "$AIGW_PYTHON" >/dev/null 2>&1 || fail "AIGW_PYTHON=$AIGW_PYTHON: there is no such program"
    fits "$AIGW_PYTHON" || fail "AIGW_PYTHON=$AIGW_PYTHON is not CPython 3.11 to 3.14 with ssl, sqlite3, ctypes and venv"
    command -v "$AIGW_PYTHON"
    return
  fi
  for candidate in /usr/bin/python3 /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13 /usr/bin/python3.14 \
    /opt/homebrew/bin/python3 /usr/local/bin/python3 \
    python3 python3.13 python3.12 python3.11 python3.14; do
    candidate=$(command -v "$candidate" 2>/dev/null) || continue
    if fits "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  if command -v uv >/dev/null 2>&1; then
    say "no Python 3.11 to 3.14 here: asking uv for one"
    candidate=$(uv python find --system --no-project '>=3.11,<3.15' 2>/dev/null) || {
      uv python install 3.13 >&2 || fail "uv could not install Python 3.13: see above"
      candidate=$(uv python find --system --no-project 3.13)
    }
    fits "$candidate" || fail "the Python that uv found ($candidate) does not work here"
    printf '%s\n' "$candidate"
    return
  fi
  fail "Python 3.11 to 3.14 is needed and none was found$(old_python).
  Debian 12 or later, Ubuntu 24.04 or later: apt install python3      macOS: brew install python3
  elsewhere: install uv, which brings its own, or set AIGW_PYTHON to one that you have"
}

old_python() {
  local version
  version=$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null) && printf ' (python3 is %s)' "$version"
  return 0
}

# make_environment PYTHON FOLDER LOCK: fills FOLDER (made when missing) with exactly what LOCK names, each file checked against
# its SHA-256, wheels only, so that no package runs code while it is installed. pip itself stays outside.
make_environment() {
  local python=$1 folder=$2 lock=$3 tools
  [ -x "$folder/bin/python" ] || "$python" -m venv --without-pip "$folder" || fail "could not make $folder"
  tools=$(mktemp -d "${TMPDIR:-/tmp}/aigw-pip.XXXXXX")
  if ! fill_environment "$python" "$folder" "$lock" "$tools"; then
    rm -rf "$tools"
    return 1
  fi
  rm -rf "$tools"
}

fill_environment() {
  local python=$1 folder=$2 lock=$3 tools=$4 wheel
  local -a pip
  if "$python" -c 'import ensurepip' >/dev/null 2>&1 && "$python" -m venv "$tools/env" >/dev/null 2>&1; then
    pip=("$tools/env/bin/python" -m pip)
  else
    say "this Python brings no pip: fetching the pinned one"
    wheel=$("$python" packaging/pinned_pip.py "$tools") || return 1
    pip=("$python" "$wheel/pip")
  fi
  "${pip[@]}" --python "$folder/bin/python" install --quiet --disable-pip-version-check --no-input --no-deps \
    --require-hashes --only-binary :all: -r "$lock" || {
    say "the dependencies could not be installed. See above, then:
  behind a proxy              HTTPS_PROXY=http://[user:password@]host:port bash install.sh
  with an index of your own   bash install.sh --index-url https://pypi.example/simple
  a certificate is unknown    bash install.sh --ca-file /etc/ssl/company.pem"
    return 1
  }
}
