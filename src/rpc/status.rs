//! Every error a client can see: gRPC codes, etcd's texts, and the one table from refusals to them.
//!
//! Clients compare the text and decide on retries by the code, so both are exact. Owns no state.
//! Nothing below `rpc` knows these texts.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderValue;

use crate::keyspace::request::Refusal as KeyspaceRefusal;
use crate::raft::Outage;
use crate::shard::event::{MembershipRefusal, Refusal};

/// The status codes of gRPC that this server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// An error without a better code, on the wire at least.
    Unknown = 2,
    /// The request can never succeed as it is.
    InvalidArgument = 3,
    /// The client's own time is up.
    DeadlineExceeded = 4,
    /// What was named does not exist.
    NotFound = 5,
    /// A limit is reached.
    ResourceExhausted = 8,
    /// The state of the system does not allow it.
    FailedPrecondition = 9,
    /// The revision is not readable.
    OutOfRange = 11,
    /// No such method.
    Unimplemented = 12,
    /// Broken framing or a message that is no message.
    Internal = 13,
    /// Try again, perhaps elsewhere.
    Unavailable = 14,
    /// The data is damaged.
    DataLoss = 15,
}

impl Code {
    /// The code as the `grpc-status` trailer carries it.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Code::Ok => "0",
            Code::Unknown => "2",
            Code::InvalidArgument => "3",
            Code::DeadlineExceeded => "4",
            Code::NotFound => "5",
            Code::ResourceExhausted => "8",
            Code::FailedPrecondition => "9",
            Code::OutOfRange => "11",
            Code::Unimplemented => "12",
            Code::Internal => "13",
            Code::Unavailable => "14",
            Code::DataLoss => "15",
        })
    }
}

/// How a call ended: a code and the text clients compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind of end.
    pub code: Code,
    /// The exact text.
    pub message: Cow<'static, str>,
}

/// Declares the fixed statuses: a name, its code and its text.
macro_rules! statuses {
    ($($(#[$meta:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        $($(#[$meta])* pub const $name: Status = Status {
            code: Code::$code,
            message: Cow::Borrowed($text),
        };)*
    };
}

statuses! {
    /// Success.
    OK = Ok, "";
    /// An empty key where one is needed.
    EMPTY_KEY = InvalidArgument, "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on an absent key; also an operation without a variant.
    KEY_NOT_FOUND = InvalidArgument, "etcdserver: key not found";
    /// `ignore_value` together with a value.
    VALUE_PROVIDED = InvalidArgument, "etcdserver: value is provided";
    /// `ignore_lease` together with a lease.
    LEASE_PROVIDED = InvalidArgument, "etcdserver: lease is provided";
    /// More operations than `--max-txn-ops` allows at this depth.
    TOO_MANY_OPERATIONS = InvalidArgument, "etcdserver: too many operations in txn request";
    /// A key put twice, or put and deleted, in one transaction.
    DUPLICATE_KEY = InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// `client-api-version` is not UTF-8.
    INVALID_CLIENT_API_VERSION = InvalidArgument, "etcdserver: invalid client api version";
    /// A sort order or target outside the enumeration.
    INVALID_SORT_OPTION = InvalidArgument, "etcdserver: invalid sort option";
    /// The encoded request exceeds `--max-request-bytes`.
    REQUEST_TOO_LARGE = InvalidArgument, "etcdserver: request is too large";
    /// RangeStream with an order it cannot page in.
    STREAM_SORT = Unimplemented, "RangeStream does not support custom sort orders";
    /// RangeStream with a revision bound.
    STREAM_FILTER = Unimplemented, "RangeStream does not support revision filters";
    /// A wish for reads to rest on something that there is not.
    UNKNOWN_READ_MODE = InvalidArgument, "kontiki: the mode is neither INDEX nor LEASE";
    /// The lease does not exist.
    LEASE_NOT_FOUND = NotFound, "etcdserver: requested lease not found";
    /// Below the compacted revision.
    COMPACTED = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// Above the current revision.
    FUTURE_REVISION = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// The quota is used up.
    NO_SPACE = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// A queue is full, or a memory budget is used up. etcd declares it as ResourceExhausted, which is lost on the wire.
    TOO_MANY_REQUESTS = Unknown, "etcdserver: too many requests";
    /// No leader is known.
    NO_LEADER = Unavailable, "etcdserver: no leader";
    /// The entry was replaced by another leader's.
    LEADER_CHANGED = Unavailable, "etcdserver: leader changed";
    /// The member is stopping.
    STOPPED = Unavailable, "etcdserver: server stopped";
    /// The server's own limit has passed.
    TIMED_OUT = Unavailable, "etcdserver: request timed out";
    /// The same, and this member was elected soon after the request came in.
    TIMED_OUT_LEADER_FAILED = Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    /// The same, and connections between members were closed meanwhile.
    TIMED_OUT_CONNECTION_LOST = Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    /// Members disagree about the data.
    CORRUPT = DataLoss, "etcdserver: corrupt cluster";
    /// The client's deadline has passed; or, as with etcd, the server's own limit while nobody led.
    DEADLINE_EXCEEDED = DeadlineExceeded, "context deadline exceeded";
    /// The health service does not know that name.
    UNKNOWN_HEALTH_SERVICE = NotFound, "unknown service";
    /// The client closed the stream before a message.
    NO_MESSAGE = Unknown, "EOF";
    /// The client closed the stream inside a message.
    TRUNCATED_MESSAGE = Unknown, "unexpected EOF";
    /// No member has that id.
    MEMBER_NOT_FOUND = NotFound, "etcdserver: member not found";
    /// A member has that id, or had it.
    MEMBER_EXISTS = FailedPrecondition, "etcdserver: member ID already exist";
    /// Another member has one of those URLs.
    PEER_URL_EXISTS = FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// As many learners as `--max-learners` allows.
    TOO_MANY_LEARNERS = FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// As many members as this server supports; etcd knows no such limit.
    TOO_MANY_MEMBERS = FailedPrecondition, "etcdserver: too many members in cluster";
    /// Only learners are promoted.
    NOT_LEARNER = FailedPrecondition, "etcdserver: can only promote a learner member";
    /// The learner is behind, or silent.
    LEARNER_NOT_READY = FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    /// The change would leave too few members that have started. On the wire this has no better code.
    NOT_ENOUGH_STARTED = Unknown, "etcdserver: re-configuration failed due to not enough started members";
    /// The change would leave too few members that are heard.
    UNHEALTHY = Unavailable, "etcdserver: unhealthy cluster";
    /// Only the leader hands over.
    NOT_LEADER = FailedPrecondition, "etcdserver: not leader";
    /// Nobody without a vote is handed over to.
    BAD_TRANSFEREE = FailedPrecondition, "etcdserver: bad leader transferee";
    /// Leadership was not taken over in time.
    TRANSFER_TIMED_OUT = Unknown, "etcdserver: request timed out, leader transfer took too long";
    /// A message says it is compressed, the headers do not say how.
    COMPRESSED_WITHOUT_ENCODING = Internal, "grpc: compressed flag set with identity or empty encoding";
    /// A shard answered another question than the one asked.
    WRONG_ANSWER = Internal, "the answer does not fit the request";
}

impl From<Refusal> for Status {
    /// The one table from what a shard refuses to what the client reads.
    fn from(refusal: Refusal) -> Status {
        match refusal {
            Refusal::Keyspace(KeyspaceRefusal::KeyNotFound) => KEY_NOT_FOUND,
            Refusal::Keyspace(KeyspaceRefusal::LeaseNotFound) => LEASE_NOT_FOUND,
            Refusal::Keyspace(KeyspaceRefusal::Compacted) => COMPACTED,
            Refusal::Keyspace(KeyspaceRefusal::FutureRevision) => FUTURE_REVISION,
            Refusal::NoLeader => NO_LEADER,
            Refusal::LeaderChanged => LEADER_CHANGED,
            Refusal::TimedOut => TIMED_OUT,
            Refusal::NoLeaderInTime => DEADLINE_EXCEEDED,
            Refusal::TimedOutBy(Outage::LeaderFailed) => TIMED_OUT_LEADER_FAILED,
            Refusal::TimedOutBy(Outage::ConnectionLost) => TIMED_OUT_CONNECTION_LOST,
            Refusal::TooManyRequests => TOO_MANY_REQUESTS,
            Refusal::NoSpace => NO_SPACE,
            Refusal::Corrupt => CORRUPT,
            Refusal::TooLarge => REQUEST_TOO_LARGE,
            Refusal::Stopped => STOPPED,
            Refusal::Membership(refusal) => refusal.into(),
        }
    }
}

impl From<MembershipRefusal> for Status {
    fn from(refusal: MembershipRefusal) -> Status {
        match refusal {
            MembershipRefusal::NotFound => MEMBER_NOT_FOUND,
            MembershipRefusal::Exists => MEMBER_EXISTS,
            MembershipRefusal::PeerUrlExists => PEER_URL_EXISTS,
            MembershipRefusal::TooManyLearners => TOO_MANY_LEARNERS,
            MembershipRefusal::TooMany => TOO_MANY_MEMBERS,
            MembershipRefusal::NotLearner => NOT_LEARNER,
            MembershipRefusal::LearnerNotReady => LEARNER_NOT_READY,
            MembershipRefusal::NotEnoughStarted => NOT_ENOUGH_STARTED,
            MembershipRefusal::Unhealthy => UNHEALTHY,
            MembershipRefusal::NotLeader => NOT_LEADER,
            MembershipRefusal::BadTransferee => BAD_TRANSFEREE,
            MembershipRefusal::TransferTimedOut => TRANSFER_TIMED_OUT,
        }
    }
}

impl Status {
    /// A status with a text made for the occasion.
    #[must_use]
    pub fn new(code: Code, message: String) -> Status {
        Status {
            code,
            message: Cow::Owned(message),
        }
    }

    /// A message larger than the server takes.
    #[must_use]
    pub fn message_too_large(size: u64, limit: u64) -> Status {
        Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({size} vs. {limit})"),
        )
    }

    /// A service this server does not have.
    #[must_use]
    pub fn unknown_service(service: &str) -> Status {
        Status::new(Code::Unimplemented, format!("unknown service {service}"))
    }

    /// A method its service does not have.
    #[must_use]
    pub fn unknown_method(service: &str, method: &str) -> Status {
        Status::new(
            Code::Unimplemented,
            format!("unknown method {method} for service {service}"),
        )
    }

    /// The text as the `grpc-message` trailer carries it: everything but printable ASCII, and the
    /// percent sign, as `%XX`. None when there is no text.
    #[must_use]
    pub fn message_header(&self) -> Option<HeaderValue> {
        if self.message.is_empty() {
            return None;
        }
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
        if let Cow::Borrowed(text) = self.message
            && text.bytes().all(plain)
        {
            return Some(HeaderValue::from_static(text));
        }
        let mut encoded = Vec::with_capacity(self.message.len());
        for byte in self.message.bytes() {
            if plain(byte) {
                encoded.push(byte);
            } else {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                encoded.extend_from_slice(&[
                    b'%',
                    DIGITS[usize::from(byte >> 4)],
                    DIGITS[usize::from(byte & 15)],
                ]);
            }
        }
        Some(
            HeaderValue::from_maybe_shared(Bytes::from(encoded))
                .expect("printable ASCII is a legal header value"),
        )
    }
}

/// The text that a `grpc-message` trailer carries. A percent sign that begins no byte stands for itself.
#[must_use]
pub fn message_text(header: &[u8]) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut text = Vec::with_capacity(header.len());
    let mut rest = header;
    while let [first, behind @ ..] = rest {
        rest = behind;
        let mut byte = *first;
        if let (b'%', [high, low, behind @ ..]) = (byte, behind)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            byte = u8::try_from(high << 4 | low).expect("two digits are a byte");
            rest = behind;
        }
        text.push(byte);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the trailer is readable ASCII whatever the text holds, and decodes to the text.
    #[test]
    fn messages_are_percent_encoded() {
        let check = |text: &str, expected: Option<&str>| {
            let header = Status::new(Code::Internal, text.to_owned()).message_header();
            assert_eq!(
                header.as_ref().map(|value| value.to_str().unwrap()),
                expected
            );
            let header = header.as_ref().map(HeaderValue::as_bytes);
            assert_eq!(message_text(header.unwrap_or_default()), text);
        };
        check("", None);
        check(
            "etcdserver: key not found",
            Some("etcdserver: key not found"),
        );
        check("100%\n", Some("100%25%0A"));
        check("\u{e9}~\u{7f}", Some("%C3%A9~%7F"));
        // What this server would not send.
        assert_eq!(message_text(b"%4a%zz%4%"), "J%zz%4%");
        assert_eq!(message_text(b"%ff"), "\u{fffd}");
        let fixed = KEY_NOT_FOUND.message_header().unwrap();
        assert_eq!(fixed, "etcdserver: key not found");
    }

    /// Goal: codes and texts are the ones clients compare.
    #[test]
    fn refusals_become_etcd_errors() {
        let check = |refusal: Refusal, code: u8, text: &str| {
            let status = Status::from(refusal);
            assert_eq!((status.code as u8, &*status.message), (code, text));
            assert_eq!(status.code.header(), code.to_string().as_str());
        };
        let keyspace = Refusal::Keyspace;
        check(
            keyspace(KeyspaceRefusal::KeyNotFound),
            3,
            "etcdserver: key not found",
        );
        check(
            keyspace(KeyspaceRefusal::LeaseNotFound),
            5,
            "etcdserver: requested lease not found",
        );
        check(
            keyspace(KeyspaceRefusal::Compacted),
            11,
            "etcdserver: mvcc: required revision has been compacted",
        );
        check(
            keyspace(KeyspaceRefusal::FutureRevision),
            11,
            "etcdserver: mvcc: required revision is a future revision",
        );
        check(Refusal::NoLeader, 14, "etcdserver: no leader");
        check(Refusal::LeaderChanged, 14, "etcdserver: leader changed");
        check(Refusal::TimedOut, 14, "etcdserver: request timed out");
        check(Refusal::NoLeaderInTime, 4, "context deadline exceeded");
        check(
            Refusal::TimedOutBy(Outage::LeaderFailed),
            14,
            "etcdserver: request timed out, possibly due to previous leader failure",
        );
        check(
            Refusal::TimedOutBy(Outage::ConnectionLost),
            14,
            "etcdserver: request timed out, possibly due to connection lost",
        );
        check(Refusal::TooManyRequests, 2, "etcdserver: too many requests");
        check(
            Refusal::NoSpace,
            8,
            "etcdserver: mvcc: database space exceeded",
        );
        check(Refusal::Corrupt, 15, "etcdserver: corrupt cluster");
        check(Refusal::TooLarge, 3, "etcdserver: request is too large");
        check(Refusal::Stopped, 14, "etcdserver: server stopped");
        let membership = |refusal, code, text| check(Refusal::Membership(refusal), code, text);
        use MembershipRefusal as No;
        membership(No::NotFound, 5, "etcdserver: member not found");
        membership(No::Exists, 9, "etcdserver: member ID already exist");
        membership(No::PeerUrlExists, 9, "etcdserver: Peer URLs already exists");
        membership(
            No::TooManyLearners,
            9,
            "etcdserver: too many learner members in cluster",
        );
        membership(
            No::NotLearner,
            9,
            "etcdserver: can only promote a learner member",
        );
        membership(
            No::LearnerNotReady,
            9,
            "etcdserver: can only promote a learner member which is in sync with leader",
        );
        membership(
            No::NotEnoughStarted,
            2,
            "etcdserver: re-configuration failed due to not enough started members",
        );
        membership(No::Unhealthy, 14, "etcdserver: unhealthy cluster");
        membership(No::NotLeader, 9, "etcdserver: not leader");
        membership(No::BadTransferee, 9, "etcdserver: bad leader transferee");
        membership(
            No::TransferTimedOut,
            2,
            "etcdserver: request timed out, leader transfer took too long",
        );
    }
}
