//! Members that talk to each other: the bytes of their messages, and the connections that carry them.

mod connections;
mod hostile;
mod messages;
mod net;
mod wire;
