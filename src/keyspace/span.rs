//! An interval of keys as bounds: what is left of a walk that is done in slices.

use std::ops::Bound;

use bytes::Bytes;

use super::request::KeyRange;

/// A possibly empty interval of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: Bound<Bytes>,
    pub(super) end: Bound<Bytes>,
}

impl Span {
    /// The keys that etcd means by `key` and `range_end`.
    pub(super) fn new(key: Bytes, range_end: Bytes) -> Span {
        let end = match range_end.as_ref() {
            [] => Bound::Included(key.clone()),
            [0] => Bound::Unbounded,
            _ => Bound::Excluded(range_end),
        };
        Span {
            start: Bound::Included(key),
            end,
        }
    }

    /// The same for a request's interval.
    pub(super) fn of(range: &KeyRange) -> Span {
        Span::new(range.key.clone(), range.range_end.clone())
    }

    /// The one key it holds, when it is of that kind.
    pub(super) fn point(&self) -> Option<&Bytes> {
        match (&self.start, &self.end) {
            (Bound::Included(start), Bound::Included(end)) if start == end => Some(start),
            _ => None,
        }
    }

    /// Takes away everything before `key`, where a walk stopped.
    pub(super) fn resume_at(&mut self, key: &[u8]) {
        self.start = Bound::Included(Bytes::copy_from_slice(key));
    }

    /// Takes away everything after `key`, where a walk backwards stopped.
    pub(super) fn resume_back_at(&mut self, key: &[u8]) {
        self.end = Bound::Included(Bytes::copy_from_slice(key));
    }

    /// Whether `key` lies inside.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.starts_by(key) && !self.ends_before(key)
    }

    /// Whether `key` is not below the start.
    pub(super) fn starts_by(&self, key: &[u8]) -> bool {
        match &self.start {
            Bound::Included(start) => key >= start.as_ref(),
            Bound::Excluded(start) => key > start.as_ref(),
            Bound::Unbounded => true,
        }
    }

    /// Whether `key` is beyond the end.
    pub(super) fn ends_before(&self, key: &[u8]) -> bool {
        match &self.end {
            Bound::Included(end) => key > end.as_ref(),
            Bound::Excluded(end) => key >= end.as_ref(),
            Bound::Unbounded => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &'static str, range_end: &'static str, inside: &[&str], outside: &[&str]) {
        let span = Span::new(
            Bytes::from_static(key.as_bytes()),
            Bytes::from_static(range_end.as_bytes()),
        );
        for key in inside {
            assert!(span.contains(key.as_bytes()), "{key:?} in {span:?}");
        }
        for key in outside {
            assert!(!span.contains(key.as_bytes()), "{key:?} not in {span:?}");
        }
    }

    /// Goal: etcd's four kinds of interval.
    #[test]
    fn intervals() {
        check("b", "", &["b"], &["a", "ba", "c"]);
        check("b", "\0", &["b", "c", "\u{7f}"], &["a"]);
        check("\0", "\0", &["\0", "a"], &[]);
        check("b", "d", &["b", "bz", "c"], &["a", "d"]);
        check("d", "b", &[], &["a", "b", "c", "d", "e"]);
    }
}
