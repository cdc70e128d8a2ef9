//! Who asked, and what is said to them.

use super::event::{Answer, ClientRequest, Header, Refusal, Request, Response, Ticket};
use crate::base::{Index, Instant, MemberId};

/// Where a request came from and its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of this member.
    Client(Ticket),
    /// A client of another member, which forwarded the request.
    Member {
        /// Which member.
        member: MemberId,
        /// That member's number for it.
        request: u64,
    },
}

/// A request that was taken and not yet answered.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Who.
    pub(super) asker: Asker,
    /// When the client, or the server's own limit, gives up.
    pub(super) deadline: Instant,
    /// What.
    pub(super) request: Request,
}

impl From<ClientRequest> for Ask {
    fn from(request: ClientRequest) -> Ask {
        Ask {
            asker: Asker::Client(request.ticket),
            deadline: request.deadline,
            request: request.request,
        }
    }
}

/// What is said to an asker.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// To whom.
    pub(super) asker: Asker,
    /// What must be committed where the asker's connection is, before it is said.
    pub(super) index: Index,
    /// For the response header.
    pub(super) header: Header,
    /// The answer itself.
    pub(super) result: Result<Response, Refusal>,
}

impl Reply {
    /// As a client of this member gets it.
    pub(super) fn into_answer(self, ticket: Ticket) -> Answer {
        Answer {
            ticket,
            header: self.header,
            result: self.result,
        }
    }
}
