//! A file of settings over the defaults of an experiment.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stream_grad_cli::exit::WrongUse;
use stream_grad_train::settings::parse;
use toml::{Table, Value};

/// What the file `path` says, and `defaults` for what it does not say.
pub(crate) fn read<T>(path: &Path, defaults: &T) -> anyhow::Result<T>
where
    T: Serialize + DeserializeOwned + Default,
{
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path)
        .with_context(name)
        .map_err(WrongUse::from_error)?;
    over(&text, defaults)
        .with_context(name)
        .map_err(WrongUse::from_error)
}

/// What the TOML `text` says, and `defaults` for what it does not say.
pub(crate) fn over<T>(text: &str, defaults: &T) -> anyhow::Result<T>
where
    T: Serialize + DeserializeOwned + Default,
{
    // By itself first: messages name its lines.
    parse::<T>(text)?;
    let mut table = Table::try_from(defaults)?;
    merge(&mut table, text.parse()?);
    Ok(parse(&table.to_string())?)
}

/// Puts the values of `over` into `table`. A table that says its kind is whole: keys of another kind would be none of its own.
fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) if !over.contains_key("kind") => {
                merge(inner, over);
            }
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}
