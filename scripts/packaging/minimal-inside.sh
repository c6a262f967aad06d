# Runs within the minimal Debian of minimal.sh: minimal-inside.sh NEWER-VERSION. /opt holds the packages.
# shellcheck shell=bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive
newer=$1
packages='thinlane thinlane-agent thinlane-controller'

# Every file with its kind, rights, owner and content, and what runs. Left out: what dpkg itself keeps about its work, the
# copies and locks of the user database, and what says only that a package was here once.
world() {
    # shellcheck disable=SC2016
    find / \( -path /proc -o -path /dev -o -path /opt -o -path /tmp -o -path /var/lib/dpkg -o -path /var/log/dpkg.log -o -path /var/cache/ldconfig \
        -o -path '/etc/*-' -o -path /etc/.pwd.lock -o -path /run/lock -o -path /run/adduser \) -prune -o -printf '%y %m %u:%g %p %l\n' | sort
    sha256sum /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/subuid /etc/subgid /etc/shells 2>&1
    find /etc /lib/systemd /usr/lib/systemd /var/lib -type f ! -path '/var/lib/dpkg/*' ! -path '/etc/*-' -exec sha256sum {} + | sort
    running
}
running() { for each in /proc/[0-9]*; do tr '\0' ' ' <"$each/cmdline" 2>/dev/null | grep -a thinlane || true; done; }
# Within ten seconds.
soon() { for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "not in time: $*"; return 1; }
nothing_runs() { [ -z "$(running)" ]; }
something_runs() { ! nothing_runs; }
same() { diff "$1" "$2" >/tmp/difference || { echo "$3"; cat /tmp/difference; return 1; }; }

test ! -e /run/systemd/system
# Without an init, invoke-rc.d starts nothing unless it is allowed to.
printf '#!/bin/sh\nexit 0\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
world >/tmp/before
for round in first second; do
    dpkg -i /opt/old/*.deb
    test "$(stat -c '%U %a' /var/lib/thinlane)" = 'thinlane-agent 700'
    test "$(stat -c '%U %a' /var/lib/thinlane-controller)" = 'thinlane 700'
    thinlane version
    nothing_runs
    # An identity is there, if a useless one: the service starts and its agent complains, again and again, in its log.
    echo '{}' >/var/lib/thinlane/identity.json
    invoke-rc.d thinlane-agent start
    soon grep -q . /var/log/thinlane-agent.log
    soon something_runs
    setpriv --reuid thinlane --regid thinlane --clear-groups thinlane-controller init --dir /var/lib/thinlane-controller --admin ada --public c.example:7443
    echo '# of this gateway' >>/etc/thinlane/agent.toml
    dpkg -i /opt/new/*.deb
    # shellcheck disable=SC2086
    test "$(dpkg-query -W -f '${Version} ' $packages)" = "$newer $newer $newer "
    test "$(tail -n 1 /etc/thinlane/agent.toml)" = '# of this gateway'
    soon something_runs
    if [ "$round" = first ]; then
        # Removed first: identity, settings and state stay.
        # shellcheck disable=SC2086
        dpkg --remove $packages
        soon nothing_runs
        test -s /var/lib/thinlane/identity.json
        test -s /var/lib/thinlane-controller/controller.toml
        test -e /etc/thinlane/agent.toml
        test ! -e /usr/sbin/thinlane-agent
    fi
    # shellcheck disable=SC2086
    dpkg --purge $packages
    soon nothing_runs
    world >/tmp/after
    same /tmp/before /tmp/after "left by the $round purge:"
done
