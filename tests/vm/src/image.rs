//! The machine's file system as an uncompressed cpio archive (`newc`, Documentation/driver-api/early-userspace/
//! buffer-format.rst), which a kernel unpacks at boot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const DEVICE: u32 = 0o020_600;

/// Debian's merged directories.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

#[derive(Debug)]
enum Node {
    Directory,
    File(Vec<u8>),
    Link(String),
}

/// What stands where, without a leading slash; parents sort before what is in them.
#[derive(Debug, Default)]
pub struct Image {
    nodes: BTreeMap<String, Node>,
}

impl Image {
    /// The usual directories, and nothing in them.
    pub fn new() -> Self {
        let mut image = Self::default();
        for name in MERGED {
            image.directory(&format!("usr/{name}"));
            image.nodes.insert(name.to_owned(), Node::Link(format!("usr/{name}")));
        }
        for name in ["dev", "proc", "sys", "run", "tmp", "etc", "var/lib", "root"] {
            image.directory(name);
        }
        image
    }

    /// A file that may be executed.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let path = canonical(path);
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        self.nodes.insert(path, Node::File(content.into()));
    }

    pub fn link(&mut self, path: &str, to: &str) {
        self.nodes.insert(canonical(path), Node::Link(to.to_owned()));
    }

    /// A program of this machine at its own place, with the libraries that it loads.
    pub fn program(&mut self, path: &Path) -> Result<()> {
        for library in libraries(path)? {
            let bytes = std::fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
            self.file(&library.to_string_lossy(), bytes);
        }
        self.file(&path.to_string_lossy(), stripped(path)?);
        Ok(())
    }

    /// A tool that is found in PATH.
    pub fn tool(&mut self, name: &str) -> Result<()> {
        self.program(&find(name)?)
    }

    fn directory(&mut self, path: &str) {
        let mut whole = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !whole.is_empty() {
                whole.push('/');
            }
            whole.push_str(part);
            self.nodes.entry(whole.clone()).or_insert(Node::Directory);
        }
    }

    /// The archive.
    pub fn archive(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, (path, node)) in self.nodes.iter().enumerate() {
            let (mode, content) = match node {
                Node::Directory => (DIRECTORY, &[][..]),
                Node::File(content) => (PROGRAM, content.as_slice()),
                Node::Link(to) => (LINK, to.as_bytes()),
            };
            entry(&mut bytes, number + 1, path, mode, (0, 0), content);
        }
        // Without it the first program has no standard output.
        entry(&mut bytes, self.nodes.len() + 1, "dev/console", DEVICE, (5, 1), &[]);
        entry(&mut bytes, 0, "TRAILER!!!", 0, (0, 0), &[]);
        bytes
    }
}

fn entry(bytes: &mut Vec<u8>, number: usize, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    bytes.extend_from_slice(b"070701");
    let fields = [
        number,
        mode as usize,
        0,
        0,
        1,
        0,
        content.len(),
        0,
        0,
        device.0 as usize,
        device.1 as usize,
        path.len() + 1,
        0,
    ];
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(content);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Without leading slash, and in the directory that a merged one leads to.
fn canonical(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let merged = MERGED.iter().any(|name| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')));
    if merged { format!("usr/{path}") } else { path.to_owned() }
}

fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed"))
}

/// What the dynamic linker loads for a program; nothing for a static one.
fn libraries(path: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(path).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.contains("not found"), "{}: {text}", path.display());
    Ok(text.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// Without debug information, which is most of a test program.
fn stripped(path: &Path) -> Result<Vec<u8>> {
    let small = std::env::temp_dir().join(format!("thinlane-vm-{}", std::process::id()));
    let done = Command::new("strip").args(["--strip-debug", "-o"]).arg(&small).arg(path).output();
    let done = done.context("cannot run strip")?;
    ensure!(done.status.success(), "strip: {}", String::from_utf8_lossy(&done.stderr));
    let bytes = std::fs::read(&small).context("cannot read what strip wrote");
    let _ = std::fs::remove_file(&small);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_lists_parents_before_what_is_in_them_and_ends_with_the_trailer() {
        let mut image = Image::new();
        image.file("/bin/x/y", "hello");
        image.link("/init", "bin/x/y");
        let mut command = Command::new("busybox");
        command.args(["cpio", "-t"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("busybox is installed");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), &image.archive()).expect("it reads");
        let listed = child.wait_with_output().expect("it ends");
        let listed = String::from_utf8(listed.stdout).expect("text");
        let names: Vec<&str> = listed.lines().collect();
        let at = |name: &str| names.iter().position(|it| *it == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
        assert!(at("usr") < at("usr/bin") && at("usr/bin/x") < at("usr/bin/x/y"), "{names:?}");
        assert!(names.contains(&"init") && names.contains(&"dev/console"), "{names:?}");
    }
}
