//! The disk format of a document. It is stable: documents written today are read by every later version of the crate.
//!
//! Owns the bytes; what they mean is next door in `entries.rs`. All numbers are big-endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | the letters `BPDd` |
//! | 4 | 1 | the format's version: 1 |
//! | 5 | 1 | flags: bit 0, the body is one zstd frame; the others are zero |
//! | 6 | 4 | the length of the body, uncompressed; at most 256 MiB |
//! | 10 | 4 | CRC-32 (as in zlib) of all other bytes, that is of 0 to 9 and from 14 to the end |
//! | 14 | rest | the body |
//!
//! The body is one MessagePack map. Its keys are strings, none empty, each once, sorted by their bytes. A value is an
//! array `[version, oldest_reader, bin]` of two 32-bit numbers and the component's own MessagePack bytes, or nil for a
//! tombstone. Everything is spelled in its shortest form, so equal documents are equal bytes, and a change that keeps a
//! value's length moves no other byte.
//!
//! Whatever deviates is refused. No length is believed before the bytes that it counts are there.

use std::{fmt, io::Read, sync::Arc};

use bytes::Bytes;

use super::{
    Document, Entry, StoredValue,
    wire::{Flaw, Token},
};

const MAGIC: [u8; 4] = *b"BPDd";
const FORMAT: u8 = 1;
const FLAG_ZSTD: u8 = 1;
const CHECKSUM: std::ops::Range<usize> = 10..14;
const HEADER_LEN: usize = CHECKSUM.end;
/// The longest body that is written or read, uncompressed. Stores refuse documents long before.
const MAX_BODY: usize = 256 * 1024 * 1024;

/// How a document is packed when it is [encoded](Document::encode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: a small change of the data is a small change of the bytes. The default.
    #[default]
    None,
    /// zstd, for large content made by players. It saves space and costs time; a document that it doesn't make smaller is
    /// left as it is.
    Zstd {
        /// zstd's level: 1 is fast, 22 is small, 0 is zstd's own default; others are brought into its range.
        level: i32,
    },
}

impl Document {
    /// The exact length of the encoded document without compression, in bytes. Cheap: it looks at no value's bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.body_len()
    }

    /// The key whose entry takes the most bytes, and how many (without compression); `None` for an empty document.
    #[must_use]
    pub fn heaviest(&self) -> Option<(&str, usize)> {
        self.iter()
            .map(|(key, entry)| (key, entry_len(key, entry)))
            .max_by_key(|&(_, len)| len)
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// [`DocumentError::EmptyKey`], [`DocumentError::TooLarge`], [`DocumentError::Compression`].
    pub fn encode(&self, compression: Compression) -> Result<Bytes, DocumentError> {
        if self.get("").is_some() {
            return Err(DocumentError::EmptyKey);
        }
        let body_len = self.body_len();
        let stated_len = u32::try_from(body_len)
            .ok()
            .filter(|_| body_len <= MAX_BODY)
            .ok_or(DocumentError::TooLarge { len: body_len })?;
        let mut plain = header(0, stated_len, HEADER_LEN + body_len);
        self.write_body(&mut plain);
        let Compression::Zstd { level } = compression else {
            return Ok(seal(plain));
        };

        let packed = zstd::bulk::compress(&plain[HEADER_LEN..], level).map_err(|error| {
            DocumentError::Compression {
                reason: error.to_string(),
            }
        })?;
        if packed.len() >= body_len {
            return Ok(seal(plain));
        }
        let mut bytes = header(FLAG_ZSTD, stated_len, HEADER_LEN + packed.len());
        bytes.extend_from_slice(&packed);
        Ok(seal(bytes))
    }

    /// The document that `bytes` are. Values of an uncompressed document are slices of `bytes`, not copies.
    ///
    /// # Errors
    /// [`DocumentError::NotADocument`], [`DocumentError::Newer`], [`DocumentError::Damaged`]. In each case the bytes are
    /// worth keeping as they are.
    pub fn decode(bytes: &Bytes) -> Result<Self, DocumentError> {
        let header = Header::read(bytes)?;
        let body = bytes.slice(HEADER_LEN..);
        let body = if header.is_packed {
            unpack(&body, header.body_len)?
        } else {
            body
        };
        if body.len() != header.body_len {
            return Err(DocumentError::damaged("its length is not the one that it states"));
        }
        Self::read_body(&body)
    }

    fn body_len(&self) -> usize {
        let entries = self.iter().map(|(key, entry)| entry_len(key, entry));
        self.map_token().encoded_len() + entries.sum::<usize>()
    }

    fn map_token(&self) -> Token<'_> {
        Token::Map(self.len() as u32) // 2^32 keys don't fit in memory
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        self.map_token().write(out);
        for (key, entry) in self.iter() {
            entry_tokens(key, entry)
                .into_iter()
                .flatten()
                .for_each(|token| token.write(out));
        }
    }

    fn read_body(body: &Bytes) -> Result<Self, DocumentError> {
        let mut rest = &**body;
        let Token::Map(len) = Token::read_shortest(&mut rest)? else {
            return Err(DocumentError::damaged("its body is not a map"));
        };
        let mut document = Self::new();
        for _ in 0..len {
            let key = read_key(&mut rest)?;
            let entry = read_entry(&mut rest, body)?;
            if !document.push(key, entry) {
                return Err(DocumentError::damaged("its keys are not in order, each once"));
            }
        }
        if rest.is_empty() {
            Ok(document)
        } else {
            Err(Flaw::Trailing.into())
        }
    }
}

/// A key and its entry as tokens; a tombstone has two.
fn entry_tokens<'a>(key: &'a str, entry: &'a Entry) -> [Option<Token<'a>>; 5] {
    let key = Some(Token::Str(key.as_bytes()));
    match entry {
        Entry::Value {
            version,
            oldest_reader,
            value,
        } => [
            key,
            Some(Token::Array(3)),
            Some(Token::Uint((*version).into())),
            Some(Token::Uint((*oldest_reader).into())),
            Some(Token::Bin(value.bytes())),
        ],
        Entry::Tombstone => [key, Some(Token::Nil), None, None, None],
    }
}

fn entry_len(key: &str, entry: &Entry) -> usize {
    entry_tokens(key, entry)
        .into_iter()
        .flatten()
        .map(Token::encoded_len)
        .sum()
}

fn read_key(rest: &mut &[u8]) -> Result<Arc<str>, DocumentError> {
    match Token::read_shortest(rest)? {
        Token::Str([]) => Err(DocumentError::damaged("a key is empty")),
        Token::Str(key) => match str::from_utf8(key) {
            Ok(key) => Ok(key.into()),
            Err(_) => Err(DocumentError::damaged("a key is not UTF-8")),
        },
        _ => Err(DocumentError::damaged("a key is not a string")),
    }
}

fn read_entry<'a>(rest: &mut &'a [u8], body: &'a Bytes) -> Result<Entry, DocumentError> {
    match Token::read_shortest(rest)? {
        Token::Nil => Ok(Entry::Tombstone),
        Token::Array(3) => {
            let (version, oldest_reader) = (read_version(rest)?, read_version(rest)?);
            let Token::Bin(value) = Token::read_shortest(rest)? else {
                return Err(DocumentError::damaged("a value is not bytes"));
            };
            Ok(Entry::Value {
                version,
                oldest_reader,
                value: StoredValue::from_bytes(body.slice_ref(value)),
            })
        }
        _ => Err(DocumentError::damaged(
            "an entry is neither a value nor a tombstone",
        )),
    }
}

fn read_version(rest: &mut &[u8]) -> Result<u32, DocumentError> {
    match Token::read_shortest(rest)? {
        Token::Uint(version) => version.try_into().ok(),
        _ => None,
    }
    .ok_or(DocumentError::damaged("a version is not a 32-bit number"))
}

/// The header without its checksum, in a buffer with room for `capacity` bytes.
fn header(flags: u8, body_len: u32, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[FORMAT, flags]);
    bytes.extend_from_slice(&body_len.to_be_bytes());
    bytes.resize(HEADER_LEN, 0);
    bytes
}

/// Fills in the checksum, when everything else is there.
fn seal(mut bytes: Vec<u8>) -> Bytes {
    let checksum = checksum(&bytes);
    bytes[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

/// The checksum of all bytes but its own. Panics if there are fewer than a header has.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CHECKSUM.start]);
    hasher.update(&bytes[CHECKSUM.end..]);
    hasher.finalize()
}

struct Header {
    is_packed: bool,
    body_len: usize,
}

impl Header {
    /// Reads the header and compares the checksum of the whole document.
    fn read(bytes: &[u8]) -> Result<Self, DocumentError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(DocumentError::NotADocument);
        }
        // Before the checksum: a newer format may compute another.
        if let Some(&format) = bytes.get(MAGIC.len())
            && format > FORMAT
        {
            return Err(DocumentError::Newer { format });
        }
        let Some(&[_, _, _, _, format, flags, a, b, c, d, ref stored @ ..]) =
            bytes.first_chunk::<HEADER_LEN>()
        else {
            return Err(Flaw::Truncated.into());
        };
        if checksum(bytes) != u32::from_be_bytes(*stored) {
            return Err(DocumentError::damaged("its checksum is wrong"));
        }
        if format != FORMAT || flags & !FLAG_ZSTD != 0 {
            return Err(DocumentError::damaged(
                "its header has values that were never written",
            ));
        }
        let body_len = u32::from_be_bytes([a, b, c, d]) as usize;
        if body_len > MAX_BODY {
            return Err(DocumentError::damaged("it states a length above 256 MiB"));
        }
        Ok(Self {
            is_packed: flags & FLAG_ZSTD != 0,
            body_len,
        })
    }
}

/// Unpacks one zstd frame. The output grows with what is really there and never beyond `stated_len` and a byte.
fn unpack(packed: &[u8], stated_len: usize) -> Result<Bytes, DocumentError> {
    let refused = |_| DocumentError::damaged("its body does not unpack");
    let mut decoder = zstd::Decoder::with_buffer(packed)
        .map_err(refused)?
        .single_frame();
    // The frame's own header may ask for a window: no larger than the body.
    let window_log = stated_len.next_power_of_two().ilog2();
    decoder.window_log_max(window_log.max(10)).map_err(refused)?;
    let mut body = Vec::new();
    decoder
        .by_ref()
        .take(stated_len as u64 + 1)
        .read_to_end(&mut body)
        .map_err(refused)?;
    if decoder.finish().is_empty() {
        Ok(body.into())
    } else {
        Err(Flaw::Trailing.into())
    }
}

/// Why a document could not be encoded, or some bytes not be decoded. No document and no bytes were changed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Encoding: an entry has an empty key. Remove it, then encode again.
    #[error("a player's data cannot be stored under an empty key: give each component's KEY a name")]
    EmptyKey,
    /// Encoding: the document is larger than the format allows.
    #[error(
        "a player's data of {len} bytes is above the format's limit of {MAX_BODY} bytes: let the player keep less"
    )]
    TooLarge {
        /// The length of the body, in bytes.
        len: usize,
    },
    /// Encoding: zstd failed. Encoding without compression works.
    #[error("a player's data could not be compressed: {reason}")]
    Compression {
        /// In the words of zstd.
        reason: String,
    },
    /// Decoding: the bytes are something else altogether.
    #[error("the stored bytes are no player document: look at what wrote them; they were left as they are")]
    NotADocument,
    /// Decoding: a newer version of this crate has written the document.
    #[error(
        "the stored document has format {format} and this server knows formats up to {FORMAT}: update the server; the \
         document was left as it is"
    )]
    Newer {
        /// The document's format version.
        format: u8,
    },
    /// Decoding: the bytes are not what was written.
    #[error(
        "the stored document is damaged ({reason}): restore it from a backup; the bytes were left as they are"
    )]
    Damaged {
        /// What is wrong with the bytes.
        reason: String,
    },
}

impl DocumentError {
    fn damaged(reason: &str) -> Self {
        Self::Damaged {
            reason: reason.to_owned(),
        }
    }
}

impl From<Flaw> for DocumentError {
    fn from(flaw: Flaw) -> Self {
        Self::Damaged {
            reason: flaw.to_string(),
        }
    }
}

impl fmt::Debug for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
