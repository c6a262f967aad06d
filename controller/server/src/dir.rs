//! A controller's directory: which files stand in it, and how they are written.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use zeroize::Zeroizing;

/// The paths in one controller's directory.
#[derive(Debug, Clone)]
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn config(&self) -> PathBuf {
        self.0.join("controller.toml")
    }

    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca-key.pem")
    }

    pub fn server(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    pub fn server_key(&self) -> PathBuf {
        self.0.join("server-key.pem")
    }

    pub fn grant_key(&self) -> PathBuf {
        self.0.join("grant.key")
    }

    pub fn log_key(&self) -> PathBuf {
        self.0.join("log.key")
    }

    pub fn admin_setup(&self) -> PathBuf {
        self.0.join("admin-setup")
    }

    /// What live views remember over a restart; nothing is lost for good with it.
    pub fn lately(&self) -> PathBuf {
        self.0.join("lately.json")
    }

    /// Makes the directory (0700), or takes an empty one that is there.
    pub fn create(&self) -> Result<()> {
        let path = &self.0;
        if path.exists() {
            let mut inside = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
            if inside.next().is_some() {
                bail!(
                    "{} is not empty; `init` wants a new or empty directory (next: choose another --dir)",
                    path.display()
                );
            }
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot set the mode of {}", path.display()))
    }

    /// Whether the directory is there and nobody else can look into it.
    pub fn check(&self) -> Result<()> {
        let path = &self.0;
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("there is no {} (next: `thinlane-controller init --dir {}`)", path.display(), path.display())
            }
            Err(error) => bail!("cannot use {}: {error}", path.display()),
        };
        if !meta.is_dir() {
            bail!("{} is no directory", path.display());
        }
        if meta.mode() & 0o077 != 0 {
            bail!(
                "{} holds keys and must be closed to others, but its mode is {:04o} (next: `chmod 700 {}`)",
                path.display(),
                meta.mode() & 0o7777,
                path.display()
            );
        }
        for key in [self.ca_key(), self.server_key(), self.grant_key(), self.log_key()] {
            let Ok(meta) = fs::metadata(&key) else { continue };
            if meta.mode() & 0o077 != 0 {
                bail!(
                    "{} is a key and must be closed to others, but its mode is {:04o} (next: `chmod 600 {}`)",
                    key.display(),
                    meta.mode() & 0o7777,
                    key.display()
                );
            }
        }
        Ok(())
    }
}

/// Writes a file that only we may read (0600), whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o600, true)
}

/// As [`write_private`], but without waiting for the disk: for what may be lost when the power fails.
pub fn write_passing(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o600, false)
}

/// Writes a file that everybody may read (0644), whole or not at all.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, 0o644, true)
}

fn write(path: &Path, bytes: &[u8], mode: u32, wait: bool) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let fresh = path.with_file_name(format!(".{name}.new"));
    let done = || -> std::io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if wait {
            file.sync_all()?;
        }
        fs::rename(&fresh, path)
    };
    done().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a small text file; keys are wiped when dropped.
pub fn read_text(path: &Path) -> Result<Zeroizing<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Zeroizing::new(text))
}
