//! Identity keys of the nodes. Making an authority's takes seconds, so they are made once and kept in the user's cache; they
//! protect nothing.

use std::{
    env, fs,
    fs::File,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use rustix::fs::{FlockOperation, flock};

use super::{Shape, relay_name};
use crate::{process::start_bound, program};

/// An authority's certificate lives for twelve months; it is made anew long before.
const AGE_MAX: Duration = Duration::from_secs(60 * 86_400);
/// The first node's port; every network has a namespace of its own, so the numbers are free.
const FIRST_PORT: u16 = 15_000;

/// A node and who it is.
#[derive(Debug, Clone)]
pub(super) struct NodeKeys {
    pub(super) name: String,
    number: u16,
    folder: PathBuf,
    /// RSA identity, 40 hex digits.
    pub(super) rsa: String,
    /// Ed25519 identity, base64.
    pub(super) ed25519: String,
    /// An authority's identity, 40 hex digits.
    pub(super) v3ident: Option<String>,
}

impl NodeKeys {
    /// Each node has a /16 of its own: Tor puts no two relays of one into a path.
    pub(super) fn address(&self) -> String {
        format!("127.{}.0.1", self.number + 1)
    }

    pub(super) fn or_port(&self) -> u16 {
        FIRST_PORT + self.number
    }

    pub(super) fn dir_port(&self) -> u16 {
        FIRST_PORT + 100 + self.number
    }

    /// Puts the keys where a node's DataDirectory is.
    pub(super) fn copy_to(&self, data: &Path) -> Result<()> {
        copy_folder(&self.folder.join("keys"), &data.join("keys"))
    }

    fn read(folder: &Path, name: String, number: u16) -> Result<Self> {
        let read = |file: &str| fs::read_to_string(folder.join(file)).with_context(|| format!("{}/{file}", folder.display()));
        let public = fs::read(folder.join("keys/ed25519_master_id_public_key"))?;
        let tail = public.len().checked_sub(32).and_then(|at| public.get(at..)).context("an Ed25519 key has 32 bytes")?;
        let rsa = read("fingerprint")?.split_once(' ').context("a fingerprint file has two words")?.1.trim().to_owned();
        let v3ident = match fs::read_to_string(folder.join("keys/authority_certificate")) {
            Ok(text) => {
                Some(text.lines().find_map(|l| l.strip_prefix("fingerprint ")).context("no fingerprint in the certificate")?.to_owned())
            }
            Err(_) => None,
        };
        Ok(Self { name, number, folder: folder.into(), rsa, ed25519: STANDARD_NO_PAD.encode(tail), v3ident })
    }
}

/// Keys of all nodes, authorities first, made where they are missing.
pub(super) fn of_nodes(shape: Shape) -> Result<Vec<NodeKeys>> {
    let cache = cache_folder()?;
    // One process makes keys, the others wait for it.
    let lock = File::create(cache.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let authorities = (0..shape.authorities).map(|i| (format!("auth{i}"), true));
    let relays = (0..shape.relays).map(|i| (relay_name(i), false));
    // An authority's address is in its certificate, so a name always has the same number: relays count on from 50.
    authorities
        .enumerate()
        .chain(relays.enumerate().map(|(i, node)| (i + 50, node)))
        .map(|(i, (name, authority))| {
            let number = u16::try_from(i).context("too many nodes")?;
            let folder = cache.join(&name);
            if !is_fresh(&folder) {
                make(&folder, &name, number, authority).with_context(|| format!("making the keys of {name}"))?;
            }
            NodeKeys::read(&folder, name, number)
        })
        .collect()
}

fn cache_folder() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let cache = base.join("postern/tor-network");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
}

fn is_fresh(folder: &Path) -> bool {
    let made = fs::metadata(folder.join("fingerprint")).and_then(|m| m.modified());
    made.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < AGE_MAX))
}

fn make(folder: &Path, name: &str, number: u16, authority: bool) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join("keys"))?;
    let nobody = NodeKeys { name: name.into(), number, folder: folder.into(), rsa: String::new(), ed25519: String::new(), v3ident: None };
    let (address, or_port, dir_port) = (nobody.address(), nobody.or_port(), nobody.dir_port());
    if authority {
        let mut command = Command::new(program::on_path("tor-gencert").context("`tor-gencert` is missing; the package tor has it")?);
        command.args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a", &format!("{address}:{dir_port}")]);
        for (flag, file) in [("-i", "authority_identity_key"), ("-s", "authority_signing_key"), ("-c", "authority_certificate")] {
            command.arg(flag).arg(folder.join("keys").join(file));
        }
        run(command)?;
    }
    // Asked for its fingerprint, tor makes its keys and connects to nothing. It insists on an authority that is not the public ones.
    let mut command = Command::new(program::on_path("tor").context("`tor` is missing; the package tor has it")?);
    let nowhere = format!("nowhere orport=1 v3ident={f} 127.0.0.1:1 {f}", f = "F".repeat(40));
    command.args(["--ignore-missing-torrc", "-f"]).arg(folder.join("none")).arg("--quiet").arg("--DataDirectory").arg(folder);
    command.args(["--ORPort", &format!("{address}:{or_port}"), "--Nickname", name, "--ContactInfo", "none@example.invalid"]);
    command.args(["--DirAuthority", &nowhere, "--list-fingerprint"]);
    run(command)
}

fn run(mut command: Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = start_bound(command)?.wait_with_output()?;
    if !output.status.success() {
        bail!("{}: {}{}", output.status, String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
