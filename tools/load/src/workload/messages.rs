//! etcd's requests as bytes, and what matters of its answers.

use super::proto::{Content, Fields, put_bytes, put_message, put_number};

/// A put.
pub(crate) fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8], lease: i64) {
    put_bytes(out, 1, key);
    put_bytes(out, 2, value);
    put_number(out, 3, lease as u64);
}

/// A read of `[key, end)`, or of `key` alone when `end` is empty; a limit of zero is none.
pub(crate) fn range(out: &mut Vec<u8>, key: &[u8], end: &[u8], limit: u64, serializable: bool) {
    put_bytes(out, 1, key);
    if !end.is_empty() {
        put_bytes(out, 2, end);
    }
    put_number(out, 3, limit);
    put_number(out, 7, u64::from(serializable));
}

/// A deletion of one key.
pub(crate) fn delete(out: &mut Vec<u8>, key: &[u8]) {
    put_bytes(out, 1, key);
}

/// Compare-and-swap: puts if the key was last modified at `revision` (zero: does not exist), else reads it.
pub(crate) fn swap(out: &mut Vec<u8>, key: &[u8], value: &[u8], revision: i64) {
    put_message(out, 1, |compare| {
        // The result EQUAL is zero; the target is MOD.
        put_number(compare, 2, 2);
        put_bytes(compare, 3, key);
        put_bytes_or_zero(compare, 6, revision);
    });
    put_message(out, 2, |op| {
        put_message(op, 2, |request| put(request, key, value, 0))
    });
    put_message(out, 3, |op| {
        put_message(op, 1, |request| range(request, key, &[], 0, false))
    });
}

/// A number inside a oneof is written also when it is zero.
fn put_bytes_or_zero(out: &mut Vec<u8>, number: u32, value: i64) {
    if value == 0 {
        out.extend_from_slice(&[(number << 3) as u8, 0]);
    } else {
        put_number(out, number, value as u64);
    }
}

/// A lease of `ttl_seconds`, whose id the server chooses.
pub(crate) fn grant(out: &mut Vec<u8>, ttl_seconds: i64) {
    put_number(out, 1, ttl_seconds as u64);
}

/// The one field of a renewal or a revocation.
pub(crate) fn lease(out: &mut Vec<u8>, id: i64) {
    put_number(out, 1, id as u64);
}

/// A watcher of `[key, end)`, or of `key` alone when `end` is empty.
pub(crate) fn watch(out: &mut Vec<u8>, key: &[u8], end: &[u8]) {
    put_message(out, 1, |create| {
        put_bytes(create, 1, key);
        if !end.is_empty() {
            put_bytes(create, 2, end);
        }
    });
}

/// What matters of an answer. Fields that its message does not have are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Main revision in the header.
    pub(crate) revision: i64,
    /// Who answered.
    pub(crate) member: u64,
    /// Keys that a read found, or a deletion deleted.
    pub(crate) count: u64,
    /// Modification revision of the first key of a read.
    pub(crate) modified: i64,
    /// Whether the comparison of a transaction held.
    pub(crate) succeeded: bool,
    /// The lease that was granted or renewed.
    pub(crate) lease: i64,
    /// Seconds a lease lives; zero when it does not exist.
    pub(crate) ttl_seconds: i64,
}

/// Which message an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Put,
    Range,
    Delete,
    Txn,
    Lease,
}

/// Reads an answer; `None` when it is none.
pub(crate) fn answer(message: &[u8], form: Form) -> Option<Answer> {
    let mut answer = Answer::default();
    let mut fields = Fields::of(message);
    for (number, content) in &mut fields {
        match (form, number, content) {
            (_, 1, Content::Bytes(header)) => read_header(header, &mut answer)?,
            (Form::Range, 2, Content::Bytes(pair)) if answer.count == 0 => {
                answer.modified = modified(pair)?;
                answer.count = 1;
            }
            (Form::Range, 2, Content::Bytes(_)) => answer.count += 1,
            (Form::Delete, 2, Content::Number(deleted)) => answer.count = deleted,
            (Form::Txn, 2, Content::Number(succeeded)) => answer.succeeded = succeeded != 0,
            (Form::Txn, 3, Content::Bytes(op)) => {
                // A read in the failure branch tells what the key is now.
                if let Some((1, Content::Bytes(read))) = Fields::of(op).next() {
                    let read = self::answer(read, Form::Range)?;
                    (answer.count, answer.modified) = (read.count, read.modified);
                }
            }
            (Form::Lease, 2, Content::Number(id)) => answer.lease = id as i64,
            (Form::Lease, 3, Content::Number(ttl)) => answer.ttl_seconds = ttl as i64,
            _ => {}
        }
    }
    (!fields.broken).then_some(answer)
}

fn read_header(header: &[u8], answer: &mut Answer) -> Option<()> {
    let mut fields = Fields::of(header);
    for (number, content) in &mut fields {
        match (number, content) {
            (2, Content::Number(member)) => answer.member = member,
            (3, Content::Number(revision)) => answer.revision = revision as i64,
            _ => {}
        }
    }
    (!fields.broken).then_some(())
}

fn modified(pair: &[u8]) -> Option<i64> {
    Fields::of(pair).find_map(|field| match field {
        (3, Content::Number(revision)) => Some(revision as i64),
        _ => None,
    })
}

/// A message of a watch stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchAnswer<'a> {
    /// Main revision in the header.
    pub(crate) revision: i64,
    /// Which watcher of the stream.
    pub(crate) watcher: i64,
    /// The watcher is there.
    pub(crate) created: bool,
    /// The watcher is gone, for this reason.
    pub(crate) cancelled: Option<&'a [u8]>,
    /// The versions in it, in order.
    pub(crate) events: Vec<WatchEvent<'a>>,
}

/// One event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchEvent<'a> {
    /// A deletion, not a put.
    pub(crate) deleted: bool,
    /// The revision that did it.
    pub(crate) modified: i64,
    /// The key.
    pub(crate) key: &'a [u8],
    /// The value put.
    pub(crate) value: &'a [u8],
}

/// Reads a message of a watch stream; `None` when it is none.
pub(crate) fn watch_answer(message: &[u8]) -> Option<WatchAnswer<'_>> {
    let mut answer = WatchAnswer::default();
    let mut cancelled = false;
    let mut reason = &[][..];
    let mut fields = Fields::of(message);
    for (number, content) in &mut fields {
        match (number, content) {
            (1, Content::Bytes(header)) => {
                let mut read = Answer::default();
                read_header(header, &mut read)?;
                answer.revision = read.revision;
            }
            (2, Content::Number(watcher)) => answer.watcher = watcher as i64,
            (3, Content::Number(created)) => answer.created = created != 0,
            (4, Content::Number(set)) => cancelled = set != 0,
            (6, Content::Bytes(why)) => reason = why,
            (11, Content::Bytes(event)) => answer.events.push(watch_event(event)?),
            _ => {}
        }
    }
    answer.cancelled = cancelled.then_some(reason);
    (!fields.broken).then_some(answer)
}

fn watch_event(message: &[u8]) -> Option<WatchEvent<'_>> {
    let mut event = WatchEvent::default();
    let mut fields = Fields::of(message);
    for (number, content) in &mut fields {
        match (number, content) {
            (1, Content::Number(kind)) => event.deleted = kind != 0,
            (2, Content::Bytes(pair)) => {
                let mut fields = Fields::of(pair);
                for (number, content) in &mut fields {
                    match (number, content) {
                        (1, Content::Bytes(key)) => event.key = key,
                        (3, Content::Number(revision)) => event.modified = revision as i64,
                        (5, Content::Bytes(value)) => event.value = value,
                        _ => {}
                    }
                }
                if fields.broken {
                    return None;
                }
            }
            _ => {}
        }
    }
    (!fields.broken).then_some(event)
}

/// The parts of a member's status that a run wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The member that answered.
    pub(crate) member: u64,
    /// The member that leads; zero when none is known.
    pub(crate) leader: u64,
    /// The server's version.
    pub(crate) version: String,
}

/// Reads the answer to Maintenance.Status.
pub(crate) fn status(message: &[u8]) -> Option<Status> {
    let mut status = Status::default();
    let mut fields = Fields::of(message);
    for (number, content) in &mut fields {
        match (number, content) {
            (1, Content::Bytes(header)) => {
                let mut read = Answer::default();
                read_header(header, &mut read)?;
                status.member = read.member;
            }
            (2, Content::Bytes(version)) => {
                status.version = String::from_utf8_lossy(version).into_owned()
            }
            (4, Content::Number(leader)) => status.leader = leader,
            _ => {}
        }
    }
    (!fields.broken).then_some(status)
}

/// How many members an answer to Cluster.MemberList lists.
pub(crate) fn member_count(message: &[u8]) -> u32 {
    Fields::of(message)
        .filter(|(number, _)| *number == 2)
        .count() as u32
}
