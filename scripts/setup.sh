#!/bin/sh
# sh scripts/setup.sh start|test|vm|check|bench [arguments]
# sh scripts/setup.sh node FILE [arguments]
#
# Brings this machine to where the named thing can run, then runs it. Every step looks first and does nothing, in
# silence, when nothing is to do. It needs only a shell, the machine's own Node (18 or newer) and npm.
set -eu

cd "$(dirname "$0")/.."
# Node 24 comes as an npm package, named after the machine; some versions of npm lose its link in .bin. sbin is where
# Debian keeps ip, iptables and runc, and not in a user's PATH.
case $(uname -m) in aarch64 | arm64) arch=arm64 ;; *) arch=x64 ;; esac
node24="$PWD/node_modules/node-linux-$arch/bin"
PATH="$node24:$PWD/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH
# The C library keeps memory apart for each of Node's threads, and gives little of it back: see docs/decisions.md.
MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2}
export MALLOC_ARENA_MAX

say() { printf 'napd: %s\n' "$*" >&2; }
log="" # what a noisy program says, kept until we know whether it matters
die() { say "$*"; rm -f "$log"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# --- npm packages ------------------------------------------------------------------------------------------------

# Asks npm's own record in node_modules, which npm writes last: it is right after `npm install PACKAGE` and after an
# interrupted install too, where a stamp or a time would be wrong.
npm_is_fresh() {
  [ -x "$node24/node" ] && [ -f node_modules/.package-lock.json ] && "$node24/node" -e '
    const read = (file) => JSON.parse(require("fs").readFileSync(file, "utf8")).packages;
    const wanted = read("package-lock.json"), found = read("node_modules/.package-lock.json");
    const isStale = (path) => path && (found[path] || !wanted[path].optional) &&
      found[path]?.version !== wanted[path].version;
    process.exit(Object.keys(wanted).some(isStale) ? 1 : 0)' 2>/dev/null
}

npm_install() {
  npm_is_fresh && return
  has npm || die "npm is missing: install Node.js 18 or newer with npm, then run this again"
  say "installing npm packages …"
  log=$(mktemp)
  npm_packages >"$log" 2>&1 || npm_packages >"$log" 2>&1 ||
    die "npm failed, twice: $(sed -n 's/^npm err[^ ]* *//Ip' "$log" | grep -v -m 1 '^code ' || tail -n 1 "$log")"
  rm -f "$log"
  "$node24/node" --version >/dev/null 2>&1 ||
    die "Node 24 does not run here: napd needs Linux with glibc on x86_64 or arm64, this is $(uname -sm)"
  give_back node_modules
}

# Takes the versions and checksums of package-lock.json and leaves that file alone. Not `npm ci`: that refuses a lock
# file without the optional packages of other systems, and a registry that mirrors only Linux has none to put there.
npm_packages() { npm install --no-save --ignore-scripts --no-audit --no-fund; }

# What root makes in somebody's checkout belongs to that somebody, or they could not renew it later.
give_back() {
  owner=$(stat -c %u:%g .)
  if [ "$(id -u)" = 0 ] && [ "$owner" != 0:0 ] && [ -e "$1" ]; then chown -hR "$owner" "$1"; fi
}

# --- root --------------------------------------------------------------------------------------------------------

# sudo drops the environment, so what is ours in it goes along by name.
become_root() {
  [ "$(id -u)" = 0 ] && return
  has sudo || die "containers need root: run this as root, or install sudo"
  set -- sh scripts/setup.sh "$@"
  for name in PATH TMPDIR $(env | sed -n 's/^\(NAPD_[A-Z_]*\)=.*/\1/p'); do
    eval "value=\${$name-}"
    [ -z "$value" ] || set -- "$name=$value" "$@"
  done
  exec sudo env "$@"
}

# --- programs ----------------------------------------------------------------------------------------------------

# Collects Debian's names of what is missing. What is there in any other way than as a package is as good.
missing=""
need() { # need PACKAGE TEST…
  package=$1
  shift
  "$@" || missing="$missing $package"
}
has_runtime() { has runc || has crun; }
has_cni() {
  for dir in /usr/lib/cni /opt/cni/bin /usr/libexec/cni; do
    [ -x "$dir/bridge" ] && [ -x "$dir/host-local" ] && return
  done
  return 1
}
has_mount() { has mount && has umount; }

find_missing() {
  need containerd has containerd
  need runc has_runtime
  need containernetworking-plugins has_cni
  need iptables has iptables
  need iproute2 has ip
  need mount has_mount
  need util-linux has setpriv
  need busybox-static has busybox
  need patchelf has patchelf
  need ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
  case $1 in test | bench)
    need docker-registry has docker-registry
    need prometheus has prometheus
    need prometheus-alertmanager has prometheus-alertmanager
    need nats-server has nats-server
    need skopeo has skopeo
    need buildah has buildah
    need git has git
    need python3 has python3
    need curl has curl
    need openssl has openssl
    need perl-base has perl
    need systemd has systemd-analyze
    need shellcheck has shellcheck
    need caddy has caddy
    need qemu-user-static has qemu-aarch64-static
    need musl-tools has musl-gcc
    need gcc has cc
    need binutils has readelf
    need shellcheck has shellcheck
    ;;
  esac
  case $1 in vm)
    need mmdebstrap has mmdebstrap
    need qemu-system-x86 has qemu-system-x86_64
    need qemu-utils has qemu-img
    need xorriso has xorriso
    need e2fsprogs has mke2fs
    need openssh-client has ssh
    ;;
  esac
  case $1 in bench)
    need wrk has wrk
    need nginx-light has nginx
    need haproxy has haproxy
    need libc6-dev test -e /usr/include/stdio.h
    ;;
  esac
}

install_missing() {
  find_missing "$1"
  [ -n "$missing" ] || return 0
  has apt-get || die "install these (Debian's names):$missing; then run this again"
  say "installing Debian packages:$missing …"
  log=$(mktemp)
  # shellcheck disable=SC2086 # a list of words
  apt_install $missing >"$log" 2>&1 ||
    { apt-get -q update && apt_install $missing; } >"$log" 2>&1 ||
    die "apt-get cannot install$missing: $(grep -m 1 '^E:' "$log" || tail -n 1 "$log"); install them yourself, then run this again"
  rm -f "$log"
}

# Configuration files stay as they are when a package has another opinion: nobody is there to be asked.
apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o Dpkg::Options::=--force-confold install "$@"
}

# --- what npm's scripts are for ----------------------------------------------------------------------------------

prepare_machine() { # prepare_machine COMMAND ARGUMENTS…
  become_root "$@"
  install_missing "$1"
  node scripts/preflight.ts
  built=$(node scripts/build-watchdog.ts) || die "the watchdog could not be built, see above"
  changed=$(printf '%s\n' "$built" | grep -v ', unchanged$') && say "$changed"
  give_back dist
}

# Signals reach the program because it takes our place. npm has one more shell above us, which dies of a SIGTERM
# without a word to us: then the kernel passes it on.
run_node() { exec setpriv --pdeathsig TERM node "$@"; }

[ $# -gt 0 ] || die "usage: sh scripts/setup.sh start|test|vm|check|bench|node [arguments]"
npm_install
case $1 in
start | test)
  prepare_machine "$@"
  what=$1
  shift
  run_node "scripts/$what.ts" "$@"
  ;;
vm)
  prepare_machine "$@"
  shift
  run_node test/vm/run.ts "$@"
  ;;
bench)
  prepare_machine "$@"
  shift
  run_node bench/run.ts "$@"
  ;;
check)
  tsc
  biome check .
  exec node --test --test-reporter=dot "test/*.test.ts" "test/unit/**/*.test.ts" "test/contract/*.test.ts"
  ;;
node)
  shift
  exec node "$@"
  ;;
*) die "unknown command $1; there are start, test, vm, check, bench and node" ;;
esac
