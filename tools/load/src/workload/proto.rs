//! Protobuf by field number: writing the requests, and walking over the fields of answers.

/// Appends a field of bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field with a number; zero is what an absent field means.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number << 3));
        put_varint(out, value);
    }
}

/// Appends a field that is a message, which `write` writes.
pub(crate) fn put_message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    put_bytes(out, number, &inner);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The content of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// A varint.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
    /// Of a fixed size; etcd's answers have none that matter here.
    Fixed,
}

/// Walks over the fields of a message, in the order of the wire. Ends early, and says so, at what is no field.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    /// Something was no field.
    pub(crate) broken: bool,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Fields<'a> {
        Fields {
            rest: message,
            broken: false,
        }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, size: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(size).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Content<'a>)> {
        let key = self.varint()?;
        let content = match key & 7 {
            0 => Content::Number(self.varint()?),
            1 => self.take(8).map(|_| Content::Fixed)?,
            2 => {
                let size = self.varint()?;
                Content::Bytes(self.take(size)?)
            }
            5 => self.take(4).map(|_| Content::Fixed)?,
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Content<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.broken = true;
            self.rest = &[];
        }
        field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is written is read again, and cut or foreign bytes end the walk.
    #[test]
    fn fields() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, b"key");
        put_number(&mut message, 3, 300);
        put_number(&mut message, 4, 0);
        put_message(&mut message, 16, |inner| put_number(inner, 1, u64::MAX));
        let mut fields = Fields::of(&message);
        assert_eq!(fields.next(), Some((1, Content::Bytes(b"key"))));
        assert_eq!(fields.next(), Some((3, Content::Number(300))));
        let Some((16, Content::Bytes(inner))) = fields.next() else {
            panic!("a message");
        };
        assert_eq!(
            Fields::of(inner).next(),
            Some((1, Content::Number(u64::MAX)))
        );
        assert!(fields.next().is_none() && !fields.broken);
        for cut in 1..message.len() {
            let mut fields = Fields::of(&message[..cut]);
            let count = fields.by_ref().count();
            // After 5 and 8 bytes a field is whole.
            assert_eq!(
                fields.broken,
                ![5, 8].contains(&cut),
                "{cut}: {count} fields"
            );
        }
        let mut group = Fields::of(&[0x0b]);
        assert!(group.next().is_none() && group.broken);
    }
}
