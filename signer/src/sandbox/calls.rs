//! seccomp: which system calls this process can still make.
//!
//! Several filters stand behind each other; for each call the strictest answer counts.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    sock_filter,
};

use super::{Allowances, Reach, SandboxError};

/// Nothing that waits for it may hang, and what is optional goes on without.
const REFUSED: u32 = libc::EPERM.unsigned_abs();
/// "No such call": the C library takes the older one.
const UNKNOWN: u32 = libc::ENOSYS.unsigned_abs();

/// A list of system calls.
macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// What threads, files, memory, clocks and open sockets need, whatever the arguments.
const ALLOWED: &[libc::c_long] = calls! {
    // Open files. Which ones can be opened is Landlock's.
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_close SYS_lseek SYS_fstat SYS_newfstatat SYS_statx SYS_statfs
    SYS_fstatfs SYS_openat SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_mkdirat SYS_unlinkat SYS_renameat
    SYS_renameat2 SYS_linkat SYS_fchmod SYS_fchmodat SYS_fchown SYS_utimensat SYS_umask SYS_getcwd SYS_ftruncate SYS_fallocate
    SYS_fadvise64 SYS_fsync SYS_fdatasync SYS_fcntl SYS_flock SYS_dup SYS_dup3 SYS_pipe2 SYS_eventfd2 SYS_ppoll SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait
    // Memory.
    SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_mlock SYS_mlock2 SYS_munlock SYS_msync SYS_memfd_secret
    // Threads.
    SYS_futex SYS_set_robust_list SYS_rseq SYS_gettid SYS_getpid SYS_getppid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid
    SYS_sched_yield SYS_sched_getaffinity SYS_membarrier SYS_restart_syscall SYS_exit SYS_exit_group SYS_clone3
    // Signals to itself and from others.
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigtimedwait SYS_sigaltstack
    // Clocks, numbers.
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday SYS_getrandom SYS_uname SYS_sysinfo
    SYS_getrusage SYS_times
    // The socket and its connections. Which sockets can be made is below.
    SYS_accept4 SYS_recvfrom SYS_shutdown SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt
    // More walls; never fewer.
    SYS_seccomp
};

/// The same under the names that only this processor has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[libc::c_long] = calls! {
    SYS_open SYS_stat SYS_lstat SYS_access SYS_readlink SYS_mkdir SYS_rmdir SYS_unlink SYS_rename SYS_link SYS_chmod SYS_dup2 SYS_pipe
    SYS_poll SYS_select SYS_epoll_wait SYS_time
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[libc::c_long] = &[];

/// Between processes of one machine, for modules that talk to a service.
const SYSTEM_V: &[libc::c_long] = calls! {
    SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_msgget SYS_msgsnd SYS_msgrcv
    SYS_msgctl
};

/// No honest code of this process tries these: whoever does is ended.
const OUTRAGEOUS: &[libc::c_long] = calls! {
    // Programs.
    SYS_execve SYS_execveat
    // Other processes.
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd SYS_kcmp
    // The kernel.
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_init_module
    SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_keyctl SYS_add_key SYS_request_key
    // The system's files, names, clock and power.
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_move_mount SYS_open_tree SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_mount_setattr SYS_open_by_handle_at SYS_setns SYS_unshare SYS_swapon SYS_swapoff SYS_reboot SYS_settimeofday SYS_clock_settime
    SYS_clock_adjtime SYS_adjtimex SYS_sethostname SYS_acct SYS_quotactl
};

/// What the loader was told of the processor (Linux 6.4); rustix asks.
const PR_GET_AUXV: libc::c_int = 0x4155_5856;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// From here on only the list. The outer result is an error of ours, the inner one a kernel without seccomp.
pub(super) fn enclose(allowances: &Allowances, reach: Reach) -> Result<Result<(), String>, SandboxError> {
    let mut allowed = Rules::new();
    for call in ALLOWED.iter().chain(ALLOWED_OLD) {
        allowed.insert(*call, vec![]);
    }
    if allowances.local_services {
        SYSTEM_V.iter().for_each(|call| drop(allowed.insert(*call, vec![])));
    }
    conditional(&mut allowed, allowances)?;
    let list = filter(allowed, SeccompAction::Errno(REFUSED), SeccompAction::Allow)?;
    let outrageous = filter(always(OUTRAGEOUS), SeccompAction::Allow, SeccompAction::KillProcess)?;
    // Its flags are out of a filter's sight; without it the C library makes threads by clone, whose flags are not.
    let clone3 = filter(always(&[libc::SYS_clone3]), SeccompAction::Allow, SeccompAction::Errno(UNKNOWN))?;
    if let Err(why) = install(&clone3, reach, Log::No) {
        return Ok(Err(why));
    }
    install(&outrageous, reach, Log::Yes).map_err(SandboxError::Calls)?;
    install(&list, reach, Log::Yes).map_err(SandboxError::Calls)?;
    Ok(Ok(()))
}

/// From here on no new sockets but those that a module needs, and no new code.
pub(super) fn seal(allowances: &Allowances) -> Result<(), SandboxError> {
    let mut refused = always(&[libc::SYS_bind, libc::SYS_listen]);
    if !allowances.network && !allowances.local_services {
        refused.extend(always(&[libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect]));
    }
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        refused.insert(call, vec![rule([(2, Len::Dword, Op::MaskedEq(executable), executable)])?]);
    }
    let filter = filter(refused, SeccompAction::Allow, SeccompAction::Errno(REFUSED))?;
    install(&filter, Reach::Process, Log::Yes).map_err(SandboxError::Calls)
}

/// What is allowed with some arguments only.
fn conditional(allowed: &mut Rules, allowances: &Allowances) -> Result<(), SandboxError> {
    let number = |n: i32| u64::from(n.unsigned_abs());
    let mut only = |call: libc::c_long, rules: Vec<SeccompRule>| drop(allowed.insert(call, rules));
    // A thread, never a process.
    let thread = number(libc::CLONE_THREAD);
    only(libc::SYS_clone, vec![rule([(0, Len::Qword, Op::MaskedEq(thread), thread)])?]);
    // The end of this process by its own hand (abort).
    let own = u64::from(std::process::id());
    only(libc::SYS_tgkill, vec![rule([(0, Len::Dword, Op::Eq, own)])?]);
    let prctl =
        [libc::PR_SET_NAME, libc::PR_GET_DUMPABLE, libc::PR_SET_NO_NEW_PRIVS, libc::PR_GET_NO_NEW_PRIVS, libc::PR_SET_VMA, PR_GET_AUXV];
    only(libc::SYS_prctl, prctl.iter().map(|what| rule([(0, Len::Dword, Op::Eq, number(*what))])).collect::<Result<_, _>>()?);
    // Limits are read, not set.
    only(libc::SYS_prlimit64, vec![rule([(2, Len::Qword, Op::Eq, 0)])?]);
    let ioctl = [libc::FIONBIO, libc::FIONREAD, libc::TCGETS];
    only(libc::SYS_ioctl, ioctl.iter().map(|what| rule([(1, Len::Dword, Op::Eq, *what)])).collect::<Result<_, _>>()?);

    let mut families = vec![libc::AF_UNIX];
    if allowances.network {
        families.extend([libc::AF_INET, libc::AF_INET6]);
    }
    only(libc::SYS_socket, families.iter().map(|family| rule([(0, Len::Dword, Op::Eq, number(*family))])).collect::<Result<_, _>>()?);
    only(libc::SYS_socketpair, vec![rule([(0, Len::Dword, Op::Eq, number(libc::AF_UNIX))])?]);
    for call in [libc::SYS_bind, libc::SYS_listen, libc::SYS_connect] {
        only(call, vec![]);
    }
    let talkative = allowances.network || allowances.local_services || allowances.journal;
    if talkative {
        for call in [libc::SYS_sendto, libc::SYS_sendmsg] {
            only(call, vec![]);
        }
    } else {
        // To whom a socket is connected, and to nobody else.
        only(libc::SYS_sendto, vec![rule([(4, Len::Qword, Op::Eq, 0)])?]);
    }
    if allowances.journal {
        // Long lines go to the journal as a sealed file.
        only(libc::SYS_memfd_create, vec![]);
    }
    if allowances.network || allowances.local_services {
        for call in [libc::SYS_recvmsg, libc::SYS_sendmmsg, libc::SYS_recvmmsg] {
            only(call, vec![]);
        }
    }
    Ok(())
}

fn always(calls: &[libc::c_long]) -> Rules {
    calls.iter().map(|call| (*call, vec![])).collect()
}

fn rule<const N: usize>(conditions: [(u8, Len, Op, u64); N]) -> Result<SeccompRule, SandboxError> {
    let conditions =
        conditions.into_iter().map(|(argument, length, operator, value)| SeccompCondition::new(argument, length, operator, value));
    let wrong = |e: seccompiler::BackendError| SandboxError::Calls(e.to_string());
    SeccompRule::new(conditions.collect::<Result<_, _>>().map_err(wrong)?).map_err(wrong)
}

fn filter(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, SandboxError> {
    let wrong = |e: seccompiler::BackendError| SandboxError::Calls(e.to_string());
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(wrong)?;
    SeccompFilter::new(rules, otherwise, matched, arch).and_then(BpfProgram::try_from).map_err(wrong)
}

/// Whether refusals leave a line in the kernel's audit log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Yes,
    No,
}

/// As `seccompiler::apply_filter_all_threads`, and each refusal leaves a line in the audit log.
fn install(program: &[sock_filter], reach: Reach, log: Log) -> Result<(), String> {
    #[repr(C)]
    struct Program {
        len: libc::c_ushort,
        filter: *const sock_filter,
    }
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| "the list is too long".to_owned())?;
    let filter = Program { len, filter: program.as_ptr() };
    let log = if log == Log::Yes { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    let reach = if reach == Reach::Process { libc::SECCOMP_FILTER_FLAG_TSYNC } else { 0 };
    // SAFETY: the kernel copies `len` instructions from a slice that outlives the call, and changes nothing of ours.
    let outcome = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, reach | log, &raw const filter) };
    match outcome {
        0 => Ok(()),
        -1 => Err(std::io::Error::last_os_error().to_string()),
        thread => Err(format!("thread {thread} has other rules")),
    }
}
