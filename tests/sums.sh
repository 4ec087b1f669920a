# shellcheck shell=bash
# What a test's outcome depends on, a line each: for tests/hil/inputs, tests/image/inputs and tests/peers/inputs, which source it.

# sums_of_files PATHSPEC...: of the working tree, with what nobody has added to git yet
sums_of_files() {
  git ls-files -z --cached --others --exclude-standard -- tests/sums.sh "$@" |
    sort -z | while IFS= read -rd '' file; do
      [ ! -e "$file" ] || printf '%s\0' "$file" # git still lists what was deleted
    done | xargs -0 sha256sum
}

versions_of_python() {
  python -V
  python -m pip freeze --disable-pip-version-check --exclude-editable
}

# versions_of_packages [ROOT]...: every Debian package of this machine, and of those folders
versions_of_packages() {
  # shellcheck disable=SC2016  # dpkg's own words, and no variables
  local packages='${db:Status-Abbrev}${Package} ${Version}\n' folder
  dpkg-query -W -f "$packages"
  for folder in "$@"; do
    dpkg-query --root "$folder" -W -f "$packages"
  done
}
