//! Writes a slide's thumbnail: `cargo run --example thumbnail -- SLIDE OUT.png [EDGE]`.

use std::error::Error;

use stream_grad_slides::Slide;

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [input, output, rest @ ..] = arguments else {
        return Err("usage: thumbnail SLIDE OUT.png [EDGE]".into());
    };
    let edge = rest.first().map_or(Ok(1024), |edge| edge.parse())?;
    let slide = Slide::open(input)?;
    slide.check_output(output)?;
    for (index, level) in slide.levels().iter().enumerate() {
        println!(
            "level {index}: {}, downsample {}",
            level.extent, level.downsample
        );
    }
    match slide.scale() {
        Ok(scale) => println!("scale: {} by {}", scale.x, scale.y),
        Err(error) => println!("scale: {error}"),
    }
    let thumbnail = slide.thumbnail(edge)?;
    thumbnail.save(output)?;
    println!("{output}: {} x {}", thumbnail.width(), thumbnail.height());
    Ok(())
}
