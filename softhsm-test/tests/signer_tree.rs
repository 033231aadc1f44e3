//! The signer has no network: nothing that opens one is in its dependency tree.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeSet, env, path::Path, process::Command};

use postern_testkit::program;

/// Runtimes, protocols and databases of the network side.
const NETWORK: [&str; 16] = [
    "arti-client",
    "async-std",
    "axum",
    "curl",
    "h2",
    "hyper",
    "mio",
    "native-tls",
    "quinn",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "sqlx",
    "sqlx-core",
    "tokio",
];

fn tree(package: &str) -> BTreeSet<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace).args(["tree", "--locked", "--package", package, "--target", "all", "--all-features"]);
    cargo.args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let tree = program::output(&mut cargo).unwrap();
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn network_crates(tree: &BTreeSet<String>) -> Vec<&String> {
    tree.iter().filter(|name| NETWORK.contains(&name.as_str()) || name.starts_with("tor-")).collect()
}

#[test]
fn nothing_in_the_signers_dependency_tree_opens_a_network() {
    let signer = tree("postern-signer");
    assert!(signer.contains("cryptoki") && signer.contains("rusqlite"), "this is not the signer's tree: {signer:?}");
    assert_eq!(network_crates(&signer), Vec::<&String>::new());
    // The same look at the link finds what it has.
    let link = tree("postern-link");
    let found = network_crates(&link);
    for name in ["arti-client", "hyper", "tokio", "tor-proto"] {
        assert!(found.iter().any(|f| *f == name), "{name} is not seen in the link's tree: {found:?}");
    }
}
