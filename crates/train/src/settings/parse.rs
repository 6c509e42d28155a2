//! Settings from TOML, with a helpful word for keys that are not known.

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use crate::error::{Result, TrainError};

/// Settings of any kind from TOML.
///
/// # Errors
/// [`TrainError::UnknownKey`] for a key that is not known, with the nearest that is; [`TrainError::Settings`] for text that is
/// no TOML, or a value of another kind than its key takes.
pub fn parse<T: Serialize + DeserializeOwned + Default>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        unknown_key::<T>(text, &error).unwrap_or_else(|| TrainError::Settings(error.to_string()))
    })
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    /// Tables that it lies in, such as `train.optimizer`; empty for none.
    table: String,
    name: String,
}

/// The error for an unknown key, if that is what `error` is about.
fn unknown_key<T: Serialize + Default>(text: &str, error: &toml::de::Error) -> Option<TrainError> {
    // What serde says of unknown fields: the field, and those that there are, each in backticks.
    let message = error.message().strip_prefix("unknown field ")?;
    let mut quoted = message.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    let (table, place) = find(text, name, error.span())?;
    let siblings: Vec<Key> = quoted
        .map(|name| Key {
            table: table.clone(),
            name: name.to_owned(),
        })
        .collect();
    let line = text.get(..place)?.matches('\n').count() + 1;
    let nearest = nearest(name, siblings, &known::<T>());
    Some(TrainError::UnknownKey {
        line,
        table: in_table(&table),
        key: name.to_owned(),
        nearest: nearest.map_or_else(
            || "this table has none".to_owned(),
            |key| format!("the nearest is `{}` in {}", key.name, in_table(&key.table)),
        ),
    })
}

/// A table in words.
fn in_table(table: &str) -> String {
    if table.is_empty() {
        "the file itself".to_owned()
    } else {
        format!("[{table}]")
    }
}

/// The key that looks most alike: one of the same name wherever it is, or else the most similar, those of the same table first.
fn nearest(name: &str, siblings: Vec<Key>, known: &[Key]) -> Option<Key> {
    let likeness = |key: &Key| strsim::normalized_damerau_levenshtein(&key.name, name);
    let best = |mut keys: Vec<Key>| {
        keys.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
        keys.into_iter().next()
    };
    let same = known.iter().find(|key| key.name == name).cloned();
    let (near, far) = (best(siblings), best(known.to_vec()));
    same.or(match (near, far) {
        // A key of another table has to be much more alike.
        (Some(near), Some(far)) if likeness(&far) > likeness(&near) + 0.25 => Some(far),
        (near, far) => near.or(far),
    })
}

/// All keys that the defaults have.
fn known<T: Serialize + Default>() -> Vec<Key> {
    fn gather(table: &toml::Table, path: &str, keys: &mut Vec<Key>) {
        for (name, value) in table {
            keys.push(Key {
                table: path.to_owned(),
                name: name.clone(),
            });
            if let Some(inner) = value.as_table() {
                gather(inner, &join(path, name), keys);
            }
        }
    }
    let mut keys = Vec::new();
    if let Ok(defaults) = toml::Table::try_from(T::default()) {
        gather(&defaults, "", &mut keys);
    }
    keys
}

fn join(table: &str, name: &str) -> String {
    if table.is_empty() {
        name.to_owned()
    } else {
        format!("{table}.{name}")
    }
}

/// Table and place of the key `name` that an error at `span` is about. Where the kind of a table is one of its keys, the
/// error's span is that of the table, or none.
fn find(text: &str, name: &str, span: Option<Range<usize>>) -> Option<(String, usize)> {
    fn search(value: &DeValue<'_>, path: &str, name: &str, found: &mut Vec<(String, usize)>) {
        if let Some(table) = value.as_table() {
            search_table(table, path, name, found);
        } else if let Some(array) = value.as_array() {
            for value in array {
                search(value.get_ref(), path, name, found);
            }
        }
    }
    fn search_table(table: &DeTable<'_>, path: &str, name: &str, found: &mut Vec<(String, usize)>) {
        for (key, value) in table {
            if key.get_ref() == name {
                found.push((path.to_owned(), key.span().start));
            }
            search(value.get_ref(), &join(path, key.get_ref()), name, found);
        }
    }
    let document = DeTable::parse(text).ok()?;
    let mut found = Vec::new();
    search_table(document.get_ref(), "", name, &mut found);
    found.sort_by_key(|(_, place)| *place);
    let inside = span.and_then(|span| {
        found
            .iter()
            .find(|(_, place)| span.contains(place))
            .cloned()
    });
    inside.or_else(|| found.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn the_nearest_key_its_table_and_the_line_are_named() {
        for (text, line, table, nearest) in [
            ("[train]\nepoch = 3\n", 2, "[train]", "`epochs` in [train]"),
            // One table's key in another, or in none.
            (
                "[model]\n\nepochs = 3\n",
                3,
                "[model]",
                "`epochs` in [train]",
            ),
            ("epochs = 3\n", 1, "the file itself", "`epochs` in [train]"),
            (
                "[tarin]\nepochs = 3\n",
                1,
                "the file itself",
                "`train` in the file itself",
            ),
            // A table whose kind is one of its keys.
            (
                "[train]\nepochs = 2\n[train.optimizer]\nkind = \"sgd\"\nmomentun = 0.9\nweight_decay = 0.0\n",
                5,
                "[train.optimizer]",
                "`momentum` in [train.optimizer]",
            ),
            (
                "train.batchsize = 2\n",
                1,
                "[train]",
                "`batch_size` in [train]",
            ),
            (
                "[data]\nread = { means = [0.0, 0.0, 0.0] }\n",
                2,
                "[data.read]",
                "`mean` in [data.read]",
            ),
        ] {
            let error = Settings::from_toml(text).unwrap_err();
            assert!(
                matches!(error, TrainError::UnknownKey { line: found, .. } if found == line),
                "{error}"
            );
            let message = error.to_string();
            for part in [
                &format!("line {line}:"),
                &format!("{table} has no"),
                nearest,
            ] {
                assert!(message.contains(part), "{part:?} in {message:?}");
            }
        }
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let message = Settings::from_toml("[train]\nepochs = \n")
            .unwrap_err()
            .to_string();
        assert!(message.contains("line 2"), "{message}");
        let message = Settings::from_toml("[train]\nepochs = \"many\"\n")
            .unwrap_err()
            .to_string();
        assert!(message.contains("line 2"), "{message}");
    }
}
