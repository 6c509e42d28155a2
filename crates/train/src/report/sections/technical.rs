//! What went wrong, how long it took, and with what it was made.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use crate::error::{Result, TrainError};
use crate::report::folder::{Member, RunFolder};
use crate::report::page::{Align, Page, name, table, text};
use crate::settings::Settings;

/// A list longer than that ends with how many more there are.
const MOST: usize = 100;

/// Slides that did not count, and regions that could not be decoded.
pub(super) fn skipped(run: &RunFolder) -> Markup {
    let mut rows: Vec<Vec<Markup>> = Vec::new();
    let mut regions: Vec<Vec<Markup>> = Vec::new();
    for member in &run.members {
        let skipped = &member.result.skipped;
        for (why, slides) in [
            (
                "not tested: not readable, or its outputs were no numbers",
                &skipped.test,
            ),
            (
                "not validated after the training: not readable, or its outputs were no numbers",
                &skipped.validation,
            ),
            ("not read in training, at least once", &skipped.broken),
            (
                "left out of training: its loss or gradient was no number",
                &skipped.not_finite,
            ),
        ] {
            for slide in slides {
                rows.push(vec![path(slide), name(&member.name), text(why)]);
            }
        }
        for (slide, count) in &member.result.bad_regions {
            regions.push(vec![
                path(slide),
                name(&member.name),
                text(count.to_string()),
            ]);
        }
    }
    let heading = |last| [("Slide", Align::Text), ("Training", Align::Text), last];
    html! {
        @if rows.is_empty() && regions.is_empty() {
            @if !run.members.is_empty() { p { "None: every slide was read, and gave numbers." } }
        }
        @if !rows.is_empty() { (list("Skipped slides", &heading(("Why", Align::Text)), rows)) }
        @if !regions.is_empty() {
            (list("Regions that could not be decoded and read as background", &heading(("Regions", Align::Number)), regions))
        }
    }
}

fn path(path: &std::path::Path) -> Markup {
    html! { span.path { (path.display()) } }
}

fn list(caption: &str, columns: &[(&str, Align)], mut rows: Vec<Vec<Markup>>) -> Markup {
    let more = rows.len().saturating_sub(MOST);
    rows.truncate(MOST);
    html! {
        (table(caption, &html! {}, columns, &rows))
        @if more > 0 { p { "And " (more) " more, in the trainings' result.json." } }
    }
}

/// Seconds, waiting and memory of each training.
pub(super) fn time(run: &RunFolder, page: &mut Page) -> Result<Markup> {
    let timed =
        |member: &&Member| member.result.seconds.is_some() || member.result.training.is_some();
    let members: Vec<&Member> = run.members.iter().filter(timed).collect();
    if members.is_empty() {
        return Ok(html! {});
    }
    let waiting = |member: &Member| Some(member.result.training?.waiting_share());
    let bytes: Vec<(String, Vec<Option<f64>>)> = byte_counts(run, &members);
    let names: Vec<String> = bytes.iter().map(|(key, _)| readable(key)).collect();
    let mut columns = vec![
        ("Training", Align::Text),
        ("Megapixels", Align::Number),
        ("Training and test", Align::Number),
        ("Training alone", Align::Number),
        ("Waiting for pixels", Align::Number),
    ];
    columns.extend(names.iter().map(|name| (name.as_str(), Align::Number)));
    let optional = |value: Option<String>| text(value.unwrap_or_else(|| "–".to_owned()));
    let rows: Vec<Vec<Markup>> = members
        .iter()
        .enumerate()
        .map(|(place, member)| {
            let result = &member.result;
            let mut row = vec![
                name(&member.name),
                optional(result.mean_pixels.map(|pixels| short(pixels / 1e6))),
                optional(result.seconds.map(duration)),
                optional(result.training.map(|timing| duration(timing.seconds))),
                optional(waiting(member).map(|share| format!("{:.1}%", share * 100.0))),
            ];
            row.extend(
                bytes
                    .iter()
                    .map(|(_, values)| optional(values[place].map(size))),
            );
            row
        })
        .collect();
    let mut heading = vec![
        "training",
        "mean_pixels",
        "seconds",
        "training_seconds",
        "waiting_seconds",
    ];
    heading.extend(bytes.iter().map(|(key, _)| key.as_str()));
    let plain = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let link = page.csv(
        "time",
        &heading,
        members.iter().enumerate().map(|(place, member)| {
            let result = &member.result;
            let mut row = vec![
                member.name.clone(),
                plain(result.mean_pixels),
                plain(result.seconds),
                plain(result.training.map(|timing| timing.seconds)),
                plain(result.training.map(|timing| timing.waiting_seconds)),
            ];
            row.extend(bytes.iter().map(|(_, values)| plain(values[place])));
            row
        }),
    )?;
    let caption = "Of a run that was stopped, since it was last started";
    Ok(table(caption, &link, &columns, &rows))
}

/// Memory by training: the budget, the planned peak, what was resident after a step at most, and entries of the results whose names end in `_bytes`.
fn byte_counts(run: &RunFolder, members: &[&Member]) -> Vec<(String, Vec<Option<f64>>)> {
    let budget = run
        .settings
        .as_ref()
        .and_then(|settings| settings.get("model")?.get("memory_bytes")?.as_integer());
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let budget = budget.map(|bytes| bytes as f64);
    let resident = |member: &&Member| {
        let after_steps = member.steps.numbers("memory_bytes")?.into_iter().flatten();
        after_steps.reduce(f64::max).filter(|bytes| *bytes > 0.0)
    };
    let always = [
        (
            "budget_of_a_step_bytes".to_owned(),
            vec![budget; members.len()],
        ),
        (
            "planned_peak_of_a_step_bytes".to_owned(),
            members
                .iter()
                .map(|member| member.result.planned_bytes.filter(|bytes| *bytes > 0.0))
                .collect(),
        ),
        (
            "most_resident_after_a_step_bytes".to_owned(),
            members.iter().map(resident).collect(),
        ),
    ];
    let known = always
        .into_iter()
        .filter(|(_, values)| values.iter().any(Option::is_some));
    let flat: Vec<BTreeMap<String, Value>> = members.iter().map(|member| further(member)).collect();
    let mut keys: Vec<&String> = flat
        .iter()
        .flat_map(BTreeMap::keys)
        .filter(|key| key.ends_with("_bytes"))
        .collect();
    keys.sort();
    keys.dedup();
    let stated = keys.iter().map(|key| {
        let values = flat
            .iter()
            .map(|entries| entries.get(*key)?.as_f64())
            .collect();
        ((*key).clone(), values)
    });
    known.chain(stated).collect()
}

fn further(member: &Member) -> BTreeMap<String, Value> {
    let mut entries = BTreeMap::new();
    for (key, value) in &member.result.further {
        flatten(key, value, &mut entries);
    }
    entries
}

/// Entries by their dotted names; lists count as one.
fn flatten(key: &str, value: &Value, entries: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                flatten(&format!("{key}.{name}"), value, entries);
            }
        }
        Value::Null => {}
        value => {
            entries.insert(key.to_owned(), value.clone());
        }
    }
}

/// `memory.planned_bytes` as `Memory planned`.
fn readable(key: &str) -> String {
    let words = key.trim_end_matches("_bytes").replace(['.', '_'], " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// Settings whose values are not the defaults.
pub(super) fn settings(run: &RunFolder) -> Result<Markup> {
    let Some(stored) = &run.settings else {
        return Ok(html! {});
    };
    let flat = |table: &toml::Table| -> Result<BTreeMap<String, Value>> {
        let json =
            serde_json::to_value(table).map_err(TrainError::json(&run.path.join("run.toml")))?;
        let mut entries = BTreeMap::new();
        for (key, value) in json.as_object().into_iter().flatten() {
            flatten(key, value, &mut entries);
        }
        Ok(entries)
    };
    let defaults = toml::Table::try_from(Settings::default())
        .map_err(|error| TrainError::Settings(error.to_string()))?;
    let (stored, defaults) = (flat(stored)?, flat(&defaults)?);
    let keys = stored
        .keys()
        .chain(defaults.keys())
        .collect::<std::collections::BTreeSet<_>>();
    let cell = |value: Option<&Value>| match value {
        None => text("–"),
        Some(Value::String(text)) => html! { code { (text) } },
        Some(value) => html! { code { (value) } },
    };
    let rows: Vec<Vec<Markup>> = keys
        .into_iter()
        .filter(|key| !same(stored.get(*key), defaults.get(*key)))
        .map(|key| {
            vec![
                html! { code { (key) } },
                cell(stored.get(key)),
                cell(defaults.get(key)),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Ok(html! { p { "None. All settings are in run.toml." } });
    }
    let columns = [
        ("Key", Align::Text),
        ("Here", Align::Text),
        ("Default", Align::Text),
    ];
    Ok(table(
        "The others are as by default; all are in run.toml",
        &html! {},
        &columns,
        &rows,
    ))
}

/// Whether two values are one; `1` is `1.0`.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

/// Whatever else the results say: versions, seeds, hardware, best epochs.
pub(super) fn versions(run: &RunFolder) -> Markup {
    let mut entries: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for member in &run.members {
        for (key, value) in further(member) {
            // Those that stand elsewhere in the report, and long lists.
            let elsewhere = key.ends_with("_bytes") || key == "test_slides";
            if elsewhere || matches!(&value, Value::Array(list) if list.len() > 8) {
                continue;
            }
            let value = match value {
                Value::String(text) => text,
                // Results count epochs from 0, people from 1.
                Value::Number(epoch) if key.ends_with("epoch") => epoch
                    .as_u64()
                    .map_or_else(|| epoch.to_string(), |epoch| (epoch + 1).to_string()),
                value => value.to_string(),
            };
            entries
                .entry(key)
                .or_default()
                .push((member.name.clone(), value));
        }
    }
    let seed = run
        .settings
        .as_ref()
        .and_then(|settings| settings.get("train")?.get("seed").cloned());
    let mut rows: Vec<Vec<Markup>> = Vec::new();
    if let Some(seed) = seed {
        rows.push(vec![text("Seed"), text(seed.to_string())]);
    }
    for (key, values) in entries {
        let first = values
            .first()
            .map(|value| value.1.clone())
            .unwrap_or_default();
        let shown = if values.iter().all(|value| value.1 == first) {
            first
        } else {
            let each = values
                .iter()
                .map(|(name, value)| format!("{name}: {value}"));
            each.collect::<Vec<_>>().join("; ")
        };
        rows.push(vec![text(readable(&key)), text(shown)]);
    }
    if rows.is_empty() {
        return html! {};
    }
    table(
        "As the trainings wrote them down",
        &html! {},
        &[("What", Align::Text), ("Value", Align::Text)],
        &rows,
    )
}

/// A number with three or four digits that count.
pub(in crate::report) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1.0).contains(&size) {
        format!("{value:.3}")
    } else if (1.0..10.0).contains(&size) {
        format!("{value:.2}")
    } else if (10.0..1000.0).contains(&size) {
        format!("{value:.1}")
    } else if (1000.0..1e7).contains(&size) {
        format!("{value:.0}")
    } else {
        format!("{value:.2e}")
    }
}

/// `1 h 02 min`, `3 min 20 s` or `12.5 s`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!("{} min {:02} s", (whole / 60.0).floor(), whole % 60.0)
    } else {
        format!(
            "{} h {:02} min",
            (whole / 3600.0).floor(),
            ((whole % 3600.0) / 60.0).floor()
        )
    }
}

/// Bytes in MiB or GiB.
fn size(bytes: f64) -> String {
    const MIB: f64 = 1_048_576.0;
    if bytes < 1024.0 * MIB {
        format!("{:.0} MiB", bytes / MIB)
    } else {
        format!("{:.2} GiB", bytes / (1024.0 * MIB))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0.000"),
            (0.8604, "0.860"),
            (-0.05, "-0.050"),
            (4.194, "4.19"),
            (67.1, "67.1"),
            (5000.4, "5000"),
            (1e9, "1.00e9"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
        assert_eq!(
            [duration(12.34), duration(200.0), duration(3720.0)],
            ["12.3 s", "3 min 20 s", "1 h 02 min"]
        );
        assert_eq!([size(5e8), size(2e9)], ["477 MiB", "1.86 GiB"]);
        assert_eq!(readable("memory.planned_bytes"), "Memory planned");
    }

    #[test]
    fn whole_numbers_are_alike_however_they_are_written() {
        let (a, b) = (Value::from(1), Value::from(1.0));
        assert!(same(Some(&a), Some(&b)) && !same(Some(&a), None) && same(None, None));
    }
}
