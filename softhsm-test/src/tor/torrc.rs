//! Configuration files of a private network.

use std::{fmt::Write as _, path::Path};

use super::keys::NodeKeys;

/// Time between two consensuses; C Tor wants at least 10 s in a testing network, and 15 s is the shortest that works reliably.
pub(super) const INTERVAL_S: u32 = 15;

/// The authorities, as every node and service must know them.
pub(super) fn authorities(keys: &[NodeKeys]) -> String {
    let mut text = String::new();
    for key in keys {
        if let Some(v3ident) = &key.v3ident {
            let (name, or_port, dir_port) = (&key.name, key.or_port(), key.dir_port());
            let _ = writeln!(text, "DirAuthority {name} orport={or_port} no-v2 v3ident={v3ident} {}:{dir_port} {}", key.address(), key.rsa);
        }
    }
    text
}

/// For every tor of the network, services included.
pub(super) fn common(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "TestingTorNetwork 1\n\
         DataDirectory {folder}\n\
         PidFile {folder}/pid\n\
         Log notice file {folder}/notice.log\n\
         SafeLogging 0\n\
         SocksPort 0\n\
         ShutdownWaitLength 0\n\
         PathsNeededToBuildCircuits 0.67\n\
         VanguardsLiteEnabled 0\n"
    )
}

/// A relay or an authority.
pub(super) fn node(key: &NodeKeys, all: &[NodeKeys], folder: &Path) -> String {
    let mut text = common(folder);
    let _ = write!(
        text,
        "Nickname {}\nAddress {address}\nORPort {address}:{} IPv4Only\nAssumeReachable 1\nConnLimit 60\n\
         ContactInfo none@example.invalid\nExitRelay 0\nExitPolicy reject *:*\n{}",
        key.name,
        key.or_port(),
        authorities(all),
        address = key.address(),
    );
    if key.v3ident.is_some() {
        // A relay that has carried nothing yet is not slow: without the guarantee it lacks the flag for a minute once others have.
        // Times of day and of descriptors' life scale with the interval: an onion service's day has 24 of them.
        let _ = write!(
            text,
            "DirPort {}:{}\nAuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\n\
             V3AuthVotingInterval {INTERVAL_S}\nV3AuthVoteDelay 2\nV3AuthDistDelay 2\nV3AuthNIntervalsValid 6\n\
             TestingV3AuthInitialVotingInterval 5\nTestingV3AuthInitialVoteDelay 2\nTestingV3AuthInitialDistDelay 2\n\
             TestingMinExitFlagThreshold 0\nTestingDirAuthVoteExit *\nTestingDirAuthVoteGuard *\nTestingDirAuthVoteHSDir *\n\
             AuthDirVoteStableGuaranteeMinUptime 1 second\nAuthDirVoteStableGuaranteeMTBF 1 second\nAuthDirFastGuarantee 1 byte\n\
             ConsensusParams hsdir_interval={}\n",
            key.address(),
            key.dir_port(),
            24 * INTERVAL_S / 60,
        );
    }
    text
}

/// The network for Arti: what `[tor] private_network` names.
pub(super) fn private_network(keys: &[NodeKeys]) -> String {
    let authorities: Vec<&NodeKeys> = keys.iter().filter(|k| k.v3ident.is_some()).collect();
    let idents: Vec<String> = authorities.iter().filter_map(|k| k.v3ident.as_ref()).map(|id| format!("\"{id}\"")).collect();
    let mut text = format!("authorities = [{}]\n", idents.join(", "));
    for key in authorities {
        let _ = write!(
            text,
            "\n[[fallbacks]]\nrsa = \"{}\"\ned25519 = \"{}\"\norport = \"{}:{}\"\n",
            key.rsa,
            key.ed25519,
            key.address(),
            key.or_port()
        );
    }
    text
}
