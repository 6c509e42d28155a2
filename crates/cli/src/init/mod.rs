//! `stream-grad init`: a run.toml to start from, with every key.

mod render;

use std::path::Path;

use anyhow::Context;
use schemars::generate::SchemaSettings;
use stream_grad_files::write_whole;
use stream_grad_train::settings::Settings;
use toml::Table;

use crate::arguments::InitArguments;
use crate::exit::WrongUse;
use crate::settings::settings;

/// What the file begins with.
const HEADER: &str = "\
# Settings of `stream-grad train`: every key with its default, or with what a flag of `stream-grad init` gave it.
# A key that is not here is as by default. Paths are relative to the folder of this file.
";

/// Writes the file, unless one is there.
///
/// # Errors
/// [`WrongUse`] if the file is there already, or as [`settings`]; if it cannot be written.
pub fn run(arguments: &InitArguments) -> anyhow::Result<()> {
    let file = &arguments.file;
    if file.symlink_metadata().is_ok() {
        return Err(WrongUse::error(format!(
            "{} is there already and stays as it is: give another name, as `stream-grad init other.toml`",
            file.display()
        )));
    }
    let settings = settings(None, &arguments.settings)?;
    write_whole(file, text(&settings, file)?.as_bytes())?;
    println!(
        "{} has every setting; go on with\n    stream-grad train {}",
        file.display(),
        file.display()
    );
    Ok(())
}

/// The settings as commented TOML, as they stand in `file`.
fn text(settings: &Settings, file: &Path) -> anyhow::Result<String> {
    let mut values = Table::try_from(settings)?;
    let file = std::path::absolute(file).with_context(|| file.display().to_string())?;
    if let (Some(base), Some(data)) = (file.parent(), values.get_mut("data")) {
        for key in ["csv", "folder"] {
            make_relative(data, key, base);
        }
    }
    let generator = SchemaSettings::draft2020_12().for_serialize();
    let schema = generator
        .into_generator()
        .into_root_schema_for::<Settings>();
    Ok(HEADER.to_owned() + &render::render(schema.as_value(), &values))
}

/// A path below `base` relative to it, so that both can be moved together.
fn make_relative(table: &mut toml::Value, key: &str, base: &Path) {
    let Some(value) = table.get_mut(key) else {
        return;
    };
    let below = value.as_str().map(Path::new);
    let below = below.and_then(|path| path.strip_prefix(base).ok());
    if let Some(below) = below.and_then(Path::to_str) {
        *value = below.to_owned().into();
    }
}

#[cfg(test)]
mod tests {
    use stream_grad_train::optimizer::OptimizerKind;

    use super::*;

    #[test]
    fn the_file_gives_the_settings_that_it_was_made_from() {
        let mut other = Settings::default();
        other.train.epochs = 7;
        for settings in [Settings::default(), other] {
            let text = text(&settings, Path::new("run.toml")).unwrap();
            assert_eq!(Settings::from_toml(&text).unwrap(), settings, "{text}");
        }
    }

    /// Every key has words above it, and each table, too.
    #[test]
    fn every_key_is_documented() {
        let text = text(&Settings::default(), Path::new("run.toml")).unwrap();
        let mut above = "";
        for line in text.lines() {
            let is_key = line.starts_with(|first: char| first.is_ascii_lowercase());
            if is_key && !line.starts_with("kind = ") {
                assert!(above.starts_with("# "), "{above:?} above {line:?}");
            }
            if line.starts_with('[') {
                assert!(above.starts_with("# "), "{above:?} above {line:?}");
            }
            above = line;
        }
    }

    /// A key that stands in the file as a comment.
    struct Hidden {
        line: usize,
        key: String,
        /// The kind that it belongs to, where its table has another one.
        kind: Option<String>,
    }

    /// Every key that the file has as a comment, and none of the words above keys.
    fn hidden(text: &str) -> Vec<Hidden> {
        let mut kind = None;
        let mut hidden = Vec::new();
        for (line, words) in text.lines().enumerate() {
            if let Some(of) = words.strip_prefix("# Of \"") {
                kind = of.split('"').next().map(str::to_owned);
            }
            let pair = words
                .strip_prefix("# ")
                .and_then(|pair| pair.split_once(" = "));
            let is_name = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if let Some((key, _)) = pair.filter(|(key, _)| is_name(key)) {
                let (key, kind) = (key.to_owned(), kind.take());
                hidden.push(Hidden { line, key, kind });
            }
        }
        hidden
    }

    /// The file with some of these made active. Where they belong to another kind, their table has that, and no key of the one before.
    fn shown(text: &str, hidden: &[&Hidden]) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        for Hidden { line, kind, .. } in hidden {
            lines[*line] = lines[*line].strip_prefix("# ").unwrap();
            if kind.is_some() {
                let start = lines[..*line]
                    .iter()
                    .rposition(|line| line.starts_with('['));
                for above in &mut lines[start.unwrap() + 1..*line] {
                    if !above.starts_with('#') {
                        *above = "";
                    }
                }
            }
        }
        let mut text = String::new();
        for (place, line) in lines.iter().enumerate() {
            text += line;
            text.push('\n');
            let here = hidden.iter().find(|hidden| hidden.line == place);
            if let Some(kind) = here.and_then(|hidden| hidden.kind.as_ref()) {
                text += &format!("kind = \"{kind}\"\n");
            }
        }
        text
    }

    #[test]
    fn what_is_a_comment_is_legal_without_its_sign() {
        // The default optimiser has all keys of the others, so that another one shows those of another kind.
        let mut adamw = Settings::default();
        adamw.train.optimizer = OptimizerKind::ADAMW;
        let keys = ["csv", "folds", "patience", "levels", "ema_decay", "frozen"];
        comments_are_legal(&Settings::default(), &keys);
        comments_are_legal(&adamw, &[&keys[..], &["momentum"]].concat());
    }

    /// Each of these keys is a comment in the file of `begin`, and each comment and all together are legal settings other than that.
    fn comments_are_legal(begin: &Settings, expected: &[&str]) {
        let text = text(begin, Path::new("run.toml")).unwrap();
        let all = hidden(&text);
        let keys: Vec<&str> = all.iter().map(|hidden| hidden.key.as_str()).collect();
        for key in expected {
            assert!(keys.contains(key), "{key} in {keys:?}");
        }
        let check = |chosen: &[&Hidden]| {
            let shown = shown(&text, chosen);
            let settings = Settings::from_toml(&shown);
            let keys: Vec<&str> = chosen.iter().map(|hidden| hidden.key.as_str()).collect();
            assert!(settings.is_ok(), "{keys:?}: {}", settings.unwrap_err());
            assert_ne!(settings.unwrap(), *begin, "{keys:?}");
        };
        for hidden in &all {
            check(&[hidden]);
        }
        // `folds` excludes `leave_one_out`, and a table has one kind.
        let together = all
            .iter()
            .filter(|hidden| hidden.kind.is_none() && hidden.key != "folds");
        check(&together.collect::<Vec<_>>());
    }

    #[test]
    fn tables_come_in_the_order_in_which_a_person_reads() {
        let text = text(&Settings::default(), Path::new("run.toml")).unwrap();
        let places = ["\n[data]\n", "\n[model]\n", "\n[train]\n", "\n[report]\n"]
            .map(|table| text.find(table).unwrap());
        assert!(places.is_sorted(), "{text}");
    }
}
