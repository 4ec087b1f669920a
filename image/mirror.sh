# shellcheck shell=bash
# Sourced by whatever has mmdebstrap make a Debian: from which mirror, and by which way. mmdebstrap itself reads nothing of this machine's
# apt, which may have no other way to a mirror than the one that it was told.

# apt_mirror END: the first of this machine's apt whose address ends so, without the "/" at its end; nothing if there is none
apt_mirror() {
  local all
  # shellcheck disable=SC2016  # apt's own variable
  all=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sed -n "s|/*\$||; \|$1\$|p") || true
  printf '%s' "${all%%$'\n'*}"
}

# apt_way: options of mmdebstrap, a line each: proxies and certificates, and how old or young what a mirror says may be
apt_way() {
  apt-config dump Acquire |
    sed -nE 's/^(Acquire::(https?::[^ ]+|Check-Valid-Until|Check-Date|(Min|Max)-ValidTime[^ ]*|Max-FutureTime) ".+");$/--aptopt=\1/p'
}
