//! `cargo xtask setup`: what a fresh machine with a Rust toolchain and a C compiler lacks.

use anyhow::Result;
use postern_testkit::program;

use crate::{bitcoin_core, packages, say};

/// How to set up.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Setup {
    /// Install without asking (also when CI=true).
    #[arg(long, short)]
    pub(crate) yes: bool,
}

pub(crate) fn run(arguments: &Setup) -> Result<()> {
    say::phase("setup", || {
        let build = program::bitcoind().is_err();
        packages::install(build, arguments.yes)?;
        if build {
            bitcoin_core::build()?;
        }
        say::note(&format!("bitcoind: {}", program::bitcoind()?.display()));
        Ok(())
    })
}
