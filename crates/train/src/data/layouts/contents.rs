//! What lies in a folder and in those below it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stream_grad_slides::{find_copies, is_slide_name, slides_in_folder};

use crate::error::{Result, TrainError};

/// Folders below the root that are searched.
const DEPTH: usize = 5;

/// All files of a folder and of those below it, by path. Hidden ones are left out.
#[derive(Debug)]
pub(super) struct Contents {
    root: PathBuf,
    files: Vec<PathBuf>,
}

impl Contents {
    pub(super) fn of(root: &Path) -> Result<Self> {
        let mut contents = Self {
            root: root.to_path_buf(),
            files: Vec::new(),
        };
        contents.search(root, DEPTH)?;
        contents.files.sort();
        Ok(contents)
    }

    fn search(&mut self, folder: &Path, depth: usize) -> Result<()> {
        for entry in std::fs::read_dir(folder).map_err(TrainError::file(folder))? {
            let path = entry.map_err(TrainError::file(folder))?.path();
            if name(&path).starts_with('.') {
                continue;
            }
            if !path.is_dir() {
                self.files.push(path);
            } else if depth > 1 {
                self.search(&path, depth - 1)?;
            }
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Files of one of `names`.
    pub(super) fn named(&self, names: &[&str]) -> Vec<&Path> {
        let is_named = |path: &&Path| names.contains(&name(path));
        self.files().filter(is_named).collect()
    }

    /// The first by path of the files of one of `names`, which must have one content.
    ///
    /// # Errors
    /// [`TrainError::TwoFiles`]; [`TrainError::File`] where there is none.
    pub(super) fn table(&self, names: &[&str]) -> Result<&Path> {
        one_file(&self.named(names))?.ok_or_else(|| {
            let reason = format!("no {} in it or in its folders", names.join(" or "));
            TrainError::file(&self.root)(std::io::Error::new(std::io::ErrorKind::NotFound, reason))
        })
    }

    /// Tables (`*.csv`).
    pub(super) fn tables(&self) -> impl Iterator<Item = &Path> {
        let is_table = |path: &&Path| path.extension().is_some_and(|end| end == "csv");
        self.files().filter(is_table)
    }

    /// Slides by name without extension, as far as it is a slide's; masks are left out.
    pub(super) fn slides(&self) -> BTreeMap<String, Vec<&Path>> {
        let mut slides: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
        for path in self.files().filter(|path| is_slide(path)) {
            slides.entry(stem(path)).or_default().push(path);
        }
        slides
    }

    /// What there is, for an error.
    pub(super) fn summary(&self) -> String {
        let tables: Vec<&str> = self.tables().map(name).take(3).collect();
        let tables = if tables.is_empty() {
            "no table".to_owned()
        } else {
            tables.join(", ")
        };
        let slides = self.files().filter(|path| is_slide(path)).count();
        format!(
            "{} files, {slides} of them slides, {tables}",
            self.files.len()
        )
    }
}

/// A file's name; nothing if it is not text.
pub(super) fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// A file's name without its extension.
pub(super) fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// Whether a file is a slide by its name, and no mask.
pub(super) fn is_slide(path: &Path) -> bool {
    is_slide_name(path) && !stem(path).ends_with("_mask")
}

/// The first by path of files that are one, or have one content.
pub(super) fn one_file<'a>(paths: &[&'a Path]) -> Result<Option<&'a Path>> {
    let mut sorted = paths.to_vec();
    sorted.sort_unstable();
    let copies = find_copies(&sorted);
    let is_copy = |place: usize| copies.iter().any(|copy| copy.second == place);
    match (1..sorted.len()).find(|place| !is_copy(*place)) {
        Some(other) => Err(TrainError::TwoFiles {
            first: sorted[0].to_path_buf(),
            second: sorted[other].to_path_buf(),
        }),
        None => Ok(sorted.first().copied()),
    }
}

/// Finds slides by name, with or without extension.
pub(super) struct SlidesByName<'a> {
    slides: BTreeMap<String, Vec<&'a Path>>,
    missing: Vec<PathBuf>,
    total: usize,
}

impl<'a> SlidesByName<'a> {
    pub(super) fn of(contents: &'a Contents) -> Self {
        Self {
            slides: contents.slides(),
            missing: Vec::new(),
            total: 0,
        }
    }

    /// The slide of that name; one that is not there is counted.
    pub(super) fn find(&mut self, wanted: &Path) -> Result<Option<&'a Path>> {
        self.total += 1;
        let whole = wanted.file_name().unwrap_or_default().to_string_lossy();
        // What programs make of slides is called as these are.
        let plain = whole.strip_suffix(".h5").or(whole.strip_suffix(".pt"));
        let names = [plain.unwrap_or(&whole).to_owned(), stem(wanted)];
        let files = names.iter().find_map(|name| self.slides.get(name));
        let found = one_file(files.map(Vec::as_slice).unwrap_or_default())?;
        if found.is_none() {
            self.missing.push(wanted.to_path_buf());
        }
        Ok(found)
    }

    /// Refuses slides that were not there.
    pub(super) fn check(self, table: &Path) -> Result<()> {
        match self.missing.first() {
            None => Ok(()),
            Some(first) => Err(TrainError::MissingSlides {
                path: table.to_path_buf(),
                missing: self.missing.len(),
                total: self.total,
                first: first.clone(),
            }),
        }
    }
}

/// The slides that lie in the folder itself.
pub(super) fn slides_directly_in(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(slides_in_folder(folder)?
        .into_iter()
        .map(|listed| listed.path)
        .collect())
}
