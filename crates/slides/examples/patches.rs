//! Writes the patches of a slide that hold tissue as PNGs:
//! `cargo run --example patches -- SLIDE FOLDER [MICRONS_PER_PIXEL [EDGE [MINIMUM_SHARE_OF_TISSUE]]]`.
//!
//! The name of a patch says where its corner lies, in pixels of that scale from the corner of level 0 (not of the bounds, from
//! which QuPath counts). A second run finds the tissue mask and the patches of the first and goes on from there.

use std::error::Error;
use std::path::PathBuf;

use stream_grad_slides::{Mask, MicronsPerPixel, Region, Slide, Target, TissueOptions};

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [input, folder, rest @ ..] = arguments else {
        return Err(
            "usage: patches SLIDE FOLDER [MICRONS_PER_PIXEL [EDGE [MINIMUM_SHARE_OF_TISSUE]]]"
                .into(),
        );
    };
    let folder = PathBuf::from(folder);
    let edge = MicronsPerPixel::new(rest.first().map_or(Ok(1.0), |text| text.parse())?)?;
    let side: u32 = rest.get(1).map_or(Ok(256), |text| text.parse())?;
    let least: f64 = rest.get(2).map_or(Ok(0.5), |text| text.parse())?;
    if side == 0 {
        return Err("the edge of a patch must be at least 1".into());
    }

    let slide = Slide::open(input)?;
    let view = slide.view(Target::MicronsPerPixel(edge))?;
    std::fs::create_dir_all(&folder)?;
    let mask = Mask::of_tissue_cached(&slide, &TissueOptions::default(), folder.join("masks"))?;
    let whole = view.extent().region();
    let (mut written, mut kept, mut without) = (0, 0, 0);
    for top in whole.rows.step_by(side.try_into()?) {
        for left in whole.columns.clone().step_by(side.try_into()?) {
            let region = Region::new(top..top + i64::from(side), left..left + i64::from(side));
            if mask.share_in(&view, &region) < least {
                without += 1;
                continue;
            }
            let path = folder.join(format!("row{top}-column{left}.png"));
            if path.exists() {
                kept += 1;
                continue;
            }
            // What lies outside the slide is background.
            let mut patch = image::RgbImage::new(side, side);
            view.read(&region, &mut patch)?;
            // Whatever stops the program, there is never half a picture under the final name.
            let partial = path.with_extension("partial");
            patch.save_with_format(&partial, image::ImageFormat::Png)?;
            std::fs::rename(&partial, &path)?;
            written += 1;
        }
    }
    println!(
        "{}: {written} patches of {side} x {side} pixels at {edge} written, {kept} were there, {without} have too little tissue",
        folder.display()
    );
    Ok(())
}
