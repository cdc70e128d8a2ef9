//! Steps: how long work may go on before it gives the core back, counted instead of timed.
//!
//! A step is the time in which a key is visited: from 0.1 to 0.9 microseconds, as the memory is warm or
//! cold. What takes longer costs more steps, as measured by `benches/keyspace.rs` with a million keys; so a slice of
//! [`crate::base::limits::SLICE_STEPS_MAX`] takes about as long whatever it is spent on. Counting keeps
//! every job a function of its inputs.

/// To write a version by a put, beside what [`Steps::of_bytes`] says of its value and what it pays for reclaim.
pub const PUT_STEPS: usize = 4;
/// To write a tombstone, beside what it pays for reclaim.
pub const DELETE_STEPS: usize = 3;
/// To take back a version, for a truncation.
pub const TRUNCATE_STEPS: usize = 5;
/// To look at a change below the floor and free what it superseded.
pub const RECLAIM_STEPS: usize = 8;
/// To copy a key into an answer, beside what [`Steps::of_bytes`] says of its value.
pub const PACK_STEPS: usize = 2;
/// To put a key in its place among those sorted so far.
pub const SORT_STEPS: usize = 8;
/// To take a key out of them, into the answer.
pub const EMIT_STEPS: usize = 6;

/// Bytes that are copied and hashed in the time of one step.
const BYTES_PER_STEP: usize = 512;

/// What is left of a slice. Handed through everything that works on it, so that all of it together is
/// bounded.
#[derive(Debug)]
pub struct Steps(usize);

impl Steps {
    /// A slice of `steps` steps.
    ///
    /// # Panics
    /// If there are none: such a slice would never make progress.
    #[must_use]
    pub fn new(steps: usize) -> Steps {
        assert!(steps > 0, "a slice needs at least one step");
        Steps(steps)
    }

    /// Uses one step, if there is one.
    pub fn take(&mut self) -> bool {
        self.take_many(1)
    }

    /// Uses `steps` steps, if there is at least one: what costs more than is left ends the slice, so that
    /// any slice makes progress.
    pub fn take_many(&mut self, steps: usize) -> bool {
        let more = self.0 > 0;
        self.0 = self.0.saturating_sub(steps);
        more
    }

    /// Sets at most `steps` steps aside for something else.
    #[must_use]
    pub fn part(&mut self, steps: usize) -> Steps {
        let part = steps.min(self.0);
        self.0 -= part;
        Steps(part)
    }

    /// Sets half of them aside.
    #[must_use]
    pub fn half(&mut self) -> Steps {
        self.part(self.0.div_ceil(2))
    }

    /// Takes back what a part has left.
    pub fn put_back(&mut self, part: Steps) {
        self.0 += part.0;
    }

    /// Whether at least so many are left.
    #[must_use]
    pub fn has(&self, steps: usize) -> bool {
        self.0 >= steps
    }

    /// Whether none are left.
    #[must_use]
    pub fn spent(&self) -> bool {
        self.0 == 0
    }

    /// What copying and hashing so many bytes costs.
    #[must_use]
    pub fn of_bytes(bytes: usize) -> usize {
        bytes / BYTES_PER_STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a slice ends with the first step it cannot pay, but never before one was made; parts and the
    /// rest add up.
    #[test]
    fn slices_end() {
        let mut steps = Steps::new(5);
        assert!(steps.take());
        let mut part = steps.part(3);
        assert!(part.take() && !steps.spent());
        steps.put_back(part);
        assert!(steps.take_many(2) && steps.take_many(7));
        assert!(steps.spent() && !steps.take() && !steps.take_many(2));
        assert!(steps.part(1).spent());
    }
}
