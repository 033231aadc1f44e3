//! Cargo, called from below Cargo.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use postern_testkit::program;

/// The workspace's folder.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map(Path::to_owned).context("xtask stands in the workspace")
}

/// Where Cargo builds to.
pub(crate) fn target() -> Result<PathBuf> {
    program::target_folder()?.parent().map(Path::to_owned).context("a profile's folder stands in the target folder")
}

/// `cargo ARGUMENTS` in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()?).env("CARGO_TARGET_DIR", target()?);
    // What `cargo run` said about xtask is not about what is built now.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    Ok(command)
}
