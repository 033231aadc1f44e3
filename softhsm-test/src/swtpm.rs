//! TPMs in software (swtpm), each with a state folder and loopback ports of its own. A stopped one goes on where it was: what
//! a real TPM keeps over a reset is kept, its PCRs begin at zero again.

use std::{
    fs::{self, File},
    io, mem,
    net::{Ipv4Addr, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    path::PathBuf,
    process::Command,
    ptr,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    port::Port,
    process::Process,
    program,
    run::TempRun,
    wait::{PATIENCE, wait_until},
};

/// A TPM 2.0, running or not.
#[derive(Debug)]
pub struct Swtpm {
    name: String,
    state: PathBuf,
    /// For commands, and for the control channel, which TCTIs look for one port above.
    ports: (Port, Port),
    process: Option<Process>,
    run: TempRun,
}

impl Swtpm {
    /// Starts a new TPM, with its state in `NAME.tpm` of the run's folder.
    ///
    /// # Errors
    /// When swtpm is not installed or does not start.
    pub fn start(run: &TempRun, name: &str) -> Result<Self> {
        let state = run.folder(&format!("{name}.tpm"))?;
        let mut tpm = Self { name: name.into(), state, ports: Port::reserve_pair()?, process: None, run: run.clone() };
        tpm.start_again()?;
        Ok(tpm)
    }

    /// What stands in a configuration: `swtpm:host=127.0.0.1,port=…`.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host={},port={}", Ipv4Addr::LOCALHOST, self.ports.0.number())
    }

    /// The power goes: SIGKILL.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// The power comes back: the same TPM, with its PCRs at zero.
    ///
    /// # Errors
    /// When it runs already, or does not start.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the TPM `{}` is running", self.name);
        let program = program::on_path("swtpm").context("swtpm is not installed; `cargo xtask setup` installs it")?;
        let (data, control) = (self.ports.0.number(), self.ports.1.number());
        let mut command = Command::new(program);
        command.arg("socket").arg("--tpm2").args(["--flags", "not-need-init,startup-clear"]);
        command.arg("--tpmstate").arg(format!("dir={}", self.state.display()));
        command.arg("--server").arg(format!("type=tcp,bindaddr={},port={data}", Ipv4Addr::LOCALHOST));
        command.arg("--ctrl").arg(format!("type=tcp,bindaddr={},port={control}", Ipv4Addr::LOCALHOST));
        let mut process = Process::start(&self.run, &format!("{}.swtpm", self.name), command)?;
        // The command channel serves one client at a time: it is not touched here.
        wait_until(&format!("the TPM `{}` to listen", self.name), PATIENCE, || {
            process.alive()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, control)).is_ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// What it keeps when the power is off: a copy of it is an old TPM that can be put back.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn memory(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.state)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "permall") {
                files.push((path.clone(), fs::read(&path)?));
            }
        }
        ensure!(!files.is_empty(), "the TPM `{}` has written nothing to {}", self.name, self.state.display());
        Ok(files)
    }

    /// Puts an old memory back while the power is off.
    ///
    /// # Errors
    /// When it is on, or its files cannot be written.
    pub fn put_back(&self, memory: &[(PathBuf, Vec<u8>)]) -> Result<()> {
        ensure!(self.process.is_none(), "the TPM `{}` is running", self.name);
        memory.iter().try_for_each(|(path, bytes)| fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display())))
    }

    /// Runs one of the `tpm2` tools on it and gives its standard output.
    ///
    /// # Errors
    /// When it is not installed or fails.
    pub fn tool(&self, arguments: &[&str]) -> Result<String> {
        let program = program::on_path("tpm2").context("tpm2-tools are not installed; `cargo xtask setup` installs them")?;
        let mut command = Command::new(program);
        program::output(command.args(arguments).env("TPM2TOOLS_TCTI", self.tcti()).env("TSS2_LOG", "all+NONE").current_dir(self.run.path()))
    }
}

/// A new TPM behind a device file, as a chip is behind `/dev/tpmrm0`: a terminal in raw mode. It serves as long as this lives.
#[derive(Debug)]
pub struct TpmDevice {
    path: PathBuf,
    _process: Process,
    /// Without it, the first that closes the device would end the TPM.
    _open: File,
}

impl TpmDevice {
    /// Starts a TPM, with its state in `NAME.tpm` of the run's folder.
    ///
    /// # Errors
    /// When swtpm is not installed, or the system has no terminals.
    pub fn start(run: &TempRun, name: &str) -> Result<Self> {
        let state = run.folder(&format!("{name}.tpm"))?;
        let (ours, device) = raw_terminal().context("no terminal")?;
        let path = fs::read_link(format!("/proc/self/fd/{}", device.as_raw_fd()))?;
        let program = program::on_path("swtpm").context("swtpm is not installed; `cargo xtask setup` installs it")?;
        let mut command = Command::new(program);
        command.arg("chardev").arg("--tpm2").args(["--flags", "not-need-init,startup-clear"]);
        command.arg("--tpmstate").arg(format!("dir={}", state.display()));
        // A terminal's other end has no name: it is inherited.
        command.arg("--fd").arg(ours.as_raw_fd().to_string());
        let process = Process::start(run, &format!("{name}.swtpm"), command)?;
        Ok(Self { path, _process: process, _open: device })
    }

    /// What stands in a configuration: `device:/dev/pts/…`.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("device:{}", self.path.display())
    }
}

/// Both ends of a terminal that changes no byte. The first is inherited by children.
#[allow(unsafe_code)]
fn raw_terminal() -> io::Result<(File, File)> {
    let (mut ours, mut device) = (-1, -1);
    // SAFETY: two places for descriptors, and no name, settings or size.
    if unsafe { libc::openpty(&mut ours, &mut device, ptr::null_mut(), ptr::null(), ptr::null()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors are new, open and nobody else's.
    let (ours, device) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(device)) };
    // SAFETY: an open terminal, and a place that is filled before it is read.
    let raw = unsafe {
        let mut settings = mem::zeroed();
        libc::tcgetattr(device.as_raw_fd(), &mut settings) == 0 && {
            libc::cfmakeraw(&mut settings);
            libc::tcsetattr(device.as_raw_fd(), libc::TCSANOW, &settings) == 0
        }
    };
    if raw { Ok((ours, device)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ZERO: &str = "0x0000000000000000000000000000000000000000000000000000000000000000";

    #[test]
    fn a_tpm_keeps_its_memory_over_a_power_cut_and_its_pcrs_not() {
        let run = TempRun::new("swtpm").unwrap();
        let mut tpm = Swtpm::start(&run, "board").unwrap();
        let other = Swtpm::start(&run, "other").unwrap();
        tpm.tool(&["nvdefine", "0x1800001", "-s", "4"]).unwrap();
        fs::write(run.join("four"), "four").unwrap();
        tpm.tool(&["nvwrite", "0x1800001", "-i", "four"]).unwrap();
        tpm.tool(&["pcrextend", &format!("11:sha256={}", "11".repeat(32))]).unwrap();
        assert!(!tpm.tool(&["pcrread", "sha256:11"]).unwrap().contains(ZERO));
        tpm.kill().unwrap();
        assert!(tpm.tool(&["pcrread", "sha256:11"]).is_err());
        tpm.start_again().unwrap();
        assert_eq!(tpm.tool(&["nvread", "0x1800001"]).unwrap(), "four");
        assert!(tpm.tool(&["pcrread", "sha256:11"]).unwrap().contains(ZERO));
        assert!(other.tool(&["nvread", "0x1800001"]).is_err(), "two TPMs are one");
    }
}
