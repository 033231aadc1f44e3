//! Every forbidden thing, tried from inside: in a process of its own with the daemon's own walls, and in one without, where it must
//! work, so that no refusal here is an accident.
#![allow(unsafe_code, clippy::unwrap_used, missing_docs)]

use std::{
    fs, io,
    net::UdpSocket,
    os::unix::{
        net::{UnixDatagram, UnixListener, UnixStream},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::PathBuf,
    process::{Command, ExitStatus},
    ptr, thread,
};

use postern_signer::sandbox::{self, Allowances, Reach, Sandbox};
use postern_testkit::TempRun;

/// What shall happen to an attempt inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It fails with this error.
    Fails(i32),
    /// The process is ended.
    Ends,
    /// It works: the signer needs it.
    Works,
}
use Fate::{Ends, Fails, Works};

/// Whether it works without walls. What only root can do is no proof for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    Works,
    NeedsRoot,
    /// It fails for another reason, or depends on the kernel's configuration.
    Depends,
}

type Attempt = fn(&Place) -> io::Result<()>;

/// The name, what happens inside, what outside, and how it is tried.
const ATTEMPTS: &[(&str, Fate, Outside, Attempt)] = &[
    // The network.
    ("tcp", Fails(libc::EPERM), Outside::Works, |_| socket(libc::AF_INET, libc::SOCK_STREAM)),
    ("tcp6", Fails(libc::EPERM), Outside::Depends, |_| socket(libc::AF_INET6, libc::SOCK_STREAM)),
    ("udp", Fails(libc::EPERM), Outside::Works, |_| UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("netlink", Fails(libc::EPERM), Outside::Works, |_| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ("packet", Fails(libc::EPERM), Outside::NeedsRoot, |_| socket(libc::AF_PACKET, libc::SOCK_RAW)),
    ("vsock", Fails(libc::EPERM), Outside::Depends, |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM)),
    // Other services of this machine.
    ("unix_socket", Fails(libc::EPERM), Outside::Works, |_| socket(libc::AF_UNIX, libc::SOCK_DGRAM)),
    ("unix_connect", Fails(libc::EPERM), Outside::Works, |place| UnixStream::connect(&place.service).map(drop)),
    ("unix_datagram", Fails(libc::EPERM), Outside::Works, |place| place.datagram.send_to(b"x", &place.log).map(drop)),
    ("listen", Fails(libc::EPERM), Outside::Works, |place| UnixListener::bind(place.state.join("another.sock")).map(drop)),
    ("signal", Fails(libc::EPERM), Outside::Works, |_| call(libc::SYS_kill, [i64::from(unsafe { libc::getppid() }), 0, 0, 0, 0])),
    // Files.
    ("read_passwd", Fails(libc::EACCES), Outside::Works, |_| fs::read("/etc/passwd").map(drop)),
    ("read_neighbour", Fails(libc::EACCES), Outside::Works, |place| fs::read(place.folder.join("pin")).map(drop)),
    ("write_outside", Fails(libc::EACCES), Outside::Works, |place| fs::write(place.folder.join("loot"), "x")),
    ("write_beside_the_socket", Fails(libc::EACCES), Outside::Works, |place| fs::write(place.socket_folder.join("loot"), "x")),
    ("list_root", Fails(libc::EACCES), Outside::Works, |_| fs::read_dir("/").map(drop)),
    ("symlink", Fails(libc::EPERM), Outside::Works, |place| std::os::unix::fs::symlink("/etc", place.state.join("link"))),
    ("environment_of_the_parent", Fails(libc::EACCES), Outside::Works, |_| {
        fs::read(format!("/proc/{}/environ", unsafe { libc::getppid() })).map(drop)
    }),
    ("memory_as_a_file", Fails(libc::EPERM), Outside::Works, |_| call(libc::SYS_memfd_create, [c"x".as_ptr() as i64, 0, 0, 0, 0])),
    ("state_is_written", Works, Outside::Works, |place| fs::write(place.state.join("ledger"), "x")),
    ("state_is_replaced", Works, Outside::Works, |place| {
        fs::write(place.state.join("new"), "x")?;
        fs::rename(place.state.join("new"), place.state.join("old"))?;
        fs::remove_file(place.state.join("old"))
    }),
    ("the_socket_is_removed", Works, Outside::Works, |place| fs::remove_file(place.socket_folder.join("signer.sock"))),
    ("a_peer_is_answered", Works, Outside::Works, |place| {
        let (stream, _) = place.listener.accept()?;
        io::Write::write_all(&mut &stream, b"x")
    }),
    ("threads_are_started", Works, Outside::Works, |_| thread::spawn(|| ()).join().map_err(|_| io::Error::other("panic"))),
    // Programs and code.
    ("execve", Ends, Outside::Works, |_| Err(Command::new("/bin/true").exec())),
    ("fork", Fails(libc::EPERM), Outside::Works, |_| fork()),
    ("spawn", Fails(libc::EPERM), Outside::Works, |_| Command::new("/bin/true").status().map(drop)),
    ("executable_memory", Fails(libc::EPERM), Outside::Works, |_| map(libc::PROT_READ | libc::PROT_EXEC).map(drop)),
    ("make_executable", Fails(libc::EPERM), Outside::Works, |_| {
        let memory = map(libc::PROT_READ | libc::PROT_WRITE)?;
        call(libc::SYS_mprotect, [memory, 4096, i64::from(libc::PROT_READ | libc::PROT_EXEC), 0, 0])
    }),
    // Other processes' memory, and its own for others.
    // Outside, the parent would be the tracer, and wait for ever.
    ("ptrace", Ends, Outside::Depends, |_| call(libc::SYS_ptrace, [i64::from(libc::PTRACE_TRACEME), 0, 0, 0, 0])),
    ("process_vm_readv", Ends, Outside::Depends, |_| call(libc::SYS_process_vm_readv, [1, 0, 0, 0, 0])),
    ("process_vm_writev", Ends, Outside::Depends, |_| call(libc::SYS_process_vm_writev, [1, 0, 0, 0, 0])),
    ("be_dumpable", Fails(libc::EPERM), Outside::Works, |_| call(libc::SYS_prctl, [i64::from(libc::PR_SET_DUMPABLE), 1, 0, 0, 0])),
    ("raise_the_core_limit", Fails(libc::EPERM), Outside::Works, |_| {
        let limit = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
        match unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }),
    // The kernel.
    ("bpf", Ends, Outside::Depends, |_| call(libc::SYS_bpf, [0; 5])),
    ("perf_event_open", Ends, Outside::Depends, |_| call(libc::SYS_perf_event_open, [0; 5])),
    ("userfaultfd", Ends, Outside::Depends, |_| call(libc::SYS_userfaultfd, [0; 5])),
    ("io_uring", Ends, Outside::Depends, |_| call(libc::SYS_io_uring_setup, [0; 5])),
    ("load_module", Ends, Outside::Depends, |_| call(libc::SYS_init_module, [0; 5])),
    ("load_module_from_a_file", Ends, Outside::Depends, |_| call(libc::SYS_finit_module, [-1, 0, 0, 0, 0])),
    ("kexec", Ends, Outside::Depends, |_| call(libc::SYS_kexec_load, [0, 0, 0, -1, 0])),
    ("keyctl", Ends, Outside::Depends, |_| call(libc::SYS_keyctl, [0, -3, 0, 0, 0])),
    ("add_key", Ends, Outside::Depends, |_| call(libc::SYS_add_key, [0; 5])),
    ("mount", Ends, Outside::Depends, |_| call(libc::SYS_mount, [0; 5])),
    ("unshare", Ends, Outside::Depends, |_| call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0, 0, 0])),
    ("setns", Ends, Outside::Depends, |_| call(libc::SYS_setns, [-1, 0, 0, 0, 0])),
    ("chroot", Ends, Outside::NeedsRoot, |_| call(libc::SYS_chroot, [c"/".as_ptr() as i64, 0, 0, 0, 0])),
    ("set_the_clock", Ends, Outside::Depends, |_| call(libc::SYS_clock_settime, [0; 5])),
    ("reboot", Ends, Outside::Depends, |_| call(libc::SYS_reboot, [0; 5])),
    ("be_another_user", Fails(libc::EPERM), Outside::Depends, |_| call(libc::SYS_setuid, [65_534, 0, 0, 0, 0])),
    ("no_such_call", Fails(libc::EPERM), Outside::Depends, |_| call(9_999, [0; 5])),
];

const ATTEMPT: &str = "POSTERN_TEST_ATTEMPT";
const WALLS: &str = "POSTERN_TEST_WALLS";
const FOLDER: &str = "POSTERN_TEST_FOLDER";

/// Where an attempt is made. What needs a socket has it from before.
struct Place {
    folder: PathBuf,
    state: PathBuf,
    socket_folder: PathBuf,
    service: PathBuf,
    log: PathBuf,
    listener: UnixListener,
    datagram: UnixDatagram,
}

impl Place {
    fn enter(folder: PathBuf) -> io::Result<Self> {
        let socket_folder = folder.join("run");
        let listener = UnixListener::bind(socket_folder.join("signer.sock"))?;
        let peer = UnixStream::connect(socket_folder.join("signer.sock"))?;
        // It waits in the queue until somebody accepts it.
        std::mem::forget(peer);
        Ok(Self {
            state: folder.join("state"),
            service: folder.join("service.sock"),
            log: folder.join("log.sock"),
            datagram: UnixDatagram::unbound()?,
            socket_folder,
            listener,
            folder,
        })
    }
}

/// The child: makes one attempt and says what came of it.
#[test]
#[ignore = "a part of the other tests, in a process of its own"]
fn attempt() {
    let Ok(name) = std::env::var(ATTEMPT) else { return };
    let place = Place::enter(std::env::var_os(FOLDER).unwrap().into()).unwrap();
    if std::env::var_os(WALLS).is_some() {
        sandbox::harden().unwrap();
        let allowances =
            Allowances { read_write: vec![place.state.clone()], socket_folder: place.socket_folder.clone(), ..Allowances::default() };
        let sandbox = Sandbox::enclose(allowances, Reach::Process).unwrap();
        sandbox.seal().unwrap();
    }
    if name == "abort" {
        std::process::abort();
    }
    let (.., attempt) = ATTEMPTS.iter().find(|(known, ..)| *known == name).unwrap();
    let outcome = attempt(&place);
    let code = match outcome {
        Ok(()) => 0,
        Err(e) => e.raw_os_error().unwrap_or(255),
    };
    // Not by a panic: its exit code says nothing.
    unsafe { libc::_exit(code) };
}

/// Runs an attempt in a process of its own, with or without walls.
fn attempted(name: &str, walls: bool, limit_core: Option<libc::rlim_t>) -> ExitStatus {
    let run = TempRun::new("attempt").unwrap();
    for folder in ["state", "run"] {
        run.folder(folder).unwrap();
    }
    run.write("pin", "1234").unwrap();
    let _service = UnixListener::bind(run.join("service.sock")).unwrap();
    let _log = UnixDatagram::bind(run.join("log.sock")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "attempt", "--ignored", "--nocapture", "--test-threads", "1"]);
    command.env(ATTEMPT, name).env(FOLDER, run.path()).env_remove(WALLS).current_dir(run.path());
    if walls {
        command.env(WALLS, "1");
    }
    if let Some(limit) = limit_core {
        let raise = move || {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        unsafe { command.pre_exec(raise) };
    }
    command.output().unwrap().status
}

#[test]
fn every_forbidden_thing_fails_inside_and_what_the_signer_needs_works() {
    let mut wrong = vec![];
    for (name, fate, ..) in ATTEMPTS {
        let status = attempted(name, true, None);
        let expected = match fate {
            Works => status.code() == Some(0),
            Fails(errno) => status.code() == Some(*errno),
            Ends => status.signal() == Some(libc::SIGSYS),
        };
        if !expected {
            wrong.push(format!("{name}: {fate:?} was expected, it ended with {status}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_same_things_work_without_walls() {
    let root = rustix::process::geteuid().is_root();
    for (name, _, outside, _) in ATTEMPTS {
        if *outside == Outside::Works || (*outside == Outside::NeedsRoot && root) {
            let status = attempted(name, false, None);
            assert_eq!(status.code(), Some(0), "{name}: {status}");
        }
    }
}

#[test]
fn a_crash_leaves_no_core() {
    // As far as this system lets a limit be raised.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core).maximum.unwrap_or(libc::RLIM_INFINITY);
    let inside = attempted("abort", true, Some(limit));
    assert_eq!((inside.signal(), inside.core_dumped()), (Some(libc::SIGABRT), false));
    let outside = attempted("abort", false, Some(limit));
    assert_eq!((outside.signal(), outside.core_dumped()), (Some(libc::SIGABRT), limit > 0));
}

fn call(number: libc::c_long, arguments: [i64; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    match unsafe { libc::syscall(number, a, b, c, d, e, 0_i64) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn socket(family: i32, kind: i32) -> io::Result<()> {
    call(libc::SYS_socket, [i64::from(family), i64::from(kind), 0, 0, 0])
}

fn map(protection: i32) -> io::Result<i64> {
    let address = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address as i64) }
}

fn fork() -> io::Result<()> {
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}
