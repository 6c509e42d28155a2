//! Pictures in a folder for each class, below `train` and `val`: the layout of Imagenette.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::contents::{Contents, is_slide, name};
use super::{Layout, data_set, wrong_task};
use crate::data::{DataSet, Label, Sample, Split, Task};
use crate::error::{Result, TrainError};

/// WordNet's numbers of Imagenette's classes, in their order, and what they are.
const IMAGENETTE: [(&str, &str); 10] = [
    ("n01440764", "tench"),
    ("n02102040", "English springer"),
    ("n02979186", "cassette player"),
    ("n03000684", "chain saw"),
    ("n03028079", "church"),
    ("n03394916", "French horn"),
    ("n03417042", "garbage truck"),
    ("n03425413", "gas pump"),
    ("n03445777", "golf ball"),
    ("n03888257", "parachute"),
];

/// A picture's split and class, by its folders.
fn place<'a>(contents: &Contents, picture: &'a Path) -> Option<(Split, &'a str)> {
    let inner = picture.strip_prefix(contents.root()).ok()?;
    let parts: Vec<&str> = inner.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        ["train", class, _] => Some((Split::Train, class)),
        ["val", class, _] => Some((Split::Validation, class)),
        ["test", class, _] => Some((Split::Test, class)),
        _ => None,
    }
}

/// Pictures by split and class.
fn pictures(contents: &Contents) -> impl Iterator<Item = (&Path, Split, &str)> {
    let pictures = contents.files().filter(|path| is_slide(path));
    pictures.filter_map(|path| place(contents, path).map(|(split, class)| (path, split, class)))
}

pub(super) fn recognises(contents: &Contents) -> bool {
    let has = |wanted: Split| pictures(contents).any(|(_, split, _)| split == wanted);
    has(Split::Train) && has(Split::Validation)
}

/// Refuses a data set without a split that is needed, and classes without pictures, which would shift the numbers of the others.
fn check(contents: &Contents) -> Result<()> {
    if !recognises(contents) {
        return Err(TrainError::Layout {
            path: contents.root().to_path_buf(),
            expected: "pictures in a folder for each class, below `train` and `val`".to_owned(),
            found: contents.summary(),
        });
    }
    let filled: BTreeSet<(Split, &str)> = pictures(contents)
        .map(|(_, split, class)| (split, class))
        .collect();
    let refuse = |path: PathBuf| {
        Err(TrainError::Layout {
            path,
            expected: "pictures of this class".to_owned(),
            found: "none".to_owned(),
        })
    };
    for (folder, split) in [("train", Split::Train), ("val", Split::Validation)] {
        let folder = contents.root().join(folder);
        for entry in std::fs::read_dir(&folder).map_err(TrainError::file(&folder))? {
            let path = entry.map_err(TrainError::file(&folder))?.path();
            let class = name(&path);
            if path.is_dir() && !class.starts_with('.') && !filled.contains(&(split, class)) {
                return refuse(path);
            }
        }
    }
    for (_, class) in &filled {
        if !filled.contains(&(Split::Train, *class)) {
            return refuse(contents.root().join("train").join(class));
        }
    }
    Ok(())
}

pub(super) fn read(contents: &Contents, task: Task) -> Result<DataSet> {
    check(contents)?;
    let mut classes: BTreeMap<&str, usize> =
        pictures(contents).map(|(_, _, class)| (class, 0)).collect();
    for (number, place) in classes.values_mut().enumerate() {
        *place = number;
    }
    match task {
        Task::Binary if classes.len() == 2 => {}
        Task::Classification { classes: number } if number == classes.len() => {}
        _ => {
            let expected = format!("classification of {}, the folders", classes.len());
            return Err(wrong_task(Layout::Imagenette, &expected, task));
        }
    }
    let mut samples = Vec::new();
    for (path, split, class) in pictures(contents) {
        let class = classes[class];
        samples.push(Sample {
            split: Some(split),
            ..Sample::new(path, Label::of_class(class))
        });
    }
    let mut seen = [0_usize; 3];
    for sample in &samples {
        let place = Split::ALL
            .iter()
            .position(|split| sample.split == Some(*split));
        if let Some(count) = place.and_then(|place| seen.get_mut(place)) {
            *count += 1;
        }
    }
    let known: BTreeMap<&str, &str> = IMAGENETTE.into_iter().collect();
    let is_imagenette =
        classes.len() == known.len() && classes.keys().all(|name| known.contains_key(name));
    let names: Vec<&str> = classes
        .keys()
        .map(|name| match known.get(name) {
            Some(what) if is_imagenette => *what,
            _ => *name,
        })
        .collect();
    if let Some(name) = classes.keys().find(|name| name.contains(';')) {
        return Err(TrainError::Layout {
            path: contents.root().to_path_buf(),
            expected: "folders of classes without a semicolon in their names".to_owned(),
            found: format!("`{name}`"),
        });
    }
    let what = if is_imagenette {
        "Imagenette"
    } else {
        "pictures in folders"
    };
    let line = format!(
        "{what}, {} classes, {} training pictures, {} to validate, {} to test",
        names.len(),
        seen[0],
        seen[1],
        seen[2]
    );
    data_set(line, samples, task, &names)
}
