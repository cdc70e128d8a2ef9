//! The peers of a shard and the connections to each of them.
//!
//! Every peer is connected to, over one connection for each [`Path`], and connects to us as well. Of the two
//! connections that then exist both sides use the one that the member with the lower id has opened, while
//! it is there; the other stands by. So neither waits for the other after a restart, both need only one to be
//! possible, and they never argue. When the one in use ends, the shard is told that what was under way is
//! lost. What one that was in use before still has to send is lost without a word when it ends first: consensus
//! says it again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::Waker;

use super::hello::{Admission, Path, Refusal};
use super::inbox::Inbox;
use super::link::{Link, LinkShares, LinkTerms, LongFrame};
use super::outgoing::{Waiting, path_of};
use super::{TransportEvent, TransportStats};
use crate::base::MemberId;
use crate::base::limits::{PEER_COMPLAINTS_MAX, PEER_STRANGERS_MAX};
use crate::raft::Directories;
use crate::runtime::executor::Task;
use crate::shard::event::PeerMessage;

/// Everything about peers. Never borrowed across a wait or while a task is started.
#[derive(Default)]
pub(super) struct Table {
    pub(super) peers: BTreeMap<MemberId, Peer>,
    pub(super) admission: Admission,
    /// Connections that have not said who they are.
    pub(super) handshakes: usize,
    pub(super) complaints: Complaints,
    pub(super) stats: TransportStats,
    /// For directories that are not known.
    long_frame: LongFrame,
}

/// One other member.
#[derive(Default)]
pub(super) struct Peer {
    /// Where it is to be found; `None` for one that only connects to us.
    pub(super) urls: Option<Vec<String>>,
    /// The tasks that connect to it.
    pub(super) dialers: Vec<Task<()>>,
    lanes: [Lane; Path::ALL.len()],
    /// The shard knows that a connection ended, and nothing was heard since.
    lost: Rc<Cell<bool>>,
    /// Something was put in since the last flush.
    is_dirty: bool,
}

/// The connections of one path.
#[derive(Default)]
struct Lane {
    waiting: Rc<RefCell<Waiting>>,
    dialed: Option<Rc<Link>>,
    accepted: Option<Rc<Link>>,
    /// Who connects when something waits.
    wanted: Option<Waker>,
}

fn lane_of(path: Path) -> usize {
    path as usize - 1
}

impl Lane {
    fn slot(&mut self, dialed: bool) -> &mut Option<Rc<Link>> {
        if dialed {
            &mut self.dialed
        } else {
            &mut self.accepted
        }
    }

    fn links(&self) -> impl Iterator<Item = &Rc<Link>> {
        self.dialed.iter().chain(&self.accepted)
    }

    /// The connection that messages go over.
    fn current(&self) -> Option<&Rc<Link>> {
        self.links().find(|link| link.in_use.get())
    }

    /// Chooses it again.
    fn choose(&mut self, path: Path, prefer_dialed: bool) {
        let (first, second) = if prefer_dialed {
            (&self.dialed, &self.accepted)
        } else {
            (&self.accepted, &self.dialed)
        };
        let chosen = first.as_ref().or(second.as_ref());
        for link in self.links() {
            link.in_use
                .set(chosen.is_some_and(|chosen| Rc::ptr_eq(chosen, link)));
        }
        match chosen {
            Some(link) => link.flush(),
            // A checkpoint waits for its connection; what else there was would come late and confuse.
            None if path != Path::Bulk => self.waiting.borrow_mut().clear(),
            None => {}
        }
    }
}

impl Table {
    /// Whether a member that connects to us may, as far as it depends on who is known.
    pub(super) fn admit(&self, member: MemberId) -> Result<(), Refusal> {
        if self.peers.contains_key(&member) {
            return Ok(());
        }
        if !self.admission.hear_strangers {
            return Err(Refusal::Stranger);
        }
        let strangers = self.peers.values().filter(|peer| peer.urls.is_none());
        if strangers.count() >= PEER_STRANGERS_MAX {
            return Err(Refusal::TooMany);
        }
        Ok(())
    }

    /// Follows what the shard knows now.
    pub(super) fn set_admission(&mut self, admission: Admission) {
        for link in self.peers.values().flat_map(Peer::links) {
            let terms = &link.terms;
            let directories = &admission.directories;
            if !directories.admit(terms.peer, terms.incarnation, terms.agreed) {
                // Its task takes it out.
                link.close();
            }
        }
        for peer in self.peers.values() {
            peer.judge_links(&admission.directories);
        }
        self.admission = admission;
    }

    /// What a connection to a member shares with the others to it.
    pub(super) fn shared_by(&mut self, member: MemberId, path: Path) -> LinkShares {
        let peer = self.peers.entry(member).or_default();
        LinkShares {
            waiting: Rc::clone(&peer.lanes[lane_of(path)].waiting),
            lost: Rc::clone(&peer.lost),
            long_frame: self.long_frame.clone(),
        }
    }

    /// A member is to be found at these URLs from now on: whoever connected to us under its id is no stranger any more.
    /// The tasks that have connected to it so far; `None` when it is there already.
    pub(super) fn found_at(&mut self, member: MemberId, urls: &[String]) -> Option<Vec<Task<()>>> {
        let peer = self.peers.entry(member).or_default();
        if peer.urls.as_deref() == Some(urls) {
            return None;
        }
        peer.urls = Some(urls.to_vec());
        peer.judge_links(&self.admission.directories);
        Some(std::mem::take(&mut peer.dialers))
    }

    /// A connection is there. Of two data directories under one id, the one that says that the group has agreed on it
    /// keeps its connections, and the other one gets none.
    pub(super) fn opened(&mut self, own: MemberId, link: &Rc<Link>, inbox: &Inbox) {
        let terms = &link.terms;
        let peer = self.peers.entry(terms.peer).or_default();
        if peer.links().any(|held| held.terms.outranks(terms)) {
            link.close();
            return;
        }
        peer.drop_outranked(own, terms, inbox);
        let lane = &mut peer.lanes[lane_of(terms.path)];
        if let Some(before) = lane.slot(terms.dialed).replace(Rc::clone(link)) {
            // Its other end is gone, or has forgotten it.
            before.close();
            if before.in_use.replace(false) {
                peer.tell_lost(terms.peer, terms.path, inbox);
            }
        }
        let lane = &mut peer.lanes[lane_of(terms.path)];
        lane.choose(terms.path, own < terms.peer);
        peer.judge_links(&self.admission.directories);
        peer.lost.set(false);
        self.complaints.settled(terms.peer);
    }

    /// A connection has ended.
    pub(super) fn closed(&mut self, own: MemberId, link: &Rc<Link>, inbox: &Inbox) {
        let terms = &link.terms;
        let Some(peer) = self.peers.get_mut(&terms.peer) else {
            return;
        };
        let lane = &mut peer.lanes[lane_of(terms.path)];
        let slot = lane.slot(terms.dialed);
        if !slot.as_ref().is_some_and(|held| Rc::ptr_eq(held, link)) {
            return;
        }
        *slot = None;
        lane.choose(terms.path, own < terms.peer);
        if link.in_use.replace(false) {
            peer.tell_lost(terms.peer, terms.path, inbox);
        }
        let is_heard = peer.lanes.iter().any(|lane| lane.links().next().is_some());
        if peer.urls.is_none() && !is_heard {
            self.peers.remove(&terms.peer);
        }
    }

    /// Puts a message where it waits for the end of the turn, or drops it.
    pub(super) fn send(&mut self, to: MemberId, message: PeerMessage) {
        let Some(peer) = self.peers.get_mut(&to) else {
            self.stats.dropped_messages += 1;
            return;
        };
        let (path, class) = path_of(&message);
        let lane = match path {
            Path::Bulk => Some(&mut peer.lanes[lane_of(Path::Bulk)]),
            // One is enough to begin with.
            Path::Prompt | Path::Ordered => {
                let other = match path {
                    Path::Prompt => Path::Ordered,
                    _ => Path::Prompt,
                };
                [path, other]
                    .into_iter()
                    .map(lane_of)
                    .find(|lane| peer.lanes[*lane].current().is_some())
                    .map(|lane| &mut peer.lanes[lane])
            }
        };
        match lane {
            Some(lane) if lane.waiting.borrow_mut().push(class, message) => {
                peer.is_dirty = true;
                self.stats.sent_messages += 1;
            }
            _ => self.stats.dropped_messages += 1,
        }
    }

    /// The end of a turn.
    pub(super) fn flush(&mut self) {
        for peer in self.peers.values_mut() {
            if !std::mem::take(&mut peer.is_dirty) {
                continue;
            }
            for lane in &mut peer.lanes {
                match lane.current() {
                    Some(link) => link.flush(),
                    None if lane.waiting.borrow().is_empty() => {}
                    None => {
                        if let Some(dialer) = lane.wanted.take() {
                            dialer.wake();
                        }
                    }
                }
            }
        }
    }

    /// Whether a connection to `member` is to be opened for `path`; else `waker` is told when it is.
    pub(super) fn is_wanted(&mut self, member: MemberId, path: Path, waker: &Waker) -> bool {
        let Some(peer) = self.peers.get_mut(&member) else {
            return false;
        };
        let lane = &mut peer.lanes[lane_of(path)];
        let wanted =
            path != Path::Bulk || (lane.current().is_none() && !lane.waiting.borrow().is_empty());
        if !wanted {
            lane.wanted = Some(waker.clone());
        }
        wanted
    }

    /// Takes out the connections to a member that were opened from here: it is somewhere else now.
    pub(super) fn abandon_dialed(&mut self, own: MemberId, member: MemberId, inbox: &Inbox) {
        let Some(peer) = self.peers.get(&member) else {
            return;
        };
        let dialed: Vec<Rc<Link>> = peer
            .lanes
            .iter()
            .filter_map(|lane| lane.dialed.clone())
            .collect();
        for link in dialed {
            link.close();
            self.closed(own, &link, inbox);
        }
    }

    /// Forgets a member and ends its connections. What comes back is to be dropped while nothing is
    /// borrowed.
    pub(super) fn forget(&mut self, member: MemberId) -> Option<Peer> {
        let peer = self.peers.remove(&member)?;
        for link in peer.links() {
            link.close();
        }
        Some(peer)
    }
}

impl Peer {
    fn links(&self) -> impl Iterator<Item = &Rc<Link>> {
        self.lanes.iter().flat_map(Lane::links)
    }

    /// Says to its connections which of them come from the directory that is known to be the member's. Of somebody who only
    /// connects to us none does: anybody may have made that id up, and one message is enough for its directory to be
    /// stored.
    fn judge_links(&self, directories: &Directories) {
        for link in self.links() {
            let terms = &link.terms;
            let known = directories.know(terms.peer, terms.incarnation);
            link.known.set(known && self.urls.is_some());
        }
    }

    /// Takes out the connections that must not stay beside one on these terms.
    fn drop_outranked(&mut self, own: MemberId, terms: &LinkTerms, inbox: &Inbox) {
        for path in Path::ALL {
            for dialed in [false, true] {
                let lane = &mut self.lanes[lane_of(path)];
                let slot = lane.slot(dialed);
                let Some(link) = slot.take_if(|held| terms.outranks(&held.terms)) else {
                    continue;
                };
                lane.choose(path, own < terms.peer);
                link.close();
                if link.in_use.replace(false) {
                    self.tell_lost(terms.peer, path, inbox);
                }
            }
        }
    }

    /// Tells the shard, once until something is heard again.
    fn tell_lost(&mut self, member: MemberId, path: Path, inbox: &Inbox) {
        if path != Path::Bulk && !self.lost.replace(true) {
            inbox.push_own(TransportEvent::Disconnected(member));
        }
    }
}

/// What was said about connections that are not wanted, so that it is said once and not at each attempt.
#[derive(Default)]
pub(super) struct Complaints(VecDeque<(Option<MemberId>, String)>);

impl Complaints {
    /// Whether this was not said yet, of this member or of somebody who is none.
    pub(super) fn is_new(&mut self, member: Option<MemberId>, what: String) -> bool {
        let complaint = (member, what);
        if self.0.contains(&complaint) {
            return false;
        }
        if self.0.len() >= PEER_COMPLAINTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(complaint);
        true
    }

    /// A connection to `member` is there: what happens from now on is news.
    fn settled(&mut self, member: MemberId) {
        self.0.retain(|(of, _)| *of != Some(member));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a complaint is new once, until its member is connected; and the memory of them is bounded.
    #[test]
    fn complaints() {
        let mut complaints = Complaints::default();
        let member = Some(MemberId(1));
        assert!(complaints.is_new(member, "refused".into()));
        assert!(!complaints.is_new(member, "refused".into()));
        assert!(complaints.is_new(member, "timed out".into()));
        assert!(complaints.is_new(None, "refused".into()));
        complaints.settled(MemberId(1));
        assert!(complaints.is_new(member, "refused".into()));
        assert!(!complaints.is_new(None, "refused".into()));
        for number in 0..PEER_COMPLAINTS_MAX {
            assert!(complaints.is_new(None, number.to_string()));
        }
        assert_eq!(complaints.0.len(), PEER_COMPLAINTS_MAX);
        assert!(complaints.is_new(None, "refused".into()));
    }
}
