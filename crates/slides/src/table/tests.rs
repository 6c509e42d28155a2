//! What spreadsheets and people write is read, or refused with its line.

use super::*;

const UTF16_LE: [u8; 2] = [0xff, 0xfe];

fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().flat_map(u16::to_le_bytes);
    UTF16_LE.into_iter().chain(units).collect()
}

fn rows(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let table = SlideTable::parse("t.csv", bytes)?;
    let label = |row: SlideRow<'_>| {
        table
            .text()
            .cell(row.text, "label")
            .unwrap_or("")
            .to_owned()
    };
    let row = |row: SlideRow<'_>| (row.slide.display().to_string(), label(row));
    Ok(table.rows().map(row).collect())
}

#[test]
fn one_table_in_many_spellings() {
    let right = [("a, b.tif", "1"), ("ü.tif", "0")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let comma = "slide,label\n\"a, b.tif\",1\nü.tif,0\n";
    for (habit, bytes) in [
        ("comma", comma.as_bytes().to_vec()),
        ("byte order mark", format!("\u{feff}{comma}").into_bytes()),
        ("CR LF", comma.replace('\n', "\r\n").into_bytes()),
        ("CR alone", comma.replace('\n', "\r").into_bytes()),
        ("no last line end", comma.trim_end().as_bytes().to_vec()),
        ("UTF-16", utf16(&comma.replace('\n', "\r\n"))),
        ("semicolon", "slide;label\na, b.tif;1\nü.tif;0\n".into()),
        ("tab", "slide\tlabel\na, b.tif\t1\nü.tif\t0\n".into()),
        (
            "separator line",
            "sep=;\r\nslide;label\r\na, b.tif;1\r\nü.tif;0\r\n".into(),
        ),
        (
            "capitals",
            comma.replace("slide,label", "SLIDE,Label").into_bytes(),
        ),
        (
            "blanks",
            " slide , label \n\"a, b.tif\" , 1\n ü.tif ,0 \n".into(),
        ),
        (
            "blank lines",
            format!("{comma}\n\n,\n,,,\n \n").into_bytes(),
        ),
        (
            "empty columns",
            "slide,label,,\n\"a, b.tif\",1,,\nü.tif,0,,\n".into(),
        ),
    ] {
        assert_eq!(rows(&bytes).unwrap(), right, "{habit}");
    }
    assert_eq!(rows(b"slide\n").unwrap(), []);
}

#[test]
fn separators_within_cells_are_not_separators() {
    let table = TextTable::parse("t.csv", b"slide;a,b;c\tslide\nx;1,2;3\n", "slide").unwrap();
    assert_eq!(table.columns(), ["slide", "a,b", "c\tslide"]);
    assert_eq!(table.rows()[0].cells, ["x", "1,2", "3"]);
    // Commas win where both would do.
    let table = TextTable::parse("t.csv", b"slide,\"x;slide;y\"\na,b\n", "slide").unwrap();
    assert_eq!(table.columns(), ["slide", "x;slide;y"]);
}

#[test]
fn columns_without_a_name_are_named_by_their_place() {
    let table = SlideTable::parse("t.csv", b",slide,,\n0,a.tif,,\n1,b.tif,,x\n").unwrap();
    assert_eq!(
        table.text().columns(),
        ["Unnamed: 0", "slide", "Unnamed: 3"]
    );
    let row = table.rows().last().unwrap();
    let further = table.text().further(row.text, &["slide"]);
    let further: Vec<_> = further
        .iter()
        .map(|cell| (cell.column.as_str(), cell.text.as_str()))
        .collect();
    assert_eq!(further, [("Unnamed: 0", "1"), ("Unnamed: 3", "x")]);
}

#[test]
fn what_is_ambiguous_is_refused_with_its_line() {
    for (bytes, parts) in [
        (
            &b"slide,Slide\na,b\n"[..],
            &["line 1", "repeated column `Slide`", "columns 1 and 2"][..],
        ),
        (
            b"slide,age,Age\na,1,2\n",
            &["line 1", "repeated column `Age`"],
        ),
        (
            b"slide|label\na|1\n",
            &["line 1", "a column `slide`", "`slide|label`"],
        ),
        (
            b"slide,label\na,1\nb,1,0\n",
            &["line 3", "2 fields", "3 fields"],
        ),
        (
            b"slide,label\r\na,1\r\n\r\nb\r\n",
            &["line 4", "2 fields", "1 fields"],
        ),
        (
            b"slide,label\ra,1\r\rb\r",
            &["line 4", "2 fields", "1 fields"],
        ),
        (b"sep=;\nslide;label\na;1\nb\n", &["line 4", "2 fields"]),
        (
            b"slide,label\na,1\nb\xfc,1\n",
            &["line 3", "UTF-8", "byte order mark"],
        ),
        (b"s\0l\0i\0d\0e\0\n\0", &["line 1", "NUL"]),
        (b"\xff\xfes\0l\0i\0d\0e\0\n\0\x00\xd8\n\0", &["UTF-16LE"]),
        (b"slide,label\n\n,1\n", &["line 3", "the path of a slide"]),
        (
            b"slide,label\na.tif,1\nb.tif,1\n./a.tif,0\n",
            &["line 4", "line 2", "`./a.tif`", "`a.tif`"],
        ),
        (
            b"slide,microns_per_pixel\na.tif,0.5\nb.tif,\"0,5\"\n",
            &["line 3", "`0,5`"],
        ),
    ] {
        let message = SlideTable::parse("t.csv", bytes).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }
}

/// A folder with `s.tif`, and a table beside it that names it and another name of it.
fn twice(name: &str, make: impl FnOnce(&Path)) -> Result<SlideTable> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("x")).unwrap();
    std::fs::write(folder.path().join("s.tif"), "pixels").unwrap();
    make(folder.path());
    let table = folder.path().join("t.csv");
    std::fs::write(&table, format!("slide\nno.tif\ns.tif\n{name}\n")).unwrap();
    SlideTable::read(&table)
}

#[test]
fn one_file_under_two_names_is_refused_with_both_lines() {
    let hard_link = |folder: &Path| {
        std::fs::hard_link(folder.join("s.tif"), folder.join("hard.tif")).unwrap();
    };
    let absolute = tempfile::tempdir().unwrap();
    let elsewhere = absolute.path().join("t.tif");
    let mut names = vec![
        twice("./s.tif", |_| ()),
        twice("x/../s.tif", |_| ()),
        twice("x/.././x/../s.tif", |_| ()),
        twice("hard.tif", hard_link),
    ];
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        names.push(twice("link.tif", |folder| {
            symlink("s.tif", folder.join("link.tif")).unwrap()
        }));
        names.push(twice("y/s.tif", |folder| {
            symlink(".", folder.join("y")).unwrap()
        }));
        let link = |folder: &Path| symlink(folder.join("s.tif"), &elsewhere).unwrap();
        names.push(twice(elsewhere.to_str().unwrap(), link));
    }
    for read in names {
        let message = read.unwrap_err().to_string();
        for part in ["line 4", "line 3", "each slide once"] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
    }
}

#[test]
fn one_content_under_two_names_is_told() {
    let write = |content: &'static str| {
        move |folder: &Path| std::fs::write(folder.join("copy.tif"), content).unwrap()
    };
    assert_eq!(
        twice("copy.tif", write("pixels")).unwrap().same_content(),
        [(1, 2)]
    );
    assert_eq!(
        twice("copy.tif", write("pixelt")).unwrap().same_content(),
        []
    );
    assert_eq!(
        twice("copy.tif", write("pixels!")).unwrap().same_content(),
        []
    );
}

#[test]
fn empty_and_missing_files_are_no_copies() {
    let folder = tempfile::tempdir().unwrap();
    let slides = ["a.tif", "b.tif", "c.tif", "d.tif"].map(|name| folder.path().join(name));
    std::fs::write(&slides[0], "").unwrap();
    std::fs::write(&slides[1], "").unwrap();
    assert_eq!(find_copies(&slides), []);
    // The same missing name twice is one file all the same.
    let copies = find_copies(&[&slides[2], &slides[3], &slides[2]]);
    assert_eq!(copies.len(), 1);
    assert_eq!(
        (copies[0].first, copies[0].second, copies[0].kind),
        (0, 2, CopyKind::OneFile)
    );
}

/// Large files are compared by blocks: at both ends, in the middle, and wherever else a block lies.
#[test]
fn large_files_are_compared_by_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..3_000_001u32).map(|place| (place % 251) as u8).collect();
    let first = folder.path().join("first.tif");
    std::fs::write(&first, &content).unwrap();
    for place in [
        None,
        Some(0),
        Some(content.len() / 2),
        Some(content.len() - 1),
    ] {
        let mut other = content.clone();
        if let Some(place) = place {
            other[place] ^= 1;
        }
        let second = folder.path().join("second.tif");
        std::fs::write(&second, &other).unwrap();
        let copies = find_copies(&[&first, &second]);
        assert_eq!(copies.len(), usize::from(place.is_none()), "{place:?}");
    }
}

/// The files of MIRAX are small and alike: its pixels lie in a folder beside it.
#[test]
fn files_beside_a_slide_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, pixels) in [("a", "one"), ("b", "two"), ("c", "one")] {
        std::fs::write(path(name).with_extension("mrxs"), "alike").unwrap();
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("Data0000.dat"), pixels).unwrap();
    }
    std::fs::write(path("without.mrxs"), "alike").unwrap();
    let slides = ["a.mrxs", "b.mrxs", "without.mrxs", "c.mrxs"].map(path);
    let copies = find_copies(&slides);
    assert_eq!(copies.len(), 1);
    assert_eq!(
        (copies[0].first, copies[0].second, copies[0].kind),
        (0, 3, CopyKind::SameContent)
    );

    for (name, pixels) in [("d", "one"), ("e", "two")] {
        std::fs::write(path(name).with_extension("vms"), "alike").unwrap();
        std::fs::write(path(&format!("{name}_map2.jpg")), pixels).unwrap();
    }
    assert_eq!(find_copies(&[path("d.vms"), path("e.vms")]), []);
}

#[test]
fn a_column_that_lacks_is_named_with_those_that_are_there() {
    for bytes in ["slide_id,label\na,1\n", "label;slide_id\na;1\n"] {
        let message = SlideTable::parse("t.csv", bytes.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(message.contains("column `slide`"), "{message}");
        assert!(message.contains("`slide_id`, `label`"), "{message}");
    }
    let table = TextTable::parse("t.csv", b"slide,isup,gleason,grades\n", "slide").unwrap();
    assert_eq!(table.nearest_columns("Grade")[0], "grades");
}
