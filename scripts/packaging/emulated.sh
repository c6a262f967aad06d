# Sourced by verify.sh: the programs for other processors, under user emulation.
# shellcheck shell=bash disable=SC2154

# Which of them were made: other_machines
other_machines() {
    local file arch
    for file in "$out"/thinlane-agent-"$version"-*.tar.gz; do
        arch=${file##*-}
        arch=${arch%.tar.gz}
        case $arch in "$(uname -m)" | sdk) continue ;; esac
        echo "$arch"
    done
}

emulator() { echo "qemu-${1/armv7/arm}-static"; }

# The programs for ARCH, as they are packed, in $work/emulated/ARCH
unpacked_for() {
    local file
    [ ! -d "$work/emulated/$1" ] || return 0
    mkdir -p "$work/emulated/$1/root"
    for file in "$out"/*_"$(deb_arch "$1")".deb; do [ ! -e "$file" ] || dpkg-deb -x "$file" "$work/emulated/$1/root"; done
    find "$work/emulated/$1/root" -path '*bin/thinlane*' -type f -exec cp {} "$work/emulated/$1/" \;
    tar -xzf "$out/thinlane-agent-$version-$1.tar.gz" -C "$work/emulated/$1" ./thinlane-agent
}

other_machines_programs_run() {
    set -e
    local arch told=''
    for arch in $(other_machines); do
        need "$(emulator "$arch"):qemu-user-static"
        unpacked_for "$arch"
        agent_is_whole "$arch"
        people_s_programs_are_whole "$arch"
        told+="${told:+, }$arch"
    done
    echo "note: ${told:-none was asked for}"
}

agent_is_whole() {
    local at=$work/emulated/$1 program
    program="$(emulator "$1") $at/thinlane-agent"
    $program version | grep -q "^thinlane-agent $version"
    $program enroll --help | grep -q -e '--token-file'
    $program man "$at/man"
    [ -s "$at/man/thinlane-agent.8" ]
    # An agent that was never enrolled says so: the whole program runs, not only its argument parser.
    $program --dir "$at/state" --run-dir "$at/run" run >"$at/said" 2>&1 || [ "$?" -lt 100 ]
    grep -q "not enrolled" "$at/said"
    # shellcheck disable=SC2086
    failing_with_backtraces $program
    unshare --net $program --dir "$at/state" --run-dir "$at/run" check >"$at/check" 2>&1 || [ "$?" -lt 100 ]
    grep -q "not enrolled" "$at/check"
}

people_s_programs_are_whole() {
    local at=$work/emulated/$1 program
    for program in thinlane thinlane-controller; do
        [ -e "$at/$program" ] || continue
        "$(emulator "$1")" "$at/$program" version | grep -q "^$program $version"
        "$(emulator "$1")" "$at/$program" man "$at/man-$program"
        [ -s "$(first "$at/man-$program/$program".*)" ]
    done
}

# A laboratory whose controller and engineers are arm64 programs. The gateway enrols with the arm64 agent and then runs this
# machine's with that identity: user emulation has no netlink for nf_tables, without which an agent opens nothing.
an_emulated_controller_and_engineer_have_a_lane() {
    set -e
    local at=$work/emulated/aarch64 name request echoed root=/run/thinlane-lab-tlqemu
    [ -e "$out/thinlane-agent-$version-aarch64.tar.gz" ] || { echo "note: no aarch64 was asked for"; return 0; }
    [ -e "$(made_here)/thinlane-agent" ] || { echo "note: it needs this machine's agent as well"; return 0; }
    need qemu-aarch64-static:qemu-user-static ip:iproute2 nft:nftables ethtool:ethtool curl:curl setsid:util-linux sysctl:procps
    unpacked_for aarch64
    [ -e "$at/thinlane-controller" ]
    mkdir -p "$work/emulated/bin"
    for name in thinlane thinlane-controller thinlane-agent; do
        printf '#!/bin/sh\n' >"$work/emulated/bin/$name"
        [ "$name" != thinlane-agent ] || printf 'case $1 in enroll) ;; *) exec %s "$@" ;; esac\n' "$(made_here)/$name" >>"$work/emulated/bin/$name"
        printf 'exec qemu-aarch64-static %s "$@"\n' "$at/$name" >>"$work/emulated/bin/$name"
        chmod 755 "$work/emulated/bin/$name"
    done
    simulator "$work/emulated/bin"
    export THINLANE_LAB=tlqemu THINLANE_BIN=$work/emulated/bin NO_COLOR=1
    trap 'lab down' EXIT
    lab down || true
    lab up
    request=$(lab exec erik thinlane request create north-plc1 --task echo-tcp --for 10m --reason "another processor" --nowait --json | json_field id)
    lab exec olga thinlane request approve "$request" --note "go ahead"
    # Not with a command in the lane: for one the program starts itself again, and nothing emulates that one.
    lab exec erik thinlane connect "$request" --forward 15007 >"$work/emulated/lane" 2>&1 &
    soon "the lane is up" grep -q 'is up' "$work/emulated/lane"
    echoed=$(lab exec erik bash -c 'exec 3<>/dev/tcp/127.0.0.1/15007; echo through >&3; read -r -t 20 line <&3; echo "$line"')
    kill $!
    grep -qx through <<<"$echoed"
    # What an agent lacks there, in its own words.
    lab agent north stop
    timeout 20 ip netns exec tlqemu-north qemu-aarch64-static "$at/thinlane-agent" run --dir "$root/agent-north" --run-dir "$root/run-north" \
        --lan lan --backend userspace >"$work/emulated/said" 2>&1 || true
    echo "note: a lane carried bytes; an emulated agent says: $(grep -im 1 -e error -e warn "$work/emulated/said" | cut -c 1-200)"
}
