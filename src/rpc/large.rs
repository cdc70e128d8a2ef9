//! A large answer, measured and encoded piece by piece.
//!
//! An answer of a hundred thousand keys costs its core many milliseconds, in which no other connection
//! would be heard. So it becomes bytes in pieces, one per turn of its connection: first its size is
//! added up, since a gRPC message begins with it, then the keys are encoded and dropped as they leave.
//! Pure; the connection decides when the next piece is due. Other answers never come here.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encoded_len_varint, key_len, message};

use super::convert::{self, FRAME_PREFIX_BYTES};
use super::pb::etcdserverpb as pb;
use super::status::Status;
use crate::base::limits::{ANSWER_VALUE_SHARED_BYTES_MIN, EDGE_PIECE_BYTES, EDGE_PIECE_KEYS_MAX};
use crate::keyspace::request::{DeleteRangeResponse, KeyValue, RangeResponse};
use crate::shard::event::{Header, Identity, Response};

/// The number of the field that holds the keys, in the answers to ranges.
const RANGE_KVS_TAG: u32 = 2;
/// The same in the answers to deletions.
const DELETE_RANGE_PREV_KVS_TAG: u32 = 3;

/// An answer whose keys have not all been encoded.
pub(super) struct Large {
    /// The fields before the keys, encoded.
    before: Vec<u8>,
    /// The keys that are left.
    kvs: std::vec::IntoIter<KeyValue>,
    /// The field they are in.
    kvs_tag: u32,
    /// The fields after the keys, encoded.
    after: Vec<u8>,
    /// Keys that have been measured.
    measured: usize,
    /// Memory that only this answer holds, as far as it has been measured: values that are shared with
    /// the keyspace cost nothing here.
    own_bytes: usize,
    /// The bytes of what has been measured; once it all has, those that are left, prefix included.
    size_bytes: usize,
}

impl Large {
    /// Takes an answer that is large; gives any other back.
    pub(super) fn take(
        identity: &Identity,
        header: &Header,
        response: Response,
    ) -> Result<Large, Response> {
        match response {
            Response::Range(response) if is_large(&response.kvs) => {
                let before = pb::RangeResponse {
                    header: convert::header(identity, header),
                    ..pb::RangeResponse::default()
                };
                let RangeResponse { kvs, more, count } = response;
                let after = pb::RangeResponse {
                    more,
                    count,
                    ..pb::RangeResponse::default()
                };
                Ok(Large::new(&before, kvs, RANGE_KVS_TAG, &after))
            }
            Response::DeleteRange(response) if is_large(&response.prev_kvs) => {
                let DeleteRangeResponse { deleted, prev_kvs } = response;
                let before = pb::DeleteRangeResponse {
                    header: convert::header(identity, header),
                    deleted,
                    ..pb::DeleteRangeResponse::default()
                };
                let after = pb::DeleteRangeResponse::default();
                Ok(Large::new(
                    &before,
                    prev_kvs,
                    DELETE_RANGE_PREV_KVS_TAG,
                    &after,
                ))
            }
            other => Err(other),
        }
    }

    fn new<M: Message>(before: &M, kvs: Vec<KeyValue>, kvs_tag: u32, after: &M) -> Large {
        let (before, after) = (before.encode_to_vec(), after.encode_to_vec());
        Large {
            size_bytes: before.len() + after.len(),
            before,
            own_bytes: kvs.len() * size_of::<KeyValue>(),
            kvs: kvs.into_iter(),
            kvs_tag,
            after,
            measured: 0,
        }
    }

    /// Measures some keys. True once all are.
    ///
    /// # Errors
    /// The status for an answer that is too large for gRPC.
    pub(super) fn measure(&mut self) -> Result<bool, Status> {
        let rest = &self.kvs.as_slice()[self.measured..];
        let piece = &rest[..rest.len().min(EDGE_PIECE_KEYS_MAX)];
        for kv in piece {
            let size = convert::key_value_size(kv);
            self.own_bytes += own_bytes(kv);
            self.size_bytes += key_len(self.kvs_tag) + encoded_len_varint(size as u64) + size;
        }
        self.measured += piece.len();
        if piece.len() < rest.len() {
            return Ok(false);
        }
        let prefix = convert::frame_prefix(self.size_bytes)?;
        self.before.splice(0..0, prefix);
        self.size_bytes += FRAME_PREFIX_BYTES;
        Ok(true)
    }

    /// Memory that goes when this answer has left.
    pub(super) fn held_bytes(&self) -> usize {
        self.own_bytes
    }

    /// Bytes that have not been encoded.
    pub(super) fn left_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Encodes the next piece of a measured answer; empty when there is none.
    pub(super) fn next_piece(&mut self) -> Bytes {
        let capacity = self.size_bytes.min(EDGE_PIECE_BYTES + EDGE_PIECE_BYTES / 4);
        let mut piece = BytesMut::with_capacity(capacity);
        piece.put_slice(&std::mem::take(&mut self.before));
        for _ in 0..EDGE_PIECE_KEYS_MAX {
            if piece.len() >= EDGE_PIECE_BYTES {
                break;
            }
            let Some(kv) = self.kvs.next() else { break };
            self.own_bytes -= own_bytes(&kv);
            message::encode(self.kvs_tag, &convert::key_value(kv), &mut piece);
        }
        if self.kvs.as_slice().is_empty() {
            piece.put_slice(&std::mem::take(&mut self.after));
            assert_eq!(piece.len(), self.size_bytes, "the size was announced");
        }
        self.size_bytes -= piece.len();
        piece.freeze()
    }
}

/// What an answer copied for this key, beside the fields themselves.
fn own_bytes(kv: &KeyValue) -> usize {
    let shared = kv.value.len() >= ANSWER_VALUE_SHARED_BYTES_MIN;
    kv.key.len() + if shared { 0 } else { kv.value.len() }
}

/// Whether encoding these would hold up the core. One key is as small as a request.
fn is_large(kvs: &[KeyValue]) -> bool {
    let size = |kv: &KeyValue| kv.key.len() + kv.value.len();
    kvs.len() > EDGE_PIECE_KEYS_MAX
        || (kvs.len() > 1 && kvs.iter().map(size).sum::<usize>() > EDGE_PIECE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ClusterId, LeaseId, MemberId, Term};

    const IDENTITY: Identity = Identity {
        cluster: ClusterId(1),
        member: MemberId(2),
    };
    const HEADER: Header = Header {
        revision: 7,
        term: Term(3),
    };

    fn kvs(count: usize, value_bytes: usize) -> Vec<KeyValue> {
        let kv = |number: usize| KeyValue {
            key: format!("key-{number}").into(),
            create_revision: number as i64,
            mod_revision: 1 << (number % 63),
            version: (number % 3) as i64 - 1,
            value: vec![
                7;
                if number.is_multiple_of(5) {
                    0
                } else {
                    value_bytes
                }
            ]
            .into(),
            lease: LeaseId(number as i64 % 2),
        };
        (0..count).map(kv).collect()
    }

    /// Goal: the pieces joined are the bytes that encoding at once gives, and no piece is too large.
    #[track_caller]
    fn check(response: Response, whole: &Bytes, pieces_min: usize) {
        let Ok(mut large) = Large::take(&IDENTITY, &HEADER, response) else {
            panic!("not large")
        };
        while !large.measure().unwrap() {}
        assert_eq!(large.left_bytes(), whole.len());
        let mut joined = BytesMut::new();
        let mut pieces = 0;
        while large.left_bytes() > 0 {
            let piece = large.next_piece();
            assert!(!piece.is_empty() && piece.len() < 2 * EDGE_PIECE_BYTES);
            joined.extend_from_slice(&piece);
            pieces += 1;
        }
        assert!(pieces >= pieces_min, "{pieces} pieces");
        assert!(joined == whole, "the bytes differ");
    }

    /// Goal: answers to ranges and deletions, with many small keys and with few large ones.
    #[test]
    fn pieces_are_the_whole() {
        for (count, value_bytes, pieces_min) in [(10_000, 3, 5), (2_049, 0, 2), (40, 100_000, 10)] {
            let range = RangeResponse {
                kvs: kvs(count, value_bytes),
                more: true,
                count: 1 << 40,
            };
            let header = convert::header(&IDENTITY, &HEADER);
            let message = convert::range_response(header, range.clone());
            let whole = convert::frame(&message).unwrap();
            check(Response::Range(range), &whole, pieces_min);

            let deleted = DeleteRangeResponse {
                deleted: count as i64,
                prev_kvs: kvs(count, value_bytes),
            };
            let message = convert::delete_range_response(header, deleted.clone());
            let whole = convert::frame(&message).unwrap();
            check(Response::DeleteRange(deleted), &whole, pieces_min);
        }
    }

    /// Goal: what is encoded in no time stays where it was.
    #[test]
    fn others_are_given_back() {
        for kvs in [
            kvs(2_048, 10),
            kvs(2, 100_000),
            kvs(2, 1_000_000).split_off(1),
        ] {
            let response = Response::Range(RangeResponse {
                kvs,
                ..RangeResponse::default()
            });
            assert!(Large::take(&IDENTITY, &HEADER, response).is_err());
        }
        assert!(Large::take(&IDENTITY, &HEADER, Response::Compact).is_err());
    }
}
