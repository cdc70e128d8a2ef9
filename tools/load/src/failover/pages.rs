//! Reading everything that is stored under a prefix, page by page.
//!
//! Owns how such a read is taken up again. Must never mix revisions: all pages are of that of the first one. Blocks the
//! calling thread.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::messages::{RANGE, RangeRequest, RangeResponse};

/// Keys of one page.
const PAGE_KEYS: i64 = 5_000;
/// How often a read of everything is tried: a member may still be busy with its own return.
const ATTEMPTS_MAX: usize = 10;
/// Between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(3);

/// One answer of a read of everything.
pub(super) struct Page {
    pub(super) request: RangeRequest,
    pub(super) answer: RangeResponse,
    /// Before it was sent, and after it was answered.
    pub(super) times: (Instant, Instant),
}

/// Everything under the prefix, by linearizable reads at one revision, through the first of `addresses` that answers them
/// all; at least one page.
pub(super) fn read_back(addresses: &[SocketAddr], prefix: &str) -> Result<Vec<Page>, CallError> {
    let mut attempt = 0;
    loop {
        let address = addresses[attempt % addresses.len()];
        attempt += 1;
        match block_on(read_pages(address, prefix)) {
            Ok(pages) => return Ok(pages),
            Err(error) if attempt == ATTEMPTS_MAX => return Err(error),
            Err(_) => std::thread::sleep(ATTEMPT_PAUSE),
        }
    }
}

async fn read_pages(address: SocketAddr, prefix: &str) -> Result<Vec<Page>, CallError> {
    let client = Client::connect(address)
        .await
        .map_err(|error| CallError::Broken(error.to_string()))?;
    let mut pages = Vec::new();
    let mut end = prefix.as_bytes().to_vec();
    // The prefix ends with a slash, so that its last byte has a successor.
    *end.last_mut().expect("a prefix is not empty") += 1;
    let mut request = RangeRequest {
        key: prefix.to_owned().into(),
        range_end: end.into(),
        limit: PAGE_KEYS,
        revision: 0,
    };
    loop {
        let invoked = Instant::now();
        let answer: RangeResponse = client.call(RANGE, &request).await?;
        let times = (invoked, Instant::now());
        let mut next = request.clone();
        let rest = answer.kvs.last().filter(|_| answer.more).map(|last| {
            let mut after = last.key.to_vec();
            after.push(0);
            after
        });
        let revision = answer.header.map_or(0, |header| header.revision);
        pages.push(Page {
            request,
            answer,
            times,
        });
        let Some(rest) = rest else {
            return Ok(pages);
        };
        next.key = rest.into();
        next.revision = match next.revision {
            0 => revision,
            at => at,
        };
        request = next;
    }
}
