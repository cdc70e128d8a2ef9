//! What disk and network take by themselves: fdatasync of a small write where the members keep their data, and a round
//! trip over loopback.
//!
//! The fastest that there is, so that nobody is measured against less: the file has its length and its blocks before,
//! so that a sync writes data alone, and nothing else uses the disk. Must never run while members are under load. The
//! other end of the round trip has a thread of its own, bound to the leader's CPU.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kontiki_harness::cpu::bind_to_cpu;

use crate::result::{Latency, Optimum};

/// Bytes of the file that is written to, over and over.
const FILE_BYTES: usize = 1 << 20;
/// Bytes that a put needs beside its key and its value, in a log as on the wire.
const OVERHEAD_BYTES: usize = 64;
/// Bytes of an answer.
const ANSWER_BYTES: usize = 64;
/// How long each of the two is measured, each time.
const MEASURE_TIME: Duration = Duration::from_millis(500);
/// Round trips and syncs that are tried first, and not counted.
const UNCOUNTED: usize = 20;
/// How long the other end may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Both, each time that they were measured.
#[derive(Default)]
pub(super) struct Samples {
    round_trips: Vec<Latency>,
    syncs: Vec<Latency>,
}

impl Samples {
    /// Measures both for a while: puts of `bytes`, data in `directory`, the leader on `cpu`.
    pub(super) fn take(
        &mut self,
        directory: &Path,
        bytes: usize,
        cpu: Option<usize>,
    ) -> io::Result<()> {
        let bytes = bytes + OVERHEAD_BYTES;
        self.syncs.push(syncs(directory, bytes)?);
        self.round_trips.push(round_trips(bytes, cpu)?);
        Ok(())
    }

    /// What they say of a cluster of so many members; none without a measurement. The fastest time counts: in another
    /// one somebody else used the disk.
    pub(super) fn optimum(&self, members: usize) -> Option<Optimum> {
        let fastest = |times: &[Latency]| {
            let fastest = times.iter().min_by_key(|time| time.quantile_ns(0.5))?;
            Some(fastest.pack())
        };
        Some(Optimum {
            round_trip: fastest(&self.round_trips)?,
            sync: fastest(&self.syncs)?,
            replicated: members > 1,
        })
    }
}

fn syncs(directory: &Path, bytes: usize) -> io::Result<Latency> {
    let mut file = tempfile::tempfile_in(directory)?;
    let bytes = bytes.min(FILE_BYTES);
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    let content = vec![0xa5; bytes];
    let mut offset = 0;
    measure(|| {
        append(&file, &content, offset)?;
        offset += bytes as u64;
        if offset + bytes as u64 > FILE_BYTES as u64 {
            offset = 0;
        }
        Ok(())
    })
}

fn append(file: &File, content: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(content, offset)?;
    file.sync_data()
}

fn round_trips(bytes: usize, cpu: Option<usize>) -> io::Result<Latency> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let server = scope.spawn(move || serve(&listener, bytes, cpu));
        let asked = ask(address, bytes);
        // The connection is closed: its other end has ended, or says why.
        let served = server.join().expect("serving does not panic");
        served.and(asked)
    })
}

fn ask(address: SocketAddr, bytes: usize) -> io::Result<Latency> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let request = vec![0; bytes];
    let mut answer = [0; ANSWER_BYTES];
    measure(|| {
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)
    })
}

/// Answers one connection until it is closed.
fn serve(listener: &TcpListener, bytes: usize, cpu: Option<usize>) -> io::Result<()> {
    if let Some(cpu) = cpu {
        bind_to_cpu(cpu)?;
    }
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let mut request = vec![0; bytes];
    loop {
        match stream.read_exact(&mut request) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        stream.write_all(&[0; ANSWER_BYTES])?;
    }
}

/// One after the other, for a while.
fn measure(mut one: impl FnMut() -> io::Result<()>) -> io::Result<Latency> {
    for _ in 0..UNCOUNTED {
        one()?;
    }
    let mut times = Latency::new();
    let start = Instant::now();
    while start.elapsed() < MEASURE_TIME {
        let begin = Instant::now();
        one()?;
        times.record_ns(begin.elapsed().as_nanos() as u64);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both are measured, a commit of several members takes longer than one of one, no file stays, and a time in
    /// which others use the disk does not count beside a better one.
    #[test]
    fn takes_samples() {
        let directory = tempfile::tempdir_in(".").expect("the build is on a disk");
        let mut samples = Samples::default();
        assert!(samples.optimum(1).is_none());
        samples.take(directory.path(), 280, None).expect("measured");
        let one = samples.optimum(1).expect("measured");
        assert!(one.sync.summary().count > 0 && one.round_trip.summary().count > 0);
        let three = samples.optimum(3).expect("measured");
        assert!(one.commit_ns() > 0 && one.commit_ns() < three.commit_ns());
        for us in [u64::MAX / 1_000, 1] {
            let mut times = Latency::new();
            times.record_ns(us * 1_000);
            samples.syncs.push(times);
        }
        let quietest = samples.optimum(1).expect("measured");
        assert!(quietest.sync.summary().p50_ns < 1_100, "{quietest:?}");
        let left = std::fs::read_dir(directory.path()).expect("it is there");
        assert_eq!(left.count(), 0);
    }
}
