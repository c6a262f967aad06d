# Sourced by scripts/package: the engineer's program for Windows, made and tried here.
# shellcheck shell=bash disable=SC2154

windows_triple=x86_64-pc-windows-gnu

# windows ARCH: a zip archive with the program, for people who unpack it where they like
windows() {
    local arch=$1 root tools=()
    [ "$arch" = x86_64-windows ] || die "unknown architecture $arch" "x86_64-windows"
    made=$work/made/$arch
    mkdir -p "$made"
    if [ -n "$given" ]; then
        [ -e "$given/thinlane.exe" ] || die "--bin: there is no thinlane.exe in $given"
        x86_64-w64-mingw32-strip -o "$made/thinlane.exe" "$given/thinlane.exe" 2>/dev/null || cp "$given/thinlane.exe" "$made/"
    else
        echo "${dim}Building for $arch (some minutes) ...${plain}" >&2
        build_windows || return
        cp "${CARGO_TARGET_DIR:-$here/target}/$windows_triple/release/thinlane.exe" "$made/"
    fi
    root=$work/$arch/thinlane-$version
    mkdir -p "$root"
    install -m 755 "$made/thinlane.exe" "$root/"
    install -m 644 "$here/LICENSE-MIT" "$here/LICENSE-APACHE" "$root/"
    mapfile -t tools < <(from_windows_tools)
    fill "$parts/windows/NOTICE" "VERSION=$version" "RUST=${tools[0]#*=}" "MINGW=${tools[1]#*=}" >"$root/NOTICE"
    fill "$parts/windows/README.txt" "VERSION=$version" | sed 's/$/\r/' >"$root/README.txt"
    [ "$parts_list" = no ] || windows_sbom "${tools[@]}" >"$root/thinlane.cdx.json"
    /usr/bin/python3 - "$root" "$out.new/thinlane-$version-$arch.zip" "$SOURCE_DATE_EPOCH" <<'PY'
import os, sys, time, zipfile
root, to, moment = sys.argv[1:]
stamp = max(time.gmtime(int(moment))[:6], (1980, 1, 1, 0, 0, 0))
with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    for name in sorted(os.listdir(root)):
        entry = zipfile.ZipInfo(os.path.basename(root) + "/" + name, stamp)
        entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
        with open(os.path.join(root, name), "rb") as file:
            archive.writestr(entry, file.read())
PY
}

# Debian carries no compiled libraries for Windows: the standard library is built from its source as well.
build_windows() {
    need x86_64-w64-mingw32-gcc:gcc-mingw-w64-x86-64 /usr/bin/rustc:rustc-web /usr/bin/cargo:cargo-web
    [ -e /usr/lib/rustlib/src/rust/library/Cargo.lock ] || need "rust-web-source:rust-web-src"
    (
        foreign_tools "$windows_triple" x86_64-w64-mingw32
        # Unstable, and the only way to have a standard library for it.
        export RUSTC_BOOTSTRAP=1
        cargo_release "$windows_triple" -Zbuild-std=std,panic_unwind -p thinlane-cli
    )
}

# What the tools link into the program, NAME=VERSION each.
from_windows_tools() {
    local version
    version=$(/usr/bin/rustc --version 2>/dev/null | cut -d ' ' -f 2)
    echo "rust-std=${version:-unknown}"
    for name in "mingw-w64 mingw-w64-x86-64-dev" "libgcc gcc-mingw-w64-x86-64-posix-runtime"; do
        version=$(dpkg-query -W -f '${Version}' "${name#* }" 2>/dev/null || true)
        echo "${name% *}=${version:-unknown}"
    done
}

windows_sbom() {
    (cd "$here" && cargo metadata --locked --format-version 1 --filter-platform "$windows_triple" 2>/dev/null) |
        /usr/bin/python3 "$parts/sbom.py" thinlane-cli "$windows_triple" "$@"
}

# wine_ready: the program is in $windows, and `wine_runs WORD...` runs it; fails where nothing was made or there is no wine
wine_ready() {
    local file shim
    file=$(first "$out"/thinlane-*-x86_64-windows.zip)
    [ -e "$file" ] || { echo "note: no x86_64-windows was asked for"; return 1; }
    command -v wine >/dev/null || { echo "note: not run, there is no wine (Debian: wine64 and wine)"; return 1; }
    mkdir -p "$work/windows"
    /usr/bin/python3 -m zipfile -e "$file" "$work/windows"
    windows=$(first "$work/windows"/thinlane-*)
    export WINEPREFIX=$work/windows/prefix WINEDEBUG=-all
    unset DISPLAY
    for shim in bcryptprimitives api-ms-win-core-winrt-error-l1-1-0; do
        [ -e "/usr/lib/x86_64-linux-gnu/wine/x86_64-windows/$shim.dll" ] ||
            x86_64-w64-mingw32-gcc -shared "-D$(tr 'a-z-' 'A-Z_' <<<"$shim")" -o "$windows/$shim.dll" "$parts/windows/shims.c" -ladvapi32
    done
}

# What Debian's wine says of itself is nothing of ours.
wine_runs() {
    local code=0
    timeout 120 "${wine_in[@]}" wine "$windows/thinlane.exe" "$@" >"$work/windows/said" 2>&1 || code=$?
    grep -v -e 'wine32' -e '^multiarch needs' -e 'dpkg --add-architecture' "$work/windows/said" || true
    return "$code"
}

# A step of --verify: wine is Windows enough for a program that makes no interface.
windows_runs() {
    set -e
    local said code=0 wine_in=(env)
    wine_ready || return 0
    (cd "$windows" && [ -s LICENSE-MIT ] && [ -s LICENSE-APACHE ] && [ -s NOTICE ] && grep -q "^thinlane" README.txt)
    # Nothing is loaded that Windows itself does not bring.
    if x86_64-w64-mingw32-objdump -p "$windows/thinlane.exe" | grep -iE 'DLL Name: lib'; then return 1; fi
    wine_runs version | grep -q "^thinlane [0-9]"
    wine_runs completions powershell | grep -q config-out
    said=$(wine_runs up req_7k2m9q4x) || code=$?
    [ "$code" != 0 ] && [ "$code" -lt 100 ] && grep -q "thinlane login" <<<"$said" || { echo "exit $code: $said"; return 1; }
    wineserver -k || true
    echo "note: $(wine --version 2>/dev/null | grep -o 'wine-[^ ]*')"
}

# An engineer of the laboratory whose laptop runs Windows: a command in a lane, and bytes through it.
an_engineer_on_windows_has_a_lane() {
    set -e
    local request session said code=0 root=/run/thinlane-lab-tlwin
    wine_ready || return 0
    export THINLANE_LAB=tlwin NO_COLOR=1
    trap 'wineserver -k; lab down' EXIT
    lab down || true
    lab up
    local wine_in=("$here/scripts/lab" exec erik env "THINLANE_HOME=Z:${root//\//\\}\\home-erik")
    wine_runs request create north-plc1 --task echo-tcp --for 10m --reason "a laptop" --nowait --json >"$work/windows/request"
    request=$(json_field id <"$work/windows/request")
    lab exec olga thinlane request approve "$request" --note "go ahead"
    said=$(wine_runs up "$request") || code=$?
    [ "$code" != 0 ] && grep -q -e '--forward' <<<"$said" || { echo "exit $code: $said"; return 1; }
    "${wine_in[@]}" wine "$windows/thinlane.exe" connect "$request" --forward 15008 >"$work/windows/lane" 2>&1 &
    soon "the lane is up" grep -q 'is up' "$work/windows/lane"
    said=$(lab exec erik bash -c 'exec 3<>/dev/tcp/127.0.0.1/15008; echo through >&3; read -r -t 20 line <&3; echo "$line"')
    [ "$said" = through ] || { echo "through the lane came: $said"; return 1; }
    session=$(sed -n 's/.*(\(ses_[0-9a-z]*\)).*/\1/p' "$work/windows/lane" | head -n 1)
    # Other consoles know the lane by the mark beside its file. What is refused to them is told, and the lane stays.
    ls "$root/home-erik/lanes/"*.alive >/dev/null
    code=0
    said=$(wine_runs --url https://127.0.0.1:9 down "$session") || code=$?
    [ "$code" = 3 ] && grep -q "$session is still open: you are not logged in" <<<"$said" && grep -q '^next: thinlane login; or press Ctrl-C' <<<"$said" ||
        { echo "exit $code: $said"; return 1; }
    grep -q 'is down' "$work/windows/lane" && return 1
    wine_runs down "$session" | grep -q 'is down'
    soon "nothing is left of the lane" rmdir "$root/home-erik/lanes"
}
