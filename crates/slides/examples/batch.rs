//! Writes thumbnails and tissue masks of many slides, of a folder or of a CSV table with the column `slide`:
//! `cargo run --example batch -- FOLDER_OR_TABLE OUT [EDGE]`.
//!
//! A second run goes on where the first one stopped: what is there already is not made again. A slide that cannot be read is
//! named and skipped, and the exit status says that there was one.

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;

use stream_grad_slides::{
    ListedSlide, Mask, OpenOptions, TissueOptions, slides_in_folder, slides_in_table,
};

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [input, output, rest @ ..] = arguments else {
        return Err("usage: batch FOLDER_OR_TABLE OUT [EDGE]".into());
    };
    let edge = rest.first().map_or(Ok(1024), |edge| edge.parse())?;
    let slides = if Path::new(input).is_dir() {
        slides_in_folder(input)?
    } else {
        slides_in_table(input)?
    };
    let output = Path::new(output);
    std::fs::create_dir_all(output.join("thumbnails"))?;
    let mut names = HashSet::new();
    let (mut written, mut kept, mut failed) = (0, 0, Vec::new());
    for (index, slide) in slides.iter().enumerate() {
        let name = slide.path.file_name().unwrap_or_default().to_string_lossy();
        if !names.insert(name.to_string()) {
            return Err(format!("two slides are called {name}").into());
        }
        let path = output.join("thumbnails").join(format!("{name}.png"));
        let what = if path.exists() {
            kept += 1;
            "was there".to_owned()
        } else {
            match pictures(slide, edge, output, &path) {
                Ok(share) => {
                    written += 1;
                    format!("{:.1} % tissue", share * 100.0)
                }
                Err(error) => {
                    failed.push(name.to_string());
                    format!("skipped: {error}")
                }
            }
        };
        println!("{} of {}: {name}: {what}", index + 1, slides.len());
    }
    println!(
        "{written} written, {kept} were there, {} skipped",
        failed.len()
    );
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("these slides cannot be read: {}", failed.join(", ")).into())
    }
}

/// Writes a slide's mask, then its thumbnail, whose being there says that the slide is done. Returns the share of tissue.
fn pictures(
    slide: &ListedSlide,
    edge: u32,
    output: &Path,
    thumbnail: &Path,
) -> Result<f64, Box<dyn Error>> {
    let slide = slide.open(&OpenOptions::default())?;
    let options = TissueOptions::default();
    let mask = Mask::of_tissue_cached(&slide, &options, output.join("masks"))?;
    // Whatever stops the program, there is never half a picture under the final name.
    let partial = thumbnail.with_extension("partial");
    slide
        .thumbnail(edge)?
        .save_with_format(&partial, image::ImageFormat::Png)?;
    std::fs::rename(&partial, thumbnail)?;
    Ok(mask.share())
}
