//! Newtypes for identities and positions that must not be mixed up.

use std::fmt;

/// Declares a `Copy` newtype over an unsigned integer with the traits every id needs.
macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id!(
    /// The cluster, as etcd computes it: the first eight bytes of a SHA-1 over the sorted member ids.
    /// Shown in hexadecimal, as etcdctl and etcd's log do.
    ClusterId(u64), "{:x}"
);
id!(
    /// One member of a cluster, as etcd computes it (SHA-1 over its sorted peer URLs and the token).
    MemberId(u64), "{:x}"
);
id!(
    /// One Raft group with its log and keyspace. Shard 0 also holds the member list.
    ShardId(u32), "{}"
);
id!(
    /// One executor of this process, counted from zero; not the number of a CPU.
    CoreId(u32), "{}"
);
id!(
    /// The random identity of one data directory. An emptied directory has another one, and peers refuse it; a copy
    /// has the same one.
    Incarnation(u128), "{:032x}"
);
id!(
    /// A Raft term (Raft paper, section 5.1). Zero before the first election.
    Term(u64), "{}"
);
id!(
    /// The position of an entry in a shard's log, counted from one. Zero is before the first entry.
    Index(u64), "{}"
);

impl Index {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

/// A lease as etcd's clients name it: a signed number, zero for "no lease".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);
