//! An onion service of a C Tor beside this process: it forwards plain streams here, and reads who may find it from a folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{net::UnixListener, sync::watch};

use super::{DoorError, DoorTable, OnionWay, PairedSigner, bind_tcp, config::ExternalListen, serve::stopped};

/// Prefix of the files that the door keeps; others in the folder are left alone.
const OURS: &str = "postern-";

pub(super) async fn listen(table: &DoorTable) -> Result<OnionWay, DoorError> {
    let clients = AuthorizedClients(table.onion.authorized_clients.clone());
    match table.external_listen()? {
        ExternalListen::Tcp(address) => Ok(OnionWay::ExternalTcp(bind_tcp(&address.to_string()).await?, clients)),
        ExternalListen::Unix(path) => {
            let failed = |cause| DoorError::Listen { address: path.display().to_string(), cause };
            remove_dead_socket(&path).await.map_err(failed)?;
            Ok(OnionWay::ExternalUnix(UnixListener::bind(&path).map_err(failed)?, clients))
        }
    }
}

/// A socket file that nobody listens on any more is in the way of binding; one that somebody does is an error.
async fn remove_dead_socket(path: &Path) -> io::Result<()> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// C Tor's `authorized_clients` folder, if the door is to keep it.
pub(super) struct AuthorizedClients(Option<PathBuf>);

impl AuthorizedClients {
    pub(super) async fn keep_current(self, mut pins: watch::Receiver<Arc<[PairedSigner]>>, mut shutdown: watch::Receiver<bool>) {
        let Some(folder) = self.0 else { return };
        loop {
            let signers = pins.borrow_and_update().clone();
            match write_all(&folder, &signers) {
                Ok(true) => tracing::info!(folder = %folder.display(), "authorised clients changed: C Tor reads them when it gets SIGHUP"),
                Ok(false) => {}
                Err(e) => tracing::error!(folder = %folder.display(), "authorised clients cannot be written: {e}"),
            }
            tokio::select! {
                changed = pins.changed() => if changed.is_err() { return },
                () = stopped(&mut shutdown) => return,
            }
        }
    }
}

/// Whether anything changed.
fn write_all(folder: &Path, signers: &[PairedSigner]) -> io::Result<bool> {
    fs::create_dir_all(folder)?;
    let wanted: Vec<(String, String)> =
        signers.iter().map(|s| (format!("{OURS}{}.auth", hex::encode(&s.name)), format!("{}\n", s.client_auth))).collect();
    let mut changed = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(OURS) && !wanted.iter().any(|(n, _)| *n == name) {
            fs::remove_file(entry.path())?;
            changed = true;
        }
    }
    for (name, line) in wanted {
        let path = folder.join(name);
        if fs::read_to_string(&path).ok().as_deref() != Some(&line) {
            fs::write(&path, line)?;
            changed = true;
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_paired_signers_stay_in_the_folder_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let paired = |name: &str| PairedSigner {
            name: name.into(),
            tls_pin: postern_link::tls::TlsPin::of_spki(name.as_bytes()),
            client_auth: format!("descriptor:x25519:{}", "A".repeat(52)).parse().unwrap(),
        };
        fs::write(folder.path().join("bob.auth"), "").unwrap();
        assert!(write_all(folder.path(), &[paired("vault-1"), paired("../x")]).unwrap());
        assert!(!write_all(folder.path(), &[paired("vault-1"), paired("../x")]).unwrap(), "nothing changed");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert!(write_all(folder.path(), &[]).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
