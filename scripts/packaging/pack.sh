# Sourced by scripts/package: made programs in, packages out. Everything is laid out in a directory first.
# shellcheck shell=bash disable=SC2154

deb_arch() {
    case $1 in x86_64) echo amd64 ;; aarch64) echo arm64 ;; armv7) echo armhf ;; mipsel) echo mipsel ;; esac
}

# Programs that were given are packed quickly, others small.
tight() { if [ -n "$given" ]; then echo 1; else echo 9; fi; }

# Fills in @NAMES@: fill FILE NAME=VALUE...
fill() {
    local text pair
    text=$(cat "$1"; printf x)
    shift
    for pair in "$@"; do text=${text//"@${pair%%=*}@"/"${pair#*=}"}; done
    printf '%s' "${text%x}"
}

# A tar archive that is the same whenever its content is.
plain_tar() {
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -cf - "$@"
}

# Programs of another kind of machine run emulated, for their manual pages and completions.
run_made() {
    local arch=$1
    shift
    if [ "$arch" = "$(uname -m)" ]; then "$@"; else
        need qemu-aarch64-static:qemu-user-static
        "qemu-${arch/armv7/arm}-static" "$@"
    fi
}

# Manual pages and completions, from the programs themselves, into $work/ARCH.
manual() {
    local arch=$1 name
    for name in thinlane thinlane-agent thinlane-controller; do
        [ -x "$made/$name" ] || continue
        mkdir -p "$work/$arch/man/$name" "$work/$arch/complete"
        run_made "$arch" "$made/$name" man "$work/$arch/man/$name"
        run_made "$arch" "$made/$name" completions bash >"$work/$arch/complete/$name"
        run_made "$arch" "$made/$name" completions zsh >"$work/$arch/complete/_$name"
        run_made "$arch" "$made/$name" completions fish >"$work/$arch/complete/$name.fish"
    done
}

# What the tools link into a static program of this architecture, NAME=VERSION each.
from_tools() {
    local cross='' rust=/usr/bin/rustc name version
    case $1 in
        "$(uname -m)") rust=rustc ;;
        *) cross=-$(deb_arch "$1")-cross ;;
    esac
    version=$("$rust" --version 2>/dev/null | cut -d ' ' -f 2)
    echo "rust-std=${version:-unknown}"
    if [ "$1" = mipsel ]; then
        # From zig, which the build fetched.
        echo "musl=$(sed -n 's/.*VERSION "\(.*\)"/\1/p' "${CARGO_TARGET_DIR:-$here/target}/tools/zig-$zig_version/ziglang/lib/libc/musl/src/internal/version.h")"
        echo "zig-compiler-rt=$zig_version"
        return
    fi
    for name in "glibc libc6-dev" "libgcc libgcc-12-dev"; do
        version=$(dpkg-query -W -f '${Version}' "${name#* }$cross" 2>/dev/null || true)
        echo "${name% *}=${version:-unknown}"
    done
}

sbom() {
    local package=$1 file=$out.new/$1_$2.cdx.json target tools
    target=$(triple "$2")
    mapfile -t tools < <(from_tools "$2")
    [ "$package" != thinlane ] || package=thinlane-cli
    (cd "$here" && cargo metadata --locked --format-version 1 --filter-platform "$target" 2>/dev/null) |
        /usr/bin/python3 "$parts/sbom.py" "$package" "$target" "${tools[@]}" >"$file"
}

deb() {
    local name=$1 arch=$2 root=$work/deb/$1 doc page section
    rm -rf "$root"
    doc=$root/usr/share/doc/$name
    mkdir -p "$root/DEBIAN" "$doc" "$root/usr/share/lintian/overrides"
    case $name in
        thinlane-agent) install -D -m 755 "$made/$name" "$root/usr/sbin/$name" ;;
        *) install -D -m 755 "$made/$name" "$root/usr/bin/$name" ;;
    esac
    for page in "$work/$arch/man/$name"/*; do
        section=${page##*.}
        install -D -m 644 "$page" "$root/usr/share/man/man$section/${page##*/}"
    done
    find "$root/usr/share/man" -type f -exec gzip -9n {} +
    install -D -m 644 "$work/$arch/complete/$name" "$root/usr/share/bash-completion/completions/$name"
    install -D -m 644 "$work/$arch/complete/_$name" "$root/usr/share/zsh/vendor-completions/_$name"
    install -D -m 644 "$work/$arch/complete/$name.fish" "$root/usr/share/fish/vendor_completions.d/$name.fish"
    fill "$parts/debian/copyright" "MIT=$(sed -n '/^Permission/,$p' "$here/LICENSE-MIT" | sed 's/^$/./; s/^/ /')" >"$doc/copyright"
    fill "$parts/debian/changelog" "PACKAGE=$name" "VERSION=$version" "DATE=$(date -Ru -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
    [ "$parts_list" = no ] || gzip -9nc "$out.new/${name}_$arch.cdx.json" >"$doc/sbom.cdx.json.gz"
    fill "$parts/debian/lintian-overrides" "PACKAGE=$name" >"$root/usr/share/lintian/overrides/$name"
    [ ! -e "$parts/debian/$name/lintian-overrides" ] || cat "$parts/debian/$name/lintian-overrides" >>"$root/usr/share/lintian/overrides/$name"
    case $name in
        thinlane-agent) agent_files "$root" ;;
        thinlane-controller)
            mkdir -p "$root/lib/systemd/system"
            page=$(basename "$work/$arch/man/$name/$name".*)
            fill "$parts/debian/$name/$name.service" "SECTION=${page##*.}" >"$root/lib/systemd/system/$name.service"
            install -m 644 "$parts/debian/$name/README.Debian" "$doc/README.Debian" ;;
    esac
    control_files "$name" "$arch" "$root"
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz "-z$(tight)" -b "$root" "$out.new/${name}_${version}_$(deb_arch "$arch").deb" >/dev/null
}

agent_files() {
    local root=$1 from=$parts/gateway places=(LIB=/usr/lib/thinlane SBIN=/usr/sbin STATE=/var/lib/thinlane RUN=/run/thinlane)
    mkdir -p "$root/lib/systemd/system" "$root/etc/init.d" "$root/usr/lib/modules-load.d"
    fill "$from/thinlane-agent.service" "${places[@]}" >"$root/lib/systemd/system/thinlane-agent.service"
    fill "$from/thinlane-agent.init" "${places[@]}" >"$root/etc/init.d/thinlane-agent"
    chmod 755 "$root/etc/init.d/thinlane-agent"
    install -D -m 755 "$from/supervise" "$root/usr/lib/thinlane/supervise"
    install -D -m 644 "$from/agent.toml" "$root/etc/thinlane/agent.toml"
    # The agent itself may not load modules.
    printf '%s\n' tun nf_tables nfnetlink_log nf_conntrack wireguard >"$root/usr/lib/modules-load.d/thinlane-agent.conf"
}

control_files() {
    local name=$1 arch=$2 root=$3 file
    for file in postinst prerm postrm; do
        [ -e "$parts/debian/$name/$file" ] && install -m 755 "$parts/debian/$name/$file" "$root/DEBIAN/$file"
    done
    [ -e "$parts/debian/$name/conffiles" ] && install -m 644 "$parts/debian/$name/conffiles" "$root/DEBIAN/conffiles"
    (cd "$root" && find . -type f ! -path './DEBIAN/*' ! -path './etc/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    fill "$parts/debian/$name/control" "VERSION=$version" "ARCH=$(deb_arch "$arch")" \
        "SIZE=$(du -sk --exclude=DEBIAN --apparent-size "$root" | cut -f 1)" >"$root/DEBIAN/control"
}

# notices ARCH DIR: whose work a static program holds besides ours, and under which terms it may be passed on
notices() {
    local arch=$1 to=$2 part rust='' libc='' runtime="GCC's runtime library (GPL-3.0-or-later with the GCC Runtime Library Exception)."
    while read -r part; do
        case $part in
            rust-std=*) rust=${part#*=} ;;
            glibc=*)
                libc="the GNU C library ${part#*=} (LGPL-2.1-or-later, its text is in LGPL-2.1; its source is Debian's source package glibc);"
                install -m 644 /usr/share/common-licenses/LGPL-2.1 "$to/LGPL-2.1" ;;
            musl=*) libc="the C library musl ${part#*=} (MIT);" ;;
            zig-compiler-rt=*) runtime="the compiler's runtime library of zig ${part#*=} (MIT)." ;;
        esac
    done < <(from_tools "$arch")
    fill "$parts/gateway/NOTICE" "VERSION=$version" "ARCH=$arch" "RUST=$rust" "LIBC=$libc" "RUNTIME=$runtime" >"$to/NOTICE"
}

# The plain archive: for vendor firmware without a package manager, and what scripts/flash sends there.
archive() {
    local arch=$1 root=$work/plain/$1 name
    [ -x "$made/thinlane-agent" ] || return 0
    rm -rf "$root"
    mkdir -p "$root"
    install -m 755 "$made/thinlane-agent" "$root/thinlane-agent"
    for name in install.sh supervise uci-to-toml; do install -m 755 "$parts/gateway/$name" "$root/$name"; done
    for name in agent.toml thinlane-agent.wrapper thinlane-agent.init thinlane-agent.service thinlane.init thinlane.config \
        thinlane.keep thinlane.uci-defaults; do
        install -m 644 "$parts/gateway/$name" "$root/$name"
    done
    install -m 644 "$here/LICENSE-MIT" "$here/LICENSE-APACHE" "$root/"
    notices "$arch" "$root"
    plain_tar -C "$root" . | gzip "-n$(tight)" >"$out.new/thinlane-agent-$version-$arch.tar.gz"
}

# What OpenWrt's packages hold, but for the program; the same for an .ipk and for the SDK.
openwrt_files() {
    local root=$1 from=$parts/gateway places=(LIB=/usr/lib/thinlane SBIN=/usr/sbin STATE=/etc/thinlane/state RUN=/var/run/thinlane)
    mkdir -p "$root/usr/sbin" "$root/usr/lib/thinlane" "$root/etc/init.d" "$root/etc/config" "$root/etc/uci-defaults" "$root/lib/upgrade/keep.d"
    fill "$from/thinlane-agent.wrapper" "${places[@]}" >"$root/usr/sbin/thinlane-agent"
    fill "$from/thinlane.init" "${places[@]}" >"$root/etc/init.d/thinlane"
    chmod 755 "$root/usr/sbin/thinlane-agent" "$root/etc/init.d/thinlane"
    install -m 755 "$from/uci-to-toml" "$root/usr/lib/thinlane/uci-to-toml"
    install -m 600 "$from/thinlane.config" "$root/etc/config/thinlane"
    install -m 755 "$from/thinlane.uci-defaults" "$root/etc/uci-defaults/90-thinlane"
    # The first boot deletes the one above; scripts/flash asks this one again.
    install -m 755 "$from/thinlane.uci-defaults" "$root/usr/lib/thinlane/uci-defaults"
    install -m 644 "$from/thinlane.keep" "$root/lib/upgrade/keep.d/thinlane"
}

ipk() {
    local arch=$1 root=$work/ipk/$1 machines
    [ -x "$made/thinlane-agent" ] || return 0
    case $arch in x86_64) machines='x86_64' ;; aarch64) machines='aarch64' ;; armv7) machines='armv7*' ;; mipsel) machines='mips' ;; esac
    rm -rf "$root"
    mkdir -p "$root/data" "$root/control"
    openwrt_files "$root/data"
    install -m 755 "$made/thinlane-agent" "$root/data/usr/lib/thinlane/thinlane-agent"
    notices "$arch" "$root/data/usr/lib/thinlane"
    [ ! -e "$root/data/usr/lib/thinlane/LGPL-2.1" ] || gzip -9n "$root/data/usr/lib/thinlane/LGPL-2.1"
    local file
    for file in preinst postinst prerm postrm; do
        fill "$parts/openwrt/$file" "ARCH=$arch" "MACHINES=$machines" >"$root/control/$file"
        chmod 755 "$root/control/$file"
    done
    install -m 644 "$parts/openwrt/conffiles" "$root/control/conffiles"
    fill "$parts/openwrt/control" "VERSION=$version" "ARCH=$arch" "SIZE=$(du -sb "$root/data" | cut -f 1)" >"$root/control/control"
    echo 2.0 >"$root/debian-binary"
    plain_tar -C "$root/data" . | gzip "-n$(tight)" >"$root/data.tar.gz"
    plain_tar -C "$root/control" . | gzip -9n >"$root/control.tar.gz"
    plain_tar -C "$root" ./debian-binary ./data.tar.gz ./control.tar.gz | gzip "-n$(tight)" >"$out.new/thinlane-agent_${version}_$arch.ipk"
    mkdir -p "$work/sdk/thinlane-agent/bin/$arch"
    cp "$made/thinlane-agent" "$work/sdk/thinlane-agent/bin/$arch/"
    notices "$arch" "$work/sdk/thinlane-agent/bin/$arch"
}

# The package directory for an OpenWrt SDK.
sdk() {
    local root=$work/sdk/thinlane-agent name depends=''
    [ -d "$root/bin" ] || return 0
    for name in "$root/bin"/*; do depends+="${depends:+||}${name##*/}"; done
    mkdir -p "$root/files"
    openwrt_files "$root/files"
    fill "$parts/openwrt/Makefile" "VERSION=$version" "DEPENDS=${depends/armv7/arm}" >"$root/Makefile"
    plain_tar -C "$work/sdk" thinlane-agent | gzip "-n$(tight)" >"$out.new/thinlane-agent-$version-openwrt-sdk.tar.gz"
}

# The agent's size against what was promised.
budget() {
    local arch size word over=no
    for arch in ${archs//,/ }; do
        [ -e "$out/thinlane-agent-$version-$arch.tar.gz" ] || continue
        size=$(tar -xOzf "$out/thinlane-agent-$version-$arch.tar.gz" ./thinlane-agent | wc -c)
        if [ "$size" -le 4000000 ]; then word='within the stretch goal of 4 MB'
        elif [ "$size" -le 5000000 ]; then word='within the budget of 5 MB'
        else word="${red}over the budget of 5 MB${plain}" over=yes; fi
        printf 'agent %-8s %s.%02d MB, %s\n' "$arch" $((size / 1000000)) $((size % 1000000 / 10000)) "$word"
    done
    # Programs that were given are packed as they are.
    [ "$over" = no ] || [ -n "$given" ] || die "the agent is too big" "look at what came in: cargo tree -p thinlane-agent -e normal"
}
