//! The Admin service, our own: on what linearizable reads rest.
//!
//! Pure functions, on the connection's core.

use bytes::Bytes;

use super::form;
use super::pb::etcdserverpb::ResponseHeader;
use super::pb::kontiki as pb;
use super::status::{self, Status};
use crate::raft::ReadMode;
use crate::shard::event::{MembershipRequest, Request};

/// Decodes a question for the mode.
///
/// # Errors
/// The status the client gets.
pub fn parse_read_mode(message: Bytes) -> Result<Request, Status> {
    let pb::ReadModeRequest {} = form::decode(message)?;
    Ok(Request::ReadMode)
}

/// Decodes a change of the mode.
///
/// # Errors
/// The status the client gets.
pub fn parse_set_read_mode(message: Bytes) -> Result<Request, Status> {
    let request: pb::SetReadModeRequest = form::decode(message)?;
    let mode = mode(request.mode).ok_or(status::UNKNOWN_READ_MODE)?;
    Ok(Request::Membership(MembershipRequest::ReadMode(mode)))
}

/// The answer to both.
#[must_use]
pub fn read_mode_response(header: Option<ResponseHeader>, mode: ReadMode) -> pb::ReadModeResponse {
    pb::ReadModeResponse {
        header,
        mode: number(mode),
    }
}

/// A mode as its message has it.
#[must_use]
pub fn number(mode: ReadMode) -> i32 {
    match mode {
        ReadMode::Quorum => pb::ReadMode::Index,
        ReadMode::Lease => pb::ReadMode::Lease,
    }
    .into()
}

/// The mode that a message names; none for a number that names none.
#[must_use]
pub fn mode(number: i32) -> Option<ReadMode> {
    match pb::ReadMode::try_from(number) {
        Ok(pb::ReadMode::Index) => Some(ReadMode::Quorum),
        Ok(pb::ReadMode::Lease) => Some(ReadMode::Lease),
        Ok(pb::ReadMode::Unspecified) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Goal: a wish names a mode, or is refused: one that names none must not switch anything.
    #[test]
    fn wishes() {
        let check = |mode: i32, expected: Option<ReadMode>| {
            let message = pb::SetReadModeRequest { mode }.encode_to_vec();
            match (parse_set_read_mode(message.into()), expected) {
                (Ok(Request::Membership(MembershipRequest::ReadMode(mode))), Some(expected)) => {
                    assert_eq!(mode, expected);
                    assert_eq!(super::mode(number(mode)), Some(mode));
                }
                (Err(status), None) => assert_eq!(status, status::UNKNOWN_READ_MODE),
                (other, _) => panic!("{mode}: {other:?}"),
            }
        };
        check(1, Some(ReadMode::Quorum));
        check(2, Some(ReadMode::Lease));
        for nothing in [0, 3, -1] {
            check(nothing, None);
        }
    }
}
