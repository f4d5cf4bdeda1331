//! JSON out: trees as Go's encoder writes them, which is serde's way but for the notation of floats.

use std::io;

use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::gotext;

/// Floats in Go's notation, the rest as another formatter has it.
struct Go<F> {
    inner: F,
    /// Whether zero loses its sign, as it does upstream by being stored and read again.
    stored: bool,
}

impl<F: Formatter> Formatter for Go<F> {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if self.stored && value == 0.0 {
            return writer.write_all(b"0");
        }
        writer.write_all(gotext::float(value).as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.inner.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.inner.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_value(writer)
    }
}

fn write<F: Formatter>(out: &mut Vec<u8>, value: &impl serde::Serialize, inner: F, stored: bool) {
    let mut serializer = Serializer::with_formatter(out, Go { inner, stored });
    value.serialize(&mut serializer).expect("a JSON tree encodes");
}

/// Appends a tree, or what holds trees, on one line.
pub fn append(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    write(out, value, CompactFormatter, false);
}

/// A tree on one line.
pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    append(&mut out, value);
    out
}

/// As [`to_vec`], as text.
pub fn to_text(value: &Value) -> String {
    String::from_utf8(to_vec(value)).expect("JSON is text")
}

/// A tree on indented lines.
pub fn to_vec_pretty(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    write(&mut out, value, PrettyFormatter::new(), false);
    out
}

/// A tree as it reads once it was stored.
pub fn to_vec_stored(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    write(&mut out, value, CompactFormatter, true);
    out
}
