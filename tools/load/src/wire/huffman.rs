//! The Huffman code of HPACK (RFC 7541, appendix B), decoding only: what we send is never coded.
//!
//! The code is canonical, so the lengths alone define it: among codes of one length, symbols ascend.

/// Bits of the longest code.
const CODE_BITS_MAX: usize = 30;

/// Bits of the code of each symbol; the end-of-string symbol, 256, has 30 and must not occur.
#[rustfmt::skip]
const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The end-of-string symbol.
const END_OF_STRING: u16 = 256;

/// For each length, how many symbols have a shorter code, the first code, and how many codes there are.
const LEVELS: [Level; CODE_BITS_MAX + 1] = levels();
/// All symbols by length, then by value.
const SYMBOLS: [u16; 257] = symbols();

#[derive(Clone, Copy)]
struct Level {
    shorter: u32,
    first: u32,
    count: u32,
}

const fn levels() -> [Level; CODE_BITS_MAX + 1] {
    let mut levels = [Level {
        shorter: 0,
        first: 0,
        count: 0,
    }; CODE_BITS_MAX + 1];
    let mut symbol = 0;
    while symbol < CODE_BITS.len() {
        levels[CODE_BITS[symbol] as usize].count += 1;
        symbol += 1;
    }
    let mut bits = 1;
    while bits <= CODE_BITS_MAX {
        let before = levels[bits - 1];
        levels[bits].first = (before.first + before.count) << 1;
        levels[bits].shorter = before.shorter + before.count;
        bits += 1;
    }
    levels
}

const fn symbols() -> [u16; 257] {
    let mut sorted = [0; 257];
    let mut at = 0;
    let mut bits = 1;
    while bits <= CODE_BITS_MAX {
        let mut symbol = 0;
        while symbol < CODE_BITS.len() {
            if CODE_BITS[symbol] as usize == bits {
                sorted[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    sorted
}

/// Appends what `coded` says to `text`; `None` when it is no valid code, or longer than `text_bytes_max` in all.
pub(super) fn decode(coded: &[u8], text: &mut Vec<u8>, text_bytes_max: usize) -> Option<()> {
    let mut code = 0_u32;
    let mut bits = 0_usize;
    for byte in coded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            let level = LEVELS.get(bits)?;
            let place = code.wrapping_sub(level.first);
            if place < level.count {
                let symbol = SYMBOLS[(level.shorter + place) as usize];
                if symbol == END_OF_STRING || text.len() >= text_bytes_max {
                    return None;
                }
                text.push(u8::try_from(symbol).ok()?);
                (code, bits) = (0, 0);
            }
        }
    }
    // The rest of the last byte is the beginning of the end-of-string code: ones.
    (bits < 8 && code == (1 << bits) - 1).then_some(())
}

#[cfg(test)]
mod tests {
    use super::decode;

    fn check(coded: &[u8], expected: Option<&str>) {
        let mut text = Vec::new();
        let decoded = decode(coded, &mut text, 64).map(|()| String::from_utf8(text).expect("text"));
        assert_eq!(decoded.as_deref(), expected, "{coded:02x?}");
    }

    /// Goal: the examples of RFC 7541, appendix C, and nothing that only looks like them.
    #[test]
    fn examples() {
        check(
            &[
                0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
            ],
            Some("www.example.com"),
        );
        check(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], Some("no-cache"));
        check(
            &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f],
            Some("custom-key"),
        );
        check(&[0x64, 0x02], Some("302"));
        check(&[], Some(""));
        // Padding of zeros, padding of a whole byte, the end-of-string symbol.
        check(&[0x07], Some("0"));
        check(&[0x00], None);
        check(&[0x64, 0x02, 0xff], None);
        check(&[0xff, 0xff, 0xff, 0xff], None);
        // 65 times '0' in five bits each is more than the limit.
        check(&[0; 41], None);
    }
}
