//! The hand-written client beside one made with `h2`, against the same server.
