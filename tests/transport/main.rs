//! Members that talk to each other: the bytes of their messages, and the connections that carry them.

mod messages;
mod wire;
