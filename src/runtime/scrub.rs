//! Reads the sealed segments again, now and then, so that rot is found while the state is in memory.
//!
//! One background task on the shard's core. A pass reads one segment at a time past the page cache; a
//! thread beside the core checks it. What it finds it logs and reports; it repairs nothing.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::beside::spawn_beside;
use super::disk::read::read_file;
use super::executor::sleep;
use super::mailbox::mailbox;
use super::router::Doorbell;
use crate::base::limits::{SCRUB_INTERVAL, SCRUB_SEGMENT_PAUSE};
use crate::wal::{Geometry, LogIdentity, SealedDamage, SealedSegment, check_sealed};

/// What the shard's core and the scrub tell each other.
#[derive(Default)]
pub struct Scrubbed {
    /// The segments to read, oldest first; the core keeps this current.
    pub sealed: RefCell<Vec<SealedSegment>>,
    /// A pass has found a damaged segment, and the shard has not heard of it.
    damaged: Cell<bool>,
}

impl Scrubbed {
    /// A pass has found damage.
    fn found_damage(&self) {
        self.damaged.set(true);
    }

    /// Whether a pass has found damage since this was asked last: each one that does is told to the shard, for what was
    /// done about the last one does not help against the next.
    pub fn take_damage(&self) -> bool {
        self.damaged.take()
    }
}

/// Scrubs for as long as the process lives.
pub async fn run(
    directory: PathBuf,
    geometry: Geometry,
    identity: LogIdentity,
    scrubbed: Rc<Scrubbed>,
    doorbell: Rc<Doorbell>,
) {
    loop {
        sleep(SCRUB_INTERVAL).await;
        let sealed = scrubbed.sealed.borrow().clone();
        let mut damaged = 0;
        for segment in &sealed {
            if !scrubbed.sealed.borrow().contains(segment) {
                continue;
            }
            let finding = check(&directory, geometry, identity, segment).await;
            // Given up while it was read: the file may have another life now.
            let is_current = scrubbed.sealed.borrow().contains(segment);
            if let Some(finding) = finding.filter(|_| is_current) {
                damaged += 1;
                tracing::error!(
                    "{}: {finding}. The member still has the state in memory, and writes it as a \
                     checkpoint, so that this segment is not needed any more",
                    directory.display()
                );
            }
            sleep(SCRUB_SEGMENT_PAUSE).await;
        }
        tracing::info!(segments = sealed.len(), damaged, "log scrubbed");
        if damaged > 0 {
            scrubbed.found_damage();
            doorbell.ring();
        }
    }
}

/// Reads and checks one segment; what is wrong with it, if anything.
pub async fn check(
    directory: &Path,
    geometry: Geometry,
    identity: LogIdentity,
    segment: &SealedSegment,
) -> Option<String> {
    let mut bytes = Vec::new();
    // Not being able to read now, for want of a descriptor or of memory, says nothing about the file.
    if let Err(error) = read_file(
        &directory.join(segment.summary.sequence.file_name()),
        &mut bytes,
    )
    .await
    {
        tracing::warn!(%error, "a segment was not scrubbed");
        return None;
    }
    let (sender, mut receiver) = mailbox::<Result<(), SealedDamage>>(1);
    let segment = *segment;
    let spawned = spawn_beside("scrub", move || {
        // An empty mailbox takes one message.
        let _sent = sender.send(check_sealed(geometry, identity, &segment, &bytes));
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "a segment was not scrubbed: no thread");
        return None;
    }
    let checked = receiver
        .receive()
        .await
        .expect("the thread reports before it ends");
    checked.err().map(|damage| damage.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: damage is told once for each pass that finds some, and not only the first time.
    #[test]
    fn damage_is_told_again() {
        let scrubbed = Scrubbed::default();
        assert!(!scrubbed.take_damage());
        for _ in 0..2 {
            scrubbed.found_damage();
            assert!(scrubbed.take_damage());
            assert!(!scrubbed.take_damage());
        }
    }
}
