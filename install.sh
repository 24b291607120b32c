#!/bin/sh
# Installs napd on this machine, or upgrades it. In an unpacked release:
#
#     sh install.sh [OPTIONS]
#
# or with the archive of one, as a file or an address:
#
#     sh install.sh --from napd-VERSION-linux-x64.tar.gz [OPTIONS]
#
# It looks whether this machine is one that it knows and hands over to `napd install`. Running it again is fine at any
# time.
set -eu

usage() {
  cat <<'END'
sh install.sh [OPTIONS]     installs this release of napd, or upgrades to it

  --from FILE_OR_URL  the archive of a release instead; SHA256SUMS beside it is checked, if it is there
  --packages FOLDER   packages (.deb) and images (.tar) as files, for machines without a network
  --no-start          put everything in its place, start nothing
  --any-os            go on, on a system that this was not tried on
  --wait DURATION     how long napd may take to answer before what ran before runs again
  --help
END
}

say() { printf 'napd: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# --- this machine ------------------------------------------------------------------------------------------------

check_architecture() {
  case $(uname -m) in
  x86_64 | amd64) arch=x64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) die "napd runs on x86_64 and arm64, and this machine is $(uname -m)" ;;
  esac
  # a 64-bit kernel may carry a 32-bit system, as on Raspberry Pi OS (32-bit)
  [ "$(getconf LONG_BIT 2>/dev/null || echo 64)" = 64 ] ||
    die "this system is a 32-bit one, although its kernel is not: install the 64-bit edition of it"
}

# See os-release(5).
os_release() { sed -n "s/^$1=//p" "$root/etc/os-release" 2>/dev/null | tr -d "\"'"; }

# Raspberry Pi OS (64-bit) says that it is Debian.
check_system() {
  [ -z "$any_os" ] || return 0
  id=$(os_release ID) version=$(os_release VERSION_ID) name=$(os_release PRETTY_NAME)
  case $id-$version in
  debian-12 | debian-13 | ubuntu-22.04 | ubuntu-22.10 | ubuntu-23.* | ubuntu-24.* | ubuntu-25.* | ubuntu-26.04) ;;
  *) die "napd was tried on Debian 12 and 13, Ubuntu 22.04 to 26.04 and Raspberry Pi OS (64-bit), and this is ${name:-an unknown system}; --any-os goes on all the same" ;;
  esac
}

check_systemd() {
  [ -d "$root/run/systemd/system" ] ||
    die "systemd does not run here; napd runs without it too: unpack the release anywhere and start bin/napd as root"
}

# --- the release -------------------------------------------------------------------------------------------------

fetch() { # fetch ADDRESS FILE
  if has curl; then
    curl -fsSL --retry 2 -o "$2" "$1"
  elif has wget; then
    wget -q -O "$2" "$1"
  else
    die "fetching $1 takes curl or wget: install one, or fetch it elsewhere and give the file"
  fi
}

# Sets $release to the folder in $work that the archive was unpacked to.
unpack() {
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/napd-install.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM
  case $from in
  http://* | https://*)
    archive=$work/${from##*/}
    say "fetching $from …"
    fetch "$from" "$archive" 2>"$work/why" ||
      die "$from cannot be fetched: $(tail -n 1 "$work/why"); fetch it elsewhere and give the file"
    fetch "${from%/*}/SHA256SUMS" "$work/SHA256SUMS" 2>/dev/null || rm -f "$work/SHA256SUMS"
    ;;
  *)
    archive=$from
    [ -f "$archive" ] || die "there is no file $archive"
    sums=$(dirname "$archive")/SHA256SUMS
    [ ! -f "$sums" ] || cp "$sums" "$work/"
    ;;
  esac
  check_archive
  mkdir "$work/release"
  tar -xzf "$archive" -C "$work/release" 2>"$work/why" ||
    die "$from cannot be unpacked: $(head -n 1 "$work/why"); fetch it again, and see to space in $work"
  release=$(printf %s "$work"/release/*)
}

check_archive() {
  if [ ! -f "$work/SHA256SUMS" ]; then
    say "there is no SHA256SUMS beside the archive, so it is taken as it is"
    return 0
  fi
  wanted=$(awk -v name="${archive##*/}" '$2 == name || $2 == "*" name { print $1 }' "$work/SHA256SUMS")
  [ -n "$wanted" ] || die "SHA256SUMS beside the archive does not name ${archive##*/}: fetch both anew"
  [ "$(sha256sum <"$archive" | cut -d ' ' -f 1)" = "$wanted" ] ||
    die "${archive##*/} is not what SHA256SUMS beside it says: fetch both anew"
}

check_release() {
  [ -f "$release/SHA256SUMS" ] ||
    die "$release is no unpacked release: run this in one, or name an archive with --from"
  [ -d "$release/dist/watchdog-linux-$arch" ] ||
    die "this release is for another kind of machine than this one, which wants linux-$arch"
  (cd "$release" && sha256sum --check --quiet --strict SHA256SUMS) >/dev/null 2>&1 ||
    die "the release in $release is not whole: unpack the archive again"
  "$release/runtime/node" --version >/dev/null 2>&1 ||
    die "programs of the release do not run here; they need glibc 2.28 or newer and libstdc++: apt-get install libstdc++6"
}

# --- the way -----------------------------------------------------------------------------------------------------

case " $* " in *" --help "* | *" -h "*) usage; exit 0 ;; esac
if [ "$(id -u)" != 0 ]; then
  has sudo || die "this needs root: run it as root, or install sudo"
  [ -f "$0" ] || die "this needs root: run it with sudo"
  exec sudo sh "$0" "$@"
fi

# What is ours is taken out, the rest goes to `napd install`.
from="" any_os="" root="" work="" count=$#
while [ "$count" -gt 0 ]; do
  option=$1
  shift
  count=$((count - 1))
  case $option in
  --any-os) any_os=yes ;;
  --from=*) from=${option#*=} ;;
  --root=*) root=${option#*=}; set -- "$@" "$option" ;;
  --from | --root)
    [ "$count" -gt 0 ] || die "$option takes a value; --help says what there is"
    case $option in --from) from=$1 ;; *) root=$1; set -- "$@" --root "$1" ;; esac
    shift
    count=$((count - 1))
    ;;
  *) set -- "$@" "$option" ;;
  esac
done

check_architecture
check_system
check_systemd
if [ -n "$from" ]; then unpack; else release=$(cd "$(dirname "$0")" && pwd); fi
check_release
# without exec: what was unpacked is to be removed afterwards
"$release/bin/napd" install "$@"
