//! Compacting the store under load, through the public API, so that a long run of puts over few keys stays small.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use kontiki_harness::client::{CallError, Client, block_on};
use kontiki_harness::messages::{COMPACT, CompactionRequest, CompactionResponse};
use serde::{Deserialize, Serialize};

/// So many revisions below the newest one that was seen stay readable.
pub const KEPT_REVISIONS: i64 = 10_000;
/// Patience with one compaction.
const PATIENCE: Duration = Duration::from_secs(30);

/// The compactions of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compactions {
    /// That were acknowledged.
    pub done: u64,
    /// The highest revision of them.
    pub revision: i64,
    /// That failed, or were not acknowledged in time.
    pub failed: u64,
    /// What the first of these said.
    pub first_failure: Option<String>,
}

/// Compacts at every interval through another member, until `end` is dropped. `newest` is the newest revision that was seen.
pub(super) fn compact_all_the_time(
    addresses: &[SocketAddr],
    every: Duration,
    newest: &AtomicI64,
    end: &Receiver<()>,
) -> Compactions {
    let mut compactions = Compactions::default();
    let mut turn = 0;
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(every) {
        let last = compactions.revision;
        let Some(revision) = due(newest.load(Ordering::Relaxed), last) else {
            continue;
        };
        let address = addresses[turn % addresses.len()];
        turn += 1;
        match block_on(compact(address, revision)) {
            Ok(()) => {
                compactions.done += 1;
                compactions.revision = revision;
            }
            Err(error) => {
                compactions.failed += 1;
                let first = &mut compactions.first_failure;
                first.get_or_insert_with(|| error.to_string());
            }
        }
    }
    compactions
}

/// Where to compact; nowhere if nothing would go.
fn due(newest: i64, last: i64) -> Option<i64> {
    Some(newest - KEPT_REVISIONS).filter(|revision| *revision > last)
}

async fn compact(address: SocketAddr, revision: i64) -> Result<(), CallError> {
    let asked = async {
        let client = Client::connect(address)
            .await
            .map_err(|error| CallError::Broken(error.to_string()))?;
        let request = CompactionRequest {
            revision,
            physical: false,
        };
        client
            .call::<CompactionResponse>(COMPACT, &request)
            .await
            .map(drop)
    };
    let late = |_| CallError::Broken(format!("no answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, asked).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: some revisions stay, and nothing is asked that the server would refuse as done.
    #[test]
    fn where_to_compact() {
        let check = |newest, last, expected| assert_eq!(due(newest, last), expected);
        check(0, 0, None);
        check(KEPT_REVISIONS, 0, None);
        check(KEPT_REVISIONS + 1, 0, Some(1));
        check(KEPT_REVISIONS + 5, 5, None);
        check(KEPT_REVISIONS + 6, 5, Some(6));
    }
}
