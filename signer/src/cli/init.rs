//! `postern init`: what a signer needs before its first start. Each step is said before it is done, and what exists is
//! never replaced: a new ledger would mean new limits, a new identity that no command is for this signer any more.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use super::{
    Ending,
    paint::{DIM, HEAD, WARN, paint},
    site::Site,
};
use crate::{
    attest::{self, AttestKeyError},
    config::Config,
    identity::{IDENTITY_FILE, Identity, IdentityError},
    ledger::{self, Entry, Ledger},
    tpm::Tpm,
};

pub(super) fn run(site: &Site) -> Result<Ending> {
    let config = site.config()?;
    let state = config.state.as_path();
    make_folder(state)?;

    let identity = match Identity::open(state) {
        Ok(identity) => Some(identity),
        Err(IdentityError::Missing(_)) => None,
        Err(e) => return Err(e.into()),
    };
    let ledger = state.join(LEDGER_FILE);
    let has_ledger = ledger.try_exists().with_context(|| ledger.display().to_string())?;
    let identity = match (identity, has_ledger) {
        (Some(identity), true) => {
            say!("The identity and the ledger exist already; they are kept.");
            identity
        }
        (Some(_), false) => bail!(
            "{0} holds an identity and no ledger. A new ledger would forget what was spent, so none is made: restore {1} from a backup \
             (docs/ledger.md, \"There is no ledger\"). Only if this signer never ran, move {0}/{2} away and run `postern init` again: \
             it makes both anew",
            state.display(),
            ledger.display(),
            IDENTITY_FILE
        ),
        (None, true) if is_untouched(state)? => {
            say!("The ledger {} exists already and no signer ever started with it; it is kept.", ledger.display());
            make_identity(state)?
        }
        (None, true) => bail!(
            "{} holds a ledger that was in use, and no identity. A new identity would make every command and pairing void, so none is \
             made: restore {} from a backup",
            state.display(),
            state.join(IDENTITY_FILE).display()
        ),
        (None, false) => {
            make_ledger(state)?;
            make_identity(state)?
        }
    };

    make_attestation_keys(&config)?;

    say!();
    say!("{} {}", paint(HEAD, "Identity:"), identity.public());
    say!("{}", paint(DIM, "Managers' commands and the coordinator know this signer by it."));
    if config.wallets.is_empty() {
        say!("{} postern wallet new NAME --keystore K --kind seed --script wpkh", paint(HEAD, "Next:"));
    } else {
        say!("{} postern-signer check {}", paint(HEAD, "Next:"), site.config_path().display());
    }
    Ok(Ending::Done)
}

/// A key in each TPM that signs what was booted. A TPM that is away is no reason to stop: this can be run again.
fn make_attestation_keys(config: &Config) -> Result<()> {
    for (name, table) in config.keystores.iter().filter_map(|(name, table)| Some((name, table.tpm()?))) {
        match attest::read_key(&config.state, name) {
            Ok(_) => {}
            Err(AttestKeyError::Missing(path)) => {
                say!("Making the attestation key of keystore {name}'s TPM, {}.", path.display());
                match attest::make_key(&Tpm::new(table.tcti.get_ref().clone()), &config.state, name) {
                    Ok(_) => {}
                    Err(AttestKeyError::Tpm(e)) => {
                        anstream::eprintln!(
                            "{} it is not made: {e}; run `postern init` again when that is mended",
                            paint(WARN, "Warning:")
                        );
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// In the state folder, see [`crate::ledger`].
const LEDGER_FILE: &str = "ledger.db";

fn make_folder(state: &Path) -> Result<()> {
    match fs::symlink_metadata(state) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            say!("Making the state folder {}, for this user only.", state.display());
            if rustix::process::geteuid().is_root() {
                say!("{}", paint(DIM, "You are root: a signer that runs as another user could not open it (sudo -u USER postern init)."));
            }
            if let Some(parent) = state.parent() {
                fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
            }
            DirBuilder::new().mode(0o700).create(state).with_context(|| format!("{} cannot be made", state.display()))
        }
        Err(e) => Err(e).with_context(|| format!("{} cannot be looked at", state.display())),
        Ok(metadata) => {
            let folder = fs::metadata(state).with_context(|| format!("{} cannot be looked at", state.display()))?;
            if !folder.is_dir() {
                bail!("{} is not a folder; name another one in [signer] state", state.display());
            }
            let own = rustix::process::geteuid().as_raw();
            if folder.uid() != own {
                bail!(
                    "{} belongs to user {}, and you are user {own}: run this as the user that the signer runs as (sudo -u …)",
                    state.display(),
                    folder.uid()
                );
            }
            if folder.mode() & 0o077 != 0 && !metadata.is_symlink() {
                say!("Closing the state folder {} to other users (mode 0700).", state.display());
                fs::set_permissions(state, fs::Permissions::from_mode(0o700))
                    .with_context(|| format!("{} cannot be closed to others", state.display()))?;
            }
            Ok(())
        }
    }
}

/// First of the two. A ledger that never started is no reason to refuse an identity, while an identity without a ledger may be all
/// that is left of a signer that spent: so nothing that happens in between leaves a new operator with a folder that `init` refuses.
fn make_ledger(state: &Path) -> Result<()> {
    say!("Making an empty ledger, {}: nothing is spent yet.", state.join(LEDGER_FILE).display());
    Ledger::create(state).context("the ledger was not made; when the reason is gone, run `postern init` again")
}

fn make_identity(state: &Path) -> Result<Identity> {
    say!("Making the signer's identity key, {}.", state.join(IDENTITY_FILE).display());
    Identity::create(state).context("the identity was not made; when the reason is gone, run `postern init` again")
}

/// Whether no signer ever started with the ledger.
fn is_untouched(state: &Path) -> Result<bool> {
    let mut untouched = true;
    ledger::show(state, 0, |line| {
        untouched &= matches!(line.entry, Entry::Created(_));
        untouched
    })?;
    Ok(untouched)
}
