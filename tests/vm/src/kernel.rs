//! A Debian kernel, unpacked and not installed: its image, and its modules in the order in which they load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// Packages of Linux 6.1 for virtual machines, newest last when sorted by number: a kernel that still ignores a second
/// timeout for an element that is there.
const PREFIX: &str = "linux-image-6.1.0-";
const SUFFIX: &str = "-cloud-amd64";

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub version: String,
    /// What the machine boots.
    pub image: PathBuf,
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// Finds the kernel below `cache`, or fetches it there with apt.
    pub fn fetch(cache: &Path) -> Result<Self> {
        std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        if let Some(kernel) = Self::unpacked(cache)? {
            return Ok(kernel);
        }
        let package = match newest()? {
            Some(package) => package,
            None => {
                run("apt-get", &["update", "-qq"], cache)?;
                newest()?.context("this system's package sources have no linux-image-6.1.0-*-cloud-amd64")?
            }
        };
        if run("apt-get", &["download", "-qq", &package], cache).is_err() {
            // The list was older than the mirror.
            run("apt-get", &["update", "-qq"], cache)?;
            let package = newest()?.with_context(|| format!("{package} has gone"))?;
            run("apt-get", &["download", "-qq", &package], cache)?;
        }
        let archive = files(cache, &|path| path.extension().is_some_and(|ending| ending == "deb"))?;
        let archive = archive.last().context("apt-get download left no package")?;
        // Unpacked aside and renamed: an interrupted run leaves no half kernel.
        let (half, whole) = (cache.join("kernel.part"), cache.join("kernel"));
        let _ = std::fs::remove_dir_all(&half);
        run("dpkg", &["-x", &archive.to_string_lossy(), &half.to_string_lossy()], cache)?;
        std::fs::rename(&half, &whole).context("cannot keep the kernel")?;
        std::fs::remove_file(archive).context("cannot remove the package")?;
        Self::unpacked(cache)?.context("the package has no kernel in it")
    }

    fn unpacked(cache: &Path) -> Result<Option<Self>> {
        let root = cache.join("kernel");
        if !root.exists() {
            return Ok(None);
        }
        let images = files(&root.join("boot"), &|path| name(path).starts_with("vmlinuz-"))?;
        let image = images.into_iter().next().context("no kernel image")?;
        let version = name(&image).trim_start_matches("vmlinuz-").to_owned();
        let modules = files(&root.join("lib/modules"), &|path| name(path).ends_with(".ko"))?;
        let modules = modules.into_iter().map(|path| (canonical(name(&path).trim_end_matches(".ko")), path)).collect();
        Ok(Some(Self { version, image, modules }))
    }

    /// The files of these modules and of all that they need, each after what it needs.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for module in wanted {
            self.add(module, &mut order, 0)?;
        }
        Ok(order)
    }

    /// Copies these modules, and all that they need, to `lib/modules/..` below `root`.
    pub fn copy_modules(&self, wanted: &[&str], root: &Path) -> Result<()> {
        for path in self.modules(wanted)? {
            let text = path.to_string_lossy().into_owned();
            let (_, below) = text.rsplit_once("/lib/modules/").context("a module lies in lib/modules")?;
            let to = root.join("lib/modules").join(below);
            let folder = to.parent().context("a module lies in a directory")?;
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            std::fs::copy(&path, &to).with_context(|| format!("cannot copy {text}"))?;
        }
        Ok(())
    }

    fn add(&self, module: &str, order: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
        ensure!(depth < 32, "the modules need each other in a circle");
        let path = self.modules.get(&canonical(module)).with_context(|| format!("no module {module}"))?;
        if order.contains(path) {
            return Ok(());
        }
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        for needed in depends(&bytes) {
            self.add(&needed, order, depth + 1)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// What a module's `.modinfo` says that it depends on.
fn depends(bytes: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = bytes.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = &bytes[at + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end]).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Module names and file names differ in dashes.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn newest() -> Result<Option<String>> {
    let search = format!("^{}[0-9]+{SUFFIX}$", PREFIX.replace('.', "[.]"));
    let found = output("apt-cache", &["search", "--names-only", &search])?;
    let number = |package: &str| package.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse::<u32>().ok();
    let names = found.lines().filter_map(|line| line.split(' ').next());
    Ok(names.filter_map(|name| Some((number(name)?, name.to_owned()))).max().map(|(_, name)| name))
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(program: &str, args: &[&str], directory: &Path) -> Result<()> {
    let output = Command::new(program).args(args).current_dir(directory).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Every file below `root` that `wanted` takes, sorted.
fn files(root: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else if wanted(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
