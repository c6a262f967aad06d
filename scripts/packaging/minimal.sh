# Sourced by verify.sh: the packages on a Debian that has nothing else, which they must leave as they found it.
# shellcheck shell=bash disable=SC2154

# minimal_debian: the smallest Debian of this machine's release is in $minimal, made once.
minimal_debian() {
    minimal=${CARGO_TARGET_DIR:-$here/target}/minimal-debian
    [ ! -e "$minimal/made" ] || return 0
    need debootstrap:debootstrap
    local release mirror
    release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } | sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\).*/\2/p' | head -n 1)
    rm -rf "$minimal"
    mkdir -p "$minimal"
    nice -n 10 debootstrap --variant=minbase "$release" "$minimal/root" ${mirror:+"$mirror"} >"$minimal/log" 2>&1 || { tail -n 5 "$minimal/log"; return 1; }
    rm -rf "$minimal/root/var/cache/apt/archives"/*.deb
    touch "$minimal/made"
}

# No systemd, no policy against starting services, no network: install, a gateway at work, upgrade, remove, purge, twice.
a_minimal_debian_is_left_as_it_was() {
    set -e
    [ -e "$(made_here)" ] || { echo "note: no package for this machine was asked for"; return 0; }
    minimal_debian
    local root=$work/minimal round
    mkdir -p "$root" "$work/debs" "$work/debs-newer"
    cp "$out"/*_"$(deb_arch "$(uname -m)")".deb "$work/debs/"
    cp "$work"/newer/*.deb "$work/debs-newer/"
    unshare --mount --net --pid --fork --kill-child bash -ec '
        root=$1 minimal=$2 work=$3
        mount --make-rprivate /
        # A layer may not lie on another.
        mount -t tmpfs tmpfs "$root"
        mkdir "$root/upper" "$root/work" "$root/merged"
        mount -t overlay overlay -o "lowerdir=$minimal/root,upperdir=$root/upper,workdir=$root/work" "$root/merged"
        cd "$root/merged"
        mount -t proc proc proc
        mount -t tmpfs tmpfs dev
        for device in "null 3" "zero 5" "random 8" "urandom 9"; do mknod -m 666 "dev/${device% *}" c 1 "${device#* }"; done
        mkdir dev/net
        mknod -m 666 dev/net/tun c 10 200
        mkdir opt/old opt/new
        cp "$work"/debs/*.deb opt/old/
        cp "$work"/debs-newer/*.deb opt/new/
        cp "$4" opt/script
        exec chroot . /bin/bash -eu /opt/script "$5"
    ' bash "$root" "$minimal" "$work" "$parts/minimal-inside.sh" "$version+1"
}
