//! Ours beside etcd in one run, pair by pair.
