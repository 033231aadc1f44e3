//! Says what to install when the TPM's library is missing. The crate that links it only says that pkg-config failed.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_LIBDIR");
    let found = Command::new("pkg-config").args(["--exists", "tss2-esys", "tss2-sys", "tss2-tctildr", "tss2-mu"]).status();
    let missing = match found {
        Ok(status) if status.success() => return,
        Ok(_) => "the TPM software stack",
        Err(_) => "pkg-config",
    };
    println!(
        "cargo::error={missing} is missing; `cargo xtask setup` installs what the signer is built with (Debian: libtss2-dev and pkg-config)"
    );
}
