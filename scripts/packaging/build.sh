# Sourced by scripts/package: the programs, static and small, for one architecture.
# shellcheck shell=bash

# triple ARCH: what the compiler calls it
triple() {
    case $1 in
        x86_64) echo x86_64-unknown-linux-gnu ;;
        aarch64) echo aarch64-unknown-linux-gnu ;;
        armv7) echo armv7-unknown-linux-gnueabihf ;;
        mipsel) echo mipsel-unknown-linux-musl ;;
        *) die "unknown architecture $1" "x86_64, aarch64, armv7 or mipsel" ;;
    esac
}

# The programs of one architecture are in $made afterwards.
programs() {
    local arch=$1 target
    target=$(triple "$arch")
    if [ -n "$given" ]; then
        [ "$arch" = "$(uname -m)" ] || die "--bin is for this machine's kind of programs ($(uname -m)), not $arch"
        made=$work/given
        rm -rf "$made"
        mkdir -p "$made"
        local name
        for name in thinlane thinlane-agent thinlane-controller; do
            [ -x "$given/$name" ] || continue
            strip -o "$made/$name" "$given/$name" 2>/dev/null || cp "$given/$name" "$made/$name"
        done
        return
    fi
    echo "${dim}Building for $arch (some minutes) ...${plain}" >&2
    case $arch in
        "$(uname -m)") build_here "$target" ;;
        aarch64) build_aarch64 "$target" ;;
        armv7) build_armv7 "$target" ;;
        mipsel) build_mipsel "$target" ;;
        *) die "a machine of kind $arch makes packages for itself only with the compiler's own target" "use an x86_64 machine" ;;
    esac && collect "$target"
}

# collect TARGET: what was built is in $made. The profiles have directories of their own.
collect() {
    local built=${CARGO_TARGET_DIR:-$here/target}/$1
    made=$work/made/$1
    rm -rf "$made"
    mkdir -p "$made"
    cp "$built/dist/thinlane-agent" "$made/"
    # Those are routers' processors: nobody's laptop and no controller has one.
    case $1 in arm*|mips*) return ;; esac
    cp "$built/release/thinlane" "$built/release/thinlane-controller" "$made/"
}

# No path of the machine that builds stands in the program.
remap() {
    # The last one that fits counts: the target directory may be anywhere, and generated sources lie in it.
    printf -- '--remap-path-prefix=%s=/build --remap-path-prefix=%s=/cargo --remap-path-prefix=%s=/build/target' \
        "$here" "${CARGO_HOME:-$HOME/.cargo}" "${CARGO_TARGET_DIR:-$here/target}"
}

# The gateway's program, small: cargo_dist TARGET FLAGS...
cargo_dist() {
    cargo_static dist "$1" "-C force-unwind-tables=no -C link-arg=-Wl,-T,$here/scripts/packaging/no-unwind.ld $(link_small "$1") ${link_so:-}" -p thinlane-agent "${@:2}"
}

# The programs for people's machines and for the controller's, as they are tested and measured: cargo_release TARGET FLAGS...
cargo_release() { cargo_static release "$1" '' "${@:2}"; }

# cargo_static PROFILE TARGET RUSTFLAGS FLAGS...
cargo_static() {
    local profile=$1 target=$2 flags=$3 name
    shift 3
    name=$(echo "$target" | tr 'a-z-' 'A-Z_')
    (cd "$here" && env "CARGO_TARGET_${name}_RUSTFLAGS=-C target-feature=+crt-static $(remap) $flags" \
        nice -n 10 cargo build --quiet --locked --profile "$profile" --target "$target" "$@")
}

# LLD, which recent compilers for this machine link with, folds equal functions and packs relocations; others do not.
link_small() {
    local flags='-C link-arg=-Wl,--icf=all -C link-arg=-Wl,-z,pack-relative-relocs'
    case $1 in "$(uname -m)"-*) ;; *) return 0 ;; esac
    # shellcheck disable=SC2086
    if echo 'fn main() {}' | rustc -C target-feature=+crt-static $flags -o "$work/links" - 2>/dev/null && "$work/links"; then printf '%s' "$flags"; fi
}

build_here() {
    need cc:gcc cc:libc6-dev
    cargo_dist "$1" && cargo_release "$1" -p thinlane-controller -p thinlane-cli
}

# Debian carries a newer compiler with libraries for arm64; rustup's has them for this machine alone.
build_aarch64() {
    [ -e /usr/lib/rustlib/aarch64-unknown-linux-gnu ] || [ -e /usr/lib/rust-web/lib/rustlib/aarch64-unknown-linux-gnu ] || foreign arm64 libstd-rust-web-dev:arm64
    need aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc:libc6-dev-arm64-cross /usr/bin/rustc:rustc-web /usr/bin/cargo:cargo-web
    (
        foreign_tools "$1" aarch64-linux-gnu
        cargo_dist "$1" && cargo_release "$1" -p thinlane-controller -p thinlane-cli
    )
}

# foreign ARCH PACKAGE: from Debian, for another architecture
foreign() {
    dpkg --print-foreign-architectures | grep -qx "$1" || dpkg --add-architecture "$1"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web cargo-web "$2" >/dev/null ||
        die "could not install $2"
}

# No compiled libraries are carried for this one: the standard library is built from its source as well.
build_armv7() {
    need arm-linux-gnueabihf-gcc:gcc-arm-linux-gnueabihf arm-linux-gnueabihf-gcc:libc6-dev-armhf-cross
    std_source
    (
        foreign_tools "$1" arm-linux-gnueabihf
        # Unstable, and the only way to have a standard library here.
        export RUSTC_BOOTSTRAP=1
        cargo_dist "$1" -Zbuild-std=std,panic_abort
    )
}

std_source() {
    need /usr/bin/rustc:rustc-web /usr/bin/cargo:cargo-web
    [ -e /usr/lib/rustlib/src/rust/library/Cargo.lock ] || need rust-web-source:rust-web-src
}

# The older routers' processors have no unit for floating point, and Debian's C library expects one: zig brings a compiler and
# a C library (musl) for them.
zig_version=0.17.1
zig_tools() {
    zig=${CARGO_TARGET_DIR:-$here/target}/tools/zig-$zig_version
    [ ! -x "$zig/ziglang/zig" ] || return 0
    need pip3:python3-pip
    local got=$work/zig
    mkdir -p "$got"
    pip3 download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$got" "ziglang==$zig_version" ||
        die "could not fetch zig $zig_version" "the Python package ziglang is needed for mipsel"
    rm -rf "$zig"
    mkdir -p "$zig"
    /usr/bin/python3 -m zipfile -e "$got"/*.whl "$zig"
    chmod 755 "$zig/ziglang/zig"
}

build_mipsel() {
    local target=$1 name tools
    std_source
    zig_tools
    tools=${CARGO_TARGET_DIR:-$here/target}/tools/$target
    mkdir -p "$tools"
    for name in cc ar; do
        fill "$parts/zig-$name" "ZIG=$zig/ziglang/zig" >"$tools/$target-$name"
        chmod 755 "$tools/$target-$name"
    done
    (
        foreign_tools "$target" "$tools/$target" cc
        export RUSTC_BOOTSTRAP=1
        # zig's own start files, at fixed addresses: its C library has none for a program without interpreter that may lie anywhere.
        link_so='-C link-self-contained=no -C relocation-model=static'
        cargo_dist "$target" -Zbuild-std=std,panic_abort
    )
}

# foreign_tools TARGET PREFIX [CC]: Debian's compiler with the C tools of another architecture, for all that follows in this shell.
foreign_tools() {
    local upper
    upper=$(echo "$1" | tr 'a-z-' 'A-Z_')
    export PATH=/usr/bin:/bin "CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}" RUSTC_WRAPPER='' \
        "CC_${1//-/_}=$2-${3:-gcc}" "AR_${1//-/_}=$2-ar" "CARGO_TARGET_${upper}_LINKER=$2-${3:-gcc}"
}
