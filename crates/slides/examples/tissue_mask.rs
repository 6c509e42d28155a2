//! Writes a slide's tissue mask: `cargo run --example tissue_mask -- SLIDE OUT.png`.

use stream_grad_slides::{Mask, Slide, TissueOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tissue_mask SLIDE OUT.png".into());
    };
    let slide = Slide::open(&input)?;
    let mask = Mask::of_tissue(&slide, &TissueOptions::default())?;
    mask.to_image().save(&output)?;
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
