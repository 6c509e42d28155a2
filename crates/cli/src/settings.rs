//! Settings of a training from a file and from flags, which go before it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use stream_grad_train::TrainError;
use stream_grad_train::model::Precision;
use stream_grad_train::settings::{Settings, parse};
use toml::{Table, Value};

use crate::arguments::{SettingsArguments, TaskKind};
use crate::exit::WrongUse;

/// A key of a run.toml with the value that a flag gives it.
struct Override {
    /// The flag, as a person wrote it.
    flag: String,
    /// Tables and key, with points between them.
    key: String,
    value: Value,
}

/// The settings of `file`, or the defaults, with what the flags say.
///
/// # Errors
/// [`WrongUse`] for a key that is not known, and for a value that cannot be used.
pub fn settings(file: Option<&Path>, arguments: &SettingsArguments) -> anyhow::Result<Settings> {
    let mut table = match file {
        // Checked by itself: messages name its lines.
        Some(file) => read(file)?,
        None => Table::new(),
    };
    for Override { flag, key, value } in overrides(arguments)? {
        let mut alone = Table::new();
        insert(&mut alone, &key, value.clone());
        parse::<Settings>(&alone.to_string()).map_err(|error| wrong_flag(&flag, error))?;
        insert(&mut table, &key, value);
    }
    Settings::from_toml(&table.to_string()).map_err(WrongUse::from_error)
}

/// The folder that paths of the settings are relative to.
#[must_use]
pub fn base(file: Option<&Path>) -> &Path {
    file.and_then(Path::parent).unwrap_or(Path::new(""))
}

fn read(file: &Path) -> anyhow::Result<Table> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file)
        .with_context(name)
        .map_err(WrongUse::from_error)?;
    Settings::from_toml(&text)
        .with_context(name)
        .map_err(WrongUse::from_error)?;
    text.parse().with_context(name)
}

/// The error without its line, which is none of a file's.
fn wrong_flag(flag: &str, error: TrainError) -> anyhow::Error {
    let what = match error {
        TrainError::UnknownKey {
            table,
            key,
            nearest,
            ..
        } => format!("{table} has no key `{key}`; {nearest}"),
        other => other.to_string(),
    };
    WrongUse::error(format!("{flag}: {what}"))
}

/// Sets a key, making the tables that it lies in.
fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((name, rest)) => {
            let inner = table.entry(name).or_insert_with(|| Table::new().into());
            if !inner.is_table() {
                *inner = Table::new().into();
            }
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// What the flags say, in the order in which it counts: a flag of its own goes before `--set`.
fn overrides(arguments: &SettingsArguments) -> anyhow::Result<Vec<Override>> {
    let SettingsArguments {
        csv,
        folder,
        task,
        classes,
        slide_column,
        label_column,
        mask_column,
        patient_column,
        split_column,
        mpp,
        slide_mpp,
        folds,
        model,
        dtype,
        memory,
        offload,
        threads,
        epochs,
        batch_size,
        learning_rate,
        seed,
        seeds,
        set,
    } = arguments;
    let mut all = Vec::new();
    for pair in set {
        all.push(any_key(pair)?);
    }
    let mut push = |flag: &str, key: &str, value: Option<Value>| {
        let (flag, key) = (flag.to_owned(), key.to_owned());
        all.extend(value.map(|value| Override { flag, key, value }));
    };
    let text = |text: &Option<String>| text.clone().map(Value::String);
    let count = |count: &Option<u32>| count.map(|count| Value::Integer(count.into()));
    let number = |number: &Option<f64>| number.map(Value::Float);
    let labels = match label_column.as_slice() {
        [] => None,
        [one] => Some(one.clone().into()),
        several => Some(several.to_vec().into()),
    };
    push("--csv", "data.csv", path(csv)?);
    push("--folder", "data.folder", path(folder)?);
    push("--slide-column", "data.slide_column", text(slide_column));
    push("--label-column", "data.label_column", labels);
    push("--mask-column", "data.mask_column", text(mask_column));
    push(
        "--patient-column",
        "data.patient_column",
        text(patient_column),
    );
    push("--split-column", "data.split_column", text(split_column));
    push("--classes", "data.classes", list(classes));
    push("--task", "data.task", task_value(*task, classes.len())?);
    push("--folds", "data.folds", count(folds));
    push("--mpp", "data.microns_per_pixel", list(mpp));
    push("--slide-mpp", "data.read.scale_override", number(slide_mpp));
    push("--model", "model.name", text(model));
    let dtype = dtype.map(|dtype| Precision::from(dtype).as_str());
    push("--dtype", "model.dtype", dtype.map(Value::from));
    let memory = memory.map(|memory| i64::try_from(memory.get()).unwrap_or(i64::MAX));
    push("--memory", "model.memory_bytes", memory.map(Value::Integer));
    push("--offload", "model.offload", path(offload)?);
    push("--threads", "model.threads", count(threads));
    push("--epochs", "train.epochs", count(epochs));
    push("--batch-size", "train.batch_size", count(batch_size));
    push(
        "--learning-rate",
        "train.learning_rate",
        number(learning_rate),
    );
    push("--seed", "train.seed", count(seed));
    push("--seeds", "train.seeds", count(seeds));
    Ok(all)
}

/// Of `--set KEY=VALUE`. A value that is no TOML is text.
fn any_key(pair: &str) -> anyhow::Result<Override> {
    let Some((key, value)) = pair.split_once('=') else {
        return Err(WrongUse::error(format!(
            "--set {pair}: expected KEY=VALUE, such as train.epochs=30"
        )));
    };
    let (key, value) = (key.trim(), value.trim());
    let parsed = format!("value = {value}").parse::<Table>();
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    Ok(Override {
        flag: format!("--set {pair}"),
        key: key.to_owned(),
        value: parsed.unwrap_or_else(|| value.into()),
    })
}

fn list<T: Clone + Into<Value>>(values: &[T]) -> Option<Value> {
    (!values.is_empty()).then(|| Value::Array(values.iter().cloned().map(Into::into).collect()))
}

/// A path that does not depend on where settings lie.
fn path(path: &Option<PathBuf>) -> anyhow::Result<Option<Value>> {
    let Some(path) = path else { return Ok(None) };
    let whole = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let text = whole.to_str().ok_or_else(|| {
        WrongUse::error(format!(
            "{}: expected a path in UTF-8, which a run.toml can hold",
            whole.display()
        ))
    })?;
    Ok(Some(text.into()))
}

/// The task as it stands in a run.toml: with the number of its classes.
fn task_value(task: Option<TaskKind>, classes: usize) -> anyhow::Result<Option<Value>> {
    let Some(task) = task else { return Ok(None) };
    let (kind, number) = match task {
        TaskKind::Binary => ("binary", None),
        TaskKind::Classification => ("classification", Some("classes")),
        TaskKind::MultiLabel => ("multi_label", Some("labels")),
        TaskKind::Ordinal => ("ordinal", Some("levels")),
        TaskKind::Regression => ("regression", None),
        TaskKind::Segmentation => ("segmentation", Some("classes")),
    };
    let mut table = Table::new();
    table.insert("kind".to_owned(), kind.into());
    if let Some(name) = number {
        if classes == 0 {
            return Err(WrongUse::error(format!(
                "--task {kind}: expected --classes with their names, such as --classes a,b,c"
            )));
        }
        table.insert(name.to_owned(), i64::try_from(classes)?.into());
    }
    Ok(Some(table.into()))
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    /// A command line with every flag, and what each is called.
    fn every_flag() -> (SettingsArguments, Vec<String>) {
        let command = SettingsArguments::augment_args(Command::new("train"));
        let flags: Vec<String> = command
            .get_arguments()
            .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
            .collect();
        let mut line = vec!["train".to_owned()];
        for flag in flags.iter().filter(|flag| *flag != "--set") {
            let value = match flag.as_str() {
                "--task" => "classification",
                "--classes" => "low,mid,high",
                "--mpp" => "4,2",
                "--slide-mpp" | "--learning-rate" => "0.25",
                "--memory" => "2GiB",
                "--dtype" => "bf16",
                "--threads" | "--seeds" => "2",
                "--folds" | "--epochs" | "--batch-size" | "--seed" => "5",
                _ => "other",
            };
            line.extend([flag.clone(), value.to_owned()]);
        }
        let matches = command.try_get_matches_from(line).unwrap();
        let arguments = SettingsArguments::from_arg_matches(&matches).unwrap();
        (arguments, flags)
    }

    #[test]
    fn every_flag_gives_its_value_to_a_key_that_there_is() {
        let (arguments, flags) = every_flag();
        let all = overrides(&arguments).unwrap();
        let given: Vec<&str> = all.iter().map(|one| one.flag.as_str()).collect();
        for flag in flags.iter().filter(|flag| *flag != "--set") {
            assert!(given.contains(&flag.as_str()), "{flag} in {given:?}");
        }
        let settings = Table::try_from(settings(None, &arguments).unwrap()).unwrap();
        let defaults = Table::try_from(Settings::default()).unwrap();
        let settings = Value::from(settings);
        let defaults = Value::from(defaults);
        for Override { flag, key, value } in &all {
            let find = |table: &Value| {
                let mut names = key.split('.');
                names.try_fold(table.clone(), |table, name| table.get(name).cloned())
            };
            assert_eq!(find(&settings).as_ref(), Some(value), "{flag}: {key}");
            assert_ne!(find(&defaults).as_ref(), Some(value), "{flag}: {key}");
        }
    }
}
