//! The leader's side of a checkpoint that travels: who is sent which one, and how far that has come.
//!
//! ```text
//! raft: needs a checkpoint -> offer -> position -> read, block, read, block ... -> position ... -> committed
//!                               ^                                                      |
//!                               '--- nothing heard for an election timeout, or --------'
//!                                    the connection is a new one: another attempt
//! ```
//!
//! An attempt begins at what the follower says it has, so nothing is sent twice because a connection broke. A
//! checkpoint on its way pins its file and the log behind it, up to `log_bytes_max`. If the log becomes longer
//! the transfer is given up for one of a newer checkpoint, and during that one writes are *paced*: the log may
//! grow by half of `log_bytes_max` times the part that has arrived, so that the transfer ends before the log is too long
//! again. So they are from the beginning where much log has come after the checkpoint already. A follower that takes no
//! block for [`TRANSFER_PACE_PATIENCE`] slows nobody down.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Shard;
use super::checkpoints::{CheckpointSummary, ToSend};
use super::event::{CheckpointEffect, CheckpointPosition, CheckpointRead, Notice, PeerMessage};
use crate::base::limits::{
    CHECKPOINT_BLOCK_BYTES, TRANSFER_PACE_PATIENCE, TRANSFER_READ_BLOCKS, TRANSFER_WINDOW_BLOCKS,
};
use crate::base::{Index, Instant, MemberId, Term};
use crate::checkpoint::{Block, CheckpointId};
use crate::raft::{Flow, Role};

/// The followers that are sent a checkpoint: at most the members of a group.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    to: BTreeMap<MemberId, Transfer>,
    /// The number of the last attempt.
    attempt: u64,
    /// Whether a read is under way, for whomever.
    reading: bool,
    /// Who was read for last: the others come first.
    last_read: Option<MemberId>,
    /// Whether writes wait for a transfer.
    holds_writes: bool,
}

/// One follower that needs a checkpoint.
#[derive(Debug, Default)]
struct Transfer {
    /// None while there is no checkpoint that is worth sending.
    sending: Option<Sending>,
    /// Checkpoints up to here are worth it only while little log has come after them: the newest when the follower began
    /// to wait, or the one that was given up.
    passed: Index,
    /// One was given up because the log became too long, or would be.
    paced: bool,
}

#[derive(Debug)]
struct Sending {
    id: CheckpointId,
    size_bytes: u64,
    block_count: u32,
    attempt: u64,
    /// Whether another attempt is due, whatever the time.
    restart: bool,
    /// Whether the follower has answered in this attempt.
    answered: bool,
    /// The follower has every block below this one.
    taken: u32,
    /// Every block below this one was sent in this attempt, or is there.
    sent: u32,
    /// When it came on last, or was offered.
    since: Instant,
    /// When it came on last.
    moved: Instant,
    /// [`crate::wal::Appender::entry_bytes`] when it began.
    began_entry_bytes: u64,
}

impl Sending {
    /// The next blocks to read, when there is room in the window.
    fn next_read(&self, to: MemberId) -> Option<CheckpointRead> {
        let end = self
            .block_count
            .min(self.taken.saturating_add(TRANSFER_WINDOW_BLOCKS));
        (self.answered && self.sent < end).then(|| CheckpointRead {
            to,
            attempt: self.attempt,
            id: self.id,
            first_block: self.sent,
            block_count: (end - self.sent).min(TRANSFER_READ_BLOCKS),
        })
    }
}

impl Transfers {
    /// A follower needs a checkpoint; `newest` is the index of the newest one.
    pub(super) fn needs(&mut self, to: MemberId, newest: Index) {
        self.to.entry(to).or_insert(Transfer {
            passed: newest,
            ..Transfer::default()
        });
    }

    /// This member leads no longer.
    pub(super) fn clear(&mut self) {
        *self = Transfers {
            attempt: self.attempt,
            reading: self.reading,
            ..Transfers::default()
        };
    }

    /// Whether writes wait for a transfer that would lose the race against them.
    pub(super) fn holds_writes(&self) -> bool {
        self.holds_writes
    }

    /// Whether somebody waits for a checkpoint to be taken, where `newest` is there.
    pub(super) fn wants_checkpoint(&self, newest: Option<ToSend>) -> bool {
        let mut waiting = self.to.values().filter(|to| to.sending.is_none());
        waiting.any(|to| newest.is_none_or(|newest| !newest.is_worth(to.passed)))
    }

    /// The oldest checkpoint on its way.
    pub(super) fn oldest(&self) -> Option<Index> {
        let sending = self.to.values().filter_map(|to| to.sending.as_ref());
        sending.map(|sending| sending.id.index).min()
    }

    /// The log is too long: those of checkpoints before `newest` are given up.
    pub(super) fn abandon_before(&mut self, newest: Index, notices: &mut Vec<Notice>) {
        for (&to, transfer) in &mut self.to {
            let late = |sending: &mut Sending| sending.id.index < newest;
            if let Some(Sending { id, .. }) = transfer.sending.take_if(late) {
                transfer.paced = true;
                transfer.passed = id.index;
                notices.push(Notice::TransferAbandoned { to, id });
            }
        }
    }

    /// The connection to a follower is a new one: what was under way on it is lost.
    pub(super) fn peer_disconnected(&mut self, peer: MemberId) {
        if let Some(Transfer {
            sending: Some(sending),
            ..
        }) = self.to.get_mut(&peer)
        {
            sending.restart = true;
        }
    }
}

impl Shard {
    /// Begins, continues and repeats transfers.
    pub(super) fn drive_transfers(&mut self, now: Instant) {
        if self.transfers.to.is_empty() {
            self.transfers.holds_writes = false;
            return;
        }
        let raft = &self.raft;
        self.transfers.to.retain(|&to, _| {
            let progress = raft.progress(to);
            progress.is_some_and(|progress| progress.flow == Flow::Checkpoint)
        });
        let newest = self.checkpoint_to_send();
        let attempt_span = self.settings.election_timeout;
        let entry_bytes = self.log.entry_bytes();
        let Transfers { to, attempt, .. } = &mut self.transfers;
        for (&to, transfer) in to {
            if transfer.sending.is_none()
                && let Some(newest) = newest.filter(|newest| newest.is_worth(transfer.passed))
                && let Some(sending) = begin(newest.summary, entry_bytes, now)
            {
                let id = sending.id;
                transfer.paced |= newest.is_late();
                self.notices.push(Notice::TransferBegins { to, id });
                transfer.sending = Some(sending);
            }
            let Some(sending) = &mut transfer.sending else {
                continue;
            };
            if sending.restart || sending.since + attempt_span <= now {
                *attempt += 1;
                sending.attempt = *attempt;
                sending.restart = false;
                sending.answered = false;
                sending.since = now;
                let offer = PeerMessage::CheckpointOffer {
                    term: self.raft.term(),
                    attempt: sending.attempt,
                    id: sending.id,
                    size_bytes: sending.size_bytes,
                };
                self.messages.push((to, offer));
            }
        }
        self.read_next();
        self.pace(now);
    }

    /// One read at a time, the followers in turn.
    fn read_next(&mut self) {
        if self.transfers.reading {
            return;
        }
        let next =
            |(&to, transfer): (&MemberId, &Transfer)| transfer.sending.as_ref()?.next_read(to);
        let last = self.transfers.last_read.unwrap_or_default();
        let all = &self.transfers.to;
        let read = all
            .iter()
            .filter(|&(&to, _)| to > last)
            .find_map(next)
            .or_else(|| all.iter().find_map(next));
        if let Some(read) = read {
            self.transfers.reading = true;
            self.transfers.last_read = Some(read.to);
            self.checkpoints.effects.push(CheckpointEffect::Read(read));
        }
    }

    fn pace(&mut self, now: Instant) {
        let share = self.checkpoints.limits().log_bytes_max / 2;
        let entry_bytes = self.log.entry_bytes();
        let is_ahead = |transfer: &Transfer| {
            let Some(sending) = transfer.sending.as_ref().filter(|_| transfer.paced) else {
                return false;
            };
            let part = u128::from(sending.taken) + 1;
            let allowed = u128::from(share) * part / (u128::from(sending.block_count) + 1);
            u128::from(entry_bytes - sending.began_entry_bytes) > allowed
                && now.since(sending.moved) < TRANSFER_PACE_PATIENCE
        };
        self.transfers.holds_writes = self.transfers.to.values().any(is_ahead);
    }

    /// A part of a checkpoint was read: it leaves, block by block.
    pub(super) fn checkpoint_read(&mut self, read: &CheckpointRead, bytes: &Bytes) {
        self.transfers.reading = false;
        let transfer = self.transfers.to.get_mut(&read.to);
        let Some(sending) = transfer.and_then(|transfer| transfer.sending.as_mut()) else {
            return;
        };
        if (sending.attempt, sending.sent) != (read.attempt, read.first_block) {
            return;
        }
        for at in 0..read.block_count as usize {
            let from = bytes.len().min(at * CHECKPOINT_BLOCK_BYTES);
            let to = bytes.len().min(from + CHECKPOINT_BLOCK_BYTES);
            let expected = sending.sent;
            let is_last = expected + 1 == sending.block_count;
            let block = Block::parse(bytes.slice(from..to))
                .filter(|block| (block.ordinal, block.is_last) == (expected, is_last));
            let Some(block) = block else {
                let id = sending.id;
                self.notices.push(Notice::Unreadable { id });
                self.checkpoints.unreadable(id);
                self.give_up_unreadable(id);
                return;
            };
            sending.sent += 1;
            let message = PeerMessage::CheckpointBlock {
                term: self.raft.term(),
                attempt: read.attempt,
                id: read.id,
                block,
            };
            self.messages.push((read.to, message));
        }
    }

    fn give_up_unreadable(&mut self, id: CheckpointId) {
        for transfer in self.transfers.to.values_mut() {
            transfer.sending.take_if(|sending| sending.id == id);
        }
    }

    /// A follower says how far it has come.
    pub(super) fn take_checkpoint_position(
        &mut self,
        from: MemberId,
        term: Term,
        attempt: u64,
        position: CheckpointPosition,
        now: Instant,
    ) {
        let leads = self.raft.role() == Role::Leader && self.raft.term() == term;
        let transfer = self.transfers.to.get_mut(&from).filter(|_| leads);
        let Some(sending) = transfer
            .and_then(|transfer| transfer.sending.as_mut())
            .filter(|sending| sending.attempt == attempt)
        else {
            return;
        };
        match position {
            CheckpointPosition::Next(next) => {
                let next = next.min(sending.block_count);
                if !sending.answered {
                    // What it had of an earlier attempt may be gone with its process.
                    sending.answered = true;
                    sending.sent = next;
                } else if next <= sending.taken {
                    return;
                }
                sending.taken = next;
                sending.sent = sending.sent.max(next);
                sending.since = now;
                sending.moved = now;
            }
            CheckpointPosition::Committed(index) => {
                self.transfers.to.remove(&from);
                let index = index.min(self.raft.last_index());
                self.raft.checkpoint_sent(from, Some(index));
            }
        }
    }
}

/// A transfer of this checkpoint; none if it has more blocks than can be numbered.
fn begin(newest: CheckpointSummary, entry_bytes: u64, now: Instant) -> Option<Sending> {
    let block_count = newest.size_bytes.div_ceil(CHECKPOINT_BLOCK_BYTES as u64);
    Some(Sending {
        id: newest.id,
        size_bytes: newest.size_bytes,
        block_count: u32::try_from(block_count).ok()?,
        attempt: 0,
        restart: true,
        answered: false,
        taken: 0,
        sent: 0,
        since: now,
        moved: now,
        began_entry_bytes: entry_bytes,
    })
}
