# shellcheck shell=bash
# Sourced by the programs of this folder: their words, what they ask of the machine, and programs that run in a Debian of theirs.

image=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgecall/image
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C.UTF-8 TZ=UTC
called=$(printf '%q ' "$0" "$@") # with the words of who sources this

say() { printf '== %s\n' "$*" >&2; }
die() {
  printf '\n%s: %s\n' "$(basename "$0")" "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}
usage() { # STATUS: the comment that a program begins with
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
  exit "$1"
}
need_root() { [ "$(id -u)" = 0 ] || die "only root may do this: files of an image belong to root" "Run: sudo ${called% }"; }
need() { # PROGRAM PACKAGE
  command -v "$1" >/dev/null || die "there is no program '$1'" "As root, run: apt-get install $2"
}
hash_of() { sha256sum | cut -c1-16; }
# keep_newest COUNT BEGINNING: of what the cache has under names that begin so
keep_newest() {
  find "$cache" -maxdepth 1 -name "$2*" -printf '%T@ %p\n' | sort -rn | tail -n "+$(($1 + 1))" | cut -d' ' -f2- | xargs -r rm -rf
}
# only_one NAME WHAT: holds $cache/NAME.lock (as 9) until this program ends, and says what it waits for where another one holds it
only_one() {
  mkdir -p "$cache"
  exec 9>"$cache/$1.lock"
  flock -n 9 && return
  say "another build makes $2 now: waiting for it"
  flock 9
}
# need_space FOLDER MIB: FOLDER is made where it is missing
need_space() {
  local free
  mkdir -p "$1"
  free=$(df --output=avail -BM "$1" | tail -n 1 | tr -dc 0-9)
  [ "$free" -ge "$2" ] || die "$1 has $free MiB free, and $2 are needed" "Make room, or name another folder."
}

# in_debian ROOT COMMAND...: runs it there, with $work as /work and this folder as /image, and leaves no mount behind.
# Where $work is and what time it is there ($SOURCE_DATE_EPOCH) is set by who calls this.
in_debian() {
  local root=$1
  shift
  mkdir -p "$root/work" "$root/image"
  # shellcheck disable=SC2016  # for the shell in there
  unshare --mount --propagation private sh -c '
    root=$1 && mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" && mount -t tmpfs tmpfs "$root/run" &&
      mount --bind "$2" "$root/work" && mount --bind "$3" "$root/image" && shift 3 &&
      exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TZ=UTC HOME=/root DEBIAN_FRONTEND=noninteractive \
        PYTHONPATH=/image PYTHONDONTWRITEBYTECODE=1 MTOOLS_SKIP_CHECK=1 SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" chroot "$root" "$@"
  ' sh "$root" "$work" "$image" "$@"
}
