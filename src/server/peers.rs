//! The way to the other members, as the shard's core wants it: the transport behind the core's own trait,
//! because the runtime lies below and may not name it.

use std::task::{Context, Poll};

use crate::base::MemberId;
use crate::raft::Directories;
use crate::runtime::group::{PeerEvent, Peers};
use crate::runtime::net::Listener;
use crate::shard::Settings;
use crate::shard::event::PeerMessage;
use crate::transport::{Admission, Transport, TransportConfig, TransportEvent, TransportStats};

/// Begins to listen for the others, on the shard's core.
pub(super) fn start(settings: &Settings, listeners: Vec<Listener>) -> Box<dyn Peers> {
    let config = TransportConfig::new(
        settings.identity.cluster,
        settings.identity.member,
        settings.incarnation,
        settings.shard,
    );
    Box::new(Connections(Transport::start(config, listeners)))
}

struct Connections(Transport);

impl Drop for Connections {
    fn drop(&mut self) {
        let TransportStats {
            sent_messages,
            dropped_messages,
            refused_connections,
            damaged_connections,
        } = self.0.stats();
        tracing::info!(
            sent_messages,
            dropped_messages,
            refused_connections,
            damaged_connections,
            "connections to peers ended"
        );
    }
}

impl Peers for Connections {
    fn set_peers(&mut self, peers: &[(MemberId, Vec<String>)]) {
        self.0.set_peers(peers);
    }

    fn set_directories(&mut self, directories: Directories) {
        self.0.set_admission(Admission {
            directories,
            // No call changes the membership yet: who is none of the first members is none of the group.
            hear_strangers: false,
        });
    }

    fn send(&mut self, to: MemberId, message: PeerMessage) {
        self.0.send(to, message);
    }

    fn flush(&mut self) {
        self.0.flush();
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        self.0.poll_event(cx).map(|event| match event {
            TransportEvent::Received {
                from,
                incarnation,
                message,
            } => PeerEvent::Received {
                from,
                incarnation,
                message,
            },
            TransportEvent::Disconnected(peer) => PeerEvent::Disconnected(peer),
        })
    }
}
