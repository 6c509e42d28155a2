//! Figures are whole documents, whatever they are given.

use std::path::Path;

use super::*;

fn figure(marks: Vec<(Mark, Option<String>)>) -> Figure {
    Figure {
        title: "A < B & \u{1} \"C\"".to_owned(),
        alt: "What it shows, <b> & \"more\"".to_owned(),
        x: Axis::fixed("epoch", 0.0, 1.0),
        y: Axis::around("loss", [f64::NAN, 2.0, 2.0].into_iter()),
        marks,
    }
}

fn line(points: Vec<(f64, f64)>, stroke: Stroke) -> Mark {
    let colour = Colour::series(1);
    Mark::Line {
        points,
        colour,
        stroke,
    }
}

/// Parses as XML, with all text.
fn parsed(svg: &str) -> String {
    let mut reader = quick_xml::Reader::from_str(svg);
    let (mut depth, mut text) = (0_i32, String::new());
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Start(_) => depth += 1,
            quick_xml::events::Event::End(_) => depth -= 1,
            quick_xml::events::Event::Text(part) => text += part.as_ref(),
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0);
    text
}

#[test]
fn a_figure_of_everything_is_a_whole_document() {
    let band = vec![(0.0, 1.0, 2.0), (1.0, 1.5, 2.5), (0.5, f64::NAN, 1.0)];
    let colour = Colour::BLUE;
    let dots = |shape| Mark::Dots {
        points: vec![(0.5, 2.0), (f64::INFINITY, 1.0)],
        colour,
        shape,
    };
    let name = |text: &str| Some(text.to_owned());
    let marks = vec![
        (
            Mark::Band {
                points: band.clone(),
                colour,
            },
            name("band"),
        ),
        (
            Mark::Intervals {
                points: band,
                colour,
            },
            name("intervals"),
        ),
        (
            line(vec![(0.0, 1.0), (1.0, 2.0)], Stroke::Solid),
            name("training <x>"),
        ),
        (
            line(vec![(0.0, 1.0), (1.0, 2.0)], Stroke::Dashed),
            name("validation"),
        ),
        (line(Vec::new(), Stroke::Thin), None),
        (dots(Shape::Circle), name("circle")),
        (
            dots(Shape::Faint),
            name("a name that is so long that the legend needs another row for it"),
        ),
        (dots(Shape::Triangle), name("triangle")),
    ];
    let svg = figure(marks).svg(Path::new("figure.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"));
    let text = parsed(&svg);
    for part in ["training ", "epoch", "loss", "\u{fffd}"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(
        svg.contains("role=\"img\" aria-label=\"What it shows, &lt;b&gt; &amp; &quot;more&quot;\"")
    );
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn a_line_of_one_point_is_a_dot() {
    for stroke in [Stroke::Solid, Stroke::Dashed, Stroke::Thin] {
        let drawn = |points| {
            let svg = figure(vec![(line(points, stroke), None)]).svg(Path::new("line.svg"));
            svg.unwrap().matches("<circle").count()
        };
        assert_eq!(drawn(vec![(0.5, 2.0)]), 1);
        assert_eq!(drawn(vec![(0.5, 2.0), (f64::NAN, 2.0)]), 1);
        assert_eq!(drawn(vec![(0.5, 2.0), (0.6, 2.0)]), 0);
    }
}

/// No marks, one point, and values of any size give pictures.
#[test]
fn odd_ranges_are_drawn() {
    let values = [
        vec![],
        vec![0.0],
        vec![-1e300, 1e300],
        vec![1e-12, 2e-12],
        vec![5e9, 5e9 + 1.0],
        vec![f64::NAN],
    ];
    for values in values {
        let points: Vec<(f64, f64)> = values.iter().map(|value| (*value, *value)).collect();
        let all = || values.iter().copied();
        for (x, y) in [
            (Axis::around("x", all()), Axis::around("y", all())),
            (Axis::log("x", all()), Axis::log("y", all())),
            (Axis::around("x", all()), Axis::log("y", all())),
            (Axis::log("x", all()), Axis::around("y", all())),
        ] {
            let figure = Figure {
                x,
                y,
                ..figure(vec![(line(points.clone(), Stroke::Solid), None)])
            };
            parsed(&figure.svg(Path::new("odd.svg")).unwrap());
        }
    }
}

#[test]
fn a_matrix_has_its_counts_and_names() {
    let matrix = Matrix {
        title: "Confusion".to_owned(),
        alt: "Counts".to_owned(),
        names: vec!["negative".to_owned(), "isolated tumour cells".to_owned()],
        counts: vec![vec![31, 4], vec![0, 0]],
    };
    let text = parsed(&matrix.svg(Path::new("matrix.svg")).unwrap());
    for part in ["31", "4", "negative", "isolated tu…", "predicted", "truth"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let classes = Matrix::MOST;
    let largest = Matrix {
        names: vec!["x".to_owned(); classes],
        counts: vec![vec![1; classes]; classes],
        ..matrix
    };
    parsed(&largest.svg(Path::new("matrix.svg")).unwrap());
}
