//! Members of ours or of etcd as real processes on this machine.
