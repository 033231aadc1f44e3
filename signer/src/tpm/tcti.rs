//! Where the TPM is.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use tss_esapi::tcti_ldr::TctiNameConf;

/// Where a TPM is: `device:/dev/tpmrm0`, or a software TPM on this machine, `swtpm:host=127.0.0.1,port=2321`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcti(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Device(PathBuf),
    Software { host: IpAddr, port: u16 },
}

/// Not a place where a TPM can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TctiError {
    /// It has another form.
    #[error("`{0}` is not a TPM's place: write \"device:/dev/tpmrm0\"; for a software TPM \"swtpm:host=127.0.0.1,port=2321\"")]
    Form(String),
    /// The signer has no network.
    #[error("the software TPM at {0} is on another machine; the signer has no network: write host=127.0.0.1")]
    Elsewhere(IpAddr),
}

impl FromStr for Tcti {
    type Err = TctiError;

    fn from_str(text: &str) -> Result<Self, TctiError> {
        let form = || TctiError::Form(text.chars().take(100).collect());
        if let Some(path) = text.strip_prefix("device:") {
            // What the library is given is a C string, and must name a device whatever the daemon's folder is.
            let path = Path::new(path);
            return if path.is_absolute() && !text.contains('\0') { Ok(Self(Place::Device(path.into()))) } else { Err(form()) };
        }
        let mut host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut port = None;
        for pair in text.strip_prefix("swtpm:").ok_or_else(form)?.split(',') {
            match pair.split_once('=') {
                Some(("host", value)) => host = value.parse().map_err(|_| form())?,
                Some(("port", value)) => port = Some(value.parse().map_err(|_| form())?),
                _ => return Err(form()),
            }
        }
        if !host.is_loopback() {
            return Err(TctiError::Elsewhere(host));
        }
        Ok(Self(Place::Software { host, port: port.ok_or_else(form)? }))
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Device(path) => write!(f, "device:{}", path.display()),
            Place::Software { host, port } => write!(f, "swtpm:host={host},port={port}"),
        }
    }
}

impl Tcti {
    /// The device's file, for whoever must let this process reach it.
    #[must_use]
    pub fn device(&self) -> Option<&Path> {
        match &self.0 {
            Place::Device(path) => Some(path),
            Place::Software { .. } => None,
        }
    }

    /// The loopback ports of a software TPM: commands and control.
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match &self.0 {
            Place::Device(_) => None,
            Place::Software { port, .. } => Some((*port, port.saturating_add(1))),
        }
    }

    /// Loads the library that reaches it, for good: later, nothing can be loaded any more. It is loaded by name each time that a
    /// connection is opened, and is there then.
    ///
    /// # Errors
    /// The library's name, and what the loader says.
    #[allow(unsafe_code)]
    pub fn load(&self) -> Result<(), (&'static str, String)> {
        let (library, name, package) = match &self.0 {
            Place::Device(_) => ("libtss2-tcti-device.so.0", c"libtss2-tcti-device.so.0", "libtss2-tcti-device0"),
            Place::Software { .. } => ("libtss2-tcti-swtpm.so.0", c"libtss2-tcti-swtpm.so.0", "libtss2-tcti-swtpm0"),
        };
        // SAFETY: a C string, and a library whose initialisers do nothing; that it is loaded is what naming the TPM asks for.
        let loaded = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if loaded.is_null() { Err((library, format!("it cannot be loaded; install it (Debian: {package})"))) } else { Ok(()) }
    }

    pub(super) fn name(&self) -> Result<TctiNameConf, tss_esapi::Error> {
        TctiNameConf::from_str(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_is_a_device_or_a_loopback_port_and_reads_back_as_written() {
        for text in ["device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321", "swtpm:host=::1,port=1"] {
            assert_eq!(text.parse::<Tcti>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "device:",
            "device:tpm0",
            "/dev/tpm0",
            "swtpm",
            "swtpm:",
            "swtpm:port=x",
            "swtpm:host=127.0.0.1",
            "swtpm:path=/x",
            "tabrmd:",
            "mssim:port=1",
        ] {
            assert!(matches!(text.parse::<Tcti>(), Err(TctiError::Form(_))), "{text}");
        }
        assert!(matches!("swtpm:host=10.0.0.1,port=2321".parse::<Tcti>(), Err(TctiError::Elsewhere(_))));
    }
}
