//! Writes a slide's tissue mask: `cargo run --example tissue_mask -- SLIDE OUT.png`. It covers all of level 0, also where a slide
//! has bounds.

use std::error::Error;

use stream_grad_slides::{Mask, Slide, TissueOptions};

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [input, output] = arguments else {
        return Err("usage: tissue_mask SLIDE OUT.png".into());
    };
    let slide = Slide::open(input)?;
    slide.check_output(output)?;
    let mask = Mask::of_tissue(&slide, &TissueOptions::default())?;
    mask.write_png(output)?;
    println!(
        "{output}: {}, {:.1} % tissue",
        mask.extent(),
        mask.share() * 100.0
    );
    if let Some(bounds) = mask.bounding_box() {
        println!("tissue lies within {bounds} of the mask");
    }
    Ok(())
}
