# shellcheck shell=bash
# Sourced by scripts/run and scripts/test: finds Python, installs the Debian packages and Python packages that are missing.
# Everything it installs is named before; what cannot be done is named with what to do instead.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgecall
venv=$root/.venv
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # an ordinary user's PATH on Debian leaves out where mosquitto and ip are

say() { printf '== %s\n' "$*" >&2; }
die() {
  printf '\n%s: %s\n' "$(basename "$0")" "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

# What passed at its second run alone (tests/conftest.py writes it down). A stage that has such a one leaves no record of having passed.
tell_unsteady() {
  sort -u "$EDGECALL_UNSTEADY" | sed 's/^/unsteady, failed at first and was run again: /'
}

# -- Python ---------------------------------------------------------------------------------------------------------------

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

# Sets $python to an interpreter of 3.11 to 3.13.
find_python() {
  local name
  for name in ${EDGECALL_PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if python=$(command -v "$name") && suits "$python"; then return; fi
  done
  python=$(command -v "${EDGECALL_PYTHON:-python3}") || {
    [ -z "${EDGECALL_PYTHON:-}" ] || die "EDGECALL_PYTHON is $EDGECALL_PYTHON, and there is no such program"
    return 1
  }
  die "$python is $("$python" -V 2>&1), and Edgecall needs Python 3.11, 3.12 or 3.13" \
    "Debian 12 has 3.11, Ubuntu 24.04 has 3.12, Debian 13 has 3.13." \
    "Another interpreter is taken with: EDGECALL_PYTHON=/path/to/python3.13 scripts/$(basename "$0")"
}

# -- Debian packages ------------------------------------------------------------------------------------------------------

missing=()
venv_options=() # of a virtual environment that is made
want() { # PACKAGE COMMAND...: the package is missing if the command fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || [[ " ${missing[*]} " == *" $package "* ]] || missing+=("$package")
}
on_path() { command -v "$1"; }
has_module() { [ -n "${python:-}" ] && "$python" -c "import ${1//,/, }"; }
has_library() { compgen -G "/usr/lib/*/$1" >/dev/null; }
# has_candidate PACKAGE: apt could install it. Not "apt-cache show", which is content with a name that is only referred to; and no
# "| grep -q", which may end before apt-cache has said all, and then the whole has failed.
has_candidate() {
  local policy
  policy=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null) && [[ $policy =~ 'Candidate: '[^\(] ]]
}
# Janus, or on Debian 13, which has none, what makes a folder with the suite that has it.
want_janus() {
  if on_path janus >/dev/null || has_candidate janus; then
    want janus on_path janus
  else
    want mmdebstrap on_path mmdebstrap
  fi
}
# janus_of SUITE: prints the folder with the Janus of a Debian suite; beside that of sid is a WHIP server, of which npm has none
janus_of() {
  local packages=(janus)
  [ "$1" != sid ] || packages+=(simple-whip-server)
  tests/peers/suite "$1" "${packages[@]}"
}
# find_janus SUITE: the Janus of this Debian suite; of "" the one on PATH, or where there is none, that of a suite that has it. To be
# called in the folder of the project, when all is installed.
find_janus() {
  local suite=$1
  [ -n "$suite" ] || ! on_path janus >/dev/null || return 0
  EDGECALL_JANUS_ROOT=$(janus_of "${suite:-bookworm}") ||
    die "there is no folder with the Janus of Debian ${suite:-bookworm}" "What mmdebstrap says of it is above."
  export EDGECALL_JANUS_ROOT
}
# What a real board's devices need. Sets $board_extra, and where the system has picamera2, which finds CSI cameras, also its Python
# ($python) and $venv_options: libcamera is on no index of Python packages.
want_board() {
  board_extra=board
  if has_candidate python3-picamera2; then # Raspberry Pi OS
    want python3-picamera2 /usr/bin/python3 -c 'import picamera2'
    # shellcheck disable=SC2034 # read by install_project and by who sources this
    python=/usr/bin/python3 venv_options=(--system-site-packages) board_extra=pi
  fi
  want gcc on_path gcc
  want python3-dev has_headers
  want pkg-config on_path pkg-config
  want libsystemd-dev pkg-config --exists libsystemd
  want libasound2-dev test -e /usr/include/alsa/asoundlib.h
  if [ -n "${python:-}" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then # no wheel of lgpio
    want swig on_path swig
    export PYPI=1 # compile the library with it: it is in no Debian
  fi
  want libsdl2-2.0-0 has_library libSDL2-2.0.so.0 # and, to draw by KMSDRM:
  want libegl1 has_library libEGL.so.1
  want libgles2 has_library libGLESv2.so.2
  want libgl1-mesa-dri has_library dri/swrast_dri.so
  want fonts-dejavu-core test -e /usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf
}
has_headers() { [ -n "${python:-}" ] && "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'; }
# Debian's own Python has gi, whatever ours is. Says whether GStreamer and its registry know an element.
has_gst() {
  /usr/bin/python3 -c 'import sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
sys.exit(Gst.ElementFactory.find(sys.argv[1]) is None)' "$1"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

may_install() {
  local apt_line="apt-get install ${missing[*]}"
  command -v apt-get >/dev/null || die "these are missing: ${missing[*]} (names of Debian packages)" \
    "This system has no apt-get. Install what they hold with your package manager, then run this again."
  [ "$(id -u)" != 0 ] || return 0
  command -v sudo >/dev/null || die "these Debian packages are missing and there is no sudo: ${missing[*]}" \
    "As root, run: $apt_line" "Then run this again."
  sudo -n true 2>/dev/null && return 0
  if [ -t 0 ]; then
    say "sudo asks for your password to install: ${missing[*]}"
    sudo -v && return 0
  fi
  die "these Debian packages are missing and sudo does not let $(id -un) install them: ${missing[*]}" \
    "Ask an administrator to run: sudo $apt_line" "Then run this again."
}

# Debian starts the services of mosquitto, coturn, janus and kamailio as it installs them. Ours are child processes on ports and in
# folders of their own, so a service that was not there before is stopped and kept from starting again.
rest_service() { # NAME
  [ -e "/etc/init.d/$1" ] || return 0 # cut short before it came
  if [ -d /run/systemd/system ]; then
    as_root systemctl disable --now --quiet "$1.service"
  else
    as_root service "$1" stop >/dev/null 2>&1 || true # never started where a policy forbids it: then this fails
    as_root update-rc.d "$1" disable
  fi
  say "the system's $1 service came with the package: stopped and disabled (Edgecall runs its own, as you)"
  say "to have it back: sudo systemctl enable --now $1"
}

# dpkg that was interrupted (by Ctrl-C, or long ago by somebody else) leaves its journal, with which apt-get installs nothing.
finish_dpkg() {
  [ -n "$(find /var/lib/dpkg/updates -type f 2>/dev/null)" ] || return 0
  say "finishing an interrupted installation: dpkg --configure -a"
  as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a >>"$cache/apt.log" 2>&1 ||
    say "it did not succeed; its words are at the end of $cache/apt.log"
}

after_install() {
  trap - EXIT INT
  finish_dpkg
  local service
  for service in mosquitto coturn janus kamailio; do
    [[ " ${missing[*]} " != *" $service "* ]] || rest_service "$service"
  done
}

# Installs what `want` found missing.
install_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  may_install
  local apt=(apt-get -q -y -o Dpkg::Use-Pty=0 -o Acquire::Retries=2) log=$cache/apt.log
  mkdir -p "$cache"
  : >"$log"
  finish_dpkg
  say "installing Debian packages: ${missing[*]}"
  trap after_install EXIT
  trap 'exit 130' INT
  as_root "${apt[@]}" update >>"$log" 2>&1 || true # a dead mirror is told by the install
  if ! as_root env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --no-install-recommends "${missing[@]}" 2>&1 |
    tee -a "$log" | sed -nu 's/^Unpacking \([^ ]*\) \(([^)]*)\).*/   \1 \2/p' >&2; then
    tail -n 12 "$log" >&2
    if grep -qE 'Temporary failure|Could not (resolve|connect)|Unable to connect|Network is unreachable' "$log"; then
      die "the package mirror cannot be reached, so these are still missing: ${missing[*]}" \
        "Check the network (and the addresses in /etc/apt), then run this again. Full log: $log"
    fi
    die "apt-get could not install: ${missing[*]}" "Its words are above; full log: $log"
  fi
  after_install
  missing=()
}

# -- Python packages ------------------------------------------------------------------------------------------------------

# install_project EXTRAS: the project, editable, with its dependencies, into .venv. A stamp makes a second run instant.
install_project() {
  local extras=$1 stamp target=$root
  stamp=$venv/.installed-${extras:-run}
  [ -z "$extras" ] || target="${root}[$extras]"
  local print
  print=$("$python" -c 'import sys; print(sys.version, sys.prefix)' | cat - "$root/pyproject.toml" | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$print" ] && [ -x "$venv/bin/python" ]; then return; fi

  mkdir -p "$cache"
  trap 'exit 130' INT # the next run goes on where this one was stopped
  if [ -x "$venv/bin/python" ] && ! { suits "$venv/bin/python" && "$venv/bin/python" -m pip -V >/dev/null 2>&1; }; then
    say "the virtual environment $venv does not work with this Python: making it anew"
    rm -rf "$venv"
  fi
  if [ ! -x "$venv/bin/python" ]; then
    say "making the virtual environment .venv with $("$python" -V)"
    if ! "$python" -m venv "${venv_options[@]}" "$venv" >"$cache/venv.log" 2>&1; then
      tail -n 5 "$cache/venv.log" >&2
      rm -rf "$venv"
      die "the virtual environment could not be made" "Python's words are above; full log: $cache/venv.log"
    fi
  fi
  say "installing Python packages (about 100 MB at the first time) into .venv"
  if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input -e "$target" 2>&1 |
    tee "$venv/pip.log" | sed -nu 's/^  *\(Downloading\|Using cached\) \([^-]*-[^-]*\)[^ ]*\(\.whl\|\.gz\) \((.*)\)$/   \2 \4/p; s/^Installing collected.*/   unpacking/p; s/^.*WARNING: Retrying.*/   no answer from the package index, trying again/p'; then
    tail -n 15 "$venv/pip.log" >&2
    if grep -qE 'NewConnectionError|NameResolutionError|Network is unreachable|ConnectTimeout|ReadTimeout' "$venv/pip.log"; then
      die "the Python package index cannot be reached" "Check the network, then run this again. Full log: $venv/pip.log"
    fi
    die "the Python packages could not be installed" "pip's words are above; full log: $venv/pip.log"
  fi >&2
  printf '%s\n' "$print" >"$stamp"
  trap - INT
}
