# Sourced by verify.sh: a Debian gateway with the packages on it, an engineer at work through it, and a newer package.
# shellcheck shell=bash disable=SC2154

# The gateway is this machine's own system with every change kept apart, in the network of scripts/lab.
lanes_outlive_an_upgrade() {
    set -e
    local old newer root=/run/thinlane-lab-tlpkg before after left
    old=$(first "$out"/thinlane-agent_*_"$(deb_arch "$(uname -m)")".deb) newer=$(first "$work"/newer/thinlane-agent_*.deb)
    [ -e "$old" ] || { echo "note: no package for this machine was asked for"; return 0; }
    need dropbear:dropbear-bin ssh:openssh-client ip:iproute2 nft:nftables ethtool:ethtool curl:curl setsid:util-linux sysctl:procps
    export THINLANE_LAB=tlpkg THINLANE_BIN=$work/bin THINLANE_ARTEFACTS=$out NO_COLOR=1
    mkdir -p "$work/bin"
    cp "$(made_here)"/* "$work/bin/"
    simulator "$work/bin"
    trap 'place down deb; lab down' EXIT
    lab down || true
    lab up
    place up debian deb 15
    lab exec ada thinlane site add deb
    lab exec ada thinlane asset add deb-plc1 --site deb --address 192.168.1.10 --type plc
    lab exec ada thinlane site token deb --out "$root/deb.code"

    put_package "$old"
    gateway 'umask 077; cat >/tmp/code' <"$root/deb.code"
    gateway "thinlane-agent enroll --controller 198.51.100.2:7443 --ca-fingerprint $(cat "$root/fingerprint") --token-file /tmp/code"
    gateway 'service thinlane-agent start'
    soon "the gateway is ready" gateway 'thinlane-agent status --check ready'
    talk_through_a_lane "$root"
    soon "the device answers" answers_more_than 5

    before=$(gateway 'pidof thinlane-agent')
    put_package "$newer"
    after=$(gateway 'pidof thinlane-agent')
    [ "$before" != "$after" ] || { echo "the agent was not restarted"; return 1; }
    [ "$(gateway 'dpkg-query -W -f "\${Version}" thinlane-agent')" = "$version+1" ]
    soon "answers after the upgrade" answers_more_than $(($(answers) + 20))
    [ "$(grep -c '"event":"connected"' "$root/device-deb-1.jsonl")" = 1 ] || { echo "the connection did not outlive the upgrade"; return 1; }
    echo "note: one TCP connection went on, its longest pause $(pause) ms"

    # Removed while somebody works: nothing stays open, and purged, nothing stays at all.
    gateway 'dpkg --remove thinlane-agent'
    after=$(answers)
    sleep 1
    [ "$after" = "$(answers)" ] || { echo "the lane outlived the package"; return 1; }
    gateway 'dpkg --purge thinlane-agent; rm -f /tmp/code /tmp/agent.deb'
    left=$(gateway "getent passwd thinlane-agent; find /etc /usr /lib /var /run -xdev -name '*thinlane*' -newer /opt/ssh/host -not -path '/var/tmp/*'" || true)
    left+=$(ip netns exec tlpkg-deb nft list ruleset; ip -n tlpkg-deb -o link | grep -o 'tl[-0][^:@]*' || true)
    [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# simulator DIR: the devices' program, which nobody ships
simulator() {
    (cd "$here" && nice -n 10 cargo build --quiet --locked -p thinlane-sim)
    cp "${CARGO_TARGET_DIR:-$here/target}/debug/thinlane-sim" "$1/"
}

lab() { "$here/scripts/lab" "$@"; }
place() { "$here/tests/flash/place" "$@"; }
gateway() { place exec deb "$@"; }
put_package() { gateway 'cat >/tmp/agent.deb && DEBIAN_FRONTEND=noninteractive dpkg -i /tmp/agent.deb' <"$1"; }
answers() { grep -c '"bytes"' "$work/talk" || true; }
answers_more_than() { [ "$(answers)" -gt "$1" ]; }
pause() { sed -n 's/.*"at_ms":\([0-9]*\).*/\1/p' "$work/talk" | awk 'NR > 1 && $1 - last > most {most = $1 - last} {last = $1} END {print most}'; }

# soon WHAT COMMAND...: within half a minute
soon() {
    local what=$1 tries=150
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "not within half a minute: $what"; return 1; }
        sleep 0.2
    done
}

# One connection through a lane to the device, a few bytes twenty times a second, what came back in $work/talk.
talk_through_a_lane() {
    local request up
    request=$(lab exec erik thinlane request create deb-plc1 --task echo-tcp --for 10m --reason "an upgrade" --nowait --json | json_field id)
    lab exec olga thinlane request approve "$request" --note "go ahead"
    up=$(lab exec erik thinlane up "$request" --json | grep '"event": *"up"')
    lab exec erik thinlane-sim echo tcp "$(json_field asset_address <<<"$up"):7" --every 50ms --for 5m --patience 1m >"$work/talk" &
}

json_field() { sed -n "s/.*\"$1\": *\"\\([^\"]*\\)\".*/\\1/p" | head -n 1; }
