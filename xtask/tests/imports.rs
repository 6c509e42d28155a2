//! Files of a crate import each other in one direction: a circle of more than two cannot be read in any order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module as the names on its path from the crate's root.
type Module = Vec<String>;

/// Crates without a circle.
const CRATES: [&str; 9] = [
    "tiling",
    "kernels",
    "engine",
    "stream-grad",
    "files",
    "slides",
    "models",
    "train",
    "cli",
];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module(root: &Path, file: &Path) -> Module {
    let path = file.strip_prefix(root).unwrap().with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    let names: Module = names
        .filter(|name| name != "mod" && name != "lib")
        .collect();
    names
}

/// The code before the file's tests, without comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// All paths that begin with `crate` or `super`, with braces written out.
fn paths(code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for word in ["crate::", "super::"] {
        for (place, _) in code.match_indices(word) {
            let before = code[..place].chars().next_back();
            if !before
                .is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':')
            {
                write_out(&code[place..], &mut Module::new(), &mut found);
            }
        }
    }
    found
}

/// Adds the paths that `text` begins with to `found`, and returns what comes after them.
fn write_out<'t>(text: &'t str, prefix: &mut Module, found: &mut Vec<Module>) -> &'t str {
    let depth = prefix.len();
    let mut rest = text.trim_start();
    loop {
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        if end > 0 {
            prefix.push(rest[..end].to_owned());
            rest = &rest[end..];
        } else if let Some(mut inner) = rest.strip_prefix('{') {
            while !inner.trim_start().starts_with('}') && !inner.trim_start().is_empty() {
                inner = write_out(inner, prefix, found).trim_start();
                match inner.strip_prefix(',') {
                    Some(next) => inner = next,
                    None => break,
                }
            }
            prefix.truncate(depth);
            return inner.trim_start().strip_prefix('}').unwrap_or(inner);
        }
        match rest.strip_prefix("::") {
            Some(next) => rest = next,
            None => break,
        }
    }
    found.push(prefix.clone());
    prefix.truncate(depth);
    rest
}

/// Which modules each one imports, but for those that it is inside of and those inside of it.
fn imports(root: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = Vec::new();
    sources(root, &mut files);
    let files = files.iter().map(|file| (module(root, file), file));
    let files: BTreeMap<Module, &PathBuf> = files
        .filter(|(module, _)| !module.iter().any(|name| name == "tests"))
        .collect();
    let shown = shown(&code(&fs::read_to_string(root.join("lib.rs")).unwrap()));
    let outer = files.iter().filter(|(module, _)| !module.is_empty());
    let edges = outer.map(|(module, file)| {
        let targets = paths(&code(&fs::read_to_string(file).unwrap()))
            .into_iter()
            .map(|path| where_it_is(path, &shown))
            .filter_map(|path| target(module, &path, &files))
            .filter(|target| !target.starts_with(module) && !module.starts_with(target));
        (module.clone(), targets.collect())
    });
    edges.collect()
}

/// What the crate's root shows of its modules, by name: `crate::Name` is an import of the module that defines it.
fn shown(root: &str) -> BTreeMap<String, Module> {
    let mut found = Vec::new();
    for (place, start) in root.match_indices("pub use ") {
        write_out(&root[place + start.len()..], &mut Module::new(), &mut found);
    }
    let named = found.into_iter().filter_map(|path| {
        let (name, module) = path.split_last()?;
        Some((name.clone(), module.to_vec()))
    });
    named.collect()
}

/// The path to where what a path names is defined.
fn where_it_is(path: Module, shown: &BTreeMap<String, Module>) -> Module {
    match path.get(1).and_then(|name| shown.get(name)) {
        Some(module) if path[0] == "crate" => {
            let before = std::iter::once("crate".to_owned()).chain(module.iter().cloned());
            before.chain(path[1..].iter().cloned()).collect()
        }
        _ => path,
    }
}

/// The file in which what a path names is defined.
fn target(from: &Module, path: &[String], files: &BTreeMap<Module, &PathBuf>) -> Option<Module> {
    let mut base = if path[0] == "crate" {
        Module::new()
    } else {
        from.clone()
    };
    for name in path {
        match name.as_str() {
            "crate" => {}
            "super" => drop(base.pop()),
            name => base.push(name.to_owned()),
        }
    }
    while !base.is_empty() && !files.contains_key(&base) {
        base.pop();
    }
    (!base.is_empty()).then_some(base)
}

/// Modules that each can be reached from, by imports.
fn reached(from: &Module, edges: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut next = vec![from.clone()];
    while let Some(module) = next.pop() {
        for target in &edges[&module] {
            if found.insert(target.clone()) {
                next.push(target.clone());
            }
        }
    }
    found
}

/// Sets of modules of which each reaches all others.
fn circles(edges: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<Module>> = edges
        .keys()
        .map(|module| (module, reached(module, edges)))
        .collect();
    let circle = |module: &Module| {
        let others = reached[module].iter();
        let others = others.filter(|other| reached[*other].contains(module));
        others.cloned().collect::<BTreeSet<Module>>()
    };
    let circles = edges.keys().map(circle);
    circles.filter(|circle| circle.len() > 1).collect()
}

#[test]
fn no_more_than_two_files_import_each_other() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("crates");
    for name in CRATES {
        let edges = imports(&crates.join(name).join("src"));
        let count: usize = edges.values().map(BTreeSet::len).sum();
        assert!(
            edges.len() > 5 && count > edges.len() / 2,
            "{name}: imports are not found"
        );
        for circle in circles(&edges) {
            assert!(circle.len() <= 2, "{name}: {circle:#?}");
        }
    }
}

#[test]
fn a_circle_is_found() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("crates");
    let edges = imports(&crates.join("tiling/src"));
    // The planner has its search, which has the planner's request.
    let pair = ["planner", "search"].map(|name| vec![name.to_owned()]);
    assert!(
        circles(&edges).contains(&pair.into_iter().collect()),
        "{edges:?}"
    );
    let shown = shown("pub use a::{B, C};\npub use d::e::F;");
    let moved = |path: &str| {
        let path = path.split("::").map(str::to_owned).collect();
        where_it_is(path, &shown).join("::")
    };
    assert_eq!(moved("crate::C::new"), "crate::a::C::new");
    assert_eq!(moved("crate::F"), "crate::d::e::F");
    assert_eq!(moved("crate::a::C"), "crate::a::C");
    let found = paths("use crate::a::{b, c::{d, E}};\nlet x = super::f(1);");
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "crate::a::b",
            "crate::a::c::d",
            "crate::a::c::E",
            "super::f"
        ]
    );
}
