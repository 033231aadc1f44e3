//! What the system's package manager must provide, and how each calls it.

use std::{env, io::IsTerminal as _, io::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use postern_testkit::program;

use crate::{child, say};

/// Something that must be there.
struct Need {
    /// For what.
    purpose: &'static str,
    present: fn() -> bool,
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
}

const SOFTHSM: Need = Need {
    purpose: "SoftHSM: tokens in software, behind the same interface as an HSM",
    present: || program::on_path("softhsm2-util").is_some() && program::softhsm_module().is_ok(),
    apt: "softhsm2",
    dnf: "softhsm",
    pacman: "softhsm",
};
const TOR: Need = Need {
    purpose: "tor and tor-gencert: a private Tor network on this machine",
    present: || ["tor", "tor-gencert"].iter().all(|p| program::on_path(p).is_some()),
    apt: "tor",
    dnf: "tor",
    pacman: "tor",
};
const IPROUTE: Need = Need {
    purpose: "ip: a network that has nothing but loopback",
    present: || program::on_path("ip").is_some(),
    apt: "iproute2",
    dnf: "iproute",
    pacman: "iproute2",
};
const UTIL_LINUX: Need = Need {
    purpose: "unshare, nsenter and setpriv: the same",
    present: || ["unshare", "nsenter", "setpriv"].iter().all(|p| program::on_path(p).is_some()),
    apt: "util-linux",
    dnf: "util-linux",
    pacman: "util-linux",
};
const CMAKE: Need = Need {
    purpose: "cmake: to build bitcoind",
    present: || program::on_path("cmake").is_some(),
    apt: "cmake",
    dnf: "cmake",
    pacman: "cmake",
};
const MAKE: Need =
    Need { purpose: "make: to build bitcoind", present: || program::on_path("make").is_some(), apt: "make", dnf: "make", pacman: "make" };
const CXX: Need = Need {
    purpose: "a C++ compiler: to build bitcoind",
    present: || ["c++", "g++", "clang++"].iter().any(|p| program::on_path(p).is_some()),
    apt: "g++",
    dnf: "gcc-c++",
    pacman: "gcc",
};
const PKG_CONFIG: Need = Need {
    purpose: "pkg-config: to build the signer and bitcoind",
    present: || ["pkg-config", "pkgconf"].iter().any(|p| program::on_path(p).is_some()),
    apt: "pkg-config",
    dnf: "pkgconf-pkg-config",
    pacman: "pkgconf",
};
const BOOST: Need = Need {
    purpose: "Boost headers: to build bitcoind",
    present: || header("boost/multi_index_container.hpp"),
    apt: "libboost-dev",
    dnf: "boost-devel",
    pacman: "boost",
};
const LIBEVENT: Need = Need {
    purpose: "libevent headers: to build bitcoind",
    present: || header("event2/event.h"),
    apt: "libevent-dev",
    dnf: "libevent-devel",
    pacman: "libevent",
};
const SQLITE: Need = Need {
    purpose: "SQLite headers: to build bitcoind",
    present: || header("sqlite3.h"),
    apt: "libsqlite3-dev",
    dnf: "sqlite-devel",
    pacman: "sqlite",
};

const TSS: Need = Need {
    purpose: "the TPM software stack (tss2) and its headers: the signer is built with it",
    present: || header("tss2/tss2_esys.h"),
    apt: "libtss2-dev",
    dnf: "tpm2-tss-devel",
    pacman: "tpm2-tss",
};
const SWTPM: Need = Need {
    purpose: "swtpm: TPMs in software",
    present: || program::on_path("swtpm").is_some(),
    apt: "swtpm",
    dnf: "swtpm",
    pacman: "swtpm",
};
const TPM2_TOOLS: Need = Need {
    purpose: "tpm2-tools: to look into TPMs with other programs than ours",
    present: || program::on_path("tpm2").is_some(),
    apt: "tpm2-tools",
    dnf: "tpm2-tools",
    pacman: "tpm2-tools",
};
const OPENSSL: Need = Need {
    purpose: "openssl: to verify what a TPM signed with another program than ours",
    present: || program::on_path("openssl").is_some(),
    apt: "openssl",
    dnf: "openssl",
    pacman: "openssl",
};

const ALWAYS: [&Need; 9] = [&SOFTHSM, &TSS, &PKG_CONFIG, &SWTPM, &TPM2_TOOLS, &OPENSSL, &TOR, &IPROUTE, &UTIL_LINUX];
const FOR_BITCOIND: [&Need; 6] = [&CMAKE, &MAKE, &CXX, &BOOST, &LIBEVENT, &SQLITE];

fn header(name: &str) -> bool {
    ["/usr/include", "/usr/local/include"].iter().any(|folder| Path::new(folder).join(name).is_file())
}

/// Installs what is missing, after asking.
pub(crate) fn install(build_bitcoind: bool, yes: bool) -> Result<()> {
    let needs = ALWAYS.iter().chain(FOR_BITCOIND.iter().filter(|_| build_bitcoind));
    let missing: Vec<&Need> = needs.copied().filter(|need| !(need.present)()).collect();
    if program::on_path("pkcs11-tool").is_none() {
        say::note("not needed, and good for looking into tokens: OpenSC (pkcs11-tool)");
    }
    if missing.is_empty() {
        say::note("all packages are installed");
        return Ok(());
    }
    for need in &missing {
        say::note(&format!("missing: {}", need.purpose));
    }
    let steps = steps(&missing)?;
    let shown: Vec<String> = steps.iter().map(child::shown).collect();
    say::note(&format!("this installs it: {}", shown.join(" && ")));
    if missing.iter().any(|need| need.apt == TOR.apt) {
        say::note("the package may start a Tor service of its own, which is not used here: `systemctl disable --now tor` ends it");
    }
    if !yes && !agreed()? {
        bail!("nothing was installed; run it yourself and come back");
    }
    // Not in a process group of its own: sudo asks for the password at the terminal.
    for mut step in steps {
        let status = step.status().with_context(|| format!("cannot start `{}`", child::shown(&step)))?;
        if !status.success() {
            bail!("`{}` ended with {status}", child::shown(&step));
        }
    }
    let still: Vec<&str> = missing.iter().filter(|need| !(need.present)()).map(|need| need.purpose).collect();
    if still.is_empty() { Ok(()) } else { bail!("installed, and still missing: {}", still.join("; ")) }
}

fn steps(missing: &[&Need]) -> Result<Vec<Command>> {
    let names = |pick: fn(&Need) -> &'static str| missing.iter().map(|need| pick(need)).collect::<Vec<_>>();
    let quiet = "DEBIAN_FRONTEND=noninteractive";
    if program::on_path("apt-get").is_some() {
        let update = as_root(&["apt-get", "update", "-q"])?;
        let mut install = as_root(&["env", quiet, "apt-get", "install", "-y", "-q", "--no-install-recommends"])?;
        install.args(names(|n| n.apt));
        Ok(vec![update, install])
    } else if program::on_path("dnf").is_some() {
        let mut install = as_root(&["dnf", "install", "-y"])?;
        install.args(names(|n| n.dnf));
        Ok(vec![install])
    } else if program::on_path("pacman").is_some() {
        let mut install = as_root(&["pacman", "-S", "--needed", "--noconfirm"])?;
        install.args(names(|n| n.pacman));
        Ok(vec![install])
    } else {
        bail!("neither apt-get, dnf nor pacman is here; install these yourself (names as in Debian): {}", names(|n| n.apt).join(" "))
    }
}

fn as_root(arguments: &[&str]) -> Result<Command> {
    let mut words = arguments.to_vec();
    if !rustix::process::geteuid().is_root() {
        if program::on_path("sudo").is_none() {
            bail!("not root, and there is no sudo; as root run: {}", arguments.join(" "));
        }
        words.insert(0, "sudo");
    }
    let (program, rest) = words.split_first().context("a command has a program")?;
    let mut command = Command::new(program);
    command.args(rest);
    Ok(command)
}

fn agreed() -> Result<bool> {
    if env::var_os("CI").is_some_and(|v| v == "true" || v == "1") {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to ask; `--yes` installs without asking");
    }
    anstream::eprint!("  install now? [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}
