//! Numbers that are not JSON.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::read::Notes;
use crate::error::Result;

/// How QuPath before 0.5, Python and others write numbers that JSON does not have. Later versions of QuPath write them as text.
const BARE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// The text as JSON: as it is, or with quotes around each of [`BARE`] where that makes it JSON.
pub(super) fn as_json<'a>(text: &'a str, notes: &mut Notes<'_>) -> Result<Cow<'a, str>> {
    let Err(error) = serde_json::from_str::<IgnoredAny>(text) else {
        return Ok(Cow::Borrowed(text));
    };
    let Some(quoted) = Quoted::new(text) else {
        let place = format!("line {}, column {}", error.line(), error.column());
        return Err(notes.refuse(place, "GeoJSON", error));
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&quoted.text) {
        // Columns are no longer those of the file.
        return Err(notes.refuse(format!("line {}", error.line()), "GeoJSON", error));
    }
    let Quoted { text, first, count } = quoted;
    notes.pass_over(
        format!("line {}, column {}", first.line, first.column),
        "a number of JSON",
        format!("{} (the first of {count} such)", first.token),
    )?;
    Ok(Cow::Owned(text))
}

/// A text in which bare tokens are quoted.
struct Quoted {
    text: String,
    first: Place,
    count: usize,
}

struct Place {
    line: usize,
    column: usize,
    token: &'static str,
}

impl Quoted {
    /// None where there is no such token.
    fn new(text: &str) -> Option<Self> {
        let mut quoted = String::with_capacity(text.len());
        let (mut first, mut count) = (None, 0);
        let mut rest = text;
        let mut is_in_string = false;
        while let Some(character) = rest.chars().next() {
            let token = BARE.iter().find(|token| rest.starts_with(**token));
            let length = match (is_in_string, character, token) {
                (true, '\\', _) => {
                    character.len_utf8() + rest.chars().nth(1).map_or(0, char::len_utf8)
                }
                (_, '"', _) => {
                    is_in_string = !is_in_string;
                    1
                }
                (false, _, Some(token)) => {
                    let read = text.get(..text.len() - rest.len()).unwrap_or_default();
                    first.get_or_insert_with(|| Place {
                        line: read.matches('\n').count() + 1,
                        column: read.chars().rev().take_while(|&c| c != '\n').count() + 1,
                        token,
                    });
                    count += 1;
                    quoted.push('"');
                    token.len()
                }
                _ => character.len_utf8(),
            };
            let (taken, after) = rest.split_at_checked(length)?;
            quoted.push_str(taken);
            if !is_in_string && BARE.contains(&taken) {
                quoted.push('"');
            }
            rest = after;
        }
        Some(Self {
            text: quoted,
            first: first?,
            count,
        })
    }
}
