//! MessagePack, token by token.
//!
//! Owns reading and writing of single tokens and the check that some bytes are exactly one value. It trusts no length: a
//! token is read only if all of its bytes are there. Values of Rust types are left to serde.

use std::fmt;

/// The deepest nesting of arrays and maps that is stored: deep enough for data, shallow enough for a thread's stack.
pub(super) const MAX_DEPTH: usize = 128;

/// One MessagePack token: a whole scalar, or the head of an array or map whose elements follow.
///
/// Floats are their bits, so that equality and order are total. Strings may hold bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    /// An integer that is not negative.
    Uint(u64),
    /// A negative integer.
    Int(i64),
    F32(u32),
    F64(u64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    /// The number of elements that follow.
    Array(u32),
    /// The number of pairs that follow.
    Map(u32),
}

/// A map key in words: a string or a number as it is.
impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => f.write_str(&String::from_utf8_lossy(text)),
            Self::Uint(number) => number.fmt(f),
            Self::Int(number) => number.fmt(f),
            _ => f.write_str("?"),
        }
    }
}

/// What is wrong with some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Truncated,
    Reserved,
    Extension,
    #[cfg(feature = "server")]
    Wordy,
    Trailing,
    TooDeep,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("it ends too early"),
            Self::Reserved => f.write_str("it contains a byte that MessagePack reserves"),
            Self::Extension => {
                f.write_str("it contains a MessagePack extension, which no Rust type is stored as")
            }
            #[cfg(feature = "server")]
            Self::Wordy => f.write_str("it is not spelled in its shortest form"),
            Self::Trailing => f.write_str("more bytes follow its end"),
            Self::TooDeep => write!(f, "it nests deeper than {MAX_DEPTH} levels"),
        }
    }
}

impl<'a> Token<'a> {
    /// Takes one token off the front of `rest`.
    pub(super) fn read(rest: &mut &'a [u8]) -> Result<Self, Flaw> {
        let [marker] = take_array(rest)?;
        Ok(match marker {
            0x00..=0x7f => Self::Uint(marker.into()),
            0x80..=0x8f => Self::Map((marker & 0x0f).into()),
            0x90..=0x9f => Self::Array((marker & 0x0f).into()),
            0xa0..=0xbf => Self::Str(take(rest, (marker & 0x1f).into())?),
            0xc0 => Self::Nil,
            0xc1 => return Err(Flaw::Reserved),
            0xc2 => Self::Bool(false),
            0xc3 => Self::Bool(true),
            0xc4..=0xc6 => {
                let len = take_length(rest, marker - 0xc4)?;
                Self::Bin(take(rest, len)?)
            }
            0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Flaw::Extension),
            0xca => Self::F32(u32::from_be_bytes(take_array(rest)?)),
            0xcb => Self::F64(u64::from_be_bytes(take_array(rest)?)),
            0xcc => Self::Uint(u8::from_be_bytes(take_array(rest)?).into()),
            0xcd => Self::Uint(u16::from_be_bytes(take_array(rest)?).into()),
            0xce => Self::Uint(u32::from_be_bytes(take_array(rest)?).into()),
            0xcf => Self::Uint(u64::from_be_bytes(take_array(rest)?)),
            0xd0 => Self::signed(i8::from_be_bytes(take_array(rest)?).into()),
            0xd1 => Self::signed(i16::from_be_bytes(take_array(rest)?).into()),
            0xd2 => Self::signed(i32::from_be_bytes(take_array(rest)?).into()),
            0xd3 => Self::signed(i64::from_be_bytes(take_array(rest)?)),
            0xd9..=0xdb => {
                let len = take_length(rest, marker - 0xd9)?;
                Self::Str(take(rest, len)?)
            }
            0xdc => Self::Array(u16::from_be_bytes(take_array(rest)?).into()),
            0xdd => Self::Array(u32::from_be_bytes(take_array(rest)?)),
            0xde => Self::Map(u16::from_be_bytes(take_array(rest)?).into()),
            0xdf => Self::Map(u32::from_be_bytes(take_array(rest)?)),
            0xe0..=0xff => Self::Int((marker as i8).into()),
        })
    }

    /// Takes one token off the front of `rest`, provided that it is as [`write`](Self::write) spells it.
    #[cfg(feature = "server")]
    pub(super) fn read_shortest(rest: &mut &'a [u8]) -> Result<Self, Flaw> {
        let bytes = *rest;
        let token = Self::read(rest)?;
        let (head, len) = token.head();
        if bytes.starts_with(&head[..len]) {
            Ok(token)
        } else {
            Err(Flaw::Wordy)
        }
    }

    fn signed(value: i64) -> Self {
        u64::try_from(value).map_or(Self::Int(value), Self::Uint)
    }

    /// Appends the token in its shortest form.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let (head, len) = self.head();
        out.extend_from_slice(&head[..len]);
        out.extend_from_slice(self.payload());
    }

    /// How many bytes [`write`](Self::write) appends.
    #[cfg(feature = "server")]
    pub(super) fn encoded_len(self) -> usize {
        self.head().1 + self.payload().len()
    }

    /// What stands before the payload: up to nine bytes, and how many of them count.
    fn head(self) -> ([u8; 9], usize) {
        match self {
            Self::Nil => head(0xc0, []),
            Self::Bool(value) => head(0xc2 + u8::from(value), []),
            Self::Uint(value) => match value {
                0..=0x7f => head(value as u8, []),
                0x80..=0xff => head(0xcc, [value as u8]),
                0x100..=0xffff => head(0xcd, (value as u16).to_be_bytes()),
                0x1_0000..=0xffff_ffff => head(0xce, (value as u32).to_be_bytes()),
                _ => head(0xcf, value.to_be_bytes()),
            },
            Self::Int(value) => match value {
                -0x20.. => head(value as u8, []),
                -0x80..-0x20 => head(0xd0, [value as u8]),
                -0x8000..-0x80 => head(0xd1, (value as i16).to_be_bytes()),
                -0x8000_0000..-0x8000 => head(0xd2, (value as i32).to_be_bytes()),
                _ => head(0xd3, value.to_be_bytes()),
            },
            Self::F32(bits) => head(0xca, bits.to_be_bytes()),
            Self::F64(bits) => head(0xcb, bits.to_be_bytes()),
            Self::Str(text) if text.len() < 0x20 => head(0xa0 | text.len() as u8, []),
            Self::Str(text) => sized_head(0xd9, text.len()),
            Self::Bin(bytes) => sized_head(0xc4, bytes.len()),
            Self::Array(len @ 0..0x10) => head(0x90 | len as u8, []),
            Self::Array(len @ 0x10..=0xffff) => head(0xdc, (len as u16).to_be_bytes()),
            Self::Array(len) => head(0xdd, len.to_be_bytes()),
            Self::Map(len @ 0..0x10) => head(0x80 | len as u8, []),
            Self::Map(len @ 0x10..=0xffff) => head(0xde, (len as u16).to_be_bytes()),
            Self::Map(len) => head(0xdf, len.to_be_bytes()),
        }
    }

    fn payload(self) -> &'a [u8] {
        match self {
            Self::Str(bytes) | Self::Bin(bytes) => bytes,
            _ => &[],
        }
    }

    /// The number of values that follow and belong to this token.
    pub(super) fn children(self) -> Option<u64> {
        match self {
            Self::Array(len) => Some(len.into()),
            Self::Map(len) => Some(2 * u64::from(len)),
            _ => None,
        }
    }
}

fn head<const N: usize>(marker: u8, more: [u8; N]) -> ([u8; 9], usize) {
    let mut head = [0; 9];
    head[0] = marker;
    head[1..=N].copy_from_slice(&more);
    (head, 1 + N)
}

/// A marker that says how wide the length is (`narrow`, and the two after it), and the length. Nothing of 4 GiB or more
/// gets this far: it wouldn't fit in a document.
fn sized_head(narrow: u8, len: usize) -> ([u8; 9], usize) {
    match len {
        0..=0xff => head(narrow, [len as u8]),
        0x100..=0xffff => head(narrow + 1, (len as u16).to_be_bytes()),
        _ => head(narrow + 2, (len as u32).to_be_bytes()),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Flaw> {
    let (taken, left) = rest.split_at_checked(len).ok_or(Flaw::Truncated)?;
    *rest = left;
    Ok(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Flaw> {
    let (taken, left) = rest.split_first_chunk().ok_or(Flaw::Truncated)?;
    *rest = left;
    Ok(*taken)
}

/// A length of one, two or four bytes, for `width` 0, 1 and 2.
fn take_length(rest: &mut &[u8], width: u8) -> Result<usize, Flaw> {
    Ok(match width {
        0 => u8::from_be_bytes(take_array(rest)?).into(),
        1 => u16::from_be_bytes(take_array(rest)?).into(),
        _ => u32::from_be_bytes(take_array(rest)?) as usize,
    })
}

/// Checks that `bytes` are exactly one value, no deeper than [`MAX_DEPTH`], without recursion.
pub(super) fn check(bytes: &[u8]) -> Result<(), Flaw> {
    let mut rest = bytes;
    // How many values are still to come, per open array or map.
    let mut open: Vec<u64> = Vec::new();
    loop {
        if let Some(children) = Token::read(&mut rest)?.children() {
            if open.len() == MAX_DEPTH {
                return Err(Flaw::TooDeep);
            }
            open.push(children);
        } else if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        // An array or map that is complete is a complete value of the one around it.
        while open.last() == Some(&0) {
            open.pop();
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
        }
        if open.is_empty() {
            return if rest.is_empty() {
                Ok(())
            } else {
                Err(Flaw::Trailing)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_reads_back_as_it_was_written() {
        let long = vec![7; 0x1_0001];
        let lengths = [0, 1, 15, 16, 31, 32, 255, 256, 0xffff, 0x1_0000];
        let mut tokens = vec![Token::Nil, Token::Bool(false), Token::Bool(true)];
        tokens.extend([0, f32::NAN.to_bits(), u32::MAX].map(Token::F32));
        tokens.extend([0, f64::NAN.to_bits(), u64::MAX].map(Token::F64));
        for shift in 0..64 {
            let edge = 1_u64 << shift;
            tokens.extend([edge - 1, edge, edge + 1, u64::MAX].map(Token::Uint));
            let edge = -1_i64 << shift;
            tokens.extend([edge.saturating_sub(1), edge, i64::MIN].map(Token::Int));
        }
        for len in lengths {
            let bytes = &long[..len];
            tokens.extend([Token::Str(bytes), Token::Bin(bytes)]);
            tokens.extend([Token::Array(len as u32), Token::Map(len as u32)]);
        }
        for token in tokens {
            let mut bytes = Vec::new();
            token.write(&mut bytes);
            #[cfg(feature = "server")]
            assert_eq!(token.encoded_len(), bytes.len(), "{token:?}");
            let mut rest = &*bytes;
            assert_eq!(Token::read(&mut rest), Ok(token));
            assert!(rest.is_empty(), "{token:?} left {} bytes", rest.len());
        }
    }

    #[test]
    fn tokens_are_spelled_as_serde_spells_them() {
        for number in [
            0,
            127,
            128,
            255,
            256,
            65_535,
            65_536,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut ours = Vec::new();
            Token::Uint(number).write(&mut ours);
            assert_eq!(Ok(ours), rmp_serde::to_vec(&number).map_err(drop), "{number}");
        }
        for number in [
            -1,
            -32,
            -33,
            -128,
            -129,
            -32_768,
            -32_769,
            i64::from(i32::MIN),
            i64::MIN,
        ] {
            let mut ours = Vec::new();
            Token::Int(number).write(&mut ours);
            assert_eq!(Ok(ours), rmp_serde::to_vec(&number).map_err(drop), "{number}");
        }
    }

    #[test]
    fn a_check_accepts_exactly_one_value_that_is_not_too_deep() {
        let nested = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(Flaw::TooDeep));
        assert_eq!(check(&nested(10_000_000)), Err(Flaw::TooDeep));
        assert_eq!(
            check(&[0x82, 0x01, 0x90, 0x02, 0x80]),
            Ok(()),
            "empty ones count as values"
        );
        assert_eq!(check(&[0x92, 0x01]), Err(Flaw::Truncated));
        assert_eq!(
            check(&[0xdf, 0xff, 0xff, 0xff, 0xff]),
            Err(Flaw::Truncated),
            "a length that lies"
        );
        assert_eq!(check(&[0xdb, 0xff, 0xff, 0xff, 0xff, 0x00]), Err(Flaw::Truncated));
        assert_eq!(check(&[0xc0, 0xc0]), Err(Flaw::Trailing));
        assert_eq!(check(&[0xc1]), Err(Flaw::Reserved));
        assert_eq!(check(&[0xd4, 1, 1]), Err(Flaw::Extension));
        assert_eq!(check(&[]), Err(Flaw::Truncated));
    }
}
