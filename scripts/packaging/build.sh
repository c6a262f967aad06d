# Sourced by scripts/package: the programs, static and small, for one architecture.
# shellcheck shell=bash

# triple ARCH: what the compiler calls it
triple() {
    case $1 in
        x86_64) echo x86_64-unknown-linux-gnu ;;
        aarch64) echo aarch64-unknown-linux-gnu ;;
        armv7) echo armv7-unknown-linux-gnueabihf ;;
        mipsel) echo mipsel-unknown-linux-gnu ;;
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
    made=${CARGO_TARGET_DIR:-$here/target}/$target/dist
    echo "${dim}Building for $arch (some minutes) ...${plain}" >&2
    case $arch in
        "$(uname -m)") build_here "$target" -p thinlane-agent -p thinlane-controller -p thinlane-cli ;;
        aarch64) build_aarch64 ;;
        *) build_std "$arch" "$target" ;;
    esac
}

# No path of the machine that builds stands in the program.
remap() {
    # The last one that fits counts: the target directory may be anywhere, and generated sources lie in it.
    printf -- '--remap-path-prefix=%s=/build --remap-path-prefix=%s=/cargo --remap-path-prefix=%s=/build/target' \
        "$here" "${CARGO_HOME:-$HOME/.cargo}" "${CARGO_TARGET_DIR:-$here/target}"
}

# cargo_dist TARGET FLAGS...: with static linking
cargo_dist() {
    local target=$1 name
    shift
    name=$(echo "$target" | tr 'a-z-' 'A-Z_')
    # A panic ends the program: nothing is ever unwound.
    (cd "$here" && env "CARGO_TARGET_${name}_RUSTFLAGS=-C target-feature=+crt-static -C force-unwind-tables=no $(remap) $(link_small "$target")" \
        nice -n 10 cargo build --quiet --locked --profile dist --target "$target" "$@")
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
    cargo_dist "$@"
}

# Debian carries a newer compiler with libraries for arm64; rustup's has them for this machine alone.
build_aarch64() {
    [ -e /usr/lib/rustlib/aarch64-unknown-linux-gnu ] || [ -e /usr/lib/rust-web/lib/rustlib/aarch64-unknown-linux-gnu ] || foreign arm64 libstd-rust-web-dev:arm64
    need aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc:libc6-dev-arm64-cross /usr/bin/rustc:rustc-web /usr/bin/cargo:cargo-web
    PATH=/usr/bin:/bin CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} \
        CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc RUSTC_WRAPPER='' \
        cargo_dist aarch64-unknown-linux-gnu -p thinlane-agent -p thinlane-cli
}

# foreign ARCH PACKAGE: from Debian, for another architecture
foreign() {
    dpkg --print-foreign-architectures | grep -qx "$1" || dpkg --add-architecture "$1"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web cargo-web "$2" >/dev/null ||
        die "could not install $2"
}

# No compiled libraries are carried for these: the standard library is built from its source as well.
build_std() {
    local arch=$1 target=$2 tool
    case $arch in
        armv7) tool=arm-linux-gnueabihf; need "$tool-gcc:gcc-arm-linux-gnueabihf" "$tool-gcc:libc6-dev-armhf-cross" ;;
        mipsel) tool=mipsel-linux-gnu; need "$tool-gcc:gcc-mipsel-linux-gnu" "$tool-gcc:libc6-dev-mipsel-cross" ;;
    esac
    need /usr/bin/rustc:rustc-web /usr/bin/cargo:cargo-web
    [ -e /usr/lib/rustlib/src/rust/library/Cargo.lock ] || need "rust-web-source:rust-web-src"
    local upper
    upper=$(echo "$target" | tr 'a-z-' 'A-Z_')
    PATH=/usr/bin:/bin CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTC_BOOTSTRAP=1 \
        env "CC_${target//-/_}=$tool-gcc" "AR_${target//-/_}=$tool-ar" "CARGO_TARGET_${upper}_LINKER=$tool-gcc" \
        "CARGO_TARGET_${upper}_RUSTFLAGS=-C target-feature=+crt-static -C force-unwind-tables=no $(remap)" \
        nice -n 10 cargo build --quiet --locked --profile dist --target "$target" -Zbuild-std=std,panic_abort -p thinlane-agent --manifest-path "$here/Cargo.toml"
}
