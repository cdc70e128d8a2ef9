//! Mail between cores: a bounded queue of batches with a doorbell.
//!
//! Owns one queue per receiver. Senders may be other cores or plain threads and never wait: a full
//! mailbox gives the batch back, and that is the back-pressure. The bell is rung only when the receiver has
//! said that it sleeps, so a turn that sends many batches wakes it once; a wake of a parked core is what
//! mail costs (about 30 us on a virtual machine), the queue itself is not measurable beside it.
//!
//! ```text
//! sender:    push, fence, asleep? -> ring once        receiver:  pop; empty? -> register waker,
//!                                                                set asleep, fence, pop again; pend
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

/// Between two attempts of a thread to send to a mailbox that is full.
const SEND_RETRY: Duration = Duration::from_millis(1);

struct Shared<T> {
    queue: ArrayQueue<T>,
    /// Set by the receiver before it pends, taken by the sender that rings.
    asleep: CachePadded<AtomicBool>,
    bell: AtomicWaker,
    /// Senders that exist; at zero the receiver learns that no mail will come.
    senders: AtomicUsize,
    /// The receiver is gone: mail is given back.
    closed: AtomicBool,
}

/// Makes a mailbox of at most `batches_max` batches.
#[must_use]
pub fn mailbox<T>(batches_max: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(batches_max),
        asleep: CachePadded::new(AtomicBool::new(false)),
        bell: AtomicWaker::new(),
        senders: AtomicUsize::new(1),
        closed: AtomicBool::new(false),
    });
    let sender = Sender {
        shared: Arc::clone(&shared),
    };
    (sender, Receiver { shared })
}

/// Why a batch came back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// The receiver is behind: slow down or refuse.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

impl<T> SendError<T> {
    /// The batch that was not sent.
    pub fn into_batch(self) -> T {
        match self {
            SendError::Full(batch) | SendError::Closed(batch) => batch,
        }
    }
}

/// The sending side, for any thread; clones send to the same receiver.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Puts one batch into the queue and rings if the receiver sleeps.
    ///
    /// # Errors
    /// The batch itself, when the queue is full or the receiver is gone.
    pub fn send(&self, batch: T) -> Result<(), SendError<T>> {
        self.post(batch)?;
        self.ring();
        Ok(())
    }

    /// Puts one batch into the queue without ringing: for senders that ring once at the end of
    /// their turn. What is posted and never followed by [`Sender::ring`] may lie there.
    ///
    /// # Errors
    /// The batch itself, when the queue is full or the receiver is gone.
    pub fn post(&self, batch: T) -> Result<(), SendError<T>> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(SendError::Closed(batch));
        }
        self.shared.queue.push(batch).map_err(SendError::Full)
    }

    /// Sends, and waits as long as the mailbox is full. For plain threads: a core must not wait. False when
    /// the receiver is gone.
    pub fn send_waiting(&self, mut batch: T) -> bool {
        loop {
            match self.send(batch) {
                Ok(()) => return true,
                Err(SendError::Closed(_)) => return false,
                Err(SendError::Full(back)) => batch = back,
            }
            std::thread::park_timeout(SEND_RETRY);
        }
    }

    /// Wakes the receiver if it sleeps.
    pub fn ring(&self) {
        // Either this sees `asleep`, or the receiver's second look sees the batch.
        fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::Relaxed)
            && self.shared.asleep.swap(false, Ordering::AcqRel)
        {
            self.shared.bell.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Sender {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ring();
        }
    }
}

/// The receiving side: one task of one core.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The next batch if one is there.
    pub fn try_receive(&mut self) -> Option<T> {
        self.shared.queue.pop()
    }

    /// The next batch; `None` once every sender is gone and the queue is empty.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(batch) = self.shared.queue.pop() {
            return Poll::Ready(Some(batch));
        }
        self.shared.bell.register(cx.waker());
        self.shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // The count first: a sender's last batch is in the queue before the sender is gone.
        let over = self.shared.senders.load(Ordering::Acquire) == 0;
        match self.shared.queue.pop() {
            Some(batch) => {
                self.shared.asleep.store(false, Ordering::Relaxed);
                Poll::Ready(Some(batch))
            }
            None if over => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Waits for the next batch; `None` once every sender is gone and the queue is empty.
    /// Dropping the future loses nothing.
    pub async fn receive(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        // Batches may hold connections or tickets whose owners wait for them to be dropped.
        while self.shared.queue.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::task::{Wake, Waker};
    use std::thread::{self, Thread};

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicU32);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Goal: a full mailbox gives the batch back, in order of arrival nothing is lost, a closed one says so.
    #[test]
    fn bounds_and_order() {
        let (sender, mut receiver) = mailbox(2);
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(sender.send(2), Ok(()));
        assert_eq!(sender.send(3), Err(SendError::Full(3)));
        assert_eq!(receiver.try_receive(), Some(1));
        assert_eq!(sender.send(3), Ok(()));
        assert_eq!(receiver.try_receive(), Some(2));
        assert_eq!(receiver.try_receive(), Some(3));
        assert_eq!(receiver.try_receive(), None);
        drop(receiver);
        assert_eq!(sender.send(4), Err(SendError::Closed(4)));
        assert_eq!(SendError::Closed(4).into_batch(), 4);
    }

    /// Goal: one wake for many batches, none while the receiver is awake, one when the last sender goes.
    #[test]
    fn one_wake_per_sleep() {
        let count = Arc::new(CountingWaker::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let wakes = || count.0.load(Ordering::Relaxed);
        let (sender, mut receiver) = mailbox(8);
        sender.send('a').expect("room");
        assert_eq!(wakes(), 0, "nobody sleeps yet");
        assert_eq!(receiver.poll_receive(&mut cx), Poll::Ready(Some('a')));
        assert_eq!(receiver.poll_receive(&mut cx), Poll::Pending);
        let other = sender.clone();
        for sender in [&sender, &other, &sender] {
            sender.send('b').expect("room");
        }
        assert_eq!(wakes(), 1);
        for _ in 0..3 {
            assert_eq!(receiver.poll_receive(&mut cx), Poll::Ready(Some('b')));
        }
        assert_eq!(receiver.poll_receive(&mut cx), Poll::Pending);
        drop(other);
        assert_eq!(wakes(), 1, "one sender is left");
        drop(sender);
        assert_eq!(wakes(), 2);
        assert_eq!(receiver.poll_receive(&mut cx), Poll::Ready(None));
    }

    /// Posts a batch when it is dropped, which is while the receiver registers its next waker: after its
    /// first look into the queue, before it has said that it sleeps.
    struct PostsLate(Sender<char>);

    impl Wake for PostsLate {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for PostsLate {
        fn drop(&mut self) {
            // As a sender whose ring still sees an awake receiver: nobody will ring for this one.
            self.0.post('z').expect("room");
        }
    }

    /// Goal: a batch that arrives while the receiver falls asleep, and for which nobody rings, is found.
    #[test]
    fn second_look() {
        let (sender, mut receiver) = mailbox(1);
        let late = Waker::from(Arc::new(PostsLate(sender)));
        assert_eq!(
            receiver.poll_receive(&mut Context::from_waker(&late)),
            Poll::Pending
        );
        drop(late);
        let next = Waker::from(Arc::new(CountingWaker::default()));
        let mut cx = Context::from_waker(&next);
        assert_eq!(receiver.poll_receive(&mut cx), Poll::Ready(Some('z')));
        assert_eq!(receiver.poll_receive(&mut cx), Poll::Ready(None));
    }

    /// Goal: under threads that race with the receiver's falling asleep no batch and no wake is lost.
    #[test]
    fn threads_stress() {
        const SENDERS: u64 = 3;
        const BATCHES: u64 = 20_000;
        let (sender, mut receiver) = mailbox(16);
        let threads: Vec<_> = (0..SENDERS)
            .map(|source| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for number in 0..BATCHES {
                        let mut batch = (source, number);
                        while let Err(error) = sender.send(batch) {
                            batch = error.into_batch();
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        let mut next = [0; SENDERS as usize];
        loop {
            match receiver.poll_receive(&mut cx) {
                Poll::Ready(Some((source, number))) => {
                    let source = usize::try_from(source).expect("small");
                    assert_eq!(number, next[source], "order of each sender is kept");
                    next[source] += 1;
                }
                Poll::Ready(None) => break,
                Poll::Pending => thread::park(),
            }
        }
        assert_eq!(next, [BATCHES; SENDERS as usize]);
        for thread in threads {
            thread.join().expect("sent all");
        }
    }
}
