# shellcheck shell=bash
# Sourced by image/base and image/tools, after lib.sh: a Debian 13 of exact origin, made by mmdebstrap. What changes here makes them anew.

# No file of a root is younger, whatever day it was made: Debian 13's release. So a release changes the files that it changes.
base_epoch=1754697600
# shellcheck source=image/mirror.sh
. "$image/mirror.sh"
more_sources=() # lines of sources.list beside Debian's

# Which mirror apt has on this machine; EDGECALL_MIRROR, or build's --mirror, stands above it.
debian_mirror() {
  local found=${EDGECALL_MIRROR:-}
  found=${found:-$(apt_mirror /debian)}
  [ -n "$found" ] || die "apt on this machine names no mirror of Debian (an address that ends in /debian)" "Name one with --mirror URL."
  printf '%s\n' "${found%/}"
}
# The mirror of its security updates, beside the other unless apt knows one.
security_mirror() {
  local found=""
  [ -n "${EDGECALL_MIRROR:-}" ] || found=$(apt_mirror /debian-security)
  if [ -n "$found" ]; then printf '%s\n' "$found"; else debian_mirror | sed 's|/debian\(/[^/]*\)\{0,1\}$|/debian-security\1|'; fi
}

# debian ARCHITECTURE PACKAGES OUT [OPTION...]: a Debian 13 with these packages (separated by commas), RAUC from the suite that has it.
# What mmdebstrap says is in $cache/mmdebstrap.log, and its end is shown where it fails.
debian() {
  local architecture=$1 packages=$2 out=$3 mirror security log=$cache/mmdebstrap-$1-$$.log own=()
  shift 3
  mirror=$(debian_mirror)
  security=$(security_mirror)
  mapfile -t own < <(apt_way)
  [ -z "${EDGECALL_SNAPSHOT:-}" ] || own+=(--aptopt='Acquire::Check-Valid-Until "false"') # what was valid then
  # RAUC's suite is not finished, and a mirror may hold an index of it that is over: which versions are taken is written in the
  # preferences, and whose signature they have is looked at all the same.
  if ! mmdebstrap --quiet --architectures="$architecture" --variant=minbase --include="$packages" \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "2"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    "${own[@]}" --setup-hook="install -D -m 644 '$image/apt/rauc.pref' \"\$1/etc/apt/preferences.d/rauc\"" \
    "$@" trixie "$out" \
    "deb $mirror trixie main non-free-firmware" "deb $mirror trixie-updates main non-free-firmware" \
    "deb $security trixie-security main non-free-firmware" \
    "deb [check-valid-until=no] $mirror forky main" "${more_sources[@]}" >"$log" 2>&1; then
    grep -v '^$' "$log" | tail -n 12 >&2
    if grep -qE 'Temporary failure|Could not (resolve|connect)|Unable to connect|Connection (failed|timed out)|Network is unreachable' "$log"; then
      die "a mirror of Debian cannot be reached" "Check the network, or name another with --mirror URL. Full log: $log"
    elif grep -qE 'rauc.*(not going to be installed|is not installable)|Version.*for .rauc. was not found' "$log"; then
      die "the mirror no longer has RAUC in the versions of image/apt/rauc.pref" \
        "Look at what is new there, and name the version that is to be taken. Full log: $log"
    fi
    die "mmdebstrap made no Debian for $architecture" "Its words are above; full log: $log"
  fi
  rm -f "$log"
}
