//! Canonical JSON: one value, one sequence of bytes (the subset of RFC 8785 that needs no floating point).
//!
//! Objects have their keys in the order of their UTF-16 code units, no space stands between tokens, strings
//! escape only what they must, and numbers are integers within ±(2^53-1), which every JSON reader holds exactly.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

/// Bytes of canonical JSON that are written or read at most.
pub const MAX_BYTES: usize = 1 << 20;
/// How deep arrays and objects may nest.
pub const MAX_DEPTH: usize = 32;
/// The largest magnitude of a number: 2^53 - 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why a value has no canonical form here, or why bytes are not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    #[error("not representable as JSON: {0}")]
    Unserializable(String),
    #[error("a number that is no integer within ±(2^53-1)")]
    Number,
    #[error("nested deeper than {MAX_DEPTH} levels")]
    Depth,
    #[error("longer than {MAX_BYTES} bytes")]
    Size,
    #[error("not JSON: {0}")]
    Syntax(String),
    #[error("not in canonical form from byte {at}")]
    Form {
        /// The first byte that differs from the canonical form of the same value.
        at: usize,
    },
}

/// Writes the canonical form of anything serde can turn into JSON.
///
/// Floating point is refused, except that serde_json itself turns a NaN or an infinity into `null` before it
/// is seen here: log no floating point at all.
pub fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value).map_err(|error| CanonicalError::Unserializable(error.to_string()))?;
    value_to_vec(&value)
}

/// Writes the canonical form of a JSON value.
pub fn value_to_vec(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::new();
    write(value, 0, &mut out)?;
    Ok(out)
}

/// Reads bytes that must be canonical, to the byte; duplicate keys, spaces, needless escapes, other number
/// forms and trailing bytes are all refused.
pub fn parse(bytes: &[u8]) -> Result<Value, CanonicalError> {
    if bytes.len() > MAX_BYTES {
        return Err(CanonicalError::Size);
    }
    // serde_json stops by itself at a depth of 128, so a hostile nest cannot exhaust the stack.
    let value: Value = serde_json::from_slice(bytes).map_err(|error| CanonicalError::Syntax(error.to_string()))?;
    let again = value_to_vec(&value)?;
    if again == bytes {
        return Ok(value);
    }
    let at = again.iter().zip(bytes).take_while(|(ours, theirs)| ours == theirs).count();
    Err(CanonicalError::Form { at })
}

/// Whether `bytes` are exactly the canonical form of some value; [`parse`] says why not.
pub fn is_canonical(bytes: &[u8]) -> bool {
    parse(bytes).is_ok()
}

fn write(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    if out.len() > MAX_BYTES {
        return Err(CanonicalError::Size);
    }
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Number(number) => {
            let integer = number.as_i64().ok_or(CanonicalError::Number)?;
            if integer.unsigned_abs() > MAX_INTEGER {
                return Err(CanonicalError::Number);
            }
            write!(out, "{integer}").expect("writing to memory cannot fail");
        }
        Value::String(text) => write_string(text, out)?,
        Value::Array(items) => {
            nested(depth)?;
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, depth + 1, out)?;
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            nested(depth)?;
            // The map's own order depends on a feature that any other crate may switch on: sort here.
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (at, (key, field)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(key, out)?;
                out.push(b':');
                write(field, depth + 1, out)?;
            }
            out.push(b'}');
        }
    }
    if out.len() > MAX_BYTES { Err(CanonicalError::Size) } else { Ok(()) }
}

fn nested(depth: usize) -> Result<(), CanonicalError> {
    if depth >= MAX_DEPTH { Err(CanonicalError::Depth) } else { Ok(()) }
}

fn write_string(text: &str, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    if text.len() > MAX_BYTES {
        return Err(CanonicalError::Size);
    }
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend(b"\\\""),
            b'\\' => out.extend(b"\\\\"),
            0x08 => out.extend(b"\\b"),
            b'\t' => out.extend(b"\\t"),
            b'\n' => out.extend(b"\\n"),
            0x0c => out.extend(b"\\f"),
            b'\r' => out.extend(b"\\r"),
            0..0x20 => write!(out, "\\u{byte:04x}").expect("writing to memory cannot fail"),
            other => out.push(other),
        }
    }
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests;
