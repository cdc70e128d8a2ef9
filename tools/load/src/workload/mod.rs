//! Which operation comes next, and its bytes.
