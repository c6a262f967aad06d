#!/bin/sh
# Puts thinlane-agent on this gateway, or takes it away. Runs as root on the gateway itself, with nothing but a POSIX
# shell (busybox is enough) and without a package manager; `scripts/flash` runs it over SSH, step by step.
#
#   sh install.sh [all]        everything that a bundle can do: look, install, firewall, enrol, start, check
#   sh install.sh plan         says what would be done, changes nothing
#   sh install.sh uninstall    leaves no trace
#   sh install.sh look|unpack|put|firewall|enrol|start|ready|check|who|finish      the single steps
#
# Every step may be repeated: what is done already is left alone, files are written beside their place and renamed.
# Values follow as NAME=VALUE: controller=HOST:PORT fingerprint=sha256:HEX lan=IFACE[,IFACE] now=SECONDS archive=FILE sum=HEX patience=SECONDS
set -u
umask 022
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin:$PATH
export PATH LC_ALL=C

here=$(cd "$(dirname "$0" 2>/dev/null || echo .)" 2>/dev/null && pwd) || here=.
controller='' fingerprint='' lan='' now='' archive='' sum='' mode=install patience=40
# Set once a run ends with a page, and how far it came then: nothing, installed, enrolled.
paged=no reached=nothing why='' cure=''

say() { printf '%s\n' "$*"; }
fail() { # fail WHAT NEXT [CODE]
    why=$1 cure=${2:-}
    if [ "$paged" = no ]; then
        printf 'error: %s\n' "$why" >&2
        [ -z "$cure" ] || printf 'next:  %s\n' "$cure" >&2
    fi
    exit "${3:-1}"
}
have() { command -v "$1" >/dev/null 2>&1; }

# ---- what this machine is -------------------------------------------------------------------------------------------

# The second and third byte groups of an ELF file tell its word length and byte order.
elf_byte() { dd if=/bin/sh bs=1 skip="$1" count=1 2>/dev/null | tr '\001\002' '12'; }

find_arch() {
    machine=$(uname -m)
    order=$(elf_byte 5)
    case $machine in
        x86_64 | amd64) arch=x86_64 ;;
        aarch64 | arm64) arch=aarch64 ;;
        aarch64_be) arch=unsupported ;;
        armv7* | armv8*) arch=armv7 ;;
        mips | mips64) if [ "$order" = 1 ]; then arch=mipsel; else arch=unsupported; fi ;;
        mipsel) arch=mipsel ;;
        *) arch=unsupported ;;
    esac
}

find_libc() {
    libc=unknown
    for file in /lib/ld-musl-* /lib/ld-uClibc* /lib/ld-linux* /lib64/ld-linux* /lib/*/ld-linux*; do
        [ -e "$file" ] || continue
        case $file in *musl*) libc=musl ;; *uClibc*) libc=uclibc ;; *) libc=glibc ;; esac
        break
    done
}

find_init() {
    if [ -d /run/systemd/system ]; then init=systemd
    elif [ -x /sbin/procd ] && [ -e /etc/rc.common ]; then init=procd
    elif [ -d /etc/init.d ]; then init=sysv
    else init=none; fi
}

find_packager() {
    packager=none
    if [ "$init" = procd ]; then
        if have opkg; then packager=opkg; elif have apk; then packager=apk; fi
    elif have dpkg && [ -e /var/lib/dpkg/status ]; then packager=dpkg; fi
}

# kernel_has FILE MODULE OPTION SYMBOL: yes, no or unknown. In this order: what runs, what lies there as a module, how the
# kernel says it was configured, and the names of its functions.
kernel_has() {
    if [ -e "$1" ] || [ -d "/sys/module/$2" ]; then echo yes; return; fi
    tree=/lib/modules/$(uname -r)
    if find "$tree" -name "$2.ko*" 2>/dev/null | grep -q . || grep -qs "/$2\.ko" "$tree/modules.builtin"; then echo yes; return; fi
    if [ -r /proc/config.gz ]; then
        case $(gzip -dc </proc/config.gz 2>/dev/null | grep "^CONFIG_$3=") in
            *=y) echo yes; return ;;
            # The module is not where this kernel's modules are.
            *=m) echo no; return ;;
        esac
    fi
    if grep -qs " $4\$" /proc/kallsyms; then echo yes
    elif [ -r /proc/config.gz ] || [ -d "$tree" ]; then echo no
    else echo unknown; fi
}

# The kind of file system that holds a path, and how it is mounted; tmpfs and ramfs forget.
held_by() {
    path=$1
    while [ ! -e "$path" ]; do path=$(dirname "$path"); done
    path=$(cd "$path" && pwd -P)
    best='' kind=unknown how=''
    while read -r _ on type options _; do
        case $path/ in "${on%/}"/*) [ "${#on}" -ge "${#best}" ] && best=$on kind=$type how=$options ;; esac
    done </proc/mounts
    echo "$kind $how"
}
forgets() { case $(held_by "$1") in 'tmpfs '* | 'ramfs '* | 'rootfs '*) return 0 ;; esac; return 1; }

# Where everything goes.
find_places() {
    prefix=''
    for place in /usr /usr/local /opt /data; do
        [ -d "$place" ] && [ -w "$place" ] || continue
        prefix=$place
        break
    done
    lib=$prefix/lib/thinlane
    sbin=$prefix/sbin
    [ "$prefix" = /opt ] && sbin=$lib
    if [ "$init" = procd ] || { forgets /var/lib && ! forgets /etc; }; then
        state=/etc/thinlane/state run=/var/run/thinlane
    else
        state=/var/lib/thinlane run=/run/thinlane
        [ -d /run ] || run=/var/run/thinlane
    fi
    # What was installed once stays where it is.
    if [ -x /usr/sbin/thinlane-agent ]; then agent=/usr/sbin/thinlane-agent
    elif have thinlane-agent; then agent=$(command -v thinlane-agent)
    else agent=$sbin/thinlane-agent; fi
}

# Whether the identity can be kept where it goes: found out before a code is spent on it. Nothing is written for that, and
# root may write anywhere as far as many a shell can tell.
find_keep() {
    keep=$state
    while [ ! -d "$keep" ]; do keep=$(dirname "$keep"); done
    keep_kb=$(df -Pk "$keep" 2>/dev/null | awk 'NR==2 {print $4}')
    kept=yes
    case $(held_by "$keep") in *' ro' | *' ro,'*) kept=no ;; esac
}

look_around() {
    find_arch; find_libc; find_init; find_packager; find_places; find_keep
    system=unknown
    for file in /etc/openwrt_release /etc/os-release; do
        [ -r "$file" ] || continue
        system=$(sed -n "s/^\(DISTRIB_DESCRIPTION\|PRETTY_NAME\)=[\"']\{0,1\}\([^\"']*\)[\"']\{0,1\}\$/\2/p" "$file" | head -n 1)
        break
    done
    kernel=$(uname -r)
    tun=$(kernel_has /dev/net/tun tun TUN tun_chr_open)
    nftables=$(kernel_has /sys/module/nf_tables nf_tables NF_TABLES nft_do_chain)
    wireguard=$(kernel_has /sys/module/wireguard wireguard WIREGUARD wg_packet_receive)
    conntrack=$(kernel_has /proc/sys/net/netfilter/nf_conntrack_max nf_conntrack NF_CONNTRACK nf_conntrack_in)
    flash_kb=$(df -Pk "${prefix:-/}" 2>/dev/null | awk 'NR==2 {print $4}')
    ram_kb=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
    route=no
    awk '$2 == "00000000" && $8 == "00000000" {found = 1} END {exit !found}' /proc/net/route 2>/dev/null && route=yes
    installed=none enrolled=no running=no lanes=0
    if [ -x "$agent" ]; then
        installed=$("$agent" version 2>/dev/null | awk '{print $2}')
        installed=${installed:-broken}
        [ -s "$state/identity.json" ] && enrolled=yes
        if status=$("$agent" status --json 2>/dev/null); then
            running=yes
            lanes=$(open_lanes "$status")
        fi
    fi
    offload=no
    if have uci && [ "$(uci -q get 'firewall.@defaults[0].flow_offloading' 2>/dev/null)" = 1 ]; then offload=yes; fi
}

# Names of the LAN's interfaces that are not there.
missing_lan() {
    for iface in $(printf '%s' "$lan" | tr ',' ' '); do
        [ -e "/sys/class/net/$iface/ifindex" ] || printf '%s ' "$iface"
    done
}
# The interfaces that are, but for those that can be no LAN.
interfaces() {
    for iface in /sys/class/net/*; do
        case ${iface##*/} in lo | '*' | tl0 | tl-* | bonding_masters) ;; *) printf '%s ' "${iface##*/}" ;; esac
    done
}

open_lanes() { printf '%s' "$1" | grep -o '"session":' | wc -l | tr -d ' '; }

# A run that broke off leaves its last step at work: it comes to its end first. It says who it is in this file.
busy=/tmp/thinlane-flash/busy
at_work() { [ -f "$busy" ] && grep -qs install.sh "/proc/$(cat "$busy")/cmdline"; }

look() {
    left=40
    while [ "$left" -gt 0 ] && at_work; do left=$((left - 1)); sleep 1; done
    look_around
    for name in machine arch libc init packager system kernel tun nftables wireguard conntrack flash_kb ram_kb route \
        prefix state installed enrolled running lanes offload; do
        eval "printf '%s=%s\n' $name \"\$$name\""
    done
    echo "uid=$(id -u)"
}

# ---- what would be done ---------------------------------------------------------------------------------------------

megabytes() { [ -n "$1" ] && echo $(($1 / 1024)) || echo '?'; }

plan() {
    look_around
    off=''
    [ -z "$now" ] || off=$(clock_off)
    say "This gateway"
    say "  system      $system, kernel $kernel, $machine, $libc"
    say "  starts by   $init; packages: $packager"
    say "  kernel      nf_tables $nftables, tun $tun, conntrack $conntrack, WireGuard $wireguard$([ "$wireguard" = yes ] || echo ' (the agent brings its own)')"
    say "  room        $(megabytes "$flash_kb") MB in ${prefix:-nowhere}, $(megabytes "$ram_kb") MB of memory free"
    say "  network     default route: $route; interfaces: $(interfaces)"
    [ -z "$lan" ] || say "  LAN         $lan"
    [ -z "$off" ] || say "  clock       $off s away from the laptop's"
    say "  agent       $([ "$installed" = none ] && echo 'not installed' || echo "$installed, enrolled: $enrolled, running: $running, open lanes: $lanes")"
    say
    say "What will be done"
    if [ "$mode" = uninstall ]; then
        say "  close every lane, stop the agent, remove program, service, firewall zone, settings and identity"
        say "  afterwards this gateway must be enrolled anew to be used again"
        return
    fi
    if [ "$paged$packager" = nodpkg ]; then say "  install the Debian package"
    elif [ "$paged$packager" = noopkg ]; then say "  install the OpenWrt package"
    else say "  put the agent into $lib, its command into $sbin, its service into $init"; fi
    [ "$init" = procd ] && say "  add the firewall zone thinlane (tl0 to lan), settings are in /etc/config/thinlane"
    [ "$lanes" != 0 ] && say "  $lanes open lanes go on: the agent is away for less than two seconds"
    if [ "$enrolled" = yes ]; then say "  keep the identity it has"
    elif [ "$mode" = upgrade ]; then :
    else say "  make its key here, and trade the one-time code for a certificate at ${controller:-the controller}"; fi
    [ "${off:-0}" -gt 86400 ] && say "  set the clock from the laptop: it is more than a day away, and certificates could not be judged"
    say "  start it, and prove from the kernel that nothing is open"
    hurdles
}

# What stops an installation, one line each; nothing where all is well.
hurdles() {
    [ "$(id -u)" = 0 ] || say "  ! this needs root, and I am $(id -un 2>/dev/null || id -u)"
    [ "$arch" = unsupported ] && say "  ! there is no agent for this processor ($machine)"
    [ -z "$prefix" ] && say "  ! none of /usr, /usr/local, /opt and /data can be written"
    lost=$(missing_lan)
    [ -z "$lost" ] || say "  ! there is no interface ${lost% } here, which was named as LAN; there are: $(interfaces)"
    [ "$tun" = no ] && say "  ! the kernel has no tun module (OpenWrt: opkg install kmod-tun)"
    [ "$nftables" = no ] && say "  ! the kernel has no nf_tables (OpenWrt: opkg install kmod-nft-core kmod-nft-nat)"
    [ "$init" = none ] && say "  ! there is neither systemd, procd nor /etc/init.d to start it with"
    [ "${flash_kb:-99999}" -lt 6144 ] && [ "$installed" = none ] && say "  ! 6 MB are needed in $prefix, and there are ${flash_kb} KB"
    if [ "$enrolled" = no ]; then
        if [ "$kept" = no ]; then say "  ! $keep is read-only: the identity cannot be kept there (mount -o remount,rw)"
        elif [ "${keep_kb:-99999}" -lt 64 ]; then say "  ! 64 KB are needed in $keep for the identity, and there are $keep_kb KB"; fi
    fi
    [ "${ram_kb:-99999}" -lt 16384 ] && say "  ! 16 MB of memory are needed, and ${ram_kb} KB are free"
    [ "$offload" = yes ] && say "  ? flow offload is on: switch it off (uci set firewall.@defaults[0].flow_offloading=0; uci commit firewall), or no lane is opened"
    [ "$route" = no ] && say "  ? there is no default route: the controller may be out of reach"
    return 0
}

refuse() {
    what=$(hurdles | sed -n 's/^  ! //p')
    [ -z "$what" ] || fail "$what" "mend that, then run this again"
}

# ---- steps ----------------------------------------------------------------------------------------------------------

# is_whole FILE SUM: whether that is its SHA-256
is_whole() {
    if have sha256sum; then found=$(sha256sum "$1" | cut -d ' ' -f 1)
    elif have openssl; then found=$(openssl dgst -sha256 "$1" | sed 's/.* //')
    else fail "neither sha256sum nor openssl is here: the copy cannot be verified" "put a busybox with sha256sum on this machine"; fi
    [ "$found" = "$2" ]
}

# One file, where `sync` knows how: everything that a busy router has in memory would take its time.
on_flash() { sync "$1" 2>/dev/null || sync; }

# put_file FROM TO MODE: whole or not at all, and on flash before it gets its name
put_file() {
    if [ -f "$2" ] && cmp -s "$1" "$2"; then chmod "$3" "$2"; return; fi
    if mkdir -p "$(dirname "$2")" && cp "$1" "$2.new$$" && chmod "$3" "$2.new$$" && on_flash "$2.new$$" && mv -f "$2.new$$" "$2"; then return; fi
    rm -f "$2.new$$"
    fail "cannot write $2" "make room, then run this again"
}

# The archive of this machine: verified, and laid out beside this script.
unpack() {
    look_around
    refuse
    [ -n "$archive" ] || for file in "$here"/thinlane-agent-*-"$arch".tar.gz; do [ -e "$file" ] && archive=$file; done
    case $archive in
        '') [ -x "$here/thinlane-agent" ] && return; fail "there is no archive for $arch beside $here/install.sh" "make the bundle again with one: scripts/package --arch $arch" ;;
        /*) ;;
        *) archive=$here/$archive ;;
    esac
    if [ -n "$sum" ]; then
        is_whole "$archive" "$sum" || fail "$archive was damaged on the way" "run this again"
    elif [ -r "$here/SHA256SUMS" ]; then
        line=$(grep " [ *]\{0,1\}$(basename "$archive")\$" "$here/SHA256SUMS") ||
            fail "$(basename "$archive") is not in SHA256SUMS" "copy the bundle again"
        is_whole "$archive" "${line%% *}" || fail "$archive is damaged" "copy it again"
    fi
    case $archive in
        *.tar.gz)
            rm -rf "$here/unpacked"
            mkdir "$here/unpacked"
            gzip -dc "$archive" | tar -xf - -C "$here/unpacked" ||
                fail "$archive cannot be unpacked" "make room in $here, then run this again" ;;
    esac
}

put() {
    look_around
    refuse
    rm -f "$lib"/*.new[0-9]* "$sbin"/thinlane-agent.new[0-9]*
    case $archive in
        *.deb)
            case $archive in /*) ;; *) archive=$here/$archive ;; esac
            DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold -i "$archive" || fail "dpkg could not install $archive" "dpkg --configure -a, then run this again" ;;
        *.ipk)
            case $archive in /*) ;; *) archive=$here/$archive ;; esac
            again=''
            # Files that were lost to a power cut are no reason for opkg to do anything.
            { [ "$installed" != broken ] && [ "$installed" != none ]; } || again=--force-reinstall
            opkg install $again "$archive" || fail "opkg could not install $archive" "opkg update, then run this again: it fetches what the package needs" ;;
        *) put_tree ;;
    esac
    [ -n "$lan" ] && set_lan
    "$agent" version >/dev/null || fail "the agent does not run on this machine" "is this really $arch? tell whoever made the package"
    say "installed $("$agent" version)"
}

# The plain way, without a package manager.
put_tree() {
    from=$here/unpacked
    [ -x "$from/thinlane-agent" ] || from=$here
    [ -x "$from/thinlane-agent" ] || fail "nothing was unpacked in $here" "sh install.sh unpack"
    "$from/thinlane-agent" version >/dev/null 2>&1 || cp_runs "$from/thinlane-agent"
    put_file "$from/thinlane-agent" "$lib/thinlane-agent" 755
    put_file "$from/install.sh" "$lib/install.sh" 755
    fill "$from/thinlane-agent.wrapper" "$sbin/thinlane-agent" 755
    agent=$sbin/thinlane-agent
    case $init in
        procd)
            put_file "$from/uci-to-toml" "$lib/uci-to-toml" 755
            [ -e /etc/config/thinlane ] || put_file "$from/thinlane.config" /etc/config/thinlane 600
            fill "$from/thinlane.init" /etc/init.d/thinlane 755
            fill "$from/thinlane.keep" /lib/upgrade/keep.d/thinlane 644
            # No package database remembers the program: sysupgrade has to keep it as well.
            printf '%s\n' "$lib/" "$sbin/thinlane-agent" /etc/init.d/thinlane /lib/upgrade/keep.d/thinlane >"$here/keep$$"
            cat /lib/upgrade/keep.d/thinlane "$here/keep$$" | sort -u >"$here/all$$"
            put_file "$here/all$$" /lib/upgrade/keep.d/thinlane 644
            rm -f "$here/keep$$" "$here/all$$" ;;
        systemd)
            [ -e /etc/thinlane/agent.toml ] || put_file "$from/agent.toml" /etc/thinlane/agent.toml 644
            fill "$from/thinlane-agent.service" /etc/systemd/system/thinlane-agent.service 644
            systemctl daemon-reload ;;
        *)
            [ -e /etc/thinlane/agent.toml ] || put_file "$from/agent.toml" /etc/thinlane/agent.toml 644
            put_file "$from/supervise" "$lib/supervise" 755
            fill "$from/thinlane-agent.init" /etc/init.d/thinlane-agent 755 ;;
    esac
}

# A staging directory may be mounted without the right to execute: then the copy in its place is asked.
cp_runs() {
    mkdir -p "$lib" && cp "$1" "$lib/thinlane-agent.new$$" && "$lib/thinlane-agent.new$$" version >/dev/null 2>&1
    code=$?
    rm -f "$lib/thinlane-agent.new$$"
    [ "$code" = 0 ] || fail "the agent does not run on this machine ($machine)" "is this the right archive?"
}

# fill FROM TO MODE: the places of this machine for @NAMES@
fill() {
    sed -e "s|@LIB@|$lib|g" -e "s|@SBIN@|$sbin|g" -e "s|@STATE@|$state|g" -e "s|@RUN@|$run|g" "$1" >"$here/filled$$" &&
        put_file "$here/filled$$" "$2" "$3"
    rm -f "$here/filled$$"
}

# The LAN interfaces, where the technician named them: what is named now is what counts.
set_lan() {
    case $lan in *[!A-Za-z0-9._,-]*) fail "not interface names: $lan" "interfaces with commas between them" ;; esac
    if [ "$init" = procd ]; then
        uci -q delete thinlane.main.lan
        for iface in $(echo "$lan" | tr ',' ' '); do uci add_list "thinlane.main.lan=$iface"; done
        uci commit thinlane
    else
        quoted="lan = [\"$(echo "$lan" | sed 's/,/", "/g')\"]"
        line=$(grep '^ *lan *=' /etc/thinlane/agent.toml 2>/dev/null)
        case $line in
            "$quoted") return ;;
            '' | *]) ;;
            *) fail "the LAN is set in /etc/thinlane/agent.toml in a way that is not mine to change" "edit it there, then run this again without naming the LAN" ;;
        esac
        { echo "$quoted"; grep -v '^ *lan *=' /etc/thinlane/agent.toml 2>/dev/null; } >"$here/toml$$"
        put_file "$here/toml$$" /etc/thinlane/agent.toml 644
        rm -f "$here/toml$$"
    fi
}

# fw4 drops what no zone knows.
firewall() {
    look_around
    if [ "$init" != procd ] || ! have uci; then
        say "no OpenWrt firewall here"
        return
    fi
    if [ -e "$here/unpacked/thinlane.uci-defaults" ]; then sh "$here/unpacked/thinlane.uci-defaults"
    elif [ -e "$lib/uci-defaults" ]; then sh "$lib/uci-defaults"; fi ||
        fail "the firewall zone could not be added" "look at 'uci show firewall', then run this again"
    say "firewall zone thinlane: tl0 to $(uci -q get firewall.thinlane_lan.dest)"
}

# A clock that is days off makes every certificate look wrong. What `date` answers is not believed: busybox says 0 anyway.
set_clock() {
    case $now in '' | *[!0-9]*) return ;; esac
    off=$(clock_off)
    [ "$off" -le 86400 ] && return
    date -u -s "@$now" >/dev/null 2>&1
    if [ "$(clock_off)" -le 86400 ]; then say "the clock was $off s off and is set"
    else say "the clock is $off s off and cannot be set: set it by hand if the controller's certificate is refused"; fi
}
clock_off() {
    clock_off=$(($(date +%s) - now))
    echo "${clock_off#-}"
}

# The code comes on standard input, or lies beside this script in a bundle.
enrol() {
    look_around
    if [ "$enrolled" = yes ]; then
        forget_code
        say "enrolled already"
        return
    fi
    [ "$installed" = none ] && fail "the agent is not installed" "sh install.sh put"
    set_clock
    code=-
    [ -e "$here/code" ] && code=$here/code
    # As JSON: what the agent would have a person do next is done here.
    answer=$("$agent" enroll --json --controller "$controller" --ca-fingerprint "$fingerprint" --token-file "$code" 2>&1)
    result=$?
    said() { printf '%s\n' "$answer" | sed -n "s/.*\"$1\":\"\(\([^\"\\\\]\|\\\\.\)*\)\".*/\1/p" | sed 's/\\n/\n/g; s/\\\(.\)/\1/g'; }
    if [ "$result" = 0 ]; then
        forget_code
        say "enrolled as site $(said site) at $(said controller)"
        return
    fi
    case $answer in *'"message":"'*) said message ;; *) printf '%s\n' "$answer" ;; esac
    next=$(said next)
    case $result in
        3) fail "the controller refused the code" "ask for a new one: thinlane site token NAME" 3 ;;
        6) fail "this gateway cannot reach the controller at $controller" "has it a SIM, a signal and a default route? may TCP $controller leave?" 6 ;;
        7) fail "somebody else answers at $controller: the fingerprint is not the expected one" "do not go on; tell operations" 7 ;;
        *) fail "this gateway could not be enrolled" "${next:-read the line above}" "$result" ;;
    esac
}

forget_code() { # overwritten, for what that is worth on flash; it has been used anyway
    [ -e "$here/code" ] || return 0
    : >"$here/code"
    rm -f "$here/code"
}

start() {
    look_around
    before=$lanes
    case $init in
        systemd) systemctl enable -q thinlane-agent && systemctl restart thinlane-agent ;;
        procd) /etc/init.d/thinlane enable; /etc/init.d/thinlane restart ;;
        *)
            link_sysv
            /etc/init.d/thinlane-agent restart ;;
    esac || fail "the service does not start" "look at its log, then run this again"
    say "started; open lanes before: $before"
}

# Started at boot by whatever this machine has for it.
link_sysv() {
    if have update-rc.d; then update-rc.d thinlane-agent defaults >/dev/null 2>&1
    elif ls /etc/init.d/S[0-9]* >/dev/null 2>&1; then ln -sf thinlane-agent /etc/init.d/S95thinlane-agent
    elif [ -d /etc/rc.d ]; then ln -sf ../init.d/thinlane-agent /etc/rc.d/S95thinlane-agent
    else say "nothing here starts /etc/init.d/thinlane-agent at boot: add it to your start scripts"; fi
    return 0
}

# Waits until the agent says that it is ready, or until it says the same reason for too long.
ready() {
    find_init; find_places
    left=$patience
    while [ "$left" -gt 0 ]; do
        "$agent" status --check ready >/dev/null 2>&1 && { say "ready"; return; }
        left=$((left - 1))
        sleep 1
    done
    if "$agent" status --check live >/dev/null 2>&1; then
        "$agent" status --check ready
        fail "the agent runs and is not ready" "read the line above; thinlane-agent check on the gateway says more"
    fi
    say "the last that it said:"
    last_words | sed 's/^/  /'
    fail "the agent is started and does not stay up" "the lines above say why; thinlane-agent check on the gateway says more" 4
}

# What the agent said last, wherever this machine keeps that.
last_words() {
    case $init in systemd) journalctl -u thinlane-agent -n 3 -o cat --no-pager 2>/dev/null && return ;; esac
    if [ -s /var/log/thinlane-agent.log ]; then cat /var/log/thinlane-agent.log
    elif have logread && logread 2>/dev/null | grep -q thinlane; then logread | grep thinlane
    else grep -hs thinlane /var/log/messages /var/log/syslog; fi | tail -n 3
    "$agent" check 2>&1 | grep PROBLEM
}

check() {
    find_init; find_places
    "$agent" check || exit $?
}

# Who runs here, for the last page: site=NAME and version=NUMBER.
who() {
    find_init; find_places
    status=$("$agent" status --json) || exit $?
    for name in site version; do
        printf '%s=%s\n' "$name" "$(printf '%s' "$status" | sed -n "s/.*\"$name\":\"\([^\"]*\)\".*/\1/p")"
    done
}

finish() {
    find_init; find_places
    # Whoever reads GREEN may cut the power: a package manager leaves its files to the kernel to write.
    sync
    # What was unpacked for this one run: memory, on most routers.
    case $here in /tmp/thinlane-flash* | */thinlane-site) cd / && rm -rf "$here" ;; *) rm -rf "$here/unpacked" ;; esac
}

uninstall() {
    look_around
    [ "$(id -u)" = 0 ] || fail "this needs root"
    if [ "$packager" = dpkg ] && dpkg-query -W thinlane-agent >/dev/null 2>&1; then
        DEBIAN_FRONTEND=noninteractive dpkg --purge thinlane-agent || fail "dpkg could not remove it" "dpkg --configure -a, then run this again"
    fi
    case $init in
        systemd) systemctl disable -q --now thinlane-agent 2>/dev/null ;;
        procd) [ -e /etc/init.d/thinlane ] && { /etc/init.d/thinlane stop; /etc/init.d/thinlane disable; } ;;
        *) [ -e /etc/init.d/thinlane-agent ] && /etc/init.d/thinlane-agent stop ;;
    esac
    if [ -x "$agent" ]; then
        "$agent" cleanup --forget || fail "the agent could not undo everything" "mend that, then run this again"
    fi
    if [ "$packager" = opkg ] && opkg list-installed 2>/dev/null | grep -q '^thinlane-agent '; then opkg remove thinlane-agent; fi
    if [ "$init" = procd ] && have uci && uci -q get firewall.thinlane >/dev/null; then
        uci -q delete firewall.thinlane_lan
        uci -q delete firewall.thinlane
        uci commit firewall
        /etc/init.d/firewall reload >/dev/null 2>&1
    fi
    have update-rc.d && [ "$init" = sysv ] && update-rc.d thinlane-agent remove >/dev/null 2>&1
    rm -rf "$lib" "$state" "$run" /etc/thinlane
    rm -f "$sbin/thinlane-agent" /etc/init.d/thinlane /etc/init.d/thinlane-agent /etc/init.d/S95thinlane-agent /etc/rc.d/[SK]*thinlane* \
        /etc/config/thinlane /etc/config/thinlane-opkg /lib/upgrade/keep.d/thinlane /var/etc/thinlane-agent.toml \
        /etc/systemd/system/thinlane-agent.service /var/log/thinlane-agent.log /var/run/thinlane-agent.pid /etc/uci-defaults/90-thinlane
    [ "$init" = systemd ] && systemctl daemon-reload
    sync
    say "removed"
}

# Everything, from a bundle on a stick. However it ends, it ends with a page.
all() {
    named=$lan
    # shellcheck source=/dev/null
    [ -r "$here/site.conf" ] && . "$here/site.conf"
    lan=${named:-$lan}
    paged=yes
    trap red EXIT
    trap 'why="it was stopped" cure="run it again: it goes on from here"; exit 130' INT TERM HUP
    plan
    refuse
    { [ "$installed" = none ] || [ "$installed" = broken ]; } || reached=installed
    [ "$enrolled" = no ] || reached=enrolled
    say
    unpack
    [ "$reached" = enrolled ] || reached=installed
    put
    firewall
    if [ "$enrolled" = yes ] || [ -e "$here/code" ]; then enrol </dev/null
    else fail "there is no code in $here" "a bundle works once: make another one (scripts/flash --bundle)"; fi
    reached=enrolled
    start
    ready
    check || fail "thinlane-agent check found something" "read the lines above, and mend it"
    told=$(who) || fail "the agent ran, and does not answer any more" "thinlane-agent check"
    finish
    trap - EXIT
    green
}

told() { printf '%s\n' "$told" | sed -n "s/^$1=//p"; }

green() {
    say
    say "==== GREEN ============================================================"
    say "  This gateway is ready as site $(told site): agent $(told version), $system."
    say "  You can close the cabinet. To close the site by hand: thinlane-agent isolate on"
    say "======================================================================="
}

red() {
    code=$?
    say
    say "==== RED =============================================================="
    say "  ${why:-it was interrupted, or a command failed: read the lines above}"
    [ -z "$cure" ] || say "  next: $cure"
    kept=program
    [ "$init" != procd ] || kept='program and firewall zone'
    case $reached in
        nothing) say "  Nothing was changed on this gateway." ;;
        installed)
            say "  What is installed: $kept, without an identity: nothing can be opened."
            say "  To go on: mend it, then sh $here/install.sh (a new code goes into $here/code)"
            say "  To take it away: sh $here/install.sh uninstall" ;;
        enrolled)
            say "  Installed: $kept. This gateway keeps its identity; no lane is opened before it is ready."
            say "  To go on: mend it, then sh $here/install.sh"
            say "  To take it away: sh $here/install.sh uninstall" ;;
    esac
    say "======================================================================="
    exit "$code"
}

verb=${1:-all}
[ $# -gt 0 ] && shift
for pair in "$@"; do
    case $pair in
        controller=* | fingerprint=* | lan=* | now=* | archive=* | sum=* | mode=* | patience=*) eval "${pair%%=*}=\${pair#*=}" ;;
        *) fail "unknown value: $pair" ;;
    esac
done
# A laptop that goes away ends no step half way: what is said then is lost, and nothing else.
case $verb in
    unpack | put | firewall | enrol | start | uninstall)
        trap '' PIPE
        [ "$here/busy" != "$busy" ] || echo $$ >"$busy" ;;
esac
case $verb in
    look | plan | unpack | put | firewall | enrol | start | ready | check | who | finish | uninstall | all) "$verb" ;;
    *) fail "unknown step: $verb" "sh install.sh, or sh install.sh plan|uninstall" 2 ;;
esac
