//! What every change must keep: pure crates stay pure, licences permissive, files readable, documents true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crates that no pure crate may reach: runtimes, sockets, clocks, randomness, databases.
const IMPURE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "socket2",
    "netlink-sys",
    "rtnetlink",
    "nix",
    "rustix",
    "getrandom",
    "rand",
    "rusqlite",
    "libsqlite3-sys",
    "ring",
    "rustls",
    "hyper",
    "reqwest",
    "axum",
    "boringtun",
    "signal-hook",
    "tempfile",
];

/// What a pure crate's own source may not say.
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::TcpListener",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "std::thread",
    "std::process",
    "std::env::var",
    "tokio::",
];

/// Licences that the product may carry.
const PERMISSIVE: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "CC0-1.0",
    "BSL-1.0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "MIT-0",
    "CDLA-Permissive-2.0",
    "Apache-2.0 WITH LLVM-exception",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout")
}

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON")
}

/// Ids of everything that `from` is built with, its build scripts' and tests' needs left out.
fn reached(metadata: &Value, from: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| (node["id"].as_str().expect("id"), node))
        .collect();
    let mut seen = BTreeSet::new();
    let mut left = vec![from.to_owned()];
    while let Some(id) = left.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dep in nodes[id.as_str()]["deps"].as_array().expect("deps") {
            let normal = dep["dep_kinds"].as_array().expect("kinds").iter().any(|kind| kind["kind"].is_null());
            if normal {
                left.push(dep["pkg"].as_str().expect("pkg").to_owned());
            }
        }
    }
    seen
}

/// Names of what a crate is built with when it is built alone: features that others ask for do not count.
fn built_alone(name: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", name, "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("text");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn packages(metadata: &Value) -> BTreeMap<&str, &Value> {
    metadata["packages"].as_array().expect("packages").iter().map(|p| (p["id"].as_str().expect("id"), p)).collect()
}

fn is_under(package: &Value, folder: &str) -> bool {
    Path::new(package["manifest_path"].as_str().expect("path")).starts_with(root().join(folder))
}

fn sources(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root().join(folder)];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with("target") && !name.starts_with('.') {
                left.push(path);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn pure_crates_reach_no_runtime_socket_clock_randomness_or_database() {
    let metadata = metadata();
    let packages = packages(&metadata);
    let pure: Vec<_> = packages.values().filter(|package| is_under(package, "proto")).collect();
    assert!(pure.len() >= 7, "only {} pure crates found", pure.len());
    for package in pure {
        let name = package["name"].as_str().expect("name");
        for reached in built_alone(name) {
            assert!(!IMPURE.contains(&reached.as_str()), "{name} reaches {reached}");
        }
    }
}

#[test]
fn pure_crates_name_no_clock_file_or_socket_and_forbid_unsafe_code() {
    for path in sources("proto", ".rs") {
        let is_build_script = path.file_name().is_some_and(|name| name == "build.rs");
        let text = std::fs::read_to_string(&path).expect("source");
        let in_tests = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
        let own = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in IMPURE_WORDS.iter().filter(|_| !is_build_script && !in_tests) {
            assert!(!own.contains(word), "{} says {word}", path.display());
        }
        if path.ends_with("src/lib.rs") {
            assert!(text.contains("#![forbid(unsafe_code)]"), "{} does not forbid unsafe code", path.display());
        }
    }
}

#[test]
fn the_agent_knows_neither_policy_nor_store_and_the_controller_no_nftables() {
    let metadata = metadata();
    let packages = packages(&metadata);
    for (folder, banned) in
        [("agent", ["thinlane-policy", "thinlane-store"]), ("controller", ["thinlane-nft", "thinlane-wg"])]
    {
        for package in packages.values().filter(|package| is_under(package, folder)) {
            for id in reached(&metadata, package["id"].as_str().expect("id")) {
                let name = packages[id.as_str()]["name"].as_str().expect("name");
                assert!(!banned.contains(&name), "{} reaches {name}", package["name"]);
            }
        }
    }
}

#[test]
fn every_dependency_of_the_product_has_a_permissive_licence() {
    let metadata = metadata();
    let packages = packages(&metadata);
    let mut checked = BTreeSet::new();
    for package in packages.values().filter(|package| package["source"].is_null()) {
        for id in reached(&metadata, package["id"].as_str().expect("id")) {
            let dependency = packages[id.as_str()];
            let licence = dependency["license"].as_str().unwrap_or_default().replace('/', " OR ");
            let permitted = licence.split(" OR ").any(|choice| {
                choice
                    .trim_matches(['(', ')', ' '])
                    .split(" AND ")
                    .all(|part| PERMISSIVE.contains(&part.trim_matches(['(', ')', ' '])))
            });
            let by_parts = !licence.contains("GPL")
                && licence
                    .split(" AND ")
                    .all(|part| part.split(" OR ").any(|one| PERMISSIVE.contains(&one.trim_matches(['(', ')', ' ']))));
            assert!(permitted || by_parts, "{} is under {licence:?}", dependency["name"]);
            checked.insert(id);
        }
    }
    assert!(checked.len() > 100, "only {} packages seen", checked.len());
}

#[test]
fn versions_stand_only_in_the_root_manifest() {
    for path in sources(".", "Cargo.toml").iter().filter(|path| **path != root().join("Cargo.toml")) {
        let text = std::fs::read_to_string(path).expect("a manifest");
        for line in text.lines().filter(|line| line.contains("version") && !line.contains("workspace")) {
            assert!(line.trim_start().starts_with('#'), "{}: {line}", path.display());
        }
    }
}

/// What only one operating system, or only one family of them, has.
const OF_ONE_SYSTEM: &[&str] = &[
    "std::os::",
    "core::ffi",
    "target_os",
    "target_family",
    "cfg(unix",
    "cfg(windows",
    "signal::unix",
    "signal::windows",
    "nix::",
    "libc::",
    "rustix::",
    "win32job::",
    "\"/proc",
    "\"/dev",
    "\"/sys",
];

/// Says which words of one operating system stand in a source file, its tests left out.
fn names_no_system(path: &std::path::Path) {
    let text = std::fs::read_to_string(path).expect("source");
    let shipped = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    for word in OF_ONE_SYSTEM {
        assert!(!shipped.contains(word), "{} says {word}", path.display());
    }
}

/// A lane without an interface is for engineers' laptops, whatever runs on them.
#[test]
fn a_lane_without_an_interface_names_nothing_of_one_operating_system_only() {
    const CRATES: &[&str] =
        &["nix", "libc", "rustix", "errno", "netlink-sys", "signal-hook", "windows-sys", "thinlane-wg"];
    let metadata = metadata();
    let packages = packages(&metadata);
    let forward = packages.values().find(|package| package["name"] == "thinlane-forward").expect("the crate");
    for dependency in forward["dependencies"].as_array().expect("dependencies") {
        let name = dependency["name"].as_str().expect("a name");
        assert!(!CRATES.contains(&name) && dependency["target"].is_null(), "thinlane-forward wants {name}");
    }
    let sources = sources("cli/forward/src", ".rs");
    assert!(sources.len() > 10, "only {} files found", sources.len());
    sources.iter().for_each(|path| names_no_system(path));
}

/// The engineer's program knows systems in one place, which has the same functions for each of them.
#[test]
fn the_command_line_names_an_operating_system_in_one_place_only() {
    let apart = |path: &std::path::Path| {
        let text = path.display().to_string();
        text.contains("/src/system/") || text.ends_with("/src/system.rs") || text.ends_with("/tests.rs")
    };
    let mut sources = sources("cli/src", ".rs");
    sources.extend(self::sources("cli/tui/src", ".rs"));
    sources.retain(|path| !apart(path));
    assert!(sources.len() > 60, "only {} files found", sources.len());
    sources.iter().for_each(|path| names_no_system(path));

    let metadata = metadata();
    let packages = packages(&metadata);
    let cli = packages.values().find(|package| package["name"] == "thinlane-cli").expect("the crate");
    for dependency in cli["dependencies"].as_array().expect("dependencies") {
        let name = dependency["name"].as_str().expect("a name");
        let everywhere = dependency["target"].is_null();
        assert!(!(everywhere && ["nix", "libc", "rustix", "win32job"].contains(&name)), "{name} is not everywhere");
    }

    // The same functions on both: whoever calls them never asks where it runs.
    let here = |system: &str, file: &str| {
        let path = root().join(format!("cli/src/system/{system}/{file}.rs"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut shown: Vec<String> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub "))
            .filter_map(|rest| rest.strip_prefix("async ").unwrap_or(rest).strip_prefix("fn "))
            .map(|rest| rest.split(['(', '<']).next().unwrap_or_default().to_owned())
            .collect();
        shown.sort();
        shown
    };
    for file in ["files", "mark", "process", "signals", "terminal"] {
        assert_eq!(here("unix", file), here("windows", file), "{file} differs");
    }
}

#[test]
fn no_source_file_is_longer_than_six_hundred_lines() {
    let mut long = Vec::new();
    for path in sources(".", ".rs") {
        let lines = std::fs::read_to_string(&path).expect("source").lines().count();
        if lines > 600 {
            long.push(format!("{}: {lines}", path.display()));
        }
    }
    assert!(long.is_empty(), "split: {long:#?}");
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for path in sources(".", ".rs") {
        let text = std::fs::read_to_string(&path).expect("source");
        let first = text.lines().find(|line| !line.starts_with("#!") && !line.trim().is_empty()).unwrap_or_default();
        assert!(first.starts_with("//!"), "{} does not begin with //! and its purpose", path.display());
    }
}

/// Tests are named in `docs/security.md` as `path/to/file.rs::name_of_test`.
#[test]
fn every_invariant_and_threat_names_a_test_that_exists() {
    let text = std::fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md");
    let named: Vec<(&str, &str)> = text.split('`').filter_map(|word| word.split_once(".rs::")).collect();
    for (file, test) in &named {
        let path = root().join(format!("{file}.rs"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(source.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
    }
    let rows = |prefix: &str, numbers: &[u32]| {
        for number in numbers {
            let start = format!("| {prefix}{number} |");
            let row = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row {start}"));
            assert!(row.contains(".rs::"), "{prefix}{number} names no test");
        }
    };
    rows("I", &(1..=9).collect::<Vec<_>>());
    let threats: Vec<u32> = (1..=29).filter(|number| ![13, 21, 22, 28].contains(number)).collect();
    rows("T", &threats);
}
