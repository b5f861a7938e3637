//! Finding a `Some` that would be stored as nil and come back as `None`.
//!
//! The stored form alone cannot tell: both are the same byte. So this module owns a serializer that stores nothing and
//! only watches what the value says of itself.

use std::fmt;

use serde::{
    Serialize,
    ser::{self, Serializer},
};

use super::{StoredValue, tree::Tree};

/// The place of a `Some(None)` or `Some(())` in `value`, if there is one.
pub(super) fn find<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    let mut path = Vec::new();
    match value.serialize(Finder {
        path: &mut path,
        in_some: false,
    }) {
        Err(Stop::Found) if path.is_empty() => Some("it".to_owned()),
        Err(Stop::Found) => Some(format!("`{}`", path.join("."))),
        Ok(()) | Err(Stop::Failed) => None,
    }
}

/// Looks at one value. The names in `path` lead to it.
struct Finder<'a> {
    path: &'a mut Vec<String>,
    /// Whether the value is directly inside a `Some`.
    in_some: bool,
}

/// Ends the search.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("found")]
    Found,
    /// The type's own error; encoding meets it as well.
    #[error("failed")]
    Failed,
}

impl ser::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Failed
    }
}

impl<'a> Finder<'a> {
    fn nil(self) -> Result<(), Stop> {
        if self.in_some { Err(Stop::Found) } else { Ok(()) }
    }

    fn children(self) -> Result<Children<'a>, Stop> {
        Ok(Children {
            depth: self.path.len(),
            path: self.path,
            count: 0,
        })
    }

    fn variant(self, name: &str) -> Result<Children<'a>, Stop> {
        let depth = self.path.len();
        self.path.push(name.to_owned());
        Ok(Children {
            depth,
            path: self.path,
            count: 0,
        })
    }
}

/// Looks at the values in an array, a map or a variant.
struct Children<'a> {
    path: &'a mut Vec<String>,
    /// The length of `path` before it was entered, and again after it.
    depth: usize,
    count: usize,
}

impl Children<'_> {
    fn named<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Stop> {
        self.path.push(name.to_owned());
        self.unnamed(value)?;
        self.path.pop();
        Ok(())
    }

    fn numbered<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
        self.count += 1;
        self.named(&(self.count - 1).to_string(), value)
    }

    fn unnamed<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
        value.serialize(Finder {
            path: self.path,
            in_some: false,
        })
    }

    fn leave(self) -> Result<(), Stop> {
        self.path.truncate(self.depth);
        Ok(())
    }
}

macro_rules! never_nil {
    ($($method:ident($type:ty),)*) => {
        $(fn $method(self, _: $type) -> Result<(), Stop> {
            Ok(())
        })*
    };
}

impl<'a> Serializer for Finder<'a> {
    type Ok = ();
    type Error = Stop;
    type SerializeSeq = Children<'a>;
    type SerializeTuple = Children<'a>;
    type SerializeTupleStruct = Children<'a>;
    type SerializeTupleVariant = Children<'a>;
    type SerializeMap = Children<'a>;
    type SerializeStruct = Children<'a>;
    type SerializeStructVariant = Children<'a>;

    never_nil! {
        serialize_bool(bool), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]),
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_i128(i128),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_u128(u128),
        serialize_f32(f32), serialize_f64(f64), serialize_unit_struct(&'static str),
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_none(self) -> Result<(), Stop> {
        self.nil()
    }

    fn serialize_unit(self) -> Result<(), Stop> {
        self.nil()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Stop> {
        value.serialize(Finder {
            in_some: true,
            ..self
        })
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Stop> {
        value.serialize(self) // stored as what it wraps
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Stop> {
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Stop> {
        let mut children = self.variant(variant)?;
        children.unnamed(value)?;
        children.leave()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Children<'a>, Stop> {
        self.children()
    }

    fn serialize_tuple(self, _: usize) -> Result<Children<'a>, Stop> {
        self.children()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Children<'a>, Stop> {
        self.children()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Children<'a>, Stop> {
        self.variant(variant)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Children<'a>, Stop> {
        self.children()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Children<'a>, Stop> {
        self.children()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Children<'a>, Stop> {
        self.variant(variant)
    }
}

/// The traits whose elements have numbers, and those whose elements have names.
macro_rules! children {
    (numbered: $($trait:ident::$method:ident,)*; named: $($named:ident,)*) => {
        $(impl ser::$trait for Children<'_> {
            type Ok = ();
            type Error = Stop;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
                self.numbered(value)
            }

            fn end(self) -> Result<(), Stop> {
                self.leave()
            }
        })*
        $(impl ser::$named for Children<'_> {
            type Ok = ();
            type Error = Stop;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Stop> {
                self.named(name, value)
            }

            fn end(self) -> Result<(), Stop> {
                self.leave()
            }
        })*
    };
}

children! {
    numbered:
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,;
    named:
    SerializeStruct,
    SerializeStructVariant,
}

impl ser::SerializeMap for Children<'_> {
    type Ok = ();
    type Error = Stop;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Stop> {
        self.path.truncate(self.depth);
        self.path.push(key_label(key));
        self.unnamed(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stop> {
        self.unnamed(value)
    }

    fn end(self) -> Result<(), Stop> {
        self.leave()
    }
}

/// A map's key in words.
fn key_label<T: Serialize + ?Sized>(key: &T) -> String {
    let stored = StoredValue::encode(key).ok();
    let tree = stored
        .as_ref()
        .and_then(|stored| Tree::parse(stored.bytes()).ok());
    tree.map_or_else(|| "?".to_owned(), |tree| tree.label())
}
