//! Bytes of a file as text.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::read::Notes;
use crate::error::Result;

/// The text of a file. Its encoding is the first that is found of these: a byte order mark; zero bytes, which UTF-16 has between
/// ASCII characters; an XML declaration; UTF-8.
///
/// Notes tell of bytes that are not valid in the encoding. If it is UTF-8, the whole file is then read as Windows-1252: programs that
/// write in the system's encoding write that. In other encodings, U+FFFD takes the place of such bytes.
pub(super) fn decode<'a>(bytes: &'a [u8], notes: &mut Notes<'_>) -> Result<Cow<'a, str>> {
    let (encoding, bytes) = match Encoding::for_bom(bytes) {
        Some((encoding, mark)) => (encoding, bytes.get(mark..).unwrap_or_default()),
        None => match bytes {
            // The first character of both formats is ASCII.
            [0, 1..=u8::MAX, ..] => (UTF_16BE, bytes),
            [1..=u8::MAX, 0, ..] => (UTF_16LE, bytes),
            _ => (declared(bytes, notes)?, bytes),
        },
    };
    if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(bytes) {
        return Ok(text);
    }
    let place = match std::str::from_utf8(bytes) {
        Err(error) if encoding == UTF_8 => format!("byte {}", error.valid_up_to()),
        _ => "the whole text".to_owned(),
    };
    notes.pass_over(place, format!("text in {}", encoding.name()), "other bytes")?;
    let likely = if encoding == UTF_8 {
        WINDOWS_1252
    } else {
        encoding
    };
    Ok(likely.decode_without_bom_handling(bytes).0)
}

/// The encoding of an XML declaration; UTF-8 where there is none.
fn declared(bytes: &[u8], notes: &mut Notes<'_>) -> Result<&'static Encoding> {
    let bytes = bytes.trim_ascii_start();
    let declaration = bytes
        .starts_with(b"<?xml")
        .then(|| {
            let end = bytes.windows(2).position(|pair| pair == b"?>")?;
            bytes.get(..end + 2)
        })
        .flatten()
        .and_then(|declaration| std::str::from_utf8(declaration).ok());
    let Some(declaration) = declaration else {
        return Ok(UTF_8);
    };
    let Ok(Event::Decl(declaration)) = Reader::from_str(declaration).read_event() else {
        return Ok(UTF_8);
    };
    let Some(Ok(name)) = declaration.encoding() else {
        return Ok(UTF_8);
    };
    match Encoding::for_label(name.as_bytes()) {
        // The declaration was read byte by byte, so this is wrong: .NET writes it of text that it keeps in memory.
        Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => Ok(UTF_8),
        Some(encoding) => Ok(encoding),
        None => {
            notes.pass_over("the XML declaration", "a known encoding", name)?;
            Ok(UTF_8)
        }
    }
}
