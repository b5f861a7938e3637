//! The deserializer: from a stored value to a Rust type.
//!
//! Owns the way back from MessagePack, where `rmp-serde` owns the way there. It is written for one thing that a general
//! deserializer cannot tell: what the type did *not* read, and where that stands. It notes fields that the type skips,
//! and whether serde took anything into a buffer, behind which it skips unseen.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor, value::StrDeserializer,
};

use super::wire::{self, Flaw, Token};

/// Reads one value. Recursion is bounded by [`wire::check`], which comes first.
pub(super) struct Reader<'de> {
    rest: &'de [u8],
    path: Vec<Step<'de>>,
    unknown: Option<String>,
    is_buffered: bool,
}

/// Which way was taken into an array or map. A key is its MessagePack form.
#[derive(Clone, Copy)]
enum Step<'de> {
    Index(u32),
    Key(&'de [u8]),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            &Self::Key(mut key) => match Token::read(&mut key) {
                Ok(token) => token.fmt(f),
                Err(_) => f.write_str("?"),
            },
        }
    }
}

impl<'de> Reader<'de> {
    /// Checks that `bytes` are one well-formed value.
    pub(super) fn new(bytes: &'de [u8]) -> Result<Self, Flaw> {
        wire::check(bytes)?;
        Ok(Self {
            rest: bytes,
            path: Vec::new(),
            unknown: None,
            is_buffered: false,
        })
    }

    /// Whether every byte was read.
    pub(super) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether serde buffered a part of the value, so that unknown fields in it may not have been seen.
    pub(super) const fn is_buffered(&self) -> bool {
        self.is_buffered
    }

    /// The path of the first value that the type ignored.
    pub(super) fn into_unknown(self) -> Option<String> {
        self.unknown
    }

    /// The path of the value that is being read; after an error, of the one that failed.
    pub(super) fn path(&self) -> String {
        self.path
            .iter()
            .map(Step::to_string)
            .collect::<Vec<_>>()
            .join(".")
    }

    fn peek(&self) -> Result<Token<'de>, Refusal> {
        Ok(Token::read(&mut { self.rest })?)
    }

    fn next(&mut self) -> Result<Token<'de>, Refusal> {
        Ok(Token::read(&mut self.rest)?)
    }

    /// Reads a value as what it is, whatever the type would like.
    fn visit<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Refusal> {
        match self.next()? {
            Token::Nil => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Uint(value) => visitor.visit_u64(value),
            Token::Int(value) => visitor.visit_i64(value),
            Token::F32(bits) => visitor.visit_f32(f32::from_bits(bits)),
            Token::F64(bits) => visitor.visit_f64(f64::from_bits(bits)),
            Token::Str(text) => visitor.visit_borrowed_str(utf8(text)?),
            Token::Bin(bytes) => visitor.visit_borrowed_bytes(bytes),
            Token::Array(len) => self.children(len, |children| visitor.visit_seq(children)),
            Token::Map(len) => self.children(len, |children| visitor.visit_map(children)),
        }
    }

    /// Lets `read` have `len` elements or pairs, all of which it must take.
    fn children<T>(
        &mut self,
        len: u32,
        read: impl FnOnce(&mut Children<'_, 'de>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut children = Children {
            reader: self,
            len,
            left: len,
        };
        let value = read(&mut children)?;
        match children.left {
            0 => Ok(value),
            left => Err(Refusal(format!(
                "{left} of {len} stored elements are more than it has"
            ))),
        }
    }

    fn inside<T>(
        &mut self,
        step: Step<'de>,
        read: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.path.push(step);
        let value = read(self)?; // after an error the path stays, to tell where
        self.path.pop();
        Ok(value)
    }
}

fn utf8(text: &[u8]) -> Result<&str, Refusal> {
    str::from_utf8(text).map_err(|_| Refusal("a string is not UTF-8".to_owned()))
}

/// Types that accept or refuse a value by what it is.
macro_rules! visit_as_stored {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            self.visit(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Refusal;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.is_buffered = true; // who doesn't say what it expects may well be a buffer
        self.visit(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if self.unknown.is_none() {
            self.unknown = Some(self.path());
        }
        let mut left = 1;
        while left > 0 {
            left += self.next()?.children().unwrap_or(0);
            left -= 1;
        }
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if self.peek()? == Token::Nil {
            self.next()?;
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if self.peek()? == Token::Array(0) {
            self.next()?;
            visitor.visit_unit()
        } else {
            self.visit(visitor)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self) // stored as what it wraps
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.wide()? {
            Some(bytes) => visitor.visit_i128(i128::from_be_bytes(bytes)),
            None => self.visit(visitor),
        }
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.wide()? {
            Some(bytes) => visitor.visit_u128(u128::from_be_bytes(bytes)),
            None => self.visit(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.next()? {
            Token::Str(variant) => visitor.visit_enum(StrDeserializer::new(utf8(variant)?)),
            Token::Map(1) => visitor.visit_enum(Variant { reader: self }),
            _ => Err(Refusal("invalid type: expected the name of a variant".to_owned())),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.visit(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.visit(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.visit(visitor)
    }

    visit_as_stored! {
        deserialize_bool deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_f32 deserialize_f64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_unit deserialize_seq deserialize_map deserialize_identifier
    }
}

impl Reader<'_> {
    /// A 128-bit number is stored as sixteen bytes.
    fn wide(&mut self) -> Result<Option<[u8; 16]>, Refusal> {
        let Token::Bin(bytes) = self.peek()? else {
            return Ok(None);
        };
        let wide = bytes.try_into().ok();
        if wide.is_some() {
            self.next()?;
        }
        Ok(wide)
    }
}

/// The elements of an array, or the pairs of a map.
struct Children<'a, 'de> {
    reader: &'a mut Reader<'de>,
    len: u32,
    left: u32,
}

impl<'de> SeqAccess<'de> for Children<'_, 'de> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let step = Step::Index(self.len - self.left);
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        self.reader
            .inside(step, |reader| seed.deserialize(reader))
            .map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left as usize)
    }
}

impl<'de> MapAccess<'de> for Children<'_, 'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let step = Step::Key(self.reader.rest);
        // The value's step stays on the path from here until the value was read.
        self.reader.path.push(step);
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let value = seed.deserialize(&mut *self.reader)?;
        self.reader.path.pop();
        Ok(value)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left as usize)
    }
}

/// A variant with data: a map with one pair, from the variant's name to the data.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refusal> {
        let step = Step::Key(self.reader.rest);
        self.reader.path.push(step);
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        Err(de::Error::invalid_type(
            Unexpected::NewtypeVariant,
            &"unit variant",
        ))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refusal> {
        let value = seed.deserialize(&mut *self.reader)?;
        self.reader.path.pop();
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.data(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.data(visitor)
    }
}

impl<'de> Variant<'_, 'de> {
    fn data<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let value = self.reader.visit(visitor)?;
        self.reader.path.pop();
        Ok(value)
    }
}

/// What the type, or the bytes, have against being read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(String);

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

impl From<Flaw> for Refusal {
    fn from(flaw: Flaw) -> Self {
        Self(flaw.to_string())
    }
}
