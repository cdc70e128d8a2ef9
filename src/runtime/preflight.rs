//! What this machine must allow before the first executor exists.
//!
//! Owns the questions the io_uring library would answer with a panic or a bare exit: may we create a ring,
//! does the kernel know the operations we use, is enough memory lockable, are there descriptors. Runs once, on the
//! main thread. The raw system calls here are one of the two places with unsafe code.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The library refuses to start below this, although newer kernels need none.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Descriptors below which a server with clients cannot run: rings, segments, sockets.
const DESCRIPTORS_MIN: u64 = 256;

/// The ring operations that are used, by their numbers in the kernel's interface.
const OPERATIONS: [(u8, &str); 12] = [
    (0, "NOP"),
    (1, "READV"),
    (3, "FSYNC"),
    (4, "READ_FIXED"),
    (6, "POLL_ADD"),
    (7, "POLL_REMOVE"),
    (11, "TIMEOUT"),
    (14, "ASYNC_CANCEL"),
    (18, "OPENAT"),
    (19, "CLOSE"),
    (22, "READ"),
    (23, "WRITE"),
];

/// Operations a probe has room for; the kernel fills in those it knows.
const PROBE_OPERATIONS_MAX: usize = 256;
/// `IORING_REGISTER_PROBE`.
const REGISTER_PROBE: libc::c_uint = 8;
/// `IO_URING_OP_SUPPORTED`.
const OPERATION_SUPPORTED: u16 = 1;

/// The limits in force after they were raised.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that may be locked in memory; `None` is without limit.
    pub memlock_bytes: Option<u64>,
    /// Open descriptors; `None` is without limit.
    pub descriptors: Option<u64>,
}

/// Why this machine cannot run the server, with the cure. Multi-line.
#[derive(Debug)]
pub enum PreflightError {
    /// `io_uring_setup` was refused.
    Refused {
        /// The kernel's answer.
        source: io::Error,
        /// `kernel.io_uring_disabled`, where the kernel has it.
        disabled: Option<u8>,
    },
    /// The kernel knows rings but not all operations.
    OperationMissing {
        /// Its name in the kernel's interface.
        name: &'static str,
    },
    /// The hard limit on locked memory is too low.
    LockedMemory {
        /// Bytes allowed.
        limit_bytes: u64,
    },
    /// The hard limit on descriptors is too low.
    Descriptors {
        /// Descriptors allowed.
        limit: u64,
    },
}

impl fmt::Display for PreflightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PreflightError::Refused { source, disabled } => {
                writeln!(f, "io_uring is not available: io_uring_setup: {source}")?;
                refusal_cure(f, source, *disabled)
            }
            PreflightError::OperationMissing { name } => write!(
                f,
                "io_uring is too old: this kernel ({}) lacks the operation {name}\n  \
                 5.15 or newer is needed, 6.6 or newer recommended",
                kernel_release()
            ),
            PreflightError::LockedMemory { limit_bytes } => write!(
                f,
                "too little memory may be locked: RLIMIT_MEMLOCK is {} KiB, at least {} KiB are needed\n  \
                 systemd: LimitMEMLOCK=infinity\n  \
                 docker:  --ulimit memlock=-1\n  \
                 shell:   ulimit -l unlimited (as root)",
                limit_bytes >> 10,
                MEMLOCK_BYTES_MIN >> 10
            ),
            PreflightError::Descriptors { limit } => write!(
                f,
                "too few file descriptors: RLIMIT_NOFILE is {limit}, at least {DESCRIPTORS_MIN} are needed\n  \
                 systemd: LimitNOFILE=65536\n  \
                 docker:  --ulimit nofile=65536"
            ),
        }
    }
}

impl std::error::Error for PreflightError {}

fn refusal_cure(
    f: &mut fmt::Formatter<'_>,
    source: &io::Error,
    disabled: Option<u8>,
) -> fmt::Result {
    match (source.raw_os_error(), disabled) {
        (Some(libc::ENOSYS), _) => write!(
            f,
            "  kernel {} has no io_uring, or a sandbox hides it: 5.15 or newer is needed",
            kernel_release()
        ),
        (Some(libc::EPERM), Some(level @ 1..)) => write!(
            f,
            "  kernel.io_uring_disabled = {level}: sysctl -w kernel.io_uring_disabled=0\n  \
             (1 allows it to members of kernel.io_uring_group and to CAP_SYS_ADMIN)"
        ),
        (Some(libc::EPERM | libc::EACCES), _) => write!(
            f,
            "  kernel.io_uring_disabled does not forbid it, so a seccomp policy does. Container runtimes\n  \
             refuse it by default since 2023; allow io_uring_setup, io_uring_enter, io_uring_register:\n  \
             docker:     --security-opt seccomp=<profile with these calls>\n  \
             kubernetes: seccompProfile {{type: Localhost, localhostProfile: <such a profile>}}\n  \
             systemd:    SystemCallFilter=@system-service @aio"
        ),
        (Some(libc::ENOMEM), _) => write!(
            f,
            "  the locked memory of this user is used up: LimitMEMLOCK=infinity / --ulimit memlock=-1"
        ),
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            write!(
                f,
                "  no descriptor is left: LimitNOFILE=65536 / --ulimit nofile=65536"
            )
        }
        _ => write!(f, "  kernel {}", kernel_release()),
    }
}

/// Raises the soft limits to the hard ones and tries a ring.
///
/// # Errors
/// [`PreflightError`]: print it and exit.
pub fn check() -> Result<Limits, PreflightError> {
    let limits = Limits {
        memlock_bytes: raise(Resource::Memlock),
        descriptors: raise(Resource::Nofile),
    };
    if let Some(limit_bytes) = limits.memlock_bytes
        && limit_bytes < MEMLOCK_BYTES_MIN
    {
        return Err(PreflightError::LockedMemory { limit_bytes });
    }
    if let Some(limit) = limits.descriptors
        && limit < DESCRIPTORS_MIN
    {
        return Err(PreflightError::Descriptors { limit });
    }
    let ring = create_ring().map_err(|source| PreflightError::Refused {
        source,
        disabled: std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
            .ok()
            .and_then(|text| text.trim().parse().ok()),
    })?;
    let supported = probe(&ring).map_err(|_| PreflightError::OperationMissing {
        name: "REGISTER_PROBE",
    })?;
    for (code, name) in OPERATIONS {
        if !supported(code) {
            return Err(PreflightError::OperationMissing { name });
        }
    }
    Ok(limits)
}

/// The hard limit, after the soft one was set to it; a refusal leaves the soft one in force.
fn raise(resource: Resource) -> Option<u64> {
    let limit = getrlimit(resource);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(resource, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// A ring of the smallest size, closed when dropped.
fn create_ring() -> io::Result<OwnedFd> {
    // The kernel's `struct io_uring_params` is 120 bytes; all zero asks for defaults.
    let mut parameters = [0u64; 15];
    // SAFETY: the kernel reads and writes only the 120 bytes that `parameters` owns, during the call.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2u32, parameters.as_mut_ptr()) };
    match i32::try_from(result) {
        Ok(descriptor) if descriptor >= 0 => {
            // SAFETY: the call returned a new descriptor that nothing else owns.
            Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the kernel's `struct io_uring_probe` says of each operation.
fn probe(ring: &OwnedFd) -> io::Result<impl Fn(u8) -> bool> {
    // Header: last_op u8, ops_len u8, u16, u32 x 3. Then per operation: op u8, u8, flags u16, u32.
    const HEADER_WORDS: usize = 2;
    let mut words = [0u64; HEADER_WORDS + PROBE_OPERATIONS_MAX];
    // SAFETY: the kernel writes at most the header and `PROBE_OPERATIONS_MAX` entries of eight bytes
    // into `words`, which has exactly that size, during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_PROBE,
            words.as_mut_ptr(),
            PROBE_OPERATIONS_MAX,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(move |operation: u8| {
        let [_, _, low, high, ..] = words[HEADER_WORDS + usize::from(operation)].to_ne_bytes();
        u16::from_ne_bytes([low, high]) & OPERATION_SUPPORTED != 0
    })
}

fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a machine that runs the other tests passes, and the soft limits are then the hard ones.
    #[test]
    fn this_machine_passes() {
        check().expect("io_uring works here");
        let descriptors = getrlimit(Resource::Nofile);
        assert_eq!(descriptors.current, descriptors.maximum);
        let ring = create_ring().expect("a ring");
        let supported = probe(&ring).expect("a probe");
        assert!(supported(0));
        assert!(!supported(255), "no kernel has this operation");
    }

    /// Goal: each refusal names its cause and its cure.
    #[test]
    fn messages() {
        let check = |error: PreflightError, expected: &[&str]| {
            let text = error.to_string();
            for part in expected {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        };
        let refused = |code, disabled| PreflightError::Refused {
            source: io::Error::from_raw_os_error(code),
            disabled,
        };
        check(
            refused(libc::EPERM, Some(2)),
            &["io_uring_disabled = 2", "sysctl -w"],
        );
        check(
            refused(libc::EPERM, Some(0)),
            &["seccomp", "SystemCallFilter", "localhostProfile"],
        );
        check(refused(libc::EPERM, None), &["seccomp"]);
        check(refused(libc::ENOSYS, None), &["no io_uring", "5.15"]);
        check(refused(libc::ENOMEM, None), &["LimitMEMLOCK"]);
        check(
            PreflightError::OperationMissing { name: "READ" },
            &["READ", "5.15"],
        );
        check(
            PreflightError::LockedMemory {
                limit_bytes: 65_536,
            },
            &["64 KiB", "512 KiB", "LimitMEMLOCK"],
        );
        check(
            PreflightError::Descriptors { limit: 64 },
            &["64", "LimitNOFILE"],
        );
    }
}
