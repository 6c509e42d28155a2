//! Settings as commented TOML, from their JSON schema, which has the doc comments of the structs, and from their values.

use serde_json::{Map, Value};
use toml::Table;

/// Columns of a comment, `# ` included.
const WIDTH: usize = 100;

/// Every key of `schema` in the order of its declaration, under its documentation: with its value in `values`, or as a comment
/// where `values` has none.
///
/// The schema is one for serialisation: its `required` lists are in the order of declaration.
#[must_use]
pub(super) fn render(schema: &Value, values: &Table) -> String {
    let mut writer = Writer {
        definitions: schema.get("$defs").and_then(Value::as_object),
        text: String::new(),
    };
    writer.keys("", schema, Some(values), "");
    writer.text
}

struct Writer<'a> {
    definitions: Option<&'a Map<String, Value>>,
    text: String,
}

impl<'a> Writer<'a> {
    /// The keys of a table, each line with `prefix` before it; tables that lie in it come last, as TOML wants it.
    fn keys(&mut self, path: &str, schema: &'a Value, values: Option<&Table>, prefix: &str) {
        let properties = properties(schema);
        let (tables, plain): (Vec<_>, Vec<_>) = properties
            .into_iter()
            .map(|(name, property)| (name, property, self.resolve(property)))
            .partition(|(_, _, schema)| is_table(schema));
        for (name, property, schema) in plain {
            self.key(name, property, schema, values, prefix);
        }
        for (name, property, schema) in tables {
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            let inner = values.and_then(|values| values.get(name)?.as_table());
            // A table that is absent is shown as a comment.
            let prefix = if inner.is_some() || values.is_none() {
                prefix
            } else {
                "# "
            };
            self.table(&path, (property, schema), inner, prefix);
        }
    }

    fn table(
        &mut self,
        path: &str,
        (property, schema): (&'a Value, &'a Value),
        values: Option<&Table>,
        prefix: &str,
    ) {
        self.text.push('\n');
        self.documentation(&[property, schema]);
        if values.is_none() {
            self.comment("Absent unless this line and the keys below are made active.");
        }
        self.text.push_str(&format!("{prefix}[{path}]\n"));
        let Some(variants) = variants(schema) else {
            self.keys(path, schema, values, prefix);
            return;
        };
        let kind = |variant: &Value| tag(variant).map(|(_, kind)| kind.to_owned());
        let chosen = values.and_then(|values| {
            let here = |variant: &&&Value| {
                tag(variant).is_some_and(|(name, kind)| {
                    values.get(name).and_then(toml::Value::as_str) == Some(kind)
                })
            };
            variants.iter().find(here).copied()
        });
        for variant in &variants {
            let documentation = description(variant);
            let kind = kind(variant).unwrap_or_default();
            let keys: Vec<&str> = properties(variant)
                .into_iter()
                .map(|(name, _)| name)
                .filter(|name| tag(variant).is_none_or(|(tag, _)| tag != *name))
                .collect();
            let keys = match keys.as_slice() {
                [] => String::new(),
                keys => format!(" Its keys: {}.", keys.join(", ")),
            };
            self.comment(&format!("\"{kind}\": {documentation}{keys}"));
        }
        if let Some(variant) = chosen.or_else(|| variants.first().copied()) {
            self.keys(path, variant, values, prefix);
        }
        for variant in variants.iter().filter(|variant| Some(**variant) != chosen) {
            for (name, property) in properties(variant) {
                let schema = self.resolve(property);
                let known = chosen.is_some_and(|chosen| property_of(chosen, name).is_some());
                if !known && !is_table(schema) {
                    let kind = kind(variant).unwrap_or_default();
                    self.comment(&format!("Of \"{kind}\":"));
                    self.key(name, property, schema, None, "# ");
                }
            }
        }
    }

    fn key(
        &mut self,
        name: &str,
        property: &'a Value,
        schema: &'a Value,
        values: Option<&Table>,
        prefix: &str,
    ) {
        self.documentation(&[property, schema]);
        for (value, documentation) in constants(schema) {
            if !documentation.is_empty() {
                self.comment(&format!("  {value}: {documentation}"));
            }
        }
        let value = values.and_then(|values| values.get(name).cloned());
        let line = if let Some(value) = value {
            format!("{prefix}{name} = {value}\n")
        } else if let Some(constant) = property.get("const") {
            format!("{prefix}{name} = {constant}\n")
        } else if let Some(example) = example(property).or_else(|| default(property)) {
            format!("# {name} = {example}\n")
        } else {
            format!("# {name} = {}\n", placeholder(schema))
        };
        self.text.push_str(&line);
    }

    /// The first of these that is documented.
    fn documentation(&mut self, schemas: &[&Value]) {
        let text = schemas.iter().map(|schema| description(schema));
        if let Some(text) = text.into_iter().find(|text| !text.is_empty()) {
            for paragraph in text.split("\n\n") {
                self.comment(paragraph);
            }
        }
    }

    fn comment(&mut self, text: &str) {
        let indent = &text[..text.len() - text.trim_start().len()];
        let mut line = format!("# {indent}");
        let mut is_empty = true;
        for word in text.split_whitespace() {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.text.push_str(&format!("{line}\n"));
                line = format!("# {indent}");
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        self.text.push_str(&format!("{line}\n"));
    }

    /// What a property refers to, without the `null` of one that may be absent.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let name = schema.get("$ref").and_then(Value::as_str);
        if let Some(name) = name.and_then(|name| name.strip_prefix("#/$defs/")) {
            let definition = self.definitions.and_then(|all| all.get(name));
            return definition.map_or(schema, |definition| self.resolve(definition));
        }
        let any = schema.get("anyOf").and_then(Value::as_array);
        let mut some = any
            .into_iter()
            .flatten()
            .filter(|one| one.get("type").and_then(Value::as_str) != Some("null"));
        match (some.next(), some.next()) {
            (Some(only), None) => self.resolve(only),
            _ => schema,
        }
    }
}

/// Properties in the order of their declaration.
fn properties(schema: &Value) -> Vec<(&str, &Value)> {
    let Some(all) = schema.get("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    let required = schema.get("required").and_then(Value::as_array);
    let ordered: Vec<&str> = required
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let rest = all.keys().map(String::as_str);
    let rest = rest.filter(|name| !ordered.contains(name));
    let names = ordered.iter().copied().chain(rest);
    names
        .filter_map(|name| all.get_key_value(name))
        .map(|(name, property)| (name.as_str(), property))
        .collect()
}

fn property_of<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(name)
}

fn is_table(schema: &Value) -> bool {
    schema.get("properties").is_some() || variants(schema).is_some()
}

/// The variants of an enum whose kind stands in a key.
fn variants(schema: &Value) -> Option<Vec<&Value>> {
    let all = schema.get("oneOf")?.as_array()?;
    let tagged = all.iter().all(|variant| tag(variant).is_some());
    tagged.then(|| all.iter().collect())
}

/// The key that tells a variant, and its value.
fn tag(variant: &Value) -> Option<(&str, &str)> {
    let properties = variant.get("properties")?.as_object()?;
    properties
        .iter()
        .find_map(|(name, property)| Some((name.as_str(), property.get("const")?.as_str()?)))
}

/// Legal values of a text, with what they mean.
fn constants(schema: &Value) -> Vec<(String, String)> {
    let all = schema.get("oneOf").and_then(Value::as_array);
    let constant = |one: &Value| {
        let value = one.get("const")?;
        Some((value.to_string(), description(one)))
    };
    all.into_iter().flatten().filter_map(constant).collect()
}

/// Documentation as plain text: links of rustdoc are their words.
fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str);
    plain(text.unwrap_or_default())
}

fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('[') {
        let (before, link) = rest.split_at(start);
        plain.push_str(before);
        let Some(end) = link.find(']') else {
            rest = link;
            break;
        };
        let (words, after) = (&link[1..end], &link[end + 1..]);
        let target = after.strip_prefix('(').and_then(|rest| rest.find(')'));
        // Brackets that are no link stay: what is linked is code, or has a target.
        if words.starts_with('`') || target.is_some() {
            plain.push_str(words);
        } else {
            plain.push_str(&link[..=end]);
        }
        rest = target.map_or(after, |target| &after[target + 2..]);
    }
    plain.push_str(rest);
    plain
}

/// The default of a key as TOML; `None` where it is absent by default.
fn default(property: &Value) -> Option<String> {
    let default = property
        .get("default")
        .filter(|default| !default.is_null())?;
    let value = toml::Value::try_from(default).ok()?;
    Some(value.to_string())
}

/// The first example of a key as TOML, where its declaration gives one.
fn example(property: &Value) -> Option<String> {
    let example = property.get("examples")?.as_array()?.first()?;
    let value = toml::Value::try_from(example).ok()?;
    Some(value.to_string())
}

/// A value that shows of what kind a key is.
fn placeholder(schema: &Value) -> String {
    if let Some((value, _)) = constants(schema).into_iter().next() {
        return value;
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().find_map(|kind| match kind.as_str() {
            Some("null") => None,
            kind => kind,
        }),
        kind => kind.and_then(Value::as_str),
    };
    match kind {
        Some("string") => "\"...\"",
        Some("integer") => "0",
        Some("number") => "0.0",
        Some("boolean") => "true",
        Some("array") => "[]",
        _ => "...",
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
