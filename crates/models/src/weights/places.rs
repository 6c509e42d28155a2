//! Where in a file a model's tensors lie: the prefix that its names have there.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Var;

use super::entry::Entry;

/// Modules that PyTorch puts around others, and whose names no model uses itself: `torch.compile`,
/// `checkpoint_wrapper` and `FullyShardedDataParallel`.
const WRAPPERS: [&str; 3] = [
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
];

/// A file's tensors under the names that they have without [`WRAPPERS`].
pub(super) struct Names<'a> {
    by_name: BTreeMap<String, Found<'a>>,
}

/// A tensor, with its name in the file.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) entry: &'a Entry,
}

impl<'a> Names<'a> {
    /// Names of a file. Where two would become one, all keep their wrappers.
    pub(super) fn new(entries: &'a BTreeMap<String, Entry>) -> Self {
        let bare: BTreeSet<String> = entries.keys().map(|name| without_wrappers(name)).collect();
        let unique = bare.len() == entries.len();
        let by_name = entries.iter().map(|(name, entry)| {
            let known_as = if unique {
                without_wrappers(name)
            } else {
                name.clone()
            };
            (known_as, Found { name, entry })
        });
        Self {
            by_name: by_name.collect(),
        }
    }

    /// The tensor that the model calls `name`, at this prefix.
    pub(super) fn get(&self, prefix: &str, name: &str) -> Option<Found<'a>> {
        self.by_name.get(&format!("{prefix}{name}")).copied()
    }

    /// All tensors, by their names without wrappers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Found<'a>)> {
        self.by_name
            .iter()
            .map(|(name, found)| (name.as_str(), *found))
    }

    /// Every prefix under which the file has a name of the model's, the best first.
    pub(super) fn places(&self, wanted: &BTreeMap<String, Var>) -> Vec<Place> {
        let mut places: BTreeMap<&str, Place> = BTreeMap::new();
        for (name, found) in self.iter() {
            let starts = name.match_indices('.').map(|(dot, _)| dot + 1);
            for start in std::iter::once(0).chain(starts) {
                let (prefix, suffix) = name.split_at(start);
                let Some(variable) = wanted.get(suffix) else {
                    continue;
                };
                let place = places.entry(prefix).or_insert_with(|| Place {
                    prefix: prefix.to_owned(),
                    named: 0,
                    fitting: 0,
                });
                place.named += 1;
                place.fitting += usize::from(fits(found.entry, variable));
            }
        }
        let mut places: Vec<Place> = places.into_values().collect();
        // The sort is stable: of two that are alike the shorter one, then the first by name.
        places.sort_by_key(|place| {
            let depth = place.prefix.matches('.').count();
            (usize::MAX - place.named, usize::MAX - place.fitting, depth)
        });
        places
    }
}

fn fits(entry: &Entry, variable: &Var) -> bool {
    entry.shape == variable.dims() && entry.element.float().is_some()
}

/// A prefix, and how many of the model's tensors are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Empty, or with a dot at the end.
    pub(super) prefix: String,
    /// Tensors that have the right name.
    pub(super) named: usize,
    /// Tensors that have the right name, shape and kind of element.
    pub(super) fitting: usize,
}

impl Place {
    /// The place of a file in which no name is right.
    pub(super) fn root() -> Self {
        Self {
            prefix: String::new(),
            named: 0,
            fitting: 0,
        }
    }
}

/// The wrappers in a name.
pub(super) fn wrappers(name: &str) -> impl Iterator<Item = &'static str> {
    name.split('.')
        .filter_map(|part| WRAPPERS.into_iter().find(|wrapper| *wrapper == part))
}

fn without_wrappers(name: &str) -> String {
    let parts: Vec<&str> = name
        .split('.')
        .filter(|part| !WRAPPERS.contains(part))
        .collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::entry::{Bytes, Element};
    use super::*;

    fn entries(names: &[(&str, usize)]) -> BTreeMap<String, Entry> {
        let file = std::sync::Arc::new(std::sync::Mutex::new(tempfile::tempfile().unwrap()));
        let entry = |&(name, size): &(&str, usize)| {
            let entry = Entry {
                shape: vec![size],
                element: Element {
                    name: "F32".into(),
                    dtype: Some(DType::F32),
                },
                bytes: Bytes::Range {
                    file: file.clone(),
                    start: 0,
                    length: 4 * size,
                },
            };
            (name.to_owned(), entry)
        };
        names.iter().map(entry).collect()
    }

    fn prefixes(names: &[(&str, usize)], wanted: &[(&str, usize)]) -> Vec<(String, usize, usize)> {
        let entries = entries(names);
        let variable = |&(name, size): &(&str, usize)| {
            let variable = Var::zeros(size, DType::F32, &Device::Cpu).unwrap();
            (name.to_owned(), variable)
        };
        let wanted = wanted.iter().map(variable).collect();
        let places = Names::new(&entries).places(&wanted).into_iter();
        places
            .map(|place| (place.prefix, place.named, place.fitting))
            .collect()
    }

    #[test]
    fn the_place_with_the_most_names_comes_first() {
        let file = [
            ("a.b.x", 1),
            ("a.y", 1),
            ("a.x", 2),
            ("x", 1),
            ("b.xx", 1),
            ("c.x.x", 1),
        ];
        let found = prefixes(&file, &[("x", 1), ("y", 1)]);
        let expected = [("a.", 2, 1), ("", 1, 1), ("a.b.", 1, 1), ("c.x.", 1, 1)];
        assert_eq!(
            found,
            expected.map(|(prefix, named, fitting)| (prefix.to_owned(), named, fitting))
        );
        assert!(prefixes(&file, &[("z", 1)]).is_empty());
        assert!(prefixes(&file, &[]).is_empty());
    }

    #[test]
    fn wrappers_are_passed_over_anywhere_unless_names_meet() {
        let wanted = [("x", 1), ("y.x", 1)];
        let wrapped = [("_orig_mod.x", 1), ("y._checkpoint_wrapped_module.x", 1)];
        assert_eq!(prefixes(&wrapped, &wanted)[0], (String::new(), 2, 2));
        let met = [("_orig_mod.x", 1), ("x", 1), ("y.x", 1)];
        let found = prefixes(&met, &wanted);
        assert_eq!(found[0], (String::new(), 2, 2));
        assert_eq!(found[1], ("_orig_mod.".to_owned(), 1, 1));
    }
}
