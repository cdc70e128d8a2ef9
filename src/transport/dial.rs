//! Connecting to a peer, again and again: quickly at first, then with longer and random pauses.
//!
//! Owns the attempts for one path to one peer. Names are resolved at each attempt, for a peer may come back
//! somewhere else.

use std::io;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use super::Shared;
use super::greet::{GreetError, Greeted, complain_of_link, greet};
use super::hello::Path;
use super::link::LinkError;
use crate::base::MemberId;
use crate::base::limits::PEER_SETTLED;
use crate::base::prng::Prng;
use crate::base::url::{Url, UrlFault};
use crate::runtime::clock::Clock;
use crate::runtime::executor::{Elapsed, sleep, timeout};
use crate::runtime::peer_socket::{PeerSocket, resolve};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    /// Not `http://host:port`.
    #[error(transparent)]
    Url(#[from] UrlFault),
    /// The name has no address now.
    #[error("cannot resolve the name: {0}")]
    Resolve(io::Error),
    /// The kernel does not answer in time.
    #[error("no connection within {:?}", .0.0)]
    Late(#[from] Elapsed),
    /// The kernel's answer, or what came of the greeting.
    #[error(transparent)]
    Greet(#[from] GreetError),
}

/// Pauses between attempts: each about twice the last, none the same for two members.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    min: Duration,
    max: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Backoff {
        Backoff {
            next: min,
            min,
            max,
        }
    }

    /// Between half of the present pause and all of it.
    fn pause(&mut self, random: &mut Prng) -> Duration {
        let longest = u64::try_from(self.next.as_nanos()).unwrap_or(u64::MAX);
        self.next = (2 * self.next).min(self.max);
        let half = longest / 2;
        Duration::from_nanos(half + random.below(longest - half + 1))
    }

    fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Keeps a connection to `peer` for `path`, until it is dropped.
pub(super) async fn dial(shared: Weak<Shared>, peer: MemberId, path: Path, urls: Vec<String>) {
    let Some(mut backoff) = shared.upgrade().map(|shared| {
        let config = &shared.config;
        Backoff::new(config.reconnect_min, config.reconnect_max)
    }) else {
        return;
    };
    let clock = Clock::new();
    for url in urls.iter().cycle() {
        let Some(present) = shared.upgrade() else {
            return;
        };
        wanted(&present, peer, path).await;
        match attempt(&present, peer, path, url).await {
            Ok(greeted) => {
                if path == Path::Ordered {
                    tracing::info!(%peer, %url, "connected to peer");
                } else {
                    tracing::debug!(%peer, %path, %url, "connected to peer");
                }
                let since = clock.now();
                let error = greeted.run(&present).await;
                if clock.now().since(since) >= PEER_SETTLED {
                    backoff.reset();
                }
                if !matches!(error, LinkError::Closed) {
                    complain_of_link(&present, peer, &error);
                }
            }
            Err(error) => {
                let mut table = present.table.borrow_mut();
                // Each path would say the same.
                if table
                    .complaints
                    .is_new(Some(peer), format!("{url}: {error}"))
                {
                    tracing::warn!(%peer, %url, reason = %error, "cannot connect to peer, retrying");
                }
            }
        }
        let pause = backoff.pause(&mut present.random.borrow_mut());
        drop(present);
        sleep(pause).await;
    }
}

/// Completes when a connection for `path` is wanted: always, but for the one that carries checkpoints.
async fn wanted(shared: &Rc<Shared>, peer: MemberId, path: Path) {
    std::future::poll_fn(|cx| {
        if shared.table.borrow_mut().is_wanted(peer, path, cx.waker()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// One attempt at one URL: each of its addresses in turn.
async fn attempt(
    shared: &Shared,
    peer: MemberId,
    path: Path,
    url: &str,
) -> Result<Greeted, DialError> {
    let url = Url::parse(url)?;
    let addresses = resolve(url.host(), url.port())
        .await
        .map_err(DialError::Resolve)?;
    let mut last = DialError::Resolve(io::ErrorKind::NotFound.into());
    for address in addresses {
        let connecting = PeerSocket::connect(address, shared.config.silence_max);
        last = match timeout(shared.config.connect_timeout, connecting).await {
            Ok(Ok(socket)) => match greet(shared, socket, peer, path).await {
                Ok(greeted) => return Ok(greeted),
                Err(error) => error.into(),
            },
            Ok(Err(error)) => GreetError::Io(error).into(),
            Err(elapsed) => elapsed.into(),
        };
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: pauses double up to their bound, each with its own chance, and begin anew.
    #[test]
    fn pauses() {
        let ms = Duration::from_millis;
        let mut random = Prng::from_seed(1);
        let mut backoff = Backoff::new(ms(2), ms(250));
        let mut bound = ms(2);
        for _ in 0..20 {
            let pause = backoff.pause(&mut random);
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?} {bound:?}");
            bound = (2 * bound).min(ms(250));
        }
        backoff.reset();
        assert!(backoff.pause(&mut random) <= ms(2));
        assert_ne!(backoff.pause(&mut random), backoff.pause(&mut random));
    }
}
