//! Cross-core wakes under stress: the executor may lose one, the heartbeat must find it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kontiki::base::limits::{HEARTBEAT_BUSY, HEARTBEAT_IDLE};
use kontiki::base::prng::Prng;
use kontiki::runtime::clock::Clock;
use kontiki::runtime::executor::{sleep, yield_if_needed};
use kontiki::runtime::mailbox::{Receiver, Sender, mailbox};
use kontiki::runtime::placement::{Core, CoreRequest, Ready, choose, start};

/// Seconds to run; continuous integration sets more.
const DURATION_VARIABLE: &str = "KONTIKI_WAKES_SECONDS";
const DURATION_SECONDS: u64 = 5;
/// On top of the heartbeat's period: descheduling on a shared machine. A lost wake-up without a heartbeat
/// would stall for ever.
const NOISE: Duration = Duration::from_millis(200);

/// What one side of the ping-pong needs.
struct Side {
    first: bool,
    to_peer: Sender<u64>,
    from_peer: Receiver<u64>,
    worst_nanos: Arc<AtomicU64>,
    rounds: Arc<AtomicU64>,
    span: Duration,
}

/// Goal: millions of wakes of a parked core, at random gaps, without a stall beyond the heartbeat's bound.
#[test]
fn no_wake_is_lost() {
    let seconds = std::env::var(DURATION_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(DURATION_SECONDS);
    let allowed = choose(&CoreRequest::All).expect("cores");
    // With one CPU both executors share it: slower, but the same races.
    let cpus = [allowed[0], *allowed.last().expect("at least one")];
    let (to_second, from_first) = mailbox(4);
    let (to_first, from_second) = mailbox(4);
    let worst_nanos = Arc::new(AtomicU64::new(0));
    let rounds = Arc::new(AtomicU64::new(0));
    let side = |first, to_peer, from_peer| Side {
        first,
        to_peer,
        from_peer,
        worst_nanos: Arc::clone(&worst_nanos),
        rounds: Arc::clone(&rounds),
        span: Duration::from_secs(seconds),
    };
    let sides = [
        side(true, to_second, from_second),
        side(false, to_first, from_first),
    ];
    let places = cpus.into_iter().zip(sides).collect();
    start(places, None, play).expect("two cores").join();

    let worst = Duration::from_nanos(worst_nanos.load(Ordering::Relaxed));
    let rounds = rounds.load(Ordering::Relaxed);
    println!("{rounds} round trips, the longest took {worst:?}");
    assert!(rounds > 100, "{rounds} round trips only");
    // A round trip has two wakes, and each may be lost.
    let bound = 2 * HEARTBEAT_IDLE + HEARTBEAT_BUSY + NOISE;
    assert!(
        worst < bound,
        "stalled for {worst:?}, the bound is {bound:?}"
    );
}

async fn play(_core: Core, mut side: Side, ready: Ready) {
    ready.succeed();
    if side.first {
        lead(side).await;
    } else {
        while let Some(number) = side.from_peer.receive().await {
            if side.to_peer.send(number).is_err() {
                return;
            }
        }
    }
}

/// Sends one message at a time, after a random gap, and takes the time until it is back.
async fn lead(mut side: Side) {
    let clock = Clock::new();
    let mut random = Prng::from_seed(1);
    let started = clock.now();
    let mut worst = Duration::ZERO;
    let mut number = 0;
    loop {
        let sent = clock.now();
        if sent.since(started) > side.span {
            break;
        }
        number += 1;
        side.to_peer.send(number).expect("one message at a time");
        assert_eq!(side.from_peer.receive().await, Some(number));
        worst = worst.max(clock.now().since(sent));
        match random.below(4) {
            // At once: the peer has just fallen asleep or is about to.
            0 => {}
            // Busy for a moment: the peer sleeps deeply.
            1 | 2 => {
                let until = clock.now() + Duration::from_micros(random.below(150));
                while clock.now() < until {
                    yield_if_needed().await;
                }
            }
            _ => sleep(Duration::from_micros(random.below(300))).await,
        }
    }
    let nanos = u64::try_from(worst.as_nanos()).expect("less than centuries");
    side.worst_nanos.store(nanos, Ordering::Relaxed);
    side.rounds.store(number, Ordering::Relaxed);
}
