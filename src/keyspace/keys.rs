//! Sorted keys in one place, searched mostly without going to where each is stored.
//!
//! A search by halving that looks at stored keys waits for memory at every step. So the list knows how
//! many bytes all its keys begin with, and keeps of each key the four bytes behind those as a number, its
//! *head*. Heads stand side by side; stored keys are looked at only where heads are equal.
//!
//! ```text
//! shared 5    heads  "0017" "0042" "0042"          "7\0\0\0"
//!             keys   pods/0017   pods/0042-a  pods/0042-b  pods/7
//! ```
//!
//! A head is padded with zeros, so keys that end early and keys with zeros in them may have equal heads, but
//! never heads in the wrong order. Owned by the index; knows nothing of what the keys stand for.

use std::cmp::Ordering;

use super::record::Key;

/// Longer lists of heads are halved before they are counted through: counting has no branches to guess and
/// waits for all its memory at once, but looks at everything.
const HEADS_COUNTED_MAX: usize = 128;
/// By how many elements the memory of a list grows, and half of what may lie idle. The allocator rounds the
/// usual sizes to as much anyway.
const GROWTH: usize = 16;

/// Keys in ascending order, each once.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// At least so many bytes are the same at the beginning of every key.
    shared: usize,
    /// Of each key.
    heads: Vec<Head>,
    keys: Vec<Key>,
}

impl Keys {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// All of them.
    pub(super) fn as_slice(&self) -> &[Key] {
        &self.keys
    }

    /// Where `key` is, or else where it belongs.
    pub(super) fn position(&self, key: &[u8]) -> Result<usize, usize> {
        let at = match key.get(self.shared..) {
            Some(behind) => {
                let head = Head::of(behind);
                let from = below(&self.heads, head);
                let to = from + leading(&self.heads[from..], head);
                match self.keys[from..to].binary_search_by(|stored| stored.bytes().cmp(key)) {
                    Ok(at) => return Ok(from + at),
                    Err(at) => from + at,
                }
            }
            // As good as any other place: it does not begin like the keys.
            None => 0,
        };
        // The place is right among keys that begin alike; finding an equal one has shown that by itself.
        Err(match self.beginning(key) {
            Ordering::Less => 0,
            Ordering::Equal => at,
            Ordering::Greater => self.len(),
        })
    }

    /// Puts a key where it belongs.
    pub(super) fn insert(&mut self, at: usize, key: Key) {
        let shared = match self.keys.first() {
            Some(first) => common(&first.bytes()[..self.shared], key.bytes()),
            None => key.bytes().len(),
        };
        grow(&mut self.heads);
        grow(&mut self.keys);
        self.heads.insert(at, Head::of(&key.bytes()[shared..]));
        self.keys.insert(at, key);
        if shared != self.shared {
            self.share(shared);
        }
    }

    /// Puts a key in the place of another one, and tells that one.
    pub(super) fn replace(&mut self, at: usize, key: Key) -> Key {
        let shared = common(&self.keys[0].bytes()[..self.shared], key.bytes());
        self.heads[at] = Head::of(&key.bytes()[shared..]);
        let replaced = std::mem::replace(&mut self.keys[at], key);
        if shared != self.shared {
            self.share(shared);
        }
        replaced
    }

    /// Takes a key away.
    pub(super) fn remove(&mut self, at: usize) -> Key {
        self.heads.remove(at);
        let key = self.keys.remove(at);
        shrink(&mut self.heads);
        shrink(&mut self.keys);
        key
    }

    /// Takes all keys from a place on away.
    pub(super) fn split_off(&mut self, at: usize) -> Keys {
        let mut right = Keys {
            shared: self.shared,
            heads: split_off(&mut self.heads, at),
            keys: split_off(&mut self.keys, at),
        };
        self.sharpen();
        right.sharpen();
        right
    }

    /// Adds keys that are all above those here.
    pub(super) fn append(&mut self, right: Keys) {
        append(&mut self.heads, right.heads);
        append(&mut self.keys, right.keys);
        self.share(self.common());
    }

    /// Whether `key` is below, among or above everything that begins as the keys do.
    fn beginning(&self, key: &[u8]) -> Ordering {
        match self.keys.first() {
            Some(first) => {
                let begin = &key[..self.shared.min(key.len())];
                begin.cmp(&first.bytes()[..self.shared])
            }
            None => Ordering::Equal,
        }
    }

    /// How many bytes all keys begin with.
    fn common(&self) -> usize {
        match (self.keys.first(), self.keys.last()) {
            (Some(first), Some(last)) => common(first.bytes(), last.bytes()),
            _ => 0,
        }
    }

    /// Looks whether fewer keys share more, where that makes a difference.
    fn sharpen(&mut self) {
        let equal = self.heads.windows(2).filter(|pair| pair[0] == pair[1]);
        if equal.count() > self.len() / 8 {
            let shared = self.common();
            if shared != self.shared {
                self.share(shared);
            }
        }
    }

    fn share(&mut self, shared: usize) {
        self.shared = shared;
        for (head, key) in self.heads.iter_mut().zip(&self.keys) {
            *head = Head::of(&key.bytes()[shared..]);
        }
    }
}

/// Four bytes in their order, as a number: big endian, and moved so that signed comparison is right, which
/// processors have for several numbers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head(i32);

impl Head {
    fn of(behind: &[u8]) -> Head {
        let word = match behind.first_chunk() {
            Some(bytes) => u32::from_be_bytes(*bytes),
            None => {
                let mut bytes = [0; 4];
                bytes[..behind.len()].copy_from_slice(behind);
                u32::from_be_bytes(bytes)
            }
        };
        Head((word ^ 1 << 31).cast_signed())
    }
}

/// How many of the heads, which are in order, are below one.
fn below(heads: &[Head], head: Head) -> usize {
    let (mut start, mut rest) = (0, heads);
    while rest.len() > HEADS_COUNTED_MAX {
        let (left, right) = rest.split_at(rest.len() / 2);
        if left[left.len() - 1] < head {
            start += left.len();
            rest = right;
        } else {
            rest = left;
        }
    }
    let count = rest.iter().fold(0_u32, |count, one| {
        count.wrapping_add(u32::from(*one < head))
    });
    start + count as usize
}

/// How many of the heads at the front are this one, when none is below it.
fn leading(heads: &[Head], head: Head) -> usize {
    match heads {
        [first, ..] if *first != head => 0,
        [_, second, ..] if *second == head => heads.partition_point(|one| *one <= head),
        _ => heads.len().min(1),
    }
}

/// How many bytes two keys begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// Makes room for one more.
pub(super) fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(GROWTH);
    }
}

/// Gives memory back after elements went.
pub(super) fn shrink<T>(list: &mut Vec<T>) {
    if list.capacity() - list.len() > 2 * GROWTH {
        list.shrink_to(list.len() + GROWTH);
    }
}

/// Takes the elements from a place on away, and leaves neither list with much memory to spare.
pub(super) fn split_off<T>(list: &mut Vec<T>, at: usize) -> Vec<T> {
    let mut right = Vec::with_capacity(list.len() - at + GROWTH);
    right.extend(list.drain(at..));
    shrink(list);
    right
}

/// Adds the elements of another list.
pub(super) fn append<T>(list: &mut Vec<T>, mut right: Vec<T>) {
    list.reserve_exact(right.len() + GROWTH);
    list.append(&mut right);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inserts keys in the order given, cuts them in two, replaces each of them, and then one at a time takes them
    /// away again: at each step every key and everything around it must be found where a plain search would find it.
    fn check(keys: &[&[u8]], shared: usize) {
        let (mut list, mut expected) = (Keys::default(), Vec::<Vec<u8>>::new());
        for key in keys {
            let at = list.position(key).expect_err("it is new");
            list.insert(at, Key::new(key));
            expected.insert(at, key.to_vec());
            check_positions(&list, &expected);
        }
        assert_eq!(list.shared, shared);
        for cut in 0..=keys.len() {
            let mut left = Keys::default();
            for key in &expected {
                left.insert(left.len(), Key::new(key));
            }
            let right = left.split_off(cut);
            check_positions(&left, &expected[..cut]);
            check_positions(&right, &expected[cut..]);
            left.append(right);
            check_positions(&left, &expected);
        }
        for at in 0..keys.len() {
            // The lowest key that may stand there, and back.
            let lowest = match at.checked_sub(1) {
                Some(left) => [&expected[left][..], &[0]].concat(),
                None => Vec::new(),
            };
            let highest = std::mem::replace(&mut expected[at], lowest);
            assert_eq!(list.replace(at, Key::new(&expected[at])).bytes(), highest);
            check_positions(&list, &expected);
            let lowest = std::mem::replace(&mut expected[at], highest);
            assert_eq!(list.replace(at, Key::new(&expected[at])).bytes(), lowest);
            check_positions(&list, &expected);
        }
        while !expected.is_empty() {
            let at = expected.len() / 2;
            assert_eq!(list.remove(at).bytes(), expected.remove(at));
            check_positions(&list, &expected);
        }
    }

    fn check_positions(list: &Keys, expected: &[Vec<u8>]) {
        let held: Vec<&[u8]> = list.as_slice().iter().map(Key::bytes).collect();
        assert_eq!(held, expected);
        assert!(expected.is_sorted());
        let around = expected.iter().flat_map(|key| {
            let shorter = (0..key.len()).map(|len| key[..len].to_vec());
            let longer = [&[][..], &[0], &[0, 0], &[1], &[0xff; 5]];
            let others = longer.map(|tail| [key, tail].concat());
            let flipped = (0..key.len()).flat_map(|at| {
                [1, 0x80, 0xff].map(|bits| {
                    let mut key = key.clone();
                    key[at] ^= bits;
                    key
                })
            });
            shorter.chain(others).chain(flipped)
        });
        for key in around {
            assert_eq!(
                list.position(&key),
                expected.binary_search(&key),
                "{} in {list:?}",
                key.escape_ascii()
            );
        }
    }

    /// Goal: keys that begin one another, end in zeros, differ only beyond their heads or cut the common
    /// beginning short are found, and others are not, exactly as by comparing whole keys.
    #[test]
    fn positions() {
        check(&[], 0);
        check(&[b""], 0);
        check(&[b"ab", b"", b"abc"], 0);
        check(
            &[b"\0", b"", b"\0\0", b"\0\0\0\0\0", b"\0\0\0\0", b"\0\x01"],
            0,
        );
        check(
            &[b"a\0", b"a", b"a\0\0\0\0\0", b"a\0\0\0\0", b"a\0\0\0\x01"],
            1,
        );
        check(
            &[
                b"\xff\xff",
                b"\xff",
                b"\x7f\xff\xff\xff",
                b"\x80",
                b"\xff\xff\xff\xff\xff",
            ],
            0,
        );
        check(
            &[
                b"/registry/pods/42",
                b"/registry/pods/41",
                b"/registry/pods",
            ],
            14,
        );
        check(
            &[b"/a/same-1", b"/a/same-2", b"/a/same-3", b"/a/same", b"/b"],
            1,
        );
        check(
            &[b"pods/0017", b"pods/0042-a", b"pods/0042-b", b"pods/7"],
            5,
        );
    }

    /// Goal: lists longer than what is counted through, with runs of equal heads, are searched as well.
    #[test]
    fn long_lists() {
        let keys: Vec<Vec<u8>> = (0..3 * HEADS_COUNTED_MAX)
            .map(|number| format!("{:04}-{:02}", number / 7, number % 7).into_bytes())
            .collect();
        let mut list = Keys::default();
        for key in &keys {
            list.insert(list.len(), Key::new(key));
        }
        check_positions(&list, &keys);
    }
}
