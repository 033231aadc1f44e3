//! Where programs are: the project's own beside the running test, others on PATH or where `cargo xtask setup` puts them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The folder with the project's programs, when it is not the one that the running program was built into.
pub const BIN_DIR_VAR: &str = "POSTERN_BIN_DIR";
/// A `bitcoind` to use.
pub const BITCOIND_VAR: &str = "POSTERN_BITCOIND";
/// The version of the crate `libbitcoinkernel-sys` that `bitcoind` is built from.
pub const BITCOIN_CORE_CRATE_VERSION: &str = "0.4.1";

/// `target/debug` or `target/release`: where the running test or xtask was built.
///
/// # Errors
/// When the running program's own path is unknown.
pub fn target_folder() -> Result<PathBuf> {
    let exe = env::current_exe().context("where am I?")?;
    let mut folder = exe.parent().context("a program stands in a folder")?;
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().context("deps stands in a folder")?;
    }
    Ok(folder.to_owned())
}

/// One of the project's own programs.
///
/// # Errors
/// When it is not built.
pub fn own(name: &str) -> Result<PathBuf> {
    let folder = match env::var_os(BIN_DIR_VAR) {
        Some(folder) => PathBuf::from(folder),
        None => target_folder()?,
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} is not built; `cargo build --workspace --bins` builds it, `cargo xtask test` does all", path.display());
    }
    Ok(path)
}

/// A program on PATH, or in the folders for administrators that are not on everybody's.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Where things are kept that take long to make: `${XDG_CACHE_HOME:-~/.cache}/postern`.
///
/// # Errors
/// When there is no home.
pub fn cache_folder() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|v| Path::new(v).is_absolute()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("postern"))
}

/// Where `cargo xtask setup` puts Bitcoin Core, whether or not it is there.
///
/// # Errors
/// As [`cache_folder`].
pub fn cached_bitcoin_core() -> Result<PathBuf> {
    Ok(cache_folder()?.join("bitcoin-core").join(BITCOIN_CORE_CRATE_VERSION))
}

/// `bitcoind`: `$POSTERN_BITCOIND`, else on PATH, else the one that `cargo xtask setup` built.
///
/// # Errors
/// When there is none.
pub fn bitcoind() -> Result<PathBuf> {
    if let Some(path) = env::var_os(BITCOIND_VAR) {
        return Ok(path.into());
    }
    if let Some(path) = on_path("bitcoind") {
        return Ok(path);
    }
    let cached = cached_bitcoin_core()?.join("bin/bitcoind");
    if cached.is_file() {
        return Ok(cached);
    }
    bail!("no bitcoind on PATH and none in {}; `cargo xtask setup` builds one", cached.display());
}

/// SoftHSM's PKCS#11 module: `$POSTERN_SOFTHSM`, else where distributions put it.
///
/// # Errors
/// When there is none.
pub fn softhsm_module() -> Result<PathBuf> {
    if let Some(path) = env::var_os("POSTERN_SOFTHSM") {
        return Ok(path.into());
    }
    let arch = env::consts::ARCH;
    [
        "/usr/lib/softhsm/libsofthsm2.so".into(),
        format!("/usr/lib/{arch}-linux-gnu/softhsm/libsofthsm2.so"),
        "/usr/lib64/pkcs11/libsofthsm2.so".into(),
        "/usr/lib64/softhsm/libsofthsm2.so".into(),
        "/usr/lib/pkcs11/libsofthsm2.so".into(),
        "/usr/local/lib/softhsm/libsofthsm2.so".into(),
    ]
    .into_iter()
    .map(PathBuf::from)
    .find(|path: &PathBuf| path.is_file())
    .context(
        "SoftHSM's libsofthsm2.so is not where distributions put it; `cargo xtask setup` installs it, POSTERN_SOFTHSM names another place",
    )
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error holds what it wrote.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!("`{name} {}` ended with {}:\n{stdout}{}", arguments.join(" "), output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}
