# Sourced by scripts/package --verify: are the packages what they claim, for readers that are not ours?
# shellcheck shell=bash disable=SC2154
source "$parts/upgrade.sh"
source "$parts/minimal.sh"
source "$parts/emulated.sh"

verify_all() {
    need lintian:lintian systemd-analyze:systemd busybox:busybox-static bsdtar:libarchive-tools adduser:adduser readelf:binutils
    local step code steps=(checksums_hold lintian_is_content units_are_sound debian_installs_and_purges a_minimal_debian_is_left_as_it_was
        lanes_outlive_an_upgrade readers_agree_on_ipk sbom_is_whole programs_are_static other_machines_programs_run
        an_emulated_controller_and_engineer_have_a_lane windows_runs
        an_engineer_on_windows_has_a_lane compiles_alike)
    [ -z "$only" ] || [[ " ${steps[*]} " == *" $only "* ]] || die "no step is called $only" "one of: ${steps[*]}"
    newer_packages
    for step in "${steps[@]}"; do
        if [ -n "$only" ]; then [ "$only" = "$step" ]; else [ "$step" != compiles_alike ]; fi || continue
        # Not within an `if`: there the shell would go on after a check that failed.
        set +e
        (set -e; "$step") >"$work/$step.log" 2>&1
        code=$?
        set -e
        if [ "$code" = 0 ]; then
            echo "${green}ok${plain}   ${step//_/ }$(sed -n 's/^note: /, /p' "$work/$step.log" | tr -d '\n')"
        else
            echo "${red}FAIL${plain} ${step//_/ }"
            sed 's/^/     /' "$work/$step.log" | tail -n 30
            exit 1
        fi
    done
}

checksums_hold() { (cd "$out" && sha256sum --quiet -c SHA256SUMS); }

lintian_is_content() {
    set -e
    [ -e "$(first "$out"/*.deb)" ] || { echo "note: no Debian package was asked for"; return 0; }
    local given_are_dynamic=()
    [ -z "$given" ] || given_are_dynamic=(--suppress-tags missing-dependency-on-libc)
    lintian --allow-root --fail-on error --tag-display-limit 0 "${given_are_dynamic[@]}" "$out"/*.deb
}

units_are_sound() {
    set -e
    local unit score
    mkdir -p "$work/units"
    for unit in thinlane-agent thinlane-controller; do
        [ -e "$(first "$out/${unit}_"*"_$(deb_arch "$(uname -m)").deb")" ] || continue
        dpkg-deb -x "$(first "$out/${unit}_"*"_$(deb_arch "$(uname -m)").deb")" "$work/units/$unit"
        # The programs of the unit are looked for where it will find them: in the unpacked tree.
        sed "s|^ExecStart=|ExecStart=$work/units/$unit|" "$work/units/$unit/lib/systemd/system/$unit.service" >"$work/units/$unit.service"
        systemd-analyze verify --man=no "$work/units/$unit.service"
        score=$(systemd-analyze security --no-pager --offline=true "$work/units/$unit.service" | sed -n 's/.*exposure level.*: \([0-9.]*\) .*/\1/p')
        echo "note: $unit scores $score"
        # 10 is a service without any protection. An agent has to change the network (CAP_NET_ADMIN, AF_NETLINK, the host's
        # own network and a device): that alone is more than one point.
        [ -n "$score" ]
        echo "$score" | awk '{exit !($1 <= 2.5)}'
    done
}

first() { echo "$1"; }

# This machine's programs, as they were packaged.
made_here() { if [ -n "$given" ]; then echo "$work/given"; else echo "$work/made/$(triple "$(uname -m)")"; fi; }

# The same programs as a later release, to upgrade to.
newer_packages() {
    [ -e "$(made_here)" ] || return 0
    "$here/scripts/package" --bin "$(made_here)" --no-sbom --version "$version+1" --out "$work/newer" >"$work/newer.log" 2>&1 || { cat "$work/newer.log"; return 1; }
}

# In this machine's own system, with every change kept apart: the real dpkg, the real adduser.
debian_installs_and_purges() {
    set -e
    [ -e "$(made_here)" ] || { echo "note: no package for this machine was asked for"; return 0; }
    mkdir -p "$work/debs" "$work/debs-newer"
    cp "$out"/*_"$(deb_arch "$(uname -m)")".deb "$work/debs/"
    cp "$work"/newer/*.deb "$work/debs-newer/"
    unshare --mount --net --pid --fork bash -ec '
        work=$1 here=$2
        mount --make-rprivate /
        mkdir -p "$work/layer" "$work/merged"
        mount -t tmpfs tmpfs "$work/layer"
        mkdir "$work/layer/upper" "$work/layer/work"
        mount -t overlay overlay -o "lowerdir=/,upperdir=$work/layer/upper,workdir=$work/layer/work" "$work/merged"
        mount -t proc proc "$work/merged/proc"
        mount -t tmpfs tmpfs "$work/merged/run"
        mount -t tmpfs tmpfs "$work/merged/tmp"
        mount --bind /dev "$work/merged/dev"
        mkdir "$work/merged/tmp/debs" "$work/merged/tmp/debs-newer"
        cp "$work"/debs/*.deb "$work/merged/tmp/debs/"
        cp "$work"/debs-newer/*.deb "$work/merged/tmp/debs-newer/"
        chroot "$work/merged" bash -ec "
            export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
            printf \"#!/bin/sh\nexit 101\n\" >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
            list() { find /bin /etc /home /lib /opt /sbin /srv /usr /var -xdev -not -path \"/var/lib/dpkg/*\" -not -path \"/var/log/*\" -not -path \"/var/cache/*\" \
                -not -path \"/var/tmp/*\" -not -path \"/etc/*-\" -not -path \"$here/*\" 2>/dev/null | sort; getent passwd | sort; }
            # The index of all manual pages takes minutes on a busy machine, and is nothing of ours.
            rm -f /var/lib/man-db/auto-update
            list >/tmp/before
            dpkg -i /tmp/debs/*.deb
            getent passwd thinlane thinlane-agent
            stat -c \"%n %U %a\" /var/lib/thinlane /var/lib/thinlane-controller | tee /tmp/owners
            grep -qx \"/var/lib/thinlane thinlane-agent 700\" /tmp/owners
            thinlane version; thinlane-agent version; thinlane-controller version
            su -s /bin/sh thinlane -c \"thinlane-controller init --dir /var/lib/thinlane-controller --admin ada --public c.example:7443\"
            echo changed >>/etc/thinlane/agent.toml
            dpkg -i /tmp/debs-newer/*.deb
            test \"\$(dpkg-query -W -f \"\\\${Version} \" thinlane thinlane-agent thinlane-controller)\" = \"$3 $3 $3 \"
            grep -qx changed /etc/thinlane/agent.toml
            test -s /var/lib/thinlane-controller/controller.toml
            man -w thinlane >/dev/null && man -w thinlane-agent >/dev/null && man -w thinlane-controller >/dev/null || test ! -x /usr/bin/man
            dpkg --remove thinlane-agent thinlane-controller thinlane
            test -s /var/lib/thinlane-controller/controller.toml
            dpkg --purge thinlane-agent thinlane-controller thinlane
            list >/tmp/after
            diff /tmp/before /tmp/after"
    ' bash "$work" "$here" "$version+1"
}

# OpenWrt's opkg reads tar within gzip, as busybox does, whose code it has; the other opkg reads with libarchive. Those two and
# Python's are readers that know nothing of us.
readers_agree_on_ipk() {
    set -e
    local file
    for file in "$out"/*.ipk; do
        [ -e "$file" ] || continue
        /usr/bin/python3 - "$file" <<'PY'
import io, sys, tarfile
outer = tarfile.open(sys.argv[1], "r:gz")
assert outer.getnames() == ["./debian-binary", "./data.tar.gz", "./control.tar.gz"], outer.getnames()
assert outer.extractfile("./debian-binary").read() == b"2.0\n"
open_inner = lambda name: tarfile.open(fileobj=io.BytesIO(outer.extractfile(name).read()), mode="r:gz")
control, data = open_inner("./control.tar.gz"), open_inner("./data.tar.gz")
fields = dict(line.split(": ", 1) for line in control.extractfile("./control").read().decode().splitlines())
assert fields["Package"] == "thinlane-agent" and fields["Architecture"] == "all", fields
for name in control.extractfile("./conffiles").read().decode().split():
    assert data.getmember("." + name).isfile(), name
for name in ("preinst", "postinst", "prerm", "postrm"):
    assert control.getmember("./" + name).mode == 0o755, name
for member in data:
    assert member.name.startswith(".") and ".." not in member.name and member.uid == 0 and member.isreg() | member.isdir(), member.name
for name, mode in {"usr/lib/thinlane/thinlane-agent": 0o755, "etc/init.d/thinlane": 0o755, "etc/config/thinlane": 0o600, "lib/upgrade/keep.d/thinlane": 0o644}.items():
    assert data.getmember("./" + name).mode == mode, name
notice = data.extractfile("./usr/lib/thinlane/NOTICE").read()
assert b"musl" in notice or b"LGPL" in notice and data.getmember("./usr/lib/thinlane/LGPL-2.1.gz").size > 1000
for member in data:
    text = data.extractfile(member).read() if member.isreg() else b""
    assert b"@" + b"SBIN@" not in text and b"@" + b"STATE@" not in text, member.name
PY
        rm -rf "$work/ipk-read"
        mkdir -p "$work/ipk-read/data"
        busybox tar -xzf "$file" -C "$work/ipk-read"
        busybox tar -xzf "$work/ipk-read/data.tar.gz" -C "$work/ipk-read/data"
        [ "$(bsdtar -xOf "$file" ./data.tar.gz | bsdtar -tf - | LC_ALL=C sort | sed 's|/$||')" = "$(cd "$work/ipk-read/data" && find . | LC_ALL=C sort)" ]
        for script in "$work"/ipk-read/data/etc/init.d/thinlane "$work"/ipk-read/data/usr/lib/thinlane/uci-to-toml "$work"/ipk-read/data/usr/sbin/thinlane-agent; do busybox sh -n "$script"; done
    done
}

sbom_is_whole() {
    set -e
    local file
    for file in "$out"/*.cdx.json; do
        [ -e "$file" ] || continue
        /usr/bin/python3 - "$file" "$here/Cargo.lock" <<'PY'
import json, re, sys
document, lock = json.load(open(sys.argv[1])), open(sys.argv[2]).read()
locked = set(re.findall(r'name = "(.*)"\nversion = "(.*)"', lock))
assert document["bomFormat"] == "CycloneDX" and document["specVersion"] == "1.5"
named = [(part["name"], part["version"]) for part in document["components"]]
tools = {part["name"]: part for part in document["components"] if not part["purl"].startswith("pkg:cargo/")}
linked = ["musl", "rust-std", "zig-compiler-rt"] if "mipsel" in sys.argv[1] else ["glibc", "libgcc", "rust-std"]
assert sorted(tools) == linked, "what the tools link in is named too"
assert "glibc" not in tools or "LGPL" in tools["glibc"]["licenses"][0]["expression"]
assert all(part["version"][0].isdigit() for part in tools.values())
assert len(named) == len(set(named)) > 50 and {part for part in named if part[0] not in tools} <= locked
assert all(part.get("licenses") for part in document["components"])
references = {part["bom-ref"] for part in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
assert {entry["ref"] for entry in document["dependencies"]} == references
assert all(set(entry["dependsOn"]) <= references for entry in document["dependencies"])
print("note:", document["metadata"]["component"]["name"], len(named), "parts")
PY
    done
}

programs_are_static() {
    set -e
    local file
    [ -z "$given" ] || { echo "note: not looked at, the programs were given"; return 0; }
    for file in "$out"/*.deb; do
        [ -e "$file" ] || continue
        rm -rf "$work/static"
        dpkg-deb -x "$file" "$work/static"
        find "$work/static/usr" -path '*bin/*' -type f | while read -r program; do
            # No interpreter: nothing of the machine it runs on is loaded.
            if readelf -l "$program" | grep -q INTERP; then echo "$program is not static"; exit 1; fi
            # And no path of the machine it was made on.
            if grep -qaF -e "$here/" -e "${CARGO_HOME:-$HOME/.cargo}/" "$program"; then echo "$program names paths of this machine"; exit 1; fi
        done
    done
    # The gateway's has no tables to unwind with: asked for backtraces it does without, and reports its errors all the same.
    [ ! -e "$(made_here)" ] || failing_with_backtraces "$(made_here)/thinlane-agent"
}

# failing_with_backtraces COMMAND...: an error that carries a backtrace ends the agent with its sentence and an exit code of ours
failing_with_backtraces() {
    local said code=0
    said=$(RUST_BACKTRACE=1 RUST_LIB_BACKTRACE=1 "$@" --dir "$work/none" --run-dir "$work/none" enroll --controller 127.0.0.1:9 \
        --ca-fingerprint "sha256:$(printf '%064d' 0)" --token-file "$work/no-code" 2>&1) || code=$?
    [ "$code" -lt 100 ] && [ "$code" != 0 ] && grep -q "no-code" <<<"$said" || { echo "exit $code: $said"; return 1; }
}

# Once more from the beginning, with the sources and what is made of them in other folders: the same program, to the byte. It
# takes as long as the first time, and runs only when it is named.
compiles_alike() {
    set -e
    local there=$work/elsewhere target
    target=$(triple "$(uname -m)")
    [ -e "$work/made/$target" ] || { echo "this machine's agent must be among what is made, and not given"; return 1; }
    mkdir -p "$there/and/deeper"
    (cd "$here" && git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf -) | tar -xf - -C "$there/and/deeper"
    (
        export CARGO_TARGET_DIR=$there/made
        here=$there/and/deeper
        cargo_dist "$target"
    )
    cmp "$there/made/$target/dist/thinlane-agent" "$work/made/$target/thinlane-agent"
    echo "note: $(sha256sum <"$work/made/$target/thinlane-agent" | cut -c 1-16).. twice"
}
