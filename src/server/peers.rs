//! The way to the other members, as the shard's core wants it.

use std::task::{Context, Poll};

use crate::base::MemberId;
use crate::runtime::group::{PeerEvent, Peers};
use crate::runtime::net::Listener;
use crate::shard::Settings;
use crate::shard::event::PeerMessage;

pub(super) fn start(_settings: &Settings, _listeners: Vec<Listener>) -> Box<dyn Peers> {
    Box::new(Nobody)
}

struct Nobody;
impl Peers for Nobody {
    fn set_peers(&mut self, _: &[(MemberId, Vec<String>)]) {}
    fn send(&mut self, _: MemberId, _: PeerMessage) {}
    fn flush(&mut self) {}
    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<PeerEvent> {
        Poll::Pending
    }
}
