//! A network of its own that has nothing but loopback: what runs in it can reach nothing outside, whatever it dials, and
//! may use any port. Files and Unix sockets are shared with the outside.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};

use crate::{process::start_bound, program};

/// A network namespace. It goes with the value, and with this process however that ends.
#[derive(Debug)]
pub struct Namespace {
    /// Holds the namespace open until its standard input closes.
    holder: Mutex<Child>,
    id: u32,
    /// Whether a user namespace was needed: without root, only inside of one may a network be made.
    user: bool,
}

impl Namespace {
    /// Makes one and brings its loopback up.
    ///
    /// # Errors
    /// When the system allows it neither to root nor through a user namespace; the message says what was tried.
    pub fn new() -> Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let direct = if root { Self::hold(false) } else { Err(anyhow::anyhow!("not root")) };
        direct.or_else(|first| Self::hold(true).with_context(|| format!("without a user namespace: {first:#}")))
    }

    fn hold(user: bool) -> Result<Self> {
        let (unshare, ip) = (tool("unshare", "util-linux")?, tool("ip", "iproute2")?);
        let mut command = Command::new(unshare);
        if user {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--", "sh", "-c", "\"$0\" link set lo up && echo up && exec cat >/dev/null"]).arg(ip);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = start_bound(command).context("cannot start unshare")?;
        let mut said = String::new();
        let out = child.stdout.take().context("no output of unshare")?;
        BufReader::new(out).read_line(&mut said)?;
        if said != "up\n" {
            let output = child.wait_with_output()?;
            bail!("no network namespace ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        let id = child.id();
        Ok(Self { holder: Mutex::new(child), id, user })
    }

    /// A program to run inside.
    ///
    /// # Errors
    /// When `nsenter` or `setpriv` (util-linux) is missing.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        self.enter(&Command::new(program))
    }

    /// The same command, to run inside: program, arguments, environment and folder are taken over.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn enter(&self, command: &Command) -> Result<Command> {
        let mut entered = Command::new(tool("nsenter", "util-linux")?);
        entered.arg("--net").args(["--target", &self.id.to_string()]);
        if self.user {
            // Entering a user namespace makes the kernel forget "dies with its parent"; it is said again inside.
            entered.args(["--user", "--preserve-credentials", "--"]).arg(tool("setpriv", "util-linux")?).args(["--pdeathsig", "KILL"]);
        }
        entered.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => entered.env(name, value),
                None => entered.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            entered.current_dir(folder);
        }
        Ok(entered)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let holder = self.holder.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = holder.kill();
        let _ = holder.wait();
    }
}

fn tool(name: &str, package: &str) -> Result<PathBuf> {
    program::on_path(name).with_context(|| format!("`{name}` is missing; the package {package} has it"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    fn output(namespace: &Namespace, script: &str) -> (bool, String) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("LC_ALL", "C");
        let output = namespace.enter(&command).unwrap().output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[test]
    fn inside_there_is_loopback_and_nothing_else() {
        let namespace = Namespace::new().unwrap();
        let (_, devices) = output(&namespace, "cat /proc/net/dev");
        let names: Vec<&str> = devices.lines().skip(2).filter_map(|l| l.split(':').next()).map(str::trim).collect();
        assert_eq!(names, ["lo"]);
        let (_, routes) = output(&namespace, "ip route show table all | grep -v 'dev lo'");
        assert_eq!(routes, "");
    }

    #[test]
    fn ports_of_the_outside_do_not_exist_inside() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let namespace = Namespace::new().unwrap();
        let (_, sockets) = output(&namespace, "cat /proc/net/tcp");
        assert!(!sockets.contains(&format!(":{port:04X}")), "{sockets}");
    }

    #[test]
    fn a_namespace_in_a_user_namespace_works_as_well() {
        // Some machines forbid user namespaces; root then does without.
        let Ok(namespace) = Namespace::hold(true) else { return };
        assert_eq!(output(&namespace, "echo here"), (true, "here\n".into()));
    }

    #[test]
    fn a_namespace_goes_with_its_value() {
        let namespace = Namespace::new().unwrap();
        let id = namespace.id;
        drop(namespace);
        assert!(!PathBuf::from(format!("/proc/{id}")).exists());
    }
}
