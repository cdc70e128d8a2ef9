//! The per-core runtime: pinned io_uring executors, mail between them, sockets, files and clocks.
//!
//! Owns everything that touches the kernel. The only module that may name the io_uring library,
//! because its hazards (lost wake-ups, leaked descriptors, blocking pools that hang) are handled here,
//! once. It must never know a key, a term or a request.
//!
//! Start-up order: [`preflight`] (can this machine run us), [`disk`] (whose directory is it),
//! [`placement`] (one executor per core), [`net`] (sockets), and [`signals`] to end it.

pub mod active;
mod announce;
pub mod beside;
pub mod clock;
pub mod core;
pub mod disk;
pub mod executor;
pub mod fatal;
pub mod group;
pub mod mailbox;
#[expect(unsafe_code, reason = "slices of a mapping, and the SIGBUS handler")]
pub mod mmap;
pub mod net;
pub mod peer_socket;
pub mod placement;
#[expect(
    unsafe_code,
    reason = "raw io_uring system calls, before the library may make them"
)]
pub mod preflight;
pub mod recovery;
pub mod router;
pub mod scrub;
pub mod signals;
pub mod stats;
pub mod survey;
