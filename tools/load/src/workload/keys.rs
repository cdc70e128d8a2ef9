//! Which key comes next, and the bytes of keys and values.

use std::f64::consts::E;

/// The key space of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySpec {
    /// How many keys there are.
    pub count: u64,
    /// Bytes of a key; longer when its number needs more.
    pub size_bytes: usize,
    /// What every key begins with.
    pub prefix: String,
    /// In which order they are used.
    pub order: KeyOrder,
}

/// The order in which keys are used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyOrder {
    /// One after the other, and again from the beginning.
    Sequential,
    /// All equally often.
    Uniform,
    /// Few very often: the k-th most frequent with a probability proportional to 1 / k^exponent. The frequent ones
    /// are scattered over the key space.
    Zipfian {
        /// Above zero, not one.
        exponent: f64,
    },
}

/// Sizes of values, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueSpec {
    /// The smallest.
    pub size_min: usize,
    /// The largest. In between, all are equally likely.
    pub size_max: usize,
}

impl ValueSpec {
    /// All of one size.
    #[must_use]
    pub fn equal(size: usize) -> ValueSpec {
        ValueSpec {
            size_min: size,
            size_max: size,
        }
    }
}

/// Bytes at the front of each value that say which put it is and when it was to start, as far as they fit.
pub(crate) const STAMP_BYTES: usize = 16;
/// Random bytes that values are cut from.
const POOL_BYTES: usize = 64 * 1024;
/// A prime to scatter ranks with: no two ranks meet, since no key space is a multiple of it.
const SCATTER: u64 = 2_654_435_761;

/// Chooses keys for one thread.
#[derive(Clone, Debug)]
pub(crate) struct KeyPicker {
    count: u64,
    pick: Pick,
}

#[derive(Clone, Debug)]
enum Pick {
    Sequential { next: u64, step: u64 },
    Uniform,
    Zipfian(Zipf),
}

impl KeyPicker {
    /// For the thread `lane` of `lanes`.
    pub(crate) fn new(spec: &KeySpec, lane: u64, lanes: u64) -> KeyPicker {
        let pick = match spec.order {
            KeyOrder::Sequential => Pick::Sequential {
                next: lane,
                step: lanes,
            },
            KeyOrder::Uniform => Pick::Uniform,
            KeyOrder::Zipfian { exponent } => Pick::Zipfian(Zipf::new(spec.count, exponent)),
        };
        KeyPicker {
            count: spec.count,
            pick,
        }
    }

    pub(crate) fn next(&mut self, random: &mut fastrand::Rng) -> u64 {
        match &mut self.pick {
            Pick::Sequential { next, step } => {
                let key = *next % self.count;
                *next = next.wrapping_add(*step);
                key
            }
            Pick::Uniform => random.u64(0..self.count),
            Pick::Zipfian(zipf) => {
                let rank = zipf.rank(random);
                (u128::from(rank) * u128::from(SCATTER) % u128::from(self.count)) as u64
            }
        }
    }
}

/// Zipf's distribution by rejection and inversion (Hoermann and Derflinger, 1996): no table, constant time.
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    exponent: f64,
    integral_first: f64,
    integral_last: f64,
    near: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Zipf {
        let count = count as f64;
        let mut zipf = Zipf {
            count,
            exponent,
            integral_first: 0.0,
            integral_last: 0.0,
            near: 0.0,
        };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(count + 0.5);
        zipf.near = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.height(2.0));
        zipf
    }

    /// From zero.
    fn rank(&self, random: &mut fastrand::Rng) -> u64 {
        loop {
            let u = self.integral_last + random.f64() * (self.integral_first - self.integral_last);
            let x = self.inverse(u);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.near || u >= self.integral(rank + 0.5) - self.height(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn height(&self, x: f64) -> f64 {
        x.powf(-self.exponent)
    }

    /// The integral of the height; with the exponent one it is the logarithm.
    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 {
            x.log(E)
        } else {
            (x.powf(power) - 1.0) / power
        }
    }

    fn inverse(&self, y: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 {
            y.exp()
        } else {
            (1.0 + y * power).max(0.0).powf(1.0 / power)
        }
    }
}

/// Writes key number `key`: the prefix and the number with leading zeros.
pub(crate) fn write_key(out: &mut Vec<u8>, spec: &KeySpec, key: u64) {
    out.clear();
    out.extend_from_slice(spec.prefix.as_bytes());
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut rest = key;
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let used = digits.len() - at;
    let width = key_digits(spec);
    out.resize(out.len() + width.saturating_sub(used), b'0');
    out.extend_from_slice(&digits[at..]);
}

/// Digits of each key's number: all keys are equally long, so that their order is that of the numbers.
fn key_digits(spec: &KeySpec) -> usize {
    let needed = spec
        .count
        .saturating_sub(1)
        .checked_ilog10()
        .map_or(1, |digits| digits as usize + 1);
    spec.size_bytes
        .saturating_sub(spec.prefix.len())
        .max(needed)
}

/// Makes values for one thread.
#[derive(Clone, Debug)]
pub(crate) struct ValueMaker {
    spec: ValueSpec,
    pool: Vec<u8>,
    number: u64,
    value: Vec<u8>,
}

impl ValueMaker {
    /// No two makers with different `lane`s make the same value, if values have room for a stamp.
    pub(crate) fn new(spec: ValueSpec, lane: u64, random: &mut fastrand::Rng) -> ValueMaker {
        let mut pool = vec![0; POOL_BYTES + spec.size_max];
        random.fill(&mut pool);
        ValueMaker {
            spec,
            pool,
            number: lane << 48,
            value: Vec::new(),
        }
    }

    /// The next value, of a put that is to start at `start_ns`.
    pub(crate) fn next(&mut self, start_ns: u64, random: &mut fastrand::Rng) -> &[u8] {
        let ValueSpec { size_min, size_max } = self.spec;
        let size = if size_min == size_max {
            size_max
        } else {
            random.usize(size_min..=size_max)
        };
        let from = random.usize(0..POOL_BYTES);
        self.value.clear();
        self.value.extend_from_slice(&self.pool[from..from + size]);
        self.number += 1;
        let mut stamp = [0; STAMP_BYTES];
        stamp[..8].copy_from_slice(&self.number.to_be_bytes());
        stamp[8..].copy_from_slice(&start_ns.to_be_bytes());
        let stamped = size.min(STAMP_BYTES);
        self.value[..stamped].copy_from_slice(&stamp[..stamped]);
        &self.value
    }
}

/// When the put that wrote `value` was to start; `None` when it has no stamp.
pub(crate) fn stamped_start_ns(value: &[u8]) -> Option<u64> {
    let stamp = value.get(8..STAMP_BYTES)?;
    Some(u64::from_be_bytes(stamp.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(count: u64, size_bytes: usize, order: KeyOrder) -> KeySpec {
        KeySpec {
            count,
            size_bytes,
            prefix: "load/".into(),
            order,
        }
    }

    /// Goal: keys have the size asked for, or what their number needs, and sort as their numbers do.
    #[test]
    fn key_bytes() {
        let check = |count, size_bytes, key, expected: &str| {
            let mut out = Vec::new();
            write_key(&mut out, &spec(count, size_bytes, KeyOrder::Uniform), key);
            assert_eq!(String::from_utf8(out).expect("text"), expected);
        };
        check(1000, 16, 42, "load/00000000042");
        check(1000, 16, 0, "load/00000000000");
        check(1000, 1, 42, "load/042");
        check(1, 1, 0, "load/0");
        check(u64::MAX, 1, u64::MAX - 1, "load/18446744073709551614");
    }

    fn frequencies(order: KeyOrder, picks: usize) -> Vec<u32> {
        let mut random = fastrand::Rng::with_seed(5);
        let mut picker = KeyPicker::new(&spec(1000, 1, order), 0, 1);
        let mut seen = vec![0; 1000];
        for _ in 0..picks {
            seen[picker.next(&mut random) as usize] += 1;
        }
        seen.sort_unstable_by(|a, b| b.cmp(a));
        seen
    }

    /// Goal: each order has the shape that it says.
    #[test]
    fn orders() {
        assert!(
            frequencies(KeyOrder::Sequential, 3000)
                .iter()
                .all(|count| *count == 3)
        );
        let uniform = frequencies(KeyOrder::Uniform, 100_000);
        assert!(uniform[0] < 150 && uniform[999] > 55, "{uniform:?}");
        for exponent in [0.8, 1.0, 1.2] {
            let zipf = frequencies(KeyOrder::Zipfian { exponent }, 1_000_000);
            for rank in [2, 4, 10_usize] {
                let ratio = f64::from(zipf[0]) / f64::from(zipf[rank - 1]);
                let expected = (rank as f64).powf(exponent);
                assert!(
                    (ratio / expected - 1.0).abs() < 0.1,
                    "{exponent} {rank}: {ratio} is not {expected}"
                );
            }
        }
    }

    /// Goal: two threads go through all keys in turn, without meeting.
    #[test]
    fn lanes_share_the_sequence() {
        let spec = spec(10, 1, KeyOrder::Sequential);
        let mut random = fastrand::Rng::with_seed(1);
        let mut lanes = [KeyPicker::new(&spec, 0, 2), KeyPicker::new(&spec, 1, 2)];
        let picks: Vec<u64> = (0..10)
            .map(|turn| lanes[turn % 2].next(&mut random))
            .collect();
        assert_eq!(picks, (0..10).collect::<Vec<_>>());
    }

    /// Goal: values have sizes within bounds, differ, and tell when their put was to start.
    #[test]
    fn values() {
        let mut random = fastrand::Rng::with_seed(1);
        let sizes = ValueSpec {
            size_min: 20,
            size_max: 30,
        };
        let mut maker = ValueMaker::new(sizes, 3, &mut random);
        let first = maker.next(77, &mut random).to_vec();
        let second = maker.next(78, &mut random).to_vec();
        assert!(first != second && (20..=30).contains(&first.len()));
        assert_eq!(stamped_start_ns(&first), Some(77));
        let small = ValueSpec {
            size_min: 3,
            size_max: 3,
        };
        let mut maker = ValueMaker::new(small, 0, &mut random);
        assert_eq!(maker.next(9, &mut random).len(), 3);
        assert_eq!(stamped_start_ns(b"abc"), None);
    }
}
