# Sourced by the scripts beside it: where things are, and how a missing tool is installed.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
profile=${THINLANE_PROFILE:-release}
case $profile in dev) profile_dir=debug ;; *) profile_dir=$profile ;; esac
bin=${THINLANE_BIN:-${CARGO_TARGET_DIR:-$here/target}/$profile_dir}

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' dim='' green='' red='' plain=''
fi

die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
    [ $# -gt 1 ] && printf 'next:  %s\n' "$2" >&2
    exit 1
}

# Network namespaces need root; says so once and asks sudo.
as_root() {
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null || die "network namespaces need root and sudo is not here" "run $0 as root"
    echo "Network namespaces need root: going on with sudo." >&2
    exec sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR,RUSTC_WORKSPACE_WRAPPER,CLIPPY_ARGS,THINLANE_PROFILE,THINLANE_BIN,THINLANE_LAB,NO_COLOR "$0" "$@"
}

# need COMMAND:PACKAGE ... (or py/MODULE:PACKAGE, for Debian's own Python, or /etc/FILE:PACKAGE)  installs the packages whose command is missing; quiet unless it fails.
need() {
    local missing=() pair name log
    for pair in "$@"; do
        case ${pair%%:*} in
            py/*) name=${pair%%:*}; /usr/bin/python3 -c "import ${name#py/}" 2>/dev/null && continue ;;
            /etc/*) [ -e "${pair%%:*}" ] && continue ;;
            *) PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null && continue ;;
        esac
        missing+=("${pair#*:}")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || die "missing: ${missing[*]}" "install these packages, then run this again"
    echo "${dim}Installing ${missing[*]} ...${plain}" >&2
    log=$(mktemp)
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "could not install ${missing[*]}" "install these packages by hand, then run this again"
    fi
    rm -f "$log"
}

# Builds the three programs and the device simulator, saying nothing unless it takes long or fails.
build() {
    command -v cargo >/dev/null || die "cargo is not here" "install Rust from your distribution or with rustup, then run this again"
    need cc:gcc cc:libc6-dev
    [ -n "${THINLANE_BIN:-}" ] && return
    echo "${dim}Building (the first time takes some minutes) ...${plain}" >&2
    (cd "$here" && cargo build --quiet --locked --profile "$profile" \
        -p thinlane-controller -p thinlane-agent -p thinlane-cli -p thinlane-sim) || die "the build failed" "read the compiler's messages above"
}
