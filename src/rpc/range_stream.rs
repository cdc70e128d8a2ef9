//! A streamed read, page by page: which page comes next, and what the client gets of each.
//!
//! Reads at one revision, pinned by the first page, so that the pages joined are one answer. Pages grow
//! and shrink with their encoded size, so that memory per stream stays near the size of a request. Pure;
//! the connection asks for a page only when the one before is handed over.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::convert;
use super::pb::etcdserverpb as pb;
use crate::base::limits::RANGE_STREAM_FIRST_KEYS;
use crate::keyspace::request::{KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget};
use crate::shard::event::{Header, Identity};

/// What follows after a page.
#[derive(Debug)]
pub enum Step {
    /// Send this piece, then ask for the next page.
    Piece(pb::RangeStreamResponse, RangeRequest),
    /// Send nothing yet: ask this first.
    Ask(RangeRequest),
    /// Send this piece; the stream is complete.
    Last(pb::RangeStreamResponse),
}

/// One streamed read.
#[derive(Debug)]
pub struct Pager {
    /// The next question: the client's, moved past what has been sent.
    request: RangeRequest,
    /// The first key of the whole interval.
    start: Bytes,
    /// Keys the client wants in all; zero is no limit.
    limit: i64,
    /// Keys of the next page.
    page_keys: i64,
    /// The encoded size pages aim at, in bytes.
    page_size_bytes: u64,
    /// From the first page: what the last piece shows, and the revision all pages read.
    first: Option<Header>,
    /// Keys sent so far.
    sent: i64,
    /// The last page's keys, while the keys beyond the limit are counted.
    counting: Option<Vec<KeyValue>>,
}

impl Pager {
    /// Starts a read that has passed the checks; `page_size_bytes` is what pages aim at.
    #[must_use]
    pub fn new(request: RangeRequest, page_size_bytes: u64) -> Pager {
        let limit = request.limit.max(0);
        let start = request.range.key.clone();
        Pager {
            // Key order is the only one that pages keep; "no order" by another field means nothing here.
            request: RangeRequest {
                sort_order: SortOrder::None,
                sort_target: SortTarget::Key,
                ..request
            },
            start,
            limit,
            page_keys: RANGE_STREAM_FIRST_KEYS,
            page_size_bytes,
            first: None,
            sent: 0,
            counting: None,
        }
    }

    /// The next page's question.
    #[must_use]
    pub fn ask(&self) -> RangeRequest {
        if self.request.count_only {
            return self.request.clone();
        }
        let left = if self.limit == 0 {
            i64::MAX
        } else {
            self.limit - self.sent
        };
        RangeRequest {
            limit: self.page_keys.min(left),
            count_skipped: true,
            ..self.request.clone()
        }
    }

    /// Takes the answer to the last question.
    pub fn answer(&mut self, identity: &Identity, header: Header, page: RangeResponse) -> Step {
        let first = *self.first.get_or_insert(header);
        if let Some(kvs) = self.counting.take() {
            let whole = RangeResponse {
                kvs,
                more: true,
                count: page.count,
            };
            return self.last(identity, first, whole);
        }
        if self.request.count_only {
            return self.last(identity, first, page);
        }
        self.sent += i64::try_from(page.kvs.len()).expect("a page is small");
        // A page that claims more but holds nothing would repeat for ever.
        let Some(last_key) = page
            .kvs
            .last()
            .filter(|_| page.more)
            .map(|kv| kv.key.clone())
        else {
            let whole = RangeResponse {
                kvs: page.kvs,
                more: false,
                count: self.sent,
            };
            return self.last(identity, first, whole);
        };
        if self.request.revision <= 0 {
            self.request.revision = first.revision;
        }
        // The first page has seen a quorum's state; the pinned revision is there to be read.
        self.request.serializable = true;
        if self.limit != 0 && self.sent >= self.limit {
            self.counting = Some(page.kvs);
            let mut ask = self.request.clone();
            ask.range.key = self.start.clone();
            ask.count_only = true;
            ask.limit = 0;
            return Step::Ask(ask);
        }
        let mut next = BytesMut::with_capacity(last_key.len() + 1);
        next.extend_from_slice(&last_key);
        next.put_u8(0);
        self.request.range.key = next.freeze();
        let piece = pb::RangeStreamResponse {
            range_response: Some(pb::RangeResponse {
                kvs: page.kvs.into_iter().map(convert::key_value).collect(),
                ..pb::RangeResponse::default()
            }),
        };
        self.adapt(piece.encoded_len() as u64);
        Step::Piece(piece, self.ask())
    }

    fn last(&self, identity: &Identity, first: Header, whole: RangeResponse) -> Step {
        let header = convert::header(identity, &first);
        Step::Last(pb::RangeStreamResponse {
            range_response: Some(convert::range_response(header, whole)),
        })
    }

    /// Doubles the next page when this one was small, halves it when it was large.
    fn adapt(&mut self, size_bytes: u64) {
        if size_bytes < self.page_size_bytes / 2 {
            self.page_keys = self.page_keys.saturating_mul(2);
        } else if size_bytes > self.page_size_bytes.saturating_mul(2) {
            self.page_keys = (self.page_keys / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, MemberId, Term};
    use crate::keyspace::request::KeyRange;

    const IDENTITY: Identity = Identity {
        cluster: ClusterId(1),
        member: MemberId(2),
    };

    /// A store of `count` one-byte-value keys that answers pages as a keyspace does.
    fn page(count: u16, ask: &RangeRequest) -> RangeResponse {
        let all: Vec<KeyValue> = (0..count)
            .map(|number| KeyValue {
                key: number.to_be_bytes().to_vec().into(),
                ..KeyValue::default()
            })
            .filter(|kv| kv.key >= ask.range.key)
            .collect();
        let total = all.len();
        if ask.count_only {
            return RangeResponse {
                kvs: vec![],
                more: false,
                count: total as i64,
            };
        }
        let kvs: Vec<_> = all.into_iter().take(ask.limit as usize).collect();
        RangeResponse {
            more: kvs.len() < total,
            count: kvs.len() as i64,
            kvs,
        }
    }

    fn check(count: u16, limit: i64, count_only: bool, expected: (usize, bool, i64)) {
        let request = RangeRequest {
            range: KeyRange {
                key: Bytes::from_static(&[0]),
                range_end: Bytes::from_static(&[0]),
            },
            limit,
            count_only,
            ..RangeRequest::default()
        };
        let mut pager = Pager::new(request, 4_096);
        let mut ask = pager.ask();
        assert!(!ask.serializable, "the first page sees a quorum");
        let mut kvs = Vec::new();
        let mut pages = 0;
        let last = loop {
            pages += 1;
            let header = Header {
                revision: 70 + pages,
                term: Term(3),
            };
            if pages > 1 {
                assert_eq!(
                    (ask.revision, ask.serializable),
                    (71, true),
                    "pages read one revision"
                );
            }
            match pager.answer(&IDENTITY, header, page(count, &ask)) {
                Step::Piece(piece, next) => {
                    let piece = piece.range_response.unwrap();
                    assert_eq!((piece.header, piece.more, piece.count), (None, false, 0));
                    kvs.extend(piece.kvs);
                    ask = next;
                }
                Step::Ask(next) => ask = next,
                Step::Last(piece) => break piece.range_response.unwrap(),
            }
        };
        kvs.extend(last.kvs);
        assert!(kvs.is_sorted_by_key(|kv| kv.key.clone()));
        assert_eq!((kvs.len(), last.more, last.count), expected);
        assert_eq!(last.header.unwrap().revision, 71);
    }

    /// Goal: the pieces joined are the range's answer, with exact count and `more`.
    #[test]
    fn pieces_are_the_whole() {
        check(0, 0, false, (0, false, 0));
        check(1, 0, false, (1, false, 1));
        check(10, 0, false, (10, false, 10));
        check(11, 0, false, (11, false, 11));
        check(5_000, 0, false, (5_000, false, 5_000));
        check(5_000, 7, false, (7, true, 5_000));
        check(5_000, 10, false, (10, true, 5_000));
        check(5_000, 1_234, false, (1_234, true, 5_000));
        check(50, 50, false, (50, false, 50));
        check(50, 0, true, (0, false, 50));
        check(50, 3, true, (0, false, 50));
    }

    /// Goal: pages follow the size of what they carry, and never reach zero.
    #[test]
    fn pages_adapt() {
        let mut pager = Pager::new(RangeRequest::default(), 1_000);
        pager.adapt(499);
        assert_eq!(pager.page_keys, 20);
        pager.adapt(500);
        pager.adapt(2_000);
        assert_eq!(pager.page_keys, 20);
        for _ in 0..9 {
            pager.adapt(2_001);
        }
        assert_eq!(pager.page_keys, 1);
    }
}
